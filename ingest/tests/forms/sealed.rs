//! An archive whose rows have forms: written like any archive, exported byte for byte, verified.
//!
//! If `STRONGROOM_VERIFIER` is set to the archive command of another verifier, that verifier judges
//! the same archives too.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value as Json, json};
use strongroom_archive::{
    Archive, ArchiveError, Counts, Position, SourcePosition, WriterOptions, encode_records,
};
use strongroom_decode::stream::StreamError;
use strongroom_ingest::export::{EventRecords, ExportError, sealed_stream};
use strongroom_proof::verify::{Options, Report, Watch, verify};
use strongroom_schemas::Table;
use strongroom_schemas::record::leaf_hash;
use strongroom_tlog::{PrivateKey, Signer};

use super::dialects::{DIALECTS, batch, event, row};

pub const PARTITION: &str = "file/00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// The time 2026-03-02T12:00:00Z, in microseconds since 1970.
const NOON_US: i64 = 1_772_452_800_000_000;
const ROWS: usize = 200;

#[derive(Debug)]
enum Oops {
    #[expect(dead_code, reason = "shown by Debug when a test fails")]
    Archive(ArchiveError),
    #[expect(dead_code, reason = "shown by Debug when a test fails")]
    Export(ExportError),
    Stream(StreamError),
}

impl From<ArchiveError> for Oops {
    fn from(error: ArchiveError) -> Self {
        Oops::Archive(error)
    }
}

impl From<StreamError> for Oops {
    fn from(error: StreamError) -> Self {
        Oops::Stream(error)
    }
}

impl From<ExportError> for Oops {
    fn from(error: ExportError) -> Self {
        Oops::Export(error)
    }
}

pub struct Nobody;

impl Watch for Nobody {}

type Row = Map<String, Json>;

/// Makes rows of all dialects in one stream. Returns them, their records, and the stream.
fn stream() -> (Vec<Row>, Vec<Vec<u8>>, Vec<u8>) {
    let mut runner = TestRunner::deterministic();
    let (mut rows, mut records, mut stream) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..ROWS {
        let mut event = event().new_tree(&mut runner).expect("an event").current();
        event.set("stage", "ResponseComplete".into());
        event.set("level", "Request".into());
        event.set("stage_timestamp", (NOON_US + number as i64 * 1_001).into());
        event.set("annotations", Json::Null);
        let (mut row, record) = row(DIALECTS[number % DIALECTS.len()], &event, "east", number as i32);
        row.insert("cluster".to_owned(), "test".into());
        row.insert("source".to_owned(), PARTITION.into());
        row.insert("source_offset".to_owned(), stream.len().into());
        stream.extend_from_slice(&record);
        stream.push(b'\n');
        rows.push(row);
        records.push(record);
    }
    (rows, records, stream)
}

fn sealed(folder: &Path, rows: &[Map<String, Json>], records: &[Vec<u8>], stream: &[u8]) -> Archive {
    let signer = Arc::new(Signer::Key(PrivateKey::generate("test").expect("randomness")));
    let location = folder.join("archive");
    let archive = Archive::open_or_create_signed(location.to_str().expect("text"), Some(signer));
    let archive = archive.expect("a new archive");
    let mut writer = archive.writer_with(WriterOptions::default(), || ()).expect("the lock is free");
    let hashes: Vec<_> = records.iter().map(|record| leaf_hash(record)).collect();
    for row_group in encode_records(batch(rows), &hashes, chrono::Utc::now()).expect("columns of events") {
        writer.append(row_group).expect("appended");
    }
    let position = position(stream);
    let step = SourcePosition {
        partition: PARTITION.to_owned(),
        label: "/var/log/audit.log".to_owned(),
        position,
        previous: None,
    };
    let events = rows.len() as u64;
    let counts = Counts { received: events, events, rejects: 0, duplicates: 0 };
    writer.seal(&[step], counts).expect("sealed");
    archive
}

fn position(stream: &[u8]) -> Position {
    Position {
        next_offset: stream.len() as i64,
        records: ROWS as i64,
        prefix_blake3: blake3::hash(stream).as_bytes()[..16].try_into().expect("16 of 32 bytes"),
        broker_offset: None,
    }
}

