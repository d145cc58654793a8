//! Proofs of single records. They are made from an archive, and checked without the archive.
//!
//! Invariant: a proof contains the requested records and, for each of them, the inclusion proof
//! that leads to a signed checkpoint. It contains no other record, only hashes of other records.
//! Before a proof is returned, it is checked as a stranger would check it.

use std::collections::{BTreeMap, HashSet};

use arrow_array::{Array as _, StringArray};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_archive::delta::facts::{AddFacts, parse_commit};
use strongroom_archive::error::{LogError, RowsError};
use strongroom_archive::log::{checkpoint_folder, newest, witness_folder};
use strongroom_archive::records::{drops, keys};
use strongroom_archive::sealed_rows::{Offsets, SealedBatch, SealedRows};
use strongroom_archive::site::Site;
use strongroom_archive::{Archive, Records};
use strongroom_schemas::marked;
use strongroom_schemas::marks::Redaction;
use strongroom_schemas::record::{Sha256Hash as Hash, leaf_hash, record_hash};
use strongroom_schemas::{Period, Table, VolumeId};
use strongroom_store::{background, layout};
use strongroom_tlog::checkpoint::{TreeHead, check_note, checkpoint_name, parse_checkpoint_name};
use strongroom_tlog::cosignature::WitnessKey;
use strongroom_tlog::keys::{KeyRecord, Keys};
use strongroom_tlog::note::{Note, PublicKey, base64, from_base64, line};
use strongroom_tlog::tree::{Paths, root, root_of_inclusion};

use super::error::ProofError;
use super::verify::Witnesses;

/// Maximum number of records in one proof. Proofs are meant to be small.
pub const RECORDS_MAX: usize = 10_000;
/// Format of the file of a proof.
pub const FORMAT: &str = "strongroom-proof-1";
/// Maximum number of cosignatures that are copied into a note.
const COSIGNATURES_MAX: usize = 16;
/// Maximum length of the line of a cosignature that is copied into a note.
const COSIGNATURE_BYTES_MAX: usize = 1024;
/// Number of rows that are decoded at once.
const BATCH_ROWS: usize = 1024;
/// Columns that are shown next to an event so that it can be found again.
pub const EVENT_CLAIMS: [&str; 3] = ["audit_id", "stage", "cluster"];

/// A proof in the form of its file. `docs/proof.md` describes each field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    pub format: String,
    pub archive_id: String,
    pub manifest: String,
    pub keys: Vec<String>,
    pub checkpoints: Vec<CheckpointPart>,
    pub commits: Vec<CommitPart>,
    pub records: Vec<RecordPart>,
}

/// A checkpoint of a volume, in the form that proof files have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointPart {
    table: String,
    year: i32,
    #[serde(default, skip_serializing_if = "is_first")]
    part: u16,
    pub note: String,
}

fn is_first(part: &u16) -> bool {
    *part == 0
}

impl CheckpointPart {
    /// Returns the checkpoint `note` of a volume.
    pub fn of(log: VolumeId, note: String) -> CheckpointPart {
        let Period { year, part } = log.period;
        CheckpointPart { table: log.table.name().to_owned(), year, part, note }
    }

    /// Returns the volume, or `None` if the fields do not name a valid one.
    pub fn volume(&self) -> Option<VolumeId> {
        VolumeId::parse(&format!("{}/{}", self.table, Period { year: self.year, part: self.part }))
    }
}

/// A commit and its inclusion proof.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitPart {
    pub checkpoint: usize,
    pub index: u64,
    pub commit: String,
    pub path: Vec<String>,
}

/// A record and its inclusion proof.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordPart {
    pub commit: usize,
    pub file: String,
    pub row: u64,
    pub record: String,
    /// The mark of a record that was redacted before it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redaction: Option<String>,
    pub path: Vec<String>,
    #[serde(default)]
    pub claims: Value,
}

/// A record whose proof is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenRecord {
    /// The bytes that were written. They are the bytes that were received, unless there is a mark.
    pub record: Vec<u8>,
    /// The mark of a record that was redacted before it was written.
    pub redaction: Option<Redaction>,
    pub file: String,
    pub row: u64,
}

