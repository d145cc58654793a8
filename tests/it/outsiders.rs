//! Readers that are not ours read the archive, and read the same: the promise that an auditor needs nothing
//! of ours.
//!
//! `tests/tools/outsiders.py` opens the archive with delta-rs and pyarrow (by way of the Delta log), and the
//! listed files with DuckDB; this test counts the same things through our own reader.

use std::collections::BTreeMap;
use std::process::Command;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use strongroom_archive::Archive;
use strongroom_schemas::Table;

use crate::run;

/// How many values a column has, and what they weigh; as in the script.
type Weight = (i64, i128);

fn weigh(column: &ArrayRef) -> Weight {
    let present: Vec<usize> = (0..column.len()).filter(|row| column.is_valid(*row)).collect();
    let each: Box<dyn Fn(usize) -> i128> = match column.data_type() {
        DataType::Utf8 => Box::new(|row| column.as_string::<i32>().value(row).len() as i128),
        DataType::Binary => Box::new(|row| column.as_binary::<i32>().value(row).len() as i128),
        DataType::Int32 => Box::new(|row| column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Box::new(|row| column.as_primitive::<Int64Type>().value(row).into()),
        DataType::Timestamp(..) => {
            Box::new(|row| column.as_primitive::<TimestampMicrosecondType>().value(row).into())
        }
        DataType::List(_) => Box::new(|row| i128::from(column.as_list::<i32>().value_length(row))),
        other => panic!("no column of ours is {other}"),
    };
    (present.len() as i64, present.into_iter().map(each).sum())
}

fn ours(archive: &Archive, table: Table) -> (u64, BTreeMap<String, Weight>) {
    let (mut rows, mut columns) = (0, BTreeMap::<String, Weight>::new());
    for source in archive.sources().expect("sources") {
        for batch in archive.read_rows(table, &source.partition).expect("planned") {
            let batch = batch.expect("readable");
            rows += batch.num_rows() as u64;
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                let (count, weight) = weigh(column);
                let total = columns.entry(field.name().clone()).or_default();
                *total = (total.0 + count, total.1 + weight);
            }
        }
    }
    (rows, columns)
}

#[test]
fn outsiders_read_what_we_read() {
    // ./tests/run installs the readers and says where; without it there is nobody to ask.
    let Some(python) = std::env::var_os("STRONGROOM_PYTHON") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("ärchive with spaces");
    let mut text = run::log(30_000, 11);
    text.extend_from_slice(b"not json\n{\"kind\":\"Pod\"}\n\xff\xfe\n");
    let first = run::write(folder.path(), "first.log", &text);
    let second = run::write(folder.path(), "second.log", &run::log(3_000, 12));
    run::expect_code(&mut run::ingest(&root, &[&first]), 1);
    run::expect_code(&mut run::ingest(&root, &[&second]), 0);

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/outsiders.py");
    let output = run::output(Command::new(python).arg(script).arg(&root));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the script prints JSON");

    let archive = Archive::open(root.to_str().expect("text")).expect("an archive");
    for (table, least) in [(Table::Events, 33_000), (Table::Rejects, 3), (Table::Alerts, 1)] {
        let (rows, columns) = ours(&archive, table);
        assert!(rows >= least, "{} has {rows} rows", table.name());
        assert_eq!(archive.snapshot(table).expect("a snapshot").rows(), rows);
        let found = &found[table.name()];
        assert_eq!(found["log"], rows, "rows of {} by the commits", table.name());
        for reader in ["deltalake", "pyarrow", "duckdb"] {
            assert_eq!(found[reader]["rows"], rows, "rows of {} by {reader}", table.name());
            for (name, (count, weight)) in &columns {
                let theirs = &found[reader]["columns"][name];
                let expected = format!("[{count},\"{weight}\"]");
                assert_eq!(theirs.to_string(), expected, "{}.{name} by {reader}", table.name());
            }
        }
    }
}
