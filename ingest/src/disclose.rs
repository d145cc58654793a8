//! Uses the redaction key to show values and rejects in clear again, and records each use.
//!
//! Invariants:
//! - Each use is sealed as a record of `activity` before its result is handed out. If the use
//!   cannot be recorded, no result is handed out.
//! - A record names who asked, why, and what was asked about. It has no value and no key.
//! - No table of values is kept. A token can only be compared with a value that the person who asks
//!   already has.
//!
//! After a crash between the record and the result, there is a record of a use without a result,
//! never a result without a record.

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, RecordBatch};
use chrono::Utc;
use serde_json::{Map, Value, json};
use strongroom_archive::activity::{ActivityKind, ActivityLog, ActivityRecord};
use strongroom_archive::{Archive, ArchiveError, WriterOptions};
use strongroom_redact::{KeyId, is_encrypted, key_id_of};
use strongroom_schemas::{Table, rejects};

use crate::error::IngestError;

/// Id under which this module writes its records.
pub const WRITER_ID: &str = "disclosure";
/// Maximum length of a reason, in bytes.
pub const REASON_BYTES_MAX: usize = 4096;

/// Who uses the key, and why.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub principal: &'a str,
    pub reason: &'a str,
    /// The id of the archive in question, if the record is written to another archive.
    pub about: Option<&'a str>,
}

/// A use of the key.
#[derive(Clone, Copy, Debug)]
pub enum Disclosure<'a> {
    /// A check whether a value is the one that a token stands for.
    Reveal { token: &'a str, is_the_value: bool },
    /// The decryption of rejects.
    Decrypt { rejects: u64, sources: &'a [String] },
}

/// Writes and seals the record of a use. Returns `false`, and records nothing, if another process
/// is the archive's only writer.
///
/// # Errors
/// If the archive cannot be written, or if a name is not valid in a record.
pub fn record(archive: &Archive, asked: Asked<'_>, disclosure: Disclosure<'_>) -> Result<bool, IngestError> {
    let Some(mut writer) = archive.try_writer(WriterOptions::default())? else { return Ok(false) };
    let (subject, details) = match disclosure {
        Disclosure::Reveal { token, is_the_value } => {
            (Some(token), json!({ "use": "reveal", "is_the_value": is_the_value }))
        }
        Disclosure::Decrypt { rejects, sources } => {
            (None, json!({ "use": "decrypt", "rejects": rejects, "sources": sources }))
        }
    };
    let mut details: Map<String, Value> = details.as_object().cloned().unwrap_or_default();
    details.insert("reason".to_owned(), asked.reason.into());
    if let Some(about) = asked.about {
        details.insert("archive".to_owned(), about.into());
    }
    let record = ActivityRecord::new(ActivityKind::BreakGlass, Utc::now(), asked.principal, subject, details);
    let record = record.map_err(|source| ArchiveError::Activity { source })?;
    let mut log = ActivityLog::open(&mut writer, WRITER_ID)?;
    log.append(&mut writer, &[record])?;
    log.seal(&mut writer)?;
    Ok(true)
}

/// An encrypted reject.
#[derive(Clone, Debug)]
pub struct Encrypted {
    pub source: String,
    pub offset: i64,
    pub key: KeyId,
    pub bytes: Vec<u8>,
}

/// Returns the encrypted rejects of an archive, in the order of their sources and offsets. If
/// `sources` is not empty, returns only those of the partitions in it.
///
/// # Errors
/// If the archive cannot be read.
pub fn encrypted_rejects(
    archive: &Archive,
    sources: &[String],
) -> Result<impl Iterator<Item = Result<Encrypted, IngestError>>, IngestError> {
    let mut partitions = Vec::new();
    for source in archive.sources()? {
        if sources.is_empty() || sources.contains(&source.partition) {
            partitions.push((archive.read_rows(Table::Rejects, &source.partition)?, source.partition));
        }
    }
    let of_batch = |batch: &RecordBatch, source: &str| -> Vec<Encrypted> {
        let raws = batch.column_by_name(rejects::RAW).and_then(|raws| raws.as_binary_opt::<i32>());
        let offsets = batch.column_by_name(rejects::SOURCE_OFFSET);
        let offsets = offsets.and_then(|offsets| offsets.as_primitive_opt::<Int64Type>());
        let Some((raws, offsets)) = raws.zip(offsets) else { return Vec::new() };
        let rows = (0..batch.num_rows()).filter(|row| raws.is_valid(*row) && is_encrypted(raws.value(*row)));
        let encrypted = rows.filter_map(|row| {
            let bytes = raws.value(row).to_vec();
            Some(Encrypted {
                source: source.to_owned(),
                offset: offsets.value(row),
                key: key_id_of(&bytes)?,
                bytes,
            })
        });
        encrypted.collect()
    };
    Ok(partitions.into_iter().flat_map(move |(rows, source)| {
        rows.flat_map(move |batch| match batch {
            Ok(batch) => of_batch(&batch, &source).into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error.into())],
        })
    }))
}
