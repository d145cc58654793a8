//! Checks the statements of witnesses and timestamp authorities against the log.
//!
//! Invariant: a cosignature counts only if the caller gave the key of its witness, and only if its
//! tree matches the commits. The newest commits may lack cosignatures only if enough witnesses have
//! cosigned the log recently by their own clocks. The times that the archive itself states do not
//! matter for this.

use chrono::DateTime;
use strongroom_archive::delta::facts::CommitFacts;
use strongroom_archive::log::{checkpoint_folder, timestamp_folder, witness_folder};
use strongroom_archive::site::Site;
use strongroom_schemas::VolumeId;
use strongroom_schemas::record::Sha256Hash;
use strongroom_tlog::checkpoint::{check_note, parse_checkpoint_name, parse_timestamp_name};
use strongroom_tlog::cosignature::WitnessKey;
use strongroom_tlog::keys::Keys;
use strongroom_tlog::note::{Note, PublicKey};
use strongroom_tlog::timestamp::{self, TimestampAuthorities, TokenError};
use strongroom_tlog::tree::CompactRange;

use super::{FindingKind, ProofError, Report, UNPROVEN_SECONDS_MAX, names_in, read};

/// The witnesses whose cosignatures are required.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    keys: Vec<WitnessKey>,
    quorum: usize,
}

impl Witnesses {
    /// Requires cosignatures of the witnesses with these keys, which the caller got from the
    /// witnesses or their operators. `quorum` is the number of witnesses that must have cosigned;
    /// if it is `None`, all must. A witness that is named twice counts once.
    ///
    /// # Errors
    /// [`ProofError::Quorum`] for a quorum that is zero or greater than the number of witnesses,
    /// [`ProofError::WitnessTwice`] for two names with one key: a cosignature does not say under
    /// which name it was made, so one witness would count as two.
    pub fn new(mut keys: Vec<WitnessKey>, quorum: Option<usize>) -> Result<Witnesses, ProofError> {
        keys.sort();
        keys.dedup();
        for (at, key) in keys.iter().enumerate() {
            if let Some(other) = keys[..at].iter().find(|other| other.key() == key.key()) {
                let (one, other) = (other.name().to_owned(), key.name().to_owned());
                return Err(ProofError::WitnessTwice { one, other });
            }
        }
        let asked = quorum.unwrap_or(keys.len());
        match quorum {
            Some(0) => Err(ProofError::Quorum { asked, witnesses: keys.len() }),
            _ if asked > keys.len() => Err(ProofError::Quorum { asked, witnesses: keys.len() }),
            _ => Ok(Witnesses { keys, quorum: asked }),
        }
    }

    /// Returns the witnesses whose keys are not among `keys`, the archive's own: a key cannot
    /// witness its own signatures.
    pub fn besides(&self, keys: &[PublicKey]) -> impl Iterator<Item = &WitnessKey> {
        self.keys.iter().filter(|witness| !keys.contains(&witness.key()))
    }

    /// Returns the witnesses that have cosigned a note, with the times of their clocks, and the
    /// witnesses under whose names the note has an invalid cosignature.
    pub fn of(&self, note: &Note<'_>, keys: &[PublicKey]) -> (Vec<(WitnessKey, u64)>, Vec<&WitnessKey>) {
        let (mut cosigned, mut wrong) = (Vec::new(), Vec::new());
        for witness in self.besides(keys) {
            match witness.cosigned(note) {
                Ok(time) => cosigned.extend(time.map(|time| (witness.clone(), time))),
                Err(_) => wrong.push(witness),
            }
        }
        (cosigned, wrong)
    }

    /// Returns the number of witnesses that must have cosigned; 0 requires none.
    pub fn quorum(&self) -> usize {
        self.quorum
    }
}

/// Checks the cosigned checkpoints of a log, and whether enough witnesses have seen its present
/// state.
pub(super) async fn check(
    site: &Site,
    log: VolumeId,
    keys: &Keys,
    witnesses: &Witnesses,
    commits: &[CommitFacts],
    report: &mut Report,
) -> Result<(), ProofError> {
    let (origin, folder) = (log.origin(&site.archive_id), witness_folder(&site.root, log));
    let mut names = names_in(site, &folder, FindingKind::CheckpointMalformed, report).await?;
    names.retain(|name| !name.starts_with('.'));
    let all = keys.all();
    let mut range = CompactRange::default();
    let mut strangers = 0u64;
    // For each witness in `counted`: the size of the largest tree of the log that it has cosigned,
    // and the time of that cosignature.
    let counted: Vec<&WitnessKey> = witnesses.besides(&all).collect();
    let mut seen: Vec<Option<(u64, u64)>> = vec![None; counted.len()];
    for name in names {
        let place = format!("{}/_tlog/witness/{name}", log.name());
        let bytes = read(site, &folder.join(&name)).await?;
        report.checked.cosignatures += 1;
        let (size, tree_root) = match check_note(&bytes, &origin, &all) {
            Ok((size, root, _)) => (size, root),
            Err(fault) => {
                report.find(FindingKind::from(&fault), place, fault.to_string());
                continue;
            }
        };
        let Some(note) = Note::parse(&bytes) else { continue };
        let named = parse_checkpoint_name(&name).filter(|(named, id)| {
            *named == size && note.signers().any(|(name, known)| name != origin && known.to_string() == *id)
        });
        let Some((_, id)) = named else {
            let detail = format!("it has size {size}, and its name does not match its size and witness");
            report.find(FindingKind::WitnessMalformed, place, detail);
            continue;
        };
        let witness = counted.iter().position(|key| key.id().to_string() == id);
        let time = match witness.map(|witness| counted[witness].cosigned(&note)) {
            Some(Err(_)) | Some(Ok(None)) => {
                report.find(
                    FindingKind::WitnessSignature,
                    place,
                    "the witness did not make this cosignature",
                );
                continue;
            }
            Some(Ok(time)) => time,
            None => {
                strangers += 1;
                None
            }
        };
        if size > commits.len() as u64 {
            let detail = format!("a witness has seen {size} commits, but there are {}", commits.len());
            report.find(FindingKind::CommitsCut, place, detail);
            continue;
        }
        // Names are sorted by size.
        while range.size() < size {
            range.push(commits[range.size() as usize].leaf);
        }
        if range.root() != tree_root {
            let detail = format!("at size {size} a witness has seen a different log");
            report.find(FindingKind::Forked, place, detail);
            continue;
        }
        if let (Some(witness), Some(time)) = (witness, time) {
            let place = &mut seen[witness];
            *place = (*place).max(Some((size, time)));
        }
    }
    if strangers > 0 {
        report.not_checked.push(format!(
            "{}: {strangers} cosignatures, for their trees were compared but no key of their witnesses was given",
            log.name()
        ));
    }
    quorum(log, witnesses, seen, report);
    Ok(())
}

