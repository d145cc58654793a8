//! Errors that occur while one input is read.
//!
//! Invariant: none of them ends a run. The run continues with the next input.

use std::path::PathBuf;

use strongroom_archive::ArchiveError;
use strongroom_decode::stream::StreamError;
use thiserror::Error;

use super::formats::Format;

/// Why an input was not read to its end. The run continues with the next one.
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
    #[error("cannot compare {label} with a stream in the archive that may be the same one")]
    Compare {
        label: String,
        #[source]
        source: Box<CompareError>,
    },
    #[error(
        "{label} begins like a stream in the archive, so it must be read a second time to compare the two"
    )]
    PipeDiffers { label: String },
    #[error("{label} is not text: it is {}", format.name)]
    Format { label: String, format: Format },
    #[error("{label} begins with the same line as {tries} different streams in the archive")]
    TooManyAlike { label: String, tries: usize },
}

/// Why a comparison with the archive failed.
#[derive(Debug, Error)]
pub enum CompareError {
    #[error("the archive failed")]
    Archive(#[from] ArchiveError),
    #[error("the records in the archive cannot be written as a stream")]
    Stream(#[from] StreamError),
    #[error("a block of the file cannot be turned into columns")]
    Columns(#[source] arrow_schema::ArrowError),
}

impl FileError {
    pub fn hint(&self) -> &'static str {
        match self {
            FileError::Open { .. } => "on most clusters only root can read audit logs: check owner and mode",
            FileError::Read { .. } => {
                "what was read before is sealed; repair the file, which may be cut short, and run again"
            }
            FileError::Compare { .. } => {
                "this run added nothing from the file; run strongroom export to see what is wrong with the archive"
            }
            FileError::PipeDiffers { .. } => {
                "a pipe can be read only once: save the stream to a file and ingest that"
            }
            FileError::Format { format, .. } => format.remedy,
            FileError::TooManyAlike { .. } => "ingest such files under different cluster names",
        }
    }
}
