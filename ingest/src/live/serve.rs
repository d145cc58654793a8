//! A pipeline that is left alone for years: runs, one after the other.
//!
//! Invariant: whatever ends a run, the next one begins from what the archive holds. There is no other state
//! to mend, so beginning again is the answer to everything that waiting does not mend.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use strongroom_archive::{Archive, ArchiveError};

use super::Source;
use super::driver::{self, Drained, LiveObserver, Remembered, Run};
use super::sealer::chain;
use crate::error::IngestError;

/// Wait before the first new run; it doubles up to [`AGAIN_WAIT_MAX`].
const AGAIN_WAIT: Duration = Duration::from_millis(500);
const AGAIN_WAIT_MAX: Duration = Duration::from_secs(30);
/// A run that lasted so long was well: the wait begins anew.
const WELL: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);

/// Runs `sources` into the archive that `open` opens until it is stopped.
///
/// # Errors
/// When the archive's location is wrong, before the first run. Everything later is waited for.
pub fn serve(
    open: &dyn Fn() -> Result<Archive, ArchiveError>,
    run: &Run<'_>,
    mut sources: Vec<Box<dyn Source>>,
    observer: &mut dyn LiveObserver,
) -> Result<Drained, IngestError> {
    let Run { metrics, stop, .. } = *run;
    let mut remembered = Remembered::default();
    let mut wait = AGAIN_WAIT;
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
        let fenced = matches!(&error, IngestError::Archive(error) if super::sealer::is_fenced(error));
        if begun.elapsed() > WELL || fenced {
            wait = AGAIN_WAIT;
        }
        let text = chain(&error);
        let hint = error.hint().unwrap_or_default();
        if fenced {
            tracing::warn!(reason = %text, "another process has taken a stream over; beginning again");
        } else {
            tracing::error!(error = %text, hint, again_in_ms = wait.as_millis() as u64, "the pipeline begins again");
        }
        metrics.restarts.fetch_add(1, Ordering::Relaxed);
        lost = metrics.given_up.load(Ordering::Relaxed).saturating_sub(given_up);
        metrics.set_trouble(Some(text));
        let until = Instant::now() + wait;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
        }
        wait = (wait * 2).min(AGAIN_WAIT_MAX);
    }
    // Between two runs nothing is under way, but what the last one gave up is not sealed.
    Ok(if lost == 0 { Drained::Whole } else { Drained::Short { unsealed: lost } })
}
