//! Findings and their kinds.
//!
//! Invariant: the kinds are those of the table *Kinds of findings* in `docs/proof.md`. Their names
//! never change, because other programs read stored reports.

use std::fmt;

use serde::{Serialize, Serializer};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// Path below the root, followed by the range of bytes or the row if it is known.
    #[serde(rename = "where")]
    pub place: String,
    pub detail: String,
}

macro_rules! kinds {
    ($($kind:ident = $name:literal,)+) => {
        /// What is wrong. `docs/proof.md` says what each kind means.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingKind {
            $($kind,)+
        }

        impl FindingKind {
            pub const ALL: &[FindingKind] = &[$(FindingKind::$kind,)+];

            /// Returns the name in reports.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(FindingKind::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    ManifestMalformed = "manifest_malformed",
    ManifestChanged = "manifest_changed",
    KeyRecord = "key_record",
    KeyMismatch = "key_mismatch",
    KeyUntrusted = "key_untrusted",
    KeyRetired = "key_retired",
    CommitMissing = "commit_missing",
    CommitMalformed = "commit_malformed",
    CommitChanged = "commit_changed",
    CommitsCut = "commits_cut",
    NotAppendOnly = "not_append_only",
    ClockBack = "clock_back",
    WrongYear = "wrong_year",
    VolumeReopened = "volume_reopened",
    VolumeMissing = "volume_missing",
    CheckpointMalformed = "checkpoint_malformed",
    CheckpointOrigin = "checkpoint_origin",
    CheckpointSignature = "checkpoint_signature",
    CheckpointRoot = "checkpoint_root",
    TileMissing = "tile_missing",
    TileChanged = "tile_changed",
    Unproven = "unproven",
    RememberedInvalid = "remembered_invalid",
    RolledBack = "rolled_back",
    Forked = "forked",
    FileNamedTwice = "file_named_twice",
    FileMissing = "file_missing",
    FileSize = "file_size",
    FileUnreadable = "file_unreadable",
    FileChanged = "file_changed",
    FileUnnamed = "file_unnamed",
    Tags = "tags",
    Rows = "rows",
    RecordChanged = "record_changed",
    Statistics = "statistics",
    Offsets = "offsets",
    ColumnsDiffer = "columns_differ",
    PositionBack = "position_back",
    Overlap = "overlap",
    RowsMissing = "rows_missing",
    RowsExtra = "rows_extra",
    Counts = "counts",
    Shadowed = "shadowed",
    DeleteMarker = "delete_marker",
    LockMissing = "lock_missing",
    LockMode = "lock_mode",
    RetentionShort = "retention_short",
    RetentionRecord = "retention_record",
    HoldRecord = "hold_record",
    HoldMissing = "hold_missing",
    DropRecord = "drop_record",
    DropUnfinished = "drop_unfinished",
    ClockRecord = "clock_record",
    DeltaCheckpoint = "delta_checkpoint",
    WitnessMalformed = "witness_malformed",
    WitnessSignature = "witness_signature",
    WitnessMissing = "witness_missing",
    TimestampMalformed = "timestamp_malformed",
    TimestampSignature = "timestamp_signature",
    TimestampImprint = "timestamp_imprint",
    TimestampMissing = "timestamp_missing",
    PackManifest = "pack_manifest",
    PackFileMissing = "pack_file_missing",
    PackFileChanged = "pack_file_changed",
    PackFileExtra = "pack_file_extra",
    PackProof = "pack_proof",
    PackSignature = "pack_signature",
    PackOrder = "pack_order",
    PackRecords = "pack_records",
    PackArchiveFiles = "pack_archive_files",
    PackCounts = "pack_counts",
    PackQuestion = "pack_question",
    PackComplete = "pack_complete",
    PackArchive = "pack_archive",
    PackIncomplete = "pack_incomplete",
}

impl fmt::Display for FindingKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl Serialize for FindingKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
