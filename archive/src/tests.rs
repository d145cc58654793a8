//! Tests of whole archives: everything that is sealed can be read back, at whatever step a run
//! dies.

#![expect(
    clippy::disallowed_methods,
    reason = "these threads are joined, and their channels carry one message"
)]

mod rows;
mod stores;
mod volumes;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field};
use chrono::{DateTime, NaiveDate, Utc};
use proptest::prelude::*;
use strongroom_schemas::{Period, Table, VolumeId, events};
use strongroom_store::layout;

use crate::fail::{FailPoints, Step};
use crate::tests::rows::*;
use crate::*;

#[test]
fn every_table_comes_back_as_it_went_in() {
    let folder = folder();
    let archive = create(folder.path());
    let mut writer = archive.writer().expect("the lock is free");
    let partition = |table| if table == Table::Activity { ACTIVITY } else { PARTITION };
    let shape =
        |table| Shape { rows: 20_000, distinct: 900, partition: partition(table), ..Shape::default() };
    for table in Table::ALL {
        append(&mut writer, table, batch(table, &shape(table))).expect("appended");
    }
    let positions = [PARTITION, ACTIVITY].map(|partition| step(partition, None, 20_000_000));
    let report = writer.seal(&positions, counts(20_000)).expect("sealed");
    assert_eq!(report.rows, 80_000);
    assert_eq!(
        report.commits.iter().map(|c| c.volume.table).collect::<Vec<_>>(),
        [Table::Activity, Table::Rejects, Table::Alerts, Table::Events]
    );
    for table in Table::ALL {
        let partition = partition(table);
        let read = read_all(&archive, table, partition).expect("rows");
        assert_eq!(read, plain(table, &batch(table, &shape(table))), "{}", table.name());
        let snapshot = archive.snapshot(table).expect("a snapshot");
        assert_eq!(snapshot.rows(), 20_000);
        let file = &snapshot.files[0];
        assert_eq!((file.time_min_us, file.time_max_us), (Some(NOON_US), Some(NOON_US + 19_999_000)));
        assert_eq!((file.offset_min, file.offset_max), (Some(0), Some(19_999_000)));
        assert_eq!(file.source_min.as_deref(), Some(partition));
        assert_eq!(file.size, std::fs::metadata(&file.path).expect("a file").len());
        assert!(std::fs::metadata(&file.path).expect("a file").permissions().readonly());
    }
    let sources = archive.sources().expect("sources");
    assert_eq!(sources.len(), 1);
    assert_eq!((sources[0].label.as_str(), sources[0].position), ("/var/log/file.log", position(20_000_000)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// For any rows and any layout, arrow reads back the rows that were encoded.
    #[test]
    fn any_batch_round_trips(
        seed in any::<u64>(),
        rows in prop_oneof![1usize..40, 1usize..3000],
        distinct in prop_oneof![1u64..4, 1u64..300, Just(100_000)],
        null_percent in prop_oneof![Just(0u64), Just(100), 1u64..99],
        days in 1i64..4,
        table in prop_oneof![Just(Table::Events), Just(Table::Rejects), Just(Table::Alerts)],
        page_rows in prop_oneof![Just(7usize), Just(1000), Just(100_000)],
        flags in any::<[bool; 5]>(),
    ) {
        let shape = Shape { seed, rows, distinct, null_percent, step: days * DAY_US / rows as i64 / 4, ..Shape::default() };
        let layout = Layout {
            page_rows,
            byte_codes: flags[0],
            shared_prefixes: flags[1],
            deltas: flags[2],
            row_order: if flags[3] { Layout::default().row_order } else { RowOrder::Source },
            rows_per_entry_min: if flags[4] { 0 } else { 2 },
            ..Layout::default()
        };
        let folder = folder();
        let archive = create(folder.path());
        let mut writer = archive.writer().expect("the lock is free");
        let batch = batch(table, &shape);
        for row_group in encode_with(table, batch.clone(), arrived(), &layout).expect("encoded") {
            writer.append(row_group).expect("appended");
        }
        writer.seal(&[step(PARTITION, None, rows as i64 * 1000)], counts(0)).expect("sealed");
        let read = read_all(&archive, table, PARTITION).expect("rows");
        prop_assert_eq!(read, plain(table, &batch));
    }
}

#[test]
fn rows_are_filed_under_the_date_of_their_event() {
    let shape = Shape { rows: 6, null_percent: 0, ..Shape::default() };
    let mut columns = batch(Table::Events, &shape).columns().to_vec();
    let times = [
        Some(NOON_US),
        None,
        Some(-62_135_596_800_000_000), // Go writes this for a time that was never set
        Some(NOON_US - 300 * DAY_US),
        Some(NOON_US + 2 * DAY_US), // more than a day ahead
        Some(NOON_US + DAY_US / 2 + 1),
    ];
    columns[events::index::STAGE_TIMESTAMP] =
        Arc::new(TimestampMicrosecondArray::from_iter(times).with_timezone("UTC")) as ArrayRef;
    let batch = RecordBatch::try_new(Table::Events.batch_schema(), columns).expect("a batch");
    let date = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).expect("a date");
    let row_groups = encode(Table::Events, batch.clone(), arrived()).expect("encoded");
    let filed: Vec<_> = row_groups.iter().map(|row_group| (row_group.date(), row_group.rows())).collect();
    assert_eq!(filed, [(date(2025, 5, 6), 1), (date(2026, 3, 2), 4), (date(2026, 3, 3), 1)]);

    // The values themselves are kept, and come back in source order.
    let folder = folder();
    let archive = create(folder.path());
    let mut writer = archive.writer().expect("the lock is free");
    row_groups.into_iter().try_for_each(|row_group| writer.append(row_group)).expect("appended");
    writer.seal(&[step(PARTITION, None, 6000)], counts(6)).expect("sealed");
    assert_eq!(read_all(&archive, Table::Events, PARTITION).expect("rows"), plain(Table::Events, &batch));
    // The file with a time outside the calendar still states the offsets of its other rows.
    let files = archive.snapshot(Table::Events).expect("a snapshot").files;
    assert_eq!(files.len(), 3);
    assert_eq!(files[1].time_min_us, Some(-62_135_596_800_000_000));
}

#[test]
fn a_source_goes_on_where_it_ended_or_not_at_all() {
    let folder = folder();
    let archive = create(folder.path());
    let rows = |first_offset| batch(Table::Events, &Shape { rows: 10, first_offset, ..Shape::default() });
    let mut writer = archive.writer().expect("the lock is free");
    assert_eq!(writer.position(Table::Events, PARTITION).expect("a usable writer"), None);
    append(&mut writer, Table::Events, rows(0)).expect("appended");
    writer.seal(&[step(PARTITION, None, 10_000)], counts(10)).expect("sealed");
    assert_eq!(writer.position(Table::Events, PARTITION).expect("a usable writer"), Some(position(10_000)));
    append(&mut writer, Table::Events, rows(10_000)).expect("appended");
    writer.seal(&[step(PARTITION, Some(position(10_000)), 20_000)], counts(10)).expect("sealed");
    drop(writer);

    let refused = |previous: Option<Position>, first_offset: i64, next_offset: i64| {
        let mut writer = archive.writer().expect("the lock is free");
        append(&mut writer, Table::Events, rows(first_offset)).expect("appended");
        let error = writer.seal(&[step(PARTITION, previous, next_offset)], counts(10)).expect_err("refused");
        assert!(matches!(writer.position(Table::Events, PARTITION), Err(ArchiveError::WriterFailed { .. })));
        error
    };
    assert!(matches!(refused(None, 0, 10_000), ArchiveError::PositionAhead { .. }));
    assert!(matches!(refused(Some(position(10_000)), 10_000, 20_000), ArchiveError::PositionAhead { .. }));
    assert!(matches!(refused(Some(position(30_000)), 30_000, 40_000), ArchiveError::PositionBehind { .. }));
    let other = Position { prefix_blake3: [7; 16], ..position(20_000) };
    assert!(matches!(refused(Some(other), 20_000, 30_000), ArchiveError::PositionDiffers { .. }));
    assert!(matches!(refused(Some(position(20_000)), 15_000, 30_000), ArchiveError::RowsRepeated { .. }));
    assert!(matches!(
        refused(Some(position(20_000)), 25_000, 30_000),
        ArchiveError::RowsBeyondPosition { .. }
    ));
    let mut writer = archive.writer().expect("the lock is free");
    append(&mut writer, Table::Events, rows(20_000)).expect("appended");
    let error = writer.seal(&[step("file/ff", None, 30_000)], counts(10)).expect_err("refused");
    assert!(matches!(error, ArchiveError::RowsWithoutPosition { .. }));
    drop(writer);
    let writer = &mut archive.writer().expect("the lock is free");
    let twice = [step("file/a", None, 1), step("file/a", None, 1)];
    assert!(matches!(writer.seal(&twice, counts(0)), Err(ArchiveError::PartitionTwice { .. })));

    assert_eq!(archive.snapshot(Table::Events).expect("a snapshot").rows(), 20);
}

#[test]
fn sealing_nothing_commits_nothing() {
    let folder = folder();
    let archive = create(folder.path());
    let mut writer = archive.writer().expect("the lock is free");
    assert_eq!(writer.seal(&[], counts(0)).expect("sealed"), SealReport::default());
    append(&mut writer, Table::Events, batch(Table::Events, &Shape::default())).expect("appended");
    assert!(writer.pending_bytes() > 0 && writer.pending_rows() == 100);
    writer.seal(&[step(PARTITION, None, 100_000)], counts(100)).expect("sealed");
    assert_eq!((writer.pending_bytes(), writer.pending_rows()), (0, 0));
    let same = SourcePosition { previous: Some(position(100_000)), ..step(PARTITION, None, 100_000) };
    assert_eq!(writer.seal(&[same], counts(0)).expect("sealed"), SealReport::default());
    // Even if all rows are rejects, the position in `events` moves, without a row of events.
    let rejects = Shape { first_offset: 100_000, rows: 5, ..Shape::default() };
    append(&mut writer, Table::Rejects, batch(Table::Rejects, &rejects)).expect("appended");
    let moved = step(PARTITION, Some(position(100_000)), 105_000);
    let report = writer.seal(&[moved], counts(0)).expect("sealed");
    assert_eq!(
        report.commits.iter().map(|c| c.volume.table).collect::<Vec<_>>(),
        [Table::Rejects, Table::Events]
    );
    drop(writer);
    let mut writer = archive.writer().expect("the lock is free");
    assert_eq!(writer.position(Table::Events, PARTITION).expect("a usable writer"), Some(position(105_000)));
    assert_eq!(writer.position(Table::Alerts, PARTITION).expect("a usable writer"), None);
}

/// Kills a run at each step of each seal in turn, continues with seals of another length, and
/// checks that each row is stored once.
#[test]
fn a_run_killed_anywhere_is_made_good_by_the_next() {
    let steps = [
        Step::Write,
        Step::FileWritten,
        Step::FilePublished,
        Step::Committed(Table::Rejects),
        Step::Committed(Table::Alerts),
        Step::Committed(Table::Events),
    ];
    let expected: Vec<Vec<i64>> = [1, 3, 2]
        .iter()
        .map(|every| {
            (0..20)
                .filter(|block| block % every == 0)
                .flat_map(|b| (0..10).map(move |r| b * 10_000 + r * 1000))
                .collect()
        })
        .collect();
    for at in steps {
        for nth in 0..5 {
            let folder = folder();
            let archive = create(folder.path());
            let fail = FailPoints::default();
            fail.arm(at, nth, io::ErrorKind::StorageFull);
            let died = ingest(&archive, &fail, 5, 20);
            assert!(died.is_err() || nth >= 4, "fail point {at:?} number {nth} was never reached");
            ingest(&archive, &FailPoints::default(), 3, 20).expect("the next run");
            for (table, expected) in [Table::Events, Table::Alerts, Table::Rejects].into_iter().zip(&expected)
            {
                assert_eq!(&offsets(&archive, table), expected, "{} after {at:?} {nth}", table.name());
            }
            // Every file that remains is named by a commit.
            drop(archive.writer().expect("the lock is free"));
            let named: HashSet<PathBuf> = Table::ALL
                .iter()
                .flat_map(|table| archive.snapshot(*table).expect("a snapshot").files)
                .map(|file| file.path)
                .collect();
            for path in tree(archive.root()) {
                let path = archive.root().join(path);
                let parquet = path.extension().is_some_and(|extension| extension == "parquet");
                assert!(
                    !parquet || named.contains(&path) || path.to_string_lossy().contains("checkpoint"),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn leftovers_of_others_are_not_touched() {
    let folder = folder();
    let archive = create(folder.path());
    ingest(&archive, &FailPoints::default(), 5, 5).expect("a run");
    let volume = archive.snapshot(Table::Events).expect("a snapshot").volumes[0].path.clone();
    let date = volume.join("date=2026-03-02");
    let foreign = [
        volume.join("notes.txt"),
        date.join("part-0001.parquet"),
        date.join("README"),
        volume.join("x.parquet"),
    ];
    let ours = [
        date.join(format!("{}.parquet", "ab".repeat(16))),
        volume.join("_staging/7.parquet"),
        volume.join("_delta_log/00000000000000000009.json#77"),
    ];
    for path in foreign.iter().chain(&ours) {
        std::fs::write(path, b"x").expect("written");
    }
    drop(archive.writer().expect("the lock is free"));
    assert!(foreign.iter().all(|path| path.exists()));
    assert!(ours.iter().all(|path| !path.exists()));
}

#[test]
fn a_clock_that_was_never_set_is_refused() {
    let folder = folder();
    let archive = create(folder.path());
    let mut writer = archive.writer_with(options(|| DateTime::UNIX_EPOCH), || {}).expect("the lock is free");
    let shape = Shape { rows: 10, ..Shape::default() };
    for group in encode(Table::Events, batch(Table::Events, &shape), fixed_2026()).expect("encoded") {
        assert!(matches!(writer.append(group), Err(ArchiveError::Clock { .. })));
    }
}

#[test]
fn a_new_year_starts_a_volume_and_positions_go_on() {
    let folder = folder();
    let archive = create(folder.path());
    let rows = |first_offset| batch(Table::Events, &Shape { rows: 10, first_offset, ..Shape::default() });
    let mut writer = archive.writer_with(options(fixed_2026), || {}).expect("the lock is free");
    append(&mut writer, Table::Events, rows(0)).expect("appended");
    assert_eq!(
        writer.seal(&[step(PARTITION, None, 10_000)], counts(10)).expect("sealed").commits[0]
            .volume
            .period
            .year,
        2026
    );
    drop(writer);
    let mut writer = archive.writer_with(options(fixed_2027), || {}).expect("the lock is free");
    assert_eq!(writer.position(Table::Events, PARTITION).expect("a usable writer"), Some(position(10_000)));
    append(&mut writer, Table::Events, rows(10_000)).expect("appended");
    let report = writer.seal(&[step(PARTITION, Some(position(10_000)), 20_000)], counts(10)).expect("sealed");
    assert_eq!(report.commits[0].volume.period.year, 2027);
    drop(writer);
    // A clock that is set back stays in the newest volume.
    let mut writer = archive.writer_with(options(fixed_2026), || {}).expect("the lock is free");
    assert_eq!(writer.position(Table::Events, PARTITION).expect("a usable writer"), Some(position(20_000)));
    append(&mut writer, Table::Events, rows(20_000)).expect("appended");
    let report = writer.seal(&[step(PARTITION, Some(position(20_000)), 30_000)], counts(10)).expect("sealed");
    assert_eq!((report.commits[0].volume.period.year, report.commits[0].version), (2027, 2));

    let snapshot = archive.snapshot(Table::Events).expect("a snapshot");
    assert_eq!(snapshot.volumes.iter().map(|volume| volume.period.year).collect::<Vec<_>>(), [2026, 2027]);
    assert_eq!(offsets(&archive, Table::Events), (0..30).map(|row| row * 1000).collect::<Vec<_>>());
    assert_eq!(archive.sources().expect("sources")[0].position, position(30_000));
}

#[test]
fn positions_survive_checkpoints() {
    let folder = folder();
    let archive = create(folder.path());
    let mut writer = archive.writer().expect("the lock is free");
    // A second source has no further rows, so its position is in no commit after the checkpoint.
    let mut quiet = step("file/quiet", None, 77);
    quiet.position.prefix_blake3 = [0xff; 16];
    writer.seal(std::slice::from_ref(&quiet), counts(0)).expect("sealed");
    let mut previous = None;
    for seal in 0..190 {
        let shape = Shape { rows: 2, first_offset: seal * 2000, ..Shape::default() };
        append(&mut writer, Table::Events, batch(Table::Events, &shape)).expect("appended");
        let next = step(PARTITION, previous, (seal + 1) * 2000);
        let report = writer.seal(std::slice::from_ref(&next), counts(2)).expect("sealed");
        assert_eq!(report.warnings, [""; 0]);
        previous = Some(next.position);
    }
    drop(writer);
    let volume = archive.snapshot(Table::Events).expect("a snapshot").volumes[0].clone();
    assert_eq!(volume.version, 191);
    let log = volume.path.join("_delta_log");
    assert!(log.join("00000000000000000159.checkpoint.parquet").exists(), "{:?}", tree(&log));
    let mut writer = archive.writer().expect("the lock is free");
    assert_eq!(writer.position(Table::Events, PARTITION).expect("a usable writer"), previous);
    assert_eq!(writer.position(Table::Events, "file/quiet").expect("a usable writer"), Some(quiet.position));
    drop(writer);
    // The position is also found if the commits before the checkpoint are gone.
    for version in 0..=159 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).expect("removed");
    }
    let mut writer = archive.writer().expect("the lock is free");
    assert_eq!(writer.position(Table::Events, "file/quiet").expect("a usable writer"), Some(quiet.position));
    assert_eq!(writer.position(Table::Events, PARTITION).expect("a usable writer"), previous);
    assert_eq!(archive.snapshot(Table::Events).expect("a snapshot").rows(), 380);
}

#[test]
fn the_second_writer_waits() {
    let folder = folder();
    let archive = create(folder.path());
    let mut first = archive.writer().expect("the lock is free");
    assert!(archive.try_writer(WriterOptions::default()).expect("no error").is_none());
    let (told, tell) = std::sync::mpsc::channel();
    let second = std::thread::spawn({
        let archive = archive.clone();
        move || {
            let mut writer =
                archive.writer_with(WriterOptions::default(), || told.send(()).expect("listening"))?;
            writer.position(Table::Events, PARTITION)
        }
    });
    tell.recv().expect("the second writer says that it waits");
    append(&mut first, Table::Events, batch(Table::Events, &Shape::default())).expect("appended");
    first.seal(&[step(PARTITION, None, 100_000)], counts(100)).expect("sealed");
    drop(first);
    // The second writer sees what the first one committed.
    assert_eq!(second.join().expect("no panic").expect("a position"), Some(position(100_000)));
    assert!(archive.try_writer(WriterOptions::default()).expect("no error").is_some());
}

#[test]
fn two_programs_that_create_agree() {
    let folder = folder();
    let location = folder.path().join("a/b/archive");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let location = location.to_str().expect("text").to_owned();
            std::thread::spawn(move || {
                Archive::open_or_create(&location).expect("an archive").id().to_owned()
            })
        })
        .collect();
    let ids: HashSet<String> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn what_is_no_archive_is_refused() {
    let folder = folder();
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    assert!(matches!(Archive::open(&text(folder.path())), Err(ArchiveError::NotAnArchive { .. })));
    assert!(matches!(Archive::open("gs://bucket/prefix"), Err(ArchiveError::LocationScheme { .. })));
    std::fs::write(folder.path().join("mine.txt"), b"x").expect("written");
    assert!(matches!(Archive::open_or_create(&text(folder.path())), Err(ArchiveError::NotEmpty { .. })));

    let archive = create(folder.path());
    let manifest = archive.root().join("strongroom.json");
    let url = url::Url::from_directory_path(archive.root()).expect("a URL");
    assert_eq!(Archive::open(url.as_str()).expect("the same archive").id(), archive.id());
    let overwrite = |bytes: &[u8]| {
        std::fs::remove_file(&manifest).expect("removed");
        std::fs::write(&manifest, bytes).expect("written");
    };
    overwrite(br#"{"format": 2, "whatever": true}"#);
    let error = Archive::open(&text(archive.root())).expect_err("a newer format");
    assert!(matches!(error, ArchiveError::FormatUnknown { found: 2, known: 1, .. }));
    assert!(error.hint().is_some());
    for damaged in ["", "{", r#"{"format": 1}"#, r#"{"format": "1"}"#, "null", "\0\0\0\0"] {
        overwrite(damaged.as_bytes());
        let error = Archive::open(&text(archive.root())).expect_err(damaged);
        assert!(matches!(error, ArchiveError::ParseManifest { .. }), "{damaged}: {error}");
    }
}

#[test]
fn hostile_names_do_no_harm() {
    let folder = folder();
    let archive = create(folder.path());
    let mut writer = archive.writer().expect("the lock is free");
    for name in ["", "a#records", "a\nb", "a\0b", &"x".repeat(600)] {
        let mut given = step(PARTITION, None, 1);
        given.partition = name.to_owned();
        assert!(
            matches!(writer.seal(&[given], counts(0)), Err(ArchiveError::PartitionName { .. })),
            "{name:?}"
        );
        drop(writer);
        writer = archive.writer().expect("the lock is free");
    }
    let partitions = ["../../etc", "файл/ü \"quoted\" \\ {}", "date=2026-01-01/x", "%2e%2e/%00"];
    let labels = ["line\nbreak\r\u{1b}[31m", "\"}]}", "", "\u{202e}gol"];
    let mut positions = Vec::new();
    for (partition, label) in partitions.into_iter().zip(labels) {
        let shape = Shape { partition, ..Shape::default() };
        append(&mut writer, Table::Events, batch(Table::Events, &shape)).expect("appended");
        let given = step("file", None, 100_000);
        positions.push(SourcePosition { partition: partition.to_owned(), label: label.to_owned(), ..given });
    }
    writer.seal(&positions, counts(400)).expect("sealed");
    drop(writer);
    let sources = archive.sources().expect("sources");
    let found: Vec<_> =
        sources.iter().map(|source| (source.partition.as_str(), source.label.as_str())).collect();
    assert_eq!(found, partitions.into_iter().zip(labels).collect::<Vec<_>>());
    let mut writer = archive.writer().expect("the lock is free");
    for partition in partitions {
        assert_eq!(
            writer.position(Table::Events, partition).expect("a usable writer"),
            Some(position(100_000))
        );
        assert_eq!(read_all(&archive, Table::Events, partition).expect("rows").num_rows(), 100);
    }
    assert_eq!(
        archive
            .events_since(i64::MIN)
            .expect("planned")
            .map(|batch| batch.expect("readable").num_rows())
            .sum::<usize>(),
        400
    );
}

#[test]
fn files_and_open_files_are_bounded() {
    let folder = folder();
    let archive = create(folder.path());
    let options = WriterOptions { file_bytes_max: 40_000, open_files_max: 2, ..WriterOptions::default() };
    let mut writer = archive.writer_with(options, || {}).expect("the lock is free");
    // The rows of each batch have three dates, so they need one file more than may be open.
    for block in 0..12 {
        let shape = Shape {
            rows: 300,
            first_offset: block * 300_000,
            first_time: NOON_US - 2 * DAY_US,
            step: 600_000_000,
            ..Shape::default()
        };
        append(&mut writer, Table::Events, batch(Table::Events, &shape)).expect("appended");
        let open =
            tree(archive.root()).iter().filter(|path| path.to_string_lossy().contains("_staging")).count();
        assert!(open <= 2, "{open} files are open");
    }
    let report = writer.seal(&[step(PARTITION, None, 3_600_000)], counts(3600)).expect("sealed");
    assert_eq!(report.rows, 3600);
    assert!(report.files.len() > 12, "{} files", report.files.len());
    assert_eq!(offsets(&archive, Table::Events), (0..3600).map(|row| row * 1000).collect::<Vec<_>>());
}

#[test]
fn events_since_a_time() {
    let folder = folder();
    let archive = create(folder.path());
    let mut writer = archive.writer().expect("the lock is free");
    for (partition, first_time) in [("file/late", NOON_US), ("file/early", NOON_US - DAY_US / 2)] {
        let shape = Shape { partition, rows: 1000, first_time, step: 1_000_000, ..Shape::default() };
        append(&mut writer, Table::Events, batch(Table::Events, &shape)).expect("appended");
        writer.seal(&[step(partition, None, 1_000_000)], counts(1000)).expect("sealed");
    }
    let since = |time| -> usize {
        archive.events_since(time).expect("planned").map(|batch| batch.expect("readable").num_rows()).sum()
    };
    assert_eq!(since(NOON_US + 900_000_000), 100);
    assert_eq!(since(NOON_US - DAY_US / 2 + 990_000_000), 1010);
    assert_eq!(since(NOON_US + DAY_US), 0);
    let first = archive.events_since(i64::MIN).expect("planned").next().expect("rows").expect("readable");
    assert_eq!(first.column_by_name("source").expect("a column").as_string::<i32>().value(0), "file/late");
    assert_eq!(first.schema(), Table::Events.file_schema());
}

#[test]
fn a_batch_with_other_columns_is_refused() {
    let rows = batch(Table::Rejects, &Shape::default());
    assert!(matches!(encode(Table::Events, rows.clone(), arrived()), Err(ArchiveError::EncodeSchema { .. })));
    assert!(matches!(
        encode(Table::Rejects, plain(Table::Rejects, &rows), arrived()),
        Err(ArchiveError::EncodeSchema { .. })
    ));
    let empty = RecordBatch::new_empty(Table::Events.batch_schema());
    assert!(encode(Table::Events, empty, arrived()).expect("encoded").is_empty());
}

#[test]
fn bodies_stay_out_of_footers() {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    let folder = folder();
    let archive = create(folder.path());
    ingest(&archive, &FailPoints::default(), 5, 5).expect("a run");
    let file = archive.snapshot(Table::Events).expect("a snapshot").files[0].path.clone();
    let reader = SerializedFileReader::new(std::fs::File::open(file).expect("a file")).expect("Parquet");
    assert!(
        reader.metadata().file_metadata().key_value_metadata().is_none(),
        "the file has no Arrow schema, so every reader sees plain types"
    );
    for column in reader.metadata().row_group(0).columns() {
        let name = column.column_path().parts()[0].as_str();
        let bounds = column.statistics().and_then(|statistics| statistics.min_bytes_opt()).is_some();
        match name {
            events::REQUEST_OBJECT | events::RESPONSE_OBJECT | events::RAW | events::ANNOTATIONS => {
                assert!(!bounds, "{name}")
            }
            events::STAGE_TIMESTAMP | events::SOURCE_OFFSET | events::USER_NAME | events::SOURCE => {
                assert!(bounds, "{name}")
            }
            _ => {}
        }
        let bloom = column.bloom_filter_offset().is_some();
        assert_eq!(
            bloom,
            matches!(
                name,
                "audit_id"
                    | "user_name"
                    | "resource"
                    | "verb"
                    | "namespace"
                    | "name"
                    | "source_ips"
                    | "object_uid"
                    | "impersonated_user_name"
            ),
            "{name}"
        );
    }
}

/// A reader can distinguish lists that are null, lists that are empty, and lists that contain a
/// null.
#[test]
fn lists_keep_null_and_empty_apart() {
    let schema = Table::Alerts.batch_schema();
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let list = ListArray::new(
        item,
        OffsetBuffer::new(vec![0, 2, 2, 4, 5].into()),
        Arc::new(StringArray::from(vec![Some("a"), None, Some("under a null"), Some("too"), Some("")])),
        Some(NullBuffer::from(vec![true, true, false, true])),
    );
    let mut columns = batch(Table::Alerts, &Shape { rows: 4, ..Shape::default() }).columns().to_vec();
    let at = schema.index_of("tactics").expect("a column");
    columns[at] = Arc::new(list.clone());
    let rows = RecordBatch::try_new(schema, columns).expect("a batch");
    let folder = folder();
    let archive = create(folder.path());
    let mut writer = archive.writer().expect("the lock is free");
    append(&mut writer, Table::Alerts, rows).expect("appended");
    writer.seal(&[step(PARTITION, None, 4000)], counts(0)).expect("sealed");
    let read = read_all(&archive, Table::Alerts, PARTITION).expect("rows");
    assert_eq!(read.column(at).as_list::<i32>(), &list);
}
