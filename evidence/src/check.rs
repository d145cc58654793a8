//! Checks a pack without any other data: the checks that `docs/proof.md` lists, under the same
//! names.
//!
//! Invariants: no statement of a pack is believed before it is proven. Everything that cannot be
//! proven from the pack alone is reported in words. Only files below the pack's folder are read. A
//! path that the pack names is opened only if it has one of the allowed forms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_archive::delta::facts::{AddFacts, micros, parse_commit};
use strongroom_proof::prove::{CheckpointPart, FORMAT as PROOF_FORMAT, Proof, RecordLocation, check_each};
use strongroom_proof::verify::{Finding, FindingKind, Watch, Witnesses};
use strongroom_schemas::record::{Sha256Hash as Hash, leaf_hash};
use strongroom_schemas::{Period, Table, VolumeId};
use strongroom_tlog::checkpoint::TreeHead;
use strongroom_tlog::keys::KeyRecord;
use strongroom_tlog::note::{Note, PublicKey, base64, from_base64};
use strongroom_tlog::tree::CompactRange;

use super::ledger::{ListedFile, times};
use super::manifest::{ALERTS, FILES, MANIFEST, MANIFEST_NOTE, Manifest, RECORDS, check_note};

/// Maximum size of a pack file that is read whole.
const WHOLE_BYTES_MAX: u64 = 1 << 30;
/// Maximum number of findings that are kept.
const FINDINGS_MAX: usize = 1000;
/// Files that every pack has in addition to its manifest.
const ALWAYS: [&str; 8] =
    [RECORDS, ALERTS, FILES, "gaps.json", "store.json", "verification.json", "report.html", "VERIFY.md"];

/// The outcome of checking a pack.
#[derive(Clone, Debug, Default)]
pub struct PackReport {
    pub manifest: Option<Manifest>,
    pub findings: Vec<Finding>,
    pub not_checked: Vec<String>,
    pub files: u64,
    pub proofs: u64,
    pub events: u64,
    pub alerts: u64,
    /// Events that were redacted before they were written.
    pub redacted: u64,
    /// The heads whose signatures are valid.
    pub heads: Vec<TreeHead>,
    /// The newest archive key named in the pack.
    pub key: Option<PublicKey>,
}

