//! Opens and creates archives, and gives access to an archive's writer, tables and rows.
//!
//! Invariant: a folder (or a prefix of a bucket) is an archive if and only if it has a complete
//! `strongroom.json` of a format this program knows. The file is written once and appears whole. So
//! two programs that create an archive at the same time agree on one identity, and a crash leaves
//! either the whole file or no file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use strongroom_schemas::format::ARCHIVE_FORMAT;
use strongroom_schemas::{Period, Table};
use strongroom_store::error::StoreError;
use strongroom_store::id::random_id;
use strongroom_store::lock_term::LockTerm;
use strongroom_store::options::{
    LockMode, RETENTION_YEARS_DEFAULT, RETENTION_YEARS_MAX, Retention, StoreOptions,
};
use strongroom_store::s3::S3;
use strongroom_store::s3_error::S3Error;
use strongroom_store::{Bucket, Contents, Store, background, durable, layout};
use strongroom_tlog::checkpoint::TreeHead;
use strongroom_tlog::keys::Keys;
use strongroom_tlog::note::{NAME_DEFAULT, PublicKey};
use strongroom_tlog::signer::Signer;
use url::Url;

use crate::delta::snapshot::{self, FileEntry, Snapshot};
use crate::error::{ArchiveError, LogError, Result};
use crate::lock::{Lock, WriterGuard};
use crate::log::LogSigner;
use crate::position::Source;
use crate::read::{self, EventSelection, Rows};
use crate::records::keys::{self, NewKey};
use crate::records::policy;
use crate::site::Site;
use crate::strict_json::Strict;
use crate::writer::{Writer, WriterOptions};

/// An archive, on a local disk or in a bucket.
#[derive(Clone, Debug)]
pub struct Archive {
    site: Site,
}

/// The content of `strongroom.json`. Unknown fields can be ignored, because an archive of a later
/// format is refused by its format number.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    archive_id: String,
    created: String,
    /// In a bucket: the minimum number of years for which every object is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention_years: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock_mode: Option<LockMode>,
    /// The vkey of the first key, if the archive was created with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

