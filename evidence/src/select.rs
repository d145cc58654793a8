//! Writes the records of the rows that a question chose, and their proofs, file by file.
//!
//! Invariant: every chosen row is found in a file of a signed commit and is proven; otherwise there
//! is an error. Files are read in commit order and their records in row order. Memory holds one
//! file at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use arrow_array::{Array as _, StringArray};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_archive::delta::facts::{AddFacts, timestamp};
use strongroom_archive::error::RowsError;
use strongroom_archive::sealed_rows::SealedRows;
use strongroom_archive::{Archive, Records};
use strongroom_proof::prove::{
    CheckpointPart, CommitPart, EVENT_CLAIMS, FORMAT, Proof, RecordPart, check_each, claims,
};
use strongroom_proof::verify::{Watch, Witnesses};
use strongroom_schemas::record::{Sha256Hash as Hash, leaf_hash, record_hash};
use strongroom_schemas::{Table, VolumeId};
use strongroom_store::{background, layout};
use strongroom_tlog::keys::Keys;
use strongroom_tlog::note::base64;
use strongroom_tlog::tree::Paths;

use super::chosen::Chosen;
use super::error::EvidenceError;
use super::ledger::{Entry, Ledger, ListedFile, times};
use super::manifest::{ALERTS, HeadEntry, PackFile, RECORDS};
use super::question::Span;

/// Maximum number of records in one piece of proof, which is one file in `proofs/`.
pub const PROOF_RECORDS_MAX: usize = 4096;
/// A piece of proof is closed when its records and commits have this many bytes.
pub const PROOF_RECORD_BYTES: usize = 8 << 20;
/// Number of rows that are decoded at once.
const BATCH_ROWS: usize = 8192;
const ALERT_ID: &str = "alert_id";
/// Columns that are shown next to an alert so that it can be found again.
const ALERT_CLAIMS: [&str; 1] = [ALERT_ID];

