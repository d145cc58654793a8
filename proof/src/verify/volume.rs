//! Checks one volume: its commits against its signed log.

use std::collections::HashSet;

use chrono::Utc;
use futures::{StreamExt as _, stream};
use strongroom_archive::delta::facts::{self, CommitFacts, CommitFault, FaultKind};
use strongroom_archive::log::{checkpoint_folder, folder, tile_bytes};
use strongroom_archive::records::text::CLOCK_AHEAD_MS_MAX;
use strongroom_archive::site::Site;
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash as Hash;
use strongroom_store::{Store, layout};
use strongroom_tlog::checkpoint::{TreeHead, check_note, parse_checkpoint_name};
use strongroom_tlog::keys::Keys;
use strongroom_tlog::tree::{self, CompactRange, Tile};

use super::{FindingKind, ProofError, Report, UNPROVEN_SECONDS_MAX, delta, names_in, read};

/// Number of small files that are read at the same time.
const READS_AT_ONCE: usize = 16;
/// Reads the volume's commits and checks its log.
pub(crate) async fn check(
    site: &Site,
    log: VolumeId,
    keys: &Keys,
    since: Option<TreeHead>,
    report: &mut Report,
) -> Result<Vec<CommitFacts>, ProofError> {
    let volume = site.volume(log);
    names_in(site, &volume, FindingKind::CommitMissing, report).await?;
    let names = names_in(site, &layout::delta_log(&volume), FindingKind::CommitMissing, report).await?;
    let mut versions: Vec<u64> = names.iter().filter_map(|name| layout::commit_version(name)).collect();
    versions.sort_unstable();
    let mut whole = versions.iter().enumerate().take_while(|(at, version)| *at as u64 == **version).count();
    if whole < versions.len() {
        let place = format!("{}/_delta_log/{whole:020}.json", log.name());
        let detail = format!("it is missing, but version {} exists", versions[whole]);
        report.find(FindingKind::CommitMissing, place, detail);
    }
    if let Store::Local = site.store {
        let is_plain = |version: &usize| {
            std::fs::symlink_metadata(layout::commit(&volume, *version as u64))
                .is_ok_and(|found| found.is_file())
        };
        if let Some(version) = (0..whole).find(|version| !is_plain(version)) {
            let place = format!("{}/_delta_log/{version:020}.json", log.name());
            let detail = "it is not a plain file; the commits after it are not checked";
            report.find(FindingKind::CommitMissing, place, detail);
            whole = version;
        }
    }
    let read = (0..whole as u64).map(|version| {
        let (site, path) = (site.clone(), layout::commit(&volume, version));
        async move { read(&site, &path).await }
    });
    let mut read = stream::iter(read).buffered(READS_AT_ONCE);
    let (mut commits, mut named) = (Vec::with_capacity(whole), HashSet::new());
    let mut closed = false;
    while let Some(bytes) = read.next().await {
        let place = format!("{}/_delta_log/{:020}.json", log.name(), commits.len());
        let (commit, faults) = facts::parse(&bytes?, commits.is_empty(), Some(log.table));
        for CommitFault { kind, line, detail } in faults {
            let place = line.map_or(place.clone(), |line| format!("{place}, line {line}"));
            report.find(finding_kind(kind), place, detail);
        }
        if closed {
            report.find(FindingKind::VolumeReopened, &place, "an earlier commit closed the volume");
        }
        closed |= commit.txns.contains_key(facts::CLOSED);
        for add in &commit.adds {
            if !named.insert(add.path.clone()) {
                report.find(
                    FindingKind::FileNamedTwice,
                    &place,
                    format!("{} is in an earlier commit", add.path),
                );
            }
            if add.record_root.is_none() {
                report.find(FindingKind::Tags, &place, format!("{} has no tags", add.path));
            }
        }
        commits.push(commit);
    }
    report.checked.commits += commits.len() as u64;
    check_log(site, log, keys, since, &commits, report).await?;
    delta::check(site, log, names, &commits, report).await?;
    Ok(commits)
}

