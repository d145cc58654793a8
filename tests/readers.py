#!/usr/bin/env python3
"""Seven independent readers open volumes of an archive, and must find what its commits say.

A volume is a folder with a Delta table, for instance `archive/events/2026`. The expected answers are derived without any of
the readers: this script replays the JSON commits from the first one on, and reads the files that they name one by one. Then each
reader answers questions with its own engine: the number of rows, a sum, the bounds of the time column, the rows of the later half
of that time (if statistics were wrong, files would be left out), and the rows of the last day (so that partitions are used). The
last question is for all rows, whose columns are counted and weighed. Any difference is printed, and the exit code is 1.

If a volume has a checkpoint, each reader also opens copies of the volume (hard links where possible):
    cut      commits before the newest checkpoint are gone, as in a log that was cleaned up: can the reader read the checkpoint?
    garbled  these commits are there but contain garbage: does the reader begin with the checkpoint?
Both copies are made with and without `_last_checkpoint`, and all questions but the last are asked again. The verdict on a reader is
`used` if it answers all of them, `read` if it answers with commits cut but reads older commits where there are some, `hint` if it
finds no checkpoint without `_last_checkpoint`, and `no`, with the reason, if it cannot read the checkpoint. A wrong answer is always
a difference. If a reader refuses a copy, that is no difference, unless --checkpoint-by names the reader.

Known limits of these readers, for which the script allows:
    Polars, Daft and Spark SQL take a file name in the form of a URL for a name on the disk, without decoding it. So they find nothing
    in a folder whose path has a space or a letter outside of ASCII, and always get a copy under a plain name. Polars and Daft take
    the list of files from delta-rs.
    chDB has no binary type (text instead) and no lists that are null (empty instead).
    DuckDB reads Delta with its own extension, which PyPI has for the release line 1.5 as a package.
    Spark SQL is Sail, an engine in Rust that speaks Spark Connect, asked by Spark's own client.
"""

import argparse
import datetime
import functools
import importlib.metadata
import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import warnings

# Time limit of one reader for all volumes.
READER_SECONDS = 600
# How much of a reader's error is shown.
REASON_CHARACTERS = 160

COMMIT = re.compile(r"([0-9]{20})\.json")
CHECKPOINT = re.compile(r"([0-9]{20})\.checkpoint\.parquet")
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class Refused(Exception):
    """A volume does not look like one of our Delta tables."""


# --- what the commits say ---------------------------------------------------------------------------------------------


class Log:
    """The state that the actions of a volume's log lead to: the files of the table, its schema, and the positions of applications."""

    def __init__(self):
        self.files, self.transactions, self.metadata, self.version = {}, {}, None, None

    def apply(self, action):
        if add := action.get("add"):
            self.files[add["path"]] = add
        elif remove := action.get("remove"):
            self.files.pop(remove["path"], None)
        elif txn := action.get("txn"):
            self.transactions[txn["appId"]] = txn["version"]
        elif metadata := action.get("metaData"):
            self.metadata = metadata
        elif protocol := action.get("protocol"):
            if protocol["minReaderVersion"] > 1:
                raise Refused(f"it asks for reader version {protocol['minReaderVersion']}")

    def paths(self, volume):
        """Paths of the files of the table. (The log has their names in the form of a URL.)"""
        return [volume / urllib.parse.unquote(path) for path in self.files]

    def columns(self):
        """Names and types of columns; a list is `array`."""
        fields = json.loads(self.metadata["schemaString"])["fields"]
        return {field["name"]: field["type"] if isinstance(field["type"], str) else field["type"]["type"] for field in fields}

    def time_column(self):
        columns = self.columns()
        indexed = self.metadata["configuration"].get("delta.dataSkippingStatsColumns", "").split(",")
        return next(name for name in [*indexed, *columns] if columns.get(name) == "timestamp")

    def number_column(self):
        columns = self.columns()
        return "source_offset" if "source_offset" in columns else next(name for name, kind in columns.items() if kind in ("long", "integer"))


