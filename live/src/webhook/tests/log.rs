//! Tests of the log alone: what is acknowledged can be read back, whatever happens to the files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crossbeam_channel::Sender;
use strongroom_archive::Position;
use strongroom_archive::fingerprint::LineChain;
use strongroom_journal::{JournalError, lock, now_ms};
use strongroom_redact::{Key, Keys, Policy, Redactor, RuleSettings, Settings};

use crate::testing::Pipeline;
use crate::webhook::WebhookSource;
use crate::webhook::cipher::TextCipher;
use crate::webhook::counters::WebhookCounters;
use crate::webhook::recent::Lookup;
use crate::webhook::refused::Refused;
use crate::webhook::wal::{Batch, Wal, WalError, WalOptions, Writer};
use crate::{Source, SourceError};

const QUIET: Duration = Duration::from_millis(250);
/// The first segment of a log.
const FIRST: &str = "00000000000000000000.log";

fn options(folder: &Path) -> WalOptions {
    WalOptions {
        folder: folder.to_owned(),
        bytes_max: 1 << 20,
        disk_free_bytes_min: 0,
        remembered_max: 1_000,
        remembered_for: Duration::from_secs(60),
        cipher: TextCipher::default(),
    }
}

fn open(options: WalOptions) -> Result<(Arc<Wal>, Writer), WalError> {
    Wal::open(options, Arc::new(WebhookCounters::default()))
}

fn batch(wal: &Wal, cluster: &str, text: &str) -> Batch {
    let key = *blake3::hash(text.as_bytes()).as_bytes();
    let Lookup::New(outcome) = lock(&wal.recent).look_up(key, now_ms()) else { panic!("the batch is new") };
    Batch {
        cluster: cluster.into(),
        key,
        text: text.as_bytes().to_vec(),
        text_checksum: strongroom_journal::checksum(&[text.as_bytes()]),
        lines: text.matches('\n').count() as u32,
        received: now_ms(),
        outcome,
        _room: None,
    }
}

/// Sends a batch to the writer and waits for its outcome.
fn send(queue: &Sender<Batch>, batch: Batch) -> Result<(), Refused> {
    let mut done = batch.outcome.subscribe();
    queue.send(batch).expect("the writer runs");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        done.wait_for(Option::is_some)
            .await
            .expect("the outcome is reported")
            .expect("the outcome is reported")
    })
}

/// Writes texts, each as its own group, and closes the log as a process does when it ends.
fn write(options: WalOptions, texts: &[(&str, &str)]) -> Vec<Result<(), Refused>> {
    let (wal, writer) = open(options).expect("opens");
    let (queue, batches) = crossbeam_channel::bounded(9);
    std::thread::scope(|scope| {
        scope.spawn(move || writer.run(&batches));
        let outcomes = texts.iter().map(|(cluster, text)| send(&queue, batch(&wal, cluster, text))).collect();
        drop(queue);
        outcomes
    })
}

/// The text that a run hands over, by cluster, which was checked for gaps; and how the run ended.
struct Run {
    texts: HashMap<String, String>,
    positions: HashMap<String, Position>,
    ended: Result<(), SourceError>,
}

fn run(wal: &Arc<Wal>, sealed: &HashMap<String, Position>) -> Run {
    let mut source = WebhookSource {
        name: "hook".to_owned(),
        wal: Arc::clone(wal),
        duplicates: Arc::new(AtomicU64::new(0)),
        readings: HashMap::new(),
    };
    let pipeline = Pipeline::new(sealed.clone());
    let mut texts: HashMap<String, String> = HashMap::new();
    let mut positions = sealed.clone();
    let ended = std::thread::scope(|scope| {
        let feed = pipeline.feed.clone();
        let running = scope.spawn(move || source.run(&feed));
        while let Some(chunk) = pipeline.next(QUIET) {
            let partition = chunk.stream.partition.clone();
            assert!(partition.starts_with(&format!("webhook/hook/{}/", wal.id)));
            let none = Position { next_offset: 0, records: 0, prefix_blake3: [0; 16], broker_offset: None };
            let before = positions.get(&partition).copied().unwrap_or(none);
            assert_eq!(
                (chunk.block.offset, chunk.block.first_line),
                (before.next_offset, before.records + 1)
            );
            let mut chain = LineChain::from(before.prefix_blake3);
            chain.update(&chunk.block.bytes);
            assert_eq!(chain.value(), Some(chunk.prefix));
            let text = String::from_utf8(chunk.block.bytes).expect("text");
            let after = Position {
                next_offset: before.next_offset + text.len() as i64,
                records: before.records + text.matches('\n').count() as i64,
                prefix_blake3: chunk.prefix,
                broker_offset: None,
            };
            positions.insert(partition, after);
            texts.entry(chunk.block.origin.cluster.clone()).or_default().push_str(&text);
        }
        pipeline.stop();
        running.join().expect("no panic")
    });
    Run { texts, positions, ended }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("lists") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copies");
    }
}

