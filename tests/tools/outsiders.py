"""What readers that are not ours find in an archive, as JSON: outsiders.py ARCHIVE

For each table and each reader: rows, and for each column how many values it has and what they weigh
(bytes of text, sums of numbers, items of lists; as text, for it may have more digits than a JSON number
holds). Two readers that agree on all of that read the same.
"""

import json
import pathlib
import urllib.parse
import sys

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TABLES = ["events", "rejects", "alerts"]


def weigh_arrow(column):
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pc.sum(pc.list_value_length(column)).as_py() or 0
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    elif not pa.types.is_integer(kind):
        column = pc.binary_length(column)
    # Sums of offsets and times outgrow 64 bits.
    return sum(value for value in column.to_pylist() if value is not None)


def with_arrow(table):
    columns = {
        name: [len(table[name]) - table[name].null_count, str(weigh_arrow(table[name]))] for name in table.column_names if name != "date"
    }
    return {"rows": table.num_rows, "columns": columns}


def with_duckdb(connection, files):
    source = f"read_parquet({files!r}, hive_partitioning = false)"
    columns = {}
    for name, kind, *_ in connection.execute(f"describe select * from {source}").fetchall():
        if kind.endswith("[]"):
            weight = f"len({name})"
        elif kind.startswith("TIMESTAMP"):
            weight = f"epoch_us({name})"
        elif kind in ("BIGINT", "INTEGER"):
            weight = name
        elif kind == "BLOB":
            weight = f"octet_length({name})"
        else:
            weight = f"octet_length(encode({name}))"
        count, total = connection.execute(f"select count({name}), coalesce(sum({weight}::hugeint), 0) from {source}").fetchone()
        columns[name] = [count, str(int(total))]
    rows = connection.execute(f"select count(*) from {source}").fetchone()[0]
    return {"rows": rows, "columns": columns}


def main(root):
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    found = {}
    for table in TABLES:
        volumes = sorted(path for path in (root / table).glob("[0-9]*") if path.is_dir())
        if not volumes:
            continue
        deltas = [deltalake.DeltaTable(str(volume)) for volume in volumes]
        # deltalake says which files there are and reads them; pyarrow reads the same files by itself.
        files = [str(volume / path) for volume, delta in zip(volumes, deltas) for path in relative(delta, volume)]
        if not files:
            continue
        read = pa.concat_tables([delta.to_pyarrow_table() for delta in deltas])
        found[table] = {
            "versions": [delta.version() for delta in deltas],
            "files": len(files),
            "log": sum(count for delta in deltas for count in pa.table(delta.get_add_actions(flatten=True))["num_records"].to_pylist()),
            "deltalake": with_arrow(read),
            "pyarrow": with_arrow(pa.concat_tables([pq.ParquetFile(file).read() for file in files])),
            "duckdb": with_duckdb(connection, files),
        }
    json.dump(found, sys.stdout)


def relative(delta, volume):
    for uri in delta.file_uris():
        path = pathlib.Path(urllib.parse.unquote(uri.removeprefix("file://")))
        yield path.relative_to(volume)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
