//! Why one input was not read to its end. The run continues with the next one.

use std::path::PathBuf;

use strongroom_archive::ArchiveError;
use strongroom_decode::stream::StreamError;
use thiserror::Error;

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
    Stream(#[from] StreamError),
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
