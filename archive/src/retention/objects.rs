//! The objects of an archive in a bucket: what a commit names at the version that it names, and all else that lies below
//! the root at its oldest version, which is what was written.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use strongroom_schemas::VolumeId;

use super::{RetentionError, Work};
use crate::delta::commit;
use crate::delta::facts::{CommitFacts, parse_with_all_files};
use crate::layout;
use crate::records::drops;
use crate::s3::ObjectVersion;
use crate::store::Bucket;

/// One object, at the version that is the archive's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Below the root.
    pub(super) path: String,
    pub(super) version: Option<String>,
    pub(super) modified: DateTime<Utc>,
}

/// What lies below an archive's root.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) objects: Vec<Object>,
    /// Data files that a commit names and that are not there, at the version it names.
    pub(super) missing: Vec<String>,
    /// Data files that no commit names: a killed run's.
    pub(super) unnamed: u64,
    /// What is left of volumes that were dropped, by volume.
    pub(super) left: BTreeMap<String, u64>,
    pub(super) volumes: BTreeMap<VolumeId, Vec<CommitFacts>>,
}

/// Volume that a path lies in.
pub(super) fn volume_of(path: &str) -> Option<VolumeId> {
    let (table, rest) = path.split_once('/')?;
    let (period, _) = rest.split_once('/')?;
    VolumeId::parse(&format!("{table}/{period}"))
}

/// The commits of a volume, as far as anything is read of them here.
pub(super) async fn commits(work: &Work, log: VolumeId) -> Result<Vec<CommitFacts>, RetentionError> {
    let volume = layout::volume(&work.site.root, log);
    let mut commits = Vec::new();
    for path in commit::commits(&work.site.store, &volume).await? {
        let bytes = work.site.read(&path).await?;
        commits.push(parse_with_all_files(&bytes.unwrap_or_default()));
    }
    Ok(commits)
}

/// Commits of all volumes that are there and not dropped.
pub(super) async fn volumes(work: &Work) -> Result<BTreeMap<VolumeId, Vec<CommitFacts>>, RetentionError> {
    let mut volumes = BTreeMap::new();
    for log in drops::volumes(&work.site).await? {
        volumes.insert(log, commits(work, log).await?);
    }
    Ok(volumes)
}

/// Every object of the archive.
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