def names(volume, pattern):
    """The versions of all files in the log whose names match, ascending."""
    matches = (pattern.fullmatch(name) for name in os.listdir(volume / "_delta_log"))
    return sorted(int(match[1]) for match in matches if match)


def commit_of(volume, version):
    return volume / "_delta_log" / f"{version:020}.json"


def apply_commits(log, volume, versions):
    for version in versions:
        for line in commit_of(volume, version).read_bytes().splitlines():
            if line:
                log.apply(json.loads(line))
        log.version = version
    return log


def replay(volume):
    versions = names(volume, COMMIT)
    if not versions or versions != list(range(len(versions))):
        raise Refused("its commits do not begin with 0, or one is missing")
    log = apply_commits(Log(), volume, versions)
    if log.metadata is None:
        raise Refused("no commit has metadata")
    return log


def replay_from_checkpoint(volume):
    """Like `replay`, but from the newest checkpoint on, as a reader has to do it if earlier commits are gone."""
    import pyarrow.parquet as pq

    checkpoints = names(volume, CHECKPOINT)
    log, after = Log(), -1
    if checkpoints:
        after = checkpoints[-1]
        for row in pq.ParquetFile(volume / "_delta_log" / f"{after:020}.checkpoint.parquet").read().to_pylist():
            action = {kind: value for kind, value in row.items() if value is not None}
            for kind in ("add", "metaData"):
                for field in ("partitionValues", "tags", "configuration"):
                    if action.get(kind, {}).get(field) is not None:
                        action[kind][field] = dict(action[kind][field])
            log.apply(action)
        log.version = after
    return apply_commits(log, volume, [version for version in names(volume, COMMIT) if version > after])


def micros(text):
    return (datetime.datetime.fromisoformat(text) - EPOCH) // datetime.timedelta(microseconds=1)


def day_of(add):
    return add["partitionValues"].get("date")


