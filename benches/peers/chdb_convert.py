"""One whole-process conversion by ClickHouse (chdb): JSONEachRow in, zstd Parquet out.

usage: chdb_convert.py LOG PARQUET THREADS

The schema is given; bodies, extras and annotations stay JSON text, as in our archive.
"""

import sys

import chdb

USER = (
    "Tuple(username Nullable(String), uid Nullable(String), groups Array(String), extra Nullable(String))"
)
OPTIONAL = "Nullable(String)"
OBJECT_REF = ", ".join(
    f"{name} {OPTIONAL}"
    for name in ("resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource")
)
COLUMNS = {
    "kind": "LowCardinality(String)",
    "apiVersion": "LowCardinality(String)",
    "level": "LowCardinality(String)",
    "auditID": "String",
    "stage": "LowCardinality(String)",
    "requestURI": "String",
    "verb": "LowCardinality(String)",
    "user": USER,
    "impersonatedUser": USER,
    "sourceIPs": "Array(String)",
    "userAgent": "String",
    "objectRef": f"Tuple({OBJECT_REF})",
    "responseStatus": f"Tuple(metadata {OPTIONAL}, status {OPTIONAL}, message {OPTIONAL}, reason {OPTIONAL},"
    f" details {OPTIONAL}, code Nullable(Int32))",
    "requestObject": OPTIONAL,
    "responseObject": OPTIONAL,
    "requestReceivedTimestamp": "DateTime64(6, 'UTC')",
    "stageTimestamp": "DateTime64(6, 'UTC')",
    "annotations": OPTIONAL,
}
SETTINGS = {
    "output_format_parquet_compression_method": "'zstd'",
    "date_time_input_format": "'best_effort'",
    "input_format_null_as_default": "1",
}


def main():
    log, parquet, threads = sys.argv[1:]
    schema = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items()).replace("'", "\\'")
    settings = dict(SETTINGS, max_threads=threads, max_insert_threads=threads)
    chdb.query(
        f"INSERT INTO FUNCTION file('{parquet}', 'Parquet')"
        f" SELECT * FROM file('{log}', 'JSONEachRow', '{schema}')"
        f" SETTINGS {', '.join(f'{name} = {value}' for name, value in settings.items())}"
    )


main()