/// What a proof shows.
#[derive(Clone, Debug)]
pub struct Proven {
    pub archive_id: String,
    pub records: Vec<ProvenRecord>,
    /// The key that signed the last of the checkpoints.
    pub key: PublicKey,
    /// The checkpoints that the proof leads to, each with the witnesses that have cosigned it.
    pub heads: Vec<ProvenHead>,
}

/// A checkpoint that a proof leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenHead {
    pub origin: String,
    pub size: u64,
    /// The witnesses that have cosigned it, with the times of their clocks in seconds since 1970.
    pub cosigned: Vec<(WitnessKey, u64)>,
}

/// What proves the content of a volume.
struct Volume {
    log: VolumeId,
    leaves: Vec<Hash>,
    /// Sizes and notes of checkpoints: the newest checkpoint and, if witnesses have not cosigned
    /// it, the newest checkpoint that they have cosigned.
    trees: Vec<(u64, String)>,
}

/// One record that a proof contains, and its location.
pub struct RecordLocation<'a> {
    pub head: &'a TreeHead,
    /// Number of its commit, which is also the number of the commit's leaf in the log.
    pub index: u64,
    pub adds: &'a [AddFacts],
    /// Position of its file in the commit.
    pub at: usize,
    pub row: u64,
    pub record: Vec<u8>,
    /// The mark of a record that was redacted before it was written.
    pub redaction: Option<Redaction>,
}

/// The signatures on a proof.
pub struct Signed {
    pub chain: Vec<KeyRecord>,
    pub heads: Vec<TreeHead>,
    /// The witnesses that have cosigned each head, with the times of their clocks.
    pub cosigned: Vec<Vec<(WitnessKey, u64)>>,
    /// The key that signed the last of the checkpoints.
    pub signer: PublicKey,
}

/// A commit that names wanted files.
struct Source {
    log: VolumeId,
    index: u64,
    bytes: Vec<u8>,
    adds: Vec<AddFacts>,
}

/// Makes a proof of the events at the given source partitions and offsets.
///
/// # Errors
/// [`ProofError::NotProvable`] if a record does not exist, is not under a checkpoint yet, or has an
/// inclusion proof that does not lead to a signed root.
pub fn prove(
    archive: &Archive,
    wanted: &HashSet<(String, i64)>,
    records: &dyn Records,
) -> Result<Proof, ProofError> {
    let refuse = |detail: String| ProofError::NotProvable { detail };
    if wanted.is_empty() || wanted.len() > RECORDS_MAX {
        return Err(refuse(format!(
            "{} records were requested; the number must be 1 to {RECORDS_MAX}",
            wanted.len()
        )));
    }
    let site = archive.site().clone();
    let asked: HashSet<String> = wanted.iter().map(|(source, _)| source.clone()).collect();
    let Gathered { chain, notes, manifest, volumes, sources } =
        background::wait(async move { gather(&site, &asked).await })?;
    if chain.records.is_empty() {
        return Err(LogError::NoKey.into());
    }
    let mut proof = Proof {
        format: FORMAT.to_owned(),
        archive_id: archive.id().to_owned(),
        manifest: base64(&manifest),
        keys: notes,
        checkpoints: Vec::new(),
        commits: Vec::new(),
        records: Vec::new(),
    };
    let mut found = Vec::new();
    for source in sources {
        let mut parts = Vec::new();
        for add in &source.adds {
            let may_hold = |(name, offset): &(String, i64)| {
                let span = add.offsets.as_ref().and_then(|offsets| offsets.get(name));
                span.is_some_and(|(first, last, _)| (first..=last).contains(&offset))
            };
            if wanted.iter().any(may_hold) {
                parts.extend(of_file(archive, source.log, add, wanted, records)?);
            }
        }
        if !parts.is_empty() {
            found.push((source, parts));
        }
    }
    for volume in volumes.values() {
        let of_volume = || found.iter().filter(|(source, _)| source.log == volume.log);
        let Some(last) = of_volume().map(|(source, _)| source.index).max() else { continue };
        // Take the newest cosigned checkpoint if it covers all requested commits, otherwise the
        // newest checkpoint.
        let tree = volume.trees.iter().rev().find(|(size, _)| *size > last);
        let (size, note) = tree.ok_or_else(|| refuse("a commit is not under its checkpoint".to_owned()))?;
        proof.checkpoints.push(CheckpointPart::of(volume.log, note.clone()));
        let checkpoint = proof.checkpoints.len() - 1;
        let paths = Paths::over(volume.leaves[..*size as usize].to_vec());
        for (source, parts) in of_volume() {
            let path = paths.of(source.index).iter().map(Hash::to_string).collect();
            let (index, commit) = (source.index, base64(&source.bytes));
            proof.commits.push(CommitPart { checkpoint, index, commit, path });
            let commit = proof.commits.len() - 1;
            proof.records.extend(parts.iter().map(|part| RecordPart { commit, ..part.clone() }));
        }
    }
    if proof.records.len() < wanted.len() {
        let missing = wanted.len() - proof.records.len();
        return Err(refuse(format!("{missing} of the records are not in a signed commit yet")));
    }
    // Check the proof as a stranger would, so that an invalid proof is never returned.
    check(&proof, &[], &Witnesses::default()).map_err(refuse)?;
    Ok(proof)
}

