//! `strongroom demo`

use crate::exit::{self, CliError};

/// See the whole product work on a generated cluster with an attack hidden in it.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<u8, CliError> {
    Ok(exit::OK)
}
