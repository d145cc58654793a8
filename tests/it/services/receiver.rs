//! A receiver of alerts: an HTTP server that keeps what it got and answers as configured.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::free_port;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Posted {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Posted {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// The status, the headers in addition to the usual ones, and the body.
pub type Answer = (u16, String, String);
type Say = dyn Fn(&Posted) -> Answer + Send + Sync;

/// A server that can be stopped and started again at the same port.
pub struct Receiver {
    pub address: SocketAddr,
    pub posted: Arc<Mutex<Vec<Posted>>>,
    say: Arc<Say>,
    keeps: bool,
    running: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Receiver {
    pub fn start(say: impl Fn(&Posted) -> Answer + Send + Sync + 'static) -> Receiver {
        Receiver::with(true, say)
    }

    /// Starts a server that keeps nothing of what it is sent.
    pub fn that_forgets(say: impl Fn(&Posted) -> Answer + Send + Sync + 'static) -> Receiver {
        Receiver::with(false, say)
    }

    fn with(keeps: bool, say: impl Fn(&Posted) -> Answer + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).expect("a port");
        let address = listener.local_addr().expect("its number");
        let mut receiver =
            Receiver { address, posted: Arc::default(), say: Arc::new(say), keeps, running: None };
        receiver.serve(listener);
        receiver
    }

    /// Starts a server that accepts everything.
    pub fn that_takes_all() -> Receiver {
        Receiver::start(|_| (200, String::new(), "ok".to_owned()))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn up(&mut self) {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) if std::time::Instant::now() > until => panic!("{}: {error}", self.address),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        self.serve(listener);
    }

    /// Closes the port and all connections.
    pub fn down(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.store(true, Ordering::Relaxed);
            thread.join().expect("it ends");
        }
    }

    fn serve(&mut self, listener: TcpListener) {
        let stop = Arc::new(AtomicBool::new(false));
        let posted = self.keeps.then(|| Arc::clone(&self.posted));
        let (say, stopped) = (Arc::clone(&self.say), Arc::clone(&stop));
        listener.set_nonblocking(true).expect("a setting");
        let thread = std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                let (posted, say, stopped) = (posted.clone(), Arc::clone(&say), Arc::clone(&stopped));
                let connection = std::thread::Builder::new().name("connection".to_owned());
                connection
                    .spawn(move || {
                        // A client that goes away ends its connection.
                        let _ = converse(&stream, posted.as_deref(), &*say, &stopped);
                    })
                    .expect("a thread");
            }
        });
        self.running = Some((stop, thread.expect("a thread")));
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.down();
    }
}

fn converse(
    stream: &TcpStream,
    posted: Option<&Mutex<Vec<Posted>>>,
    say: &Say,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut reader = BufReader::new(stream);
    loop {
        // Waits for the next request. If the server is stopped while it waits, the connection ends.
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            match reader.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(_) => break,
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Posted { path, headers, body: Vec::new() };
        let length: usize = request.header("content-length").parse().unwrap_or(0);
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body)?;
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (status, more, body) = say(&request);
        if let Some(posted) = posted {
            posted.lock().expect("no panic holds it").push(request);
        }
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{more}\r\n{body}", body.len());
        (&mut &*stream).write_all(answer.as_bytes())?;
    }
}
