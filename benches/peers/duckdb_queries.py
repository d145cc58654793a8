"""DuckDB as a session over the archive's Parquet files, asked through pipes.

usage: duckdb_queries.py THREADS, with one JSON object per line on standard input:
  {"files": [...]}   opens the files as the view `events`, with the columns our SQL computes
  {"sql": "..."}     answers {"seconds": s, "rows": n}
  {"rows": "..."}    answers {"rows": [{...}, ...]}, for comparing results
"""

import datetime
import json
import sys
import time

import duckdb


def plain(value):
    """A value as our JSON output writes it."""
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def main():
    connection = duckdb.connect(config={"threads": int(sys.argv[1])})
    connection.execute("SET TimeZone = 'UTC'")
    # The footers stay parsed between questions, as they do in our session.
    connection.execute("SET parquet_metadata_cache = true")
    for line in sys.stdin:
        request = json.loads(line)
        if "files" in request:
            connection.execute(
                "CREATE VIEW events AS SELECT *, coalesce(impersonated_user_name, user_name) AS actor,"
                f" source_ips[-1] AS source_ip FROM read_parquet({request['files']}, hive_partitioning = true)"
            )
            answer = {"version": duckdb.__version__}
        elif "sql" in request:
            started = time.perf_counter()
            rows = connection.execute(request["sql"]).fetchall()
            answer = {"seconds": time.perf_counter() - started, "rows": len(rows)}
        else:
            result = connection.execute(request["rows"])
            names = [column[0] for column in result.description]
            rows = result.fetchall()
            answer = {"rows": [dict(zip(names, map(plain, row))) for row in rows]}
        print(json.dumps(answer), flush=True)


main()