/// Whether a text is a UUID in lower case.
fn is_uuid(text: &str) -> bool {
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// The part of a manifest that every format has.
#[derive(Deserialize)]
struct ManifestFormat {
    format: u32,
}

impl Archive {
    /// Opens the archive at `location` (a path, a `file://` or an `s3://` URL), or creates one
    /// there. The store is reached as described by [`StoreOptions::from_env`].
    ///
    /// # Errors
    /// [`ArchiveError::LocationScheme`] for other URLs, [`ArchiveError::NotEmpty`] for a folder
    /// that contains other files, [`ArchiveError::FormatUnknown`] and
    /// [`ArchiveError::ParseManifest`] for an archive that cannot be read.
    pub fn open_or_create(location: &str) -> Result<Archive> {
        Archive::open_or_create_with(location, &options_for(location)?)
    }

    /// Like [`Archive::open_or_create`], but the store is reached with `options`.
    pub fn open_or_create_with(location: &str, options: &StoreOptions) -> Result<Archive> {
        Archive::open_or_create_named(location, options, None)
    }

    /// Like [`Archive::open_or_create_with`], but a new archive names `public_key` as its first
    /// key.
    pub fn open_or_create_named(
        location: &str,
        options: &StoreOptions,
        public_key: Option<PublicKey>,
    ) -> Result<Archive> {
        let place = Place::of(location, options)?;
        if !place.is_archive()? {
            if place.hidden_manifest()?.is_some() {
                return Err(ArchiveError::ManifestHidden { root: place.root });
            }
            place.create(public_key)?;
        }
        place.open()
    }

    /// Like [`Archive::open_or_create`], but `signer` signs what writers commit; see
    /// [`Archive::signed_by`].
    pub fn open_or_create_signed(location: &str, signer: Option<Arc<Signer>>) -> Result<Archive> {
        let public_key = signer.as_ref().map(|signer| signer.public());
        let archive = Archive::open_or_create_named(location, &options_for(location)?, public_key)?;
        Ok(match signer {
            Some(signer) => archive.signed_by(signer),
            None => archive,
        })
    }

    /// Whether a text has the form of a location. Does not access the location.
    pub fn is_location(location: &str) -> bool {
        if S3::is_location(location) { S3::is_valid_location(location) } else { local_path(location).is_ok() }
    }

    /// Opens the archive at `location`; it must exist.
    pub fn open(location: &str) -> Result<Archive> {
        Archive::open_with(location, &options_for(location)?)
    }

    /// Like [`Archive::open`], but the store is reached with `options`.
    pub fn open_with(location: &str, options: &StoreOptions) -> Result<Archive> {
        Place::of(location, options)?.open()
    }

    /// Like [`Archive::open`], but if a delete marker hides the manifest in a bucket, the archive is
    /// opened with the version that was written. For checks, which then report the delete marker. A
    /// manifest behind a symbolic link is not read.
    pub fn open_to_verify(location: &str) -> Result<Archive> {
        let place = Place::of(location, &options_for(location)?)?;
        let path = place.root.join(MANIFEST);
        if let Store::Local = place.store
            && std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink())
        {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "a symbolic link");
            return Err(ArchiveError::ReadManifest { path, source });
        }
        let hidden = place.hidden_manifest()?;
        if let Some(text) = hidden.clone().or(place.manifest()?) {
            // Another reader could take the other of two values with one name.
            let strict = serde_json::from_slice(&text);
            let Strict(manifest) =
                strict.map_err(|source| ArchiveError::ParseManifest { path: path.clone(), source })?;
            if !manifest["archive_id"].as_str().is_none_or(is_uuid) {
                let source = serde::de::Error::custom("archive_id is not a UUID");
                return Err(ArchiveError::ParseManifest { path, source });
            }
        }
        match hidden {
            Some(text) => place.open_with_manifest(text),
            None => place.open(),
        }
    }

    /// Returns the absolute path of the archive's folder; in a bucket `s3://bucket/prefix`.
    pub fn root(&self) -> &Path {
        &self.site.root
    }

    /// Whether the archive is on a local disk.
    pub fn is_local(&self) -> bool {
        matches!(self.site.store, Store::Local)
    }

    /// Identity assigned when the archive was created, a UUID.
    pub fn id(&self) -> &str {
        &self.site.archive_id
    }

    /// Returns the lock of new objects; `None` on a local disk.
    pub fn retention(&self) -> Option<Retention> {
        match &self.site.store {
            Store::Local => None,
            Store::S3(bucket) => Some(bucket.retention.now()),
        }
    }

    /// Returns the store, root, identity and signer of the archive, for the functions of lower
    /// layers.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Returns the same archive with a signer. Its writers extend the signed logs after their
    /// commits.
    pub fn signed_by(mut self, signer: Arc<Signer>) -> Archive {
        self.site.signer = Some(signer);
        self
    }

    fn log_signer(&self) -> Result<LogSigner, LogError> {
        let signer = self.site.signer.clone().ok_or(LogError::NoKey)?;
        Ok(LogSigner::of(self.site.clone(), signer))
    }

    /// Extends every signed log to the last commit of its volume, and gives the archive its first
    /// key if it has none. Returns the heads of the logs.
    ///
    /// # Errors
    /// [`LogError::NoKey`] without a signer; [`LogError::KeyNotCurrent`] if the signer's key is not
    /// the archive's current key; [`LogError::Forked`] if the commits differ from those that were
    /// signed. If a log fails, the logs before it have been extended, and the logs after it have
    /// not.
    pub fn sign_logs(&self) -> Result<Vec<TreeHead>, LogError> {
        let log_signer = self.log_signer()?;
        background::wait(async move { log_signer.all().await })
    }

    /// Returns the archive's keys. The record of each key is checked against the record before it.
    pub fn keys(&self) -> Result<Keys, LogError> {
        let site = self.site.clone();
        background::wait(async move { keys::load(&site).await })
    }

    /// Makes `new` the archive's current key. Before that, the old key signs everything committed
    /// so far. No other process should sign at the same time.
    ///
    /// # Errors
    /// Those of [`Archive::sign_logs`], and [`LogError::KeyUsed`] for a key that the archive has
    /// used before.
    pub fn rotate_key(&self, new: Arc<Signer>) -> Result<Keys, LogError> {
        let log_signer = self.log_signer()?;
        background::wait(async move {
            let heads = log_signer.all().await?;
            let mut keys = log_signer.keys().await?;
            if keys.all().contains(&new.public()) {
                return Err(LogError::KeyUsed);
            }
            let added = NewKey { old: Some(&log_signer.signer), new: &new, heads, time: Utc::now() };
            keys::append(&log_signer.site, &mut keys, added).await?;
            Ok(keys)
        })
    }

    /// Opens a writer. On a local disk there is one writer at a time, and this call waits while
    /// another process (or thread) has an open writer. In a bucket there may be several writers;
    /// each of them first tests that the store refuses to replace an object. See [`Writer`].
    pub fn writer(&self) -> Result<Writer> {
        self.writer_with(WriterOptions::default(), || {})
    }

    /// Like [`Archive::writer`], but with options. If another process has the only writer, calls
    /// `on_wait` once, then waits.
    pub fn writer_with(&self, options: WriterOptions, on_wait: impl FnOnce()) -> Result<Writer> {
        let guard = match &self.site.store {
            Store::Local => WriterGuard::LockFile(Lock::acquire(&self.site.root, on_wait)?),
            Store::S3(bucket) => WriterGuard::of_bucket(bucket)?,
        };
        Writer::open(&self.site, options, guard)
    }

    /// Like [`Archive::writer`], but returns `None` if another process has the only writer.
    pub fn try_writer(&self, options: WriterOptions) -> Result<Option<Writer>> {
        let guard = match &self.site.store {
            Store::Local => match Lock::try_acquire(&self.site.root)? {
                Some(lock) => WriterGuard::LockFile(lock),
                None => return Ok(None),
            },
            Store::S3(bucket) => WriterGuard::of_bucket(bucket)?,
        };
        Writer::open(&self.site, options, guard).map(Some)
    }

    /// Returns the current content of `table`. Blocks; may be called from any thread, also inside
    /// an async runtime.
    pub fn snapshot(&self, table: Table) -> Result<Snapshot> {
        background::wait(snapshot::load(self.site.clone(), table))
    }

    /// True if nothing was committed to the table of `snapshot` since the snapshot was taken. Costs
    /// the listing of a few names.
    pub async fn is_current(&self, snapshot: &Snapshot) -> bool {
        match &self.site.store {
            Store::Local => {
                // The future is boxed to hide its type, because the types of the futures of queries
                // are nested deeply enough already.
                let looked: BoxFuture<'_, bool> = snapshot::is_current(&self.site, snapshot).boxed();
                looked.await
            }
            Store::S3(_) => {
                let (site, snapshot) = (self.site.clone(), snapshot.clone());
                let current = async move { Ok(snapshot::is_current(&site, &snapshot).await) };
                let current: BoxFuture<'static, Result<bool>> = current.boxed();
                background::run(current).await.unwrap_or(false)
            }
        }
    }

    /// Like [`Archive::snapshot`], but async.
    pub async fn snapshot_async(&self, table: Table) -> Result<Snapshot> {
        let loaded: BoxFuture<'static, Result<Snapshot>> = snapshot::load(self.site.clone(), table).boxed();
        background::run(loaded).await
    }

    /// Returns the bytes of a file in a snapshot of this archive, at the version that its commit
    /// names.
    pub fn contents(&self, file: &FileEntry) -> Contents {
        self.site.store.contents(&file.path, file.size, file.version.as_deref())
    }

    /// Like [`Archive::contents`], but for callers that have a file's path, length and version from
    /// another place than a snapshot.
    pub fn contents_of(&self, path: &Path, bytes: u64, version: Option<&str>) -> Contents {
        self.site.store.contents(path, bytes, version)
    }

    /// Returns the source partitions in the order of their first commit, each with its newest label
    /// and its current position. Reads every commit of `events`, which is affordable for an export
    /// but not for a query.
    pub fn sources(&self) -> Result<Vec<Source>> {
        let site = self.site.clone();
        background::wait(async move { read::sources(&site).await })
    }

    /// Returns the rows of one partition in `source_offset` order, as batches in
    /// `table.file_schema()`. Memory holds the rows of one set of overlapping row groups at a time.
    pub fn read_rows(&self, table: Table, partition: &str) -> Result<Rows> {
        Rows::of_partition(self.site.store.clone(), self.snapshot(table)?, partition)
    }

    /// Like [`Archive::read_rows`], but for several partitions, one after the other. The caller
    /// starts each partition with [`Rows::begin`]. If the partitions are read in the order of
    /// [`Archive::sources`] or nearly so, each file is opened once, and a row group that several
    /// partitions share is read once.
    pub fn read_partitions(&self, table: Table, partitions: &[&str]) -> Result<Rows> {
        Rows::of_partitions(self.site.store.clone(), self.snapshot(table)?, partitions)
    }

    /// Returns the events with `stage_timestamp >= time_us`, in `Table::Events.file_schema()`:
    /// partitions in the order of their first commit, each in `source_offset` order. Row groups
    /// without such events are not read.
    pub fn events_since(&self, time_us: i64) -> Result<Rows> {
        self.select_events(EventSelection { since_us: Some(time_us), ..EventSelection::default() })
    }

    /// Returns some events and some of their columns, in the order of [`Archive::events_since`].
    /// Files and row groups outside the requested times are not read.
    pub fn select_events(&self, selection: EventSelection) -> Result<Rows> {
        let partitions = self.sources()?.into_iter().map(|source| source.partition).collect();
        Rows::selected(self.site.store.clone(), self.snapshot(Table::Events)?, partitions, selection)
    }

    /// Returns the version of the last commit of each volume of `table`.
    pub fn ends(&self, table: Table) -> Result<BTreeMap<Period, u64>> {
        let volumes = self.snapshot(table)?.volumes;
        Ok(volumes.into_iter().map(|volume| (volume.period, volume.version)).collect())
    }

    /// Files that commits of `table` added after `after`, as returned by [`Archive::ends`], and where
    /// the table ends now. A volume that is not in `after` is read from its first commit.
    pub fn added_since(
        &self,
        table: Table,
        after: &BTreeMap<Period, u64>,
    ) -> Result<(Vec<FileEntry>, BTreeMap<Period, u64>)> {
        let Snapshot { volumes, mut files, .. } = self.snapshot(table)?;
        let ends: BTreeMap<Period, u64> =
            volumes.into_iter().map(|volume| (volume.period, volume.version)).collect();
        let ranges = ranges_between(after, &ends);
        if ranges.is_empty() {
            return Ok((Vec::new(), ends));
        }
        let site = self.site.clone();
        let added = background::wait(async move { read::added(&site, table, ranges).await })?;
        files.retain(|file| added.paths.contains(&file.path));
        Ok((files, ends))
    }

    /// Calls `each` with the values of a text column of a file of `table`, without its nulls. Nothing
    /// else of the file is decoded.
    ///
    /// # Errors
    /// If the file cannot be read, or has no such column.
    pub fn texts(
        &self,
        table: Table,
        file: &FileEntry,
        column: &str,
        each: &mut dyn FnMut(&str),
    ) -> Result<()> {
        read::texts(&self.contents(file), table, column, each)
    }

    /// Rows that commits of `table` added after `after` and up to `to`, both as returned by
    /// [`Archive::ends`], in `table.file_schema()`. The order is always the same: by partition,
    /// then by `source_offset`. A volume that is not in `after` is read from its first commit.
    pub fn rows_between(
        &self,
        table: Table,
        after: &BTreeMap<Period, u64>,
        to: &BTreeMap<Period, u64>,
    ) -> Result<Rows> {
        let site = self.site.clone();
        let ranges = ranges_between(after, to);
        let added = background::wait(async move { read::added(&site, table, ranges).await })?;
        let mut snapshot = self.snapshot(table)?;
        snapshot.files.retain(|file| added.paths.contains(&file.path));
        Rows::selected(
            self.site.store.clone(),
            snapshot,
            added.partitions.into_iter().collect(),
            EventSelection::default(),
        )
    }
}