class Expected:
    """The expected answers for one volume, and the questions that every reader is asked."""

    def __init__(self, volume):
        log = replay(volume)
        self.number, self.time, self.columns = log.number_column(), log.time_column(), log.columns()
        stats = [json.loads(add["stats"]) for add in log.files.values()]
        bounds = [(stat["minValues"].get(self.time), stat["maxValues"].get(self.time)) for stat in stats]
        known = [(micros(least), micros(greatest)) for least, greatest in bounds if least is not None]
        self.version, self.files, self.transactions = log.version, len(log.files), log.transactions
        self.rows = sum(stat["numRecords"] for stat in stats)
        self.least, self.greatest = min((least for least, _ in known), default=None), max((most for _, most in known), default=None)
        self.middle = (self.least + self.greatest) // 2 if known else 0
        self.day = max((day_of(add) for add in log.files.values()), default=None)
        self.differences = []
        for add, stat in zip(log.files.values(), stats):
            rows = (add.get("tags") or {}).get("rows")
            if rows is not None and int(rows) != stat["numRecords"]:
                self.differences.append(f"{add['path']}: the tag says {rows} rows, the statistics {stat['numRecords']}")
        self.read(volume, log)

    def read(self, volume, log):
        """Reads the files one by one, for what the statistics do not say."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        self.sum, self.late, self.last_day, self.weights = 0, 0, 0, {}
        for path, add in zip(log.paths(volume), log.files.values()):
            table = pq.ParquetFile(path).read()
            stat = json.loads(add["stats"])
            times = table[self.time].cast(pa.int64())
            found = (table.num_rows, pc.min(times).as_py(), pc.max(times).as_py())
            said = (stat["numRecords"], *(micros(stat[which][self.time]) if self.time in stat[which] else None for which in ("minValues", "maxValues")))
            if found[0] != said[0] or (said[1] is not None and found != said):
                self.differences.append(f"{add['path']} holds {found}, its statistics say {said}")
            if path.stat().st_size != add["size"]:
                self.differences.append(f"{add['path']} has {path.stat().st_size} bytes, its commit says {add['size']}")
            self.sum += total(table[self.number])
            self.late += pc.sum(pc.greater_equal(times, self.middle)).as_py() or 0
            self.last_day += table.num_rows if day_of(add) == self.day else 0
            for name, weight in weigh(table).items():
                before = self.weights.get(name, (0, 0))
                self.weights[name] = (before[0] + weight[0], before[1] + weight[1])

    def question(self):
        keys = ("number", "time", "middle", "day", "rows")
        return {key: getattr(self, key) for key in keys}

    def compare(self, reader, found):
        """Differences of an answer, in words."""
        for key in ("version", "rows", "sum", "least", "greatest", "late", "last_day", "files"):
            said, wanted = found.get(key), getattr(self, key)
            # Not every reader reports the version and the files. Every reader has to report the rest.
            if said != wanted and not (said is None and key in ("version", "files")):
                yield f"{key} is {said}, not {wanted}"
        if found.get("transactions") not in (None, self.transactions):
            yield "the positions of applications differ"
        if "weights" not in found:
            return
        columns = set(found["weights"]) ^ set(self.columns)
        if columns:
            yield f"columns differ: {', '.join(sorted(columns))}"
        for name, (count, weight) in self.weights.items():
            their_count, their_weight = found["weights"].get(name, (None, None))
            null_lists = reader == "chDB" and self.columns[name] == "array"
            if int(their_weight or 0) != weight or (their_count != count and not null_lists):
                yield f"{name} has {their_count} values that weigh {their_weight}, not {count} and {weight}"
        for name, kind in found["kinds"].items():
            wanted = "string" if reader == "chDB" and self.columns.get(name) == "binary" else self.columns.get(name)
            if kind != wanted:
                yield f"{name} is {kind}, not {wanted}"


# --- what a reader hands out ------------------------------------------------------------------------------------------


def kind_of(kind):
    """An Arrow type in the words of a Delta schema."""
    import pyarrow.types as types

    tests = {
        "string": lambda kind: types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind),
        "binary": lambda kind: types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind),
        "array": lambda kind: types.is_list(kind) or types.is_large_list(kind),
        "timestamp": lambda kind: types.is_timestamp(kind) and kind.unit == "us" and kind.tz in ("UTC", "Etc/UTC", "+00:00"),
        "long": types.is_int64,
        "integer": types.is_int32,
        "date": types.is_date32,
    }
    return next((name for name, test in tests.items() if test(kind)), str(kind))


def total(column):
    """A sum. Sums of offsets and of times do not fit into 64 bits, so the halves of the numbers are added separately."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = column.cast(pa.int64())
    high, low = pc.sum(pc.shift_right(column, 32)).as_py(), pc.sum(pc.bit_wise_and(column, 0xFFFFFFFF)).as_py()
    return ((high or 0) << 32) + (low or 0)


