//! Compares the fast decoder with the plain one, and accounts for every byte.
//!
//! Method: for any input, (1) each event's columns equal what `serde_json` reads from the bytes
//! that the archive would return for it; (2) each reject is refused by `serde_json` too; (3)
//! events, rejects and newlines, put back by offset, are the input; (4) the hash taken of a record
//! at ingest equals the hash of the bytes given back. Inputs: generated logs, the shared corpus of
//! real events, and both of them mutated.

mod streams;
mod wrappers;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, RecordBatch};
use proptest::prelude::*;
use strongroom_decode::render::Renderer;
use strongroom_decode::stream::{self, StreamError};
use strongroom_decode::{DecodedBlock, Decoder, DecoderConfig, decode_bytes, plain_row};
use strongroom_generate::{Generator, GeneratorOptions};
use strongroom_lines::frame::{Edge, LineSoFar, Origin};
use strongroom_lines::{
    Block, DEPTH_MAX, LINE_BYTES_MAX, Reading, Reason, decode_alone, decode_record, plain,
};
use strongroom_schemas::events::index;
use strongroom_schemas::record::{Sha256Hash, leaf_hash};
use strongroom_schemas::rejects;

fn generated(events: u64, seed: u64) -> Vec<u8> {
    let options = GeneratorOptions { seed, events, attacks: events >= 5_000, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("valid options");
    let mut log = Vec::new();
    while generator.next_line(&mut log) {}
    log
}

fn corpus_folder() -> PathBuf {
    std::env::var_os("STRONGROOM_CORPUS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from)
}

/// Returns the files of the shared corpus. If the corpus is missing, prints a note and returns
/// none.
#[expect(clippy::print_stderr, reason = "a test that looks at less than it could must say so")]
fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let root = corpus_folder();
    let mut files = Vec::new();
    for pattern in ["*/*.ndjson", "*/*.ndjson.gz"] {
        for path in glob::glob(&root.join(pattern).to_string_lossy()).expect("valid pattern").flatten() {
            let mut bytes = std::fs::read(&path).expect("readable corpus file");
            if path.extension().is_some_and(|extension| extension == "gz") {
                let mut plain = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut plain)
                    .expect("gzip");
                bytes = plain;
            }
            files.push((path, bytes));
        }
    }
    if files.is_empty() {
        eprintln!("corpus of real events is absent at {}: set STRONGROOM_CORPUS", root.display());
    }
    files
}

