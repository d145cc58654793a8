#!/usr/bin/env python3
"""Compares strongroom with DuckDB and ClickHouse on one generated log, in one run. See ../README.md.

Every conversion is a whole process of its own, measured by what the kernel accounts to it (os.wait4). The
contenders take turns, so that a change in the speed of the machine affects all of them. Medians are
reported, and all raw figures are kept. The script uses the standard library only; the peers are installed
in a virtual environment in the work folder.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
QUERIES = HERE.parent / "queries"
MEGABYTE = 1_000_000
MEBIBYTE = 1 << 20
WARMUPS = 2
# More than any contender's peak.
TOUCHED_BYTES = 5 << 30
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def main():
    options = arguments()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    python = environment(work)
    bench = Bench(options, work, python)
    results = {"machine": machine(), "versions": bench.versions(), "options": described(options)}

    log = bench.generate("audit.log", ["--events", str(options.events)])
    results["input"] = {"bytes": log.stat().st_size, "events": options.events, "seed": options.seed}
    print(f"{log.stat().st_size / MEGABYTE:.0f} MB, {options.events} events", file=sys.stderr)

    results["conversions"] = bench.conversions(log)
    results["one_core"] = bench.one_core(log)
    results["queries"] = bench.queries(log)
    if options.large:
        results["large"] = bench.large()
    results["load_after"] = os.getloadavg()

    folder = options.out / f"{datetime.date.today()}-{host_kind(results['machine'])}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.json").write_text(json.dumps(results, indent=1) + "\n")
    report = rendered(results)
    (folder / "peers.md").write_text(report)
    print(report)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strongroom", type=pathlib.Path, default=ROOT / "target/release/strongroom")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target/peers", help="logs, archives, the environment")
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parent / "runs")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each conversion")
    parser.add_argument("--query-runs", type=int, default=9, help="measured runs of each query")
    parser.add_argument("--large", action="store_true", help="also 8 GB, for memory")
    parser.add_argument("--large-events", type=int, default=6_700_000)
    return parser.parse_args()


def described(options):
    return {name: value for name, value in vars(options).items() if isinstance(value, (int, bool))}


def environment(work):
    """The peers' virtual environment; made again when the pins change."""
    folder, pins = work / "venv", (HERE / "requirements.txt").read_text()
    stamp = folder / "pins.txt"
    if not stamp.exists() or stamp.read_text() != pins:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        requirements = HERE / "requirements.txt"
        subprocess.run([folder / "bin/pip", "install", "--quiet", "-r", requirements], check=True)
        stamp.write_text(pins)
    return folder / "bin/python"


def machine():
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    memory = pathlib.Path("/proc/meminfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    return {
        "cpu": model.group(1).strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(re.search(r"MemTotal:\s*(\d+)", memory).group(1)) / MEBIBYTE, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "load_before": os.getloadavg(),
    }


def host_kind(about):
    cpu = re.sub(r"[^a-z0-9]+", "-", about["cpu"].lower()).strip("-")
    return f"{cpu}-{about['cores']}c-{round(about['memory_gib'])}g"