def weigh(table):
    """How many values each column has and what they weigh: bytes of text, sums of numbers, items of lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    weights = {}
    for name in table.column_names:
        column, kind = table[name], kind_of(table[name].type)
        if kind == "date":
            continue
        if kind == "array":
            weight = pc.sum(pc.list_value_length(column)).as_py() or 0
        elif kind in ("string", "binary"):
            if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
                column = column.cast(pa.large_binary())
            weight = pc.sum(pc.cast(pc.binary_length(column), pa.int64())).as_py() or 0
        else:
            weight = total(column)
        weights[name] = (len(column) - column.null_count, weight)
    return weights


def contents(table):
    """Weights and types of all rows that a reader returned."""
    kinds = {field.name: kind_of(field.type) for field in table.schema}
    weights = {name: (count, str(weight)) for name, (count, weight) in weigh(table).items()}
    weights |= {name: (len(table[name]) - table[name].null_count, "0") for name, kind in kinds.items() if kind == "date"}
    return {"weights": weights, "kinds": kinds}


def answer(question, row, read, files=None, **more):
    """Answers with the rows that `read` gives. They are not read again for copies of a volume, which differ only in the log."""
    rows, added, least, greatest, late, last_day = row
    number = lambda value: None if value is None else int(value)
    counts = {"rows": int(rows), "sum": int(added or 0), "late": int(late or 0), "last_day": int(last_day or 0)}
    return {**counts, "least": number(least), "greatest": number(greatest), "files": files, **more, **(contents(read()) if question["contents"] else {})}


def sql(question, source, as_micros, moment, quote='"'):
    """Returns the questions as SQL. Dialects differ in how they turn a time into a number and back. The filters are in subqueries,
    so that an engine can leave out files because of them."""
    number, time, date = (quote + name + quote for name in (question["number"], question["time"], "date"))
    middle, day = question["middle"], question["day"] or "1970-01-01"
    bounds = [as_micros.format(f"{which}({time})") for which in ("min", "max")]
    late = f"(SELECT count(*) FROM {source} WHERE {time} >= {moment.format(middle)})"
    last_day = f"(SELECT count(*) FROM {source} WHERE {date} = CAST('{day}' AS DATE))"
    columns = ["count(*)", f"sum({number})", *bounds, late, last_day]
    return "SELECT " + ", ".join(f"{column} AS c{at}" for at, column in enumerate(columns)) + f" FROM {source}"


class DeltaRs:
    package, gets_copy = "deltalake", False

    def ask(self, volume, question):
        import deltalake
        import pyarrow as pa

        delta = deltalake.DeltaTable(str(volume))
        engine = deltalake.QueryBuilder().register("volume", delta)
        text = sql(question, "volume", "CAST({} AS BIGINT)", "arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')")
        row = [column[0].as_py() for column in pa.table(engine.execute(text).read_all()).columns]
        read = lambda: pa.table(engine.execute("SELECT * FROM volume").read_all())
        return answer(question, row, read, len(delta.file_uris()), version=delta.version())


class Spark:
    package, gets_copy = "pysail", True

    @functools.cached_property
    def session(self):
        import pyspark
        from pysail.spark import SparkConnectServer

        # The client searches for a Spark on this machine, but needs none.
        os.environ["SPARK_HOME"] = str(pathlib.Path(pyspark.__file__).parent)
        from pyspark.sql.connect.session import SparkSession

        self.server = SparkConnectServer("127.0.0.1", 0)
        self.server.start(background=True)
        host, port = self.server.listening_address
        session = SparkSession.builder.remote(f"sc://{host}:{port}").getOrCreate()
        session.conf.set("spark.sql.session.timeZone", "UTC")
        return session

    def ask(self, volume, question):
        frame = self.session.read.format("delta").load(str(volume))
        frame.createOrReplaceTempView("volume")
        text = sql(question, "volume", "unix_micros({})", "timestamp_micros({})", quote="`")
        row = list(self.session.sql(text).collect()[0])
        return answer(question, row, frame.toArrow)


class DuckDb:
    package, gets_copy = "duckdb", False

    @functools.cached_property
    def connection(self):
        import duckdb
        import duckdb_extension_delta

        folder = pathlib.Path(duckdb_extension_delta.__file__).parent / "extensions"
        extension = folder / f"v{duckdb.__version__}" / "delta.duckdb_extension"
        connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
        connection.execute(f"LOAD '{quoted(extension)}'")
        connection.execute("SET timezone = 'UTC'")
        return connection

    def ask(self, volume, question):
        source = f"delta_scan('{quoted(volume)}')"
        row = self.connection.execute(sql(question, source, "epoch_us({})", "make_timestamptz({})")).fetchone()
        files = self.connection.execute(f"SELECT count(DISTINCT filename) FROM delta_scan('{quoted(volume)}', filename = true)")
        files = files.fetchone()[0]
        return answer(question, row, lambda: self.connection.execute(f"SELECT * FROM {source}").to_arrow_table(), files)


class ChDb:
    package, gets_copy = "chdb-core", False

    def ask(self, volume, question):
        import chdb

        path = str(volume).replace("\\", "\\\\").replace("'", "\\'")
        source = f"deltaLakeLocal('{path}')"
        # An aggregate over nothing is 0 or 1970 here, not null.
        text = sql(question, source, "toUnixTimestamp64Micro({})", "fromUnixTimestamp64Micro({}, 'UTC')")
        text += " SETTINGS aggregate_functions_null_for_empty = 1"
        row = [None if value == "\\N" else int(value) for value in chdb.query(text, "TSV").bytes().decode().split()]
        files = int(chdb.query(f"SELECT uniqExact(_path) FROM {source}", "TSV").bytes())
        return answer(question, row, lambda: chdb.query(f"SELECT * FROM {source}", "ArrowTable"), files)


class Polars:
    package, gets_copy = "polars", True

    def ask(self, volume, question):
        import polars as pl

        frame = pl.scan_delta(str(volume))
        time = pl.col(question["time"])
        bounds = [time.min().dt.epoch("us").alias("least"), time.max().dt.epoch("us").alias("greatest")]
        row = frame.select(pl.len(), pl.col(question["number"]).sum(), *bounds).collect().row(0)
        moment = pl.lit(question["middle"]).cast(pl.Datetime("us", "UTC"))
        late = frame.filter(time >= moment).select(pl.len()).collect().item()
        day = datetime.date.fromisoformat(question["day"] or "1970-01-01")
        last_day = frame.filter(pl.col("date") == day).select(pl.len()).collect().item()
        return answer(question, [*row, late, last_day], lambda: frame.collect().to_arrow())


class PyArrow:
    """A reader of Parquet files only. This script derives the list of files from the newest checkpoint and the commits after it."""

    package, gets_copy = "pyarrow", False

    def ask(self, volume, question):
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        log = replay_from_checkpoint(volume)
        plain = {"string": pa.string(), "binary": pa.binary(), "array": pa.list_(pa.string()), "long": pa.int64(), "integer": pa.int32()}
        kinds = plain | {"timestamp": pa.timestamp("us", "UTC"), "date": pa.date32()}
        # With a schema, a table without files has columns as well.
        tables = [pa.schema([(name, kinds[kind]) for name, kind in log.columns().items()]).empty_table()] if not log.files else []
        tables += [
            pq.ParquetFile(path).read().append_column("date", pa.array([day_of(add)], pa.string()).cast(pa.date32()).take(nulls(path)))
            for path, add in zip(log.paths(volume), log.files.values())
        ]
        table = pa.concat_tables(tables)
        times, numbers = table[question["time"]].cast(pa.int64()), table[question["number"]]
        late = pc.sum(pc.greater_equal(times, question["middle"])).as_py()
        last_day = pc.sum(pc.equal(pc.cast(table["date"], pa.string()), question["day"])).as_py()
        row = [table.num_rows, total(numbers), pc.min(times).as_py(), pc.max(times).as_py(), late, last_day]
        return answer(question, row, lambda: table, len(log.files), version=log.version, transactions=log.transactions)


class Daft:
    package, gets_copy = "daft", True

    def ask(self, volume, question):
        import daft
        from daft import col

        frame = daft.read_deltalake(str(volume))
        number, time = col(question["number"]), col(question["time"])
        aggregates = [col("date").count("all").alias("rows"), number.sum().alias("sum"), time.min().alias("least"), time.max().alias("greatest")]
        found = frame.select("date", question["number"], question["time"]).agg(*aggregates).to_pylist()[0]
        bounds = [None if found[key] is None else (found[key] - EPOCH) // datetime.timedelta(microseconds=1) for key in ("least", "greatest")]
        moment = EPOCH + datetime.timedelta(microseconds=question["middle"])
        day = datetime.date.fromisoformat(question["day"] or "1970-01-01")
        late, last_day = (frame.where(condition).count_rows() for condition in (time >= moment, col("date") == day))
        return answer(question, [found["rows"], found["sum"], *bounds, late, last_day], frame.to_arrow)


READERS = {"delta-rs": DeltaRs, "Spark SQL": Spark, "DuckDB": DuckDb, "chDB": ChDb, "Polars": Polars, "PyArrow": PyArrow, "Daft": Daft}


def quoted(path):
    return str(path).replace("'", "''")


def nulls(path):
    """Indices that repeat the one value of a partition for every row of a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.array([0] * pq.ParquetFile(path).metadata.num_rows, pa.int64())