/// The data from which a proof is made.
struct Gathered {
    chain: Keys,
    /// The key records, as they were signed.
    notes: Vec<String>,
    manifest: Bytes,
    volumes: BTreeMap<VolumeId, Volume>,
    sources: Vec<Source>,
}

/// Reads the signed volumes of events, and finds the commits with rows of the sources in `asked`.
async fn gather(site: &Site, asked: &HashSet<String>) -> Result<Gathered, ProofError> {
    let chain = keys::load(site).await?;
    let mut notes = Vec::new();
    for record in &chain.records {
        notes.push(text(&site.read_present(&keys::path(&site.root, record.number)).await?));
    }
    let manifest = site.read_present(&site.root.join(layout::MANIFEST)).await?;
    let (mut volumes, mut sources) = (BTreeMap::new(), Vec::new());
    for period in drops::periods(site, Table::Events).await? {
        let log = VolumeId { table: Table::Events, period };
        let Some((head, key)) = newest(site, log, 0, &chain).await? else { continue };
        let name = checkpoint_name(head.size, key.id(&log.origin(&site.archive_id)));
        let note = text(&site.read_present(&checkpoint_folder(&site.root, log).join(name)).await?);
        let cosigned = cosigned(site, &head, key).await?;
        let (mut hashes, volume) = (Vec::new(), site.volume(log));
        for index in 0..head.size {
            let bytes = site.read_present(&layout::commit(&volume, index)).await?;
            hashes.push(leaf_hash(&bytes));
            let mut adds = parse_commit(&bytes).adds;
            adds.retain(|add| add.offsets.iter().flatten().any(|(source, _)| asked.contains(source)));
            if !adds.is_empty() {
                sources.push(Source { log, index, bytes: bytes.to_vec(), adds });
            }
        }
        if root(&hashes) != head.root {
            return Err(LogError::Forked { log: log.name(), size: head.size }.into());
        }
        let trees = match cosigned {
            Some((size, cosigned, _)) if size == head.size => vec![(size, cosigned)],
            // A checkpoint by a retired key is valid only if the record of the next key names it.
            // That record names only the newest checkpoint, so a smaller checkpoint by the retired
            // key would prove nothing.
            Some((size, cosigned, tree))
                if chain.current() == Some(key) && root(&hashes[..size as usize]) == tree =>
            {
                vec![(head.size, note), (size, cosigned)]
            }
            _ => vec![(head.size, note)],
        };
        volumes.insert(log, Volume { log, leaves: hashes, trees });
    }
    Ok(Gathered { chain, notes, manifest, volumes, sources })
}

