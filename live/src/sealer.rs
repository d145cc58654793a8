//! The thread that owns the archive's writer, and seals batches with it.
//!
//! Invariants:
//! - A batch is sealed whole and once, or not at all. After a failure a new writer reads how far
//!   the archive has got, and rows of the batch that the archive already has are left out.
//! - While a failure may pass, the batch is kept, and sealing is tried again. If another process
//!   has moved a position, the run ends, because the batch no longer continues what the archive
//!   has. If the clock was wrong, the run ends as soon as the clock is right, because the rows of
//!   the batch have arrival times from the wrong clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use strongroom_archive::{
    Archive, ArchiveError, ClockDoubt, Counts, EncodedRowGroup, Position, SealReport, SourcePosition, Writer,
    WriterOptions,
};
use strongroom_ingest::seal::encode_alerts;
use strongroom_ingest::stored_alerts::{ShortId, StoredAlerts};
use strongroom_schemas::{Alert, Table, error_chain};

use crate::Metrics;

/// First wait after a failed seal; it doubles up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT: Duration = Duration::from_millis(500);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(15);
/// How many times in a row a batch is sealed again at once because another process was faster.
const OVERTAKEN_MAX: u32 = 20;
/// How often a waiting sealer checks whether to give up.
const TICK: Duration = Duration::from_millis(100);

/// The rows, alerts and positions that one seal makes durable.
pub(super) struct SealBatch {
    pub(super) epoch: u64,
    /// Row groups of all tables but `alerts`.
    pub(super) row_groups: Vec<EncodedRowGroup>,
    /// Those that the archive has already are left out.
    pub(super) alerts: Vec<Alert>,
    pub(super) positions: Vec<SourcePosition>,
    pub(super) counts: Counts,
}

pub(super) enum Order {
    Seal(SealBatch),
    /// Read all positions again.
    Refresh,
}

pub(super) enum Sealed {
    Batch {
        epoch: u64,
        outcome: Result<SealReport, ArchiveError>,
        took: Duration,
        /// Alerts that other processes have sealed since the last answer.
        sealed_elsewhere: Vec<ShortId>,
    },
    Refreshed(Result<HashMap<Table, HashMap<String, Position>>, ArchiveError>),
}

pub(super) struct Sealer<'s> {
    pub(super) archive: &'s Archive,
    pub(super) writer: Option<Writer>,
    pub(super) stored_alerts: StoredAlerts,
    pub(super) sealed_elsewhere: Vec<ShortId>,
    /// Settings of the next writer.
    pub(super) options: WriterOptions,
    pub(super) metrics: &'s Metrics,
    /// Set when the driver no longer waits.
    pub(super) give_up: Arc<AtomicBool>,
}

/// Whether another process has moved a position that this process considered its own.
pub(super) fn is_fenced(error: &ArchiveError) -> bool {
    matches!(
        error,
        ArchiveError::PositionAhead { .. }
            | ArchiveError::PositionBehind { .. }
            | ArchiveError::PositionDiffers { .. }
            | ArchiveError::RowsRepeated { .. }
    )
}

/// Whether a failure is a bug in the program, so that trying again does not help.
fn is_bug(error: &ArchiveError) -> bool {
    matches!(
        error,
        ArchiveError::RowsBeyondPosition { .. }
            | ArchiveError::RowsWithoutPosition { .. }
            | ArchiveError::PartitionTwice { .. }
            | ArchiveError::PartitionName { .. }
    )
}

