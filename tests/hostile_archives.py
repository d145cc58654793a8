#!/usr/bin/env python3
"""Makes hostile archives, and has both verifiers judge each: `strongroom verify` and tools/verify.py.

    tests/hostile_archives.py --binary target/release/strongroom --archives 300 [--seed N] [--keep DIR]

Real archives are made first. Each hostile one is one of these with some changes: bytes of a file, its
name, its kind, a value in a commit, a line of a record, a column of a Parquet file, a Delta checkpoint.
Where it is drawn, hashes, tags and signatures are made again afterwards, as the holder of the key could.
The verifiers must find the same kinds, or both refuse to judge. A difference is printed with what makes it
again, and the exit code is 1.
"""

import argparse
import collections
import copy
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import test_verify as made  # noqa: E402
import verify  # noqa: E402

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None

LINK, FOLDER, PIPE = "link", "folder", "pipe"


def run(binary, *arguments, **options):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, **options)
    if done.returncode:
        raise SystemExit("%s: %s" % (" ".join(map(str, arguments)), done.stderr.decode(errors="replace")))
    return done.stdout.decode()


class Base:
    """A real archive: its files by name, the seed of its current key, and what it is called."""

    def __init__(self, name, folder, seed):
        self.name, self.seed, self.files = name, seed, {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.files[str(path.relative_to(folder))] = path.read_bytes()
        self.id = json.loads(self.files["strongroom.json"])["archive_id"]


def bases(binary, scratch):
    """The archives that the hostile ones are made of. The last one, of an earlier release, has hundreds of
    signatures, which take verify.py seconds, so it is drawn seldom."""
    logs = []
    for number, events in enumerate((40, 25, 30)):
        log = scratch / ("%d.log" % number)
        text = run(binary, "generate", "--events", events, "--seed", number)
        log.write_text(text + ("no event\n" if number else ""))
        logs.append(log)
    key = scratch / "key"
    public = run(binary, "key", "new", key).strip()
    seed = verify.base64.b64decode(key.read_text().strip().split("+")[-1])[1:]
    signed, plain, kept, old = (scratch / name for name in ("signed", "plain", "kept", "old"))
    for log in logs:
        ingest(binary, log, signed, "--key", key)
        ingest(binary, log, plain)
    shutil.copytree(signed, kept)
    name = next(line for line in run(binary, "query", "--archive", kept, "--format", "csv", "SELECT DISTINCT namespace FROM events WHERE namespace IS NOT NULL ORDER BY 1").splitlines()[1:])
    run(binary, "hold", "place", "case-1", "--archive", kept, "--key", key, "--namespace", name, "--reason", "a reason")
    run(binary, "hold", "place", "case-2", "--archive", kept, "--reason", "another reason")
    run(binary, "hold", "release", "case-2", "--archive", kept, "--reason", "over")
    run(binary, "retention", "extend", "--archive", kept, "--key", key, "--years", "7", "--reason", "more")
    new = scratch / "new"
    run(binary, "key", "new", new)
    run(binary, "key", "rotate", "--archive", kept, "--key", key, "--to", new)
    ingest(binary, logs[0], kept, "--key", new, "--cluster", "other")
    later = verify.base64.b64decode(new.read_text().strip().split("+")[-1])[1:]
    with made.tarfile.open(ROOT / "tests" / "data" / "format-1" / "archive.tar") as tar:
        tar.extractall(old, filter="data")
    found = [Base("signed", signed, seed), Base("plain", plain, None), Base("kept", kept, later), Base("format-1", next(p.parent for p in old.rglob("strongroom.json")), None)]
    for base in found[:3]:
        add_delta_checkpoint(base)
    return found, public


def ingest(binary, log, archive, *more):
    more = more if "--cluster" in more else ("--cluster", "c", *more)
    done = subprocess.run([binary, "ingest", "-q", "--archive", str(archive), "--complete", *map(str, more), str(log)], capture_output=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr.decode(errors="replace"))


def commits_of(files, volume):
    names = sorted(n for n in files if re.fullmatch(re.escape(volume) + r"/_delta_log/[0-9]{20}\.json", n))
    return [(n, files[n]) for n in names if isinstance(files[n], bytes)]


def volumes_of(files):
    return sorted({"/".join(n.split("/")[:2]) for n in files if "/_delta_log/" in n})


def add_delta_checkpoint(base):
    """Puts a Delta checkpoint of the newest commit of `events`, as a writer does after many commits."""
    if pyarrow is None:
        return
    for volume in volumes_of(base.files):
        if not volume.startswith("events/"):
            continue
        commits = commits_of(base.files, volume)
        rows, txns = [], {}
        for _, data in commits:
            for line in data.splitlines():
                for kind, body in json.loads(line).items():
                    if kind == "txn":
                        txns[body["appId"]] = body["version"]
                    elif kind != "commitInfo":
                        rows.append({kind: body})
        rows += [{"txn": {"appId": a, "version": v}} for a, v in sorted(txns.items())]
        name = "%s/_delta_log/%020d.checkpoint.parquet" % (volume, len(commits) - 1)
        base.files[name] = delta_checkpoint(rows)
        base.files[volume + "/_delta_log/_last_checkpoint"] = b'{"version":%d,"size":%d}' % (len(commits) - 1, len(rows))


def delta_checkpoint(rows):
    text, long, texts = pyarrow.string(), pyarrow.int64(), pyarrow.map_(pyarrow.string(), pyarrow.string())
    kinds = {
        "add": [("path", text), ("partitionValues", texts), ("size", long), ("modificationTime", long), ("dataChange", pyarrow.bool_()), ("stats", text), ("tags", texts)],
        "remove": [("path", text)],
        "txn": [("appId", text), ("version", long)],
        "protocol": [("minReaderVersion", pyarrow.int32()), ("minWriterVersion", pyarrow.int32())],
        "metaData": [
            ("id", text),
            ("format", pyarrow.struct([("provider", text), ("options", texts)])),
            ("schemaString", text),
            ("partitionColumns", pyarrow.list_(text)),
            ("configuration", texts),
            ("createdTime", long),
        ],
    }
    schema = pyarrow.schema([(name, pyarrow.struct(members)) for name, members in kinds.items()])

    def plain(value):
        return {k: list(v.items()) if isinstance(v, dict) and k in ("partitionValues", "tags", "configuration", "options") else plain(v) if isinstance(v, dict) else v for k, v in value.items()}

    table = pyarrow.Table.from_pylist([{k: plain(v) for k, v in row.items()} for row in rows], schema=schema)
    return parquet(table)


def parquet(table, **options):
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


VALUES = [None, True, False, 0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 1.5, "", "x", "0", "-1", "2026-03-02", "00000000", [], {}, [1], {"a": 1}, "\u0000", "\u202e", "a" * 2000, 1e300]


class Mutation:
    """One hostile archive in the making."""

    def __init__(self, base, random):
        self.base, self.random, self.files = base, random, dict(base.files)
        self.done, self.seed = [], base.seed

    def pick(self, wanted=lambda name: True):
        names = sorted(n for n in self.files if isinstance(self.files[n], bytes) and n != ".lock" and wanted(n))
        # Each kind of file is as likely, however many there are.
        kinds = collections.defaultdict(list)
        for name in names:
            kinds[re.sub(r"[0-9a-f]{6,}|[0-9]+", "#", name)].append(name)
        return self.random.choice(kinds[self.random.choice(sorted(kinds))]) if kinds else None

    def apply(self):
        count = self.random.choice((1, 1, 1, 2, 3))
        for _ in range(count):
            change = self.random.choice(self.CHANGES)
            try:
                what = change(self)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                what = "not possible: %r" % error
            self.done.append("%s: %s" % (change.__name__, what))
        if self.random.random() < 0.6:
            self.done.append("sealed again: %s" % self.reseal())

    # Changes of files as such.

    def flip(self):
        name = self.pick()
        data = bytearray(self.files[name])
        if not data:
            return "nothing"
        for _ in range(self.random.choice((1, 1, 1, 4))):
            data[self.random.randrange(len(data))] = self.random.choice((0, 0xFF, 0x0A, 0x7F, self.random.randrange(256)))
        self.files[name] = bytes(data)
        return name

    def cut(self):
        name = self.pick()
        data = self.files[name]
        self.files[name] = self.random.choice((b"", data[: self.random.randrange(len(data) + 1)], data + b"\n", data + b"x", data[1:], b"\n" + data))
        return name

    def drop(self):
        name = self.pick()
        del self.files[name]
        return name

    def drop_folder(self):
        name = self.pick(lambda n: "/" in n)
        parts = name.split("/")
        folder = "/".join(parts[: self.random.randrange(1, len(parts))]) + "/"
        self.files = {n: f for n, f in self.files.items() if not n.startswith(folder)}
        return folder

    def another_name(self):
        name = self.pick()
        folder, _, last = name.rpartition("/")
        digits = re.search(r"[0-9]+", last)
        names = [last + "x", "." + last, last.upper(), last + ".parquet", "x", last[:-1], last.replace("2026", "2025")]
        if digits:
            for more in (1, -1, 5):
                number = str(max(int(digits[0]) + more, 0)).zfill(len(digits[0]))
                names.append(last[: digits.start()] + number + last[digits.end() :])
        new = (folder + "/" if folder else "") + self.random.choice(names)
        data = self.files[name]
        if self.random.random() < 0.5:
            del self.files[name]
        self.files[new] = data
        return "%s is %s" % (new, name)

    def planted(self):
        folder = self.pick().rpartition("/")[0]
        last = self.random.choice(("x", "x.parquet", ".x", "date=2026-03-02/x.parquet", "0", "00000000000000000099.json", "00000001", "_last_checkpoint", "%032x.parquet" % 7, ".x.parquet#1", "date=2026-03-02/%032x.parquet" % 8))
        name = (folder + "/" if folder else "") + last
        self.files[name] = self.random.choice((b"", b"x", b"{}", self.files[self.pick()]))
        return name

    def not_a_file(self):
        name = self.pick()
        kind = self.random.choice((LINK, FOLDER, PIPE))
        self.files[name] = (kind, self.pick())
        return "%s is a %s" % (name, kind)

    def linked_folder(self):
        name = self.pick(lambda n: "/" in n)
        parts = name.split("/")
        folder = "/".join(parts[: self.random.randrange(1, len(parts))])
        moved = {n: f for n, f in self.files.items() if n.startswith(folder + "/")}
        for n, f in moved.items():
            del self.files[n]
            self.files["x-elsewhere/" + n[len(folder) + 1 :]] = f
        self.files[folder] = (LINK, "x-elsewhere")
        return folder

    def swapped(self):
        one = self.pick()
        other = self.pick(lambda n: re.sub("[0-9a-f]", "#", n) == re.sub("[0-9a-f]", "#", one))
        self.files[one], self.files[other] = self.files[other], self.files[one]
        return "%s and %s" % (one, other)

    def from_another(self):
        name = self.pick()
        other = self.random.choice(self.OTHERS)
        there = sorted(n for n in other.files if n.rpartition("/")[2][-8:] == name.rpartition("/")[2][-8:] or n.split("/")[-2:-1] == name.split("/")[-2:-1])
        self.files[name] = other.files[self.random.choice(there)]
        return "%s from %s" % (name, other.name)

    # Changes of commits.

    def json_value(self):
        name = self.pick(lambda n: n.endswith(".json") or n.endswith(".state") or n.endswith("_last_checkpoint"))
        lines = self.files[name].split(b"\n") if "/_delta_log/" in name else [self.files[name]]
        at = self.random.randrange(len(lines))
        value = json.loads(lines[at])
        where = self.change(value)
        lines[at] = json.dumps(value).encode()
        self.files[name] = b"\n".join(lines)
        return "%s, line %d, %s" % (name, at + 1, where)

    def change(self, value):
        places = []

        def walk(node, path):
            if isinstance(node, (dict, list)):
                for key in list(node) if isinstance(node, dict) else range(len(node)):
                    places.append((node, key, path + [key]))
                    walk(node[key], path + [key])

        walk(value, [])
        if not places:
            raise ValueError("no members")
        node, key, path = self.random.choice(places)
        old = node[key]
        how = self.random.randrange(8)
        if isinstance(old, str) and old[:1] in "{[" and how < 5:
            inner = json.loads(old)
            path = path + ["text"] + [self.change(inner)]
            node[key] = json.dumps(inner)
        elif how == 0 and isinstance(node, dict):
            del node[key]
        elif how == 1 and isinstance(node, dict):
            node["x" + str(key)] = old
        elif how == 2 and isinstance(old, str) and old:
            place = self.random.randrange(len(old))
            node[key] = old[:place] + self.random.choice("0f/x.\u00e9") + old[place + 1 :]
        elif how == 3 and isinstance(old, int) and not isinstance(old, bool):
            node[key] = old + self.random.choice((1, -1, 1000, -1000, 86_400_000, -86_400_000, 2**40))
        else:
            node[key] = copy.deepcopy(self.random.choice(VALUES))
        return path

    def commit_lines(self):
        name = self.pick(lambda n: re.search(r"/_delta_log/[0-9]{20}\.json$", n))
        lines = self.files[name].split(b"\n")
        at, how = self.random.randrange(len(lines)), self.random.randrange(10)
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.insert(at, lines[at])
        elif how == 2:
            self.random.shuffle(lines)
        elif how == 3:
            lines.insert(at, self.random.choice((b"", b" ", b"{}", b"[]", b"null", b"\xff", b'{"a":1}', b'{"remove":{"path":"x"}}', b'{"protocol":{}}', b'{"cdc":null}')))
        elif how == 4:
            lines[at] = lines[at][:-1] + b',"txn":{"appId":"x","version":1}}'
        elif how == 5:
            lines[at] = lines[at].replace(b'":', b'": ', 3).replace(b"{", b" { ", 1)
        elif how == 6:
            lines[at] = re.sub(rb'"(\w+)":', rb'"\1":0,"\1":', lines[at], count=1)
        elif how == 7:
            other = self.pick(lambda n: re.search(r"/_delta_log/[0-9]{20}\.json$", n))
            lines.append(self.random.choice(self.files[other].split(b"\n")))
        elif how == 8:
            lines.append(b'{"txn":{"appId":"#closed","version":1}}')
        else:
            lines[at] = lines[at].replace(b"0", self.random.choice((b"1", b"00", b"-0", b"0.0", b"1e2")), 1)
        self.files[name] = b"\n".join(lines)
        return "%s, line %d, way %d" % (name, at + 1, how)

    def forged_commit(self):
        volume = self.random.choice(volumes_of(self.files))
        commits = commits_of(self.files, volume)
        name = "%s/_delta_log/%020d.json" % (volume, len(commits))
        self.files[name] = self.random.choice(commits)[1]
        return name

    def cut_history(self):
        volume = self.random.choice(volumes_of(self.files))
        commits = commits_of(self.files, volume)
        for name, _ in commits[-self.random.randrange(1, len(commits) + 1) :]:
            del self.files[name]
        if self.random.random() < 0.5:
            for name in sorted(n for n in self.files if n.startswith(volume + "/_tlog/")):
                if self.random.random() < 0.7:
                    del self.files[name]
        return volume

    # Changes of notes and records.

    def record_line(self):
        name = self.pick(lambda n: n.split("/")[0] in ("_keys", "_holds", "_retention", "_dropped") or "/_tlog/checkpoint/" in n)
        text, blank, signatures = self.files[name].partition(b"\n\n")
        lines = text.split(b"\n")
        at, how = self.random.randrange(len(lines)), self.random.randrange(8)
        word, _, value = lines[at].partition(b" ")
        if how == 0:
            del lines[at]
        elif how == 1:
            lines.insert(at, lines[at])
        elif how == 2:
            self.random.shuffle(lines)
        elif how == 3:
            lines[at] = word + b" " + self.random.choice((b"", b"0", b"-1", b"07", b"99999999999999999999", b" x", b"x ", b"\xc3\xa9", b"\x1b[0m", b"2026-02-30T00:00:00Z", b"9999-12-31T23:59:59Z", b"2026-03-02T10:00:00.5Z", b"a" * 1001))
        elif how == 4:
            lines.append(b"x y")
        elif how == 5:
            blank, signatures = b"\n", b""
        elif how == 6:
            signatures = signatures + signatures
        else:
            signatures = signatures.replace(b"A", b"B", 1)
        self.files[name] = b"\n".join(lines) + blank + signatures
        if how < 5 and self.seed and blank == b"\n\n" and self.random.random() < 0.8:
            self.sign(name, b"\n".join(lines) + b"\n")
        return "%s, line %d, way %d" % (name, at + 1, how)

    def sign(self, name, text):
        kind = name.split("/")[0]
        origin = "strongroom/%s/%s" % (self.base.id, kind[1:]) if kind[0] == "_" else "strongroom/%s/%s" % (self.base.id, "/".join(name.split("/")[:2]))
        self.files[name] = made.note(text.decode("utf-8", "surrogateescape"), origin, self.seed)

    # Changes of rows.

    def column(self):
        if pyarrow is None:
            return "no pyarrow"
        name = self.pick(lambda n: re.search(r"/date=[^/]*/[0-9a-f]{32}\.parquet$", n))
        try:
            table = pyarrow.parquet.read_table(pyarrow.BufferReader(self.files[name]))
        except pyarrow.ArrowException:
            return "unreadable"
        at, how = self.random.randrange(table.num_columns), self.random.randrange(9)
        field = table.schema.field(at)
        values = table.column(at).to_pylist()
        row = self.random.randrange(len(values)) if values else 0
        what = "%s, %s, row %d, way %d" % (name, field.name, row, how)
        if how == 0:
            table = table.remove_column(at)
        elif how == 1:
            table = table.set_column(at, "x" + field.name, table.column(at))
        elif how == 2:
            table = table.append_column(self.random.choice(("x", field.name)), table.column(at))
        elif how == 3:
            table = table.slice(0, row) if self.random.random() < 0.5 else pyarrow.concat_tables([table, table.slice(row, 1)])
        elif how == 4:
            table = table.take(pyarrow.array(self.random.sample(range(table.num_rows), table.num_rows)))
        elif how == 5:
            kinds = (pyarrow.large_string(), pyarrow.binary(), pyarrow.int32(), pyarrow.int64(), pyarrow.string(), pyarrow.timestamp("ms", "UTC"), pyarrow.timestamp("us"), pyarrow.float64())
            kind = self.random.choice(kinds)
            try:
                table = table.set_column(at, field.name, table.column(at).cast(kind, safe=False))
            except (pyarrow.ArrowException, pyarrow.ArrowNotImplementedError):
                table = table.set_column(at, field.name, pyarrow.nulls(table.num_rows, kind))
        else:
            old = values[row] if values else None
            new = self.value_like(old, field, values)
            values[row] = new
            try:
                table = table.set_column(at, field, pyarrow.array(values, field.type))
            except (pyarrow.ArrowException, OverflowError, TypeError) as error:
                return "not possible: %s" % error
        options = self.random.choice(({}, {"compression": "zstd"}, {"use_dictionary": False}, {"row_group_size": 7}, {"data_page_version": "2.0"}, {"compression": "none"}))
        self.files[name] = parquet(table, **options)
        return what + (", %s" % options)

    def value_like(self, old, field, values):
        if isinstance(old, str) and old and self.random.random() < 0.7:
            at = self.random.randrange(len(old))
            return self.random.choice((old[:at] + self.random.choice('x"\\{}0 \n\u00e9') + old[at + 1 :], old[:at], old + "x", old.upper()))
        if isinstance(old, int) and self.random.random() < 0.7:
            return old + self.random.choice((1, -1, 1000, 10**9))
        if self.random.random() < 0.4:
            return self.random.choice(values)
        kind = field.type
        if pyarrow.types.is_string(kind):
            return self.random.choice(("", "x", "{}", "null", '{"a":1}', "[]", None, "\u202e", "0"))
        if pyarrow.types.is_binary(kind):
            return self.random.choice((b"", b"x", b"{}", b"\xff", None))
        if pyarrow.types.is_list(kind):
            return self.random.choice(([], None, ["x"], [None], ["x", "x"]))
        return None

    def delta_rows(self):
        if pyarrow is None:
            return "no pyarrow"
        name = self.pick(lambda n: n.endswith(".checkpoint.parquet"))
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(self.files[name]))
        rows, how = table.to_pylist(), self.random.randrange(8)
        at = self.random.randrange(len(rows))
        if how == 0:
            del rows[at]
        elif how == 1:
            rows.insert(at, copy.deepcopy(rows[at]))
        elif how == 2:
            self.random.shuffle(rows)
        elif how == 3:
            rows.append({"remove": {"path": "x"}})
        elif how == 4:
            table = table.append_column(self.random.choice(("x", "sidecar", "txn", "add")), self.random.choice((pyarrow.nulls(table.num_rows), table.column("txn"), table.column("add"))))
        elif how == 5:
            table = table.remove_column(self.random.randrange(table.num_columns))
        else:
            kind = next(k for k, v in rows[at].items() if v is not None)
            member = self.random.choice(sorted(rows[at][kind]))
            old = rows[at][kind][member]
            rows[at][kind][member] = old + 1 if isinstance(old, int) else old + "x" if isinstance(old, str) else None
        self.files[name] = parquet(table if how in (4, 5) else pyarrow.Table.from_pylist(rows, schema=table.schema))
        return "%s, row %d, way %d" % (name, at, how)

    CHANGES = [flip, cut, drop, drop_folder, another_name, planted, not_a_file, linked_folder, swapped, from_another]
    CHANGES += [json_value] * 8 + [commit_lines] * 4 + [forged_commit, cut_history] + [record_line] * 5 + [column] * 5 + [delta_rows] * 3

    # What the holder of the key can make good again.

    def reseal(self):
        what = []
        if self.random.random() < 0.85:
            what.append("tags")
            for volume in volumes_of(self.files):
                for name, data in commits_of(self.files, volume):
                    self.files[name] = self.retagged(volume, data)
        if self.seed and self.random.random() < 0.85:
            what.append("signatures")
            if isinstance(self.files.get("strongroom.json"), bytes) and "_keys/00000002" not in self.files and "_keys/00000001" in self.files and self.random.random() < 0.5:
                digest = hashlib.sha256(self.files["strongroom.json"]).hexdigest().encode()
                text = self.files["_keys/00000001"]
                if isinstance(text, bytes):
                    text = re.sub(rb"(?m)^manifest .*$", b"manifest " + digest, text.partition(b"\n\n")[0]) + b"\n"
                    self.sign("_keys/00000001", text)
            for volume in volumes_of(self.files):
                self.resigned(volume)
        return ", ".join(what)

    def retagged(self, volume, data):
        lines = data.split(b"\n")
        for at, line in enumerate(lines):
            try:
                value = verify.parse_json(line)
                add = value["add"]
                file = self.files["%s/%s" % (volume, add["path"])]
                tags = add["tags"]
                if not isinstance(file, bytes) or not isinstance(tags, dict) or hashlib.sha256(file).hexdigest() == tags.get("sha256"):
                    continue
                add["size"], tags["sha256"] = len(file), hashlib.sha256(file).hexdigest()
                if self.random.random() < 0.7:
                    self.retag_rows(volume.split("/")[0], add, tags, file)
                lines[at] = json.dumps(value).encode()
            except (verify.Malformed, KeyError, TypeError, ValueError):
                continue
        return b"\n".join(lines)

    def retag_rows(self, table, add, tags, file):
        if pyarrow is None:
            return
        try:
            rows = pyarrow.parquet.read_table(pyarrow.BufferReader(file))
            columns = {}
            for name in rows.schema.names:
                column = rows.column(name)
                if pyarrow.types.is_timestamp(column.type):
                    column = column.cast(pyarrow.int64())
                columns[name] = column.to_pylist()
            tree = verify.MerkleTree()
            for at in range(rows.num_rows):
                row = {name: values[at] for name, values in columns.items()}
                try:
                    record = verify.record_of(table, row)
                except verify.BadForm:
                    record = b""
                tree.add(verify.record_hash(row.get("redaction") if table == "events" else None, record))
            tags["record_root"] = tree.root().hex()
            stats = json.loads(add["stats"])
            stats["numRecords"], tags["rows"] = rows.num_rows, str(rows.num_rows)
            add["stats"] = json.dumps(stats)
        except Exception:  # what cannot be read keeps its tags
            return

    def resigned(self, volume):
        leaves = [data for _, data in commits_of(self.files, volume)]
        sizes = {int(n.rpartition("/")[2][:20]) for n in self.files if re.search(r"/_tlog/checkpoint/[0-9]{20}-", n) and n.startswith(volume + "/")}
        if not sizes:
            return
        for name in [n for n in self.files if n.startswith(volume + "/_tlog/checkpoint/") or n.startswith(volume + "/_tlog/tile/")]:
            if isinstance(self.files[name], bytes):
                del self.files[name]
        origin = "strongroom/%s/%s" % (self.base.id, volume)
        for size in sorted({min(size, len(leaves)) for size in sizes} | {len(leaves)}):
            root = made.b64(made.mth(leaves[:size]))
            name = "%s/_tlog/checkpoint/%020d-%s" % (volume, size, made.key_id(origin, self.seed).hex())
            self.files[name] = made.note("%s\n%d\n%s\n" % (origin, size, root), origin, self.seed)
            tile = b"".join(made.mth([leaf]) for leaf in leaves[:size])
            if size:
                self.files["%s/_tlog/tile/0/000.p/%d" % (volume, size)] = tile

    def write(self, folder):
        for name, data in self.files.items():
            path = folder / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(data, bytes):
                    path.write_bytes(data)
                elif data[0] == LINK:
                    path.symlink_to(folder / data[1] if data[1] and data[1] != name else "nowhere")
                elif data[0] == PIPE:
                    os.mkfifo(path)
                else:
                    path.mkdir(exist_ok=True)
            except OSError:
                # Two changes can ask for a file and a folder of one name.
                continue


