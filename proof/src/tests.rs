//! Tests of signed logs: at whatever step a run dies, and even if another process signs too, a log
//! continues and never forks.

#[path = "../../archive/src/tests/rows.rs"]
mod rows;

use std::collections::HashSet;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use chrono::{DateTime, Utc};
use strongroom_archive::fail::{FailPoints, Step};
use strongroom_archive::{Archive, LogError, Position, Records};
use strongroom_schemas::record::leaf_hash;
use strongroom_schemas::{Period, Table, VolumeId};
use strongroom_store::layout;
use strongroom_tlog::tree::node_hash;
use strongroom_tlog::{PrivateKey, Signer};

use self::rows::{PARTITION, counts, create, fixed_2026, fixed_2027, folder, ingest, options, step};
use crate::verify::{self, FindingKind, Watch, verify};

/// A renderer for rows that were never received: each row has an empty record.
struct NoRecords;

impl Records for NoRecords {
    fn each(&self, rows: &RecordBatch, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
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
    ) -> Result<(), String> {
        match table {
            Table::Events => self.each(rows, each),
            _ => Ok(()),
        }
    }
}

impl Watch for NoRecords {}

fn signer() -> Arc<Signer> {
    Arc::new(Signer::Key(PrivateKey::generate("test").expect("randomness")))
}

fn signed(folder: &Path, signer: &Arc<Signer>) -> Archive {
    let location = folder.join("archive");
    Archive::open_or_create_signed(location.to_str().expect("text"), Some(Arc::clone(signer)))
        .expect("an archive")
}

/// Returns the report on an archive, without the findings that are caused by the made-up rows and
/// counts of these tests.
fn findings(archive: &Archive) -> verify::Report {
    let options = verify::Options { threads: 2, ..verify::Options::default() };
    let mut report = verify(archive, &options, &NoRecords, &NoRecords).expect("readable");
    let made_up =
        [FindingKind::RowsMissing, FindingKind::RowsExtra, FindingKind::Counts, FindingKind::WrongYear];
    report.findings.retain(|finding| !made_up.contains(&finding.kind));
    report
}

fn assert_whole(archive: &Archive, what: &str) {
    let report = findings(archive);
    assert_eq!(report.findings, [], "{what}");
    let versions: u64 = Table::ALL
        .iter()
        .flat_map(|table| archive.snapshot(*table).expect("a snapshot").volumes)
        .map(|volume| volume.version + 1)
        .sum();
    assert_eq!(report.heads.iter().map(|head| head.size).sum::<u64>(), versions, "{what}");
}

#[test]
fn a_log_that_died_anywhere_is_made_good() {
    let steps = [
        Step::Proof,
        Step::FilePublished,
        Step::Committed(Table::Rejects),
        Step::Committed(Table::Alerts),
        Step::Committed(Table::Events),
    ];
    for at in steps {
        for nth in [0, 1, 2, 5] {
            let (folder, signer) = (folder(), signer());
            let archive = signed(folder.path(), &signer);
            let fail = FailPoints::default();
            fail.arm(at, nth, io::ErrorKind::StorageFull);
            let died = ingest(&archive, &fail, 5, 20);
            // The commits are valid in any case: only the signature may be missing.
            assert!(died.is_err() || at == Step::Proof || nth >= 4, "{at:?} {nth}");
            assert_eq!(findings(&archive).findings, [], "{at:?} {nth}, before the next run");
            ingest(&archive, &FailPoints::default(), 3, 24).expect("the next run");
            assert_whole(&archive, &format!("{at:?} {nth}"));
            // The archive was created with the key.
            assert_eq!(archive.keys().expect("keys").current(), Some(signer.public()));
        }
    }
}

