//! The runtime on which asynchronous code and all requests to object stores run.
//!
//! Invariant: a future passed to this module runs on this module's threads, never on the caller's.
//! So an archive can be used from plain threads and inside any async runtime: no request runs on
//! the caller's runtime, and no second runtime is started inside it.
//!
//! Futures are boxed. Without the box, the compiler would generate the runtime's task and the
//! channel once for each of some forty callers, which was a quarter of the crate's code.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::error::{Result, StoreError};

/// Two threads are enough to read the few small files of a log, even if one read waits for another
/// read. The other two threads transfer objects.
const THREADS: usize = 4;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;
/// The place in which a job leaves its outcome.
type Slot<T> = Arc<Mutex<Option<T>>>;

fn spawn(job: Job) -> Result<JoinHandle<()>> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("strongroom-store")
            .enable_all()
            .build()
            .ok()
    });
    runtime.as_ref().map(|runtime| runtime.spawn(job)).ok_or(StoreError::Background)
}

/// Like [`spawn`], but the returned receiver gets a message when the job is done, for callers that
/// are not asynchronous.
fn spawn_signalled(job: Job) -> Result<Receiver<()>> {
    let (sender, receiver) = sync_channel(1);
    let job: Job = Box::pin(async move {
        job.await;
        // If the receiver was dropped, no one is waiting.
        let _ = sender.send(());
    });
    spawn(job).map(|_| receiver)
}

fn job<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> (Slot<T>, Job) {
    let slot: Slot<T> = Arc::new(Mutex::new(None));
    let filled = Arc::clone(&slot);
    let job = async move {
        let outcome = future.await;
        *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    };
    (slot, Box::pin(job))
}

/// Returns the outcome of a job; an error if it ended in a panic.
fn outcome<T, E: From<StoreError>>(slot: &Slot<Result<T, E>>) -> Result<T, E> {
    let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    taken.unwrap_or_else(|| Err(StoreError::Background.into()))
}

/// Runs `future` and blocks this thread until it is done.
pub fn wait<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    future: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    join(start(future)?)
}

/// Runs `future`, for async callers.
pub async fn run<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    future: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    let (slot, job) = job(future);
    spawn(job)?.await.map_err(|_| StoreError::Background)?;
    outcome(&slot)
}

/// Runs `future`, for async callers that read bytes.
pub async fn io<T: Send + 'static>(
    future: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    run(async move { Ok::<_, StoreError>(future.await) }).await.map_err(io::Error::other)?
}

/// Runs `future` and blocks this thread until it is done, for callers that read bytes.
pub fn wait_io<T: Send + 'static>(
    future: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    wait(async move { Ok::<_, StoreError>(future.await) }).map_err(io::Error::other)?
}

/// A started future; [`join`] returns its outcome.
pub struct Task<T, E> {
    slot: Slot<Result<T, E>>,
    done: Receiver<()>,
}

impl<T, E> std::fmt::Debug for Task<T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

/// Starts `future`; [`join`] returns its outcome.
pub fn start<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    future: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<Task<T, E>, StoreError> {
    let (slot, job) = job(future);
    Ok(Task { slot, done: spawn_signalled(job)? })
}

/// Blocks this thread until the started future is done.
pub fn join<T, E: From<StoreError>>(task: Task<T, E>) -> Result<T, E> {
    task.done.recv().map_err(|_| StoreError::Background)?;
    outcome(&task.slot)
}
