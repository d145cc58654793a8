//! Tests of activity records: they are sealed with or without events, survive a run that dies at
//! any step, and are checked as strictly as events.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array as _, RecordBatch};
use chrono::{DateTime, Duration, TimeZone as _, Utc};
use serde_json::{Map, Value};
use strongroom_archive::activity::{
    ActivityError, ActivityKind, ActivityLog, ActivityRecord, BATCH_BYTES_MAX, BODY_BYTES_MAX,
};
use strongroom_archive::fail::{FailPoints, Step};
use strongroom_archive::{Archive, ArchiveError, Records, Result, SealReport, SourcePosition, Writer};
use strongroom_proof::verify::{self, Finding, FindingKind, Watch, verify};
use strongroom_schemas::{Period, Table, VolumeId};
use strongroom_tlog::{PrivateKey, Signer};

use super::dated;
use super::rows::{
    NOON_US, PARTITION, Shape, append, batch, counts, create, folder, offsets, options, read_all, step,
};
use crate::drop::drop_with;
use crate::hold::{place, release};
use crate::{DropRequest, Scope, Work};

/// A renderer for rows that were never received: each row has an empty record.
struct NoRecords;

impl Records for NoRecords {
    fn each(&self, rows: &RecordBatch, each: &mut dyn FnMut(&[u8])) -> std::result::Result<(), String> {
        (0..rows.num_rows()).for_each(|_| each(b""));
        Ok(())
    }

    fn compare(
        &self,
        table: Table,
        rows: &RecordBatch,
        _: u32,
        each: &mut dyn FnMut(&[u8]),
        _: &mut dyn FnMut(usize, &dyn Display),
    ) -> std::result::Result<(), String> {
        if table == Table::Events { self.each(rows, each) } else { Ok(()) }
    }
}

impl Watch for NoRecords {}

fn findings(archive: &Archive) -> Vec<Finding> {
    let options = verify::Options { threads: 2, ..verify::Options::default() };
    verify(archive, &options, &NoRecords, &NoRecords).expect("readable").findings
}

fn record(number: i64) -> ActivityRecord {
    let kind = ActivityKind::ALL[number as usize % ActivityKind::ALL.len()];
    let time = DateTime::from_timestamp_micros(NOON_US + number).expect("a time");
    let details = Map::from_iter([("number".to_owned(), Value::from(number))]);
    let subject = (number % 2 == 0).then_some("case 7");
    ActivityRecord::new(kind, time, "eve@example.com", subject, details).expect("a record")
}

fn records(from: i64, to: i64) -> Vec<ActivityRecord> {
    (from..to).map(record).collect()
}

/// Returns the sealed bodies, in order. Checks first that their columns match them.
fn sealed(archive: &Archive, partition: &str) -> Vec<String> {
    let Some(rows) = read_all(archive, Table::Activity, partition) else { return Vec::new() };
    let text = |name: &str| rows.column_by_name(name).expect("a column").as_string::<i32>().clone();
    let (kinds, principals, subjects, bodies) =
        (text("kind"), text("principal"), text("subject"), text("body"));
    let times = rows.column_by_name("time").expect("a column");
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let offsets = rows.column_by_name("source_offset").expect("a column").as_primitive::<Int64Type>();
    let body = |row: usize| {
        let record = ActivityRecord::parse(bodies.value(row).to_owned()).expect("a record");
        assert_eq!(record.kind().as_str(), kinds.value(row));
        assert_eq!(record.time_us(), times.value(row));
        assert_eq!(record.principal(), principals.value(row));
        assert_eq!(record.subject(), subjects.is_valid(row).then(|| subjects.value(row)));
        assert_eq!(offsets.value(row), row as i64, "the offset of a record is its number");
        bodies.value(row).to_owned()
    };
    (0..rows.num_rows()).map(body).collect()
}

fn bodies(from: i64, to: i64) -> Vec<String> {
    (from..to).map(|number| record(number).body().to_owned()).collect()
}