fn export(archive: &Archive, stream: &[u8]) -> Result<Vec<u8>, Oops> {
    let rows =
        |table| archive.read_rows(table, PARTITION).expect("planned").map(|batch| batch.map_err(Oops::from));
    let mut out = Vec::new();
    sealed_stream(rows(Table::Events), rows(Table::Rejects), PARTITION, &position(stream), &mut out)?;
    Ok(out)
}

pub fn judged(archive: &Archive) -> Report {
    let options = Options { threads: 2, ..Options::default() };
    verify(archive, &options, &EventRecords, &Nobody).expect("readable")
}

/// Returns the report of another verifier, if one is configured.
pub fn second_opinion(archive: &Archive, folder: &Path) -> Option<Json> {
    let command = std::env::var("STRONGROOM_VERIFIER").ok()?;
    let mut words = command.split_whitespace();
    let mut run = Command::new(words.next().expect("a command"));
    let report = folder.join("second.json");
    let key = archive.keys().expect("keys").current().expect("a key").vkey("test");
    run.args(words).arg(archive.root()).arg("--json").arg(&report).args(["--public-key", &key]);
    let output = run.output().expect("it runs");
    let report = std::fs::read(&report).unwrap_or_default();
    Some(
        serde_json::from_slice(&report)
            .unwrap_or_else(|error| panic!("{run:?}: {error}: {}", String::from_utf8_lossy(&output.stderr))),
    )
}

/// Returns the kind and the row of each finding that names a row.
pub fn places(report: &Json) -> Vec<(String, String)> {
    let findings = report["findings"].as_array().expect("a list").iter();
    let mut places: Vec<_> = findings
        .map(|finding| {
            let place = finding["where"].as_str().expect("text");
            let row = place.split_once(", row ").map_or("", |(_, row)| row);
            (finding["kind"].as_str().expect("text").to_owned(), row.to_owned())
        })
        .collect();
    places.sort();
    places
}

#[test]
fn rows_of_forms_are_exported_byte_for_byte_and_verified() {
    let (rows, records, stream) = stream();
    let folder = tempfile::tempdir().expect("a folder");
    let archive = sealed(folder.path(), &rows, &records, &stream);
    assert!(export(&archive, &stream).expect("the whole stream") == stream);
    let report = judged(&archive);
    assert_eq!(report.findings, []);
    assert_eq!((report.checked.records, report.checked.redacted), (ROWS as u64, 0));
    if let Some(report) = second_opinion(&archive, folder.path()) {
        assert_eq!(report["findings"], json!([]), "{report:#}");
    }
}

#[test]
fn a_form_that_states_a_column_is_a_finding_and_stops_nothing() {
    let (mut rows, records, stream) = stream();
    // The record itself is right and proven, but the row must not describe it in this way.
    let form = rows[10]["form"].as_str().expect("text").replacen(
        r#""level":${level:go}"#,
        r#""level":"Request""#,
        1,
    );
    assert_ne!(rows[10]["form"], form.as_str());
    rows[10].insert("form".to_owned(), form.into());
    rows[20].insert("redaction".to_owned(), "{}".into());
    rows[30].insert("faults".to_owned(), json!(["/stage: odd"]));
    let folder = tempfile::tempdir().expect("a folder");
    let archive = sealed(folder.path(), &rows, &records, &stream);
    let report = judged(&archive);
    let found = places(&report.to_json());
    let kinds: Vec<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
    // The wrong fault is not what the record says either, so the row is found for this too.
    let expected = [&["columns_differ"; 4][..], &["record_changed"]].concat();
    assert_eq!(kinds, expected, "{found:?}");
    assert_eq!(report.checked.records, ROWS as u64);
    let failed = export(&archive, &stream).expect_err("a row without a record");
    assert!(matches!(failed, Oops::Stream(StreamError::Row { .. })), "{failed:?}");
    if let Some(report) = second_opinion(&archive, folder.path()) {
        let named = |places: Vec<(String, String)>| -> Vec<_> {
            places.into_iter().filter(|(kind, _)| kind == "columns_differ").collect()
        };
        let kinds: Vec<String> = places(&report).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, expected, "{report:#}");
        assert_eq!(named(places(&report)), named(found));
    }
}
