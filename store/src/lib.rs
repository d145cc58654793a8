//! The store of an archive: a folder on a local disk or a prefix of a bucket, with the same
//! operations for both.
//!
//! Invariant, for both: a file appears under its name whole or not at all, a file that has appeared
//! is durable, and a name that is taken never gets other content. A [`Store`] cannot remove or
//! replace anything.
//!
//! Names are paths below the archive's root. The root of a bucket is written `s3://bucket/prefix`,
//! so messages show names in the form that other tools accept. [`Store`] is an enum and not a
//! trait, because callers must see the difference between the two kinds: a disk has a lock file for
//! its one writer, and a bucket has a retention lock on every object.

pub mod background;
pub mod durable;
pub mod error;
pub mod id;
pub mod layout;
pub mod lock_term;
pub mod options;
pub mod s3;
pub mod s3_error;

use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::{Buf as _, Bytes};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use self::durable::read_only;
use self::error::{Result, StoreError};
use self::id::random_id;
use self::lock_term::LockTerm;
use self::s3::{Content, Put, S3};

/// The store of one archive. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Store {
    Local,
    S3(Bucket),
}

/// A prefix of a bucket, and the lock that every new object below it gets.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub s3: S3,
    pub retention: LockTerm,
}

impl Store {
    /// Returns the names directly below a folder; empty if the folder does not exist.
    pub async fn names(&self, folder: &Path) -> Result<Vec<String>> {
        match self {
            Store::Local => {
                let names = durable::names(folder)?;
                Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
            }
            Store::S3(bucket) => bucket.s3.names(folder).await.map_err(|failure| StoreError::ListFolder {
                path: folder.to_owned(),
                source: failure.into(),
            }),
        }
    }

    /// Like [`Store::names`], but for a folder from which nothing may disappear. In a bucket, this
    /// lists all versions of the objects, because a single plain DELETE or PUT hides a sealed
    /// object from an ordinary listing.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if an object whose name `is_ours` accepts has a delete marker, or
    /// has versions with other content than the one that was put.
    pub async fn names_unchanged(&self, folder: &Path, is_ours: fn(&str) -> bool) -> Result<Vec<String>> {
        let Store::S3(bucket) = self else { return self.names(folder).await };
        let listed = bucket.s3.names_and_changes(folder, is_ours).await;
        let (names, changed) = listed
            .map_err(|failure| StoreError::ListFolder { path: folder.to_owned(), source: failure.into() })?;
        match changed {
            Some((name, how)) => Err(StoreError::Changed { path: folder.join(name), how }),
            None => Ok(names),
        }
    }

    /// Like [`Store::names`], but without the names before `from` in byte order, which a bucket
    /// does not even list. `from` must be a prefix of the first wanted name and not the whole name,
    /// because a bucket leaves out a name that is equal to `from`.
    pub async fn names_from(&self, folder: &Path, from: &str) -> Result<Vec<String>> {
        match self {
            Store::Local => {
                let mut names = self.names(folder).await?;
                names.retain(|name| name.as_str() >= from);
                Ok(names)
            }
            Store::S3(bucket) => bucket.s3.names_from(folder, Some(from)).await.map_err(|failure| {
                StoreError::ListFolder { path: folder.to_owned(), source: failure.into() }
            }),
        }
    }

    /// Reads a small file whole; `None` if it does not exist. A file that exceeds the maximum size
    /// of its kind is refused before memory is allocated for it.
    pub async fn read(&self, path: &Path) -> io::Result<Option<Bytes>> {
        let bytes_max = layout::bytes_max(path);
        match self {
            Store::Local => match open_file(path).and_then(|file| {
                let length = file.metadata()?.len();
                if length > bytes_max {
                    return Err(too_large(length, bytes_max));
                }
                let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
                file.take(bytes_max).read_to_end(&mut bytes).map(|_| bytes)
            }) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            Store::S3(bucket) => Ok(bucket.s3.get(path, bytes_max).await?),
        }
    }

    /// Like [`Store::read`], but for a file that must exist.
    pub async fn read_present(&self, path: &Path) -> io::Result<Bytes> {
        self.read(path).await?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Whether a file of this name exists.
    pub async fn exists(&self, path: &Path) -> io::Result<bool> {
        match self {
            Store::Local => path.try_exists(),
            Store::S3(bucket) => match bucket.s3.head(path, None).await {
                Ok(_) => Ok(true),
                Err(failure) if failure.is_missing() => Ok(false),
                Err(failure) => Err(failure.into()),
            },
        }
    }

    /// Creates a small file with all of its bytes; `false` if the name is taken.
    pub async fn put_once(&self, path: &Path, bytes: Bytes) -> io::Result<bool> {
        match self {
            Store::Local => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let staging =
                    path.with_file_name(format!(".{name}.{}", random_id().map_err(io::Error::other)?));
                match durable::create_file(path, &staging, &[&bytes]) {
                    Ok(()) => read_only(path).map(|()| true),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                    // Another process has created the file first and has already started its
                    // writer, which removed our staging file.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => Ok(false),
                    Err(error) => Err(error),
                }
            }
            Store::S3(Bucket { s3, retention }) => {
                let put = s3.put(path, &Content::Bytes(bytes), s3.locked(retention.now())?).await?;
                Ok(matches!(put, Put::Done { .. }))
            }
        }
    }

