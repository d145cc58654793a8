//! Reports progress to the caller: the current step, and how much of it is done.
//!
//! Invariant: a step is reported before its work starts.

use strongroom_proof::verify::Watch;

/// A step of making a pack, or of comparing one with its archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading the signed commits.
    ReadCommits,
    /// Asking which records the question chooses.
    Choose,
    /// Proving this many records.
    Prove { events: u64, alerts: u64 },
    /// Verifying the archive, with the files of the period.
    VerifyArchive,
    /// Asking the store about versions, locks and holds.
    AskStore,
    /// Looking for gaps.
    FindGaps,
    /// Writing the report.
    WriteReport,
    /// Checking the pack as a stranger would.
    CheckPack,
    /// Asking the archive the question of a pack again.
    AskAgain,
}

/// What the caller shows of the progress.
pub struct Progress<'p> {
    /// Called at the start of each step.
    pub on_step: &'p dyn Fn(Step),
    /// Receives how much of a step has been read, where that is known.
    pub watch: &'p dyn Watch,
}

impl Progress<'_> {
    pub(crate) fn step(&self, step: Step) {
        (self.on_step)(step);
    }
}