fn files(folder: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("lists").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    found.sort();
    found
}

#[test]
fn a_log_cut_off_at_any_byte_has_all_whole_records() {
    let whole = tempfile::tempdir().expect("a folder");
    let texts = [("a", "{\"n\":1}\n"), ("b", "{}\n{}\n"), ("a", "no JSON\n")];
    write(options(whole.path()), &texts);
    let name = FIRST;
    let segment = std::fs::read(whole.path().join(name)).expect("reads");
    for length in 0..=segment.len() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::copy(whole.path().join("id"), folder.path().join("id")).expect("copies");
        std::fs::write(folder.path().join(name), &segment[..length]).expect("writes");
        let kept: Vec<_> = {
            let (wal, _writer) = open(options(folder.path())).expect("opens");
            let clusters = wal.clusters();
            let of = |cluster: &str| clusters.get(cluster).map_or(0, |end| end.offset);
            // Each text has its own length, so what is kept is known from the streams' ends.
            let kept = match (of("a"), of("b")) {
                (0, 0) => 0,
                (8, 0) => 1,
                (8, 6) => 2,
                (16, 6) => 3,
                other => panic!("{other:?} at {length}"),
            };
            texts[..kept].to_vec()
        };
        assert!(length < segment.len() || kept.len() == 3, "no whole record is cut off");
        // The log continues after what is kept. Only a few of the cuts are continued and read,
        // because that takes time.
        if length % 37 == 0 || length == segment.len() {
            assert_eq!(write(options(folder.path()), &[("a", "{\"more\":1}\n")]), [Ok(())]);
            let (wal, _writer) = open(options(folder.path())).expect("opens");
            let got = run(&wal, &HashMap::new());
            got.ended.expect("no damage");
            for cluster in ["a", "b"] {
                let all = kept.iter().chain([&("a", "{\"more\":1}\n")]);
                let wanted: String = all.filter(|(of, _)| *of == cluster).map(|(_, text)| *text).collect();
                assert_eq!(got.texts.get(cluster).map_or("", String::as_str), wanted);
            }
        }
    }
}

#[test]
fn a_damaged_record_is_named_and_nothing_is_thrown_away() {
    let whole = tempfile::tempdir().expect("a folder");
    write(options(whole.path()), &[("a", "{\"n\":1}\n"), ("a", "{\"n\":2}\n"), ("a", "{\"n\":3}\n")]);
    let segment = std::fs::read(whole.path().join(FIRST)).expect("reads");
    let record = 128 + 1 + 8;
    let second = segment.len() - 2 * record;
    for byte in [second, second + 9, second + 100, second + 128, second + 130, second + record - 1] {
        let folder = tempfile::tempdir().expect("a folder");
        copy(whole.path(), folder.path());
        let mut damaged = segment.clone();
        damaged[byte] ^= 1;
        let path = folder.path().join(FIRST);
        std::fs::write(&path, &damaged).expect("writes");
        assert_eq!(write(options(folder.path()), &[("a", "{\"n\":4}\n")]), [Ok(())]);
        let (wal, _writer) = open(options(folder.path())).expect("opens");
        assert_eq!(std::fs::read(&path).expect("reads"), damaged);
        assert_eq!(wal.clusters()["a"].offset, 32, "the stream continues after all four");
        let got = run(&wal, &HashMap::new());
        let error = got.ended.expect_err("damage is reported");
        let cause = error.source.expect("a cause").to_string();
        assert!(cause.contains(FIRST), "{cause}");
        let told = if byte < second + 129 { second } else { second + 129 };
        assert!(cause.contains(&format!("at byte {told}:")), "{cause}");
    }
}

#[test]
fn a_group_that_was_not_synced_is_cut_off_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (wal, writer) = open(options(folder.path())).expect("opens");
        let (queue, batches) = crossbeam_channel::bounded(9);
        for text in ["{\"n\":1}\n", "{\"n\":2}\n"] {
            queue.send(batch(&wal, "a", text)).expect("has room");
        }
        drop(queue);
        writer.run(&batches);
    }
    // The machine stopped before the sync, and the disk has the group's second page but not its
    // first. A record after the missing page proves nothing, because it belongs to the same group.
    let path = folder.path().join(FIRST);
    let mut bytes = std::fs::read(&path).expect("reads");
    let (record, length) = (128 + 1 + 8, bytes.len());
    bytes[length - 2 * record..length - record].fill(0);
    std::fs::write(&path, bytes).expect("writes");
    let (wal, _writer) = open(options(folder.path())).expect("opens");
    assert_eq!(std::fs::metadata(&path).expect("is there").len() as usize, length - 2 * record);
    assert!(wal.clusters().is_empty());
}