fn signed(folder: &Path) -> (Archive, Arc<Signer>) {
    let signer = Arc::new(Signer::Key(PrivateKey::generate("test").expect("randomness")));
    let location = folder.join("archive");
    let location = location.to_str().expect("text");
    (Archive::open_or_create_signed(location, Some(Arc::clone(&signer))).expect("an archive"), signer)
}

#[test]
fn records_are_sealed_without_events_and_go_on() {
    let folder = folder();
    let (archive, _) = signed(folder.path());
    let mut writer = archive.writer().expect("the lock is free");
    let mut log = ActivityLog::open(&mut writer, "q-1").expect("a log");
    assert_eq!((log.partition(), log.records(), log.position()), ("activity/q-1", 0, None));
    assert_eq!(
        log.seal(&mut writer).expect("sealed"),
        SealReport::default(),
        "an empty seal makes no commit"
    );
    log.append(&mut writer, &records(0, 3)).expect("appended");
    log.append(&mut writer, &records(3, 5)).expect("appended");
    let report = log.seal(&mut writer).expect("sealed");
    assert_eq!(
        report.commits.iter().map(|commit| commit.volume.table).collect::<Vec<_>>(),
        [Table::Activity]
    );
    assert_eq!((report.rows, log.position()), (5, None));
    drop(writer);

    let mut writer = archive.writer().expect("the lock is free");
    let mut other = ActivityLog::open(&mut writer, "q-2").expect("a log");
    let mut log = ActivityLog::open(&mut writer, "q-1").expect("a log");
    assert_eq!((log.records(), other.records()), (5, 0));
    log.append(&mut writer, &records(5, 9)).expect("appended");
    other.append(&mut writer, &records(0, 2)).expect("appended");
    // The records of both logs, and events, are in one seal: each table has its own positions.
    append(&mut writer, Table::Events, batch(Table::Events, &Shape { rows: 10, ..Shape::default() }))
        .expect("appended");
    let positions = [
        step(PARTITION, None, 10_000),
        log.position().expect("a position"),
        other.position().expect("a position"),
    ];
    let report = writer.seal(&positions, counts(10)).expect("sealed");
    let tables: Vec<Table> = report.commits.iter().map(|commit| commit.volume.table).collect();
    assert_eq!(tables, [Table::Activity, Table::Events]);
    log.has_sealed();
    let named = |writer: &Writer, table| {
        let mut names: Vec<String> = writer.positions(table).map(|(name, _)| name.to_owned()).collect();
        names.sort();
        names
    };
    drop(writer);
    let writer = archive.writer().expect("the lock is free");
    assert_eq!(named(&writer, Table::Activity), ["activity/q-1", "activity/q-2"]);
    assert_eq!(named(&writer, Table::Events), [PARTITION]);
    assert_eq!(sealed(&archive, "activity/q-1"), bodies(0, 9));
    assert_eq!(sealed(&archive, "activity/q-2"), bodies(0, 2));
    assert_eq!(archive.sources().expect("sources").len(), 1, "activity is not a stream of events");
    assert_eq!(findings(&archive), []);
}

