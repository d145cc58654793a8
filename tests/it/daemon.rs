//! Helpers for tests that start a `strongroom run` and stop, kill or question it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::run::strongroom;

/// How long a test waits for an event that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `ready` returns true.
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running daemon. It is killed when this is dropped.
pub struct Daemon {
    child: Child,
    /// Lines of its log so far.
    log: Arc<Mutex<Vec<String>>>,
    /// Threads that end with the daemon's pipes.
    readers: [JoinHandle<()>; 2],
    /// Alerts so far, with their time of arrival.
    pub alerts: Arc<Mutex<Vec<(Instant, String)>>>,
}

/// Starts a thread that reads one of the daemon's pipes until the pipe ends.
fn reader(name: &str, read: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(read).expect("a thread")
}

/// Writes a configuration with `[archive]`, `[observe]` and then `rest`, and returns its path.
pub fn config(folder: &Path, archive: &str, rest: &str) -> PathBuf {
    let path = folder.join("strongroom.toml");
    let text = format!("[archive]\nlocation = '{archive}'\n[observe]\nlisten = '127.0.0.1:0'\n{rest}");
    std::fs::write(&path, text).expect("a file in a temporary folder");
    path
}

impl Daemon {
    pub fn start(config: &Path) -> Daemon {
        let mut command = strongroom();
        command.args(["run", "--config"]).arg(config);
        Daemon::spawn(command)
    }

    pub fn spawn(mut command: Command) -> Daemon {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (log, alerts) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (err, out) = (child.stderr.take().expect("piped"), child.stdout.take().expect("piped"));
        let to = Arc::clone(&log);
        let read = move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                to.lock().expect("no panic holds it").push(line);
            }
        };
        let log_reader = reader("log", read);
        let to = Arc::clone(&alerts);
        let read = move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                to.lock().expect("no panic holds it").push((Instant::now(), line));
            }
        };
        let readers = [log_reader, reader("alerts", read)];
        Daemon { child, log, readers, alerts }
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("no panic holds it").join("\n")
    }

    /// Waits until the daemon has logged the address of its metrics, and returns the address.
    pub fn address(&mut self) -> String {
        let mut address = None;
        wait_until("the daemon tells its address", || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("ended with {status}:\n{}", self.log());
            }
            let log = self.log();
            address = log
                .lines()
                .find(|line| line.contains("metrics and health are served"))
                .and_then(|line| line.split("address=").nth(1))
                .map(|rest| rest.split_whitespace().next().unwrap_or(rest).to_owned());
            address.is_some()
        });
        address.expect("waited for")
    }

    pub fn get(&mut self, path: &str) -> (u16, String) {
        let address = self.address();
        get(&address, path, "")
    }

    /// Returns the value of the metric whose name and labels are `name`.
    pub fn metric(&mut self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("strongroom_{name} ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    }

    pub fn wait_for_metric(&mut self, name: &str, value: f64) {
        let mut last = 0.0;
        let until = Instant::now() + PATIENCE;
        while last != value {
            last = self.metric(name);
            assert!(Instant::now() < until, "{name} is {last}, not {value}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        assert!(status.expect("kill starts").success());
    }

    /// Sends SIGTERM, and waits for the process to end.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        self.signal("-TERM");
        let status = self.wait();
        (status, self.log())
    }

    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                // The last lines of its log may still be in the pipes. This wait has an end,
                // because processes that the daemon started may keep the pipes open for longer.
                while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(2));
                }
                return status;
            }
            assert!(Instant::now() < until, "does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("the process ends");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Shown with the test's own output.
            let _ = writeln!(std::io::stderr(), "--- log of the daemon\n{}", self.log());
        }
    }
}

/// Sends a GET request by HTTP/1.1, and returns the status and the body of the answer.
pub fn get(address: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