def one_reader(name):
    """The child process of one reader: places and questions come in on standard input, answers go out as JSON lines."""
    warnings.simplefilter("ignore")
    logging.disable()
    # Output of libraries must not come between the answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    reader = READERS[name]()
    for line in sys.stdin:
        task = json.loads(line)
        try:
            found = reader.ask(pathlib.Path(task["place"]), task["question"])
        except Exception as error:
            found = {"refused": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(found), file=out, flush=True)
    # Threads of an engine would keep the process alive.
    os._exit(0)


# --- copies of a volume whose log differs -----------------------------------------------------------------------------


def copy(volume, to, leave_out=frozenset(), garbled=frozenset()):
    for folder, _, files in os.walk(volume):
        there = to / pathlib.Path(folder).relative_to(volume)
        there.mkdir(parents=True, exist_ok=True)
        for name in files:
            source, target = pathlib.Path(folder) / name, there / name
            if name in leave_out and there.name == "_delta_log":
                continue
            if name in garbled and there.name == "_delta_log":
                target.write_text("not JSON, and nobody has to look\n")
                continue
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
    return to


# Copies in which the checkpoint is needed.
COPIES = ("cut", "cut without hint", "garbled", "garbled without hint")


def copies(volume, folder, whole_only):
    """The volume as it is under a plain name, and, if it has a checkpoint, the copies that need it."""
    made = {"plain": copy(volume, folder / "plain")}
    checkpoints = names(volume, CHECKPOINT)
    if checkpoints and checkpoints[-1] > 0 and not whole_only:
        old = {commit_of(volume, version).name for version in names(volume, COMMIT) if version < checkpoints[-1]}
        hint = "_last_checkpoint"
        if (volume / "_delta_log" / hint).is_file():
            made["cut"] = copy(volume, folder / "cut", leave_out=old)
            made["garbled"] = copy(volume, folder / "garbled", garbled=old)
        made["cut without hint"] = copy(volume, folder / "cut-bare", leave_out=old | {hint})
        made["garbled without hint"] = copy(volume, folder / "garbled-bare", leave_out={hint}, garbled=old)
    return made


