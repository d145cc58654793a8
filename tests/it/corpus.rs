//! The events for tests of rules: real ones from the corpus, and generated ones.
//!
//! The corpus is not part of the project. `STRONGROOM_CORPUS` says where it is; if it is not set,
//! the corpus is looked for beside the checkout. Without a corpus, a test says so on stderr and
//! uses only generated events.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use chrono::DateTime;
use strongroom_alerts::{Detector, DetectorConfig, Matcher, RuleSet};
use strongroom_decode::{Decoder, DecoderConfig};
use strongroom_generate::{Generator, GeneratorOptions, PlantedAttack};
use strongroom_lines::Block;
use strongroom_lines::frame::{Edge, Origin};
use strongroom_schemas::Alert;

/// Number of events in a batch; small enough that several batches are needed, as in a real run.
const BATCH_LINES: usize = 8192;

/// Returns the folder of the corpus. If there is none, prints a message on stderr and returns
/// `None`.
#[expect(clippy::print_stderr, reason = "a test that looks at less than it could must say so")]
pub fn folder(test: &str) -> Option<PathBuf> {
    let path = match std::env::var_os("STRONGROOM_CORPUS") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    };
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("{test}: NOT TESTED on real events: {} is absent; set STRONGROOM_CORPUS", path.display());
    None
}

/// Reads a file, and decompresses it if it is gzip.
pub fn read(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes;
    }
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice())
        .read_to_end(&mut text)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text
}

/// Returns the files of the corpus that have events, in the order of their names.
pub fn event_files(corpus: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![corpus.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().contains(".ndjson") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Returns the lines of a text, without empty ones.
pub fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
}

/// Decodes lines, and returns the batches of events and the number of rejected lines.
///
/// `source_offset` counts through all lines, not from the start of each batch.
pub fn decode(lines: &[&[u8]]) -> (Vec<RecordBatch>, usize) {
    let origin = Arc::new(Origin {
        partition: "test/corpus".to_owned(),
        cluster: "test".to_owned(),
        reading: Arc::default(),
    });
    let arrived = DateTime::from_timestamp(1_800_000_000, 0).expect("a time in 2027");
    let mut decoder = Decoder::new(DecoderConfig::default());
    let (mut batches, mut rejects) = (Vec::new(), 0);
    let (mut offset, mut first_line) = (0, 1);
    for chunk in lines.chunks(BATCH_LINES) {
        let mut bytes = chunk.join(&b'\n');
        bytes.push(b'\n');
        let length = bytes.len() as i64;
        let block = Block {
            origin: Arc::clone(&origin),
            offset,
            first_line,
            bytes,
            begins: Edge::Line,
            ends: Edge::Line,
            open_ended: false,
        };
        let decoded = decoder.decode(&block, arrived).expect("columns fit their schema");
        rejects += decoded.rejects.num_rows();
        batches.push(decoded.events);
        offset += length;
        first_line += chunk.len() as i64;
    }
    (batches, rejects)
}

/// Applies rules to batches, one after the other.
pub struct Watch {
    matcher: Matcher,
    detector: Detector,
}

impl Watch {
    pub fn new(rules: &Arc<RuleSet>) -> Watch {
        Watch {
            matcher: Matcher::new(Arc::clone(rules)),
            detector: Detector::new(Arc::clone(rules), DetectorConfig::default()),
        }
    }

    pub fn observe(&mut self, batches: &[RecordBatch]) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for batch in batches {
            alerts.extend(self.detector.observe(self.matcher.match_batch(batch).expect("a batch of events")));
        }
        alerts
    }
}

/// Returns the alerts of `rules` over batches, which are in order.
pub fn alerts(rules: &Arc<RuleSet>, batches: &[RecordBatch]) -> Vec<Alert> {
    Watch::new(rules).observe(batches)
}

pub fn builtin() -> Arc<RuleSet> {
    Arc::new(RuleSet::builtin().unwrap_or_else(|error| panic!("built-in rules: {error}")))
}

/// Returns a generated log, and the attacks that are planted in it.
pub fn generated(seed: u64, events: u64, attacks: bool) -> (Vec<u8>, Vec<PlantedAttack>) {
    let options = GeneratorOptions { seed, events, attacks, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options within bounds");
    let mut text = Vec::new();
    while generator.next_line(&mut text) {}
    (text, generator.ground_truth().to_vec())
}

/// Returns the alerts of `rules` over a generated log without attacks. The log is read in pieces,
/// so that it never has to fit into memory.
pub fn alerts_of_background(rules: &Arc<RuleSet>, seed: u64, events: u64) -> Vec<Alert> {
    let options = GeneratorOptions { seed, events, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("options within bounds");
    let mut watch = Watch::new(rules);
    let (mut alerts, mut text, mut more) = (Vec::new(), Vec::new(), true);
    while more {
        text.clear();
        for _ in 0..BATCH_LINES {
            more = more && generator.next_line(&mut text);
        }
        let (batches, rejects) = decode(&lines(&text));
        assert_eq!(rejects, 0);
        alerts.extend(watch.observe(&batches));
    }
    alerts
}

/// The corpus has the same events in two files of Azure Event Hub records: in one file as a single
/// batch, in the other with one record on each line.
#[test]
fn events_in_the_wrappers_of_azure_are_read_whole() {
    use strongroom_decode::plain_row;

    let Some(folder) = folder("corpus") else { return };
    let file = |name: &str| {
        let text = read(&folder.join("sysdig-aks").join(name));
        let (batches, rejects) = decode(&lines(&text));
        assert_eq!((batches.len(), rejects), (1, 0), "{name}");
        (0..batches[0].num_rows()).map(|row| plain_row(&batches[0], row)).collect::<Vec<_>>()
    };
    let batch = file("event_hub_batch_as_is.ndjson");
    assert_eq!(batch.len(), 22);
    assert_eq!(batch, file("event_hub_records.ndjson"));
    assert_eq!(file("sample_EventHubs_event.ndjson").len(), 1);
    assert_eq!(file("sample_KubeAuditLog_event.ndjson").len(), 1);
}
