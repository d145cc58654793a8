//! `strongroom export`: writes the original lines of an archive, byte for byte.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampMicrosecondType;
use strongroom_archive::{Archive, Rows, Source};
use strongroom_decode::stream::{self, Lines};
use strongroom_ingest::export;
use strongroom_ingest::pipeline::EMPTY;
use strongroom_schemas::Table;
use strongroom_schemas::events::index::STAGE_TIMESTAMP;

use crate::exit::{self, CliError, archive_error};
use crate::term;

/// Write the original lines, byte for byte, rejects included, in the order of their source.
///
/// A source whose records were redacted or encrypted before they were stored cannot be given back.
/// For such a source the stored records are written, one per line, without encrypted rejects; a
/// line on standard error says so.
///
/// Sources follow each other in the order in which they were first sealed. Sources that were first
/// sealed together, such as rotated files of one run, follow in the order of their first events.
#[derive(clap::Args)]
pub struct Args {
    /// The archive: a folder, a file:// or an s3:// URL
    #[arg(long, env = "STRONGROOM_ARCHIVE", value_name = "LOCATION")]
    archive: String,
    /// Only this source, by its partition or by the end of its path (repeatable)
    #[arg(long, value_name = "SOURCE")]
    source: Vec<String>,
    /// List the sources, and write no lines
    #[arg(long, conflicts_with_all = ["output", "source"])]
    list: bool,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print no summary on standard error
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let archive = Archive::open(&args.archive).map_err(archive_error)?;
    let sources = sources(&archive)?;
    if args.list {
        return list(&sources);
    }
    let chosen: Vec<&Source> = if args.source.is_empty() {
        sources.iter().collect()
    } else {
        let mut chosen = Vec::new();
        for wanted in &args.source {
            let found = sources
                .iter()
                .filter(|source| source.partition == *wanted || source.label.ends_with(wanted.as_str()));
            let mut known = false;
            for source in found {
                known = true;
                // A stream that is named twice is written once.
                if !chosen.iter().any(|other: &&Source| other.partition == source.partition) {
                    chosen.push(source);
                }
            }
            if !known {
                return Err(CliError::input(anyhow::anyhow!(
                    "the archive has no source \"{}\"",
                    term::printable(wanted)
                ))
                .with_hint("list them with strongroom export --list"));
            }
        }
        chosen
    };
    let write = |out: &mut dyn Write| write_sources(&archive, &chosen, out);
    let (records, bytes);
    match &args.output {
        Some(path) => {
            let cannot = || format!("cannot write {}", path.display());
            let file = File::create(path).with_context(cannot)?;
            let mut out = BufWriter::with_capacity(1 << 20, file);
            (records, bytes) = write(&mut out)?;
            out.into_inner()
                .map_err(std::io::IntoInnerError::into_error)
                .and_then(|file| file.sync_all())
                .with_context(cannot)?;
        }
        None => {
            let mut out = BufWriter::with_capacity(1 << 20, term::data());
            (records, bytes) = write(&mut out)?;
            out.flush().context("cannot write to standard output")?;
        }
    }
    if !args.quiet && (args.output.is_some() || !std::io::stdout().is_terminal()) {
        writeln!(
            term::stderr(),
            "exported {} records, {} from {} source{}",
            term::count(records),
            term::bytes(bytes),
            chosen.len(),
            if chosen.len() == 1 { "" } else { "s" }
        )?;
    }
    Ok(exit::OK)
}

/// Returns the sources of an archive, in the order in which they are written.
fn sources(archive: &Archive) -> Result<Vec<Source>, CliError> {
    let sources = archive.sources().map_err(archive_error)?;
    let mut keyed = Vec::with_capacity(sources.len());
    let partitions: Vec<&str> = sources.iter().map(|source| source.partition.as_str()).collect();
    let mut rows = None;
    for (at, source) in sources.iter().enumerate() {
        let is_of =
            |at: usize| sources.get(at).is_some_and(|other| other.first_commit == source.first_commit);
        // A source that was first sealed alone needs no time to find its place in the order.
        let shares = is_of(at + 1) || at.checked_sub(1).is_some_and(is_of);
        // Of the sources of one seal, those without a time are last.
        let first = if shares {
            let rows = match &mut rows {
                Some(rows) => rows,
                none => {
                    none.insert(archive.read_partitions(Table::Events, &partitions).map_err(archive_error)?)
                }
            };
            rows.begin(&source.partition);
            first_event(rows)?
        } else {
            None
        };
        keyed.push(((source.first_commit, first.is_none(), first), source.clone()));
    }
    keyed.sort_by_key(|(key, _)| *key);
    Ok(keyed.into_iter().map(|(_, source)| source).collect())
}

