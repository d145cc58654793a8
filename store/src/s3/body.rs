//! The body of a PUT, read from a file that may no longer have a name.
//!
//! Invariant: each try reads the file from its first byte by position, never through the shared
//! cursor, so an abandoned try whose body is still being read cannot disturb the next one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Number of bytes that are read at once.
const CHUNK_BYTES: u64 = 256 << 10;

/// A file as the body of a request.
#[derive(Debug)]
pub struct FileBody {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl FileBody {
    /// The body of a PUT of the first `bytes` of a file.
    pub fn new(file: Arc<File>, bytes: u64) -> Self {
        FileBody { file, at: 0, end: bytes }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let length = CHUNK_BYTES.min(self.end - self.at) as usize;
        if length == 0 {
            return Poll::Ready(None);
        }
        let mut chunk = vec![0; length];
        // The file was written a moment ago, so its pages are in memory.
        let read = self.file.read_exact_at(&mut chunk, self.at);
        self.at += length as u64;
        Poll::Ready(Some(read.map(|()| Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}
