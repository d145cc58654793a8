//! Objects that AWS Firehose writes. Such an object consists of JSON documents with many events
//! each, with no newline between them.

use std::io::Write as _;
use std::process::Stdio;

use crate::run::{expect_code, export, ingest, log, number, output, write};

const EVENTS: usize = 9_000;
/// Arguments for blocks that are smaller than the object, so that its only line is divided into
/// several blocks.
const BLOCK: [&str; 2] = ["--block-bytes", "5MiB"];
const COUNT: &str = "SELECT count(*) FROM events WHERE stage IS NOT NULL";

fn object(events: usize) -> Vec<u8> {
    let log = String::from_utf8(log(events as u64, 51)).expect("UTF-8");
    let lines: Vec<&str> = log.lines().collect();
    let mut object = Vec::new();
    for some in lines.chunks(70) {
        let events: Vec<_> = some
            .iter()
            .map(|line| serde_json::json!({ "id": "1", "timestamp": 1, "message": line }))
            .collect();
        // The type of the document comes first, as in what AWS writes.
        object.extend_from_slice(b"{\"messageType\":\"DATA_MESSAGE\",");
        let rest = serde_json::json!({ "logStream": "kube-apiserver-audit-0123", "logEvents": events });
        object.extend_from_slice(&rest.to_string().as_bytes()[1..]);
    }
    object
}

#[test]
fn an_object_longer_than_any_line_is_read_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let object = object(EVENTS);
    assert!(object.len() > 2 * (5 << 20), "{}", object.len());
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&object).expect("in memory");
    let packed = packed.finish().expect("in memory");

    let archive = folder.path().join("packed");
    let path = write(folder.path(), "object.gz", &packed);
    for _ in 0..2 {
        expect_code(ingest(&archive, &[&path]).args(BLOCK), 0);
        assert_eq!(number(&archive, COUNT), EVENTS as i64);
        assert!(export(&archive) == object);
    }
}

/// An uncompressed file may grow. So its last documents are not stored until the file has grown, or
/// is declared complete.
#[test]
fn an_object_that_grows_is_continued_wherever_it_was_cut() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let object = object(EVENTS);
    let archive = folder.path().join("archive");
    let mut stored = 0;
    for cut in [1 << 20, (4 << 20) + 1, 6_000_001, 6_000_002, 11 << 20, object.len() - 1] {
        let path = write(folder.path(), "object", &object[..cut]);
        let run = output(ingest(&archive, &[&path]).args(BLOCK));
        let err = String::from_utf8_lossy(&run.stderr);
        assert!(err.contains("unfinished: "), "{err}");
        if cut > 4 << 20 {
            let exported = export(&archive);
            assert!(
                object.starts_with(&exported) && exported.len() >= stored && exported.len() + (1 << 20) > cut
            );
            stored = exported.len();
        }
    }
    let path = write(folder.path(), "object", &object);
    expect_code(ingest(&archive, &[&path]).args(BLOCK).arg("--complete"), 0);
    assert_eq!(number(&archive, COUNT), EVENTS as i64);
    assert_eq!(number(&archive, "SELECT count(*) FROM rejects"), 0);
    assert!(export(&archive) == object);
}

#[test]
fn one_document_without_a_newline_waits_unless_nothing_can_follow() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let object = object(60);
    let path = write(folder.path(), "object", &object);
    let archive = folder.path().join("file");
    let waiting = output(&mut ingest(&archive, &[&path]));
    let err = String::from_utf8_lossy(&waiting.stderr);
    assert!(err.contains("unfinished: ") && err.contains("--complete"), "{err}");
    expect_code(ingest(&archive, &[&path]).arg("--complete"), 0);

    let piped = folder.path().join("pipe");
    let mut command = ingest(&piped, &["-".as_ref()]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all(&object).expect("it reads");
    assert!(child.wait().expect("it ends").success());
    for archive in [archive, piped] {
        assert_eq!(number(&archive, COUNT), 60);
        assert!(export(&archive) == object);
    }
}
