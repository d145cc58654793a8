//! Audit logs as the tools of users write them, from the file to the verified archive.
//!
//! Goal: each case of the corpus's folder `field` has the outcome that its README states. Each is
//! ingested by the real binary, as the only log of an archive. Then the numbers of events and
//! rejects are right, the rules raise the alerts that they should, `export` gives every byte back,
//! and both verifiers find nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::corpus;
use crate::run::{expect_code, export, ingest, output, strongroom, write};

/// A case of the folder, and its right outcome.
struct Case {
    file: &'static str,
    events: usize,
    rejects: usize,
    /// Rules that fire, with the number of their alerts. Other rules may fire too, if the severity
    /// of their alerts is below `high`.
    alerts: &'static [(&'static str, usize)],
}

/// A rule about a read of a Secret of kube-system by a person.
const SECRET_READ: &str = "kube-system-secret-read";

const CASES: &[Case] = &[
    Case { file: "01-syslog-prefix.log", events: 3, rejects: 0, alerts: &[(SECRET_READ, 3)] },
    Case { file: "02-cri-stdout.log", events: 3, rejects: 1, alerts: &[(SECRET_READ, 1)] },
    Case { file: "03-docker-json-file.log", events: 2, rejects: 0, alerts: &[(SECRET_READ, 1)] },
    Case { file: "04-shippers.ndjson", events: 6, rejects: 0, alerts: &[(SECRET_READ, 6)] },
    Case { file: "05-openshift-viaq.ndjson", events: 1, rejects: 0, alerts: &[(SECRET_READ, 1)] },
    Case { file: "06-gcloud-read.json", events: 2, rejects: 0, alerts: &[(SECRET_READ, 1), ("pod-exec", 1)] },
    Case { file: "06b-gcloud-read-compact.json", events: 2, rejects: 0, alerts: &[(SECRET_READ, 2)] },
    Case { file: "07-aws-filter-log-events.json", events: 3, rejects: 0, alerts: &[(SECRET_READ, 3)] },
    Case {
        file: "07b-aws-filter-log-events-compact.json",
        events: 3,
        rejects: 0,
        alerts: &[(SECRET_READ, 3)],
    },
    Case { file: "08-aks-cut-16k.ndjson", events: 4, rejects: 0, alerts: &[(SECRET_READ, 2)] },
    Case {
        file: "09-aks-kube-apiserver-category.ndjson",
        events: 2,
        rejects: 1,
        alerts: &[(SECRET_READ, 2)],
    },
    Case { file: "13b-gke-attack.ndjson", events: 3, rejects: 0, alerts: ATTACK },
    Case { file: "13c-same-as-raw.ndjson", events: 3, rejects: 0, alerts: ATTACK },
    Case {
        file: "16-generate-name.ndjson",
        events: 6,
        rejects: 0,
        alerts: &[("host-access-pod-by-controller", 6)],
    },
    Case {
        file: "18-impersonated-in-one-stage.ndjson",
        events: 2,
        rejects: 0,
        alerts: &[("namespace-deleted", 1)],
    },
    Case {
        file: "23-padded-privileged-pod.log.gz",
        events: 2,
        rejects: 0,
        alerts: &[("privileged-container", 2), ("host-pid-ipc", 2)],
    },
    Case { file: "24-times.ndjson", events: 14, rejects: 0, alerts: &[] },
    Case {
        file: "26-oauth-logins.ndjson",
        events: 28,
        rejects: 0,
        alerts: &[("openshift-password-guessing", 1)],
    },
    Case {
        file: "54-anonymous-probes.ndjson",
        events: 14,
        rejects: 0,
        alerts: &[("anonymous-access-allowed", 1)],
    },
    Case { file: "60-unknown-level-stage.ndjson", events: 5, rejects: 0, alerts: &[(SECRET_READ, 1)] },
    Case { file: "63-rancher-api-audit.ndjson", events: 0, rejects: 2, alerts: &[] },
    Case { file: "65-deep.ndjson", events: 2, rejects: 0, alerts: &[("request-body-not-examined", 1)] },
];

/// The three acts of an attack: a Secret is read, a shell is opened, a binding is made.
const ATTACK: &[(&str, usize)] =
    &[(SECRET_READ, 1), ("pod-exec-kube-system", 1), ("rbac-cluster-admin-binding", 1)];

/// The archive of one case.
struct Sealed {
    _folder: TempDir,
    archive: std::path::PathBuf,
    log: Vec<u8>,
}