/// Returns the kind of the finding for a fault of a commit.
fn finding_kind(kind: FaultKind) -> FindingKind {
    match kind {
        FaultKind::Malformed => FindingKind::CommitMalformed,
        FaultKind::NotAppendOnly => FindingKind::NotAppendOnly,
        FaultKind::Statistics => FindingKind::Statistics,
        FaultKind::Tags => FindingKind::Tags,
    }
}

/// Checks checkpoints and tiles against the commits.
async fn check_log(
    site: &Site,
    log: VolumeId,
    keys: &Keys,
    since: Option<TreeHead>,
    commits: &[CommitFacts],
    report: &mut Report,
) -> Result<(), ProofError> {
    let origin = log.origin(&site.archive_id);
    let (place, path) = (format!("{}/_tlog", log.name()), checkpoint_folder(&site.root, log));
    let mut names = names_in(site, &path, FindingKind::CheckpointMalformed, report).await?;
    names.retain(|name| !name.starts_with('.'));
    let all = keys.all();
    let (mut range, mut good, mut newest) = (CompactRange::default(), Vec::new(), None);
    let mut wrong_root = None;
    for name in names {
        let place = format!("{place}/checkpoint/{name}");
        let note = read(site, &path.join(&name)).await?;
        report.checked.checkpoints += 1;
        let (size, tree_root, key) = match check_note(&note, &origin, &all) {
            Ok(checked) => checked,
            Err(fault) => {
                report.find(FindingKind::from(&fault), place, fault.to_string());
                continue;
            }
        };
        let id = all[key].id(&origin).to_string();
        if parse_checkpoint_name(&name) != Some((size, &id)) {
            report.find(
                FindingKind::CheckpointMalformed,
                place,
                format!("its content has size {size} and key {id}"),
            );
            continue;
        }
        if size > commits.len() as u64 {
            report.find(
                FindingKind::CommitsCut,
                place,
                format!("it is of {size} commits, but there are {}", commits.len()),
            );
            continue;
        }
        // Names are sorted by size.
        while range.size() < size {
            range.push(commits[range.size() as usize].leaf);
        }
        if range.root() != tree_root {
            wrong_root.get_or_insert((place, size));
            continue;
        }
        good.push((place, size, key));
        newest = Some(TreeHead { log, size, root: tree_root });
    }
    for (place, size, key) in &good {
        let retired = keys.retired_at(*key, log).is_some_and(|until| *size > until);
        let confirmed = good.iter().any(|(_, other, by)| by > key && other >= size);
        if retired && !confirmed {
            report.find(FindingKind::KeyRetired, place.as_str(), "it is signed only by a key retired before");
        }
    }
    for head in keys.records.iter().flat_map(|record| &record.heads).filter(|head| head.log == log) {
        let leaves: Vec<Hash> = commits.iter().take(head.size as usize).map(|commit| commit.leaf).collect();
        if leaves.len() as u64 != head.size || tree::root(&leaves) != head.root {
            let detail = format!("a key record names a different tree of size {}", head.size);
            report.find(FindingKind::KeyRecord, place.as_str(), detail);
        }
    }
    let size = newest.as_ref().map_or(0, |head| head.size);
    let sizes: Vec<u64> = good.iter().map(|(_, size, _)| *size).collect();
    let from = since.map_or(0, |head| head.size);
    let changed = tiles(site, log, commits, &sizes, (from, wrong_root.is_some()), report).await?;
    match (wrong_root, changed) {
        (Some(_), Some(commit)) => {
            let place = format!("{}/_delta_log/{commit:020}.json", log.name());
            report.find(FindingKind::CommitChanged, place, "its hash differs from the log's tiles");
        }
        (Some((place, size)), None) => {
            report.find(
                FindingKind::CheckpointRoot,
                place,
                format!("the first {size} commits have a different root"),
            );
        }
        (None, _) => {}
    }
    unproven(log, keys, commits, size, report);
    report.heads.extend(newest);
    Ok(())
}

