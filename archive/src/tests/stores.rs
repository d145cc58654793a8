//! Tests the promises of a store on a disk and in a real bucket, and several writers of one bucket.
//!
//! Credentials come only from the environment, and a test cannot change its own environment. So the
//! part with a bucket runs in a second process of the same binary.

use std::process::Command;

use bytes::Bytes;
use strongroom_store::{Store, background};

use super::*;
use crate::archive::Place;
use crate::records::policy;
use crate::records::text::PolicyRecord;

#[path = "../../../tests/it/services/ports.rs"]
mod ports;
#[expect(dead_code, reason = "the tests of the binary use all of it")]
#[path = "../../../tests/it/services/seaweed.rs"]
mod seaweed;

use ports::free_port;

/// The environment variable that is set only in the second process, and gives it the location of
/// the store.
const ENDPOINT: &str = "STRONGROOM_TEST_ENDPOINT";

/// Checks what every kind of store must do.
fn conforms(place: Place) {
    let Place { root, store, .. } = place;
    background::wait(async move {
        let (folder, path) = (root.join("folder"), root.join("folder").join("name"));
        assert_eq!(store.names(&folder).await?, [""; 0]);
        assert!(store.read(&path).await.expect("an answer").is_none());
        assert!(!store.exists(&path).await.expect("an answer"));
        if let Store::Local = store {
            std::fs::create_dir_all(&folder).expect("a folder");
        }

        // A taken name keeps its content.
        assert!(store.put_once(&path, Bytes::from_static(b"first")).await.expect("the object is stored"));
        assert!(!store.put_once(&path, Bytes::from_static(b"second")).await.expect("an answer"));
        assert!(!store.put_once(&path, Bytes::from_static(b"first")).await.expect("an answer"));
        assert_eq!(store.read(&path).await.expect("an answer").expect("content"), "first");
        assert!(store.exists(&path).await.expect("an answer"));
        assert_eq!(store.names(&folder).await?, ["name"]);
        assert!(store.names(&root).await?.contains(&"folder".to_owned()));

        let contents = store.contents(&path, 5, None);
        let ranges = contents.read_ranges(vec![1..3, 0..5, 4..4, 4..5]).await.expect("read");
        assert_eq!(ranges, ["ir", "first", "", "t"].map(Bytes::from));
        let beyond = contents.read(3..6).await.expect_err("it has five bytes");
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        assert!(store.contents(&root.join("none"), 5, None).read(0..1).await.is_err());
        Ok::<_, StoreError>(())
    })
    .expect("a store");
}

#[test]
fn a_disk_keeps_the_promises_of_a_store() {
    let folder = folder();
    let place = Place::of(folder.path().to_str().expect("text"), &StoreOptions::default());
    conforms(place.expect("a path"));
}

