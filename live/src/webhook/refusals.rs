//! Reports refused requests and connections: counts them by kind, and logs them at a bounded rate.
//!
//! Invariants:
//! - Each refusal is counted. For each kind and address at most one line is logged in [`PAUSE`],
//!   with the number of refusals that were not logged. Beyond [`PEERS_MAX`] such pairs, all further
//!   addresses of a kind share one line.
//! - A line has the peer's address, the subject of its certificate and, for a path that is not
//!   served, the path. It contains no token, no other header and no byte of a body. Text that a
//!   peer chose is escaped and shortened.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strongroom_journal::lock;

use super::counters::WebhookCounters;
use super::refusal_kind::RefusalKind;

/// Shortest time between two lines about one kind of refusal and one address.
pub const PAUSE: Duration = Duration::from_secs(60);
/// Maximum number of pairs of kind and address that have a line of their own.
const PEERS_MAX: usize = 64;
/// Longest text chosen by a peer in a line, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// The sender that was refused.
#[derive(Clone, Debug)]
pub struct Who<'w> {
    pub address: SocketAddr,
    /// The subject of the certificate that the sender showed.
    pub subject: Option<&'w str>,
}

/// Counts and logs refusals.
#[derive(Debug)]
pub struct Refusals {
    source: String,
    counters: Arc<WebhookCounters>,
    lines: Mutex<HashMap<(RefusalKind, Option<IpAddr>), Line>>,
}

/// The last line about one kind and one address.
#[derive(Debug)]
struct Line {
    logged: Instant,
    not_logged: u64,
}

impl Refusals {
    pub fn new(source: String, counters: Arc<WebhookCounters>) -> Refusals {
        Refusals { source, counters, lines: Mutex::default() }
    }

    /// Counts a refusal, and logs it if a line is due. `detail` adds to the kind; it must not
    /// contain a part of a header or a body.
    pub fn note(&self, kind: RefusalKind, who: &Who<'_>, detail: &str) {
        self.counters.refused(kind);
        if kind == RefusalKind::Closed {
            tracing::debug!(source = self.source, peer = %who.address, "a connection ended in its handshake");
            return;
        }
        let Some(not_logged) = self.is_due(kind, who.address.ip(), Instant::now()) else { return };
        let subject = shown(who.subject.unwrap_or("none"));
        let (source, peer, detail) = (self.source.as_str(), who.address, shown(detail));
        let (refused, hint) = (kind.as_str(), kind.hint());
        if matches!(kind, RefusalKind::TooLong | RefusalKind::Body) {
            // The events of the batch are lost, unless the sender sends them differently.
            tracing::error!(source, %peer, subject, refused, detail, not_logged, hint, "the webhook refused a batch");
        } else {
            tracing::warn!(source, %peer, subject, refused, detail, not_logged, hint, "the webhook refused a sender");
        }
    }

    /// Counts and logs a refusal that concerns no particular sender. Otherwise like
    /// [`Refusals::note`].
    pub fn note_all(&self, kind: RefusalKind, detail: &str) {
        self.counters.refused(kind);
        let Some(not_logged) = self.is_due(kind, IpAddr::from([0, 0, 0, 0]), Instant::now()) else { return };
        let (source, refused, hint) = (self.source.as_str(), kind.as_str(), kind.hint());
        tracing::warn!(source, refused, detail, not_logged, hint, "the webhook cannot take connections");
    }

    /// Returns how many refusals were not logged since the last line; `None` if no line is due.
    fn is_due(&self, kind: RefusalKind, address: IpAddr, now: Instant) -> Option<u64> {
        let is_over = |line: &Line| now.saturating_duration_since(line.logged) >= PAUSE;
        let mut lines = lock(&self.lines);
        let mut key = (kind, Some(address));
        if !lines.contains_key(&key) && lines.len() >= PEERS_MAX {
            lines.retain(|_, line| !is_over(line));
            if lines.len() >= PEERS_MAX {
                key.1 = None;
            }
        }
        match lines.get_mut(&key) {
            Some(line) if !is_over(line) => {
                line.not_logged += 1;
                None
            }
            Some(line) => {
                line.logged = now;
                Some(std::mem::take(&mut line.not_logged))
            }
            None => {
                lines.insert(key, Line { logged: now, not_logged: 0 });
                Some(0)
            }
        }
    }
}

/// Returns a text that a peer chose as the log may show it: escaped and shortened.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals() -> Refusals {
        Refusals::new("hook".to_owned(), Arc::default())
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_line_a_minute_for_each_kind_and_address() {
        let (refusals, now) = (refusals(), Instant::now());
        let due =
            |kind, last, after: u64| refusals.is_due(kind, address(last), now + Duration::from_secs(after));
        assert_eq!(due(RefusalKind::Credentials, 1, 0), Some(0));
        assert_eq!(due(RefusalKind::Credentials, 1, 1), None);
        assert_eq!(due(RefusalKind::Credentials, 1, 59), None);
        assert_eq!(due(RefusalKind::TooLong, 1, 59), Some(0), "another kind");
        assert_eq!(due(RefusalKind::Credentials, 2, 59), Some(0), "another address");
        assert_eq!(due(RefusalKind::Credentials, 1, 60), Some(2));
        assert_eq!(due(RefusalKind::Credentials, 1, 121), Some(0));
    }

    #[test]
    fn many_addresses_share_a_line() {
        let (refusals, now) = (refusals(), Instant::now());
        let lines = (0..=255)
            .filter(|last| refusals.is_due(RefusalKind::Path, address(*last), now).is_some())
            .count();
        assert_eq!(lines, PEERS_MAX + 1);
        assert!(lock(&refusals.lines).len() <= PEERS_MAX + 1);
        let later = now + PAUSE;
        assert_eq!(
            refusals.is_due(RefusalKind::Path, address(255), later),
            Some(0),
            "the others are forgotten"
        );
        assert_eq!(lock(&refusals.lines).len(), 1);
    }

    #[test]
    fn every_refusal_is_counted_under_a_name_of_its_own() {
        let refusals = refusals();
        let who = Who { address: SocketAddr::from(([192, 0, 2, 1], 4)), subject: None };
        for kind in RefusalKind::ALL {
            refusals.note(*kind, &who, "");
            refusals.note(*kind, &who, "");
        }
        let counts: HashMap<&str, u64> = refusals.counters.refusals().collect();
        assert_eq!(counts.len(), RefusalKind::ALL.len());
        assert!(counts.values().all(|count| *count == 2), "{counts:?}");
    }

    #[test]
    fn what_a_peer_chose_cannot_forge_a_line() {
        assert_eq!(shown("/a\n\u{1b}[31mb\u{202e}"), "/a\\n\\u{1b}[31mb\\u{202e}");
        assert_eq!(shown(&"x".repeat(500)).len(), SHOWN_CHARS_MAX + 3);
    }
}