/// Reports the commits from `size` on, which are not under a valid checkpoint.
fn unproven(log: VolumeId, keys: &Keys, commits: &[CommitFacts], size: u64, report: &mut Report) {
    let behind = &commits[size as usize..];
    if behind.is_empty() || keys.records.is_empty() {
        return;
    }
    let detail = format!("{} commits from {size} on are not signed yet", behind.len());
    let now = Utc::now().timestamp_millis();
    // A commit with a time far in the future would count as young forever, so its time may be ahead
    // of our clock only by a little, as the clocks of other machines may be.
    let young = now - UNPROVEN_SECONDS_MAX * 1000..=now + CLOCK_AHEAD_MS_MAX;
    if behind.iter().all(|commit| commit.time_ms.is_some_and(|time| young.contains(&time))) {
        report.not_checked.push(format!("{}: {detail}", log.name()));
    } else {
        report.find(FindingKind::Unproven, format!("{}/_tlog/checkpoint", log.name()), detail);
    }
}

/// Checks tiles against the commits. If the root of a checkpoint was wrong, a commit was changed;
/// then tiles are not reported, and this returns the first commit that differs from its tile, if
/// any.
async fn tiles(
    site: &Site,
    log: VolumeId,
    commits: &[CommitFacts],
    sizes: &[u64],
    (from, is_root_wrong): (u64, bool),
    report: &mut Report,
) -> Result<Option<u64>, ProofError> {
    let folder = folder(&site.root, log);
    let mut wanted: std::collections::BTreeSet<Tile> = std::collections::BTreeSet::new();
    let mut before = from;
    let newest = sizes.last().copied().unwrap_or(0);
    for size in sizes.iter().copied().filter(|size| *size > from) {
        // In a bucket, each tile is a request, so the partial tiles of older checkpoints are not
        // checked.
        let all = tree::tiles(if size == newest { from } else { before }, size).into_iter();
        wanted.extend(all.filter(|tile| {
            tile.width == tree::TILE_WIDTH || size == newest || matches!(site.store, Store::Local)
        }));
        before = size;
    }
    if is_root_wrong {
        wanted.extend(tree::tiles(0, commits.len() as u64).into_iter().filter(|tile| tile.level == 0));
    }
    let levels = tree::levels(commits.iter().map(|commit| commit.leaf).collect());
    let mut changed: Option<u64> = None;
    for tile in wanted {
        let place = format!("{}/_tlog/{}", log.name(), tile.path());
        let found = tile_bytes(site, &folder, tile).await?;
        report.checked.tiles += 1;
        let level = levels.get(tile.level as usize).map_or(&[][..], Vec::as_slice);
        let first = (tile.number * tree::TILE_WIDTH) as usize;
        let expected: Vec<u8> =
            level.iter().skip(first).take(tile.width as usize).flat_map(|hash| hash.0).collect();
        let Some(found) = found else {
            if !is_root_wrong {
                report.find(FindingKind::TileMissing, place, "it is missing, but a checkpoint needs it");
            }
            continue;
        };
        let same = found.len() >= expected.len() && found[..expected.len()] == expected[..];
        let whole = found.len() == 32 * tile.width as usize || found.len() == 32 * tree::TILE_WIDTH as usize;
        if same && whole {
            continue;
        }
        let at = found.chunks(32).zip(expected.chunks(32)).position(|(found, expected)| found != expected);
        match at {
            Some(at) if is_root_wrong && tile.level == 0 => {
                let commit = (first + at) as u64;
                changed = Some(changed.map_or(commit, |known| known.min(commit)));
            }
            _ if is_root_wrong => {}
            at => {
                let bytes = at.map_or(0..found.len(), |at| at * 32..at * 32 + 32);
                let place = format!("{place}, bytes {}..{}", bytes.start, bytes.end);
                report.find(FindingKind::TileChanged, place, "its hashes differ from those of the commits");
            }
        }
    }
    Ok(changed)
}