impl PackReport {
    /// Adds a finding.
    pub fn find(&mut self, kind: FindingKind, place: impl Into<String>, detail: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, place: place.into(), detail: detail.into() });
        }
    }

    /// Returns the report in the format of `docs/proof.md`.
    pub fn to_json(&self) -> Value {
        let heads = self.heads.iter().map(|head| {
            let id = self.manifest.as_ref().map_or("", |manifest| &manifest.archive_id);
            json!({ "log": head.log.origin(id), "size": head.size, "root": base64(&head.root.0) })
        });
        let mut checked = json!({
            "files": self.files, "proofs": self.proofs, "events": self.events, "alerts": self.alerts,
        });
        if self.redacted > 0 {
            checked["redacted"] = self.redacted.into();
        }
        json!({
            "format": "strongroom-pack-check-1",
            "archive_id": self.manifest.as_ref().map(|manifest| &manifest.archive_id),
            "result": if self.findings.is_empty() { "ok" } else { "findings" },
            "findings": self.findings,
            "not_checked": self.not_checked,
            "checked": checked,
            "heads": heads.collect::<Vec<_>>(),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedFiles {
    format: String,
    files: Vec<ListedFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitLine {
    index: u64,
    commit: String,
}

/// Checks the pack in `folder`. Each of its heads must be cosigned by a quorum of the witnesses.
///
/// # Errors
/// If the folder cannot be read. Such an error does not mean that the pack is damaged.
pub fn check_pack(
    folder: &Path,
    public_keys: &[PublicKey],
    witnesses: &Witnesses,
    watch: &dyn Watch,
) -> std::io::Result<PackReport> {
    let mut report = PackReport::default();
    let names = names(folder, &mut report)?;
    let bytes = match read_whole(folder, MANIFEST, &names) {
        Ok(bytes) => bytes,
        Err(detail) => {
            report.find(FindingKind::PackManifest, MANIFEST, detail);
            return Ok(report);
        }
    };
    let manifest = match Manifest::parse(&bytes) {
        Ok(manifest) => manifest,
        Err(detail) => {
            report.find(FindingKind::PackManifest, MANIFEST, detail);
            return Ok(report);
        }
    };
    check_files(folder, &manifest, &names, &mut report, watch)?;
    let chain = check_identity(&manifest, public_keys, witnesses, &mut report);
    let current = chain.as_ref().and_then(|chain| chain.last()).map(|record| record.key);
    report.key = current;
    match (&manifest.signed_by, names.contains(MANIFEST_NOTE)) {
        (None, false) => report.not_checked.push(
            "who made the pack: it is not signed. The records prove themselves; report, counts and gaps are the word of \
             whoever gave you the pack"
                .to_owned(),
        ),
        (Some(_), false) => report.find(FindingKind::PackSignature, MANIFEST_NOTE, "it is missing, but the manifest names a signer"),
        (signed_by, true) => {
            let checked = read_whole(folder, MANIFEST_NOTE, &names)
                .and_then(|note| check_note(&note, &manifest.archive_id, &bytes, current))
                .and_then(|()| match signed_by.as_deref() == current.map(|key| key.to_string()).as_deref() {
                    true => Ok(()),
                    false => Err("it is not signed by the key that the manifest names".to_owned()),
                });
            if let Err(detail) = checked {
                report.find(FindingKind::PackSignature, MANIFEST_NOTE, detail);
            }
        }
    }
    let named = match named_files(folder, &names) {
        Ok(named) => named,
        Err(detail) => {
            report.find(FindingKind::PackArchiveFiles, FILES, detail);
            Vec::new()
        }
    };
    let given = check_records(folder, &manifest, &names, &mut report, watch)?;
    check_named(&named, &given, &mut report);
    check_counts(&manifest, &named, &mut report);
    if manifest.question.complete {
        check_complete(folder, &manifest, &names, &named, &mut report)?;
    } else {
        report.not_checked.push(
            "whether these are all records: proofs show that what is here is the archive's, not that nothing was left out. Who may \
             read the archive asks again: strongroom evidence check DIR --archive LOCATION"
                .to_owned(),
        );
    }
    report.manifest = Some(manifest);
    Ok(report)
}

/// Returns the names of the plain files below the folder, such as `proofs/00000001.json`. Reports
/// everything else below the folder.
fn names(folder: &Path, report: &mut PackReport) -> std::io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() && matches!(name.as_str(), "proofs" | "commits") {
            for below in std::fs::read_dir(entry.path())? {
                let below = below?;
                let name = format!("{name}/{}", below.file_name().to_string_lossy());
                match below.file_type()?.is_file() {
                    true => _ = names.insert(name),
                    false => report.find(FindingKind::PackFileExtra, name, "it is not a plain file"),
                }
            }
        } else if kind.is_file() {
            names.insert(name);
        } else {
            report.find(FindingKind::PackFileExtra, name, "it is not a plain file of a pack");
        }
    }
    Ok(names)
}

fn is_name_of_pack(name: &str) -> bool {
    let digits =
        |text: &str, many: usize| text.len() == many && text.bytes().all(|byte| byte.is_ascii_digit());
    ALWAYS.contains(&name)
        || name
            .strip_prefix("proofs/")
            .and_then(|name| name.strip_suffix(".json"))
            .is_some_and(|number| digits(number, 8))
        || name
            .strip_prefix("commits/")
            .and_then(|name| name.strip_suffix(".jsonl")?.split_once('-'))
            .is_some_and(|(table, period)| VolumeId::parse(&format!("{table}/{period}")).is_some())
}

fn open(folder: &Path, name: &str, names: &BTreeSet<String>) -> Result<File, String> {
    // Links are not among `names`, so none is opened.
    if !names.contains(name) {
        return Err("it is missing".to_owned());
    }
    File::open(folder.join(name)).map_err(|error| error.to_string())
}

fn read_whole(folder: &Path, name: &str, names: &BTreeSet<String>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = open(folder, name, names)?.take(WHOLE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    match bytes.len() as u64 > WHOLE_BYTES_MAX {
        true => Err(format!("it has more than {WHOLE_BYTES_MAX} bytes")),
        false => Ok(bytes),
    }
}

/// Checks that every file that the manifest names exists with the stated bytes, and that no other
/// file exists.
fn check_files(
    folder: &Path,
    manifest: &Manifest,
    names: &BTreeSet<String>,
    report: &mut PackReport,
    watch: &dyn Watch,
) -> std::io::Result<()> {
    let mut known: BTreeSet<&str> = BTreeSet::from([MANIFEST, MANIFEST_NOTE]);
    let total = manifest.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add);
    let mut done: u64 = 0;
    for file in &manifest.files {
        if !is_name_of_pack(&file.name) || !known.insert(&file.name) {
            report.find(
                FindingKind::PackManifest,
                MANIFEST,
                format!("it names {:.200} twice, or no pack has that file", file.name),
            );
            continue;
        }
        if !names.contains(&file.name) {
            report.find(
                FindingKind::PackFileMissing,
                file.name.as_str(),
                "the manifest names it, but it is missing",
            );
            continue;
        }
        let (mut reader, mut sha256, mut bytes) = (File::open(folder.join(&file.name))?, Sha256::new(), 0);
        let mut block = vec![0; 1 << 20];
        loop {
            let read = reader.read(&mut block)?;
            if read == 0 {
                break;
            }
            sha256.update(&block[..read]);
            bytes += read as u64;
        }
        report.files += 1;
        done = done.saturating_add(file.bytes);
        watch.read(done, total);
        if bytes != file.bytes || Hash(sha256.finalize().into()).to_string() != file.sha256 {
            report.find(
                FindingKind::PackFileChanged,
                file.name.as_str(),
                "its length or its SHA-256 differs from the manifest",
            );
        }
    }
    for name in ALWAYS.iter().filter(|name| !known.contains(*name)) {
        report.find(
            FindingKind::PackManifest,
            MANIFEST,
            format!("it does not name {name}, which every pack has"),
        );
    }
    for name in names.iter().filter(|name| !known.contains(name.as_str())) {
        report.find(FindingKind::PackFileExtra, name.as_str(), "the manifest does not name it");
    }
    Ok(())
}

/// Checks the keys and checkpoints of the manifest.
fn check_identity(
    manifest: &Manifest,
    public_keys: &[PublicKey],
    witnesses: &Witnesses,
    report: &mut PackReport,
) -> Option<Vec<KeyRecord>> {
    let mut parts = Vec::new();
    for head in &manifest.heads {
        let log = head.log.strip_prefix(&format!("strongroom/{}/", manifest.archive_id));
        let part = log.and_then(VolumeId::parse).map(|log| CheckpointPart::of(log, head.note.clone()));
        match part {
            Some(part) => parts.push(part),
            None => {
                report.find(
                    FindingKind::PackProof,
                    MANIFEST,
                    format!("head {:.200} does not belong to a log of the archive", head.log),
                );
                return None;
            }
        }
    }
    let proof = Proof {
        format: PROOF_FORMAT.to_owned(),
        archive_id: manifest.archive_id.clone(),
        manifest: manifest.strongroom_json.clone(),
        keys: manifest.keys.clone(),
        checkpoints: parts,
        commits: Vec::new(),
        records: Vec::new(),
    };
    let signed = match check_each(&proof, &[], &Witnesses::default(), &mut |_| Ok(())) {
        Ok(signed) => signed,
        Err(detail) => {
            report.find(FindingKind::PackProof, MANIFEST, detail);
            return None;
        }
    };
    for (entry, head) in manifest.heads.iter().zip(&signed.heads) {
        let same = entry.log == head.log.origin(&manifest.archive_id)
            && entry.size == head.size
            && entry.root == base64(&head.root.0);
        if !same {
            report.find(
                FindingKind::PackProof,
                MANIFEST,
                format!("head {}: it differs from its checkpoint", entry.log),
            );
        }
    }
    if public_keys.is_empty() {
        report.not_checked.push(format!(
            "whose archive it is: no public key was given, so the pack's own key was used ({})",
            signed.chain.last().map_or_else(String::new, |record| record.key.to_string())
        ));
    } else if !signed.chain.iter().any(|record| public_keys.contains(&record.key)) {
        report.find(
            FindingKind::KeyUntrusted,
            MANIFEST,
            "none of the given public keys belongs to the archive",
        );
    }
    let keys: Vec<PublicKey> = signed.chain.iter().map(|record| record.key).collect();
    for entry in &manifest.heads {
        let Some(note) = Note::parse(entry.note.as_bytes()) else { continue };
        let (cosigned, wrong) = witnesses.of(&note, &keys);
        for witness in wrong {
            let detail = format!(
                "head {}: the cosignature under the name of {} is invalid",
                entry.log,
                witness.name()
            );
            report.find(FindingKind::WitnessSignature, MANIFEST, detail);
        }
        let (found, asked) = (cosigned.len(), witnesses.quorum());
        if found < asked {
            let detail =
                format!("head {}: cosigned by {found} of the witnesses, {asked} are required", entry.log);
            report.find(FindingKind::WitnessMissing, MANIFEST, detail);
        }
    }
    report.heads = signed.heads;
    Some(signed.chain)
}

fn named_files(folder: &Path, names: &BTreeSet<String>) -> Result<Vec<ListedFile>, String> {
    let bytes = read_whole(folder, FILES, names)?;
    let named: NamedFiles = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    match named.format == "strongroom-evidence-files-1" {
        true => Ok(named.files),
        false => Err("it has another format".to_owned()),
    }
}

/// Maps a file (its log, its commit and its position in the commit) to the facts that the commit
/// states about it and the number of its proven records.
type ProvenFiles = BTreeMap<(String, u64, usize), (AddFacts, u64)>;

/// A file of records, which is compared with the records in the proofs while the proofs are read.
struct Lines {
    reader: Option<BufReader<File>>,
    name: &'static str,
    /// True if a difference was already reported.
    differs: bool,
}

impl Lines {
    fn open(folder: &Path, name: &'static str, names: &BTreeSet<String>) -> Lines {
        let reader = open(folder, name, names).ok().map(|file| BufReader::with_capacity(1 << 20, file));
        Lines { reader, name, differs: false }
    }

    fn take(&mut self, record: &[u8], report: &mut PackReport, what: &str) -> std::io::Result<()> {
        let Some(reader) = self.reader.as_mut().filter(|_| !self.differs) else { return Ok(()) };
        let mut bytes = Vec::with_capacity(record.len() + 1);
        reader.take(record.len() as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.split_last() != Some((&b'\n', record)) {
            self.differs = true;
            report.find(
                FindingKind::PackRecords,
                self.name,
                format!("its content differs from what {what} proves"),
            );
        }
        Ok(())
    }

    fn end(mut self, report: &mut PackReport) -> std::io::Result<()> {
        let Some(reader) = self.reader.as_mut().filter(|_| !self.differs) else { return Ok(()) };
        if !reader.fill_buf()?.is_empty() {
            report.find(FindingKind::PackRecords, self.name, "it has more than the proofs prove");
        }
        Ok(())
    }
}

fn check_records(
    folder: &Path,
    manifest: &Manifest,
    names: &BTreeSet<String>,
    report: &mut PackReport,
    watch: &dyn Watch,
) -> std::io::Result<ProvenFiles> {
    let mut given = ProvenFiles::new();
    let mut events = Lines::open(folder, RECORDS, names);
    let mut alerts = Lines::open(folder, ALERTS, names);
    let mut before: Option<(bool, Period, u64, usize, u64)> = None;
    let span = micros(&manifest.question.from).zip(micros(&manifest.question.to));
    let (mut outside, mut undated) = (0u64, 0u64);
    let mut pieces: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    pieces.retain(|name| name.starts_with("proofs/") && names.contains(*name));
    pieces.sort_unstable();
    let total = pieces.len() as u64;
    for name in pieces {
        let proof = read_whole(folder, name, names)
            .and_then(|bytes| serde_json::from_slice::<Proof>(&bytes).map_err(|error| error.to_string()));
        let proof = match proof {
            Ok(proof) => proof,
            Err(detail) => {
                report.find(FindingKind::PackProof, name, detail);
                continue;
            }
        };
        if proof.archive_id != manifest.archive_id
            || proof.manifest != manifest.strongroom_json
            || proof.keys != manifest.keys
            || !proof.checkpoints.iter().all(|part| manifest.heads.iter().any(|head| head.note == part.note))
        {
            report.find(FindingKind::PackProof, name, "its keys or checkpoints differ from the manifest");
            continue;
        }
        let mut failed = None;
        let mut each = |place: RecordLocation<'_>| {
            let log = place.head.log;
            let at = (log.table == Table::Alerts, log.period, place.index, place.at, place.row);
            if before.replace(at).is_some_and(|before| before >= at) {
                report.find(FindingKind::PackOrder, name, "a record is repeated or out of order");
            }
            let add = &place.adds[place.at];
            let known = given.entry((log.name(), place.index, place.at)).or_insert_with(|| (add.clone(), 0));
            known.1 += 1;
            let lines = match log.table {
                Table::Events => &mut events,
                Table::Alerts => &mut alerts,
                Table::Rejects | Table::Activity => {
                    return Err(format!("records of {} do not belong in a pack", log.table.name()));
                }
            };
            if let Err(error) = lines.take(&place.record, report, name) {
                failed = Some(error);
            }
            if log.table == Table::Alerts {
                report.alerts += 1;
                return Ok(());
            }
            report.events += 1;
            report.redacted += u64::from(place.redaction.is_some());
            match (stage_time(&place.record), span) {
                (Some(time), Some((from, to))) => outside += u64::from(!(from..to).contains(&time)),
                _ => undated += 1,
            }
            Ok(())
        };
        let checked = check_each(&proof, &[], &Witnesses::default(), &mut each);
        if let Err(detail) = checked {
            report.find(FindingKind::PackProof, name, detail);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        report.proofs += 1;
        watch.read(report.proofs, total);
    }
    events.end(report)?;
    alerts.end(report)?;
    if outside > 0 && !manifest.question.complete {
        report.find(
            FindingKind::PackQuestion,
            RECORDS,
            format!("the time of {outside} events is outside the period"),
        );
    }
    if undated > 0 && !manifest.question.complete {
        report.not_checked.push(format!("whether {undated} events are of the period: their bytes are in a cloud's wrapper, or without a time"));
    }
    Ok(given)
}

/// Returns the `stageTimestamp` in the bytes of an event, truncated to whole microseconds.
fn stage_time(record: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Timed {
        #[serde(rename = "stageTimestamp")]
        stage_timestamp: Option<String>,
    }
    let timed: Timed = serde_json::from_slice(record).ok()?;
    micros(&timed.stage_timestamp?)
}

/// Checks the list of the archive's files that is in the pack against the proven commits.
fn check_named(named: &[ListedFile], given: &ProvenFiles, report: &mut PackReport) {
    let mut unknown: BTreeMap<(&str, &str), (&AddFacts, u64)> = given
        .iter()
        .map(|((log, ..), (add, chosen))| ((log.as_str(), add.path.as_str()), (add, *chosen)))
        .collect();
    let commits: BTreeMap<(&str, &str), u64> = given
        .iter()
        .map(|((log, commit, _), (add, _))| ((log.as_str(), add.path.as_str()), *commit))
        .collect();
    for file in named {
        let key = (file.log.as_str(), file.file.as_str());
        let Some((add, chosen)) = unknown.remove(&key) else {
            if file.chosen > 0 {
                report.find(
                    FindingKind::PackArchiveFiles,
                    FILES,
                    format!("{}/{:.200}: none of its records is proven", file.log, file.file),
                );
            }
            continue;
        };
        let same = commits.get(&key) == Some(&file.commit)
            && add.size == file.bytes
            && add.rows == Some(file.rows)
            && add.sha256.map(|hash| hash.to_string()).as_deref() == Some(file.sha256.as_str())
            && add.record_root.map(|hash| hash.to_string()).as_deref() == Some(file.record_root.as_str())
            && add.version == file.version_id
            && add.offsets.clone().unwrap_or_default() == file.offsets
            && times(table_of(&file.log), add)
                == file.time_min.as_deref().and_then(micros).zip(file.time_max.as_deref().and_then(micros));
        if !same {
            report.find(
                FindingKind::PackArchiveFiles,
                FILES,
                format!("{}/{}: it differs from its commit", file.log, file.file),
            );
        }
        if chosen != file.chosen {
            let detail = format!(
                "{}/{}: {chosen} of its records are proven, but it says {}",
                file.log, file.file, file.chosen
            );
            report.find(FindingKind::PackArchiveFiles, FILES, detail);
        }
    }
    for (log, file) in unknown.keys() {
        report.find(FindingKind::PackArchiveFiles, FILES, format!("it omits {log}/{file}"));
    }
}

fn table_of(log: &str) -> Table {
    let table = log.split('/').next();
    Table::ALL.into_iter().find(|known| Some(known.name()) == table).unwrap_or(Table::Events)
}

fn check_counts(manifest: &Manifest, named: &[ListedFile], report: &mut PackReport) {
    let counts = &manifest.counts;
    let rows: u64 = named.iter().filter(|file| file.log.starts_with("events/")).map(|file| file.rows).sum();
    let sum = counts.received.events + counts.received.rejects + counts.received.duplicates;
    let mut wrong = |what: &str, said: u64, found: u64| {
        if said != found {
            report.findings.push(Finding {
                kind: FindingKind::PackCounts,
                place: MANIFEST.to_owned(),
                detail: format!("{what}: it says {said}, but the pack has {found}"),
            });
        }
    };
    let (events, alerts, redacted, proofs) = (report.events, report.alerts, report.redacted, report.proofs);
    wrong("events", counts.events, events);
    wrong("alerts", counts.alerts, alerts);
    wrong("redacted", counts.redacted, redacted);
    wrong("proofs", counts.proofs, proofs);
    wrong("files", counts.files, named.len() as u64);
    wrong("rows_examined", counts.rows_examined, rows);
    wrong("received", counts.received.received, sum);
    wrong("rows of events_query", manifest.events_query.rows, counts.events_in_question);
    wrong("rows of alerts_query", manifest.alerts_query.rows, counts.alerts_in_question);
    if !manifest.question.complete {
        wrong("events_in_question", counts.events_in_question, events);
        wrong("alerts_in_question", counts.alerts_in_question, alerts);
    }
}

/// Checks that a complete pack has all commits, and has every record of each file that may have
/// records of the period.
fn check_complete(
    folder: &Path,
    manifest: &Manifest,
    names: &BTreeSet<String>,
    named: &[ListedFile],
    report: &mut PackReport,
) -> std::io::Result<()> {
    let Some((from, to)) = micros(&manifest.question.from).zip(micros(&manifest.question.to)) else {
        report.find(FindingKind::PackManifest, MANIFEST, "the period of its question is invalid");
        return Ok(());
    };
    for head in report.heads.clone() {
        let name = format!("commits/{}-{}.jsonl", head.log.table.name(), head.log.period);
        let file = match open(folder, &name, names) {
            Ok(file) => file,
            Err(detail) => {
                report.find(FindingKind::PackComplete, name, detail);
                continue;
            }
        };
        let mut tree = CompactRange::default();
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            if lines.by_ref().take(WHOLE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let commit = serde_json::from_slice::<CommitLine>(&line).ok();
            let commit = commit.filter(|commit| commit.index == tree.size());
            let Some(commit) = commit.and_then(|commit| from_base64(&commit.commit)) else {
                report.find(
                    FindingKind::PackComplete,
                    name.as_str(),
                    format!("line {} is not commit {}", tree.size() + 1, tree.size()),
                );
                break;
            };
            let index = tree.size();
            tree.push(leaf_hash(&commit));
            if !matches!(head.log.table, Table::Events | Table::Alerts) {
                continue;
            }
            for add in parse_commit(&commit).adds {
                let of_period =
                    times(head.log.table, &add).is_none_or(|(first, last)| first < to && last >= from);
                if !of_period {
                    continue;
                }
                let given = named.iter().find(|file| {
                    file.log == head.log.name() && file.commit == index && file.file == add.path
                });
                let detail = match given {
                    None => "it may have records of the period, but is not in the pack".to_owned(),
                    Some(file) if Some(file.chosen) != add.rows => {
                        format!("{} of its {} records are in the pack", file.chosen, add.rows.unwrap_or(0))
                    }
                    Some(_) => continue,
                };
                report.find(FindingKind::PackComplete, format!("{}/{}", head.log.name(), add.path), detail);
            }
        }
        if tree.size() != head.size || tree.root() != head.root {
            report.find(FindingKind::PackComplete, name, "its commits are not those under the checkpoint");
        }
    }
    Ok(())
}
