//! Bounds the freed memory that stays in the process.
//!
//! Ingest frees and takes buffers of many megabytes for every block. If freed pages stay in the
//! process for long, they add up: rules keep small pieces of memory between the large ones.
//! Measured on 1.2 GB of log with all rules, the peak is 0.91 GB if freed pages are never given
//! back to the system, 0.79 GB if they are given back after a second, and 0.68 GB after 10
//! milliseconds. But the system has to clear a page that was given back before it is used again, so
//! a delay of 10 milliseconds costs 4 % more CPU time than a delay of a second. The allocator reads
//! the delay only from an environment variable, before `main`. So the process sets the variable and
//! replaces itself with the same program (`exec`), which keeps the process id, the arguments and
//! the open files.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The environment variable for the time after which the allocator gives freed pages back.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";
/// The value of that variable.
const PURGE_DELAY_MILLISECONDS: &str = "1000";

/// Starts the process again with [`PURGE_DELAY`] set. Returns if the environment sets the variable
/// already, or if the start fails. A failure is not reported, because only the peak of memory
/// depends on the variable.
pub fn give_pages_back() {
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
    let _error = command.args(arguments).env(PURGE_DELAY, PURGE_DELAY_MILLISECONDS).exec();
}