    /// Like [`Store::put_once`], but for a part of a proof, whose folder need not exist.
    pub async fn put_proof(&self, path: &Path, bytes: Bytes) -> io::Result<bool> {
        if let (Store::Local, Some(folder)) = (self, path.parent()) {
            durable::create_folder(folder).map_err(io::Error::other)?;
        }
        self.put_once(path, bytes).await
    }

    /// Returns a sealed file, to be read in parts.
    pub fn contents(&self, path: &Path, bytes: u64, version: Option<&str>) -> Contents {
        let place = match self {
            Store::Local => Place::Local,
            Store::S3(bucket) => Place::S3(bucket.s3.clone(), version.map(str::to_owned)),
        };
        Contents { path: path.to_owned(), bytes, place }
    }
}

fn too_large(length: u64, bytes_max: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("it has {length} bytes, and a file of this kind has at most {bytes_max}"),
    )
}

/// Opens a plain file, and refuses anything else: opening a pipe, for example, would block.
fn open_file(path: &Path) -> io::Result<std::fs::File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    std::fs::File::open(path)
}

/// The bytes of one sealed file, pinned to the version that its commit names.
#[derive(Clone, Debug)]
pub struct Contents {
    path: PathBuf,
    bytes: u64,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Local,
    S3(S3, Option<String>),
}

impl Contents {
    /// Returns the location of the file: a path, or `s3://…`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length in bytes, as stated by its commit.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the path of a file on a local disk, for callers that open the file themselves;
    /// `None` in a bucket.
    pub fn local(&self) -> Option<&Path> {
        matches!(self.place, Place::Local).then_some(self.path.as_path())
    }

    /// Reads several ranges and returns them in the order given. Ranges close to each other become
    /// one request to an object store. May be called inside any async runtime; cancel safe.
    ///
    /// # Errors
    /// Of kind `UnexpectedEof` for a range that ends after the end of the file, and `FileTooLarge` for
    /// ranges that are larger than a file can be; neither is requested.
    pub async fn read_ranges(&self, ranges: Vec<Range<u64>>) -> io::Result<Vec<Bytes>> {
        // A damaged footer may name any range. A range that ends after the end of the file is
        // refused before memory is allocated or a request is made for it.
        if ranges.iter().any(|range| range.start > range.end || range.end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let total = ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.end - range.start));
        if total > layout::FILE_BYTES_MAX {
            return Err(too_large(total, layout::FILE_BYTES_MAX));
        }
        match &self.place {
            Place::Local => {
                use std::os::unix::fs::FileExt as _;
                let file = open_file(&self.path)?;
                // A commit may say any length.
                let length = file.metadata()?.len();
                if ranges.iter().any(|range| range.end > length) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let read = ranges.into_iter().map(|range| {
                    let mut bytes = vec![0; (range.end - range.start) as usize];
                    file.read_exact_at(&mut bytes, range.start).map(|()| Bytes::from(bytes))
                });
                read.collect()
            }
            Place::S3(s3, version) => {
                let (s3, path, version) = (s3.clone(), self.path.clone(), version.clone());
                background::io(async move {
                    s3.read_ranges(&path, version.as_deref(), &ranges).await.map_err(Into::into)
                })
                .await
            }
        }
    }

    /// Reads one range; see [`Contents::read_ranges`].
    pub async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        Ok(self.read_ranges(vec![range]).await?.pop().unwrap_or_default())
    }

    /// Like [`Contents::read`], but blocks this thread.
    pub fn read_blocking(&self, range: Range<u64>) -> io::Result<Bytes> {
        let contents = self.clone();
        background::wait_io(async move { contents.read(range).await })
    }
}

/// A part of a file, in memory. It is read at offsets in the whole file.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Offset in the file of the first byte of `bytes`.
    pub start: u64,
    pub bytes: Bytes,
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Fetched {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let from = start.checked_sub(self.start).filter(|from| *from <= self.bytes.len() as u64);
        let from = from.ok_or_else(|| ParquetError::EOF(format!("byte {start} was not fetched")))?;
        Ok(self.bytes.slice(from as usize..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let from = start.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let range = from.and_then(|from| Some(from..from.checked_add(length)?));
        let range = range.filter(|range| range.end <= self.bytes.len());
        let missing = || ParquetError::EOF(format!("bytes from {start} on were not fetched"));
        Ok(self.bytes.slice(range.ok_or_else(missing)?))
    }
}
