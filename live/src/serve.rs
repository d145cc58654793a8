//! Keeps a pipeline running for years, by starting a new run after each failure.
//!
//! Invariant: whatever ends a run, the next run starts from what the archive has. There is no other
//! state to repair, so a restart is the remedy for every failure that does not pass by itself.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use strongroom_archive::{Archive, ArchiveError};
use strongroom_ingest::IngestError;
use strongroom_schemas::error_chain;

use crate::Source;
use crate::driver::{self, Drained, LiveObserver, Remembered, Run};

/// Wait before the first restart; it doubles up to [`RESTART_WAIT_MAX`].
const RESTART_WAIT: Duration = Duration::from_millis(500);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(30);
/// A run that lasted this long was healthy, so the next wait is again [`RESTART_WAIT`].
const WELL: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);

/// Runs `sources` into the archive that `open` opens, until `run.stop` is set.
///
/// # Errors
/// If the archive's location is wrong, before the first run. After later errors it waits and tries
/// again.
pub fn serve(
    open: &dyn Fn() -> Result<Archive, ArchiveError>,
    run: &Run<'_>,
    mut sources: Vec<Box<dyn Source>>,
    observer: &mut dyn LiveObserver,
) -> Result<Drained, IngestError> {
    let Run { metrics, stop, .. } = *run;
    let mut remembered = Remembered::default();
    let mut wait = RESTART_WAIT;
    let mut has_run = false;
    let mut lost = 0;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let given_up = metrics.given_up.load(Ordering::Relaxed);
        let ran = match open() {
            Ok(archive) => {
                has_run = true;
                driver::run(&archive, run, &mut sources, &mut remembered, observer)
            }
            Err(error) if !has_run && error.is_location() => return Err(error.into()),
            Err(error) => Err(error.into()),
        };
        let error = match ran {
            Ok(drained) => return Ok(drained),
            Err(error) => error,
        };
        let fenced = matches!(&error, IngestError::Archive(error) if crate::sealer::is_fenced(error));
        if begun.elapsed() > WELL || fenced {
            wait = RESTART_WAIT;
        }
        let text = error_chain(&error);
        let hint = error.hint().unwrap_or_default();
        if fenced {
            tracing::warn!(reason = %text, "another process has taken over a stream; restarting the pipeline");
        } else {
            tracing::error!(error = %text, hint, restart_in_ms = wait.as_millis() as u64, "restarting the pipeline");
        }
        metrics.restarts.fetch_add(1, Ordering::Relaxed);
        lost = metrics.given_up.load(Ordering::Relaxed).saturating_sub(given_up);
        metrics.set_trouble(Some(text));
        let until = Instant::now() + wait;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
        }
        wait = (wait * 2).min(RESTART_WAIT_MAX);
    }
    // Between two runs nothing is under way, but records that the last run gave up are not sealed.
    Ok(if lost == 0 { Drained::Complete } else { Drained::TimedOut { unsealed: lost } })
}
