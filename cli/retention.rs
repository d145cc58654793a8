//! `strongroom retention`: shows how long data is kept, extends that time, and drops what has
//! expired.

use std::io::Write as _;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use strongroom_archive::Archive;
use strongroom_retention::{
    DropRequest, HoldState, Progress, Scope, Status, VolumeStatus, drop_volume, extend,
};
use strongroom_schemas::VolumeId;

use crate::exit::{self, CliError, retention_error};
use crate::key::{KeyArgs, open};
use crate::term;

/// Maximum number of issues that are printed; the JSON document has them all.
const PRINTED_MAX: usize = 50;

/// How long everything is kept: show it, extend it, drop what has expired.
///
/// Retention is extended, never shortened. Expired data stays until a key holder drops its volume
/// by name.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show what is protected until when, what expires next, and what is under hold; exit code 1 if
    /// anything needs attention
    Status(StatusArgs),
    /// Promise more years, and move the date of every object that is locked for less
    Extend(ExtendArgs),
    /// Drop an expired volume; leaves a signed record and the positions of its sources
    Drop(DropArgs),
}

#[derive(clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Write one JSON document
    #[arg(long)]
    json: bool,
}

/// The archive, and whether progress is shown.
#[derive(clap::Args)]
pub struct ArchiveArgs {
    /// The archive: a folder, a file:// or an s3:// URL
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: String,
    /// No progress bar
    #[arg(short, long)]
    quiet: bool,
}

#[derive(clap::Args)]
#[command(after_long_help = "\
Example:
  strongroom retention extend --years 10 --reason \"state law of 2027\" \\
      --key audit.key --archive s3://bucket/prefix

With the years that are promised already, the command finishes what an earlier run started. Run it
again after each writer has sealed once: objects that are written during a run may still get the
earlier promise.")]
struct ExtendArgs {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Calendar years, counted from when each object was written
    #[arg(long, value_name = "N")]
    years: u32,
    /// The reason, in one line; it is kept
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(clap::Args)]
#[command(after_long_help = "\
Example:
  strongroom retention drop --volume events/2019 --confirm events/2019 \\
      --reason \"retention is over\" --key audit.key

The drop is refused while any object of the volume is locked or under hold, if the volume is of the
present year, and without the archive's key. A dropped volume cannot be restored. The same command
finishes a drop that was interrupted.")]
struct DropArgs {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// The volume, as table and period: events/2019, events/2019-0001
    #[arg(long, value_name = "VOLUME", value_parser = volume)]
    volume: VolumeId,
    /// The same volume again, as a confirmation: a drop cannot be undone
    #[arg(long, value_name = "VOLUME", value_parser = volume)]
    confirm: VolumeId,
    /// The reason, in one line; it is kept
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Confirm that this machine's clock is right, although the newest file on the disk is more
    /// than a month old
    #[arg(long)]
    clock_is_right: bool,
    #[command(flatten)]
    key: KeyArgs,
}

/// Parses the name of a volume.
pub fn volume(text: &str) -> Result<VolumeId, String> {
    VolumeId::parse(text).ok_or_else(|| {
        "a volume is a table and a year, or a part of one, such as events/2019 or events/2019-0001".to_owned()
    })
}

pub fn run(args: Args) -> Result<u8, CliError> {
    match args.command {
        Command::Status(args) => status(&args),
        Command::Extend(args) => extend_all(&args),
        Command::Drop(args) => drop_one(&args),
    }
}

impl ArchiveArgs {
    pub fn open(&self, key: Option<&KeyArgs>) -> Result<Archive, CliError> {
        let archive = open(&self.archive)?;
        Ok(match key.map(KeyArgs::signer).transpose()?.flatten() {
            Some(signer) => archive.signed_by(signer),
            None => archive,
        })
    }

    /// Returns a bar over objects, and the callback that moves it.
    pub fn bar(&self) -> (ProgressBar, Progress) {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} objects {eta}") {
            bar.set_style(style);
        }
        let moved = bar.clone();
        let progress: Progress = Arc::new(move |done, total| {
            moved.set_length(total);
            moved.set_position(done);
        });
        (bar, progress)
    }
}