/// The rows that are wanted from the files of a period.
#[derive(Debug)]
pub enum Selection<'s> {
    /// All rows.
    Whole,
    Events(&'s mut Chosen),
    /// Alerts with these ids whose time is in the period.
    Alerts(&'s HashSet<String>),
}

/// The counts of a pack and the files that were written for it.
#[derive(Debug, Default)]
pub struct Selected {
    pub events: u64,
    pub alerts: u64,
    /// Events that were redacted before they were written.
    pub redacted: u64,
    pub proofs: u64,
    /// Files that may contain rows of the period.
    pub named: Vec<ListedFile>,
    /// Files of the pack.
    pub files: Vec<PackFile>,
}

fn refuse(detail: impl Into<String>) -> EvidenceError {
    EvidenceError::NotProvable { detail: detail.into() }
}

fn cannot_write(path: &Path) -> impl Fn(io::Error) -> EvidenceError {
    let path = path.to_owned();
    move |source| EvidenceError::Write { path: path.clone(), source }
}

/// Receives the records of files while the files are read.
trait Sink {
    fn begin(&mut self, log: VolumeId, entry: &Entry, add: &AddFacts) -> Result<(), EvidenceError>;
    fn record(&mut self, record: Selectable<'_>, claims: &mut dyn FnMut() -> Value) -> io::Result<()>;
    /// `hashes` has the hashes of the records of all rows. It is empty if the file was not read
    /// because it cannot have wanted rows.
    fn end(
        &mut self,
        log: VolumeId,
        entry: &Entry,
        add: &AddFacts,
        hashes: Vec<Hash>,
    ) -> Result<(), EvidenceError>;
}

/// A record of a file.
struct Selectable<'r> {
    row: u64,
    bytes: &'r [u8],
    /// The mark of a record that was redacted before it was written.
    mark: Option<&'r str>,
}

/// Passes the wanted rows of a table to `sink`. Returns the number of chosen events that are in no
/// commit of the ledger.
fn read_table(
    (archive, ledger): (&Archive, &Ledger),
    table: Table,
    wanted: &mut Selection<'_>,
    records: &dyn Records,
    sink: &mut dyn Sink,
    watch: &dyn Watch,
) -> Result<u64, EvidenceError> {
    let total: u64 = ledger.adds(table).map(|(.., add)| add.size).sum();
    let mut done = 0;
    for (log, volume) in ledger.volumes.iter().filter(|(log, _)| log.table == table) {
        for entry in &volume.entries {
            let offsets = offsets_of(entry, wanted)?;
            let mut matched = 0;
            for add in &entry.adds {
                sink.begin(*log, entry, add)?;
                let hashes = match may_hold(add, wanted, &offsets) {
                    true => {
                        let place = Place { archive, log: *log, add, span: ledger.span };
                        let (rows, hashes) = read_file(&place, wanted, &offsets, records, sink)?;
                        matched += rows;
                        hashes
                    }
                    false => Vec::new(),
                };
                sink.end(*log, entry, add, hashes)?;
                done += add.size;
                watch.read(done, total);
            }
            let taken: u64 = offsets.values().map(|offsets| offsets.len() as u64).sum();
            if matched < taken {
                return Err(refuse(format!(
                    "{} records in the answer are not in the files of commit {} of {}",
                    taken - matched,
                    entry.index,
                    log.name()
                )));
            }
        }
    }
    Ok(match wanted {
        Selection::Events(chosen) => chosen.left(),
        _ => 0,
    })
}

/// Takes the chosen offsets of each source of a commit, and returns them sorted.
fn offsets_of(entry: &Entry, wanted: &mut Selection<'_>) -> Result<HashMap<String, Vec<i64>>, EvidenceError> {
    let Selection::Events(chosen) = wanted else { return Ok(HashMap::new()) };
    let mut ends: BTreeMap<&str, i64> = BTreeMap::new();
    for (source, (_, last, _)) in entry.adds.iter().flat_map(|add| add.offsets.iter().flatten()) {
        let end = ends.entry(source).or_insert(*last);
        *end = (*end).max(*last);
    }
    let mut offsets = HashMap::new();
    for (source, end) in ends {
        let taken = chosen.take(source, end);
        let taken = taken.map_err(|source| EvidenceError::Read { path: "the chosen rows".into(), source })?;
        if !taken.is_empty() {
            offsets.insert(source.to_owned(), taken);
        }
    }
    Ok(offsets)
}

fn may_hold(add: &AddFacts, wanted: &Selection<'_>, offsets: &HashMap<String, Vec<i64>>) -> bool {
    match wanted {
        Selection::Whole => true,
        Selection::Alerts(ids) => !ids.is_empty(),
        Selection::Events(_) => add.offsets.iter().flatten().any(|(source, (first, last, _))| {
            let chosen = offsets.get(source).map_or(&[][..], Vec::as_slice);
            chosen.get(chosen.partition_point(|offset| offset < first)).is_some_and(|offset| offset <= last)
        }),
    }
}

/// A file of the archive.
struct Place<'p> {
    archive: &'p Archive,
    log: VolumeId,
    add: &'p AddFacts,
    span: Span,
}

