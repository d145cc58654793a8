//! `strongroom ingest`

use crate::exit::{self, CliError};

/// Read audit logs, raise alerts, seal the events in the archive.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<u8, CliError> {
    Ok(exit::OK)
}