impl Sealer<'_> {
    pub(super) fn run(mut self, orders: &Receiver<Order>, answers: &Sender<Sealed>) {
        for order in orders {
            let answer = match order {
                Order::Seal(batch) => {
                    let begun = Instant::now();
                    let outcome = self.seal(&batch);
                    let sealed_elsewhere = std::mem::take(&mut self.sealed_elsewhere);
                    Sealed::Batch { epoch: batch.epoch, outcome, took: begun.elapsed(), sealed_elsewhere }
                }
                Order::Refresh => Sealed::Refreshed(self.refresh()),
            };
            if answers.send(answer).is_err() {
                return;
            }
        }
    }

    /// Seals a batch, and tries again for as long as it takes.
    fn seal(&mut self, batch: &SealBatch) -> Result<SealReport, ArchiveError> {
        let mut wait = RETRY_WAIT;
        let mut overtaken = 0;
        loop {
            let error = match self.try_seal(batch) {
                Ok(report) => {
                    self.options.clock_seen = self.writer.as_ref().and_then(Writer::clock_seen);
                    if self.metrics.trouble().is_some() {
                        tracing::info!("sealing recovered");
                        self.metrics.set_trouble(None);
                    }
                    return Ok(report);
                }
                Err(error) => error,
            };
            self.writer = None;
            // Another process sealed alerts at the same moment. Its alerts are looked at, and ours are
            // sealed at once.
            if matches!(error, ArchiveError::AlertsUnknown { .. }) && overtaken < OVERTAKEN_MAX {
                overtaken += 1;
                continue;
            }
            if is_fenced(&error) || is_bug(&error) || self.give_up.load(Ordering::Relaxed) {
                return Err(error);
            }
            if matches!(error, ArchiveError::ClockDoubted { .. }) {
                self.outlast_doubt(&error);
                return Err(error);
            }
            if !self.pause(&error, wait) {
                return Err(error);
            }
            wait = (wait * 2).min(RETRY_WAIT_MAX);
        }
    }

    /// Reports that `error` keeps the batch from being sealed, and waits. Returns `false` if the
    /// driver stopped waiting.
    fn pause(&self, error: &ArchiveError, wait: Duration) -> bool {
        self.metrics.seal_failures.fetch_add(1, Ordering::Relaxed);
        let text = error_chain(error);
        let hint = error.hint().unwrap_or_default();
        tracing::error!(error = %text, hint, retry_in_ms = wait.as_millis() as u64, "cannot seal; trying again");
        self.metrics.set_trouble(Some(text));
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.give_up.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(TICK);
        }
        true
    }

    /// Waits until the clock no longer contradicts other evidence.
    fn outlast_doubt(&self, error: &ArchiveError) {
        self.metrics.clock_doubted.store(true, Ordering::Relaxed);
        let event = match error {
            ArchiveError::ClockDoubted { doubt: ClockDoubt::Jumped { event, .. }, .. } => Some(*event),
            _ => None,
        };
        let mut wait = RETRY_WAIT;
        let mut is_waiting = self.pause(error, wait);
        while is_waiting {
            wait = (wait * 2).min(RETRY_WAIT_MAX);
            let opened = open_writer(self.archive, &self.options, &self.give_up);
            is_waiting = match opened.and_then(|mut writer| writer.check_clock(event)) {
                Ok(()) => break,
                Err(error) => self.pause(&error, wait),
            };
        }
        self.metrics.clock_doubted.store(false, Ordering::Relaxed);
    }

    fn try_seal(&mut self, batch: &SealBatch) -> Result<SealReport, ArchiveError> {
        let mut stored = Vec::new();
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let mut writer = open_writer(self.archive, &self.options, &self.give_up)?;
                // An earlier attempt may have been partly successful. Each table is committed
                // whole. So a table has this batch if it has every stream of the batch up to the
                // position where the batch ends. A table that may be ahead (any but `events`) may
                // have more. A single stream proves nothing: another process may have sealed it up
                // to the same position.
                for table in [Table::Rejects, Table::Alerts, Table::Events] {
                    let mut moved = 0;
                    let mut there = 0;
                    for given in batch.positions.iter().filter(|given| Some(given.position) != given.previous)
                    {
                        moved += 1;
                        let found = writer.position(table, &given.partition)?;
                        let is_there = found.is_some_and(|found| {
                            found == given.position
                                || (table != Table::Events && found.next_offset > given.position.next_offset)
                        });
                        there += usize::from(is_there);
                    }
                    if moved > 0 && there == moved {
                        stored.push(table);
                    }
                }
                none.insert(writer)
            }
        };
        if stored.contains(&Table::Events) {
            // The batch was committed, and only the answer was lost.
            return Ok(SealReport::default());
        }
        let mut alerts = Vec::new();
        if writer.is_shared() || writer.alerts_known().is_none() {
            self.sealed_elsewhere.extend(self.stored_alerts.catch_up(self.archive)?);
            writer.knows_alerts(self.stored_alerts.ends().clone());
        }
        if !stored.contains(&Table::Alerts) {
            alerts = self.stored_alerts.without_stored(batch.alerts.clone());
        }
        for row_group in batch.row_groups.iter().filter(|row_group| !stored.contains(&row_group.table())) {
            writer.append(row_group.clone())?;
        }
        for row_group in encode_alerts(&alerts)? {
            writer.append(row_group)?;
        }
        let report = writer.seal(&batch.positions, batch.counts)?;
        self.stored_alerts.sealed(&alerts, writer.alerts_known());
        Ok(report)
    }

    fn refresh(&mut self) -> Result<HashMap<Table, HashMap<String, Position>>, ArchiveError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(open_writer(self.archive, &self.options, &self.give_up)?),
        };
        writer.refresh()?;
        Ok(Table::ALL.map(|table| (table, positions(writer, table))).into())
    }
}

/// Opens the archive's writer. If only one process may have the writer and another has it, waits
/// until it is free or `stop` is set.
pub(super) fn open_writer(
    archive: &Archive,
    options: &WriterOptions,
    stop: &AtomicBool,
) -> Result<Writer, ArchiveError> {
    let mut is_logged = false;
    loop {
        if let Some(writer) = archive.try_writer(options.clone())? {
            return Ok(writer);
        }
        if stop.load(Ordering::Relaxed) {
            return Err(ArchiveError::Held { root: archive.root().to_owned() });
        }
        if !std::mem::replace(&mut is_logged, true) {
            tracing::warn!("another process writes to the archive; waiting for it");
        }
        std::thread::sleep(TICK);
    }
}

/// Returns the newest position of each partition of a table.
pub(super) fn positions(writer: &Writer, table: Table) -> HashMap<String, Position> {
    writer.positions(table).map(|(partition, position)| (partition.to_owned(), position)).collect()
}
