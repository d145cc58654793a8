//! The folder of a pack while the pack is made.
//!
//! Invariant: the folder gets its final name only when all of its files are on disk. A run that
//! dies leaves a folder whose name says that it is not a pack.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use strongroom_schemas::record::Sha256Hash;
use tempfile::TempDir;

use super::error::EvidenceError;
use super::manifest::PackFile;

/// The folder of a pack, before it has its final name. Dropping this value removes the folder.
#[derive(Debug)]
pub struct PackFolder {
    partial: TempDir,
    out: PathBuf,
}

impl PackFolder {
    /// Creates a temporary folder beside `out`, the folder of the future pack. `out` must not
    /// exist, or must be an empty folder.
    ///
    /// # Errors
    /// If `out` cannot become a pack, or if the folder cannot be made.
    pub fn create(out: &Path) -> Result<PackFolder, EvidenceError> {
        match std::fs::read_dir(out) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(EvidenceError::OutNotEmpty { path: out.to_owned() });
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => return Err(EvidenceError::OutNotUsable { path: out.to_owned() }),
        }
        let Some(name) = out.file_name() else {
            return Err(EvidenceError::OutNotAName { path: out.to_owned() });
        };
        let prefix = format!(".{}.partial-", name.to_string_lossy());
        let folder = parent(out);
        let partial = tempfile::Builder::new()
            .prefix(&prefix)
            // Audit events name people and contain what these people sent, so only the owner may
            // read them.
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(folder)
            .map_err(|source| EvidenceError::MakeFolder { path: folder.to_owned(), source })?;
        Ok(PackFolder { partial, out: out.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Writes a file of the pack.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<PackFile, EvidenceError> {
        let path = self.path().join(name);
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(|source| EvidenceError::Write { path, source })?;
        let sha256 = Sha256Hash::of(bytes).to_string();
        Ok(PackFile { name: name.to_owned(), bytes: bytes.len() as u64, sha256 })
    }

    /// Syncs the folder, and then gives it its final name.
    pub(crate) fn publish(self) -> Result<(), EvidenceError> {
        for folder in ["proofs", "commits", "."] {
            let path = self.path().join(folder);
            if path.is_dir() {
                sync(&path)?;
            }
        }
        let PackFolder { partial, out } = self;
        // A rename replaces an empty folder with this name, and fails for anything else.
        std::fs::rename(partial.path(), &out)
            .map_err(|source| EvidenceError::Write { path: out.clone(), source })?;
        // The folder no longer exists under its temporary name, so it must not be removed on drop.
        let _ = partial.keep();
        sync(parent(&out))
    }
}

fn parent(out: &Path) -> &Path {
    out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(folder: &Path) -> Result<(), EvidenceError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| EvidenceError::Sync { path: folder.to_owned(), source })
}
