//! Question: what CPU time does a redaction policy of 20 paths add to an ingest?
//!
//! Data: logs that are given as files, or else the generated log (seed 5), 200,000 events unless a
//! number is given.
//!
//! Method: CPU time of whole processes, user and system, as Linux accounts it to ended children. In
//! each round the real binary ingests the log with all rules without a policy, with the policy of
//! `redact/clinic.toml`, and with the one of `redact/wide.toml`, in turns, into new archives. The
//! ratios to the run without a policy are computed for each round, and their median is reported,
//! with the lowest and the highest, and the share of events that the policy changed.
//!
//! Run: `cargo bench --bench redact [-- EVENTS] [-- LOG…]`.

#![expect(clippy::print_stdout, reason = "its answer goes to standard output")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use strongroom_generate::{Generator, GeneratorOptions};

const EVENTS_DEFAULT: u64 = 200_000;
const SEED: u64 = 5;
const ROUNDS: usize = 7;

/// The policies, each with 20 paths.
const POLICIES: [(&str, &str); 2] =
    [("clinic", include_str!("redact/clinic.toml")), ("wide", include_str!("redact/wide.toml"))];

/// Clock ticks a second in `/proc/<pid>/stat`: `USER_HZ`, which is 100 wherever Linux runs.
const TICKS: f64 = 100.0;

/// CPU time of the children that have ended.
fn children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells a process's times");
    // After the name, which is in parentheses and may have spaces: state is field 3, cutime and
    // cstime are 16 and 17.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().expect("a number");
    (ticks(16) + ticks(17)) / TICKS
}

fn strongroom() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STRONGROOM_"))
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Ingests a log into a new archive. Returns the CPU time, and what was said.
fn ingest(folder: &Path, log: &Path, policy: Option<&Path>) -> (f64, String) {
    let archive = folder.join("archive");
    let mut command = strongroom();
    command.args(["ingest", "--cluster", "bench", "--print-alerts", "critical", "--complete", "--archive"]);
    command.arg(&archive);
    if let Some(policy) = policy {
        command.arg("--redact").arg(policy);
    }
    let before = children();
    let output = command.arg(log).output().expect("it starts");
    let taken = children() - before;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    std::fs::remove_dir_all(archive).expect("removed");
    (taken, said)
}

/// The number in `said` before some words.
fn number_before(said: &str, words: &str) -> f64 {
    let before = said.split_once(words).map_or("", |(before, _)| before);
    let number = before.rsplit(|c: char| !c.is_ascii_digit() && c != ',').next().unwrap_or_default();
    number.replace(',', "").parse().unwrap_or(0.0)
}

fn main() {
    // Cargo passes --bench; a number is how many events to generate, and anything else is a log.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|own| !own.starts_with("--")).collect();
    let events = arguments.iter().find_map(|own| own.parse().ok()).unwrap_or(EVENTS_DEFAULT);
    let mut logs: Vec<PathBuf> =
        arguments.iter().filter(|own| own.parse::<u64>().is_err()).map(PathBuf::from).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    if logs.is_empty() {
        let options = GeneratorOptions { events, seed: SEED, ..GeneratorOptions::default() };
        let mut generator = Generator::new(options).expect("options in bounds");
        let mut text = Vec::new();
        while generator.next_line(&mut text) {}
        std::fs::write(at("audit.log"), &text).expect("room on the disk");
        logs.push(at("audit.log"));
    }
    let key = at("redact.key");
    assert!(strongroom().args(["redact", "key", "new"]).arg(&key).status().expect("it starts").success());
    let policies = POLICIES.map(|(name, rules)| {
        let path = at(&format!("{name}.toml"));
        std::fs::write(&path, format!("[redact]\nkey = 'file:{}'\n{rules}", key.display())).expect("written");
        path
    });
    for log in &logs {
        let bytes = std::fs::metadata(log).expect("a log").len();
        println!("# {} ({:.0} MB); seconds of CPU time", log.display(), bytes as f64 / 1e6);
        println!("{:>8} {:>8} {:>8}", "none", POLICIES[0].0, POLICIES[1].0);
        let (mut rounds, mut changed) = (Vec::new(), [0.0; 2]);
        for round in 0..=ROUNDS {
            let (none, said) = ingest(folder.path(), log, None);
            let all = number_before(&said, " events");
            let mut under = [0.0; 2];
            for (at, policy) in policies.iter().enumerate() {
                let (taken, said) = ingest(folder.path(), log, Some(policy));
                under[at] = taken;
                let (_, redacted) = said.split_once("redacted: ").unwrap_or_default();
                changed[at] = number_before(redacted, " events") / all;
            }
            // The first round fills caches.
            if round > 0 {
                println!("{none:8.2} {:8.2} {:8.2}", under[0], under[1]);
                rounds.push(under.map(|under| under / none));
            }
        }
        for (at, (name, _)) in POLICIES.iter().enumerate() {
            let mut ratios: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
            ratios.sort_by(f64::total_cmp);
            println!(
                "{name}: {:.1} % of events changed, {:.3} of the CPU time without a policy ({:.3} to {:.3})",
                100.0 * changed[at],
                ratios[ratios.len() / 2],
                ratios[0],
                ratios[ratios.len() - 1]
            );
        }
    }
}
