//! Tests consecutive volumes: how volumes are filled and closed, and how readers, writers and
//! `verify` handle them.

use strongroom_store::durable;
use strongroom_store::{Store, background, layout};

use super::*;
use crate::delta::State;
use crate::delta::commit::{self, Addition, Committed, VolumeLog};

/// Seals `many` times, with ten rows each from offset `next` on, in volumes of at most
/// `commits_max` commits. Returns the commits.
fn seal(archive: &Archive, commits_max: u64, next: &mut i64, many: usize) -> Vec<Commit> {
    let options = WriterOptions { volume_commits_max: commits_max, ..options(fixed_2026) };
    let mut writer = archive.writer_with(options, || {}).expect("the lock is free");
    let mut commits = Vec::new();
    for _ in 0..many {
        let shape = Shape { rows: 10, first_offset: *next, ..Shape::default() };
        append(&mut writer, Table::Events, batch(Table::Events, &shape)).expect("appended");
        let previous = (*next > 0).then(|| position(*next));
        *next += 10_000;
        let report = writer.seal(&[step(PARTITION, previous, *next)], counts(10)).expect("sealed");
        assert_eq!(report.warnings, Vec::<String>::new());
        commits.extend(report.commits);
    }
    commits
}

fn names(commits: &[Commit]) -> Vec<String> {
    commits.iter().map(|commit| format!("{}:{}", commit.volume.name(), commit.version)).collect()
}

fn state(archive: &Archive, name: &str) -> State {
    let path = layout::volume(archive.root(), VolumeId::parse(name).expect("a name"));
    background::wait(async move { commit::load(&Store::Local, &path).await })
        .expect("readable")
        .expect("the volume is there")
}

fn is_current(archive: &Archive, snapshot: &Snapshot) -> bool {
    let (archive, snapshot) = (archive.clone(), snapshot.clone());
    background::wait(async move { Ok::<_, StoreError>(archive.is_current(&snapshot).await) })
        .expect("an answer")
}

#[test]
fn a_full_volume_is_closed_and_the_next_part_follows() {
    let folder = folder();
    let archive = create(folder.path());
    let mut next = 0;
    let commits = seal(&archive, 4, &mut next, 3);
    assert_eq!(names(&commits), ["events/2026:1", "events/2026:2", "events/2026:3"]);
    // Another process finds the volume full.
    let commits = seal(&archive, 4, &mut next, 5);
    let wanted = [
        "events/2026:4",
        "events/2026-0001:1",
        "events/2026-0001:2",
        "events/2026-0001:3",
        "events/2026-0001:4",
        "events/2026-0002:1",
        "events/2026-0002:2",
    ];
    assert_eq!(names(&commits), wanted);
    let first = state(&archive, "events/2026");
    assert!(
        commit::is_closed(&first) && first.checkpoint == Some(4),
        "a closed volume ends with a checkpoint"
    );
    assert!(!commit::is_closed(&state(&archive, "events/2026-0002")));

    let snapshot = archive.snapshot(Table::Events).expect("a snapshot");
    let volumes: Vec<_> =
        snapshot.volumes.iter().map(|volume| (volume.period.to_string(), volume.is_closed)).collect();
    assert_eq!(
        volumes,
        [("2026".to_owned(), true), ("2026-0001".to_owned(), true), ("2026-0002".to_owned(), false)]
    );
    assert_eq!(offsets(&archive, Table::Events), (0..80).map(|row| row * 1000).collect::<Vec<_>>());
    assert_eq!(archive.sources().expect("sources")[0].position, position(80_000));
    assert!(is_current(&archive, &snapshot), "nothing was committed after the snapshot");
    seal(&archive, 4, &mut next, 1);
    assert!(!is_current(&archive, &snapshot));
}

#[test]
fn a_seal_without_rows_moves_on_from_a_full_volume() {
    let folder = folder();
    let archive = create(folder.path());
    let mut next = 0;
    seal(&archive, 2, &mut next, 1);
    let options = WriterOptions { volume_commits_max: 2, ..options(fixed_2026) };
    let mut writer = archive.writer_with(options, || {}).expect("the lock is free");
    let report =
        writer.seal(&[step(PARTITION, Some(position(next)), next + 500)], counts(0)).expect("sealed");
    assert_eq!(names(&report.commits), ["events/2026:2", "events/2026-0001:1"]);
}