impl Sealed {
    fn of(corpus: &Path, file: &str) -> Sealed {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let archive = folder.path().join("archive");
        let log = corpus::read(&corpus.join("field").join(file));
        let path = write(folder.path(), file, &std::fs::read(corpus.join("field").join(file)).expect(file));
        let ran = output(ingest(&archive, &[&path]).arg("--complete"));
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(matches!(ran.status.code(), Some(0 | 1)), "{file}: {said}");
        Sealed { _folder: folder, archive, log }
    }

    fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let mut query = strongroom();
        query.args(["query", "--format", "csv", "--archive"]).arg(&self.archive).arg(sql);
        let (out, _) = expect_code(&mut query, 0);
        out.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    fn count(&self, table: &str) -> usize {
        self.rows(&format!("SELECT count(*) FROM {table}"))[0][0].parse().expect("a number")
    }

    /// Returns the number of alerts of each rule, by severity.
    fn alerts(&self) -> BTreeMap<(String, String), usize> {
        self.rows("SELECT severity, rule_name, count(*) FROM alerts GROUP BY 1, 2")
            .into_iter()
            .map(|row| ((row[0].clone(), row[1].clone()), row[2].parse().expect("a number")))
            .collect()
    }

    fn assert_proven(&self, file: &str) {
        let mut ours = strongroom();
        ours.args(["verify", "--archive"]).arg(&self.archive);
        let mut theirs = Command::new(std::env::var_os("STRONGROOM_PYTHON").unwrap_or("python3".into()));
        theirs.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/verify.py")).arg("archive");
        theirs.arg(&self.archive);
        for verifier in [&mut ours, &mut theirs] {
            let ran = output(verifier);
            let said = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success(), "{file}: {verifier:?}\n{said}");
        }
    }
}

#[test]
fn every_case_of_the_field_has_its_outcome() {
    let Some(corpus) = corpus::folder("field_cases") else { return };
    let mut wrong = Vec::new();
    for case in CASES {
        let sealed = Sealed::of(&corpus, case.file);
        let found = (sealed.count("events"), sealed.count("rejects"));
        let alerts = sealed.alerts();
        println!("{}: {found:?}", case.file);
        for ((severity, rule), count) in &alerts {
            println!("  {severity:<14} {rule:<40} {count}");
        }
        if found != (case.events, case.rejects) {
            wrong.push(format!("{}: {found:?}", case.file));
        }
        for (rule, count) in case.alerts {
            let fired: usize =
                alerts.iter().filter(|((_, name), _)| name == rule).map(|(_, count)| count).sum();
            if *count != fired {
                wrong.push(format!("{}: {rule} {fired} times", case.file));
            }
        }
        let urgent = alerts.keys().filter(|(severity, _)| severity == "high" || severity == "critical");
        let named = |rule: &str| case.alerts.iter().any(|(name, _)| *name == rule);
        wrong.extend(
            urgent.filter(|(_, rule)| !named(rule)).map(|(_, rule)| format!("{}: {rule}", case.file)),
        );
        assert!(export(&sealed.archive) == sealed.log, "{}: exported bytes differ", case.file);
        sealed.assert_proven(case.file);
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Entries of Google's log have no code, no groups and no URI. The three acts are the same, so the
/// same rules fire, with the same severities.
#[test]
fn an_attack_raises_the_same_alerts_as_googles_entries() {
    let Some(corpus) = corpus::folder("field_cases") else { return };
    let of = |file| Sealed::of(&corpus, file).alerts().into_keys().collect::<BTreeSet<_>>();
    let (entries, events) = (of("13b-gke-attack.ndjson"), of("13c-same-as-raw.ndjson"));
    assert_eq!(entries, events);
    assert!(events.len() >= 3, "{events:?}");
}

/// Two logs have events at the same times. If a sequence begins in one log and ends in the other,
/// its alert names the user of the last step, whichever log is read first.
#[test]
fn a_sequence_over_two_logs_names_the_user_of_its_last_step() {
    let Some(corpus) = corpus::folder("field_cases") else { return };
    let files = ["18-impersonated-in-one-stage.ndjson", "26-oauth-logins.ndjson"];
    for order in [[files[0], files[1]], [files[1], files[0]]] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let archive = folder.path().join("archive");
        let paths = order.map(|file| corpus.join("field").join(file));
        let ran = output(ingest(&archive, &[&paths[0], &paths[1]]).arg("--complete"));
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let mut query = strongroom();
        query.args(["query", "--format", "csv", "--archive"]).arg(&archive).arg(
            "SELECT message FROM alerts WHERE rule_name = 'sequence-anonymous-then-token' \
             AND actor = 'u-abc123'",
        );
        let (out, _) = expect_code(&mut query, 0);
        let named = "system:serviceaccount:cattle-system:rancher as u-abc123 works there with kubectl";
        assert!(out.contains(named), "{order:?}: {out}");
    }
}