/// Returns the largest checkpoint of a log that is both cosigned by witnesses and signed by `key`,
/// the key that signed the newest checkpoint. Returns its size, its note with the cosignatures
/// (unchecked, up to a limit), and its root.
pub async fn cosigned(
    site: &Site,
    newest: &TreeHead,
    key: PublicKey,
) -> Result<Option<(u64, String, Hash)>, LogError> {
    let (folder, origin) = (witness_folder(&site.root, newest.log), newest.log.origin(&site.archive_id));
    let origin = origin.as_str();
    let names = site.store.names(&folder).await?;
    let mut names: Vec<(u64, &str)> = names
        .iter()
        .filter_map(|name| Some((parse_checkpoint_name(name)?.0, name.as_str())))
        .filter(|(size, _)| *size <= newest.size)
        .collect();
    names.sort_unstable();
    let (mut best, mut cosignatures): (Option<(u64, String, Hash)>, usize) = (None, 0);
    while let Some((size, name)) = names.pop() {
        if best.as_ref().is_some_and(|(best, ..)| *best > size) {
            break;
        }
        let bytes = site.read_present(&folder.join(name)).await?;
        let (Ok((found, root, _)), Some(note)) = (check_note(&bytes, origin, &[key]), Note::parse(&bytes))
        else {
            continue;
        };
        if found != size || size == newest.size && root != newest.root {
            continue;
        }
        let ours = || {
            note.signatures_of(origin, key.id(origin))
                .map(|signature| line(origin, key.id(origin), signature))
        };
        let (_, whole, tree) = best
            .get_or_insert_with(|| (size, format!("{}\n{}", note.text, ours().collect::<String>()), root));
        if *tree != root {
            continue;
        }
        // The cosignatures are copied unchecked. They are filtered and limited, so that a party
        // that may put files here cannot produce a note that readers refuse.
        let others =
            note.signers().filter(|(name, _)| *name != origin && !name.chars().any(char::is_whitespace));
        for (name, id) in others {
            for signature in note.signatures_of(name, id) {
                let line = line(name, id, signature);
                if cosignatures < COSIGNATURES_MAX
                    && line.len() <= COSIGNATURE_BYTES_MAX
                    && !whole.contains(&line)
                {
                    *whole += &line;
                    cosignatures += 1;
                }
            }
        }
    }
    Ok(best)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the wanted records of one file, with their inclusion proofs. Memory holds the file and
/// the hashes of its records, which take 32 bytes for each row.
fn of_file(
    archive: &Archive,
    log: VolumeId,
    add: &AddFacts,
    wanted: &HashSet<(String, i64)>,
    records: &dyn Records,
) -> Result<Vec<RecordPart>, ProofError> {
    let path = archive.site().volume(log).join(&add.path);
    let wrong = |error: RowsError| ProofError::NotProvable { detail: format!("{}: {error}", path.display()) };
    let contents = archive.contents_of(&path, add.size, add.version.as_deref());
    let bytes = contents.read_blocking(0..add.size);
    let bytes = bytes.map_err(|source| ProofError::Read { path: path.clone(), source })?;
    let (mut hashes, mut parts) = (Vec::new(), Vec::new());
    for batch in SealedRows::open(bytes, log.table, BATCH_ROWS).map_err(wrong)? {
        let batch = batch.map_err(wrong)?;
        let offsets = batch.offsets().map_err(|error| wrong(error.into()))?;
        let marks = batch.marks().map_err(|error| wrong(error.into()))?;
        let each = &mut |row: usize, record: &[u8]| {
            let place = offsets.of(row).map(|(source, offset)| (source.to_owned(), offset));
            if place.is_some_and(|place| wanted.contains(&place)) {
                parts.push(RecordPart {
                    commit: 0,
                    file: add.path.clone(),
                    row: hashes.len() as u64,
                    record: base64(record),
                    redaction: marks.of(row).map(str::to_owned),
                    path: Vec::new(),
                    claims: claims(&batch, offsets, row, &EVENT_CLAIMS),
                });
            }
            hashes.push(record_hash(marks.of(row), record));
        };
        batch.each_record(records, each).map_err(wrong)?;
    }
    let paths = Paths::over(hashes);
    for part in &mut parts {
        part.path = paths.of(part.row).iter().map(Hash::to_string).collect();
    }
    Ok(parts)
}

/// Returns the claims about a row that a proof shows next to its record: the row's source and
/// offset, and its values in the columns `names`.
pub fn claims(batch: &SealedBatch, offsets: Offsets<'_>, row: usize, names: &[&str]) -> Value {
    let Offsets { source, offset } = offsets;
    let mut claims = json!({
        "source": source.is_valid(row).then(|| source.value(row)),
        "source_offset": offset.is_valid(row).then(|| offset.value(row)),
    });
    for name in names {
        let value = batch.column::<StringArray>(name).ok().filter(|column| column.is_valid(row));
        claims[*name] = value.map_or(Value::Null, |column| column.value(row).into());
    }
    claims
}

/// Checks a proof file without any other data. If `public_keys` is empty, this shows only that the
/// proof is consistent, not who signed it.
///
/// # Errors
/// A description of what is wrong.
pub fn verify_proof(file: &[u8], public_keys: &[PublicKey]) -> Result<Proven, String> {
    verify_proof_with(file, public_keys, &Witnesses::default())
}

/// Like [`verify_proof`], but each checkpoint must be cosigned by a quorum of the witnesses.
///
/// # Errors
/// A description of what is wrong. An invalid cosignature under the name of one of the witnesses is
/// an error too.
pub fn verify_proof_with(
    file: &[u8],
    public_keys: &[PublicKey],
    witnesses: &Witnesses,
) -> Result<Proven, String> {
    let proof: Proof = serde_json::from_slice(file).map_err(|error| format!("not a proof: {error}"))?;
    check(&proof, public_keys, witnesses)
}

fn check(proof: &Proof, public_keys: &[PublicKey], witnesses: &Witnesses) -> Result<Proven, String> {
    let mut records = Vec::new();
    let signed = check_each(proof, public_keys, witnesses, &mut |place| {
        let file = place.adds[place.at].path.clone();
        let RecordLocation { record, redaction, row, .. } = place;
        records.push(ProvenRecord { record, redaction, file, row });
        Ok(())
    })?;
    if records.is_empty() {
        return Err("the proof has no records".to_owned());
    }
    let heads = signed.heads.iter().zip(signed.cosigned).map(|(head, cosigned)| ProvenHead {
        origin: head.log.origin(&proof.archive_id),
        size: head.size,
        cosigned,
    });
    Ok(Proven { archive_id: proof.archive_id.clone(), records, key: signed.signer, heads: heads.collect() })
}

/// Checks a proof and calls `each` with every valid record, in order, up to the first invalid one.
pub fn check_each(
    proof: &Proof,
    public_keys: &[PublicKey],
    witnesses: &Witnesses,
    each: &mut dyn FnMut(RecordLocation<'_>) -> Result<(), String>,
) -> Result<Signed, String> {
    if proof.format != FORMAT {
        return Err(format!("the proof has format {:.40}; this program reads {FORMAT}", proof.format));
    }
    let bytes = |text: &str| from_base64(text).ok_or("a field is not base64");
    let mut chain: Vec<KeyRecord> = Vec::new();
    for (at, note) in proof.keys.iter().enumerate() {
        let record = KeyRecord::parse(note.as_bytes(), &proof.archive_id, &chain);
        chain.push(record.map_err(|fault| format!("key record {}: {fault}", at + 1))?);
    }
    let manifest = bytes(&proof.manifest)?;
    let last = chain.last().ok_or("the proof has no key record")?;
    if last.manifest != Hash::of(&manifest) {
        return Err("its strongroom.json does not match the hash in the key records".to_owned());
    }
    if !public_keys.is_empty() && !chain.iter().any(|record| public_keys.contains(&record.key)) {
        return Err("none of the given public keys belongs to the archive".to_owned());
    }
    let keys: Vec<PublicKey> = chain.iter().map(|record| record.key).collect();
    let (mut trees, mut cosigners, mut signer) = (Vec::new(), Vec::new(), last.key);
    for (at, part) in proof.checkpoints.iter().enumerate() {
        let log = part.volume().ok_or_else(|| format!("checkpoint {at}: not a valid volume"))?;
        let origin = log.origin(&proof.archive_id);
        let checked = check_note(part.note.as_bytes(), &origin, &keys);
        let (size, root, key) = checked.map_err(|fault| format!("checkpoint {at}: {fault}"))?;
        // The holder of a stolen retired key can sign any tree. So a head that is signed by a
        // retired key counts only if the record of the next key names it.
        if let Some(next) = chain.get(key + 1)
            && !next.heads.contains(&TreeHead { log, size, root })
        {
            return Err(format!(
                "checkpoint {at}: signed by a retired key, but not named in the record that retired the key"
            ));
        }
        signer = keys[key];
        let note = Note::parse(part.note.as_bytes()).ok_or("a checkpoint is not a signed note")?;
        let (cosigned, wrong) = witnesses.of(&note, &keys);
        if let Some(witness) = wrong.first() {
            return Err(format!(
                "checkpoint {at}: the cosignature under the name of {} is invalid",
                witness.name()
            ));
        }
        if cosigned.len() < witnesses.quorum() {
            let (found, asked) = (cosigned.len(), witnesses.quorum());
            return Err(format!(
                "checkpoint {at}: cosigned by {found} of the witnesses, {asked} are required"
            ));
        }
        cosigners.push(cosigned);
        trees.push(TreeHead { log, size, root });
    }
    let path_of = |path: &[String]| -> Result<Vec<Hash>, &'static str> {
        path.iter().map(|hash| Hash::parse(hash).ok_or("a path has an entry that is not a hash")).collect()
    };
    let mut commits = Vec::new();
    for (at, part) in proof.commits.iter().enumerate() {
        let TreeHead { size, root, .. } =
            trees.get(part.checkpoint).ok_or_else(|| format!("commit {at}: its checkpoint is missing"))?;
        let commit = bytes(&part.commit)?;
        if root_of_inclusion(leaf_hash(&commit), part.index, *size, &path_of(&part.path)?) != Some(*root) {
            return Err(format!("commit {at}: its path does not lead to the root of its checkpoint"));
        }
        commits.push(parse_commit(&commit).adds);
    }
    let mut places = HashSet::new();
    for (at, part) in proof.records.iter().enumerate() {
        let adds = commits.get(part.commit).ok_or_else(|| format!("record {at}: its commit is missing"))?;
        let found = adds.iter().position(|add| add.path == part.file);
        let found = found.ok_or_else(|| format!("record {at}: its commit does not name its file"))?;
        let (Some(rows), Some(root)) = (adds[found].rows, adds[found].record_root) else {
            return Err(format!("record {at}: its commit has no record_root for its file"));
        };
        let commit = &proof.commits[part.commit];
        if !places.insert((trees[commit.checkpoint].log, commit.index, found, part.row)) {
            return Err(format!("record {at}: the proof has it twice"));
        }
        let record = bytes(&part.record)?;
        let hash = record_hash(part.redaction.as_deref(), &record);
        if root_of_inclusion(hash, part.row, rows, &path_of(&part.path)?) != Some(root) {
            return Err(format!("record {at}: its path does not lead to the record_root of its file"));
        }
        let head = &trees[commit.checkpoint];
        let redaction = part.redaction.as_ref().map(|mark| check_mark(head.log.table, mark, &record));
        let redaction = redaction.transpose().map_err(|fault| format!("record {at}: {fault}"))?;
        each(RecordLocation {
            head,
            index: commit.index,
            adds,
            at: found,
            row: part.row,
            record,
            redaction,
        })?;
    }
    Ok(Signed { chain, heads: trees, cosigned: cosigners, signer })
}

/// Checks that the redaction mark of a proven record is valid and fits the record.
fn check_mark(table: Table, mark: &str, record: &[u8]) -> Result<Redaction, String> {
    if table != Table::Events {
        return Err("only events are redacted".to_owned());
    }
    let mark = Redaction::parse(mark).map_err(|error| format!("its redaction is not a mark: {error}"))?;
    marked::compare(&mark, record).map_err(|differs| differs.to_string())?;
    Ok(mark)
}
