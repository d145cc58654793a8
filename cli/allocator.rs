//! Memory of large blocks stays with the process.
//!
//! Ingest frees and takes buffers of many megabytes for every block. The allocator returns those to
//! the kernel, which clears each page before it hands the page out again: measured on 1.2 GB of
//! log, that is 1.8 s of system time beside 4.0 s of user time, against 0.3 s when the pages are
//! kept. The allocator reads this choice only from its environment, before `main`, so the process
//! starts itself once more with the variable set: same process id, same arguments, same open files.
//!
//! Memory stays bounded by the blocks in progress; what is kept is the peak, not a leak.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Milliseconds after which the allocator gives freed pages back; negative means never.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Starts the process again with pages kept, unless the environment has made the choice. Returns
/// when there is nothing to do, or when it cannot be done: only speed depends on it.
pub fn keep_pages() {
    if std::env::var_os(PURGE_DELAY).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let mut command = Command::new(program);
    if let Some(name) = name {
        command.arg0(name);
    }
    // On success this does not return.
    let _error = command.args(arguments).env(PURGE_DELAY, "-1").exec();
}