#[test]
fn a_bucket_keeps_the_promises_of_a_store_and_of_writers() {
    let Some(seaweed) = seaweed::shared() else { return };
    let this = std::env::current_exe().expect("a path");
    let inside = Command::new(this)
        .args(["--exact", "tests::stores::inside_a_bucket", "--nocapture"])
        .env(ENDPOINT, seaweed.endpoint())
        .env("AWS_ACCESS_KEY_ID", seaweed::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", seaweed::SECRET_KEY)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&[inside.stdout, inside.stderr].concat()).into_owned();
    assert!(inside.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn inside_a_bucket() {
    let Ok(endpoint) = std::env::var(ENDPOINT) else { return };
    let s3 = S3Options { endpoint: Some(endpoint), path_style: true, ..S3Options::default() };
    let options = StoreOptions { s3 };
    let new = |location: &str| init(location, &options, None).expect("an archive").archive;
    new("s3://stores/made");
    conforms(Place::of("s3://stores/conforms", &options).expect("a bucket"));
    writers_are_kept_apart(&new("s3://stores/writers"));
    a_new_year_fences_too(&new("s3://stores/years"));
    a_full_volume_fences(&new("s3://stores/volumes"));
    versions_survive_checkpoints(&new("s3://stores/checkpoints"));
    alerts_of_another_writer_are_looked_at_first(&new("s3://stores/alerts"));
    a_promise_grows_under_a_writer(&new("s3://stores/promise"), || {
        Archive::open_with("s3://stores/promise", &options).expect("the archive exists")
    });
    // The settings with which an archive was created are the minimum for every write.
    let s3 = S3Options { mode: LockMode::Governance, retention_years: 1, ..options.s3.clone() };
    let weaker = Archive::open_with("s3://stores/made", &StoreOptions { s3 }).expect("the archive exists");
    assert_eq!(weaker.retention(), Some(Retention { mode: LockMode::Compliance, years: 6 }));
}

/// Checks that when more years are promised, an existing writer locks new objects for that number
/// of years from its next seal on.
fn a_promise_grows_under_a_writer(archive: &Archive, opened: impl Fn() -> Archive) {
    let mut writer = archive.writer().expect("a writer");
    seal(&mut writer, "file/promise", None).expect("sealed");
    let site = opened().site().clone();
    let record = PolicyRecord { number: 1, time: Utc::now(), years: 9, reason: "a new law".to_owned() }
        .text(&site.archive_id);
    let put = background::wait_io(async move {
        let path = policy::path(&site, 1);
        site.store.put_once(&path, record.into()).await
    });
    assert!(put.expect("promised"));
    assert_eq!(
        archive.retention().map(|retention| retention.years),
        Some(6),
        "the writer does not know of it yet"
    );
    seal(&mut writer, "file/promise", Some(2000)).expect("sealed");
    assert_eq!(archive.retention().map(|retention| retention.years), Some(9));
    let volume = archive.snapshot(Table::Events).expect("a snapshot").volumes[0].clone();
    let (store, commit) = (archive.site().store.clone(), layout::commit(&volume.path, volume.version));
    let lock = background::wait(async move {
        let Store::S3(bucket) = store else { panic!("it is a bucket") };
        Ok::<_, StoreError>(bucket.s3.protection(&commit, None).await.expect("an answer"))
    });
    let nine = Utc::now().checked_add_months(chrono::Months::new(108));
    assert!(lock.expect("an answer").until >= nine);
}

fn rows_at(partition: &'static str, first_offset: i64) -> RecordBatch {
    batch(Table::Events, &Shape { rows: 2, partition, first_offset, ..Shape::default() })
}

fn seal(writer: &mut Writer, partition: &'static str, from: Option<i64>) -> Result<SealReport> {
    let first = from.unwrap_or(0);
    append(writer, Table::Events, rows_at(partition, first))?;
    writer.seal(&[step(partition, from.map(position), first + 2000)], counts(2))
}

fn writers_are_kept_apart(archive: &Archive) {
    const OTHER: &str = "file/other";
    let (mut first, mut second) =
        (archive.writer().expect("a writer"), archive.writer().expect("another writer"));
    assert!(first.is_shared());
    // Both start with an empty archive; the second then finds a table that it did not know.
    seal(&mut first, PARTITION, None).expect("sealed");
    seal(&mut second, OTHER, None).expect("sealed");
    // Now each writer has an open volume to which the other has committed.
    seal(&mut first, PARTITION, Some(2000)).expect("a seal after the other writer's");
    let report = seal(&mut second, OTHER, Some(2000)).expect("a seal after the other writer's");
    assert_eq!(report.commits[0].version, 4);
    first.refresh().expect("read again");
    assert_eq!(first.position(Table::Events, OTHER).expect("a usable writer"), Some(position(4000)));
    let mut known: Vec<_> = first.positions(Table::Events).collect();
    known.sort_by_key(|(partition, _)| (*partition).to_owned());
    assert_eq!(known, [(PARTITION, position(4000)), (OTHER, position(4000))]);

    // The same source from two writers: the seal of the second writer is refused, and nothing of it
    // is committed.
    let mut late = archive.writer().expect("a third writer");
    seal(&mut first, PARTITION, Some(4000)).expect("sealed");
    let error = seal(&mut late, PARTITION, Some(4000)).expect_err("fenced");
    assert!(matches!(error, ArchiveError::PositionAhead { .. }), "{error}");
    assert!(matches!(late.refresh(), Err(ArchiveError::WriterFailed { .. })));
    // A writer that has committed before and has the volume open is refused in the same way.
    seal(&mut second, PARTITION, None).expect_err("the first writer has committed this source");
    let snapshot = archive.snapshot(Table::Events).expect("a snapshot");
    assert_eq!(snapshot.rows(), 10);
    assert!(snapshot.files.iter().all(|file| file.version.is_some()), "{:?}", snapshot.files);
}

/// A writer that knows the stored alerts is not overtaken by another one unnoticed.
fn alerts_of_another_writer_are_looked_at_first(archive: &Archive) {
    let ends = || archive.ends(Table::Alerts).expect("read");
    let seal = |writer: &mut Writer, partition: &'static str, from: Option<i64>| {
        let first_offset = from.unwrap_or(0);
        let shape = Shape { rows: 2, partition, first_offset, ..Shape::default() };
        append(writer, Table::Alerts, batch(Table::Alerts, &shape))?;
        writer.seal(&[step(partition, from.map(position), first_offset + 2000)], counts(0))
    };
    let mut known = archive.writer().expect("one");
    known.knows_alerts(ends());
    let mut other = archive.writer().expect("another");
    // Its own commits do not count as unknown, nor does the first commit of a volume.
    seal(&mut known, PARTITION, None).expect("sealed");
    seal(&mut known, PARTITION, Some(2000)).expect("sealed");
    assert_eq!(known.alerts_known(), Some(&ends()));
    seal(&mut other, "file/other", None).expect("it does not ask");
    let error = seal(&mut known, PARTITION, Some(4000)).expect_err("overtaken");
    assert!(matches!(error, ArchiveError::AlertsUnknown { .. }), "{error}");
    assert_eq!(archive.snapshot(Table::Alerts).expect("a snapshot").rows(), 6, "nothing of it is stored");
    // Who looks again can seal.
    let (files, now) =
        archive.added_since(Table::Alerts, known.alerts_known().expect("known")).expect("read");
    assert_eq!((files.len(), &now), (1, &ends()));
    let mut again = archive.writer().expect("a third");
    again.knows_alerts(now);
    seal(&mut again, PARTITION, Some(4000)).expect("sealed");
}

fn a_new_year_fences_too(archive: &Archive) {
    let mut old = archive.writer_with(options(fixed_2026), || {}).expect("a writer");
    seal(&mut old, PARTITION, None).expect("sealed");
    let mut new = archive.writer_with(options(fixed_2027), || {}).expect("another writer");
    seal(&mut new, PARTITION, Some(2000)).expect("sealed");
    // The volume of the old year has not changed since its last commit. The new position is in the
    // volume of the new year.
    let error = seal(&mut old, PARTITION, Some(2000)).expect_err("fenced");
    assert!(matches!(error, ArchiveError::PositionAhead { .. }), "{error}");
    assert_eq!(archive.snapshot(Table::Events).expect("a snapshot").rows(), 4);
}

/// Checks that a writer closes a volume before it starts the next one, and that a writer that still
/// has files for the closed one stops.
fn a_full_volume_fences(archive: &Archive) {
    let full = WriterOptions { volume_commits_max: 3, ..options(fixed_2026) };
    let mut first = archive.writer_with(full.clone(), || {}).expect("a writer");
    let mut late = archive.writer_with(full, || {}).expect("another writer");
    // The volume is chosen with the first row.
    let shape = Shape { rows: 2, partition: "file/late", ..Shape::default() };
    append(&mut late, Table::Events, batch(Table::Events, &shape)).expect("appended");
    let mut names = Vec::new();
    let mut previous = None;
    for _ in 0..3 {
        let report = seal(&mut first, PARTITION, previous).expect("sealed");
        names.extend(
            report.commits.iter().map(|commit| format!("{}:{}", commit.volume.name(), commit.version)),
        );
        previous = Some(previous.unwrap_or(0) + 2000);
    }
    assert_eq!(names, ["events/2026:1", "events/2026:2", "events/2026:3", "events/2026-0001:1"]);
    let error = late.seal(&[step("file/late", None, 2000)], counts(2)).expect_err("closed");
    assert!(matches!(error, ArchiveError::VolumeClosed { .. }), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("nothing was lost")));
    // A new writer continues after the newest commits, and the first commit of the next year closes
    // this volume.
    let mut again = archive.writer_with(options(fixed_2026), || {}).expect("a third writer");
    assert_eq!(
        seal(&mut again, "file/late", None).expect("sealed").commits[0].volume.name(),
        "events/2026-0001"
    );
    let mut newer = archive.writer_with(options(fixed_2027), || {}).expect("a fourth");
    let report = seal(&mut newer, PARTITION, previous).expect("sealed");
    let names: Vec<String> = report.commits.iter().map(|commit| commit.volume.name()).collect();
    assert_eq!(names, ["events/2026-0001", "events/2027"]);
    let error = seal(&mut again, "file/late", Some(2000)).expect_err("closed");
    assert!(matches!(error, ArchiveError::VolumeClosed { .. }), "{error}");
    let snapshot = archive.snapshot(Table::Events).expect("a snapshot");
    assert_eq!(snapshot.rows(), 10);
    assert_eq!(
        snapshot.volumes.iter().map(|volume| volume.is_closed).collect::<Vec<_>>(),
        [true, true, false]
    );
}

fn versions_survive_checkpoints(archive: &Archive) {
    let mut writer = archive.writer().expect("a writer");
    let mut previous = None;
    for _ in 0..164 {
        let report = seal(&mut writer, PARTITION, previous).expect("sealed");
        assert_eq!(report.warnings, [""; 0]);
        previous = Some(previous.unwrap_or(0) + 2000);
    }
    let volume = archive.snapshot(Table::Events).expect("a snapshot").volumes[0].clone();
    let store = archive.site().store.clone();
    let names = background::wait(async move { store.names(&volume.path.join("_delta_log")).await });
    let names = names.expect("a listing");
    assert!(names.iter().any(|name| name.ends_with(".checkpoint.parquet")), "{names:?}");
    assert!(!names.contains(&"_last_checkpoint".to_owned()), "{names:?}");
    let mut writer = archive.writer().expect("a writer");
    assert_eq!(writer.position(Table::Events, PARTITION).expect("a usable writer"), previous.map(position));
    let snapshot = archive.snapshot(Table::Events).expect("a snapshot");
    assert_eq!((snapshot.rows(), snapshot.files.len()), (328, 164));
    assert!(snapshot.files.iter().all(|file| file.version.is_some()));
    let read = read_all(archive, Table::Events, PARTITION).expect("rows");
    assert_eq!(read.num_rows(), 328);
}