/// The commits of each volume after the first of two ends and up to the second: the volume, the
/// first and the last of them.
fn ranges_between(after: &BTreeMap<Period, u64>, to: &BTreeMap<Period, u64>) -> Vec<(Period, u64, u64)> {
    to.iter()
        .map(|(period, last)| (*period, after.get(period).map_or(0, |seen| seen + 1), *last))
        .filter(|(_, first, last)| first <= last)
        .collect()
}

/// Name of the file that makes a folder an archive.
pub const MANIFEST: &str = layout::MANIFEST;

/// Whether a name in the root folder of an archive belongs to the archive.
pub fn is_of_archive(name: &str) -> bool {
    name == MANIFEST || name.starts_with('_') || Table::ALL.iter().any(|table| table.name() == name)
}

/// Returns the options for `location`: those in the environment if it is in a bucket, otherwise the
/// defaults.
fn options_for(location: &str) -> Result<StoreOptions> {
    if S3::is_location(location) { Ok(StoreOptions::from_env()?) } else { Ok(StoreOptions::default()) }
}

/// A location that may or may not hold an archive.
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) fn of(location: &str, options: &StoreOptions) -> Result<Place> {
        if !S3::is_location(location) {
            let root = local_path(location)?;
            return Ok(Place { root, store: Store::Local });
        }
        let (location, options) = (location.to_owned(), options.s3.clone());
        let s3 = background::wait(async move { S3::connect(&location, &options).await })?;
        let retention = LockTerm::new(s3.asked());
        Ok(Place { root: s3.root().to_owned(), store: Store::S3(Bucket { s3, retention }) })
    }

    fn manifest_path(&self) -> PathBuf {
        self.root.join(layout::MANIFEST)
    }

    fn manifest(&self) -> Result<Option<Bytes>> {
        let (store, path) = (self.store.clone(), self.manifest_path());
        background::wait(async move {
            store.read(&path).await.map_err(|source| ArchiveError::ReadManifest { path, source })
        })
    }

    /// Returns the manifest as it was written, if a delete marker hides it.
    fn hidden_manifest(&self) -> Result<Option<Bytes>> {
        let (Store::S3(bucket), None) = (&self.store, self.manifest()?) else { return Ok(None) };
        let (s3, path) = (bucket.s3.clone(), self.manifest_path());
        let bytes_max = layout::bytes_max(&path);
        background::wait(async move {
            let read = async {
                let Some(version) = s3.oldest_version(&path).await? else { return Ok(None) };
                s3.get_part(&path, Some(&version), None, bytes_max).await.map(|part| Some(part.bytes))
            };
            read.await.map_err(|failure: S3Error| ArchiveError::ReadManifest {
                path: path.clone(),
                source: failure.into(),
            })
        })
    }

    pub(crate) fn is_archive(&self) -> Result<bool> {
        Ok(self.manifest()?.is_some())
    }

    pub(crate) fn open(self) -> Result<Archive> {
        match self.manifest()? {
            Some(text) => self.open_with_manifest(text),
            None if self.hidden_manifest()?.is_some() => {
                Err(ArchiveError::ManifestHidden { root: self.root })
            }
            None => Err(ArchiveError::NotAnArchive { root: self.root }),
        }
    }

    fn open_with_manifest(self, text: Bytes) -> Result<Archive> {
        let path = self.manifest_path();
        let damaged = |source| ArchiveError::ParseManifest { path: path.clone(), source };
        let ManifestFormat { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if format != ARCHIVE_FORMAT {
            return Err(ArchiveError::FormatUnknown { path, found: format, known: ARCHIVE_FORMAT });
        }
        let manifest: Manifest = serde_json::from_slice(&text).map_err(damaged)?;
        let (root, store) = match self.store {
            Store::Local => {
                // Symbolic links are resolved once, because Delta compares paths as text.
                let root = self.root.canonicalize();
                (root.map_err(|source| ArchiveError::ReadManifest { path, source })?, Store::Local)
            }
            Store::S3(Bucket { s3, retention }) => {
                let years = manifest.retention_years.unwrap_or(0).min(RETENTION_YEARS_MAX);
                let made_with = Retention { mode: manifest.lock_mode.unwrap_or(retention.now().mode), years };
                let retention = LockTerm::new(retention.now().at_least(made_with));
                (self.root, Store::S3(Bucket { s3, retention }))
            }
        };
        let made_with_years =
            manifest.retention_years.unwrap_or(RETENTION_YEARS_DEFAULT).min(RETENTION_YEARS_MAX);
        let site = Site { store, root, archive_id: manifest.archive_id, made_with_years, signer: None };
        policy::refresh_blocking(&site)?;
        Ok(Archive { site })
    }

    pub(crate) fn create(&self, public_key: Option<PublicKey>) -> Result<()> {
        let names = match &self.store {
            Store::Local => {
                durable::create_folder(&self.root)?;
                durable::names(&self.root)?
            }
            Store::S3(_) => {
                let (store, root) = (self.store.clone(), self.root.clone());
                let names = background::wait(async move { store.names(&root).await })?;
                names.into_iter().map(Into::into).collect()
            }
        };
        let ours =
            |name: &OsString| name == layout::MANIFEST || name == layout::PROBE || layout::is_furniture(name);
        if !names.iter().all(ours) {
            return Err(ArchiveError::NotEmpty { root: self.root.clone() });
        }
        let retention = match &self.store {
            Store::Local => None,
            Store::S3(bucket) => Some(bucket.retention.now()),
        };
        let manifest = Manifest {
            format: ARCHIVE_FORMAT,
            archive_id: random_id()?,
            created: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
            retention_years: retention.map(|retention| retention.years),
            lock_mode: retention.map(|retention| retention.mode),
            public_key: public_key.map(|key| key.vkey(NAME_DEFAULT)),
        };
        let path = self.manifest_path();
        let failed = |source| ArchiveError::WriteManifest { path: path.clone(), source };
        let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let (store, to) = (self.store.clone(), path.clone());
        // If another process was faster, the archive keeps the identity that the other one gave it.
        background::wait_io(async move { store.put_once(&to, text.into()).await }).map_err(failed)?;
        Ok(())
    }
}

fn local_path(location: &str) -> Result<PathBuf> {
    let invalid = || ArchiveError::from(StoreError::LocationInvalid { location: location.to_owned() });
    let path = match location.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("file") => {
            Url::parse(location).map_err(|_| invalid())?.to_file_path().map_err(|()| invalid())?
        }
        Some(_) => return Err(ArchiveError::LocationScheme { location: location.to_owned() }),
        None => PathBuf::from(location),
    };
    std::path::absolute(path).map_err(|_| invalid())
}