#[test]
fn a_writer_killed_anywhere_is_made_good_by_the_next() {
    let steps = [
        Step::Write,
        Step::FileWritten,
        Step::FilePublished,
        Step::Proof,
        Step::Committed(Table::Activity),
        Step::Committed(Table::Events),
    ];
    // Each seal has two records and ten events, until there are 8 records and 40 events.
    let run = |archive: &Archive, fail: &FailPoints| -> Result<()> {
        let mut writer = archive.writer()?;
        writer.fail_points = fail.clone();
        let mut log = ActivityLog::open(&mut writer, "w")?;
        let mut previous = writer.position(Table::Events, PARTITION)?;
        loop {
            let offset = previous.map_or(0, |position| position.next_offset);
            let positions: Vec<SourcePosition> = if offset < 40_000 {
                let shape = Shape { rows: 10, first_offset: offset, ..Shape::default() };
                append(&mut writer, Table::Events, batch(Table::Events, &shape))?;
                vec![step(PARTITION, previous, offset + 10_000)]
            } else {
                Vec::new()
            };
            let new = records(log.records(), (log.records() + 2).min(8));
            log.append(&mut writer, &new)?;
            if positions.is_empty() && new.is_empty() {
                return Ok(());
            }
            let events = 10 * positions.len() as u64;
            previous = positions.first().map(|given| given.position).or(previous);
            writer.seal(&positions.into_iter().chain(log.position()).collect::<Vec<_>>(), counts(events))?;
            log.has_sealed();
        }
    };
    for at in steps {
        for nth in 0..4 {
            let folder = folder();
            let (archive, _) = signed(folder.path());
            let fail = FailPoints::default();
            fail.arm(at, nth, io::ErrorKind::StorageFull);
            let died = run(&archive, &fail);
            assert!(died.is_err() || at == Step::Proof, "fail point {at:?} number {nth} was never reached");
            assert_eq!(findings(&archive), [], "{at:?} {nth}, before the next run");
            run(&archive, &FailPoints::default()).expect("the next run");
            assert_eq!(sealed(&archive, "activity/w"), bodies(0, 8), "{at:?} {nth}");
            assert_eq!(offsets(&archive, Table::Events), (0..40).map(|row| row * 1000).collect::<Vec<_>>());
            assert_eq!(findings(&archive), [], "{at:?} {nth}");
        }
    }
}

#[test]
fn rows_of_one_table_are_not_taken_for_those_of_another() {
    let folder = folder();
    let archive = create(folder.path());
    let refused = |table: Table, partition: &'static str| {
        let mut writer = archive.writer().expect("the lock is free");
        let shape = Shape { rows: 2, partition, ..Shape::default() };
        append(&mut writer, table, batch(table, &shape)).expect("appended");
        writer.seal(&[step(partition, None, 2000)], counts(0))
    };
    for (table, partition) in
        [(Table::Activity, PARTITION), (Table::Events, "activity/a"), (Table::Alerts, "activity/a")]
    {
        let refused = refused(table, partition);
        assert!(matches!(refused, Err(ArchiveError::PartitionName { .. })), "{refused:?}");
    }
    let mut writer = archive.writer().expect("the lock is free");
    for id in ["", "a/b", "a b", "ä", &"x".repeat(65)] {
        let error = ActivityLog::open(&mut writer, id).expect_err("refused");
        assert!(matches!(error, ArchiveError::Activity { source: ActivityError::WriterId }));
    }
    let mut log = ActivityLog::open(&mut writer, "a").expect("a log");
    let many = vec![record(1); 5000];
    let error = log.append(&mut writer, &many).expect_err("refused");
    assert!(matches!(error, ArchiveError::Activity { source: ActivityError::TooMany { records: 5000, .. } }));
    const { assert!(BATCH_BYTES_MAX >= BODY_BYTES_MAX) };
    assert_eq!(log.records(), 0);
    log.append(&mut writer, &records(0, 2)).expect("a writer continues after a refusal");
    log.seal(&mut writer).expect("sealed");
    drop(writer);

    // Two logs continue with one id: the second seal is refused, and none of its records is
    // committed.
    let mut writer = archive.writer().expect("the lock is free");
    let mut first = ActivityLog::open(&mut writer, "a").expect("a log");
    let mut second = ActivityLog::open(&mut writer, "a").expect("a log");
    first.append(&mut writer, &records(2, 3)).expect("appended");
    first.seal(&mut writer).expect("sealed");
    second.append(&mut writer, &records(2, 4)).expect("appended");
    assert!(matches!(second.seal(&mut writer), Err(ArchiveError::PositionAhead { .. })));
    assert_eq!(sealed(&archive, "activity/a"), bodies(0, 3));
}

