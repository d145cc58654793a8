//! Exit codes and the one place that prints an error.
//!
//! Invariant: the exit codes never change, because scripts rely on them. They distinguish a run
//! that stored everything but met undecodable lines, a run that failed, and a mistyped command
//! line. This file depends on no command, so every command can map its errors here.

use std::io::Write as _;
use std::process::ExitCode;

use strongroom_archive::ArchiveError;
use strongroom_evidence::EvidenceError;
use strongroom_ingest::IngestError;
use strongroom_proof::ProofError;
use strongroom_query::QueryError;
use strongroom_retention::RetentionError;
use strongroom_schemas::error_chain;

use crate::term;

/// Everything asked for was done.
pub const OK: u8 = 0;
/// Done, but something needs attention (lines were rejected, for example); or not done, because the
/// input or the SQL is wrong.
pub const FINDING: u8 = 1;
/// Not done: a file, a disk or the archive failed.
pub const FAILURE: u8 = 2;
/// The command line was not understood (`EX_USAGE` of sysexits).
pub const USAGE: u8 = 64;
/// Stopped by Ctrl-C (128 + SIGINT).
pub const INTERRUPTED: u8 = 130;

pub const CODES_HELP: &str = "\
Exit codes: 0 done; 1 done with findings (rejected lines) or bad input; 2 failed; 64 usage; 130 interrupted.";

/// An error with its exit code and, if there is one, a hint on what to do.
#[derive(Debug)]
pub struct CliError {
    pub code: u8,
    pub hint: Option<String>,
    pub source: anyhow::Error,
}

impl CliError {
    /// Returns true if the reader of our output has closed it. That is not a failure, because a
    /// reader may stop when it has read enough.
    pub fn is_broken_pipe(&self) -> bool {
        self.source.chain().any(|cause| {
            let io = cause.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
        })
    }

    /// An error for which the caller's input is at fault, such as bad SQL or a missing file.
    pub fn input(source: impl Into<anyhow::Error>) -> Self {
        CliError { code: FINDING, hint: None, source: source.into() }
    }

    /// An error that is not the caller's mistake.
    pub fn failure(source: impl Into<anyhow::Error>) -> Self {
        CliError { code: FAILURE, hint: None, source: source.into() }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error of one of our crates. `is_input` means that the caller's input is at fault.
    fn of(source: impl Into<anyhow::Error>, is_input: bool, hint: Option<impl Into<String>>) -> Self {
        let code = if is_input { FINDING } else { FAILURE };
        CliError { code, hint: hint.map(Into::into), source: source.into() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for CliError {
    fn from(source: E) -> Self {
        CliError::failure(source)
    }
}

/// An error of the archive; a location that cannot be an archive is the caller's mistake.
pub fn archive_error(error: ArchiveError) -> CliError {
    let (is_location, hint) = (error.is_location(), error.hint());
    CliError::of(error, is_location, hint)
}

/// An error of a signed log or of a proof.
pub fn proof_error(error: impl Into<ProofError>) -> CliError {
    let error = error.into();
    let hint = error.hint();
    CliError::of(error, false, hint)
}

/// An error of an evidence pack.
pub fn evidence_error(error: EvidenceError) -> CliError {
    let (is_input, hint) = (error.is_input(), error.hint());
    match error {
        EvidenceError::Sql(source) => match source.downcast::<QueryError>() {
            Ok(error) => query_error(*error),
            Err(source) => CliError::failure(EvidenceError::Sql(source)),
        },
        // The message contains text of the archive, whose control characters must not reach a
        // terminal.
        EvidenceError::FailedCheck { .. } => {
            CliError::failure(anyhow::anyhow!("{}", term::printable(&error.to_string())))
        }
        error => CliError::of(error, is_input, hint),
    }
}

/// An error of retention, of a legal hold, or of a drop.
pub fn retention_error(error: RetentionError) -> CliError {
    let (is_input, hint) = (error.is_input(), error.hint());
    CliError::of(error, is_input, hint)
}

/// An error of reading sources.
pub fn ingest_error(error: IngestError) -> CliError {
    let (is_input, hint) = (error.is_input(), error.hint());
    CliError::of(error, is_input, hint)
}

/// An error of a query.
pub fn query_error(error: QueryError) -> CliError {
    let is_input =
        error.is_about_the_statement() || matches!(&error, QueryError::Archive(error) if error.is_location());
    let hint = error.hint();
    let source = match error {
        // The I/O error itself becomes the source, so that a closed pipe is recognised.
        QueryError::Write(error) => anyhow::Error::new(error).context("cannot write the answer"),
        error => anyhow::Error::new(error),
    };
    CliError::of(source, is_input, hint)
}

/// Prints the outcome's error, if any, and turns it into the process's exit code.
pub fn code_of(outcome: Result<u8, CliError>) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is_broken_pipe() => ExitCode::from(OK),
        Err(error) => {
            report(&error);
            ExitCode::from(error.code)
        }
    }
}

/// Prints an error and its hint.
pub fn report(error: &CliError) {
    let mut stderr = term::stderr().lock();
    // When stderr is closed as well, there is nothing left to do.
    let _ = writeln!(stderr, "error: {}", term::printable_lines(&error_chain(error.source.as_ref())));
    if let Some(hint) = &error.hint {
        let _ = writeln!(stderr, "\nhint: {hint}");
    }
}

/// Prints clap's message; help and version are not errors.
pub fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::from(OK) }
}