/// Passes the wanted rows of a file to `sink`. Returns their number and the hashes of the records
/// of all rows.
fn read_file(
    place: &Place<'_>,
    wanted: &Selection<'_>,
    chosen: &HashMap<String, Vec<i64>>,
    records: &dyn Records,
    sink: &mut dyn Sink,
) -> Result<(u64, Vec<Hash>), EvidenceError> {
    let Place { archive, log, add, span } = place;
    let path = archive.site().volume(*log).join(&add.path);
    let wrong = |detail: &str| refuse(format!("{}: {detail}", path.display()));
    let contents = archive.contents_of(&path, add.size, add.version.as_deref());
    let bytes = contents.read_blocking(0..add.size);
    let bytes = bytes.map_err(|source| EvidenceError::Read { path: path.clone(), source })?;
    if add.record_root.is_none() || add.sha256.is_none() {
        return Err(wrong("its commit has no record_root, so its records cannot be proven"));
    }
    if add.sha256 != Some(Hash::of(&bytes)) {
        return Err(wrong("its SHA-256 differs from its commit"));
    }
    let unreadable = |error: RowsError| wrong(&error.to_string());
    let names: &[&str] = if log.table == Table::Events { &EVENT_CLAIMS } else { &ALERT_CLAIMS };
    let (mut hashes, mut matched) = (Vec::new(), 0);
    for batch in SealedRows::open(bytes, log.table, BATCH_ROWS).map_err(unreadable)? {
        let batch = batch.map_err(unreadable)?;
        let offsets = batch.offsets().map_err(|error| unreadable(error.into()))?;
        let marks = batch.marks().map_err(|error| unreadable(error.into()))?;
        let times = batch.times().map_err(|error| unreadable(error.into()))?;
        let ids = batch.column::<StringArray>(ALERT_ID).ok();
        let is_wanted = |row: usize| match wanted {
            Selection::Whole => true,
            Selection::Events(_) => offsets.of(row).is_some_and(|(source, offset)| {
                chosen.get(source).is_some_and(|chosen| chosen.binary_search(&offset).is_ok())
            }),
            Selection::Alerts(wanted) => {
                times.is_valid(row)
                    && span.holds(times.value(row))
                    && ids.is_some_and(|ids| ids.is_valid(row) && wanted.contains(ids.value(row)))
            }
        };
        let mut failed = None;
        let each = &mut |row: usize, record: &[u8]| {
            if failed.is_none() && is_wanted(row) {
                matched += 1;
                let claims = &mut || claims(&batch, offsets, row, names);
                let record = Selectable { row: hashes.len() as u64, bytes: record, mark: marks.of(row) };
                failed = sink.record(record, claims).err();
            }
            hashes.push(record_hash(marks.of(row), record));
        };
        batch.each_record(records, each).map_err(unreadable)?;
        if let Some(source) = failed {
            return Err(EvidenceError::Write { path: "the pack".into(), source });
        }
    }
    Ok((matched, hashes))
}

/// A file of the pack, hashed while it is written.
pub(super) struct Hashed {
    name: String,
    path: PathBuf,
    out: BufWriter<File>,
    sha256: Sha256,
    bytes: u64,
}

