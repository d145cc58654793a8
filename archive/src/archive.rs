//! An archive's root: what makes a folder an archive, and the way to its writer and its tables.
//!
//! Invariant: a folder is an archive when, and only when, it has a complete `strongroom.json` of a
//! format this program knows. The file is written once and linked into place whole, so two programs
//! that make an archive at once agree on one identity, and a crash leaves either none or all of it.

use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use strongroom_schemas::Table;
use strongroom_schemas::format::ARCHIVE_FORMAT;
use url::Url;

use crate::background;
use crate::durable;
use crate::error::{ArchiveError, Result};
use crate::layout;
use crate::lock::Lock;
use crate::position::Source;
use crate::read::{self, Rows};
use crate::snapshot::{self, Snapshot};
use crate::writer::{Writer, WriterOptions};

/// An archive on a local disk.
#[derive(Clone, Debug)]
pub struct Archive {
    root: PathBuf,
    manifest: Manifest,
}

/// `strongroom.json`. Fields that a later format adds are not for us to read: the format says so.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    archive_id: String,
    created: String,
}

/// The part of a manifest that every format has.
#[derive(Deserialize)]
struct ManifestFormat {
    format: u32,
}

impl Archive {
    /// Opens the archive at `location` (a path or a `file://` URL), or makes a new one there.
    ///
    /// # Errors
    /// [`ArchiveError::LocationScheme`] for other URLs, [`ArchiveError::NotEmpty`] for a folder with
    /// other files in it, [`ArchiveError::FormatUnknown`] and [`ArchiveError::ParseManifest`] for an
    /// archive that cannot be read.
    pub fn open_or_create(location: &str) -> Result<Archive> {
        let root = local_path(location)?;
        let path = root.join(layout::MANIFEST);
        if !path.exists() {
            create(&root, &path)?;
        }
        Archive::open(location)
    }

    /// Opens the archive at `location`; it must exist.
    pub fn open(location: &str) -> Result<Archive> {
        let root = local_path(location)?;
        let path = root.join(layout::MANIFEST);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ArchiveError::NotAnArchive { root });
            }
            Err(source) => return Err(ArchiveError::ReadManifest { path, source }),
        };
        let damaged = |source| ArchiveError::ParseManifest { path: path.clone(), source };
        let ManifestFormat { format } = serde_json::from_slice(&text).map_err(damaged)?;
        if format != ARCHIVE_FORMAT {
            return Err(ArchiveError::FormatUnknown { path, found: format, known: ARCHIVE_FORMAT });
        }
        let manifest = serde_json::from_slice(&text).map_err(damaged)?;
        // Symbolic links are resolved once: Delta compares paths as text.
        let root = root.canonicalize().map_err(|source| ArchiveError::ReadManifest { path, source })?;
        Ok(Archive { root, manifest })
    }

    /// Absolute path of the archive's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Identity given when the archive was made, a UUID.
    pub fn id(&self) -> &str {
        &self.manifest.archive_id
    }

    /// The one writer, waiting for as long as another process (or thread) holds it.
    pub fn writer(&self) -> Result<Writer> {
        self.writer_with(WriterOptions::default(), || {})
    }

    /// The one writer; calls `on_wait` once if another process holds it, then waits.
    pub fn writer_with(&self, options: WriterOptions, on_wait: impl FnOnce()) -> Result<Writer> {
        let lock = Lock::acquire(&self.root, on_wait)?;
        Writer::open(&self.root, options, lock)
    }

    /// The one writer, or `None` when another process holds it.
    pub fn try_writer(&self, options: WriterOptions) -> Result<Option<Writer>> {
        match Lock::try_acquire(&self.root)? {
            Some(lock) => Writer::open(&self.root, options, lock).map(Some),
            None => Ok(None),
        }
    }

    /// What `table` holds now. Blocks; may be called from any thread, also inside an async runtime.
    pub fn snapshot(&self, table: Table) -> Result<Snapshot> {
        background::wait(snapshot::load(self.root.clone(), table))
    }

    /// Whether `snapshot`, of this archive, still is what its table holds. Costs a look at some names.
    pub fn is_current(&self, snapshot: &Snapshot) -> bool {
        snapshot::is_current(&self.root, snapshot)
    }

    /// As [`Archive::snapshot`], for async callers.
    pub async fn snapshot_async(&self, table: Table) -> Result<Snapshot> {
        background::run(snapshot::load(self.root.clone(), table)).await
    }

    /// Source partitions in the order of their first commit, with the label and position of their last.
    /// Reads every commit of `events`; it is meant for export, not for queries.
    pub fn sources(&self) -> Result<Vec<Source>> {
        read::sources(&self.root)
    }

    /// Rows of one partition in `source_offset` order, as batches in `table.file_schema()`. Rows of one
    /// row group are held at a time, of all files that overlap in offsets.
    pub fn read_rows(&self, table: Table, partition: &str) -> Result<Rows> {
        Rows::of_partition(self.snapshot(table)?, partition)
    }

    /// Events with `stage_timestamp >= time_us`, in `Table::Events.file_schema()`: partitions in the order
    /// of their first commit, each in `source_offset` order. Row groups without such events are not read.
    pub fn events_since(&self, time_us: i64) -> Result<Rows> {
        let partitions = self.sources()?.into_iter().map(|source| source.partition).collect();
        Rows::since(self.snapshot(Table::Events)?, partitions, time_us)
    }
}

fn local_path(location: &str) -> Result<PathBuf> {
    let invalid = || ArchiveError::LocationInvalid { location: location.to_owned() };
    let path = match location.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("file") => {
            Url::parse(location).map_err(|_| invalid())?.to_file_path().map_err(|()| invalid())?
        }
        Some(_) => return Err(ArchiveError::LocationScheme { location: location.to_owned() }),
        None => PathBuf::from(location),
    };
    std::path::absolute(path).map_err(|_| invalid())
}

fn create(root: &Path, path: &Path) -> Result<()> {
    durable::create_folder(root)?;
    if layout::names(root)?.iter().any(|name| name != layout::MANIFEST && !layout::is_furniture(name)) {
        return Err(ArchiveError::NotEmpty { root: root.to_owned() });
    }
    let manifest = Manifest {
        format: ARCHIVE_FORMAT,
        archive_id: random_id(),
        created: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
    };
    let failed = |source| ArchiveError::WriteManifest { path: path.to_owned(), source };
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let staging = root.join(format!(".{}.{}", layout::MANIFEST, manifest.archive_id));
    match durable::create_file(path, &staging, &[&text]) {
        Ok(()) => read_only(path).map_err(failed),
        // Another process was faster: its identity holds.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        // So fast that its writer has already cleared our staging file away as a leftover.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.exists() => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Takes away the permission to write.
pub(crate) fn read_only(path: &Path) -> std::io::Result<()> {
    let mut permissions = std::fs::metadata(path)?.permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(path, permissions)
}

/// A random UUID. The standard library's only source of randomness is the seed of its hash maps.
fn random_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let mut hasher = blake3::Hasher::new();
    for round in 0..4u8 {
        hasher.update(&RandomState::new().hash_one(round).to_le_bytes());
    }
    hasher.update(&std::process::id().to_le_bytes());
    hasher.update(&Utc::now().timestamp_nanos_opt().unwrap_or_default().to_le_bytes());
    let hash = hasher.finalize();
    let bytes: [u8; 16] = hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes");
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
