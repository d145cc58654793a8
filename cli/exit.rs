//! Exit codes and the one place that prints an error.
//!
//! Scripts rely on these numbers: a run that stored everything but met undecodable lines is told
//! apart from a run that failed, and both from a mistyped command line.

use std::io::Write as _;
use std::process::ExitCode;

use strongroom_schemas::error_chain;

/// Everything asked for was done.
pub const OK: u8 = 0;
/// Done, and something needs a look: lines were rejected, or the input or the SQL is wrong.
pub const FINDING: u8 = 1;
/// Not done: a file, a disk or the archive failed.
pub const FAILURE: u8 = 2;
/// The command line was not understood (`EX_USAGE` of sysexits).
pub const USAGE: u8 = 64;
/// Stopped by Ctrl-C (128 + SIGINT).
pub const INTERRUPTED: u8 = 130;

pub const CODES_HELP: &str = "\
Exit codes: 0 done; 1 done with findings (rejected lines) or bad input; 2 failed; 64 usage; 130 interrupted.";

/// An error with the exit code it deserves and, where there is one, what to do next.
#[derive(Debug)]
pub struct CliError {
    pub code: u8,
    pub hint: Option<String>,
    pub source: anyhow::Error,
}

impl CliError {
    /// Whether the reader of our output went away, which is a reader's right.
    pub fn is_broken_pipe(&self) -> bool {
        self.source.chain().any(|cause| {
            let io = cause.downcast_ref::<std::io::Error>();
            io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
        })
    }

    /// The input is at fault: bad SQL, a file that is not there.
    pub fn input(source: impl Into<anyhow::Error>) -> Self {
        CliError { code: FINDING, hint: None, source: source.into() }
    }

    /// Something failed that the caller did not choose.
    pub fn failure(source: impl Into<anyhow::Error>) -> Self {
        CliError { code: FAILURE, hint: None, source: source.into() }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<E: Into<anyhow::Error>> From<E> for CliError {
    fn from(source: E) -> Self {
        CliError::failure(source)
    }
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
    let mut stderr = anstream::stderr().lock();
    // Nothing is left to do when even stderr is closed.
    let _ = writeln!(stderr, "error: {}", error_chain(error.source.as_ref()));
    if let Some(hint) = &error.hint {
        let _ = writeln!(stderr, "\nhint: {hint}");
    }
}

/// Prints clap's message; help and version are no errors.
pub fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::from(OK) }
}