#[derive(Debug)]
struct Oops(#[allow(dead_code, reason = "shown by Debug when a test fails")] StreamError);

impl From<StreamError> for Oops {
    fn from(error: StreamError) -> Self {
        Oops(error)
    }
}

impl From<Infallible> for Oops {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

fn rebuilt(decoded: &DecodedBlock, end: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let batches = |batch: &RecordBatch| std::iter::once(Ok::<_, Oops>(batch.clone()));
    stream::write(batches(&decoded.events), batches(&decoded.rejects), end as i64, &mut out)
        .expect("records in order");
    out
}

fn reasons(decoded: &DecodedBlock) -> Vec<String> {
    let column = decoded.rejects.column(rejects::index::REASON).as_dictionary::<Int32Type>();
    let values = column.values().as_string::<i32>();
    column.keys().iter().map(|key| values.value(key.expect("never null") as usize).to_owned()).collect()
}

/// Decodes one whole stream with this bound on the length of a line.
fn decode_bounded(input: &[u8], line_bytes_max: usize, to_seal: bool) -> DecodedBlock {
    let block = Block {
        origin: Arc::new(Origin {
            partition: "p".to_owned(),
            cluster: "c".to_owned(),
            reading: Arc::default(),
        }),
        offset: 0,
        first_line: 1,
        bytes: input.to_vec(),
        begins: LineSoFar::default().edge(input, LINE_BYTES_MAX),
        ends: Edge::Line,
        open_ended: false,
    };
    let config = DecoderConfig { line_bytes_max, ..DecoderConfig::default() };
    let (mut decoder, arrived) = (Decoder::new(config), chrono::DateTime::UNIX_EPOCH);
    let decoded =
        if to_seal { decoder.decode_to_seal(&block, arrived) } else { decoder.decode(&block, arrived) };
    decoded.expect("the columns fit their schema")
}

/// Whether the name of a member is written with an escape.
fn has_escaped_name(json: &[u8]) -> bool {
    let mut at = 0;
    while let Some(begin) = json[at..].iter().position(|byte| *byte == b'"').map(|found| at + found + 1) {
        let mut end = begin;
        while json.get(end).is_some_and(|byte| *byte != b'"') {
            end += if json[end] == b'\\' { 2 } else { 1 };
        }
        let end = end.min(json.len());
        let is_name = json[(end + 1).min(json.len())..].trim_ascii_start().starts_with(b":");
        if is_name && json[begin..end].contains(&b'\\') {
            return true;
        }
        at = (end + 1).min(json.len());
    }
    false
}

/// Checks the four points of the module's documentation, and returns what was decoded.
fn check(input: &[u8]) -> DecodedBlock {
    check_bounded(input, LINE_BYTES_MAX)
}

fn check_bounded(input: &[u8], line_bytes_max: usize) -> DecodedBlock {
    let decoded = decode_bounded(input, line_bytes_max, false);
    assert_eq!(decoded.consumed, input.len());
    let rebuilt = rebuilt(&decoded, input.len());
    assert!(
        rebuilt == input,
        "rebuilt bytes differ:\n{}\n{}",
        String::from_utf8_lossy(&rebuilt),
        String::from_utf8_lossy(input)
    );
    let renderer = Renderer::new(&decoded.events).expect("columns of events");
    // The hashes as computed when a block is decoded to be sealed.
    let hashes: Vec<Sha256Hash> = decode_bounded(input, line_bytes_max, true).record_hashes;
    assert_eq!(hashes.len(), decoded.events.num_rows());
    let (raw, faults) = (decoded.events.column(index::RAW), decoded.events.column(index::FAULTS));
    let (mut record, mut rendered) = (Vec::new(), Vec::new());
    for (row, hash) in hashes.into_iter().enumerate() {
        record.clear();
        renderer.record(row, &mut record).expect("a row that was just decoded has a record");
        assert_eq!(hash, leaf_hash(&record), "{}", String::from_utf8_lossy(&record));
        let expected = decode_record(&record, &Reading::default(), DEPTH_MAX)
            .unwrap_or_else(|refusal| panic!("{refusal:?}: {}", String::from_utf8_lossy(&record)));
        assert_eq!(plain_row(&decoded.events, row), expected, "{}", String::from_utf8_lossy(&record));
        let keeps = raw.is_valid(row) || decoded.events.column(index::FORM).is_valid(row);
        assert!(faults.is_null(row) || keeps, "the bytes of an event with faults are lost");
        // A line with an escape in a name, with faults, or perhaps with a lone surrogate, is left to
        // the plain decoder, which always keeps `raw`.
        let has_surrogate = memchr::memmem::find(&record, b"\\ud").is_some();
        if raw.is_valid(row) && faults.is_null(row) && !has_escaped_name(&record) && !has_surrogate {
            rendered.clear();
            renderer.columns(row, &mut rendered);
            assert!(
                rendered != record,
                "raw is kept although the record can be rendered: {}",
                String::from_utf8_lossy(&record)
            );
        }
    }
    let raw = decoded.rejects.column(rejects::index::RAW).as_binary::<i32>();
    let reasons = reasons(&decoded);
    for (row, reason) in reasons.iter().enumerate() {
        // The rest of a torn line may be a record of a wrapper; it is not believed after a tear.
        // Nor is a piece of a line, because a client may have chosen where the piece begins.
        let torn = reason == "torn_line" || reason == "line_too_long";
        assert!(
            torn || decode_alone(raw.value(row), DEPTH_MAX).is_err(),
            "{}",
            String::from_utf8_lossy(raw.value(row))
        );
    }
    if let [reason] = reasons.as_slice()
        && raw.value(0) == input
        && !input.contains(&b'\n')
        && reason != "line_too_long"
        && reason != "torn_line"
    {
        // A list may be refused for another reason, because its items are judged one by one.
        let refusal = decode_alone(input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input), DEPTH_MAX);
        let expected = refusal.expect_err("refused above").reason;
        let is_list = memchr::memmem::find(input, b"\"EventList\"").is_some();
        // A damaged wrapper, too, may be refused for another reason.
        let is_list = is_list
            || [&b"\"records\""[..], b"\"logEvents\"", b"\"events\"", b"\"values\"", b"\"logRecords\""]
                .iter()
                .any(|name| memchr::memmem::find(input, name).is_some());
        let of_items = expected == Reason::NotAnAuditEvent || is_list;
        assert!(of_items || expected.as_str() == reason, "{expected}, {reason}");
    }
    decoded
}

#[test]
fn generated_log_needs_no_raw() {
    let log = generated(20_000, 7);
    let decoded = check(&log);
    assert_eq!(decoded.events.num_rows(), log.iter().filter(|byte| **byte == b'\n').count());
    assert_eq!(decoded.rejects.num_rows(), 0);
    let kept = decoded.events.num_rows() - decoded.events.column(index::RAW).null_count();
    assert_eq!(kept, 0, "generated lines are written as kube-apiserver writes them");
}

#[test]
fn every_file_of_the_corpus() {
    let (mut shaped, mut without_raw, mut sysdig) = (0, 0, 0);
    for (path, bytes) in corpus() {
        let name = format!(
            "{}/{}",
            path.parent().and_then(|p| p.file_name()).unwrap_or_default().to_string_lossy(),
            path.file_name().unwrap_or_default().to_string_lossy()
        );
        if name.ends_with("labels.jsonl") {
            continue;
        }
        let decoded = check(&bytes);
        let refused = reasons(&decoded);
        let raw = decoded.events.column(index::RAW);
        println!(
            "{name}: {} events ({} with raw), rejects {refused:?}",
            decoded.events.num_rows(),
            raw.len() - raw.null_count()
        );
        if name.starts_with("sysdig-aks/") {
            sysdig += decoded.events.num_rows();
        }
        // Cases from the field have their own outcomes.
        if name.starts_with("field/") {
            continue;
        }
        if name == "falco/fal_01_003.ndjson" {
            assert_eq!(refused, ["not_an_audit_event"], "{name}");
        } else {
            assert_eq!(refused, [] as [&str; 0], "{name}");
            assert!(decoded.events.num_rows() > 0, "{name}");
        }
        // In the newer files, a line that kube-apiserver wrote as audit.k8s.io/v1 is recognised by
        // its first bytes.
        for (row, line) in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
            let v1 = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"#;
            if line.starts_with(v1) && row < raw.len() {
                shaped += 1;
                without_raw += usize::from(raw.is_null(row));
            }
        }
    }
    assert!([0, 46].contains(&sysdig), "events in the wrappers of Azure: {sysdig}");
    println!("shaped as kube-apiserver writes them: {shaped}, without raw: {without_raw}");
    assert!(without_raw * 100 >= shaped * 99, "{without_raw} of {shaped}");
}

#[test]
fn a_thousand_lines_cut_at_each_of_some_bytes() {
    let log = generated(1_000, 3);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut cut_log = Vec::new();
    let mut lines = 0;
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let cut = (state >> 33) as usize % line.len().max(1);
        cut_log.extend_from_slice(&line[..cut.max(1)]);
        cut_log.push(b'\n');
        lines += 1;
    }
    let decoded = check(&cut_log);
    assert_eq!(decoded.records(), lines);
    assert_eq!(decoded.events.num_rows() as u64 + decoded.rejects.num_rows() as u64, lines);
}