fn extend_all(args: &ExtendArgs) -> Result<u8, CliError> {
    let archive = args.archive.open(Some(&args.key))?;
    let (bar, progress) = args.archive.bar();
    let extended = extend(&archive, args.years, &args.reason, progress).map_err(retention_error)?;
    bar.finish_and_clear();
    let mut out = term::stdout().lock();
    let what = if extended.is_new { "promised" } else { "promised before" };
    writeln!(out, "{what}: {} calendar years", extended.years)?;
    if archive.is_local() {
        writeln!(out, "on a local disk nothing is locked; nothing is dropped before that time")?
    } else {
        writeln!(
            out,
            "{} objects: {} extended, {} already locked for long enough",
            term::count(extended.objects),
            term::count(extended.moved),
            term::count(extended.long_enough)
        )?
    }
    Ok(exit::OK)
}

fn drop_one(args: &DropArgs) -> Result<u8, CliError> {
    if args.confirm != args.volume {
        return Err(CliError::input(anyhow::anyhow!(
            "--volume is {} and --confirm is {}: nothing was dropped",
            args.volume.name(),
            args.confirm.name()
        )));
    }
    let archive = args.archive.open(Some(&args.key))?;
    let drop = DropRequest {
        volume: args.volume,
        reason: args.reason.clone(),
        is_clock_checked: args.clock_is_right,
    };
    let (bar, progress) = args.archive.bar();
    let dropped = drop_volume(&archive, &drop, progress).map_err(retention_error)?;
    bar.finish_and_clear();
    let mut out = term::stdout().lock();
    let record = &dropped.record;
    let what = if dropped.is_new { "dropped" } else { "dropped before" };
    writeln!(
        out,
        "{what}: {} ({} commits, {} files, {} rows), kept until {}, at {}",
        record.log.name(),
        term::count(record.size),
        term::count(record.files),
        term::count(record.rows),
        time(record.until),
        time(record.time)
    )?;
    writeln!(out, "{} objects removed", term::count(dropped.removed))?;
    for name in &dropped.left {
        writeln!(out, "left in place, because it is not the archive's: {}", term::printable(name))?;
    }
    Ok(if dropped.left.is_empty() { exit::OK } else { exit::FINDING })
}

fn status(args: &StatusArgs) -> Result<u8, CliError> {
    let archive = args.archive.open(None)?;
    let (bar, progress) = args.archive.bar();
    let status = strongroom_retention::status(&archive, progress).map_err(retention_error)?;
    bar.finish_and_clear();
    let mut out = term::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", document(&archive, &status)).context("cannot write to standard output")?;
    } else {
        print(&mut out, &status).context("cannot write to standard output")?;
    }
    Ok(if status.issues.is_empty() { exit::OK } else { exit::FINDING })
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Returns the scope of a hold in words.
pub fn scope_text(scope: &Scope) -> String {
    let mut parts = Vec::new();
    parts.extend(scope.from.map(|from| format!("from {}", time(from))));
    parts.extend(scope.to.map(|to| format!("to {}", time(to))));
    parts.extend(scope.namespace.as_ref().map(|name| format!("namespace {}", term::printable(name))));
    parts.extend(scope.user.as_ref().map(|name| format!("user {}", term::printable(name))));
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}

/// Returns a hold as JSON.
pub fn hold_json(hold: &HoldState) -> Value {
    let Scope { from, to, namespace, user } = &hold.scope;
    json!({
        "name": hold.name,
        "reason": hold.reason,
        "placed": time(hold.placed),
        "from": from.map(time),
        "to": to.map(time),
        "namespace": namespace,
        "user": user,
        "released": hold.released.as_ref().map(|(at, reason)| json!({ "time": time(*at), "reason": reason })),
        "objects": hold.objects,
        "files": hold.files,
    })
}