#[test]
fn a_log_goes_on_over_tiles_and_years_and_without_its_tiles() {
    let (folder, signer) = (folder(), signer());
    let archive = signed(folder.path(), &signer);
    let plain = create(folder.path());
    let mut previous = None;
    for (run, (clock, seals)) in
        [(fixed_2026 as fn() -> DateTime<Utc>, 270), (fixed_2026, 3), (fixed_2027, 2)].into_iter().enumerate()
    {
        // The first run has no key, so its commits are not signed. The second run has the key and
        // signs them all at once, which is more than a full tile.
        let writer = if run == 0 { &plain } else { &archive };
        let mut writer = writer.writer_with(options(clock), || {}).expect("the lock is free");
        for _ in 0..seals {
            let next = step(
                PARTITION,
                previous,
                previous.map_or(0, |position: Position| position.next_offset) + 1000,
            );
            let report = writer.seal(std::slice::from_ref(&next), counts(0)).expect("sealed");
            assert_eq!(report.warnings, [""; 0]);
            previous = Some(next.position);
        }
    }
    assert_whole(&archive, "grown");
    let heads = archive.sign_logs().expect("nothing to do");
    assert_eq!(heads.iter().map(|head| head.size).collect::<Vec<_>>(), [274, 3]);
    let root = archive.root();
    let tiles = |year: i32| {
        layout::volume(root, VolumeId { table: Table::Events, period: Period::of_year(year) })
            .join("_tlog/tile")
    };
    assert!(tiles(2026).join("0/000").exists() && tiles(2026).join("1/000.p/1").exists());
    // Tiles can be computed from the commits. So the log continues without its tiles, and their
    // absence is reported.
    std::fs::remove_dir_all(tiles(2027)).expect("removed");
    let mut writer = archive.writer_with(options(fixed_2027), || {}).expect("the lock is free");
    let next = step(PARTITION, previous, 900_000);
    assert_eq!(writer.seal(std::slice::from_ref(&next), counts(0)).expect("sealed").warnings, [""; 0]);
    let kinds: HashSet<FindingKind> =
        findings(&archive).findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, HashSet::from([FindingKind::TileMissing]));
}

#[test]
fn nothing_is_signed_over_a_changed_history() {
    let (folder, signer) = (folder(), signer());
    let archive = signed(folder.path(), &signer);
    ingest(&archive, &FailPoints::default(), 5, 20).expect("sealed");
    let volume = archive.snapshot(Table::Events).expect("a snapshot").volumes[0].clone();
    std::fs::remove_dir_all(volume.path.join("_tlog/tile")).expect("removed");
    let commit = layout::commit(&volume.path, 1);
    let text = std::fs::read_to_string(&commit).expect("text");
    std::fs::remove_file(&commit).expect("removed");
    std::fs::write(&commit, text.replace("numRecords", "numrecords")).expect("written");
    assert!(matches!(archive.sign_logs(), Err(LogError::Forked { size: 5, .. })));
    assert!(matches!(
        archive.clone().signed_by(self::signer()).sign_logs(),
        Err(LogError::KeyNotCurrent { .. })
    ));
}

#[test]
fn many_sign_at_once_and_the_log_is_one() {
    let (folder, signer) = (folder(), signer());
    let archive = signed(folder.path(), &signer);
    let plain = create(folder.path());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..20 {
                    archive.sign_logs().expect("consistent");
                }
            });
        }
        ingest(&plain, &FailPoints::default(), 1, 20).expect("sealed");
    });
    archive.sign_logs().expect("caught up");
    assert_whole(&archive, "signed by many");
}

#[test]
fn what_an_outsider_computes_is_what_is_signed() {
    let (folder, signer) = (folder(), signer());
    let archive = signed(folder.path(), &signer);
    ingest(&archive, &FailPoints::default(), 10, 20).expect("sealed");
    let head = archive.sign_logs().expect("heads").into_iter().find(|head| head.log.table == Table::Events);
    let head = head.expect("events");
    let volume = &archive.snapshot(Table::Events).expect("a snapshot").volumes[0];
    let leaf = |at| leaf_hash(&std::fs::read(layout::commit(&volume.path, at)).expect("a commit"));
    let node = |left, right| node_hash(&left, &right);
    assert_eq!((head.size, head.root), (3, node(node(leaf(0), leaf(1)), leaf(2))));
}
