//! A proxy between clients and a Kafka broker that cuts connections at chosen moments, in a fixed
//! rhythm.
//!
//! It knows only a small part of the protocol: that frames start with their length, where the kind
//! of a request is, and that a broker answers requests in order. It either passes an answer on or
//! cuts the connection. Which of these it does depends on the kind of the request and on how many
//! answers of this kind have come so far, over all connections:
//!
//! - fetches that bring messages: it passes on half of the first answer, then cuts; the second
//!   answer passes; in place of the third it cuts; the fourth passes; and so on;
//! - commits of a group's offsets: in place of every other answer it cuts, so that the client
//!   cannot know whether the broker has the commit;
//! - requests for the ends of a log: in place of every fifth answer it cuts.
//!
//! All other answers pass. Nothing depends on time, and a retry gets the next action in the list.
//! In addition, the broker can be [away](Cuts::away): every connection is cut, and every client is
//! turned away, until it is back. All of this happens only to clients with our client name. Others,
//! such as the producers of the tests, see a broker without faults, because what a broker does with
//! a producer that has lost its connection is not under test.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Longest request or answer.
const FRAME_BYTES_MAX: usize = 128 << 20;
/// The name that our clients send as their client name.
const OURS: &[u8] = b"strongroom";
/// Longest answer to a fetch that has no messages: some 60 bytes for each of 4 partitions.
const EMPTY_FETCH_BYTES_MAX: usize = 512;

/// The numbers of three kinds of requests in Kafka's protocol.
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const OFFSET_COMMIT: i16 = 8;

pub struct Cuts {
    pub port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What has been cut so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Clients that came while the broker was away.
    pub knocks: u64,
    /// Fetches whose answer arrived only in part.
    pub torn: u64,
    /// Fetches whose answer did not arrive.
    pub lost: u64,
    pub commits: u64,
    pub logs: u64,
}

#[derive(Default)]
struct Shared {
    upstream: u16,
    is_away: AtomicBool,
    is_over: AtomicBool,
    fetches: Turns,
    commits: Turns,
    logs: Turns,
    knocks: AtomicU64,
    torn: AtomicU64,
    lost: AtomicU64,
    commits_cut: AtomicU64,
    logs_cut: AtomicU64,
    /// Both sides of every connection that may be open.
    open: Mutex<Vec<Connection>>,
}

/// One side of a connection.
struct Connection {
    is_ours: bool,
    stream: TcpStream,
}

#[derive(Default)]
struct Turns(AtomicU64);

impl Turns {
    fn next(&self, of: u64) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) % of
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Half,
    Nothing,
}

impl Cuts {
    /// Listens for clients of the broker that will listen on the port `upstream`.
    pub fn before(upstream: u16) -> Cuts {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared { upstream, ..Shared::default() });
        let accepting = Arc::clone(&shared);
        let accept = move || {
            for client in listener.incoming().flatten() {
                if accepting.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                let requests = std::thread::Builder::new().name("requests".to_owned()).spawn(move || {
                    // Whichever side ends the conversation, both are closed.
                    let _ = serve(&client, &shared);
                    cut(&client);
                });
                drop(requests.expect("a thread"));
            }
        };
        let thread = std::thread::Builder::new().name("cuts".to_owned()).spawn(accept).expect("a thread");
        Cuts { port, shared, thread: Some(thread) }
    }

    /// Makes the broker seem to be away from now on.
    pub fn away(&self) {
        self.shared.is_away.store(true, Ordering::SeqCst);
        self.shared.cut(|connection| connection.is_ours);
    }

    /// Makes the broker reachable again.
    pub fn back(&self) {
        self.shared.is_away.store(false, Ordering::SeqCst);
    }

    pub fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let shared = &self.shared;
        Counts {
            knocks: of(&shared.knocks),
            torn: of(&shared.torn),
            lost: of(&shared.lost),
            commits: of(&shared.commits_cut),
            logs: of(&shared.logs_cut),
        }
    }
}

