//! Runs a program of the operator and returns its answer. Such a program signs a text with a key
//! that only it has, or prints a key.
//!
//! ```
//! let command = ["cat".to_owned()];
//! assert_eq!(strongroom_program::ask(&command, b"sign this")?, b"sign this");
//! # Ok::<(), strongroom_program::ProgramError>(())
//! ```
//!
//! Invariants:
//! - The caller is held up for [`TIMEOUT`] and [`GRACE`] at most, whatever the program does. It may
//!   leave its input unread, print without end, never end, or leave a child that has its pipes.
//! - An error contains neither the input nor the answer, because either may be secret.
//!
//! Input and output have threads of their own. A thread whose pipe a grandchild keeps open is left
//! behind; it ends with the grandchild, and holds a bounded number of bytes.

use std::io::{self, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

/// How long a program may take.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for the end of the output after the program has ended, if another process still
/// has its pipe open.
pub const GRACE: Duration = Duration::from_secs(1);
/// Maximum length of an answer.
pub const ANSWER_BYTES_MAX: usize = 4096;
const POLL: Duration = Duration::from_millis(5);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ProgramError {
    #[error("no program is given")]
    NotGiven,
    #[error("it cannot be started")]
    Start(#[source] io::Error),
    #[error("it cannot be waited for")]
    Wait(#[source] io::Error),
    #[error("it did not end within {} s", .0.as_secs_f32())]
    TooSlow(Duration),
    #[error("it ended with {0}")]
    Failed(ExitStatus),
    #[error("its answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
}

/// Runs a program with `input` as its standard input, and returns what it prints. What it writes to
/// its standard error goes to ours. Blocks.
///
/// # Errors
/// [`ProgramError`], if the program cannot be started, fails, takes longer than [`TIMEOUT`], or
/// prints more than [`ANSWER_BYTES_MAX`].
pub fn ask(command: &[String], input: &[u8]) -> Result<Vec<u8>, ProgramError> {
    ask_within(TIMEOUT, command, input)
}

fn ask_within(limit: Duration, command: &[String], input: &[u8]) -> Result<Vec<u8>, ProgramError> {
    let (program, arguments) = command.split_first().ok_or(ProgramError::NotGiven)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(ProgramError::Start)?;
    let begun = Instant::now();
    let parts = pipes(&mut child, input).map_err(ProgramError::Start);
    let ended = parts.and_then(|parts| Ok((wait(&mut child, begun, limit)?, parts)));
    let (status, parts) = ended.inspect_err(|_| {
        let _ = child.kill();
        let _ = child.wait();
    })?;
    let answer = collect(&parts)?;
    if status.success() { Ok(answer) } else { Err(ProgramError::Failed(status)) }
}

/// Starts the threads of the pipes. Returns the parts of the output.
fn pipes(child: &mut Child, input: &[u8]) -> io::Result<Receiver<Vec<u8>>> {
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // If the program does not read its input, the write fails. That is no error, because the
        // program may still answer.
        thread::Builder::new().name("program input".to_owned()).spawn(move || {
            let _ = stdin.write_all(&input);
        })?;
    }
    // Each part has at least one byte, and all parts together have at most this many bytes, so
    // sending never waits.
    let (sender, parts) = sync_channel(ANSWER_BYTES_MAX + 1);
    if let Some(stdout) = child.stdout.take() {
        thread::Builder::new().name("program output".to_owned()).spawn(move || read(stdout, &sender))?;
    }
    Ok(parts)
}

/// Reads the answer, but at most one byte more than [`ANSWER_BYTES_MAX`].
fn read(stdout: ChildStdout, parts: &SyncSender<Vec<u8>>) {
    let mut stdout = stdout.take(ANSWER_BYTES_MAX as u64 + 1);
    let mut part = [0; 512];
    loop {
        match stdout.read(&mut part) {
            Ok(length @ 1..) => {
                if parts.send(part[..length].to_vec()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn wait(child: &mut Child, begun: Instant, limit: Duration) -> Result<ExitStatus, ProgramError> {
    loop {
        match child.try_wait().map_err(ProgramError::Wait)? {
            Some(status) => return Ok(status),
            None if begun.elapsed() < limit => thread::sleep(POLL),
            None => return Err(ProgramError::TooSlow(limit)),
        }
    }
}

/// Returns the output of a program that has ended.
fn collect(parts: &Receiver<Vec<u8>>) -> Result<Vec<u8>, ProgramError> {
    let (ended, mut answer) = (Instant::now(), Vec::new());
    while let Ok(part) = parts.recv_timeout(GRACE.saturating_sub(ended.elapsed())) {
        answer.extend_from_slice(&part);
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(ProgramError::TooLong);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    fn shell(script: &str, input: &[u8]) -> Result<Vec<u8>, ProgramError> {
        let command = ["sh", "-c", script].map(str::to_owned);
        ask_within(if script.contains("exec sleep") { SHORT } else { TIMEOUT }, &command, input)
    }

    #[test]
    fn an_answer_is_what_the_program_prints() {
        assert_eq!(shell("cat", b"text").expect("an answer"), b"text");
        assert_eq!(shell("echo one; echo two", b"").expect("an answer"), b"one\ntwo\n");
        let longest = "x".repeat(ANSWER_BYTES_MAX);
        assert_eq!(shell("cat", longest.as_bytes()).expect("an answer"), longest.as_bytes());
    }

    #[test]
    fn no_program_holds_up_its_caller() {
        let begun = Instant::now();
        // The program ends without reading its input, which is larger than a pipe.
        assert_eq!(shell("echo done", &vec![b'x'; 1 << 20]).expect("an answer"), b"done\n");
        // A program that prints without end, one that never ends, and one with a child that keeps
        // the pipe open.
        assert!(matches!(shell("exec yes", b""), Err(ProgramError::TooLong)));
        assert!(matches!(shell("exec sleep 20", b""), Err(ProgramError::TooSlow(limit)) if limit == SHORT));
        assert_eq!(shell("sleep 20 & echo done", b"").expect("an answer"), b"done\n");
        assert!(begun.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn errors_have_neither_the_question_nor_the_answer() {
        for (script, part) in
            [("cat; exit 3", "exit status: 3"), ("cat; yes hunter2", "more than 4096 bytes")]
        {
            let error = shell(script, b"hunter2").expect_err(script);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        assert!(matches!(ask(&[], b""), Err(ProgramError::NotGiven)));
        assert!(matches!(ask(&["/nonexistent".to_owned()], b""), Err(ProgramError::Start(_))));
    }
}
