//! Signals that would end the process without a word.
//!
//! Invariant: a write that the system refuses is an error of that write, which names its file. Where
//! the kernel also sends a signal, the signal is caught and has no effect.

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// `SIGXFSZ` on every system that we build for: a file would become longer than `ulimit -f` says.
const FILE_SIZE_EXCEEDED: SignalKind = SignalKind::from_raw(25);

/// Makes a write beyond the limit of file sizes an error. If the signal cannot be caught, it ends the
/// process as before.
pub fn catch_file_size_exceeded() {
    let Ok(runtime) = Builder::new_current_thread().enable_io().build() else { return };
    let _entered = runtime.enter();
    // What is registered stays registered when the runtime is gone.
    let _ = signal(FILE_SIZE_EXCEEDED);
}