def verdict(answers):
    """The verdict on how a reader uses a checkpoint, in a word, with the reason if it does not use it."""
    reads = {kind: "refused" not in found for kind, found in answers.items() if kind in COPIES}
    if not reads:
        return "none", None
    reason = next((found["refused"] for kind, found in answers.items() if kind in COPIES and "refused" in found), None)
    if all(reads.values()):
        return "used", None
    if not any(is_read for kind, is_read in reads.items() if kind.startswith("cut")):
        return "no", reason
    if all(is_read for kind, is_read in reads.items() if "without" not in kind):
        return "hint", reason
    return "read", reason


# --- the judgement ----------------------------------------------------------------------------------------------------


def ask(name, tasks):
    """The answers of one reader, from a separate process: some readers cannot share a process, and a reader may crash."""
    command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--one", name]
    text = "".join(json.dumps(task) + "\n" for task in tasks)
    try:
        # chDB reads below its working directory only.
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=READER_SECONDS, cwd="/")
        lines, ending = done.stdout.splitlines(), f"it ended with {done.returncode}: {done.stderr[-2000:]}"
    except subprocess.TimeoutExpired as error:
        lines, ending = (error.stdout or b"").decode().splitlines(), f"no answer within {READER_SECONDS} s"
    answers = [json.loads(line) for line in lines[: len(tasks)]]
    return answers + [{"refused": ending}] * (len(tasks) - len(answers))


