//! What can go wrong in a run, apart from undecodable lines, which are rows and no errors.

use std::path::PathBuf;

use strongroom_archive::ArchiveError;
use thiserror::Error;

use crate::export::ExportError;

#[derive(Debug, Error)]
pub enum IngestError {
    #[error("no such file: {}", path.display())]
    NoSuchFile { path: PathBuf },
    #[error("no file matches the pattern \"{pattern}\"")]
    NoMatch { pattern: String },
    #[error("the pattern \"{pattern}\" is not valid")]
    Pattern {
        pattern: String,
        #[source]
        source: glob::PatternError,
    },
    #[error("cannot list {}", path.display())]
    ListDirectory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} lies deeper than {depth_max} folders", path.display())]
    TooDeep { path: PathBuf, depth_max: usize },
    #[error("{} holds no log files", path.display())]
    NoLogFiles { path: PathBuf },
    #[error("standard input is named more than once")]
    StdinTwice,
    #[error("the archive failed")]
    Archive(#[from] ArchiveError),
    #[error("the rules cannot be applied to a block")]
    Match(#[from] strongroom_alerts::MatchError),
    #[error("a block of {label} at byte {offset} became no columns")]
    Columns {
        label: String,
        offset: i64,
        #[source]
        source: arrow_schema::ArrowError,
    },
    #[error("the alerts that are stored already cannot be told: their ids are no text")]
    AlertIds,
    #[error("decoding a block of {label} at byte {offset} ended in a panic, which is a bug")]
    WorkerPanicked { label: String, offset: i64 },
    #[error("{label} goes on at byte {found}, and not at byte {expected} where it stopped")]
    ChunkGap { label: String, expected: i64, found: i64 },
    #[error("the thread that reads ended in a panic, which is a bug")]
    WorkerLost,
}

impl IngestError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            IngestError::NoSuchFile { .. } | IngestError::NoMatch { .. } => {
                Some("name log files, directories of log files, quoted patterns, or - for standard input".to_owned())
            }
            IngestError::TooDeep { .. } => Some("name the deep folder itself, too".to_owned()),
            IngestError::NoLogFiles { .. } => {
                Some("a directory is searched for *.log, *.json, *.jsonl and *.ndjson, plain, rotated or compressed; name other files themselves".to_owned())
            }
            IngestError::Archive(error) if is_disk_full(error) => {
                Some("what was sealed stays; free some space and run the same command again, it goes on from there".to_owned())
            }
            IngestError::Archive(error) => error.hint().map(str::to_owned),
            IngestError::WorkerPanicked { .. } | IngestError::WorkerLost => {
                Some("what was sealed before is whole; please report the place named, without the log itself".to_owned())
            }
            _ => None,
        }
    }

    /// Whether what was asked for is at fault, and not a disk or the archive.
    pub fn is_input(&self) -> bool {
        match self {
            IngestError::NoSuchFile { .. }
            | IngestError::NoMatch { .. }
            | IngestError::Pattern { .. }
            | IngestError::TooDeep { .. }
            | IngestError::NoLogFiles { .. }
            | IngestError::StdinTwice => true,
            IngestError::Archive(error) => error.is_location(),
            _ => false,
        }
    }
}

fn is_disk_full(error: &ArchiveError) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source()).any(|error| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull)
    })
}

/// Why one file was not read to its end. The run goes on with the next one.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read {label} beyond byte {offset} of its content")]
    Read {
        label: String,
        offset: i64,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot compare {label} with the longer stream that the archive holds and that begins like it")]
    Compare {
        label: String,
        #[source]
        source: Box<CompareError>,
    },
    #[error(
        "{label} begins as a stream that is in the archive already, and must be read again to tell it from that"
    )]
    PipeDiffers { label: String },
    #[error("{label} begins with the same line as {tries} other files that differ")]
    TooManyAlike { label: String, tries: usize },
}

/// What the archive's side of a comparison can fail with.
#[derive(Debug, Error)]
pub enum CompareError {
    #[error("the archive failed")]
    Archive(#[from] ArchiveError),
    #[error("its records do not make a stream")]
    Export(#[from] ExportError),
}

impl FileError {
    pub fn hint(&self) -> &'static str {
        match self {
            FileError::Open { .. } => {
                "audit logs are readable by root alone on most clusters: check owner and mode"
            }
            FileError::Read { .. } => {
                "what was read before is sealed; mend the file (a cut-off archive?) and run again"
            }
            FileError::Compare { .. } => {
                "nothing of the file was taken; see what strongroom export says of the archive"
            }
            FileError::PipeDiffers { .. } => {
                "a pipe can be read once: save the stream to a file and ingest that"
            }
            FileError::TooManyAlike { .. } => "ingest such files under cluster names of their own",
        }
    }
}
