//! Replaces rules while the daemon runs: on SIGHUP, and when watched files change.
//!
//! Invariant: a set of rules is put in place as a whole or not at all. A broken file is reported
//! with its line and counted, and the rules in use stay. Text in progress is matched with the rules
//! that were in place when it arrived.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use strongroom_alerts::RuleSet;
use strongroom_live::{LiveRules, Metrics};
use strongroom_schemas::error_chain;

use crate::exit::CliError;
use crate::ingest;

/// Where rules come from and where they go.
pub struct Reload {
    pub rules: Arc<LiveRules>,
    pub builtin: bool,
    pub paths: Vec<PathBuf>,
    /// How often the files are checked for changes; zero for never.
    pub watch: Duration,
    pub metrics: Arc<Metrics>,
}

impl Reload {
    /// Waits for signals and changes on its own thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(self) -> Result<(), CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        self.metrics.rules.store(self.rules.current().rules().len() as u64, Ordering::Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot wait for signals")?;
        let mut hangup = {
            let _entered = runtime.enter();
            signal(SignalKind::hangup()).context("cannot wait for signals")?
        };
        std::thread::Builder::new()
            .name("rules".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut known = RuleSet::digest(&self.paths).ok();
                    loop {
                        let asked = if self.watch.is_zero() {
                            hangup.recv().await.map(|()| true)
                        } else {
                            match tokio::time::timeout(self.watch, hangup.recv()).await {
                                Ok(received) => received.map(|()| true),
                                Err(_) => Some(false),
                            }
                        };
                        let Some(asked) = asked else { return };
                        let now = RuleSet::digest(&self.paths).ok();
                        // An unreadable file is reported once, like a broken one.
                        if asked || now != known {
                            known = now;
                            self.reload();
                        }
                    }
                });
            })
            .context("cannot start the thread that loads rules")?;
        Ok(())
    }

    fn reload(&self) {
        match ingest::load_rules(!self.builtin, &self.paths) {
            Ok(rules) => {
                let rules = Arc::new(rules);
                let before = self.rules.replace(Arc::clone(&rules));
                let (old, new) = (texts(&before), texts(&rules));
                let added = new.keys().filter(|name| !old.contains_key(*name)).count();
                let removed = old.keys().filter(|name| !new.contains_key(*name)).count();
                let same = |(name, text): &(&&str, &&str)| old.get(**name).is_none_or(|old| old == *text);
                let changed = new.len() - new.iter().filter(same).count();
                self.metrics.rules.store(rules.rules().len() as u64, Ordering::Relaxed);
                self.metrics.rule_reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(rules = rules.rules().len(), added, changed, removed, "rules reloaded");
            }
            Err(error) => {
                self.metrics.rule_reloads_refused.fetch_add(1, Ordering::Relaxed);
                let error = error_chain(error.source.as_ref());
                tracing::error!(%error, "rules refused; the rules in use stay");
            }
        }
    }
}

fn texts(rules: &RuleSet) -> BTreeMap<&str, &str> {
    rules.rules().iter().map(|rule| (rule.name.as_str(), rule.text.as_str())).collect()
}