def installed(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def short(text):
    return text if len(text) <= REASON_CHARACTERS else text[:REASON_CHARACTERS] + "…"


def judge(options):
    differences, report = [], []
    expected = {}
    for volume in options.volumes:
        try:
            expected[volume] = Expected(volume)
        except (OSError, Refused) as error:
            sys.exit(f"{volume}: {error}")
        differences += [f"{volume}: {difference}" for difference in expected[volume].differences]
        whole = {key: getattr(expected[volume], key) for key in ("rows", "sum", "least", "greatest", "files")}
        weights = {name: [count, str(weight)] for name, (count, weight) in expected[volume].weights.items()}
        report.append({"reader": "commits", "software": "", "volume": str(volume), **whole, "checkpoint": "", "weights": weights})
    with tempfile.TemporaryDirectory(prefix="readers-", dir=options.copies) as scratch:
        places = {volume: copies(volume, pathlib.Path(scratch) / str(number), options.whole) for number, volume in enumerate(options.volumes)}
        for name in options.reader or READERS:
            reader = READERS[name]
            software = installed(reader.package)
            if software is None:
                differences.append(f"{name}: {reader.package} is not installed")
                continue
            tasks = []
            for volume, made in places.items():
                as_it_is = made["plain"] if reader.gets_copy else volume
                for kind, place in {"whole": as_it_is, **{kind: made[kind] for kind in COPIES if kind in made}}.items():
                    question = expected[volume].question() | {"contents": kind == "whole"}
                    tasks.append({"volume": volume, "kind": kind, "place": str(place), "question": question})
            sent = [{"place": task["place"], "question": task["question"]} for task in tasks]
            found = {volume: {} for volume in places}
            for task, answers in zip(tasks, ask(name, sent)):
                found[task["volume"]][task["kind"]] = answers
            for volume, answers in found.items():
                for kind, given in answers.items():
                    where = f"{name}, {volume}, {kind}"
                    if "refused" not in given:
                        if wrong := list(expected[volume].compare(name, given)):
                            differences.append(f"{where}: {'; '.join(wrong)}")
                    elif kind == "whole":
                        differences.append(f"{where}: {short(given['refused'])}")
                checkpoint, reason = verdict(answers)
                if checkpoint not in ("none", "used") and name in options.checkpoint_by:
                    differences.append(f"{name}, {volume}: the checkpoint is not used ({checkpoint}): {short(reason or '')}")
                whole = answers["whole"]
                line = {"reader": name, "software": f"{reader.package} {software}", "volume": str(volume), "checkpoint": checkpoint}
                report.append(line | {key: whole.get(key) for key in ("rows", "sum", "least", "greatest", "files")} | {"reason": reason})
    return report, differences


def show(report):
    def time(value):
        return "-" if value is None else (EPOCH + datetime.timedelta(microseconds=value)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    for volume in dict.fromkeys(line["volume"] for line in report):
        print(f"\n{volume}")
        print(f"{'reader':<10} {'software':<18} {'rows':>9} {'sum':>20} {'least time':<27} {'greatest time':<27} {'files':>6} checkpoint")
        for line in report:
            if line["volume"] == volume:
                rows, added, files = ("-" if line[key] is None else line[key] for key in ("rows", "sum", "files"))
                bounds = f"{time(line['least']):<27} {time(line['greatest']):<27}"
                reason = f": {short(line['reason'])}" if line.get("reason") else ""
                print(f"{line['reader']:<10} {line['software']:<18} {rows:>9} {added:>20} {bounds} {files:>6} {line['checkpoint']}{reason}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", metavar="VOLUME_FOLDER", nargs="*", type=pathlib.Path, help="a Delta table on a local disk")
    parser.add_argument("--reader", action="append", choices=READERS, help="ask this reader only; may be given more than once")
    parser.add_argument("--checkpoint-by", action="append", choices=READERS, default=[], help="this reader has to use checkpoints")
    parser.add_argument("--whole", action="store_true", help="open volumes as they are, without the copies")
    parser.add_argument("--copies", metavar="FOLDER", help="where copies are made; on the disk of the volumes they cost nothing")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--one", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_reader(options.one)
    if not options.volumes:
        parser.error("no volume is given")
    options.volumes = [volume.resolve() for volume in options.volumes]
    report, differences = judge(options)
    if options.json:
        json.dump({"readers": report, "differences": differences}, sys.stdout, indent=1)
        print()
    else:
        show(report)
    for difference in differences:
        print(f"difference: {difference}", file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
