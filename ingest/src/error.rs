//! What can go wrong in a run, apart from undecodable lines, which are rows and no errors.

use std::path::PathBuf;

use strongroom_archive::ArchiveError;
use thiserror::Error;

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
    #[error("a worker stopped without a result")]
    WorkerLost,
}

impl IngestError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            IngestError::NoSuchFile { .. } | IngestError::NoMatch { .. } => {
                Some("name log files, directories of log files, quoted patterns, or - for standard input".to_owned())
            }
            IngestError::NoLogFiles { .. } => {
                Some("a directory is searched for *.log, *.json, *.jsonl and *.ndjson, plain, rotated or compressed; name other files themselves".to_owned())
            }
            IngestError::Archive(error) => error.hint().map(str::to_owned),
            _ => None,
        }
    }

    /// Whether what was asked for is at fault, and not a disk or the archive.
    pub fn is_input(&self) -> bool {
        match self {
            IngestError::NoSuchFile { .. }
            | IngestError::NoMatch { .. }
            | IngestError::Pattern { .. }
            | IngestError::NoLogFiles { .. }
            | IngestError::StdinTwice => true,
            IngestError::Archive(error) => error.is_location(),
            _ => false,
        }
    }
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
    #[error("standard input begins as a stream that is in the archive already, and goes on otherwise")]
    StdinDiffers,
    #[error("{label} begins with the same line as {tries} other files that differ")]
    TooManyAlike { label: String, tries: usize },
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
            FileError::StdinDiffers => "save the stream to a file and ingest that",
            FileError::TooManyAlike { .. } => "ingest such files under cluster names of their own",
        }
    }
}
