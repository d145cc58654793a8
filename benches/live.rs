//! Questions: how long does an alert take from Kafka to its reader? Does the memory in use stay
//! flat? How much CPU time does a byte take from Kafka into locked objects, compared with a byte
//! from a file to a disk?
//!
//! Runs the real binary between a real broker (Tansu) and a real store (SeaweedFS), both started
//! here. `STRONGROOM_PYTHON` must name the Python environment that `./tests/run` makes.
//!
//!     cargo bench --bench live -- latency --rate 10000 --seconds 60
//!     cargo bench --bench live -- soak --rate 5000 --seconds 1200
//!     cargo bench --bench live -- throughput --events 300000
//!
//! CPU time is the daemon's own, user and system, from /proc. Broker and store run on the same
//! cores, so wall-clock figures are those of a machine that runs all three.

#![expect(clippy::print_stdout, reason = "a bench's result is its output")]

#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../tests/it/daemon.rs"]
mod daemon;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../tests/it/run.rs"]
mod run;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../tests/it/services/mod.rs"]
mod services;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use self::daemon::Daemon;
use self::services::seaweed::{self, ACCESS_KEY, SECRET_KEY, Seaweed};
use self::services::tansu::Tansu;

const TOPIC: &str = "kube-audit";
const PARTITIONS: u32 = 2;
/// Number of markers per second. A marker is an event that raises an alert, whose delay is
/// measured.
const MARKERS: u64 = 20;
/// How often the producer sends.
const TICK: Duration = Duration::from_millis(10);

#[derive(clap::Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// An argument that cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Time from sending an event to its alert
    Latency(Load),
    /// Like `latency`, for a long time, with the memory in use every half minute
    Soak(Load),
    /// CPU time from a full topic to sealed objects, and from a file to a disk
    Throughput {
        #[arg(long, default_value_t = 300_000)]
        events: u64,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct Load {
    /// Events per second
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

fn main() {
    match Args::parse().command {
        Command::Latency(load) => latency(load, Duration::from_secs(15)),
        Command::Soak(load) => latency(load, Duration::from_secs(30)),
        Command::Throughput { events } => throughput(events),
    }
}

struct Rig {
    tansu: Tansu,
    _store: Seaweed,
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
    archive: String,
}

impl Rig {
    fn start() -> Rig {
        let tansu = Tansu::start().expect("STRONGROOM_PYTHON names an environment with a broker");
        let store = seaweed::own().expect("STRONGROOM_PYTHON names an environment with a store");
        tansu.create_topic(TOPIC, PARTITIONS);
        let archive = "s3://audit/live".to_owned();
        let environment: Vec<(String, String)> = [
            ("STRONGROOM_S3_ENDPOINT", store.endpoint()),
            ("STRONGROOM_S3_PATH_STYLE", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let mut init = run::strongroom();
        run::expect_code(init.args(["archive", "init", &archive]).envs(environment.clone()), 0);
        let folder = tempfile::tempdir().expect("a temporary folder");
        Rig { tansu, _store: store, folder, environment, archive }
    }

    fn daemon(&self, rest: &str) -> Daemon {
        let rest = format!(
            "{rest}\n[[kafka]]\nname = 'topic'\ncluster = 'bench'\nbrokers = ['{}']\ntopics = ['{TOPIC}']\n",
            self.tansu.address()
        );
        let config = daemon::config(self.folder.path(), &self.archive, &rest);
        let mut command = run::strongroom();
        command.args(["run", "--config"]).arg(config).envs(self.environment.clone());
        Daemon::spawn(command)
    }

    fn producer(&self) -> BaseProducer {
        ClientConfig::new()
            .set("bootstrap.servers", self.tansu.address())
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", "262144")
            .set("queue.buffering.max.messages", "1000000")
            .create()
            .expect("a producer")
    }
}

fn send(producer: &BaseProducer, partition: u64, line: &[u8]) {
    let partition = i32::try_from(partition % u64::from(PARTITIONS)).unwrap_or(0);
    loop {
        match producer.send(BaseRecord::<(), [u8]>::to(TOPIC).partition(partition).payload(line)) {
            Ok(()) => return,
            // The queue is full: the broker is slower than the producer.
            Err(_) => producer.poll(Duration::from_millis(10)),
        }
    }
}

/// Returns an event that raises an alert with the event's number.
fn marker(number: u64) -> String {
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"00000000-0000-4000-8000-{number:012x}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/prod/pods/db-0/exec?command=sh","verb":"create","user":{{"username":"marker-{number}@example.com","groups":["system:authenticated"]}},"sourceIPs":["203.0.113.7"],"userAgent":"kubectl/v1.30","objectRef":{{"resource":"pods","namespace":"prod","name":"db-0","apiVersion":"v1","subresource":"exec"}},"responseStatus":{{"metadata":{{}},"code":101}},"requestReceivedTimestamp":"2026-03-02T10:00:00.000000Z","stageTimestamp":"2026-03-02T10:00:00.100000Z","annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#
    )
}

fn memory_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Returns the user and system time of a process, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (field(11) + field(12)) / TICKS
}

fn latency(load: Load, every: Duration) {
    let rig = Rig::start();
    let log = run::log(50_000, 7);
    let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let mut daemon = rig.daemon("[seal]\ninterval = '20s'");
    let producer = rig.producer();
    // One message is sent and awaited first, so that the group's first rebalance is not measured.
    send(&producer, 0, lines[0]);
    daemon.wait_for_metric("received_records_total", 1.0);

    let (mut sent, mut markers) = (1_u64, 0_u64);
    let mut at: HashMap<u64, Instant> = HashMap::new();
    let begun = Instant::now();
    let cpu = cpu_seconds(daemon.pid());
    let mut reported = Instant::now();
    let mut memory = Vec::new();
    while begun.elapsed() < Duration::from_secs(load.seconds) {
        let elapsed = begun.elapsed().as_secs_f64();
        let due = (elapsed * load.rate as f64) as u64;
        while sent < due {
            send(&producer, sent, lines[(sent % lines.len() as u64) as usize]);
            sent += 1;
        }
        while (markers as f64) < elapsed * MARKERS as f64 {
            at.insert(markers, Instant::now());
            send(&producer, markers, marker(markers).as_bytes());
            markers += 1;
            sent += 1;
        }
        producer.poll(Duration::ZERO);
        if reported.elapsed() >= every {
            reported = Instant::now();
            memory.push(memory_mib(daemon.pid()));
            println!(
                "{:>6.0} s  sent {sent:>10}  sealed {:>10}  memory {:>6.0} MiB",
                elapsed,
                daemon.metric("sealed_events_total"),
                memory.last().copied().unwrap_or(0.0)
            );
        }
        std::thread::sleep(TICK);
    }
    let took = begun.elapsed().as_secs_f64();
    producer.flush(Duration::from_secs(30)).expect("everything is sent");
    daemon.wait_for_metric("received_records_total", sent as f64);
    let cpu = cpu_seconds(daemon.pid()) - cpu;
    let conserved = daemon.metric("conserved");
    let alerts = daemon.alerts.lock().expect("no panic holds it").clone();
    let mut latencies = Vec::new();
    for (came, line) in &alerts {
        let number =
            line.split("marker-").nth(1).and_then(|rest| rest.split('@').next()).and_then(|n| n.parse().ok());
        if let Some(sent) = number.and_then(|number: u64| at.remove(&number)) {
            latencies.push(came.duration_since(sent));
        }
    }
    latencies.sort_unstable();
    assert!(!latencies.is_empty(), "no marker raised an alert");
    let part = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)];
    println!(
        "{:.0} events/s for {took:.0} s: alert p50 {:?}, p99 {:?}, longest {:?}, of {} markers {} told; {:.0} % of a core; conserved {conserved}",
        sent as f64 / took,
        part(50),
        part(99),
        part(100),
        markers,
        latencies.len(),
        100.0 * cpu / took,
    );
    let (status, log) = daemon.terminate();
    assert!(status.success(), "{log}");
}

