"""One whole-process conversion by DuckDB: newline-delimited JSON in, zstd Parquet out.

usage: duckdb_convert.py LOG PARQUET THREADS default|tuned

The schema is given, so DuckDB need not guess it (guessing from the first lines fails on bodies that differ
later); bodies, extras and annotations stay JSON text, as in our archive. `tuned` gives up the order of
rows and writes version 2 pages, DuckDB's fastest and smallest settings that we found.
"""

import sys

import duckdb

USER = "STRUCT(username VARCHAR, uid VARCHAR, groups VARCHAR[], extra JSON)"
COLUMNS = {
    "kind": "VARCHAR",
    "apiVersion": "VARCHAR",
    "level": "VARCHAR",
    "auditID": "VARCHAR",
    "stage": "VARCHAR",
    "requestURI": "VARCHAR",
    "verb": "VARCHAR",
    "user": USER,
    "impersonatedUser": USER,
    "sourceIPs": "VARCHAR[]",
    "userAgent": "VARCHAR",
    "objectRef": "STRUCT(resource VARCHAR, namespace VARCHAR, name VARCHAR, uid VARCHAR, apiGroup VARCHAR,"
    " apiVersion VARCHAR, resourceVersion VARCHAR, subresource VARCHAR)",
    "responseStatus": "STRUCT(metadata JSON, status VARCHAR, message VARCHAR, reason VARCHAR, details JSON,"
    " code INTEGER)",
    "requestObject": "JSON",
    "responseObject": "JSON",
    "requestReceivedTimestamp": "TIMESTAMP",
    "stageTimestamp": "TIMESTAMP",
    "annotations": "JSON",
}


def main():
    log, parquet, threads, setting = sys.argv[1:]
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items())
    options = "FORMAT parquet, COMPRESSION zstd"
    connection = duckdb.connect(config={"threads": int(threads)})
    if setting == "tuned":
        connection.execute("SET preserve_insertion_order = false")
        options += ", PARQUET_VERSION v2"
    connection.execute(
        f"COPY (SELECT * FROM read_json('{log}', format = 'newline_delimited', columns = {{{columns}}}))"
        f" TO '{parquet}' ({options})"
    )


main()
