//! Programs of Debian's, unpacked below the target directory by `tests/run`: rsyslog and
//! Alertmanager.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::free_port;

const READY_WAIT: Duration = Duration::from_secs(120);

/// Returns the folder in which the programs are unpacked; `None` if they are not installed.
fn root() -> Option<PathBuf> {
    std::env::var_os("STRONGROOM_DEBIAN").map(PathBuf::from)
}

pub fn tls(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

fn wait_for(port: u16, child: &mut Child, said: &Path) {
    let until = Instant::now() + READY_WAIT;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let text = || std::fs::read_to_string(said).unwrap_or_default();
        assert!(Instant::now() < until, "no answer within {READY_WAIT:?}: {}", text());
        assert!(
            child.try_wait().expect("the state of the process").is_none(),
            "it ended by itself: {}",
            text()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process with its output in a file, killed when dropped.
pub struct Service {
    child: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
    pub out: PathBuf,
}

impl Drop for Service {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts rsyslog. It accepts syslog over TLS, and writes each message unchanged, on a line of its
/// own, to the file `out`.
pub fn rsyslog() -> Option<Service> {
    let root = root()?;
    let folder = tempfile::tempdir().expect("a folder");
    let (port, out) = (free_port(), folder.path().join("received"));
    let modules = root.join("usr/lib/x86_64-linux-gnu/rsyslog");
    let text = format!(
        r#"global(workDirectory="{folder}" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off"
  DefaultNetstreamDriver="gtls" DefaultNetstreamDriverCAFile="{ca}"
  DefaultNetstreamDriverCertFile="{cert}" DefaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
template(name="raw" type="string" string="%rawmsg%\n")
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="keep")
ruleset(name="keep") {{ action(type="omfile" file="{out}" template="raw") }}
"#,
        folder = folder.path().display(),
        ca = tls("ca.pem").display(),
        cert = tls("cert.pem").display(),
        key = tls("key.pem").display(),
        out = out.display(),
    );
    let config = folder.path().join("rsyslog.conf");
    std::fs::write(&config, text).expect("written");
    let said = folder.path().join("said");
    let log = std::fs::File::create(&said).expect("made");
    let mut child = Command::new(root.join("usr/sbin/rsyslogd"))
        .arg("-n")
        .arg("-f")
        .arg(&config)
        .arg("-i")
        .arg(folder.path().join("pid"))
        .arg("-M")
        .arg(&modules)
        .env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("rsyslog starts");
    wait_for(port, &mut child, &said);
    Some(Service { child, port, _folder: folder, out })
}

/// Makes a copy of Alertmanager that reads its templates from the folder where it is started.
/// Debian's program reads them below `/usr/share`, where nothing was installed, so in the copy that
/// path is replaced with another of the same length.
fn relocated(root: &Path, folder: &Path) -> PathBuf {
    const INSTALLED: &[u8] = b"/usr/share/prometheus/alertmanager";
    const HERE: &[u8] = b"/proc/self/cwd////////////////////";
    assert_eq!(INSTALLED.len(), HERE.len());
    let mut program = std::fs::read(root.join("usr/bin/prometheus-alertmanager")).expect("it is unpacked");
    let places: Vec<usize> = memchr::memmem::find_iter(&program, INSTALLED).collect();
    assert!(!places.is_empty(), "another build of Alertmanager");
    for at in places {
        program[at..at + HERE.len()].copy_from_slice(HERE);
    }
    let path = folder.join("alertmanager");
    std::fs::write(&path, program).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("made executable");
    path
}

/// Starts Alertmanager. It groups alerts by rule, and forwards them to a webhook at `forward`.
pub fn alertmanager(forward: &str) -> Option<Service> {
    let root = root()?;
    let folder = tempfile::tempdir().expect("a folder");
    let (port, out) = (free_port(), folder.path().join("said"));
    let config = folder.path().join("alertmanager.yml");
    let text = format!(
        "route:\n  receiver: test\n  group_by: [alertname]\n  group_wait: 1s\n  group_interval: 1s\n\
         receivers:\n- name: test\n  webhook_configs:\n  - url: {forward}\n"
    );
    std::fs::write(&config, text).expect("written");
    let log = std::fs::File::create(&out).expect("made");
    let templates = root.join("usr/share/prometheus/alertmanager");
    let mut child = Command::new(relocated(&root, folder.path()))
        .current_dir(templates)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("Alertmanager starts");
    wait_for(port, &mut child, &out);
    Some(Service { child, port, _folder: folder, out })
}
