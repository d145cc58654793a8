//! A pipe whose reader need not wait forever.
//!
//! Invariant: bytes come in order and once, and an error comes after the bytes before it. If `live`
//! or `stop` is set, silence ends a read after a tick, so that the reader can check the time and
//! whether to stop. Bytes of a pipe that were not sealed are lost in a crash.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

/// How often a silent pipe checks whether to stop.
const PIPE_TICK: Duration = Duration::from_millis(200);
const PIPE_CHUNK_BYTES: usize = 64 << 10;
/// Maximum number of chunks that are read ahead of their use.
const PIPE_CHUNKS_MAX: usize = 64;

/// A pipe that is read by a thread of its own, because the system's read can block forever. A read
/// from this type can be ended.
pub(super) struct Pipe {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
    /// While this is set, silence ends a read with the error [`io::ErrorKind::WouldBlock`].
    pub(super) live: Arc<AtomicBool>,
    /// Once this is set, silence counts as the end of the pipe.
    stop: Arc<AtomicBool>,
}

impl Pipe {
    pub(super) fn new(mut source: impl Read + Send + 'static, stop: &Arc<AtomicBool>) -> io::Result<Pipe> {
        let (sender, chunks) = bounded(PIPE_CHUNKS_MAX);
        // The thread ends with its pipe, with the process, or at the first chunk that nobody
        // receives.
        std::thread::Builder::new().name("pipe".to_owned()).spawn(move || {
            loop {
                let mut chunk = vec![0; PIPE_CHUNK_BYTES];
                let read = match source.read(&mut chunk) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(read) => {
                        chunk.truncate(read);
                        Ok(chunk)
                    }
                    Err(error) => Err(error),
                };
                let ends = read.as_ref().map_or(true, Vec::is_empty);
                if sender.send(read).is_err() || ends {
                    break;
                }
            }
        })?;
        let live = Arc::default();
        Ok(Pipe { chunks, chunk: Vec::new(), at: 0, live, stop: Arc::clone(stop) })
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.chunks.recv_timeout(PIPE_TICK) {
                Ok(chunk) => (self.chunk, self.at) = (chunk?, 0),
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Relaxed) => return Ok(0),
                Err(RecvTimeoutError::Timeout) if self.live.load(Ordering::Relaxed) => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
            if self.chunk.is_empty() {
                return Ok(0);
            }
        }
        let some = buffer.len().min(self.chunk.len() - self.at);
        buffer[..some].copy_from_slice(&self.chunk[self.at..self.at + some]);
        self.at += some;
        Ok(some)
    }
}
