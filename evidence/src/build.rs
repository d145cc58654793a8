//! Makes a pack, from the question to the folder with its final name.
//!
//! Invariants:
//! 1. A pack gets its name only when it is complete, synced, and has been checked as a stranger
//!    would check it. A run that dies before that leaves a folder that [`PackFolder`] describes.
//! 2. The commits are read before the SQL runs. So a chosen row that is in none of these commits
//!    was sealed in the meantime, which is an error.

use std::path::Path;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde_json::{Value, json};
use strongroom_archive::error::LogError;
use strongroom_archive::{Archive, Records};
use strongroom_proof::verify::{Options, Report as Verified, Watch, Witnesses, verify};
use strongroom_schemas::Table;
use strongroom_schemas::record::Sha256Hash;
use strongroom_tlog::note::PublicKey;
use strongroom_tlog::signer::Signer;

use super::ask::{self, Answers, Asker, RunSql};
use super::attest::attest;
use super::check::check_pack;
use super::error::EvidenceError;
use super::find_gaps::Gaps;
use super::folder::PackFolder;
use super::ledger::Ledger;
use super::manifest::{Asked, FILES, MANIFEST, MANIFEST_NOTE, Manifest, PackFile, sign_manifest};
use super::progress::{Progress, Step};
use super::question::{Question, Span};
use super::report::Report;
use super::select::{Selected, write_pack_records};
use super::verify_md::verify_md;

/// An archive, the renderer of its records, and the function that runs SQL over it.
pub struct Sources<'s> {
    pub archive: &'s Archive,
    pub records: &'s dyn Records,
    pub sql: &'s RunSql<'s>,
}

/// Options for making a pack.
pub struct PackOptions<'o> {
    /// Signs the manifest.
    pub signer: Option<&'o Signer>,
    /// Keys that the caller obtained out of band, and with which the period is verified.
    pub public_keys: &'o [PublicKey],
    /// Ids of the rules whose alerts mean that events may be missing.
    pub gap_rules: &'o [&'o str],
    /// Number of threads that verify files; at least one is used.
    pub threads: usize,
    /// Name and version of the program that makes the pack.
    pub program: &'o str,
    /// The verifier for auditors; `VERIFY.md` states its hash.
    pub verifier: &'o [u8],
}

/// A pack that was made.
#[derive(Clone, Debug)]
pub struct Pack {
    pub manifest: Manifest,
    /// The report of `verify` on the archive; it is also in the pack.
    pub verified: Verified,
}

/// Makes the pack that answers `question`, and gives `folder` its name.
///
/// # Errors
/// Those of [`EvidenceError`]. After an error there is no pack.
pub fn build(
    sources: &Sources<'_>,
    question: Question,
    options: &PackOptions<'_>,
    folder: PackFolder,
    progress: &Progress<'_>,
) -> Result<Pack, EvidenceError> {
    let Sources { archive, sql, .. } = *sources;
    let asker = Asker { run: sql };
    let span = question.span().ok_or(EvidenceError::Period)?;

    progress.step(Step::ReadCommits);
    let ledger = Ledger::load(archive, span, None)?;
    // Report a wrong key now, before the long work of choosing and proving records.
    if let (Some(signer), Some(current)) = (options.signer, ledger.keys().current())
        && current != signer.public()
    {
        return Err(LogError::KeyNotCurrent { current }.into());
    }
    progress.step(Step::Choose);
    let mut answers = asker.answers(&question, folder.path())?;
    progress.step(Step::Prove { events: answers.events.rows, alerts: answers.alerts.rows });
    let mut selected = prove(sources, &question, &ledger, &mut answers, folder.path(), progress)?;

    progress.step(Step::VerifyArchive);
    let verified = verify_period(sources, span, options, progress.watch)?;
    progress.step(Step::AskStore);
    let store = attest(archive, &ledger)?;
    progress.step(Step::FindGaps);
    let gaps = Gaps::find(&asker, &question, &ledger, options.gap_rules, &verified)?;

    progress.step(Step::WriteReport);
    let counts = counts(&asker, &question, &ledger, &selected, &answers, &gaps)?;
    let (strongroom_json, keys) = ledger.identity();
    let mut manifest = Manifest {
        format: Manifest::FORMAT.to_owned(),
        archive_id: archive.id().to_owned(),
        location: archive.root().display().to_string(),
        made: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        program: options.program.to_owned(),
        question,
        events_query: answers.events,
        alerts_query: answers.alerts,
        counts,
        strongroom_json,
        keys,
        heads: ledger.head_entries(),
        signed_by: options.signer.map(|signer| signer.public().to_string()),
        files: Vec::new(),
    };
    let mut files = std::mem::take(&mut selected.files);
    let named = json!({ "format": "strongroom-evidence-files-1", "files": selected.named });
    let verification = verified.to_json();
    files.push(put_json(&folder, FILES, &named)?);
    files.push(put_json(&folder, "gaps.json", &gaps.to_json())?);
    files.push(put_json(&folder, "store.json", &store)?);
    files.push(put_json(&folder, "verification.json", &verification)?);
    let report = Report::ask(&asker, &manifest, &gaps, &verification, &store)?;
    files.push(folder.put("report.html", report.html().as_bytes())?);
    let verifier = Sha256Hash::of(options.verifier).to_string();
    files.push(folder.put("VERIFY.md", verify_md(&manifest, &verifier).as_bytes())?);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.files = files;
    put_manifest(&folder, &manifest, &ledger, options.signer)?;

    progress.step(Step::CheckPack);
    check(folder.path(), progress.watch)?;
    folder.publish()?;
    Ok(Pack { manifest, verified })
}

