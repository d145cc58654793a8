//! `strongroom query`

use crate::exit::{self, CliError};

/// Answer one SQL statement over the archive.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<u8, CliError> {
    Ok(exit::OK)
}