#[test]
fn one_line_cut_at_every_byte() {
    let log = generated(40, 11);
    for line in log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(12) {
        let named = end_of_user(line);
        for cut in 1..line.len() {
            let decoded = decode_bytes(&line[..cut], "c", "p").expect("columns");
            let rows = (decoded.events.num_rows(), decoded.rejects.num_rows());
            assert_eq!(rows, if cut < named { (0, 1) } else { (1, 0) }, "cut at {cut}");
            if cut % 7 == 0 {
                check(&line[..cut]);
            }
        }
        check(line);
    }
}

/// Returns where the user ends in a line of kube-apiserver. The request is before the user.
fn end_of_user(line: &[u8]) -> usize {
    let find = |text: &[u8]| memchr::memmem::find(line, text);
    let end = find(b",\"impersonatedUser\":").or_else(|| find(b",\"sourceIPs\":"));
    end.expect("a line of kube-apiserver has a user")
}

#[test]
fn a_torn_line_glued_to_the_next_gives_up_the_whole_event() {
    let log = generated(200, 5);
    let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    for pair in lines.chunks_exact(2) {
        for cut in [1, 10, pair[0].len() / 2, pair[0].len() - 1] {
            let glued = [&pair[0][..cut], pair[1], b"\n"].concat();
            let decoded = check(&glued);
            let whole = pair[1];
            let record = |row: usize| plain_row(&decoded.events, row);
            let names_request = cut >= end_of_user(pair[0]);
            assert_eq!(record(usize::from(names_request)), decode_alone(whole, DEPTH_MAX).expect("an event"));
            if names_request {
                assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (2, 0), "cut at {cut}");
                assert_eq!(record(0), decode_alone(&pair[0][..cut], DEPTH_MAX).expect("a cut event"));
            } else {
                assert_eq!(decoded.events.num_rows(), 1, "cut at {cut}");
                assert_eq!(reasons(&decoded), ["torn_line"]);
            }
        }
        let both = [pair[0], pair[1], b"\n"].concat();
        let decoded = check(&both);
        assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (2, 0));
        let torn_after = [pair[0], &pair[1][..100], b"\n"].concat();
        let decoded = check(&torn_after);
        assert_eq!((decoded.events.num_rows(), reasons(&decoded)), (1, vec!["torn_line".to_owned()]));
        let cut_after = [pair[0], &pair[1][..pair[1].len() - 5], b"\n"].concat();
        let decoded = check(&cut_after);
        assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (2, 0));
    }
}

/// A client may send text that looks like an event. Wherever the client's own event is torn, that
/// text is never taken for an event.
#[test]
fn a_body_that_looks_like_an_event_is_never_taken_for_one() {
    let forged = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"forged","stage":"ResponseComplete","verb":"delete","user":{"username":"victim"}}"#;
    let real = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"real","stage":"ResponseComplete","verb":"get"}"#;
    let outer = format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"outer","requestObject":[{forged},{forged}],"x":[{forged}{forged}]}}"#
    );
    let first = outer.find("[").expect("a list") + 1;
    for cut in first + forged.len()..outer.len() {
        for (end, events) in [("", 0), ("\n", 0), ("[Truncated...]\n", 0), ("\0\0\n", 0)] {
            let line = format!("{}{end}", &outer[..cut]);
            // Two events without a comma between them are not JSON, so a tear is between them.
            if line.ends_with(&format!("{forged}{forged}\n")) {
                continue;
            }
            assert_eq!(check(line.as_bytes()).events.num_rows(), events, "{line}");
        }
        let glued = check(format!("{}{real}\n", &outer[..cut]).as_bytes());
        let ids = glued.events.column(index::AUDIT_ID);
        let ids: Vec<_> = ids.as_string::<i32>().iter().flatten().collect();
        let real: &[&str] = if takes_a_value(&outer[..cut], forged) { &[] } else { &["real"] };
        assert_eq!(ids, real, "cut at {cut}");
    }
}

/// Whether JSON allows an object after this text of a body with the client's event in lists.
fn takes_a_value(text: &str, forged: &str) -> bool {
    text.ends_with([':', '[']) || text.ends_with(&format!("{forged},"))
}