/// Writes the chosen records and their proofs.
fn prove(
    sources: &Sources<'_>,
    question: &Question,
    ledger: &Ledger,
    answers: &mut Answers,
    folder: &Path,
    progress: &Progress<'_>,
) -> Result<Selected, EvidenceError> {
    let alerts_asked = answers.alerts.rows;
    let (events, alerts) = answers.selections(question);
    let from = (sources.archive, ledger);
    let selected = write_pack_records(from, events, alerts, sources.records, folder, progress.watch)?;
    if !question.complete && selected.alerts != alerts_asked {
        let unsigned = alerts_asked.saturating_sub(selected.alerts);
        let detail = format!("{unsigned} of {alerts_asked} alerts are in no commit that is signed yet");
        return Err(EvidenceError::NotProvable { detail });
    }
    Ok(selected)
}

/// Verifies the archive. Only the files of the period are read.
fn verify_period(
    sources: &Sources<'_>,
    span: Span,
    options: &PackOptions<'_>,
    watch: &dyn Watch,
) -> Result<Verified, EvidenceError> {
    let day = |us: i64| DateTime::from_timestamp_micros(us).map(|time| time.date_naive());
    let options = Options {
        from: day(span.from_us),
        to: day(span.to_us - 1).or(Some(NaiveDate::MAX)),
        public_keys: options.public_keys.to_vec(),
        threads: options.threads,
        ..Options::default()
    };
    Ok(verify(sources.archive, &options, sources.records, watch)?)
}

fn counts(
    asker: &Asker<'_>,
    question: &Question,
    ledger: &Ledger,
    selected: &Selected,
    answers: &Answers,
    gaps: &Gaps,
) -> Result<Asked, EvidenceError> {
    let sql = format!("SELECT count(*) AS n FROM events WHERE {}", ask::events_condition(question));
    let (before, now) = (answers.events.rows, asker.number(&sql)?);
    if now != before {
        return Err(EvidenceError::StillReceiving { before, now });
    }
    Ok(Asked {
        events_in_question: before,
        alerts_in_question: answers.alerts.rows,
        events: selected.events,
        alerts: selected.alerts,
        redacted: selected.redacted,
        files: selected.named.len() as u64,
        rows_examined: ledger.rows(Table::Events),
        commits: ledger.commits,
        received: ledger.counts,
        rejects_at_positions: gaps.rejects_at_positions,
        rejects_received: gaps.rejects_received,
        events_without_time: gaps.events_without_time,
        proofs: selected.proofs,
    })
}

/// Writes a document, indented, with a newline at its end.
fn put_json(folder: &PackFolder, name: &str, document: &Value) -> Result<PackFile, EvidenceError> {
    folder.put(name, format!("{document:#}\n").as_bytes())
}

/// Writes the manifest. With a signer, it first writes the signed note over the manifest.
fn put_manifest(
    folder: &PackFolder,
    manifest: &Manifest,
    ledger: &Ledger,
    signer: Option<&Signer>,
) -> Result<(), EvidenceError> {
    let bytes = manifest.to_bytes();
    if let Some(signer) = signer {
        let note = sign_manifest(signer, ledger.keys(), &manifest.archive_id, &bytes)?;
        folder.put(MANIFEST_NOTE, note.as_bytes())?;
    }
    folder.put(MANIFEST, &bytes)?;
    Ok(())
}

/// Checks the pack as a stranger would.
fn check(folder: &Path, watch: &dyn Watch) -> Result<(), EvidenceError> {
    let checked = check_pack(folder, &[], &Witnesses::default(), watch)
        .map_err(|source| EvidenceError::Read { path: folder.to_owned(), source })?;
    match checked.findings.into_iter().next() {
        Some(finding) => Err(EvidenceError::FailedCheck { finding }),
        None => Ok(()),
    }
}