impl Hashed {
    pub(super) fn create(folder: &Path, name: &str) -> Result<Hashed, EvidenceError> {
        let path = folder.join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let out = BufWriter::with_capacity(1 << 20, file.map_err(cannot_write(&path))?);
        Ok(Hashed { name: name.to_owned(), path, out, sha256: Sha256::new(), bytes: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<PackFile, EvidenceError> {
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        synced.map_err(cannot_write(&self.path))?;
        let sha256 = Hash(self.sha256.finalize().into()).to_string();
        Ok(PackFile { name: self.name, bytes: self.bytes, sha256 })
    }
}

/// Writes records and pieces of proof.
struct PackWriter<'w> {
    archive: &'w Archive,
    ledger: &'w Ledger,
    folder: &'w Path,
    table: Table,
    out: Hashed,
    /// Position in `out` of the first record of the current file.
    begun: u64,
    /// Row, length and claims of each record of the current file, one per line.
    spool: BufWriter<File>,
    spooled: u64,
    piece: Proof,
    piece_bytes: usize,
    written: Selected,
}

impl<'w> PackWriter<'w> {
    fn empty_piece(ledger: &Ledger) -> Proof {
        Proof {
            format: FORMAT.to_owned(),
            archive_id: ledger.archive_id.clone(),
            manifest: base64(&ledger.manifest),
            keys: ledger.key_notes.clone(),
            checkpoints: Vec::new(),
            commits: Vec::new(),
            records: Vec::new(),
        }
    }

    fn new(archive: &'w Archive, ledger: &'w Ledger, folder: &'w Path) -> Result<Self, EvidenceError> {
        let spool = tempfile::tempfile_in(folder).map_err(cannot_write(folder))?;
        Ok(PackWriter {
            archive,
            ledger,
            folder,
            table: Table::Events,
            out: Hashed::create(folder, RECORDS)?,
            begun: 0,
            spool: BufWriter::new(spool),
            spooled: 0,
            piece: Self::empty_piece(ledger),
            piece_bytes: 0,
            written: Selected::default(),
        })
    }

    /// Ends the file of events and starts that of alerts.
    fn go_on(&mut self, table: Table) -> Result<(), EvidenceError> {
        let out = std::mem::replace(&mut self.out, Hashed::create(self.folder, ALERTS)?);
        self.written.files.push(out.finish()?);
        self.table = table;
        Ok(())
    }

    fn finish(mut self) -> Result<Selected, EvidenceError> {
        self.end_piece()?;
        self.written.files.push(self.out.finish()?);
        Ok(self.written)
    }

    /// Returns the position of a commit in the piece. Adds the commit and its checkpoint if they
    /// are missing.
    fn place_of_commit(&mut self, log: VolumeId, entry: &Entry) -> Result<usize, EvidenceError> {
        let volume = &self.ledger.volumes[&log];
        let checkpoints = &mut self.piece.checkpoints;
        let known = checkpoints.iter().position(|part| part.volume() == Some(log));
        let checkpoint = known.unwrap_or_else(|| {
            checkpoints.push(CheckpointPart::of(log, volume.note.clone()));
            checkpoints.len() - 1
        });
        let is_it = |part: &CommitPart| part.checkpoint == checkpoint && part.index == entry.index;
        if let Some(at) = self.piece.commits.iter().rposition(is_it) {
            return Ok(at);
        }
        let path = layout::commit(&self.archive.site().volume(log), entry.index);
        let (store, at) = (self.archive.site().store.clone(), path.clone());
        let bytes = background::wait_io(async move { store.read_present(&at).await });
        let bytes = bytes.map_err(|source| EvidenceError::Read { path: path.clone(), source })?;
        if leaf_hash(&bytes) != entry.leaf {
            return Err(refuse(format!("{} changed while it was read", path.display())));
        }
        let hashes = volume.paths.of(entry.index).iter().map(Hash::to_string).collect();
        self.piece_bytes += bytes.len();
        self.piece.commits.push(CommitPart {
            checkpoint,
            index: entry.index,
            commit: base64(&bytes),
            path: hashes,
        });
        Ok(self.piece.commits.len() - 1)
    }

    fn end_piece(&mut self) -> Result<(), EvidenceError> {
        if self.piece.records.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Self::empty_piece(self.ledger));
        self.piece_bytes = 0;
        // Check the piece as a stranger would, so that an invalid proof is never written.
        check_each(&piece, &[], &Witnesses::default(), &mut |_| Ok(())).map_err(refuse)?;
        self.written.proofs += 1;
        let name = format!("proofs/{:08}.json", self.written.proofs);
        let mut out = Hashed::create(self.folder, &name)?;
        let text = serde_json::to_vec(&piece).map_err(|error| refuse(error.to_string()))?;
        out.write(&text).and_then(|()| out.write(b"\n")).map_err(cannot_write(&out.path))?;
        self.written.files.push(out.finish()?);
        Ok(())
    }
}

impl Sink for PackWriter<'_> {
    fn begin(&mut self, _: VolumeId, _: &Entry, _: &AddFacts) -> Result<(), EvidenceError> {
        self.begun = self.out.bytes;
        self.spooled = 0;
        let rewound = self.spool.flush().and_then(|()| self.spool.get_ref().set_len(0));
        let rewound = rewound.and_then(|()| self.spool.seek(SeekFrom::Start(0)).map(drop));
        rewound.map_err(cannot_write(self.folder))
    }

    fn record(&mut self, record: Selectable<'_>, claims: &mut dyn FnMut() -> Value) -> io::Result<()> {
        self.out.write(record.bytes)?;
        self.out.write(b"\n")?;
        self.spooled += 1;
        self.written.redacted += u64::from(record.mark.is_some());
        writeln!(self.spool, "{}", json!([record.row, record.bytes.len(), record.mark, claims()]))
    }