fn throughput(events: u64) {
    let rig = Rig::start();
    let log = run::log(events, 7);
    let megabytes = log.len() as f64 / 1e6;
    let producer = rig.producer();
    for (number, line) in log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        send(&producer, number as u64, line);
    }
    producer.flush(Duration::from_secs(120)).expect("everything is sent");
    println!("{events} events, {megabytes:.0} MB in the topic");
    let begun = Instant::now();
    let mut daemon = rig.daemon("[alerts]\nstdout = false\n[seal]\ninterval = '5m'");
    wait_for_records(&mut daemon, events);
    let read = begun.elapsed();
    let cpu_read = cpu_seconds(daemon.pid());
    daemon.signal("-TERM");
    let mut cpu = cpu_read;
    while Path::new(&format!("/proc/{}/stat", daemon.pid())).exists() {
        let now = cpu_seconds(daemon.pid());
        if now < cpu {
            break;
        }
        cpu = now;
        if daemon.log().contains("everything read is sealed") {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    daemon.wait();
    println!(
        "Kafka to S3: {:.1} s of CPU, {:.0} MB/s per core (reading and looking {:.1} s of it); read in {:.1} s",
        cpu,
        megabytes / cpu,
        cpu_read,
        read.as_secs_f64()
    );
    let path = run::write(rig.folder.path(), "audit.log", &log);
    let script = "import resource,subprocess,sys\nsubprocess.run(sys.argv[1:],check=True)\n\
                  u=resource.getrusage(resource.RUSAGE_CHILDREN)\nprint(u.ru_utime+u.ru_stime)";
    let ingest =
        std::process::Command::new(std::env::var_os("STRONGROOM_PYTHON").expect("the variable is set"))
            .args(["-c", script, env!("CARGO_BIN_EXE_strongroom"), "ingest", "--quiet", "--cluster", "bench"])
            .args(["--print-alerts", "critical", "--alerts-out", "/dev/null", "--archive"])
            .arg(rig.folder.path().join("archive"))
            .arg(&path)
            .output()
            .expect("it starts");
    let out = String::from_utf8_lossy(&ingest.stdout).into_owned();
    let seconds = out.lines().last().and_then(|line| line.parse::<f64>().ok());
    let seconds = seconds.unwrap_or_else(|| panic!("{out}{}", String::from_utf8_lossy(&ingest.stderr)));
    println!("file to disk: {seconds:.1} s of CPU, {:.0} MB/s per core", megabytes / seconds);
}

fn wait_for_records(daemon: &mut Daemon, records: u64) {
    let until = Instant::now() + Duration::from_secs(600);
    while daemon.metric("received_records_total") < records as f64 {
        assert!(Instant::now() < until, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
