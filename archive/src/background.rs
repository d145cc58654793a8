//! Where the Delta library's asynchronous code and all requests to object stores run.
//!
//! Invariant: it runs on this module's threads, never on the caller's. So the archive can be used from
//! plain threads and inside any async runtime, and never blocks or nests one.

use std::future::Future;
use std::io;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::error::{ArchiveError, Result};

/// Reading a log is a few small files; two threads let a reader wait inside another, and two more carry objects.
const THREADS: usize = 4;

fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<JoinHandle<T>> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("strongroom-delta")
            .enable_all()
            .build()
            .ok()
    });
    runtime.as_ref().map(|runtime| runtime.spawn(future)).ok_or(ArchiveError::Background)
}

/// Runs `future` and blocks this thread until it is done.
pub(crate) fn wait<T: Send + 'static>(future: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    spawn(async move {
        // A receiver that is gone has nobody to tell.
        let _ = sender.send(future.await);
    })?;
    receiver.recv().map_err(|_| ArchiveError::Background)?
}

/// Runs `future`, for async callers.
pub(crate) async fn run<T: Send + 'static>(
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    spawn(future)?.await.map_err(|_| ArchiveError::Background)?
}

/// Runs `future`, for async callers that read bytes.
pub(crate) async fn io<T: Send + 'static>(
    future: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    spawn(future).map_err(io::Error::other)?.await.map_err(io::Error::other)?
}

/// Runs `future` and blocks this thread until it is done, for callers that read bytes.
pub(crate) fn wait_io<T: Send + 'static>(
    future: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    wait(async move { Ok(future.await) }).map_err(io::Error::other)?
}

/// Starts `future`; its outcome is for [`join`].
pub(crate) fn start<T: Send + 'static>(
    future: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    spawn(future)
}

/// Blocks this thread until what was started is done.
pub(crate) fn join<T: Send + 'static>(handle: JoinHandle<Result<T>>) -> Result<T> {
    wait(async move { handle.await.map_err(|_| ArchiveError::Background)? })
}
