//! Volumes that follow each other: full ones, closed ones, and what readers, writers and `verify` make of them.

use super::*;
use crate::commit;
use crate::delta::State;
use crate::layout;
use crate::store::Store;

/// Seals `many` times, ten rows each, from where `next` says, in volumes of so many commits.
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
    crate::background::wait(async move { commit::load(&Store::Local, &path).await })
        .expect("readable")
        .expect("there")
}

fn is_current(archive: &Archive, snapshot: &Snapshot) -> bool {
    let (archive, snapshot) = (archive.clone(), snapshot.clone());
    crate::background::wait(async move { Ok(archive.is_current(&snapshot).await) }).expect("an answer")
}

#[test]
fn a_full_volume_is_closed_and_the_next_part_follows() {
    let folder = folder();
    let archive = create(folder.path());
    let mut next = 0;
    let commits = seal(&archive, 4, &mut next, 3);
    assert_eq!(names(&commits), ["events/2026:1", "events/2026:2", "events/2026:3"]);
    // Another process: it finds the volume full.
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
    assert!(is_current(&archive, &snapshot), "nothing was committed since");
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
