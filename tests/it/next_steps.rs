//! An alert suggests a query to the analyst, in its column `next_steps`. These queries work.
//!
//! Goal: an analyst in a hurry never gets a query that is not valid. Method: every built-in rule is
//! given its own fixture, so that it raises an alert. The query in this alert is then run on an
//! archive.

use std::collections::BTreeSet;
use std::path::Path;

use futures::StreamExt;
use strongroom_archive::Archive;
use strongroom_query::{Session, SessionOptions};

use crate::corpus;

#[test]
fn every_question_of_an_alert_is_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let location = folder.path().join("archive");
    let archive = Archive::open_or_create(&location.to_string_lossy()).expect("a new archive");
    let session = Session::open(archive, &SessionOptions::default()).expect("a session");

    let rules = corpus::builtin();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/rules/fixtures");
    let mut asked = BTreeSet::new();
    let mut faults = Vec::new();
    for path in corpus::event_files(&fixtures) {
        let text = corpus::read(&path);
        let (batches, rejects) = corpus::decode(&corpus::lines(&text));
        assert_eq!(rejects, 0, "{}", path.display());
        for alert in corpus::alerts(&rules, &batches) {
            if !asked.insert(alert.rule_name.clone()) {
                continue;
            }
            let question = alert.next_steps.split('`').nth(1).unwrap_or_default();
            if question.contains('{') {
                faults.push(format!("{}: a placeholder is left in {question}", alert.rule_name));
            }
            let answered = runtime.block_on(async {
                let mut answer = session.ask(question).await.map_err(|error| error.to_string())?;
                while let Some(batch) = answer.rows.next().await {
                    batch.map_err(|error| error.to_string())?;
                }
                Ok::<(), String>(())
            });
            if let Err(error) = answered {
                faults.push(format!("{}: {error}: {question}", alert.rule_name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let names: BTreeSet<String> =
        rules.rules().iter().filter(|rule| rule.alerts).map(|rule| rule.name.clone()).collect();
    assert_eq!(asked, names, "every rule has raised an alert");
}
