//! `strongroom generate`: writes a realistic audit log to try things on.
//!
//! Invariant: the output is a function of the flags alone, so the flags identify a log.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use strongroom_generate::{Generator, GeneratorOptions, LINE_BYTES_MEAN, PlantedAttack};

use crate::exit::{self, CliError};
use crate::term;

/// Write a realistic audit log; the same options give the same log.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  strongroom generate --events 100000 > audit.log
  strongroom generate --bytes 1GiB --seed 7 --attacks --output audit.log")]
pub struct Args {
    /// Lines to write.
    #[arg(long, default_value_t = 100_000, conflicts_with = "bytes")]
    events: u64,
    /// About this many bytes instead of a number of lines, such as 500MiB or 8GiB.
    #[arg(long, value_name = "SIZE", value_parser = term::byte_size)]
    bytes: Option<u64>,
    /// Another seed gives another cluster and another log.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plant attacks among the events.
    #[arg(long)]
    attacks: bool,
    /// Where to write the list of planted attacks, one JSON object per line; by default beside
    /// --output.
    #[arg(long, value_name = "FILE", requires = "attacks")]
    ground_truth: Option<PathBuf>,
    /// Time of the first event.
    #[arg(long, value_name = "TIME", default_value = "2026-03-02T00:00:00Z")]
    start: DateTime<Utc>,
    /// Events per second of the simulated cluster.
    #[arg(long, default_value_t = 12.0)]
    rate: f64,
    /// Nodes of the simulated cluster.
    #[arg(long, default_value_t = 24)]
    nodes: u32,
    /// Form of the lines: `lines` as in kube-apiserver's log file, `list` as in its webhook
    /// batches.
    #[arg(long, value_enum, default_value_t = Shape::Lines)]
    shape: Shape,
    /// Write to this file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shape {
    Lines,
    List,
}

/// Events in one `EventList`: the default of kube-apiserver's `--audit-webhook-batch-max-size`.
const LIST_EVENTS_MAX: usize = 400;
/// Text is gathered up to this size before it is written.
const WRITE_BYTES: usize = 1 << 20;

pub fn run(args: Args) -> Result<u8, CliError> {
    let events = args.bytes.map_or(args.events, |bytes| (bytes / LINE_BYTES_MEAN).max(1));
    let mut generator = Generator::new(GeneratorOptions {
        seed: args.seed,
        events,
        attacks: args.attacks,
        start: args.start,
        rate: args.rate,
        nodes: args.nodes,
    })
    .map_err(CliError::input)?;

    match &args.output {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
            write_log(&mut generator, args.shape, file)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => write_log(&mut generator, args.shape, term::data()).context("cannot write to stdout")?,
    }

    let truth = generator.ground_truth();
    if !truth.is_empty() {
        let beside = args.output.as_deref().map(ground_truth_path);
        match args.ground_truth.or(beside) {
            Some(path) => {
                write_ground_truth(&path, truth)?;
                note(&format!("{} attacks are planted; they are listed in {}", truth.len(), path.display()));
            }
            None => note(&format!("{} attacks are planted; --ground-truth FILE lists them", truth.len())),
        }
    }
    Ok(exit::OK)
}

/// Writes all remaining lines to a new file; returns its size.
pub fn to_file(generator: &mut Generator, path: &Path) -> Result<u64, CliError> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    write_log(generator, Shape::Lines, &file).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.metadata().with_context(|| format!("cannot read the size of {}", path.display()))?.len())
}

/// Writes all remaining lines.
fn write_log(generator: &mut Generator, shape: Shape, mut to: impl Write) -> io::Result<()> {
    let mut text = Vec::with_capacity(WRITE_BYTES + WRITE_BYTES / 8);
    while match shape {
        Shape::Lines => generator.next_line(&mut text),
        Shape::List => next_list(generator, &mut text),
    } {
        if text.len() >= WRITE_BYTES {
            to.write_all(&text)?;
            text.clear();
        }
    }
    to.write_all(&text)?;
    to.flush()
}

/// Appends one webhook batch, whose items have neither `kind` nor `apiVersion`. Returns false if no
/// event is left.
fn next_list(generator: &mut Generator, out: &mut Vec<u8>) -> bool {
    const HEAD: &[u8] = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
    const ITEM_HEAD: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;
    let mut line = Vec::new();
    for item in 0..LIST_EVENTS_MAX {
        line.clear();
        if !generator.next_line(&mut line) {
            if item == 0 {
                return false;
            }
            break;
        }
        out.extend_from_slice(if item == 0 { HEAD } else { b"," });
        out.push(b'{');
        out.extend_from_slice(&line[ITEM_HEAD.len()..line.len() - 1]);
    }
    out.extend_from_slice(b"]}\n");
    true
}

/// Returns where the ground truth of a log is written: `audit.log.truth.jsonl` for `audit.log`.
fn ground_truth_path(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".truth.jsonl");
    PathBuf::from(name)
}

/// Writes one line of JSON for each planted attack.
pub fn write_ground_truth(path: &Path, truth: &[PlantedAttack]) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(context)?);
    for attack in truth {
        serde_json::to_writer(&mut file, attack).map_err(io::Error::from).with_context(context)?;
        file.write_all(b"\n").with_context(context)?;
    }
    file.flush().with_context(context)
}

fn note(text: &str) {
    // When stderr is closed, there is no one to report it to.
    let _ = writeln!(term::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_the_same_events() {
        let options = || GeneratorOptions { events: 1_000, ..GeneratorOptions::default() };
        let (mut lines, mut lists) = (Vec::new(), Vec::new());
        write_log(&mut Generator::new(options()).expect("in bounds"), Shape::Lines, &mut lines)
            .expect("a Vec");
        write_log(&mut Generator::new(options()).expect("in bounds"), Shape::List, &mut lists)
            .expect("a Vec");
        let ids = |events: &[serde_json::Value]| -> Vec<String> {
            events.iter().map(|event| event["auditID"].as_str().expect("text").to_owned()).collect()
        };
        let parse = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).expect("JSON");
        let expected: Vec<_> = lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(parse).collect();
        let mut found = Vec::new();
        for list in lists.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(parse) {
            assert_eq!(list["kind"], "EventList");
            assert!(list["items"][0]["kind"].is_null());
            found.extend(list["items"].as_array().expect("items").iter().cloned());
        }
        assert_eq!(ids(&found), ids(&expected));
    }
}
