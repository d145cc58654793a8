//! Lists the objects of an archive in a bucket. An object that a commit names with a version is
//! listed at that version. Every other object below the root is listed at its oldest version, which
//! is the version that the archive's writer wrote.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use strongroom_archive::delta::commit;
use strongroom_archive::delta::facts::{CommitFacts, parse_with_all_files};
use strongroom_archive::records::drops;
use strongroom_schemas::VolumeId;
use strongroom_store::s3::ObjectVersion;
use strongroom_store::{Bucket, layout};

use super::{RetentionError, Work};

/// One object, at the version that belongs to the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Path relative to the root.
    pub(super) path: String,
    pub(super) version: Option<String>,
    pub(super) modified: DateTime<Utc>,
}

/// The objects below an archive's root.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) objects: Vec<Object>,
    /// Paths of the data files that do not exist, or not at the version that their commit names;
    /// and of other objects of which only delete markers exist.
    pub(super) missing: Vec<String>,
    /// Number of data files that no commit names, such as a killed run leaves.
    pub(super) unnamed: u64,
    /// For each volume that is not in `volumes`, because it was dropped or is hidden by delete
    /// markers: the number of object versions in it.
    pub(super) left: BTreeMap<String, u64>,
    pub(super) volumes: BTreeMap<VolumeId, Vec<CommitFacts>>,
}

/// Returns the volume that a path is in, if any.
pub(super) fn volume_of(path: &str) -> Option<VolumeId> {
    let (table, rest) = path.split_once('/')?;
    let (period, _) = rest.split_once('/')?;
    VolumeId::parse(&format!("{table}/{period}"))
}

/// Reads and parses all commits of a volume. A commit that is not there has no facts.
pub(super) async fn commits(work: &Work, log: VolumeId) -> Result<Vec<CommitFacts>, RetentionError> {
    let volume = layout::volume(&work.site.root, log);
    let mut commits = Vec::new();
    for path in commit::commits(&work.site.store, &volume).await? {
        let bytes = work.site.read(&path).await?;
        commits.push(parse_with_all_files(&bytes.unwrap_or_default()));
    }
    Ok(commits)
}

/// Returns the commits of all volumes that exist and were not dropped.
pub(super) async fn volumes(work: &Work) -> Result<BTreeMap<VolumeId, Vec<CommitFacts>>, RetentionError> {
    let mut volumes = BTreeMap::new();
    for log in drops::volumes(&work.site).await? {
        volumes.insert(log, commits(work, log).await?);
    }
    Ok(volumes)
}

/// Returns every object of the archive.
pub(super) async fn all(work: &Work, bucket: &Bucket) -> Result<Found, RetentionError> {
    let volumes = volumes(work).await?;
    let listed = bucket.s3.all_versions().await;
    let listed = listed.map_err(|source| RetentionError::List { path: work.site.root.clone(), source })?;
    let mut named: HashMap<String, Option<&str>> = HashMap::new();
    for (log, commits) in &volumes {
        for add in commits.iter().flat_map(|commit| &commit.adds) {
            named.insert(format!("{}/{}", log.name(), add.path), add.version.as_deref());
        }
    }
    let mut found = Found::default();
    for (path, versions) in &listed {
        if path.starts_with(layout::PROBE) {
            continue;
        }
        if let Some(log) = volume_of(path).filter(|log| !volumes.contains_key(log)) {
            *found.left.entry(log.name()).or_default() += versions.len() as u64;
            continue;
        }
        if path.contains("/date=") && !named.contains_key(path) {
            found.unnamed += 1;
            continue;
        }
        match chosen(versions, named.get(path).copied().flatten()) {
            Some(version) => found.objects.push(Object {
                path: path.clone(),
                version: version.version.clone(),
                modified: version.modified,
            }),
            None => found.missing.push(path.clone()),
        }
    }
    found.missing.extend(named.into_keys().filter(|path| !listed.contains_key(path)));
    found.missing.sort();
    found.volumes = volumes;
    Ok(found)
}

fn chosen<'v>(versions: &'v [ObjectVersion], pinned: Option<&str>) -> Option<&'v ObjectVersion> {
    let mut objects = versions.iter().filter(|version| !version.is_delete_marker);
    match pinned {
        Some(pinned) => objects.find(|object| object.version.as_deref() == Some(pinned)),
        None => objects.min_by_key(|object| object.modified),
    }
}