/// Checks the timestamps of a log's checkpoints.
pub(super) async fn check_timestamps(
    site: &Site,
    log: VolumeId,
    authorities: &TimestampAuthorities,
    report: &mut Report,
) -> Result<(), ProofError> {
    let folder = timestamp_folder(&site.root, log);
    let mut names = names_in(site, &folder, FindingKind::TimestampMalformed, report).await?;
    names.retain(|name| !name.starts_with('.'));
    let count = names.len();
    let mut newest = 0;
    for name in names {
        let place = format!("{}/_tlog/timestamp/{name}", log.name());
        report.checked.timestamps += 1;
        let token = read(site, &folder.join(&name)).await?;
        let Some((size, checkpoint, _)) = parse_timestamp_name(&name) else {
            report.find(FindingKind::TimestampMalformed, place, "its name is not that of a timestamp");
            continue;
        };
        let stamped = read(site, &checkpoint_folder(&site.root, log).join(checkpoint)).await?;
        match timestamp::verify(&token, &Sha256Hash::of(&stamped), authorities) {
            Ok(_) => newest = newest.max(size),
            Err(TokenError::Imprint) => {
                report.find(
                    FindingKind::TimestampImprint,
                    place,
                    format!("it is not over checkpoint {checkpoint}"),
                );
            }
            Err(error @ TokenError::Malformed(_)) => {
                report.find(FindingKind::TimestampMalformed, place, error.to_string())
            }
            Err(error @ TokenError::Signature(_)) => {
                report.find(FindingKind::TimestampSignature, place, error.to_string())
            }
        }
    }
    let signed = report.heads.iter().find(|head| head.log == log).map_or(0, |head| head.size);
    match (authorities.is_empty(), count) {
        (true, 0) => {}
        (true, count) => report.not_checked.push(format!(
            "{}: whose {count} timestamps are: no certificate of an authority was given, so each was held against the \
             one that it has with it",
            log.name()
        )),
        (false, _) if signed == 0 || newest >= signed => {}
        (false, _) if newest > 0 => report.not_checked.push(format!(
            "{}: when commits {newest} to {} were made: the newest timestamp is of size {newest}",
            log.name(),
            signed - 1
        )),
        (false, _) => {
            let place = format!("{}/_tlog/timestamp", log.name());
            report.find(FindingKind::TimestampMissing, place, "no timestamp leads to one of the given authorities");
        }
    }
    Ok(())
}

/// Adds a finding if too few witnesses have cosigned the newest signed tree.
fn quorum(log: VolumeId, witnesses: &Witnesses, seen: Vec<Option<(u64, u64)>>, report: &mut Report) {
    let newest = report.heads.iter().find(|head| head.log == log).map_or(0, |head| head.size);
    if witnesses.quorum == 0 || newest == 0 {
        return;
    }
    let mut seen: Vec<(u64, u64)> = seen.into_iter().flatten().collect();
    seen.sort_unstable_by(|one, other| other.cmp(one));
    let enough = seen.get(..witnesses.quorum);
    let size = enough.and_then(|seen| seen.last()).map_or(0, |(size, _)| *size);
    if size >= newest {
        return;
    }
    let detail = match size {
        0 => format!("fewer than {} of the witnesses have cosigned any of its checkpoints", witnesses.quorum),
        _ => format!(
            "commits {size} to {} are not cosigned by {} of the witnesses",
            newest - 1,
            witnesses.quorum
        ),
    };
    // If the witnesses have last seen the log a short time ago by their own clocks, they may soon
    // be asked to cosign the newer commits.
    let looked = enough.and_then(|seen| seen.iter().map(|(_, time)| *time).min());
    let looked = looked.and_then(|time| DateTime::from_timestamp(i64::try_from(time).ok()?, 0));
    let is_young = looked.is_some_and(|looked| (report.time - looked).num_seconds() <= UNPROVEN_SECONDS_MAX);
    if is_young && size > 0 {
        report.not_checked.push(format!("{}: {detail} yet", log.name()));
    } else {
        report.find(FindingKind::WitnessMissing, format!("{}/_tlog/witness", log.name()), detail);
    }
}