class Bench:
    def __init__(self, options, work, python):
        self.options, self.work, self.python = options, work, python
        self.binary = options.strongroom.resolve()
        if not self.binary.exists():
            sys.exit(f"{self.binary} is not there; build it with: cargo build --release")
        self.cores = sorted(os.sched_getaffinity(0))

    def versions(self):
        installed = subprocess.run(
            [self.python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True
        ).stdout
        peers = {p["name"]: p["version"] for p in json.loads(installed) if p["name"] in ("duckdb", "chdb", "chdb-core")}
        ours = subprocess.run([self.binary, "--version"], check=True, capture_output=True, text=True).stdout.strip()
        commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        return dict(peers, strongroom=ours, commit=commit.stdout.strip())

    def generate(self, name, size):
        path = self.work / name
        command = [self.binary, "generate", *size, "--seed", str(self.options.seed), "--attacks", "--output", path]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return path

    def contenders(self):
        threads = str(len(self.cores))
        parquet = self.work / "peer.parquet"
        scripts = {
            "duckdb": [HERE / "duckdb_convert.py", "LOG", parquet, threads, "default"],
            "duckdb tuned": [HERE / "duckdb_convert.py", "LOG", parquet, threads, "tuned"],
            "clickhouse": [HERE / "chdb_convert.py", "LOG", parquet, threads],
        }
        return {name: [self.python, *script] for name, script in scripts.items()}

    def ours(self, log, archive, *more):
        return [self.binary, "ingest", "--cluster", "bench", "--archive", archive, "--quiet", *more, log]

    def measure(self, command, cores=None):
        """Runs one process to its end; its output goes to a file."""
        touch_memory()
        with open(self.work / "printed.txt", "wb") as printed:
            started = time.perf_counter()
            child = subprocess.Popen(
                [str(word) for word in command],
                stdout=printed,
                stderr=subprocess.STDOUT,
                preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
            )
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - started
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"{command[0]} failed:\n{(self.work / 'printed.txt').read_text()[-2000:]}")
        return {
            "wall": wall,
            "user": usage.ru_utime,
            "system": usage.ru_stime,
            "cpu": usage.ru_utime + usage.ru_stime,
            "peak_mib": usage.ru_maxrss / 1024,
        }

    def ingest(self, log, cores=None):
        archive = self.work / "archive"
        discard(archive)
        run = self.measure(self.ours(log, archive), cores)
        run["out_bytes"] = sum(path.stat().st_size for path in parquet_files(archive, "*"))
        run["out_bytes_all"] = sum(path.stat().st_size for path in archive.rglob("*") if path.is_file())
        return run

    def convert(self, command, log, cores=None):
        parquet = self.work / "peer.parquet"
        parquet.unlink(missing_ok=True)
        run = self.measure([log if word == "LOG" else word for word in command], cores)
        run["out_bytes"] = parquet.stat().st_size
        return run

    def conversions(self, log):
        peers = self.contenders()
        runs = {name: [] for name in ["strongroom", *peers]}
        warm(log)
        for number in range(self.options.runs + 1):
            for name in runs:
                run = self.ingest(log) if name == "strongroom" else self.convert(peers[name], log)
                note = "warm-up" if number == 0 else f"run {number}"
                print(f"{note:8} {name:14} wall {run['wall']:6.2f} s  cpu {run['cpu']:6.2f} s", file=sys.stderr)
                if number > 0:
                    runs[name].append(run)
        size = log.stat().st_size
        return {name: summary(of, size, self.options.events) for name, of in runs.items()}

    def one_core(self, log):
        """Measures strongroom on one core and on all cores, in turns."""
        runs = {1: [], len(self.cores): []}
        for _ in range(self.options.runs):
            for count in runs:
                runs[count].append(self.ingest(log, set(self.cores[:count])))
        size = log.stat().st_size
        return {str(count): summary(of, size, self.options.events) for count, of in runs.items()}

    def large(self):
        log = self.generate("large.log", ["--events", str(self.options.large_events)])
        warm(log)
        size = log.stat().st_size
        found = {"bytes": size, "strongroom": summary([self.ingest(log)], size, self.options.large_events)}
        command = self.contenders()["duckdb"]
        found["duckdb"] = summary([self.convert(command, log)], size, self.options.large_events)
        log.unlink()
        discard(self.work / "archive")
        return found

    def queries(self, log):
        archive = self.work / "archive"
        discard(archive)
        self.measure(self.ours(log, archive))
        truth = (log.parent / f"{log.name}.truth.jsonl").read_text().splitlines()
        audit_id = json.loads(truth[0])["audit_ids"][0]
        files = [str(path) for path in parquet_files(archive, "events")]
        theirs = Peer([self.python, HERE / "duckdb_queries.py", str(len(self.cores))])
        theirs.ask({"files": files})
        ours = Shell([self.binary, "sql", "--archive", archive], self.work / "answers.txt")
        found = []
        for path in sorted(path for path in QUERIES.glob("*.sql") if ".duckdb." not in path.name):
            # The id in a query is that of a planted attack in this log.
            sql = UUID.sub(audit_id, path.read_text().strip())
            dialect = path.with_suffix(".duckdb.sql")
            their_sql = dialect.read_text().strip() if dialect.exists() else sql
            expected = normal(theirs.ask({"rows": their_sql})["rows"])
            answer = subprocess.run(
                [self.binary, "query", "--archive", archive, "--quiet", "--format", "json", "-"],
                capture_output=True, text=True, input=sql,
            )
            if answer.returncode != 0:
                print(f"{path.stem}: {answer.stderr.strip()}", file=sys.stderr)
                found.append({"name": path.stem, "failed": answer.stderr.strip()})
                continue
            answered = normal([json.loads(line) for line in answer.stdout.splitlines()])
            times = {"strongroom": [], "duckdb": []}
            for number in range(self.options.query_runs + WARMUPS):
                mine, yours = ours.seconds(sql), theirs.ask({"sql": their_sql})["seconds"]
                if number >= WARMUPS:
                    times["strongroom"].append(mine)
                    times["duckdb"].append(yours)
            medians = {name: statistics.median(of) for name, of in times.items()}
            found.append({
                "name": path.stem,
                "rows": len(expected),
                "same_answer": answered == expected,
                "seconds": times,
                "median": medians,
                "ratio": medians["strongroom"] / medians["duckdb"],
            })
            print(
                f"{path.stem:32} {medians['strongroom'] * 1e3:8.1f} ms  duckdb {medians['duckdb'] * 1e3:8.1f} ms"
                f"  {'same answer' if answered == expected else 'ANSWERS DIFFER'}",
                file=sys.stderr,
            )
        theirs.close()
        ours.close()
        mean = math.exp(statistics.fmean(math.log(query["ratio"]) for query in found if "ratio" in query))
        return {"files": len(files), "each": found, "geometric_mean_ratio": mean}


