//! `strongroom alerts`: try a sink, and show the state of all sinks.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;
use strongroom_alerts::own;
use strongroom_sinks::{Outcome, Sinks};

use crate::config::Config;
use crate::config::sinks::{self, SinkConfig};
use crate::exit::{self, CliError};
use crate::term;

/// Try a sink of a configuration, or show the state of its sinks.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  strongroom alerts test-sink siem --config strongroom.toml
  strongroom alerts sinks --config strongroom.toml")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send one test alert, and print the receiver's answer
    TestSink {
        /// Name of the sink
        name: String,
        /// The configuration file
        #[arg(short, long, env = "STRONGROOM_CONFIG", value_name = "FILE")]
        config: PathBuf,
    },
    /// Show how far each sink has got, and its dead letters; the daemon may be running
    Sinks {
        /// The configuration file
        #[arg(short, long, env = "STRONGROOM_CONFIG", value_name = "FILE")]
        config: PathBuf,
    },
}

/// Returns all sinks of a configuration, those of `[alerts]` first.
fn all(config: &Config) -> Vec<SinkConfig> {
    sinks::of_alerts(&config.alerts).into_iter().chain(config.sinks.iter().cloned()).collect()
}

pub fn run(args: Args) -> Result<u8, CliError> {
    match args.command {
        Command::TestSink { name, config } => test(&name, &Config::read(&config, None)?),
        Command::Sinks { config } => show(&Config::read(&config, None)?),
    }
}

fn test(name: &str, config: &Config) -> Result<u8, CliError> {
    let sinks = all(config);
    let Some(found) = sinks.iter().find(|sink| sink.lane.name == name) else {
        let names: Vec<&str> = sinks.iter().map(|sink| sink.lane.name.as_str()).collect();
        let error = anyhow::anyhow!("there is no sink \"{}\"", term::printable(name));
        return Err(CliError::input(error).with_hint(format!("the configuration has {}", names.join(", "))));
    };
    let mut sink =
        found.make().with_context(|| format!("cannot make the sink {name}")).map_err(CliError::input)?;
    let alert = Arc::new(own::test_alert(name, chrono::Utc::now().timestamp_micros()));
    let outcome = sink.send(&[Arc::clone(&alert)]).pop();
    let answer = sink.answer();
    sink.finish();
    // Messages go to standard error, because standard output may itself be the sink.
    let mut out = term::stderr();
    let (code, what) = match outcome {
        Some(Outcome::Taken) => (exit::OK, format!("taken: {answer}")),
        Some(Outcome::Refused { reason }) => (exit::FINDING, format!("refused: {reason}")),
        Some(Outcome::Later { reason, .. }) => (exit::FINDING, format!("not taken: {reason}")),
        None => (exit::FINDING, "the sink gave no answer".to_owned()),
    };
    writeln!(out, "{name}: {}", term::printable(what.trim_end_matches(": "))).context("cannot print")?;
    writeln!(out, "alert {}", alert.alert_id).context("cannot print")?;
    Ok(code)
}

fn show(config: &Config) -> Result<u8, CliError> {
    let Some(outbox) = &config.outbox else {
        let error = anyhow::anyhow!("the configuration has no outbox");
        return Err(CliError::input(error).with_hint("set [outbox] folder"));
    };
    let names: Vec<String> = all(config).into_iter().map(|sink| sink.lane.name).collect();
    let states = Sinks::states(&outbox.folder, &names)?;
    let mut out = term::stdout();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0).max(4);
    writeln!(out, "{:width$}  {:>12}  {:>8}  dead letters", "sink", "position", "waiting")
        .context("cannot print")?;
    for name in &names {
        let line = match states.iter().find(|state| state.name == *name) {
            Some(state) => format!(
                "{name:width$}  {:>12}  {:>8}  {}{}",
                state.next,
                state.lag,
                term::bytes(state.dead_bytes),
                if state.in_gap { ", reading from the archive" } else { "" }
            ),
            None => format!("{name:width$}  {:>12}  {:>8}  -", "new", "-"),
        };
        writeln!(out, "{line}").context("cannot print")?;
    }
    Ok(exit::OK)
}