#[test]
fn sealed_segments_go_and_their_batches_stay_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = || WalOptions { bytes_max: 16 << 10, ..options(folder.path()) };
    let long = |number: usize| format!("{{\"n\":{number},\"x\":\"{}\"}}\n", "x".repeat(1_500));
    let texts: Vec<String> = (0..12).map(long).collect();
    let batches: Vec<(&str, &str)> =
        texts.iter().enumerate().map(|(at, text)| (["a", "b"][at % 2], text.as_str())).collect();
    let outcomes = write(small(), &batches);
    let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((6..12).contains(&stored), "{stored}");
    assert!(outcomes[stored..].iter().all(|outcome| *outcome == Err(Refused::Full)), "the log is full");

    let (wal, writer) = open(small()).expect("opens");
    assert!(files(folder.path(), "log").len() > 2);
    let first = run(&wal, &HashMap::new());
    first.ended.expect("runs");
    assert!(files(folder.path(), "log").len() > 2, "nothing is sealed yet");
    // When everything is sealed, only the newest segment is left, and a second run has nothing to
    // hand over.
    let second = run(&wal, &first.positions);
    second.ended.expect("runs");
    assert_eq!(second.texts.len(), 0);
    assert_eq!(files(folder.path(), "log").len(), 1);
    assert!(!files(folder.path(), "keys").is_empty());
    drop((wal, writer));

    let (wal, _) = open(small()).expect("opens");
    for (_, text) in &batches[..stored] {
        let key = *blake3::hash(text.as_bytes()).as_bytes();
        assert!(matches!(lock(&wal.recent).look_up(key, now_ms()), Lookup::Acknowledged));
    }
    drop(wal);
    assert_eq!(write(small(), &[("b", "{\"new\":1}\n")]), [Ok(())]);
    let (wal, _writer) = open(small()).expect("opens");
    let third = run(&wal, &first.positions);
    third.ended.expect("runs");
    assert_eq!(third.texts, HashMap::from([("b".to_owned(), "{\"new\":1}\n".to_owned())]));
    // An archive that has nothing of this log, or more than the log has, belongs to another log.
    let none = run(&wal, &HashMap::new()).ended.expect_err("bytes are missing");
    assert!(none.message.contains("up to byte 0"), "{none}");
    let mut ahead = third.positions.clone();
    ahead.values_mut().for_each(|position| position.next_offset += 1);
    assert!(run(&wal, &ahead).ended.is_err());
    let mut other = third.positions.clone();
    other.values_mut().for_each(|position| position.prefix_blake3 = [7; 16]);
    let other = run(&wal, &other).ended.expect_err("other bytes");
    assert!(other.message.contains("different bytes"), "{other}");
}

#[test]
fn a_run_goes_on_inside_a_record() {
    let folder = tempfile::tempdir().expect("a folder");
    write(options(folder.path()), &[("a", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"), ("a", "{\"n\":4}\n")]);
    let (wal, _writer) = open(options(folder.path())).expect("opens");
    let mut chain = LineChain::default();
    chain.update(b"{\"n\":1}\n");
    let prefix_blake3 = chain.value().expect("a whole line");
    let position = Position { next_offset: 8, records: 1, prefix_blake3, broker_offset: None };
    let sealed = HashMap::from([(format!("webhook/hook/{}/a", wal.id), position)]);
    let got = run(&wal, &sealed);
    got.ended.expect("runs");
    assert_eq!(got.texts["a"], "{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n");
}

#[test]
fn what_a_failed_group_left_behind_is_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    write(options(folder.path()), &[("a", "{\"n\":1}\n")]);
    let path = folder.path().join(FIRST);
    let durable = std::fs::read(&path).expect("reads");
    write(options(folder.path()), &[("a", "{\"n\":2}\n")]);
    // Makes the files as they would be if the second record had first been written to the first
    // segment, and its sync had failed.
    let second = files(folder.path(), "log").pop().expect("a second segment");
    let bytes = std::fs::read(second).expect("reads");
    let record = &bytes[bytes.len() - (128 + 1 + 8)..];
    std::fs::write(&path, [durable.as_slice(), record].concat()).expect("writes");
    let (wal, _writer) = open(options(folder.path())).expect("opens");
    let got = run(&wal, &HashMap::new());
    got.ended.expect("runs");
    assert_eq!(got.texts["a"], "{\"n\":1}\n{\"n\":2}\n");
}