/// Opens a volume's log on a disk, as a writer does.
fn open(root: &Path) -> VolumeLog {
    let path = layout::volume(root, VolumeId { table: Table::Events, period: Period::of_year(2026) });
    wait(async move { VolumeLog::open_or_create(&Store::Local, Table::Events, path, arrived()).await })
}

fn wait<T: Send + 'static>(future: impl Future<Output = Result<T>> + Send + 'static) -> T {
    background::wait(future).expect("done")
}

/// Commits one position, and returns the log of the volume and the outcome.
fn commit_one(mut log: VolumeLog, offset: i64) -> (VolumeLog, Result<Committed>) {
    let addition =
        Addition { positions: vec![(PARTITION.to_owned(), position(offset))], ..Addition::default() };
    wait(async move {
        let committed = log.commit(addition, arrived()).await;
        Ok((log, committed))
    })
}

fn checkpoints(root: &Path) -> Vec<u64> {
    let folder = layout::delta_log(&layout::volume(
        root,
        VolumeId { table: Table::Events, period: Period::of_year(2026) },
    ));
    let names = durable::names(&folder).expect("listed");
    let mut versions: Vec<u64> =
        names.iter().filter_map(|name| layout::checkpoint_version(name.to_str()?)).collect();
    versions.sort_unstable();
    versions
}

#[test]
fn writers_that_make_a_volume_at_once_share_it() {
    for _ in 0..20 {
        let folder = folder();
        let logs: Vec<VolumeLog> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open(folder.path()))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(logs.iter().all(|log| log.version() == 0));
        let outcomes: Vec<_> =
            logs.into_iter().enumerate().map(|(at, log)| commit_one(log, at as i64)).collect();
        let conflicts = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Err(ArchiveError::CommitConflict { .. })))
            .count();
        assert_eq!(conflicts, 3, "one of the four writers commits, and the others conflict with it");
        // The three writers whose commits conflicted read the new commit, and commit after it.
        let mut version = 1;
        for (mut log, outcome) in outcomes {
            if outcome.is_ok() {
                continue;
            }
            log = wait(async move { log.reload().await.map(|()| log) });
            let (log, outcome) = commit_one(log, 10);
            version += 1;
            assert_eq!((log.version(), outcome.expect("committed").version), (version, version));
        }
    }
}

#[test]
fn a_checkpoint_that_is_missing_is_made_up_for() {
    let folder = folder();
    let mut log = open(folder.path());
    let mut offset = 0;
    let mut commit_to = |mut log: VolumeLog, version: u64| {
        while log.version() < version {
            offset += 1;
            let (returned, committed) = commit_one(log, offset);
            assert_eq!(committed.expect("committed").checkpoint_failed, None);
            log = returned;
        }
        log
    };
    log = commit_to(log, CHECKPOINT_INTERVAL - 1);
    assert_eq!(checkpoints(folder.path()), [CHECKPOINT_INTERVAL - 1]);
    // The checkpoint is removed, as if the writer had died between the commit and its checkpoint.
    let path =
        layout::volume(folder.path(), VolumeId { table: Table::Events, period: Period::of_year(2026) });
    let checkpoint = layout::delta_log(&path).join(layout::checkpoint_name(CHECKPOINT_INTERVAL - 1));
    std::fs::remove_file(checkpoint).expect("removed");
    drop(log);
    log = commit_to(open(folder.path()), CHECKPOINT_INTERVAL);
    assert_eq!(checkpoints(folder.path()), [CHECKPOINT_INTERVAL], "the first commit after it writes one");
    let state = wait(async move { commit::load(&Store::Local, &path).await }).expect("the volume is there");
    assert_eq!((state.version, state.txns[PARTITION]), (log.version(), offset));
}

#[test]
fn a_gap_in_the_commits_is_an_error() {
    let folder = folder();
    let mut log = open(folder.path());
    for offset in 1..=3 {
        (log, _) = commit_one(log, offset);
    }
    let path =
        layout::volume(folder.path(), VolumeId { table: Table::Events, period: Period::of_year(2026) });
    std::fs::remove_file(layout::commit(&path, 2)).expect("removed");
    let loaded = background::wait(async move { commit::load(&Store::Local, &path).await });
    let Err(ArchiveError::OpenVolume { source, .. }) = loaded else { panic!("{loaded:?}") };
    assert!(matches!(*source, DeltaError::Gap { missing: 2 }), "{source:?}");
}