/// Returns the time of the first event of a partition, among its first rows.
fn first_event(rows: &mut Rows) -> Result<Option<i64>, CliError> {
    let rows = rows.next();
    let Some(batch) = rows.transpose().map_err(archive_error)? else { return Ok(None) };
    let times = batch.column(STAGE_TIMESTAMP).as_primitive_opt::<TimestampMicrosecondType>();
    Ok(times.and_then(|times| times.iter().flatten().next()))
}

/// Writes all sources of `archive`; returns the number of records.
pub fn everything(archive: &Archive, out: &mut dyn Write) -> Result<u64, CliError> {
    let sources = sources(archive)?;
    let chosen: Vec<&Source> = sources.iter().collect();
    Ok(write_sources(archive, &chosen, out)?.0)
}

/// Writes streams one after the other; returns records and bytes.
fn write_sources(
    archive: &Archive,
    sources: &[&Source],
    out: &mut dyn Write,
) -> Result<(u64, u64), CliError> {
    let (mut records, mut bytes) = (0, 0);
    let partitions: Vec<&str> = sources.iter().map(|source| source.partition.as_str()).collect();
    let redacted = export::redacted_partitions(archive, &partitions).map_err(archive_error)?;
    let read = |table| archive.read_partitions(table, &partitions).map_err(archive_error);
    let mut rows = [read(Table::Events)?, read(Table::Rejects)?];
    for source in sources.iter().filter(|source| !source.partition.starts_with(EMPTY)) {
        let [events, rejects] = rows.each_mut().map(|rows| {
            rows.begin(&source.partition);
            rows.by_ref().map(|batch| batch.map_err(anyhow::Error::from))
        });
        let (position, start) = (&source.position, source.dropped_before);
        let cannot = || format!("cannot export {} ({})", source.partition, term::printable(&source.label));
        if redacted.contains(&source.partition) {
            let lines = export::redacted_stream(events, rejects, start, position, &mut *out);
            let lines = lines.with_context(cannot)?;
            tell_redacted(&source.label, lines).context("cannot write to standard error")?;
            records += lines.records - lines.kept_back;
            bytes += lines.bytes;
            continue;
        }
        let written = match start {
            0 => export::sealed_stream(events, rejects, &source.partition, position, &mut *out),
            _ => stream::write_range(events, rejects, start..position.next_offset, &mut *out),
        };
        let written = written.with_context(cannot)?;
        records += written;
        bytes += u64::try_from(position.next_offset - start).unwrap_or(0);
        if start > 0 {
            writeln!(
                term::stderr(),
                "{}: the part before offset {start} was in a volume that was dropped; the hash over the whole \
                 cannot be checked any more",
                term::printable(&source.label)
            )
            .context("cannot write to standard error")?;
        }
    }
    Ok((records, bytes))
}

/// Reports on standard error that the records of a source were written as they are stored, and not
/// as they were received.
fn tell_redacted(label: &str, lines: Lines) -> std::io::Result<()> {
    let mut err = term::stderr().lock();
    let (label, redacted) = (term::printable(label), term::count(lines.redacted));
    let of = term::count(lines.records);
    writeln!(
        err,
        "{label}: {redacted} of {of} records were redacted before they were stored, so these are not the bytes received: \
         each record is one line, without what was around it"
    )?;
    if lines.kept_back > 0 {
        let count = term::count(lines.kept_back);
        writeln!(
            err,
            "{label}: {count} rejects are encrypted and left out; strongroom redact decrypt reads them with the key"
        )?;
    }
    Ok(())
}

fn list(sources: &[Source]) -> Result<u8, CliError> {
    let mut out = term::stdout().lock();
    for source in sources {
        writeln!(
            out,
            "{}\t{} bytes\t{} records\t{}",
            source.partition,
            source.position.next_offset,
            source.position.records,
            term::printable(&source.label)
        )?;
    }
    Ok(exit::OK)
}
