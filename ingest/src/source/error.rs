//! Errors of reading one input.
//!
//! Invariant: none of them ends a run: it continues with the next input.

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
    #[error("cannot compare {label} with the longer stream in the archive that begins like it")]
    Compare {
        label: String,
        #[source]
        source: Box<CompareError>,
    },
    #[error("{label} begins like a stream that is in the archive, and must be read again to compare the two")]
    PipeDiffers { label: String },
    #[error("{label} is not text: it is {}", format.name)]
    Format { label: String, format: Format },
    #[error("{label} begins with the same line as {tries} different streams in the archive")]
    TooManyAlike { label: String, tries: usize },
}

/// Why the archive's side of a comparison failed.
#[derive(Debug, Error)]
pub enum CompareError {
    #[error("the archive failed")]
    Archive(#[from] ArchiveError),
    #[error("its records cannot be written as a stream")]
    Stream(#[from] StreamError),
    #[error("a block of the file cannot be turned into columns")]
    Columns(#[source] arrow_schema::ArrowError),
}

impl FileError {
    pub fn hint(&self) -> &'static str {
        match self {
            FileError::Open { .. } => "on most clusters only root can read audit logs: check owner and mode",
            FileError::Read { .. } => {
                "what was read before is sealed; repair the file (a truncated archive?) and run again"
            }
            FileError::Compare { .. } => {
                "nothing of the file was read; run strongroom export to see what is wrong with the archive"
            }
            FileError::PipeDiffers { .. } => {
                "a pipe can be read only once: save the stream to a file and ingest that"
            }
            FileError::Format { format, .. } => format.remedy,
            FileError::TooManyAlike { .. } => "ingest such files under different cluster names",
        }
    }
}