fn old_year() -> i32 {
    chrono::Datelike::year(&Utc::now()) - 8
}

fn long_ago() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(old_year(), 3, 2, 13, 0, 0).single().expect("a time")
}

#[test]
fn records_are_held_and_dropped_like_events_and_their_writer_goes_on() {
    let folder = folder();
    let archive = create(folder.path());
    let mut writer = archive.writer_with(options(long_ago), || {}).expect("the lock is free");
    let mut log = ActivityLog::open(&mut writer, "w").expect("a log");
    let then = |number: i64| {
        let details = Map::from_iter([("number".to_owned(), Value::from(number))]);
        ActivityRecord::new(ActivityKind::Review, long_ago(), "eve", None, details).expect("a record")
    };
    log.append(&mut writer, &[then(0), then(1)]).expect("appended");
    log.seal(&mut writer).expect("sealed");
    drop(writer);
    dated(&archive, Table::Activity, long_ago());
    let signer = Arc::new(Signer::Key(PrivateKey::generate("test").expect("randomness")));
    let archive = archive.signed_by(signer);
    archive.sign_logs().expect("signed");
    let mut writer = archive.writer().expect("the lock is free");
    log.append(&mut writer, &[record(2)]).expect("appended");
    log.seal(&mut writer).expect("sealed");
    drop(writer);
    assert_eq!(findings(&archive), []);

    let work = || Work::of(&archive, Arc::new(|_, _| ()));
    // A record may be about anyone, so a hold on one user covers all records of its period.
    let scope = Scope {
        to: Some(long_ago() + Duration::days(1)),
        user: Some("nobody at all".to_owned()),
        ..Scope::default()
    };
    let held = work()
        .run(|work| async move { place(&work, "case", "r", &scope).await })
        .expect("the hold is placed");
    assert_eq!(held.files, 1);
    let drop_it = || {
        work().run(|work| async move {
            let volume = VolumeId { table: Table::Activity, period: Period::of_year(old_year()) };
            drop_with(
                &work,
                &DropRequest { volume, reason: "past its time".to_owned(), is_clock_checked: false },
            )
            .await
        })
    };
    assert!(drop_it().is_err(), "a hold forbids the drop");
    work().run(|work| async move { release(&work, "case", "over").await }).expect("released");
    assert!(drop_it().expect("dropped").removed > 0);
    assert_eq!(findings(&archive), []);
    let mut writer = archive.writer().expect("the lock is free");
    let mut log = ActivityLog::open(&mut writer, "w").expect("a log");
    assert_eq!(log.records(), 3);
    log.append(&mut writer, &[record(3)]).expect("appended");
    log.seal(&mut writer).expect("sealed");
    drop(writer);
    assert_eq!(findings(&archive), []);
    assert_eq!(archive.snapshot(Table::Activity).expect("readable").rows(), 2);
}

#[test]
fn a_record_that_is_gone_or_changed_is_found() {
    let folder = folder();
    let (archive, _) = signed(folder.path());
    let mut writer = archive.writer().expect("the lock is free");
    let mut log = ActivityLog::open(&mut writer, "w").expect("a log");
    for number in 0..3 {
        log.append(&mut writer, &[record(number)]).expect("appended");
        log.seal(&mut writer).expect("sealed");
    }
    drop(writer);
    assert_eq!(findings(&archive), []);
    let files = archive.snapshot(Table::Activity).expect("readable").files;
    let file = &files[1].path;
    let bytes = std::fs::read(file).expect("read");
    std::fs::remove_file(file).expect("removed");
    let kinds = || findings(&archive).into_iter().map(|finding| finding.kind).collect::<Vec<_>>();
    assert_eq!(kinds(), [FindingKind::FileMissing]);
    let mut changed = bytes;
    changed[10] ^= 1;
    std::fs::write(file, &changed).expect("written");
    assert!(kinds().contains(&FindingKind::FileChanged), "{:?}", kinds());
}
