//! Helpers that the tests of the binary share: they run it, and make logs for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use strongroom_generate::{Generator, GeneratorOptions};

/// A command that runs the binary under test. Settings of Strongroom in the environment of the
/// tests are removed.
pub fn strongroom() -> Command {
    strongroom_at(Path::new(env!("CARGO_BIN_EXE_strongroom")))
}

/// Like [`strongroom`], for a copy of the binary.
pub fn strongroom_at(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_remove("STRONGROOM_ARCHIVE").env("NO_COLOR", "1").stdin(Stdio::null());
    for name in
        ["KEY", "KEY_FILE", "SIGNER", "SIGNER_PUBLIC_KEY", "PUBLIC_KEY", "WITNESSES", "WITNESS_KEY_FILE"]
    {
        command.env_remove(format!("STRONGROOM_{name}"));
    }
    command
}

pub fn output(command: &mut Command) -> Output {
    command.output().expect("the binary starts")
}

/// Runs a command that must end with `code`, and returns its standard output and standard error.
pub fn expect_code(command: &mut Command, code: i32) -> (String, String) {
    let output = output(command);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{out}\n{err}");
    (out, err)
}

pub fn ingest(archive: &Path, logs: &[&Path]) -> Command {
    let mut command = strongroom();
    command
        .args(["ingest", "--cluster", "test", "--print-alerts", "critical", "--archive"])
        .arg(archive)
        .args(logs);
    command
}

/// Exports all sources of an archive, and returns the bytes.
pub fn export(archive: &Path) -> Vec<u8> {
    let output = output(strongroom().args(["export", "--archive"]).arg(archive));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs a statement whose answer is one number, and returns the number.
pub fn number(archive: &Path, sql: &str) -> i64 {
    let (out, _) =
        expect_code(strongroom().args(["query", "--format", "csv", "--archive"]).arg(archive).arg(sql), 0);
    out.lines().nth(1).unwrap_or_default().parse().unwrap_or_else(|_| panic!("{sql}: {out}"))
}

/// Returns a generated log. It has attacks if there are enough events for them.
pub fn log(events: u64, seed: u64) -> Vec<u8> {
    let options = GeneratorOptions { seed, events, attacks: events >= 5_000, ..GeneratorOptions::default() };
    let mut generator = Generator::new(options).expect("valid options");
    let mut log = Vec::new();
    while generator.next_line(&mut log) {}
    log
}

pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a file in a temporary folder");
    path
}

/// Like [`write`], but only the owner of the file can read it.
pub fn write_secret(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = write(folder, name, bytes);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("the file belongs to this user");
    path
}

/// True if the tests run with `./tests/run --long`, which asks for more work than usual.
pub fn is_long() -> bool {
    std::env::var_os("STRONGROOM_LONG").is_some_and(|value| value == "1")
}
