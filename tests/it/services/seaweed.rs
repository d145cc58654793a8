//! Starts SeaweedFS, an object store with object lock, and stops it when no test needs it any more.
//!
//! Invariants: it listens only on 127.0.0.1, on ports of its own; it keeps everything in a
//! temporary folder; and it is stopped when the last test that shares it drops it. Like the other
//! independent programs in tests/requirements.txt, it comes from PyPI. If `STRONGROOM_PYTHON` is
//! not set, it is not installed.

use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::free_port;

pub const ACCESS_KEY: &str = "strongroom-test";
pub const SECRET_KEY: &str = "strongroom-test-secret";
/// How long the store may take to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(120);

pub struct Seaweed {
    process: Child,
    pub port: u16,
    folder: tempfile::TempDir,
}

/// Returns the store that tests share; `None` if SeaweedFS is not installed.
pub fn shared() -> Option<Arc<Seaweed>> {
    static SHARED: Mutex<Weak<Seaweed>> = Mutex::new(Weak::new());
    let python = PathBuf::from(std::env::var_os("STRONGROOM_PYTHON")?);
    let weed = python.with_file_name("weed");
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = shared.upgrade() {
        return Some(running);
    }
    let started = Arc::new(Seaweed::start(&weed));
    *shared = Arc::downgrade(&started);
    Some(started)
}

/// Starts a store for one test alone; `None` if SeaweedFS is not installed.
pub fn own() -> Option<Seaweed> {
    let python = PathBuf::from(std::env::var_os("STRONGROOM_PYTHON")?);
    Some(Seaweed::start(&python.with_file_name("weed")))
}

impl Seaweed {
    fn start(weed: &std::path::Path) -> Seaweed {
        let folder = tempfile::tempdir().expect("a folder");
        let identities = format!(
            r#"{{"identities":[{{"name":"tests","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        let config = folder.path().join("identities.json");
        std::fs::write(&config, identities).expect("written");
        let ports: [u16; 4] = std::array::from_fn(|_| free_port());
        let log = std::fs::File::create(folder.path().join("log")).expect("a file");
        let process = Command::new(weed)
            .args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=1000"])
            .args(["-master.volumeSizeLimitMB=256", "-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-dir={}", folder.path().display()))
            .arg(format!("-master.port={}", ports[0]))
            .arg(format!("-volume.port={}", ports[1]))
            .arg(format!("-filer.port={}", ports[2]))
            .arg(format!("-s3.port={}", ports[3]))
            .arg(format!("-s3.config={}", config.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", weed.display()));
        let mut seaweed = Seaweed { process, port: ports[3], folder };
        seaweed.wait();
        seaweed
    }

    /// Waits until the S3 interface answers and the store behind it accepts an object.
    fn wait(&mut self) {
        let started = Instant::now();
        while started.elapsed() < START_TIMEOUT {
            if let Some(status) = self.process.try_wait().expect("a process") {
                panic!("weed ended: {status}\n{}", self.log());
            }
            let is_up = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
            if is_up && self.log().contains("added volume server") {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("weed does not answer\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        // What it stored is in a temporary folder, which is removed as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
