//! A proxy between a client and an object store. It refuses requests and loses answers in a fixed
//! rhythm.
//!
//! Of every six PUT requests, it treats each one differently, in this order:
//!
//! 1. It refuses the request with 503, without passing it on.
//! 2. It passes the request on, but answers 500.
//! 3. It passes the request on, and returns the store's answer.
//! 4. It passes the request on, but sends no answer until the client has given up.
//! 5. It passes the request on, and returns the store's answer.
//! 6. It passes the request on, and closes the connection without an answer.
//!
//! Of the requests other than PUT, it refuses one in eleven with 503. So a writer meets every case
//! in which it cannot tell what the store has done.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Maximum length of the request line and the headers together.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// One in this many requests other than PUT is refused.
const OTHERS_REFUSED: u64 = 11;

pub struct Faults {
    pub port: u16,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    puts: AtomicU64,
    others: AtomicU64,
    /// Answers lost after the store had done its work.
    lost: AtomicU64,
    stop: AtomicBool,
}

impl Faults {
    /// Listens in front of the store on `upstream`. A client is left without an answer for
    /// `silence`.
    pub fn before(upstream: u16, silence: Duration) -> Faults {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        let accept = move || {
            for client in listener.incoming().flatten() {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let counts = Arc::clone(&shared);
                let served = std::thread::Builder::new().name("fault".to_owned()).spawn(move || {
                    // A client that went away gets no answer.
                    let _ = serve(client, upstream, silence, &counts);
                });
                drop(served.expect("a thread"));
            }
        };
        let thread = std::thread::Builder::new().name("faults".to_owned()).spawn(accept).expect("a thread");
        Faults { port, counts, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns how many answers were lost after the store had done its work.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves one request and closes the connection; the client connects again for the next request.
fn serve(client: TcpStream, upstream: u16, silence: Duration, counts: &Counts) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let header =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    if header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;

    let is_put = text.starts_with("put ");
    let turn = if is_put {
        counts.puts.fetch_add(1, Ordering::Relaxed) % 6
    } else {
        match counts.others.fetch_add(1, Ordering::Relaxed) % OTHERS_REFUSED {
            0 => 0,
            _ => 2,
        }
    };
    if turn == 0 {
        return client.write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let answer = forward(&head, &body, upstream)?;
    match turn {
        1 | 3 | 5 if answer.starts_with(b"HTTP/1.1 200") => counts.lost.fetch_add(1, Ordering::Relaxed),
        _ => 0,
    };
    match turn {
        1 => client.write_all(b"HTTP/1.1 500 Lost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        3 => {
            std::thread::sleep(silence);
            Ok(())
        }
        5 => Ok(()),
        _ => client.write_all(&answer),
    }
}

/// Passes a request on to the store, and returns the store's whole answer. The store is asked to
/// hang up after it.
fn forward(head: &[u8], body: &[u8], upstream: u16) -> io::Result<Vec<u8>> {
    let mut store = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    store.write_all(&head[..head.len() - 2])?;
    store.write_all(b"Connection: close\r\n\r\n")?;
    store.write_all(body)?;
    let mut answer = Vec::new();
    store.read_to_end(&mut answer)?;
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
    Ok(answer.strip_prefix(interim.as_slice()).map(<[u8]>::to_vec).unwrap_or(answer))
}
