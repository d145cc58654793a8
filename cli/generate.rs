//! `strongroom generate`

use crate::exit::{self, CliError};

/// Write a realistic audit log, the same for the same seed.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<u8, CliError> {
    Ok(exit::OK)
}