    fn end(
        &mut self,
        log: VolumeId,
        entry: &Entry,
        add: &AddFacts,
        hashes: Vec<Hash>,
    ) -> Result<(), EvidenceError> {
        self.written.named.push(named(log, entry.index, add, self.spooled)?);
        if self.spooled == 0 {
            return Ok(());
        }
        let rows = hashes.len() as u64;
        let paths = Paths::over(hashes);
        if add.rows != Some(rows) || add.record_root != paths.root() {
            return Err(refuse(format!(
                "{}/{}: its records differ from the sealed ones",
                log.name(),
                add.path
            )));
        }
        let failed = cannot_write(self.folder);
        self.out.out.flush().and_then(|()| self.spool.flush()).map_err(&failed)?;
        let file = self.spool.get_ref().try_clone().map_err(&failed)?;
        let mut lines = BufReader::new(file);
        lines.seek(SeekFrom::Start(0)).map_err(&failed)?;
        let (mut at, mut line) = (self.begun, String::new());
        for _ in 0..self.spooled {
            line.clear();
            lines.read_line(&mut line).map_err(&failed)?;
            let spooled: (u64, usize, Option<String>, Value) =
                serde_json::from_str(&line).map_err(|error| refuse(error.to_string()))?;
            let (row, length, redaction, claims) = spooled;
            let mut record = vec![0; length];
            self.out.out.get_ref().read_exact_at(&mut record, at).map_err(&failed)?;
            at += length as u64 + 1;
            let commit = self.place_of_commit(log, entry)?;
            let path = paths.of(row).iter().map(Hash::to_string).collect();
            self.piece_bytes += length;
            let (file, record) = (add.path.clone(), base64(&record));
            self.piece.records.push(RecordPart { commit, file, row, record, redaction, path, claims });
            match log.table {
                Table::Alerts => self.written.alerts += 1,
                _ => self.written.events += 1,
            }
            if self.piece.records.len() >= PROOF_RECORDS_MAX || self.piece_bytes >= PROOF_RECORD_BYTES {
                self.end_piece()?;
            }
        }
        // The spool is overwritten from its start for the next file.
        self.spool.seek(SeekFrom::Start(0)).map_err(&failed)?;
        Ok(())
    }
}

fn named(log: VolumeId, commit: u64, add: &AddFacts, chosen: u64) -> Result<ListedFile, EvidenceError> {
    let missing = || refuse(format!("{}/{}: some tags of its commit are missing", log.name(), add.path));
    let times = times(log.table, add);
    Ok(ListedFile {
        log: log.name(),
        commit,
        file: add.path.clone(),
        bytes: add.size,
        rows: add.rows.ok_or_else(missing)?,
        chosen,
        sha256: add.sha256.ok_or_else(missing)?.to_string(),
        record_root: add.record_root.ok_or_else(missing)?.to_string(),
        version_id: add.version.clone(),
        time_min: times.and_then(|(first, _)| timestamp(first)),
        time_max: times.and_then(|(_, last)| timestamp(last)),
        offsets: add.offsets.clone().unwrap_or_default(),
    })
}

/// Writes `records.jsonl`, `alerts.jsonl` and `proofs/` into `folder`. For a complete pack, it also
/// writes `commits/`.
///
/// # Errors
/// [`EvidenceError::NotProvable`] if a chosen row is not in a signed commit, or if its record
/// differs from what was signed.
pub fn write_pack_records(
    (archive, ledger): (&Archive, &Ledger),
    mut events: Selection<'_>,
    mut alerts: Selection<'_>,
    records: &dyn Records,
    folder: &Path,
    watch: &dyn Watch,
) -> Result<Selected, EvidenceError> {
    let proofs = folder.join("proofs");
    std::fs::create_dir(&proofs).map_err(cannot_write(&proofs))?;
    let complete = matches!(events, Selection::Whole);
    let mut writer = PackWriter::new(archive, ledger, folder)?;
    let left = read_table((archive, ledger), Table::Events, &mut events, records, &mut writer, watch)?;
    if left > 0 {
        return Err(refuse(format!("{left} records are not in a signed commit yet")));
    }
    writer.go_on(Table::Alerts)?;
    read_table((archive, ledger), Table::Alerts, &mut alerts, records, &mut writer, watch)?;
    let mut written = writer.finish()?;
    if complete {
        let commits = folder.join("commits");
        std::fs::create_dir(&commits).map_err(cannot_write(&commits))?;
        for (log, volume) in &ledger.volumes {
            written.files.push(write_commits(archive, *log, volume.head.size, folder)?);
        }
    }
    Ok(written)
}

