//! An archive whose rows were redacted before they were written: what an export gives, what a proof
//! says, and what both verifiers find when a mark is forged.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, RecordBatch};
use serde_json::{Value as Json, json};
use strongroom_archive::{
    Archive, ArchiveError, Counts, Position, Records as _, SourcePosition, WriterOptions, encode_records,
};
use strongroom_decode::decode_bytes;
use strongroom_ingest::export::{
    EventRecords, ExportError, redacted_partitions, redacted_stream, sealed_stream,
};
use strongroom_proof::{prove, verify_proof};
use strongroom_schemas::Table;
use strongroom_schemas::events::index;
use strongroom_schemas::marks::Redaction;
use strongroom_schemas::record::{leaf_hash, record_hash};
use strongroom_tlog::{PrivateKey, Signer};

use super::sealed::{PARTITION, judged, places, second_opinion};

const TOKEN: &str = "rt1:0123abcd:00112233445566778899aabbccddeeff";
const RECEIVED: &str = "file that was received, of which nothing is here";

fn mark(dropped: &[&str], tokenised: &[&str]) -> String {
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    Redaction::new(0xabc, owned(dropped), owned(tokenised)).expect("a mark").to_string()
}

/// Returns records as they are written, with their marks, and their offsets in the received stream.
fn rows() -> Vec<(String, Option<String>, i64)> {
    let event = |id: &str, more: &str| {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"{id}","stage":"ResponseComplete","verb":"create","user":{{"username":"eve"}},"objectRef":{{"resource":"secrets"}},{more}"requestReceivedTimestamp":"2026-03-02T12:00:00.000000Z","stageTimestamp":"2026-03-02T12:00:00.000001Z"}}"#
        )
    };
    let body = |data: &str| format!(r#""requestObject":{{"kind":"Secret"{data}}},"#);
    let tokenised = body(&format!(r#","data":{{"b":"{TOKEN}"}}"#));
    // A record may be shorter or longer than what was received.
    vec![
        (event("clear", &body("")), None, 0),
        (event("dropped", &body("")), Some(mark(&["/requestObject/data"], &[])), 400),
        (event("tokenised", &tokenised), Some(mark(&[], &["/requestObject/data/b"])), 900),
        (event("clear too", ""), None, 1000),
    ]
}

fn batch(rows: &[(String, Option<String>, i64)]) -> RecordBatch {
    let text: String = rows.iter().map(|(record, ..)| format!("{record}\n")).collect();
    let decoded = decode_bytes(text.as_bytes(), "test", PARTITION).expect("columns of one length");
    assert_eq!(decoded.events.num_rows(), rows.len());
    let mut columns = decoded.events.columns().to_vec();
    let marks: DictionaryArray<Int32Type> = rows.iter().map(|(_, mark, _)| mark.as_deref()).collect();
    columns[index::REDACTION] = Arc::new(marks) as ArrayRef;
    columns[index::SOURCE_OFFSET] =
        Arc::new(arrow_array::Int64Array::from_iter_values(rows.iter().map(|(.., offset)| *offset)));
    RecordBatch::try_new(decoded.events.schema(), columns).expect("columns of events")
}

/// Seals `rows`, hashed as if they had the marks `hashed`.
fn sealed(folder: &Path, rows: &[(String, Option<String>, i64)], hashed: &[Option<String>]) -> Archive {
    let signer = Arc::new(Signer::Key(PrivateKey::generate("test").expect("randomness")));
    let location = folder.join("archive");
    let archive = Archive::open_or_create_signed(location.to_str().expect("text"), Some(signer));
    let archive = archive.expect("a new archive");
    let mut writer = archive.writer_with(WriterOptions::default(), || ()).expect("the lock is free");
    let batch = batch(rows);
    let mut hashes = Vec::new();
    let each = &mut |record: &[u8]| hashes.push(record_hash(hashed[hashes.len()].as_deref(), record));
    EventRecords.each(&batch, each).expect("records");
    for row_group in encode_records(batch, &hashes, chrono::Utc::now()).expect("columns of events") {
        writer.append(row_group).expect("appended");
    }
    let label = "/var/log/audit.log".to_owned();
    let step =
        SourcePosition { partition: PARTITION.to_owned(), label, position: position(rows), previous: None };
    let events = rows.len() as u64;
    let counts = Counts { received: events, events, rejects: 0, duplicates: 0 };
    writer.seal(&[step], counts).expect("sealed");
    archive
}

fn position(rows: &[(String, Option<String>, i64)]) -> Position {
    Position {
        next_offset: 2000,
        records: rows.len() as i64,
        prefix_blake3: blake3::hash(RECEIVED.as_bytes()).as_bytes()[..16].try_into().expect("16 of 32 bytes"),
        broker_offset: None,
    }
}

fn marks(rows: &[(String, Option<String>, i64)]) -> Vec<Option<String>> {
    rows.iter().map(|(_, mark, _)| mark.clone()).collect()
}

/// Returns the kind and the row of each finding, after checking that both verifiers have the same
/// findings.
fn findings(archive: &Archive, folder: &Path) -> Vec<(String, String)> {
    let found = places(&judged(archive).to_json());
    if let Some(report) = second_opinion(archive, folder) {
        let other = report["findings"].as_array().expect("a list").iter();
        let details = |report: &mut dyn Iterator<Item = &Json>| -> BTreeSet<String> {
            let differ = report.filter(|finding| finding["kind"] == "columns_differ");
            differ.map(|finding| finding["detail"].as_str().expect("text").replace('`', "")).collect()
        };
        let ours = judged(archive).to_json();
        let mut ours = ours["findings"].as_array().expect("a list").iter();
        assert_eq!(details(&mut ours), details(&mut other.clone()), "{report:#}");
        let kinds = |places: &[(String, String)]| -> Vec<String> {
            places.iter().map(|(kind, _)| kind.clone()).collect()
        };
        assert_eq!(kinds(&places(&report)), kinds(&found), "{report:#}");
    }
    found
}

#[test]
fn redacted_records_are_verified_and_exported_as_lines() {
    let (folder, rows) = (tempfile::tempdir().expect("a folder"), rows());
    let archive = sealed(folder.path(), &rows, &marks(&rows));
    assert_eq!(findings(&archive, folder.path()), []);
    assert_eq!(judged(&archive).checked.redacted, 2);
    let partitions = redacted_partitions(&archive, &[PARTITION]).expect("partitions");
    assert_eq!(partitions, BTreeSet::from([PARTITION.to_owned()]));

    let stored = |table| -> Vec<RecordBatch> {
        let stored = archive.read_rows(table, PARTITION).expect("planned");
        stored.collect::<Result<_, ArchiveError>>().expect("rows")
    };
    let (events, rejects) = (stored(Table::Events), stored(Table::Rejects));
    fn as_rows(batches: &[RecordBatch]) -> impl Iterator<Item = Result<RecordBatch, ExportError>> {
        batches.iter().cloned().map(Ok)
    }
    let mut out = Vec::new();
    let lines = redacted_stream(as_rows(&events), as_rows(&rejects), 0, &position(&rows), &mut out);
    let lines = lines.expect("the whole stream");
    let expected: String = rows.iter().map(|(record, ..)| format!("{record}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&out), expected);
    assert_eq!((lines.records, lines.redacted, lines.kept_back), (4, 2, 0));
    assert_eq!(lines.bytes, out.len() as u64);
    // A row that is missing is noticed although there is no hash to compare.
    let fewer: Vec<RecordBatch> = events.iter().map(|batch| batch.slice(0, batch.num_rows() - 1)).collect();
    let cut = redacted_stream(as_rows(&fewer), as_rows(&rejects), 0, &position(&rows), std::io::sink());
    assert!(matches!(cut, Err(ExportError::RecordsMissing { found: 3, sealed: 4 })), "{cut:?}");
    // An export of the exact bytes is an error, whatever the lengths of the records.
    let exact =
        sealed_stream(as_rows(&events), as_rows(&rejects), PARTITION, &position(&rows), std::io::sink());
    assert!(exact.is_err(), "{exact:?}");
}

#[test]
fn an_archive_without_marks_has_no_redacted_partition() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows: Vec<_> = rows().into_iter().map(|(record, _, offset)| (record, None, offset)).collect();
    let archive = sealed(folder.path(), &rows, &marks(&rows));
    assert_eq!(redacted_partitions(&archive, &[PARTITION]).expect("partitions"), BTreeSet::new());
    assert_eq!(findings(&archive, folder.path()), []);
    assert_eq!(judged(&archive).checked.redacted, 0);
}

#[test]
fn a_forged_mark_is_a_finding_of_both_verifiers() {
    // Marks that were changed, left out or added after the records were hashed.
    let good = marks(&rows());
    let changed = mark(&["/requestObject/dat"], &[]);
    let forgeries = [
        (1, None),
        (1, Some(changed.clone())),
        (1, good[1].as_ref().map(|mark| mark.replace("0abc", "0abd"))),
        (0, good[1].clone()),
        (2, good[1].clone()),
    ];
    for (row, forged) in forgeries {
        let folder = tempfile::tempdir().expect("a folder");
        let mut rows = rows();
        rows[row].1 = forged;
        let archive = sealed(folder.path(), &rows, &good);
        let kinds: Vec<String> =
            findings(&archive, folder.path()).into_iter().map(|(kind, _)| kind).collect();
        assert!(kinds.contains(&"record_changed".to_owned()), "{row}: {kinds:?}");
    }
    // Marks that the owner of the key has hashed and sealed, but that are false for their records.
    let lies = [
        (0, mark(&["/requestObject"], &[])),
        (1, mark(&["/requestObject/kind"], &[])),
        (1, mark(&["/requestObject/data"], &["/user/username"])),
        (2, mark(&["/requestObject/data"], &[])),
        (2, mark(&[], &["/requestObject/data/b", "/requestObject/data/c"])),
        (3, "{}".to_owned()),
        (3, String::new()),
    ];
    for (row, lie) in lies {
        let folder = tempfile::tempdir().expect("a folder");
        let mut rows = rows();
        rows[row].1 = Some(lie);
        let archive = sealed(folder.path(), &rows, &marks(&rows));
        assert_eq!(findings(&archive, folder.path()), [("columns_differ".to_owned(), row.to_string())]);
    }
}

#[test]
fn a_proof_says_what_was_redacted() {
    let (folder, rows) = (tempfile::tempdir().expect("a folder"), rows());
    let archive = sealed(folder.path(), &rows, &marks(&rows));
    let wanted: HashSet<(String, i64)> =
        rows.iter().map(|(.., offset)| (PARTITION.to_owned(), *offset)).collect();
    let proof = prove(&archive, &wanted, &EventRecords).expect("a proof");
    let proof = serde_json::to_value(&proof).expect("JSON");
    let check = |proof: &Json| verify_proof(proof.to_string().as_bytes(), &[]);
    let proven = check(&proof).expect("it holds");
    for (record, mark, _) in &rows {
        let found = proven.records.iter().find(|proven| proven.record == record.as_bytes()).expect("proven");
        assert_eq!(found.redaction.as_ref().map(ToString::to_string), *mark);
    }
    let parts = proof["records"].as_array().expect("records");
    for (at, part) in parts.iter().enumerate() {
        let is_marked = part.get("redaction").is_some();
        let mut other = proof.clone();
        if is_marked {
            other["records"][at]["redaction"] = Json::Null;
            assert!(check(&other).is_err(), "a mark that is left out");
            for byte in 0..part["redaction"].as_str().expect("a mark").len() {
                let mut mark = part["redaction"].as_str().expect("a mark").as_bytes().to_vec();
                mark[byte] ^= 1;
                other["records"][at]["redaction"] = String::from_utf8_lossy(&mark).into();
                assert!(check(&other).is_err(), "a mark with another byte {byte}");
            }
        } else {
            other["records"][at]["redaction"] = json!(mark(&["/requestObject/data"], &[]));
            assert!(check(&other).is_err(), "a mark where there is none");
        }
    }
    assert_eq!(parts.iter().filter(|part| part.get("redaction").is_some()).count(), 2);
}

#[test]
fn a_clear_record_cannot_be_mistaken_for_a_redacted_one() {
    let (mark, record) = (mark(&["/a"], &[]), b"{\"auditID\":\"a\"}");
    let clear = [mark.as_bytes(), b"\n", record].concat();
    let marked = record_hash(Some(&mark), record);
    for other in
        [clear.clone(), [b"\x02".as_slice(), &clear].concat(), [b"\x02\n".as_slice(), record].concat()]
    {
        assert_ne!(leaf_hash(&other), marked);
    }
}
