//! `strongroom sql`

use crate::exit::{self, CliError};

/// Ask the archive interactively.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<u8, CliError> {
    Ok(exit::OK)
}