fn document(archive: &Archive, status: &Status) -> Value {
    let volume = |volume: &VolumeStatus| {
        json!({
            "volume": volume.name,
            "commits": volume.commits,
            "files": volume.files,
            "rows": volume.rows,
            "bytes": volume.bytes,
            "objects": volume.objects,
            "first": volume.first.map(time),
            "until": volume.until.map(time),
            "held": volume.held,
            "wanting": volume.wanting,
            "past": volume.is_past,
        })
    };
    let policy = &status.policy;
    let records = policy.records.iter().map(|record| {
        json!({ "number": record.number, "time": time(record.time), "years": record.years, "reason": record.reason })
    });
    let dropped = status.dropped.iter().map(|record| {
        json!({
            "volume": record.log.name(),
            "time": time(record.time),
            "size": record.size,
            "files": record.files,
            "rows": record.rows,
            "until": time(record.until),
            "reason": record.reason,
        })
    });
    json!({
        "archive_id": archive.id(),
        "location": archive.root().display().to_string(),
        "years": policy.years,
        "mode": status.mode,
        "records": records.collect::<Vec<_>>(),
        "clock": {
            "now": time(status.clock.now),
            "trusted": status.clock.says,
            "doubt": status.clock.doubt,
        },
        "volumes": status.volumes.iter().map(volume).collect::<Vec<_>>(),
        "next": status.next().map(|next| &next.name),
        "holds": status.holds.iter().map(hold_json).collect::<Vec<_>>(),
        "dropped": dropped.collect::<Vec<_>>(),
        "issues": status.issues,
    })
}

fn print(out: &mut impl std::io::Write, status: &Status) -> std::io::Result<()> {
    let day =
        |time: Option<DateTime<Utc>>| time.map_or("-".to_owned(), |time| time.format("%Y-%m-%d").to_string());
    let lock = match status.mode {
        Some(mode) => format!("locked in mode {}", mode.as_str()),
        None => "not locked: on a local disk, anyone who may write may also delete".to_owned(),
    };
    writeln!(out, "kept for {} calendar years; {lock}", status.policy.years)?;
    writeln!(out, "assumed time: {} ({})", time(status.clock.now), status.clock.says)?;
    if let Some(doubt) = &status.clock.doubt {
        writeln!(out, "doubtful: {doubt}")?;
    }
    if !status.volumes.is_empty() {
        writeln!(
            out,
            "\n{:<16} {:>10} {:>14} {:>11} {:>12} {:>12} {:>8} {:>8}",
            "VOLUME", "FILES", "ROWS", "SIZE", "FIRST", "UNTIL", "HELD", "WANTING"
        )?;
    }
    for volume in &status.volumes {
        let name = if volume.name.is_empty() { "(records)" } else { &volume.name };
        writeln!(
            out,
            "{name:<16} {:>10} {:>14} {:>11} {:>12} {:>12} {:>8} {:>8}{}",
            term::count(volume.files),
            term::count(volume.rows),
            term::bytes(volume.bytes),
            day(volume.first),
            day(volume.until),
            term::count(volume.held),
            term::count(volume.wanting),
            if volume.is_past { "  past" } else { "" }
        )?;
    }
    if let Some(next) = status.next() {
        writeln!(out, "\nnext to expire: {}, after {}", next.name, day(next.until))?;
    }
    for volume in status.volumes.iter().filter(|volume| volume.is_past) {
        writeln!(
            out,
            "expired: {}; it stays until strongroom retention drop --volume {0} --confirm {0}",
            volume.name
        )?;
    }
    for record in &status.dropped {
        let reason = term::printable(&record.reason);
        writeln!(out, "dropped: {} at {} ({reason})", record.log.name(), time(record.time))?;
    }
    for hold in status.holds.iter().filter(|hold| hold.released.is_none()) {
        let (name, scope) = (term::printable(&hold.name), scope_text(&hold.scope));
        writeln!(out, "hold {name}: {scope}; on {} objects", term::count(hold.objects))?;
    }
    let style = Style::new().fg_color(Some(AnsiColor::Red.into()));
    for issue in status.issues.iter().take(PRINTED_MAX) {
        let (place, detail) = (term::printable(&issue.place), term::printable(&issue.detail));
        writeln!(out, "{style}ISSUE{style:#}  {}: {place}: {detail}", issue.kind)?;
    }
    if status.issues.len() > PRINTED_MAX {
        writeln!(out, "… and {} more", status.issues.len() - PRINTED_MAX)?;
    }
    Ok(())
}