/// A writer that cuts long lines may cut right before or after a client's event.
#[test]
fn an_event_at_a_cut_is_believed_only_where_it_cannot_be_nested() {
    let event = |id: &str, rest: &str| {
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"{id}","stage":"Panic","requestURI":"/","verb":"get","user":{{"username":"u"}}{rest}}}"#
        )
    };
    let (forged, real) = (event("forged", ""), event("real", ""));
    let cut_after_client = |before: &str| {
        let whole = event("outer", &format!(r#","requestObject":{before}{forged}"#));
        whole[..whole.len() - 1].to_owned()
    };
    let ids = |decoded: &DecodedBlock| -> Vec<String> {
        let ids = decoded.events.column(index::AUDIT_ID);
        ids.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    };
    let torn_in_string =
        &event("torn", r#","userAgent":"a"#)[..event("torn", r#","userAgent":"a"#).len() - 1];
    let after_comma = &event("torn", r#","x":1,"#)[..event("torn", r#","x":1,"#).len() - 1];
    for (line, expected) in [
        // A merge patch, an item of a list, a member in a list, and each of them with white space.
        (cut_after_client(""), vec!["outer"]),
        (cut_after_client(" "), vec!["outer"]),
        (cut_after_client("["), vec!["outer"]),
        (cut_after_client("[1, "), vec!["outer"]),
        (cut_after_client(r#"[{"op":"add","value": "#), vec!["outer"]),
        (cut_after_client(r#"{"a":["]\"}",{"b":{}},"#), vec!["outer"]),
        (format!("\0\0{}", cut_after_client("[")), vec![]),
        (format!("{}   ", cut_after_client("[")), vec!["outer"]),
        // The writer had stopped in a string earlier.
        (format!("{torn_in_string}{}", cut_after_client("[")), vec!["torn"]),
        // Two tears, or one tear at a place where JSON allows no value.
        (format!("{torn_in_string}{real}"), vec!["torn", "real"]),
        (format!("{after_comma}{real}"), vec!["torn", "real"]),
        (format!("{}]{real}", cut_after_client("[")), vec!["outer", "real"]),
        (format!("{}{real}", cut_after_client("[")), vec!["outer", "real"]),
        (format!("{}\0\0{real}", cut_after_client("[")), vec!["outer", "real"]),
        // A piece that begins with the client's event.
        (format!(r#"{forged}],"requestReceivedTimestamp":null}}"#), vec![]),
        (format!("{forged} }}"), vec![]),
        (format!("{forged},{forged}"), vec![]),
        (format!(r#"{{"op":"add"}},{forged}"#), vec![]),
        (format!(r#"{{"op":"a"}}}}{forged}"#), vec![]),
        (format!("{real}{forged}]"), vec!["real"]),
        // Near misses: the text after the event does not belong to a text around it.
        (format!("{real} {real}"), vec!["real", "real"]),
        (format!("{real}x"), vec!["real"]),
    ] {
        let decoded = check(format!("{line}\n").as_bytes());
        assert_eq!(ids(&decoded), expected, "{line}");
        let all_torn = reasons(&decoded).iter().all(|reason| reason == "torn_line");
        assert!(all_torn || expected.is_empty(), "{line} {:?}", reasons(&decoded));
    }
}

/// A stream that begins inside a client's list looks like an array.
#[test]
fn an_array_that_does_not_begin_with_an_object_of_a_log_has_no_events() {
    let log = generated(2, 61);
    let lines: Vec<&str> = std::str::from_utf8(&log).expect("UTF-8").lines().collect();
    let other = r#"{"op":"add","path":"/x","value":1}"#;
    for (list, events, refused) in [
        (
            vec![other, lines[0], other, lines[1]],
            0,
            vec!["not_an_audit_event", "torn_line", "not_an_audit_event", "torn_line"],
        ),
        (vec![r#"{"log":"started"}"#, lines[0]], 1, vec!["not_an_audit_event"]),
        (vec![lines[0], other, lines[1]], 2, vec!["not_an_audit_event"]),
        (vec![other], 0, vec!["not_an_audit_event"]),
    ] {
        for input in [
            format!("[{}]\n", list.join(",")),
            format!("[\n{}\n]\n", list.join(",\n")),
            format!("{}\n[{}]\n", lines[0], list.join(",")),
        ] {
            let events = events + usize::from(input.starts_with('{'));
            let decoded = check(input.as_bytes());
            assert_eq!(
                (decoded.events.num_rows(), reasons(&decoded)),
                (events, refused.iter().map(|r| (*r).to_owned()).collect()),
                "{input}"
            );
        }
    }
    // The list is cut with its line, and lines of the log follow.
    for end in ["", " ", "\r"] {
        let cut = format!("[{other},{}{end}\n", lines[0]);
        for (before, events) in [("", 1), (lines[0], 2)] {
            let decoded = check(format!("{before}\n{cut}{}\n", lines[1]).as_bytes());
            assert_eq!(decoded.events.num_rows(), events, "{before} {cut} {:?}", reasons(&decoded));
        }
        assert_eq!(check(cut.as_bytes()).events.num_rows(), 0, "{cut}");
    }
    // The list is followed by the rest of the patch and of the event around it.
    let decoded = check(format!("[{other},{}],\"x\":1}}\n{}\n", lines[0], lines[1]).as_bytes());
    assert_eq!(decoded.events.num_rows(), 1, "{:?}", reasons(&decoded));
}

/// A client's event is taken although it is cut. What the client put into its body is not taken for
/// an event.
#[test]
fn a_cut_event_says_nothing_of_what_a_client_put_into_it() {
    let forged = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"forged","stage":"ResponseComplete","requestURI":"/x","verb":"delete","user":{"username":"victim"}}"#;
    let real = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"real","stage":"ResponseComplete","verb":"get"}"#;
    let outer = format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"outer","verb":"get","user":{{"username":"u"}},"userAgent":"\",\"verb\":\"list\"","requestObject":[{forged},{forged}],"x":[{forged}{forged}]}}"#
    );
    let first = outer.find(r#","userAgent""#).expect("the member is there");
    let ids = |decoded: &DecodedBlock| -> Vec<String> {
        let ids = decoded.events.column(index::AUDIT_ID);
        ids.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    };
    for cut in first..outer.len() {
        for end in ["", "\n", "[Truncated...]\n", "\0\0\n", "\u{fffd}\n"] {
            let line = format!("{}{end}", &outer[..cut]);
            if line.ends_with(&format!("{forged}{forged}\n")) {
                continue;
            }
            let decoded = check(line.as_bytes());
            assert!(decoded.events.num_rows() <= 1, "{line}");
            for row in 0..decoded.events.num_rows() {
                let event = plain_row(&decoded.events, row);
                assert_eq!(event.audit_id.as_deref(), Some("outer"), "cut at {cut}");
                assert_eq!((event.verb.as_deref(), event.user_name.as_deref()), (Some("get"), Some("u")));
            }
        }
        let glued = check(format!("{}{real}\n", &outer[..cut]).as_bytes());
        // The colons in the user agent are in a string.
        let in_string = cut < outer.find(r#","requestObject""#).expect("the member is there")
            && !outer[..cut].ends_with(r#""userAgent":"#);
        let takes_a_value = !in_string && takes_a_value(&outer[..cut], forged);
        let both: &[&str] = if takes_a_value { &["outer"] } else { &["outer", "real"] };
        assert_eq!(ids(&glued), both, "cut at {cut}");
    }
}

#[test]
fn a_short_line_cannot_become_millions_of_rows() {
    let list = format!(r#"{{"kind":"EventList","items":[{}]}}"#, vec!["{}"; 100_000].join(","));
    let decoded = check(list.as_bytes());
    assert_eq!((decoded.events.num_rows(), reasons(&decoded)), (0, vec!["short_items".to_owned()]));
    let few = check(br#"{"kind":"EventList","items":[{},{}]}"#);
    assert_eq!(few.rejects.num_rows(), 2);
}

#[test]
fn event_lists_are_their_items_and_their_frame() {
    let log = generated(50, 9);
    let lines: Vec<&str> = std::str::from_utf8(&log).expect("UTF-8").lines().collect();
    // Items of a list have neither `kind` nor `apiVersion`.
    let items: Vec<String> = lines
        .iter()
        .map(|line| line.replacen(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "", 1))
        .collect();
    let list = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
        items.join(",")
    );
    let decoded = check(format!("{list}\n{list}\n").as_bytes());
    assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (100, 0));
    assert_eq!(decoded.events.column(index::RAW).null_count(), 100, "items need no raw");

    let broken = format!(
        r#" {{ "kind":"EventList","items":[ {{"kind":0}} , {} , 7,{} , {{"kind":1}} ] }} "#,
        items[0], items[1]
    );
    let decoded = check(broken.as_bytes());
    assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (2, 3));
    for empty in [
        r#"{"kind":"EventList","items":[]}"#,
        r#"{"kind":"EventList","items":null}"#,
        r#"{"kind":"EventList"}"#,
    ] {
        assert_eq!(reasons(&check(empty.as_bytes())), ["empty_event_list"]);
    }
}

/// A client's deeply nested body affects the event that it is in, and no other event.
#[test]
fn what_is_too_deep_costs_only_itself() {
    let log = generated(6, 13);
    let lines: Vec<&str> = std::str::from_utf8(&log).expect("UTF-8").lines().collect();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deep = format!(r#"{{"kind":"Event","auditID":"deep","requestObject":{}}}"#, nested(128));
    let deepest = format!(r#"{{"kind":"Event","auditID":"deepest","requestObject":{}}}"#, nested(1_000_000));
    let allowed = format!(r#"{{"kind":"Event","auditID":"allowed","requestObject":{}}}"#, nested(127));
    let list = |items: &[&str], end: &str| {
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}}{end}"#, items.join(","))
    };
    for deep in [deep.as_str(), deepest.as_str()] {
        for (input, events, refused) in [
            (list(&[lines[0], deep, lines[1], deep, &allowed], ""), 5, vec![]),
            (list(&[deep, lines[0]], "\n"), 2, vec![]),
            (list(&[deep], "\n"), 1, vec![]),
            (list(&["7", deep, lines[0]], "\n"), 2, vec!["not_an_audit_event"]),
            // Documents on one line, and a torn one before a whole one.
            (format!("{}{deep}{}\n", lines[0], lines[1]), 3, vec![]),
            (format!("{deep}{}", lines[1]), 2, vec![]),
            (format!("{}{}\n", &deep[..deep.len() - 70], lines[1]), 1, vec!["torn_line"]),
            (format!("{deep}\n{}\n", lines[1]), 2, vec![]),
            (format!("{deep}broken\n"), 1, vec!["torn_line"]),
            (nested(100_000), 0, vec!["too_deep"]),
            (r#"{"kind":"EventList","items":["#.repeat(50_000), 0, vec!["too_deep"]),
            (format!(r#"{{"kind":"EventList","items":{}}}"#, nested(200)), 0, vec!["too_deep"]),
        ] {
            let decoded = check(input.as_bytes());
            let start = &input[..input.len().min(200)];
            assert_eq!(
                (decoded.events.num_rows(), reasons(&decoded)),
                (events, refused.iter().map(|r: &&str| (*r).to_owned()).collect()),
                "{start}"
            );
        }
    }
}

#[test]
fn each_reason() {
    let deep =
        format!(r#"{{"kind":"Event","auditID":"a","requestObject":{}{}}}"#, "[".repeat(127), "]".repeat(127));
    let bomb = "[".repeat(100_000);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"not json".to_vec(), "broken_json"),
        (b"{\"auditID\":\"a\xff\"}".to_vec(), "invalid_utf8"),
        (b"{\"auditID\":\"a\0\"}".to_vec(), "nul_byte"),
        (vec![0; 5000], "nul_byte"),
        (bomb.into_bytes(), "too_deep"),
        (b"[]".to_vec(), "not_an_audit_event"),
        (b"{}".to_vec(), "not_an_audit_event"),
        (br#"{"kind":"Event","apiVersion":"v1","auditID":"a"}"#.to_vec(), "not_an_audit_event"),
        (br#"{"kind":"Pod","apiVersion":"v1"}"#.to_vec(), "not_an_audit_event"),
        (
            br#"{"auditID":"a","requestURI":"/v3","user":{"name":"u"},"method":"GET"}"#.to_vec(),
            "not_an_audit_event",
        ),
        (br#"{"category":5,"properties":{}}"#.to_vec(), "invalid_field"),
        (b"  \t ".to_vec(), "blank_line"),
        (br#"{"kind":"Event","auditID":"a","requestO[Truncated...]"#.to_vec(), "truncated_by_cloud"),
        (
            br#"2017-03-21T03:57:09.106841886-04:00 AUDIT: id="c939d2a7" ip="127.0.0.1" method="GET""#
                .to_vec(),
            "legacy_format",
        ),
        (br#"{"insertId":"a","logName":"x","protoPayload":{}}"#.to_vec(), "other_category"),
        (br#"{"messageType":"DATA_MESSAGE","logEvents":[]}"#.to_vec(), "wrapped"),
        (vec![b'x'; (4 << 20) + 1], "line_too_long"),
    ];
    for (input, reason) in cases {
        let decoded = check_bounded(&input, 4 << 20);
        let found = reasons(&decoded);
        assert!(
            !found.is_empty() && found.iter().all(|found| found == reason),
            "{reason} expected, {found:?} found"
        );
        let detail = decoded.rejects.column(rejects::index::DETAIL).as_string::<i32>();
        assert!(!detail.value(0).is_empty());
    }
    assert_eq!(check(deep.as_bytes()).events.num_rows(), 1, "the depth bound itself is allowed");
    assert_eq!(check(b"").records(), 0);
    assert_eq!(check(b"\n\n\n").records(), 0);
}

#[test]
fn what_the_field_sends() {
    for line in [
        r#"{"auditID":"a"}"#,
        "\u{feff}{\"auditID\":\"a\"}\r\n{\"auditID\":\"b\"}\r\n\r\n",
        "\u{feff}broken\n",
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"Panic","requestURI":"/","verb":"get","user":{},"requestReceivedTimestamp":null,"stageTimestamp":null}"#,
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1beta1","metadata":{"creationTimestamp":"2018-10-26T13:38:34Z"},"level":"Request","timestamp":"2018-10-26T13:38:34Z","auditID":"a","stage":"ResponseStarted","requestURI":"/","verb":"get","user":{"username":"u"},"requestReceivedTimestamp":"2018-10-26T13:38:34.8Z","stageTimestamp":"2018-10-26T13:38:34.123456789Z"}"#,
        r#"{"auditID":"a","auditID":"b","user":{"username":"x"},"user":{"groups":["g"]}}"#,
        r#"{"\u0061uditID":"a","verb":"get"}"#,
        r#"{"auditID":"a","requestObject":[{"op":"replace","path":"/spec","value":1e400}],"responseObject":"x"}"#,
        r#"{"auditID":"a","requestObject":{"a":"\ud800"}}"#,
        r#"{"auditID":"a","requestObject":123456789012345678901234567890}"#,
        r#"{"auditID":"a","user":{"username":"\u003cscript\u003e\u2028","groups":[],"extra":{}}}"#,
        r#"{"auditID":"a","annotations":{"x":1,"authorization.k8s.io/decision":"forbid"}}"#,
        r#"{"auditID":"a","objectRef":{"resource":"p","resourceVersion":"\u0031"}}"#,
        r#"{"auditID":"a","objectRef":{"resource":"p","resourceVersion":""}}"#,
        r#"{"auditID":"a","objectRef":{},"responseStatus":{},"impersonatedUser":{},"user":null,"sourceIPs":null}"#,
        r#"{"auditID":"a","responseStatus":{"metadata":{},"code":-0},"sourceIPs":[]}"#,
        r#"{ "auditID" : "a" , "user" : { "username" : "u" } , "requestObject" : { } }"#,
    ] {
        check(line.as_bytes());
    }
}

/// A line longer than the bound is cut at the bound. Its beginning may be an event, and the rest
/// becomes rejects.
#[test]
fn the_beginning_of_an_over_long_line_is_a_cut_event() {
    let log = generated(3, 8);
    let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let open = &lines[0][..lines[0].len() - 1];
    let long = [open, br#","requestObject":""#, &vec![b'<'; 9_000], br#""}"#].concat();
    let max = 4_000;
    let log = [lines[1], b"\n", &long, b"\n", lines[2], b"\n"].concat();
    let decoded = check_bounded(&log, max);
    assert_eq!(decoded.events.num_rows(), 3);
    assert!(reasons(&decoded).iter().all(|reason| reason == "line_too_long"));
    assert_eq!(reasons(&decoded).len(), long.len().div_ceil(max) - 1);
    let event = plain_row(&decoded.events, 1);
    assert_eq!(event.faults, Some(vec![": not_json".to_owned()]));
    let whole = decode_alone(lines[0], DEPTH_MAX).expect("an event");
    assert_eq!(plain::PlainEvent { faults: None, ..event }, whole);
    // With a larger bound, the line is a whole event.
    let decoded = check_bounded(&log, long.len());
    assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (3, 0));
    // If the first piece is not an event, no later piece is read as one.
    let text = [&vec![b' '; max - 1][..], b"x", &long].concat();
    let decoded = check_bounded(&text, max);
    assert_eq!(decoded.events.num_rows(), 0);
}

/// A line of more than 4 MiB is not parsed by simd-json, but its columns are the same.
#[test]
fn a_wide_line_is_an_event() {
    let log = generated(1, 4);
    let line = log.trim_ascii_end();
    let open = &line[..line.len() - 1];
    let padding = vec![b'<'; 5 << 20];
    let wide = [open, br#","requestObject":{"a":""#, &padding, br#""}}"#].concat();
    let decoded = check(&[&wide, &b"\n"[..], line].concat());
    assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (2, 0));
    let (first, second) = (plain_row(&decoded.events, 0), plain_row(&decoded.events, 1));
    assert!(first.request_object.as_ref().is_some_and(|body| body.len() > 5 << 20));
    assert_eq!(plain::PlainEvent { request_object: None, ..first }, second);
    // If the line is cut inside the body, it is an event with a fault.
    let decoded = check(&wide[..wide.len() - 100]);
    assert_eq!(plain_row(&decoded.events, 0).faults, Some(vec![": not_json".to_owned()]));
}

/// One item of a list that is not UTF-8 does not affect its neighbours.
#[test]
fn a_list_with_an_item_that_is_not_utf8() {
    let log = generated(3, 6);
    let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let odd = b"{\"kind\":\"Event\",\"auditID\":\"odd\",\"verb\":\"g\xff\",\"userAgent\":\"k\"}";
    let list = [br#"{"kind":"EventList","items":["#, lines[0], b" , ", odd, b",", lines[1], b"]}\n"].concat();
    let decoded = check(&list);
    assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (3, 0));
    let event = plain_row(&decoded.events, 1);
    assert_eq!(event.faults, Some(vec!["/verb: not_utf8".to_owned()]));
    assert_eq!((event.verb, event.user_agent.as_deref()), (None, Some("k")));
    // The same holds for documents on one line.
    let decoded = check(&[lines[0], odd, lines[1], b"\n"].concat());
    assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (3, 0));
}

/// An unfinished last line is left for later, however much of an event it already contains.
#[test]
fn a_line_that_grows_is_not_taken_before_its_end() {
    let log = generated(1, 2);
    let line = log.trim_ascii_end();
    for cut in [1, end_of_user(line), line.len() - 1, line.len()] {
        let block = Block {
            origin: Arc::new(Origin {
                partition: "p".to_owned(),
                cluster: "c".to_owned(),
                reading: Arc::default(),
            }),
            offset: 0,
            first_line: 1,
            bytes: line[..cut].to_vec(),
            begins: Edge::Line,
            ends: Edge::Line,
            open_ended: true,
        };
        let mut decoder = Decoder::new(DecoderConfig::default());
        let decoded = decoder.decode(&block, chrono::DateTime::UNIX_EPOCH).expect("columns");
        let whole = usize::from(cut == line.len());
        assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (whole, 0), "cut at {cut}");
        assert_eq!(decoded.consumed, whole * cut);
    }
}

/// Returns where each member of a compact object begins, where its value begins, and where it ends.
fn members_of(line: &[u8]) -> Vec<(usize, usize, usize)> {
    let (mut found, mut begin, mut value) = (Vec::new(), 1, 0);
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b':' if depth == 1 => value = at + 1,
            b',' if depth == 1 => {
                found.push((begin, value, at));
                begin = at + 1;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    found.push((begin, value, at));
                }
            }
            _ => {}
        }
    }
    found
}

/// Mutations that happen to real logs, and some that only an attacker makes.
fn mutate(line: &[u8], kind: u8, at: usize, byte: u8) -> Vec<u8> {
    let at = at % line.len().max(1);
    let mut line = line.to_vec();
    match kind % 7 {
        0 => line.truncate(at),
        1 => line[at] ^= 1 << (byte % 8),
        2 => line[at] = byte,
        3 => line.insert(at, byte),
        4 => {
            line.remove(at);
        }
        5 => line.splice(at..at, *b"{\"kind\":\"Event\",").for_each(drop),
        _ => line.extend_from_within(at..),
    }
    line
}

/// Texts between quotes: equal, equal except for their escapes, or ending where a value seems to
/// end.
const VALUES: [&str; 19] = [
    "",
    "a",
    "a",
    "a\\u0026b",
    "a&b",
    "a\\\\u0026b",
    "a\\u0026b",
    "\\\"",
    "é",
    "\u{2028}",
    "\\u2028",
    "1",
    "12",
    "012",
    "a}",
    "\\u0061",
    "x\\ny",
    "}",
    "\u{7f}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Damage to one member changes no column of those before it. The event is lost only if the
    /// damage comes before what names the request and who made it.
    #[test]
    fn damage_does_not_reach_back(pick in 0_usize..200, member in any::<usize>(), kind in 0_u8..8, at in any::<usize>()) {
        thread_local!(static LINES: Vec<Vec<u8>> =
            generated(200, 31).split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect());
        let line = LINES.with(|lines| lines[pick % lines.len()].clone());
        let members = members_of(&line);
        let (begin, value, end) = members[member % members.len()];
        let at = begin + at % (end - begin);
        let mut damaged = line.clone();
        let deep = [&b"["[..]; 200].concat();
        match kind {
            0 => damaged.truncate(at),
            1 => drop(damaged.splice(value..end, *b"7")),
            2 => drop(damaged.splice(value..end, *b"[{}]")),
            3 => drop(damaged.splice(value..end, *b"\"\xff\"")),
            4 => drop(damaged.splice(value..end, *b"\"\\ud800\"")),
            5 => drop(damaged.splice(value..end, [&deep[..], &[b']'; 200]].concat())),
            6 => drop(damaged.splice(value..end, deep)),
            _ => damaged.insert(at, b'\0'),
        }
        let decoded = check(&damaged);
        let names_request = end_of_user(&line) <= begin.saturating_sub(1);
        prop_assert!(!names_request || decoded.events.num_rows() == 1, "{}", String::from_utf8_lossy(&damaged));
        if decoded.events.num_rows() == 1 && begin > 1 {
            let before = decode_bytes(&[&line[..begin - 1], b"}"].concat(), "c", "p").expect("columns");
            let is_event = before.events.num_rows() == 1;
            for column in (index::AUDIT_ID..=index::STAGE_TIMESTAMP).filter(|_| is_event) {
                let (said, kept) = (before.events.column(column), decoded.events.column(column));
                prop_assert!(said.is_null(0) || said == kept, "column {column}: {}", String::from_utf8_lossy(&damaged));
            }
        }
    }

    #[test]
    fn mutated_lines(picks in prop::collection::vec((0_usize..400, any::<u8>(), any::<usize>(), any::<u8>()), 1..6)) {
        thread_local!(static LINES: Vec<Vec<u8>> = {
            let mut lines: Vec<Vec<u8>> = generated(300, 21).split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            lines.extend(corpus().iter().flat_map(|(_, bytes)| bytes.split(|b| *b == b'\n').take(4).map(<[u8]>::to_vec)));
            lines.retain(|line| !line.is_empty() && line.len() < 20_000);
            lines
        });
        LINES.with(|lines| {
            let mut input = Vec::new();
            for (pick, kind, at, byte) in picks {
                input.extend(mutate(&lines[pick % lines.len()], kind, at, byte));
                if byte % 4 != 0 {
                    input.push(b'\n');
                }
            }
            check(&input);
        });
    }

    #[test]
    fn any_strings_survive(text in "\\PC{0,40}", control in "[\\x00-\\x1f\"\\\\<>&\u{2028}]{0,6}") {
        let value = serde_json::to_string(&format!("{text}{control}")).expect("a string");
        let line = format!(r#"{{"auditID":{value},"verb":{value},"user":{{"username":{value},"groups":[{value},{value}]}},"sourceIPs":[{value}],"objectRef":{{"name":{value},"resourceVersion":{value}}},"responseStatus":{{"metadata":{{}},"message":{value}}},"requestObject":{{{value}:{value}}}}}"#);
        prop_assert_eq!(check(line.as_bytes()).events.num_rows(), 1);
    }

    /// Lines of one block share what was read before: similar values must not be confused.
    #[test]
    fn lines_in_order_with_values_that_look_alike(
        picks in prop::collection::vec(prop::collection::vec((0_usize..VALUES.len(), any::<bool>()), 13..14), 1..12),
    ) {
        let mut input = String::new();
        for picks in &picks {
            let value = |at: usize| VALUES[picks[at].0];
            let reference: Vec<String> = ["resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource"]
                .iter()
                .enumerate()
                .filter(|(at, _)| picks[*at].1)
                .map(|(at, name)| {
                    // An odd version always keeps `raw`.
                    let value = if at == 6 { ["1", "12", "012", "a"][picks[at].0 % 4] } else { value(at) };
                    format!(r#""{name}":"{value}""#)
                })
                .collect();
            let status = if picks[8].1 { r#""code":200"#.to_owned() } else { format!(r#""message":"{}","code":{}"#, value(8), picks[8].0 * 50) };
            writeln!(
                input,
                r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"Panic","requestURI":"{}","verb":"{}","user":{{"username":"{}"}},"sourceIPs":["{}"],"objectRef":{{{}}},"responseStatus":{{"metadata":{{}},{status}}},"requestReceivedTimestamp":"2026-03-02T00:00:01.836455Z","stageTimestamp":"2026-03-02T00:00:0{}.837715Z"}}"#,
                value(9), value(10), value(11), value(12), reference.join(","), picks[12].0 % 3
            ).expect("in memory");
        }
        check(input.as_bytes());
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }
}

/// Blocks of several streams that are decoded together give the rows that each gives alone, with
/// the source of its own stream, whatever is at the ends of the blocks.
#[test]
fn blocks_of_many_streams_are_decoded_together_as_apart() {
    let log = String::from_utf8(generated(12, 77)).expect("text");
    let events: Vec<&str> = log.lines().collect();
    let texts: Vec<String> = vec![
        format!("{}\n", events[0]),
        String::new(),
        format!("[\n{},\n{}\n]\n\n", events[1], events[2]),
        "not JSON\n".to_owned(),
        format!("\u{feff}{}\r\n", events[3]),
        format!("{{\"log\":{}}}\n", serde_json::Value::from(events[4])),
        format!("[{},", events[5]),
        format!("{{\"kind\":\"EventList\",\"items\":[{},{{}}]}}  \n", events[6]),
        format!("{}\n{}", events[7], &events[8][..100]),
        events[9].replace("\":", "\": "),
    ];
    let block = |number: usize, text: &str| Block {
        origin: Arc::new(Origin {
            partition: format!("file/{number}"),
            cluster: "c".into(),
            reading: Arc::default(),
        }),
        offset: 7 * number as i64,
        first_line: 1,
        bytes: text.as_bytes().to_vec(),
        begins: LineSoFar::default().edge(text.as_bytes(), LINE_BYTES_MAX),
        ends: Edge::Line,
        open_ended: number.is_multiple_of(2),
    };
    let blocks: Vec<Block> = texts.iter().enumerate().map(|(number, text)| block(number, text)).collect();
    let arrived = chrono::Utc::now();
    let mut decoder = Decoder::new(DecoderConfig::default());
    let (together, shares) = decoder.decode_together(&blocks, arrived).expect("columns");
    assert_eq!(shares.len(), blocks.len());
    let (mut events_at, mut rejects_at, mut hashes) = (0, 0, Vec::new());
    for (block, share) in blocks.iter().zip(&shares) {
        let alone = decoder.decode_to_seal(block, arrived).expect("columns");
        let counts = (alone.events.num_rows(), alone.rejects.num_rows(), alone.consumed);
        assert_eq!((share.events, share.rejects, share.consumed), counts, "{}", block.origin.partition);
        let events = together.events.slice(events_at, share.events);
        let rejects = together.rejects.slice(rejects_at, share.rejects);
        let rows = |events: &RecordBatch, rejects: &RecordBatch| {
            let sources = |batch: &RecordBatch, column: usize| -> Vec<String> {
                let sources = batch.column(column).as_dictionary::<Int32Type>();
                let names = sources.values().as_string::<i32>();
                sources.keys().iter().flatten().map(|key| names.value(key as usize).to_owned()).collect()
            };
            let mut out = Vec::new();
            let batches = |batch: &RecordBatch| std::iter::once(Ok::<_, Oops>(batch.clone()));
            let start = block.offset;
            stream::write_range(
                batches(events),
                batches(rejects),
                start..start + share.consumed as i64,
                &mut out,
            )
            .expect("records in order");
            (out, sources(events, index::SOURCE), sources(rejects, rejects::index::SOURCE))
        };
        let apart = rows(&alone.events, &alone.rejects);
        assert_eq!(rows(&events, &rejects), apart, "{}", block.origin.partition);
        assert!(apart.0 == block.bytes[..share.consumed], "{}", block.origin.partition);
        hashes.extend(alone.record_hashes);
        events_at += share.events;
        rejects_at += share.rejects;
    }
    assert!(events_at >= 8 && rejects_at >= 2, "{events_at} {rejects_at}");
    assert_eq!((together.events.num_rows(), together.rejects.num_rows()), (events_at, rejects_at));
    assert_eq!(together.record_hashes, hashes);
}
