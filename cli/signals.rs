//! Catches a signal that would end the process without a message.
//!
//! Invariant: if the system refuses a write, the result is an error that names the file. If the
//! kernel also sends a signal, the signal is caught and has no other effect.

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// `SIGXFSZ` on every system that we build for: a file would become longer than `ulimit -f` says.
const FILE_SIZE_EXCEEDED: SignalKind = SignalKind::from_raw(25);

/// Makes a write beyond the limit on file sizes an error. If this function cannot catch the signal,
/// the signal still ends the process.
pub fn catch_file_size_exceeded() {
    let Ok(runtime) = Builder::new_current_thread().enable_io().build() else { return };
    let _entered = runtime.enter();
    // The handler stays registered after the runtime is dropped.
    let _ = signal(FILE_SIZE_EXCEEDED);
}