/// Writes every commit of a volume up to its checkpoint, one per line.
fn write_commits(
    archive: &Archive,
    log: VolumeId,
    size: u64,
    folder: &Path,
) -> Result<PackFile, EvidenceError> {
    let mut out = Hashed::create(folder, &format!("commits/{}-{}.jsonl", log.table.name(), log.period))?;
    for index in 0..size {
        let path = layout::commit(&archive.site().volume(log), index);
        let (store, at) = (archive.site().store.clone(), path.clone());
        let bytes = background::wait_io(async move { store.read_present(&at).await });
        let bytes = bytes.map_err(|source| EvidenceError::Read { path, source })?;
        let line = format!("{}\n", json!({ "index": index, "commit": base64(&bytes) }));
        out.write(line.as_bytes()).map_err(cannot_write(&out.path))?;
    }
    out.finish()
}

impl Ledger {
    /// Returns the heads in the form of a manifest.
    pub fn head_entries(&self) -> Vec<HeadEntry> {
        let entries = self.volumes.iter().map(|(log, volume)| HeadEntry {
            log: log.origin(&self.archive_id),
            size: volume.head.size,
            root: base64(&volume.head.root.0),
            note: volume.note.clone(),
        });
        entries.collect()
    }

    /// Returns `strongroom.json` in base64, and the texts of the key records.
    pub fn identity(&self) -> (String, Vec<String>) {
        (base64(&self.manifest), self.key_notes.clone())
    }

    /// Returns the archive's keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}

/// A [`Sink`] that hashes the records of a pack without writing them.
struct Fingerprint {
    sha256: Sha256,
    rows: u64,
    named: Vec<ListedFile>,
}

impl Sink for Fingerprint {
    fn begin(&mut self, _: VolumeId, _: &Entry, _: &AddFacts) -> Result<(), EvidenceError> {
        self.rows = 0;
        Ok(())
    }

    fn record(&mut self, record: Selectable<'_>, _: &mut dyn FnMut() -> Value) -> io::Result<()> {
        self.sha256.update(record.bytes);
        self.sha256.update(b"\n");
        self.rows += 1;
        Ok(())
    }

    fn end(
        &mut self,
        log: VolumeId,
        entry: &Entry,
        add: &AddFacts,
        _: Vec<Hash>,
    ) -> Result<(), EvidenceError> {
        self.named.push(named(log, entry.index, add, self.rows)?);
        Ok(())
    }
}

/// Computes what a pack made now from the same commits would have for a table. Returns the SHA-256
/// of the records, the files that the records are in, and the number of wanted events that are
/// skipped because they are in later commits.
///
/// # Errors
/// Those of [`write_pack_records`].
pub fn fingerprint(
    (archive, ledger): (&Archive, &Ledger),
    table: Table,
    mut wanted: Selection<'_>,
    records: &dyn Records,
    watch: &dyn Watch,
) -> Result<(String, Vec<ListedFile>, u64), EvidenceError> {
    let mut sink = Fingerprint { sha256: Sha256::new(), rows: 0, named: Vec::new() };
    let later = read_table((archive, ledger), table, &mut wanted, records, &mut sink, watch)?;
    Ok((Hash(sink.sha256.finalize().into()).to_string(), sink.named, later))
}