def touch_memory():
    """Makes the host of a virtual machine provide the memory that the next process will get."""
    touch = f"b = bytearray({TOUCHED_BYTES})\nfor at in range(0, len(b), 4096): b[at] = 1"
    subprocess.run([sys.executable, "-c", touch], check=True)


class Peer:
    """A child that answers one JSON object per line."""

    def __init__(self, command):
        self.child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request):
        self.child.stdin.write(json.dumps(request) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            sys.exit(f"a peer failed at {request}")
        return json.loads(line)

    def close(self):
        self.child.stdin.close()
        self.child.wait()


class Shell:
    """Our own session, timed from outside: from the statement's last byte to the remark after its answer."""

    def __init__(self, command, answers):
        self.child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE, stdout=open(answers, "wb"), stderr=subprocess.PIPE, text=True,
        )
        self.say("\\timing on")
        self.child.stderr.readline()
        self.say("\\f csv")

    def say(self, text):
        self.child.stdin.write(text + "\n")
        self.child.stdin.flush()

    def seconds(self, sql):
        started = time.perf_counter()
        self.say(sql + ";")
        remark = self.child.stderr.readline()
        elapsed = time.perf_counter() - started
        if " in " not in remark:
            sys.exit(f"our session failed: {remark}{self.child.stderr.read()}")
        return elapsed

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def normal(rows):
    """Rows with times in one format, sorted, so that engines with different formats agree."""
    return sorted(([(name, same_time(row[name])) for name in sorted(row)] for row in rows), key=repr)


def same_time(value):
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", value):
        try:
            time_of = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return value
        if time_of.tzinfo is None:
            time_of = time_of.replace(tzinfo=datetime.timezone.utc)
        return time_of.astimezone(datetime.timezone.utc).isoformat()
    return value


def parquet_files(archive, table):
    """The sealed files of a table; `*` for all tables."""
    return sorted(archive.glob(f"{table}/*/date=*/*.parquet"))


def discard(archive):
    """Removes an archive that a bench made, sealed files and all."""
    if archive.exists():
        shutil.rmtree(archive)


def warm(log):
    """Reads the log once, so that every contender finds it in the page cache."""
    with open(log, "rb") as stream:
        while stream.read(MEBIBYTE):
            pass