def kinds_of(findings):
    """The kinds, sorted. Where a commit is named as changed, proof.md lets a verifier say of the
    checkpoint, too, that its root differs."""
    kinds = {f["kind"] for f in findings}
    return sorted(kinds - {"checkpoint_root"} if "commit_changed" in kinds else kinds)


def by_strongroom(binary, folder, keys):
    arguments = [word for key in keys for word in ("--public-key", key)]
    try:
        done = subprocess.run([binary, "verify", "-q", "--archive", str(folder), "--json", "-", "--threads", "1", *arguments], capture_output=True, timeout=120)
    except subprocess.TimeoutExpired:
        return "hangs", []
    try:
        findings = json.loads(done.stdout)["findings"]
    except (ValueError, KeyError):
        return "no result (exit code %d)" % done.returncode, [done.stderr.decode(errors="replace")[-600:]]
    return kinds_of(findings), findings


def by_verify_py(folder, keys):
    try:
        report = verify.Archive(str(folder), [verify.parse_public_key(key) for key in keys]).check()
    except verify.CannotCheck as error:
        return "no result (exit code 2)", [str(error)]
    except Exception as error:
        return "a bug: %r" % error, []
    return kinds_of(report.findings), report.findings


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "target" / "release" / "strongroom"))
    parser.add_argument("--archives", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first archive")
    parser.add_argument("--keep", metavar="DIR", help="keep archives that are judged differently here")
    parser.add_argument("--told", type=int, default=20, help="how many differences are printed in full")
    options = parser.parse_args()
    # The progress of verify.py is for people.
    verify.Progress.show = lambda *_: None
    started, kinds, differing, clean = time.monotonic(), collections.Counter(), collections.Counter(), 0
    spent = {"strongroom verify": 0.0, "verify.py": 0.0}
    with tempfile.TemporaryDirectory(prefix="strongroom-hostile-") as scratch:
        scratch = pathlib.Path(scratch)
        found, public = bases(options.binary, scratch)
        Mutation.OTHERS = found
        for number in range(options.seed, options.seed + options.archives):
            draw = random.Random(number)
            mutation = Mutation(found[-1] if draw.random() < 0.01 else draw.choice(found[:-1]), draw)
            mutation.apply()
            folder = scratch / "archive"
            mutation.write(folder)
            keys = [public] if draw.random() < 0.6 else []
            begun = time.monotonic()
            ours, our_findings = by_strongroom(options.binary, folder, keys)
            spent["strongroom verify"] += time.monotonic() - begun
            begun = time.monotonic()
            theirs, their_findings = by_verify_py(folder, keys)
            spent["verify.py"] += time.monotonic() - begun
            if ours == theirs:
                kinds.update(ours if isinstance(ours, list) else [ours])
                clean += ours == []
            else:
                left = set(ours) if isinstance(ours, list) else {ours}
                right = set(theirs) if isinstance(theirs, list) else {theirs}
                how = "only strongroom: %s; only verify.py: %s" % (", ".join(sorted(left - right)) or "-", ", ".join(sorted(right - left)) or "-")
                differing[how] += 1
                if sum(differing.values()) <= options.told:
                    print("\n%d (%s): %s\n  %s" % (number, mutation.base.name, how, "\n  ".join(mutation.done)))
                    for who, findings in (("strongroom", our_findings), ("verify.py", their_findings)):
                        for f in findings[:6]:
                            print("  %s: %s" % (who, f if isinstance(f, str) else "%(kind)s, %(where)s: %(detail)s" % f))
                    sys.stdout.flush()
                if options.keep:
                    kept = pathlib.Path(options.keep) / str(number)
                    shutil.rmtree(kept, ignore_errors=True)
                    shutil.copytree(folder, kept, symlinks=True, ignore=lambda d, names: [n for n in names if not os.path.isfile(os.path.join(d, n)) and not os.path.isdir(os.path.join(d, n))])
            shutil.rmtree(folder, ignore_errors=True)
    print("\n%d archives in %.0f s (%s): %d judged alike, of which %d without a finding; %d judged differently" % (
        options.archives, time.monotonic() - started, ", ".join("%s %.0f s" % item for item in spent.items()), options.archives - sum(differing.values()), clean, sum(differing.values())))
    for how, count in differing.most_common():
        print("%6d  %s" % (count, how))
    print("kinds that both found: %s" % ", ".join("%s %d" % item for item in sorted(kinds.items())))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
