//! `strongroom`: one binary, one subcommand per task.
//!
//! This file is the life of the process: parse the command line, run the command, print an error
//! chain once, choose the exit code.

mod alerts;
mod allocator;
mod anchor;
mod archive;
mod clock;
mod config;
mod demo;
mod evidence;
mod exit;
mod export;
mod findings;
mod generate;
mod hold;
mod hunt;
mod ingest;
mod key;
mod observe;
mod prove;
mod query;
mod redact;
mod reload;
mod retention;
mod reveal;
mod rules;
mod run;
mod signals;
mod sql;
mod term;
mod verify;
mod witness;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use strongroom_parquet::is_quiet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Kubernetes audit logs: alerts as they stream, a sealed archive, and SQL over all of it.
#[derive(Parser)]
#[command(name = "strongroom", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = exit::CODES_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Ingest(ingest::Args),
    Run(run::Args),
    Config(config::Args),
    Alerts(alerts::Args),
    Rules(rules::Args),
    Hunt(hunt::Args),
    Query(query::Args),
    Sql(sql::Args),
    Export(export::Args),
    Archive(archive::Args),
    Key(key::Args),
    SignLog(key::SignLogArgs),
    Witness(witness::Args),
    Verify(verify::Args),
    Prove(prove::Args),
    VerifyProof(prove::VerifyArgs),
    Evidence(evidence::Args),
    Redact(redact::Args),
    Reveal(reveal::Args),
    Retention(retention::Args),
    Hold(hold::Args),
    Generate(generate::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    signals::catch_file_size_exceeded();
    keep_decoder_quiet();
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Ingest(args) => ingest::run(args),
        Command::Run(args) => run::run(args),
        Command::Config(args) => config::run(args),
        Command::Alerts(args) => alerts::run(args),
        Command::Rules(args) => rules::run(args),
        Command::Hunt(args) => hunt::run(args),
        Command::Query(args) => query::run(args),
        Command::Sql(args) => sql::run(args),
        Command::Export(args) => export::run(args),
        Command::Archive(args) => archive::run(args),
        Command::Key(args) => key::run(args),
        Command::SignLog(args) => key::sign_log(args),
        Command::Witness(args) => witness::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Prove(args) => prove::run(args),
        Command::VerifyProof(args) => prove::verify(args),
        Command::Evidence(args) => evidence::run(args),
        Command::Redact(args) => redact::run(args),
        Command::Reveal(args) => reveal::run(args),
        Command::Retention(args) => retention::run(args),
        Command::Hold(args) => hold::run(args),
        Command::Generate(args) => generate::run(args),
    };
    exit::code_of(outcome)
}

/// Prints nothing of a panic that becomes an error: the decoder of Parquet may quote a record.
fn keep_decoder_quiet() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !is_quiet() {
            print(panic);
        }
    }));
}