impl Drop for Cuts {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.cut(|_| true);
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn cut(&self, which: impl Fn(&Connection) -> bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in open.extract_if(.., |connection| which(connection)) {
            cut(&connection.stream);
        }
    }

    fn fate(&self, kind: i16, bytes: usize) -> Fate {
        let (fate, count) = match kind {
            FETCH if bytes > EMPTY_FETCH_BYTES_MAX => match self.fetches.next(4) {
                0 => (Fate::Half, &self.torn),
                2 => (Fate::Nothing, &self.lost),
                _ => return Fate::Pass,
            },
            OFFSET_COMMIT if self.commits.next(2) == 0 => (Fate::Nothing, &self.commits_cut),
            LIST_OFFSETS if self.logs.next(5) == 1 => (Fate::Nothing, &self.logs_cut),
            _ => return Fate::Pass,
        };
        count.fetch_add(1, Ordering::Relaxed);
        fate
    }
}

fn cut(stream: &TcpStream) {
    // The other side may have closed first.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Connects a client to the broker, and passes frames on until one side ends the connection.
/// Another thread passes on the answers.
fn serve(client: &TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let first = read_frame(client)?;
    let is_ours = client_of(&first) == Some(OURS);
    if is_ours && shared.is_away.load(Ordering::SeqCst) {
        shared.knocks.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream))?;
    for stream in [client, &broker] {
        stream.set_nodelay(true)?;
    }
    {
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend([
            Connection { is_ours, stream: client.try_clone()? },
            Connection { is_ours, stream: broker.try_clone()? },
        ]);
    }
    // The broker went away while this connection was being made, so it was not cut with the others.
    if is_ours && shared.is_away.load(Ordering::SeqCst) {
        cut(&broker);
        return Ok(());
    }
    // The kinds of requests that wait for their answers.
    let asked = Arc::<Mutex<VecDeque<i16>>>::default();
    let answers = {
        let (from, to, asked, shared) =
            (broker.try_clone()?, client.try_clone()?, Arc::clone(&asked), Arc::clone(shared));
        move || {
            let _ = pass_answers(&from, &to, &asked, is_ours.then_some(&*shared));
            cut(&from);
            cut(&to);
        }
    };
    std::thread::Builder::new().name("answers".to_owned()).spawn(answers)?;
    let ended = pass_requests(first, client, &broker, &asked);
    cut(&broker);
    ended
}

/// Returns the client name in a request. It comes after the request's length, kind, version and
/// number.
fn client_of(frame: &[u8]) -> Option<&[u8]> {
    let (length, rest) = frame.get(12..)?.split_first_chunk::<2>()?;
    rest.get(..usize::try_from(i16::from_be_bytes(*length)).ok()?)
}

/// Reads a frame, and returns it with the length that precedes it.
fn read_frame(mut from: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if bytes > FRAME_BYTES_MAX {
        return Err(io::Error::other("a frame without bounds"));
    }
    let mut frame = vec![0; 4 + bytes];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn pass_requests(
    first: Vec<u8>,
    from: &TcpStream,
    mut to: &TcpStream,
    asked: &Mutex<VecDeque<i16>>,
) -> io::Result<()> {
    let mut frame = first;
    loop {
        let kind = frame.get(4..6).map_or(-1, |kind| i16::from_be_bytes([kind[0], kind[1]]));
        asked.lock().unwrap_or_else(PoisonError::into_inner).push_back(kind);
        to.write_all(&frame)?;
        frame = read_frame(from)?;
    }
}

/// Passes answers on, or cuts the connection where that is due.
fn pass_answers(
    from: &TcpStream,
    mut to: &TcpStream,
    asked: &Mutex<VecDeque<i16>>,
    faults: Option<&Shared>,
) -> io::Result<()> {
    loop {
        let frame = read_frame(from)?;
        let kind = asked.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(-1);
        match faults.map_or(Fate::Pass, |faults| faults.fate(kind, frame.len())) {
            Fate::Pass => to.write_all(&frame)?,
            Fate::Half => return to.write_all(&frame[..frame.len() / 2]),
            Fate::Nothing => return Ok(()),
        }
    }
}