#[test]
fn a_disk_that_fails_is_told_and_got_over() {
    let folder = tempfile::tempdir().expect("a folder");
    write(options(folder.path()), &[("a", "{\"n\":1}\n")]);
    // No file can be made under the name of the next segment.
    let next = folder.path().join(format!("{:020}.log", 128 + 1 + 8));
    let (wal, writer) = open(options(folder.path())).expect("opens");
    std::fs::create_dir(&next).expect("makes");
    let (queue, batches) = crossbeam_channel::bounded(9);
    std::thread::scope(|scope| {
        scope.spawn(move || writer.run(&batches));
        let send = || send(&queue, batch(&wal, "a", "{\"n\":2}\n"));
        assert_eq!(send(), Err(Refused::Failed));
        assert!(wal.trouble().is_some_and(|trouble| trouble.contains("cannot write")));
        std::fs::remove_dir(&next).expect("removes");
        assert_eq!(send(), Ok(()));
        assert_eq!(wal.trouble(), None);
        drop(queue);
    });
    assert_eq!(run(&wal, &HashMap::new()).texts["a"], "{\"n\":1}\n{\"n\":2}\n");
}

#[test]
fn a_folder_has_one_user() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = open(options(folder.path())).expect("opens");
    assert!(matches!(open(options(folder.path())), Err(WalError::Journal(JournalError::InUse { .. }))));
    drop(first);
    write(options(folder.path()), &[("a", "{}\n")]);
    std::fs::remove_file(folder.path().join("id")).expect("removes");
    assert!(matches!(open(options(folder.path())), Err(WalError::Id { .. })));
}

fn cipher(digits: &str, old: &[&str]) -> TextCipher {
    let rule = RuleSettings {
        paths: vec!["requestObject.data.*".to_owned()],
        action: "drop".to_owned(),
        ..RuleSettings::default()
    };
    let settings = Settings { key: Some("env:UNUSED".to_owned()), rules: vec![rule], ..Settings::default() };
    let key = |digits: &str| Key::parse(&digits.repeat(32)).expect("a key");
    let keys = Keys::new(key(digits), old.iter().map(|digits| key(digits)).collect()).expect("two ids");
    TextCipher(Some(Arc::new(Redactor::new(Policy::new(&settings).expect("a policy"), keys))))
}

/// Checks that a log is encrypted from the first start under a policy, and is read with its key,
/// whichever process wrote a segment and wherever the last segment was cut.
#[test]
fn an_encrypted_log_is_read_with_its_key_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let with = |cipher: &TextCipher| WalOptions { cipher: cipher.clone(), ..options(folder.path()) };
    let (first, second) = (cipher("5a", &[]), cipher("77", &["5a"]));
    assert_eq!(write(with(&TextCipher::default()), &[("a", "clear 1\n")]), [Ok(())]);
    assert_eq!(write(with(&first), &[("a", "hidden 2\n"), ("b", "hidden 3\n")]), [Ok(()), Ok(())]);
    assert_eq!(write(with(&second), &[("a", "hidden 4\nhidden 5\n")]), [Ok(())]);
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(memchr::memmem::find(&bytes, b"hidden").is_none());
    }
    assert!(matches!(open(with(&TextCipher::default())), Err(WalError::NoKey { .. })));
    assert!(matches!(open(with(&cipher("77", &[]))), Err(WalError::Decrypt { .. })));
    let (wal, writer) = open(with(&second)).expect("opens");
    let read = run(&wal, &HashMap::new());
    assert!(read.ended.is_ok());
    let text = |cluster: &str| read.texts.get(cluster).map(String::as_str);
    assert_eq!((text("a"), text("b")), (Some("clear 1\nhidden 2\nhidden 4\nhidden 5\n"), Some("hidden 3\n")));
    drop((wal, writer));
    // The last segment is cut at every byte: what is whole is read, and nothing else.
    let newest =
        strongroom_journal::numbered(folder.path(), "log").expect("a folder").pop().expect("a segment").1;
    let whole = std::fs::read(&newest).expect("a file");
    for length in (0..whole.len()).rev() {
        std::fs::write(&newest, &whole[..length]).expect("written");
        let (wal, writer) = open(with(&second)).unwrap_or_else(|error| panic!("{length}: {error}"));
        let end = wal.clusters().iter().find(|(name, _)| *name == "a").map(|(_, end)| end.offset);
        assert_eq!(end, Some(17), "{length}");
        drop((wal, writer));
        std::fs::write(&newest, &whole[..length]).expect("written");
    }
}