def summary(runs, size, events):
    def median(of):
        return statistics.median(run[of] for run in runs)

    return {
        "runs": runs,
        "wall": median("wall"),
        "cpu": median("cpu"),
        "mb_per_core_second": size / MEGABYTE / median("cpu"),
        "mb_per_wall_second": size / MEGABYTE / median("wall"),
        "peak_mib": max(run["peak_mib"] for run in runs),
        "out_bytes": runs[-1]["out_bytes"],
        "bytes_per_event": runs[-1]["out_bytes"] / events,
    }


def rendered(results):
    about, sizes = results["machine"], results["input"]
    versions = results["versions"]
    lines = [
        "# Whole processes against DuckDB and ClickHouse",
        "",
        f"{about['date']}; {about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']};"
        f" load {about['load_before'][0]:.1f} before, {results['load_after'][0]:.1f} after.",
        f"strongroom at {versions['commit']}, DuckDB {versions['duckdb']}, chdb {versions['chdb']}"
        f" (core {versions['chdb-core']}).",
        f"Input: {sizes['events']:,} events, {sizes['bytes'] / MEGABYTE:,.0f} MB, seed {sizes['seed']}, attacks"
        f" planted, in the page cache. Medians of {len(results['conversions']['strongroom']['runs'])} alternating runs.",
        "",
        "| | MB/s per core of CPU time | CPU s | wall s | peak MiB | bytes | bytes/event |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of in results["conversions"].items():
        lines.append(
            f"| {name} | {of['mb_per_core_second']:.0f} | {of['cpu']:.2f} | {of['wall']:.2f} | {of['peak_mib']:.0f}"
            f" | {of['out_bytes']:,} | {of['bytes_per_event']:.1f} |"
        )
    ours = results["conversions"]["strongroom"]
    lines.append("")
    for name, of in results["conversions"].items():
        if name != "strongroom":
            lines.append(
                f"Against {name}: {ours['mb_per_core_second'] / of['mb_per_core_second']:.2f} times the speed,"
                f" {ours['out_bytes'] / of['out_bytes']:.2f} of the bytes, {ours['peak_mib'] / of['peak_mib']:.2f} of the memory.  "
            )
    counts = sorted(results["one_core"], key=int)
    one, many = results["one_core"][counts[0]], results["one_core"][counts[-1]]
    lines += [
        "",
        f"One core: {one['wall']:.2f} s; {counts[-1]} cores: {many['wall']:.2f} s, {one['wall'] / many['wall']:.2f} times as fast.",
    ]
    if "large" in results:
        large = results["large"]
        lines += [
            "",
            f"Memory on {large['bytes'] / MEGABYTE / 1000:.1f} GB: strongroom {large['strongroom']['peak_mib']:.0f} MiB"
            f" (on {sizes['bytes'] / MEGABYTE / 1000:.1f} GB {ours['peak_mib']:.0f} MiB), DuckDB {large['duckdb']['peak_mib']:.0f} MiB;"
            f" {large['strongroom']['mb_per_core_second']:.0f} and {large['duckdb']['mb_per_core_second']:.0f} MB/s per core.",
        ]
    queries = results["queries"]
    lines += [
        "",
        f"## Questions over the same {queries['files']} Parquet files, warm",
        "",
        "| | rows | strongroom ms | DuckDB ms | ratio | answers |",
        "|---|---|---|---|---|---|",
    ]
    for query in queries["each"]:
        if "failed" in query:
            lines.append(f"| {query['name']} | | failed | | | |")
            continue
        lines.append(
            f"| {query['name']} | {query['rows']} | {query['median']['strongroom'] * 1e3:.1f}"
            f" | {query['median']['duckdb'] * 1e3:.1f} | {query['ratio']:.2f}"
            f" | {'same' if query['same_answer'] else 'DIFFER'} |"
        )
    lines += ["", f"Geometric mean of the ratios: **{queries['geometric_mean_ratio']:.2f}** (below 1, ours is faster).", ""]
    return "\n".join(lines)


main()
