//! Creates an archive with its folder or bucket (`init`), and checks whether a store protects an
//! archive as it should (`check`).
//!
//! Invariants: `init` creates missing parts and changes no existing ones. `check` puts one object
//! that has no meaning, locked for a day, and otherwise only reads. `check` never tries to delete
//! an object: if the lock did not work, the test itself would remove the object. An item that the
//! store refuses to report on is reported as not checked, never as in order.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Days, SecondsFormat, Utc};
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::Value;
use strongroom_schemas::Table;
use strongroom_store::error::StoreError;
use strongroom_store::options::{LockMode, Retention, StoreOptions};
use strongroom_store::s3::{
    Condition, ObjectLock, ObjectMeta, S3, auditor_policy, bucket_policy, keeper_policy, remover_policy,
    writer_policy,
};
use strongroom_store::s3_error::S3Error;
use strongroom_store::{Bucket, Store, background, layout};
use strongroom_tlog::note::PublicKey;

use crate::archive::{Archive, Place};
use crate::delta::snapshot::Volume;
use crate::error::{ArchiveError, Result};

/// Number of sealed files whose locks are checked.
const SAMPLE_FILES: usize = 16;
/// Maximum number of names in a finding.
const NAMES_MAX: usize = 5;
/// Maximum number of commits whose locks are checked.
const COMMITS_MAX: usize = 2_000;
/// Number of objects whose locks are requested at the same time.
const LOCKS_AT_ONCE: usize = 16;
/// Clock difference in seconds above which a check warns.
const CLOCK_WARN_SECONDS: i64 = 60;
/// Clock difference in seconds above which stores refuse requests.
const CLOCK_FAIL_SECONDS: i64 = 900;

/// What [`init`] found and created.
#[derive(Debug)]
pub struct Init {
    pub archive: Archive,
    pub made_bucket: bool,
    pub made_archive: bool,
    /// For a bucket: the policies for its administrator to install.
    pub policies: Option<Policies>,
}

/// Policies in the language of AWS IAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policies {
    /// For the identity that writes: the least it needs, and the actions it must not have.
    pub writer: Value,
    /// For the identity that extends retention and places and releases holds.
    pub keeper: Value,
    /// For the identity that checks and queries.
    pub auditor: Value,
    /// For the identity that drops volumes past their retention.
    pub remover: Value,
    /// For the bucket: the actions it refuses to everyone.
    pub bucket: Value,
}

/// Creates the archive at `location`, and its bucket, unless they exist. A new archive names
/// `public_key` as its first key.
///
/// # Errors
/// [`ArchiveError::BucketUnfit`] for a bucket that exists without object lock or versions, or whose
/// rules remove objects; otherwise those of [`Archive::open_or_create`].
pub fn init(location: &str, options: &StoreOptions, public_key: Option<PublicKey>) -> Result<Init> {
    let place = Place::of(location, options)?;
    let made_bucket = match &place.store {
        Store::Local => false,
        Store::S3(bucket) => {
            let s3 = bucket.s3.clone();
            background::wait(async move {
                let made = !s3.bucket_exists().await? && s3.create_bucket().await?;
                unfit(&s3).await.map(|()| made)
            })?
        }
    };
    let made_archive = !place.is_archive()?;
    if made_archive {
        place.create(public_key)?;
    }
    let archive = place.open()?;
    let policies = match &archive.site().store {
        Store::Local => None,
        Store::S3(Bucket { s3, retention }) => Some(Policies {
            writer: writer_policy(s3),
            keeper: keeper_policy(s3),
            auditor: auditor_policy(s3),
            remover: remover_policy(s3),
            bucket: bucket_policy(s3, retention.now()),
        }),
    };
    Ok(Init { archive, made_bucket, made_archive, policies })
}

/// Returns an error for a bucket that would not keep its objects.
async fn unfit(s3: &S3) -> Result<()> {
    let refuse = |reason: &str| {
        Err(ArchiveError::BucketUnfit { bucket: s3.bucket().to_owned(), reason: reason.to_owned() })
    };
    let unknown = |operation, source| {
        Err(StoreError::Bucket { operation, bucket: s3.bucket().to_owned(), source }.into())
    };
    match s3.lock_configuration().await {
        Condition::Known(lock) if lock.enabled => {}
        Condition::Known(_) | Condition::Unset => return refuse("object lock is off"),
        Condition::Unknown(source) => return unknown("read the lock settings of", source),
    }
    match s3.versioning().await {
        Condition::Known(true) => {}
        Condition::Known(false) | Condition::Unset => return refuse("versions are not kept"),
        Condition::Unknown(source) => return unknown("read the versioning of", source),
    }
    match s3.expiring_rules().await {
        Condition::Known(rules) if !rules.is_empty() => {
            refuse(&format!("lifecycle rules remove or hide objects: {}", rules.join(", ")))
        }
        _ => Ok(()),
    }
}

/// The verdict on an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Not as safe as it could be, or not known.
    Warn,
    /// The archive does not keep what it promises.
    Fail,
}

/// One item of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub item: &'static str,
    pub verdict: Verdict,
    /// Whether the store answered the question.
    pub checked: bool,
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

impl Finding {
    fn ok(item: &'static str, detail: impl Into<String>) -> Self {
        Finding { item, verdict: Verdict::Ok, checked: true, detail: detail.into(), remedy: None }
    }

    fn warn(item: &'static str, detail: impl Into<String>, remedy: &'static str) -> Self {
        Finding { verdict: Verdict::Warn, remedy: Some(remedy), ..Finding::ok(item, detail) }
    }

    fn fail(item: &'static str, detail: impl Into<String>, remedy: &'static str) -> Self {
        Finding { verdict: Verdict::Fail, remedy: Some(remedy), ..Finding::ok(item, detail) }
    }

    fn unchecked(item: &'static str, failure: &S3Error) -> Self {
        let remedy = "allow reading this setting; `strongroom archive init` prints the permissions that a writer needs";
        let detail = format!("not checked: {failure}");
        Finding { checked: false, ..Finding::warn(item, detail, remedy) }
    }
}

/// Checks the archive at `location`, item by item.
///
/// # Errors
/// If the location cannot be used at all. An answer of the store, even a refusal, is a finding and
/// not an error.
pub fn check(location: &str, options: &StoreOptions) -> Result<Vec<Finding>> {
    let place = Place::of(location, options)?;
    match place.store.clone() {
        Store::Local => check_local(place),
        Store::S3(bucket) => check_bucket(place, bucket.s3),
    }
}

fn opened(place: Place, findings: &mut Vec<Finding>) -> Option<Archive> {
    match place.open() {
        Ok(archive) => {
            findings.push(Finding::ok("archive", format!("format known, id {}", archive.id())));
            Some(archive)
        }
        Err(error) => {
            let remedy = "create it with `strongroom archive init`, or correct the location";
            findings.push(Finding::fail("archive", error.to_string(), remedy));
            None
        }
    }
}

fn check_local(place: Place) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let Some(archive) = opened(place, &mut findings) else { return Ok(findings) };
    let files = sample(&archive)?;
    let writable = files
        .iter()
        .filter(|(path, _)| std::fs::metadata(path).is_ok_and(|metadata| !metadata.permissions().readonly()));
    let missing = files.iter().filter(|(path, _)| !path.exists()).count();
    findings.push(match (missing, writable.count()) {
        (0, 0) => Finding::ok("files", format!("{} sealed files exist and are read-only", files.len())),
        (0, count) => Finding::warn(
            "files",
            format!("{count} of {} sealed files are writable", files.len()),
            "remove the permission: chmod a-w",
        ),
        (count, _) => Finding::fail(
            "files",
            format!("{count} of {} sealed files are missing", files.len()),
            "restore them",
        ),
    });
    findings.push(Finding::warn(
        "object lock",
        "a local disk has none: anyone who can write to it can rewrite the archive",
        "use a bucket with object lock for archives that must be kept for years",
    ));
    Ok(findings)
}

/// Returns a sample of the sealed files of all tables, spread evenly from the oldest to the newest.
fn sample(archive: &Archive) -> Result<Vec<(PathBuf, Option<String>)>> {
    let mut files = Vec::new();
    for table in Table::ALL {
        files.extend(archive.snapshot(table)?.files.into_iter().map(|file| (file.path, file.version)));
    }
    let step = files.len().div_ceil(SAMPLE_FILES).max(1);
    Ok(files.into_iter().rev().step_by(step).collect())
}

/// Returns the newest commits of all volumes, newest volumes first. They are not sampled, because
/// the loss of a single unlocked commit makes all files that it names invisible.
fn commits(archive: &Archive) -> Result<Vec<(PathBuf, Option<String>)>> {
    let mut volumes = Vec::new();
    for table in Table::ALL {
        volumes.extend(archive.snapshot(table)?.volumes);
    }
    volumes.sort_by_key(|volume| std::cmp::Reverse(volume.period));
    let of_volume = |volume: Volume| {
        (0..=volume.version).rev().map(move |version| (layout::commit(&volume.path, version), None))
    };
    Ok(volumes.into_iter().flat_map(of_volume).take(COMMITS_MAX).collect())
}

fn check_bucket(place: Place, s3: S3) -> Result<Vec<Finding>> {
    let reached = s3.clone();
    match background::wait(async move { reached.bucket_exists().await }) {
        Ok(true) => {}
        Ok(false) => {
            let detail = format!("bucket {} does not exist", s3.bucket());
            return Ok(vec![Finding::fail("bucket", detail, "`strongroom archive init` creates it")]);
        }
        Err(StoreError::Bucket { source, .. }) => {
            let remedy = "check endpoint, region and credentials";
            return Ok(vec![Finding::fail("bucket", source.to_string(), remedy)]);
        }
        Err(error) => return Err(error.into()),
    }
    let asked = s3.clone();
    let mut findings = background::wait(async move { Ok::<_, StoreError>(settings(&asked).await) })?;
    let Some(archive) = opened(place, &mut findings) else { return Ok(findings) };
    let retention = archive.retention().unwrap_or_else(|| s3.asked());
    findings.push(retention_finding(retention));
    let probing = s3.clone();
    let conditional = background::wait(async move { probing.is_conditional(retention.mode).await });
    findings.push(match conditional {
        Ok(true) => Finding::ok("conditional put", "an existing object is not replaced"),
        Ok(false) => Finding::fail(
            "conditional put",
            "the store replaces existing objects although it was asked not to",
            "use a store that honours If-None-Match, or run only one writer",
        ),
        Err(StoreError::Probe { source, .. }) => Finding::unchecked("conditional put", &source),
        Err(error) => return Err(error.into()),
    });
    match sample(&archive) {
        Ok(mut files) => {
            files.push((archive.root().join(layout::MANIFEST), None));
            let commits = commits(&archive)?;
            findings.extend(background::wait(async move {
                let files = locks("sealed objects", &s3, retention, files).await;
                let commits = locks("commits", &s3, retention, commits).await;
                Ok::<_, StoreError>([files, commits])
            })?);
        }
        Err(error) => {
            let remedy = "a commit or a checkpoint cannot be read; `strongroom query` shows the error";
            findings.push(Finding::fail("sealed objects", error.to_string(), remedy));
        }
    }
    Ok(findings)
}

fn retention_finding(retention: Retention) -> Finding {
    let detail = format!("{} for {} calendar years and a day", retention.mode.as_str(), retention.years);
    match retention.mode {
        LockMode::Compliance => Finding::ok("retention", detail),
        LockMode::Governance => Finding::warn(
            "retention",
            detail,
            "holders of s3:BypassGovernanceRetention can remove objects; use COMPLIANCE for archives that must be kept for years",
        ),
    }
}

/// Returns the items about the bucket as a whole.
async fn settings(s3: &S3) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match s3.lock_configuration().await {
        Condition::Known(lock) if lock.enabled => match lock.default {
            Some(default) => Finding::ok("object lock", format!("on; by default {default}")),
            None => Finding::ok("object lock", "on; every object has its own retention"),
        },
        Condition::Known(_) | Condition::Unset => Finding::fail(
            "object lock",
            "off: anything can be deleted",
            "object lock can only be set when a bucket is created: create a new one with `strongroom archive init`",
        ),
        Condition::Unknown(failure) => Finding::unchecked("object lock", &failure),
    });
    findings.push(match s3.versioning().await {
        Condition::Known(true) => Finding::ok("versions", "kept"),
        Condition::Known(false) | Condition::Unset => {
            Finding::fail("versions", "not kept: an object can be replaced", "enable versioning")
        }
        Condition::Unknown(failure) => Finding::unchecked("versions", &failure),
    });
    findings.push(match s3.expiring_rules().await {
        Condition::Unset => Finding::ok("lifecycle", "no rules"),
        Condition::Known(rules) if rules.is_empty() => Finding::ok("lifecycle", "no rule removes objects"),
        Condition::Known(rules) => Finding::fail(
            "lifecycle",
            format!("rules remove or hide objects: {}", rules.join(", ")),
            "remove these rules, or limit them to another prefix",
        ),
        Condition::Unknown(failure) => Finding::unchecked("lifecycle", &failure),
    });
    findings.push(match s3.policy().await {
        Condition::Known(text) => policy_finding(&text),
        Condition::Unset => Finding::warn(
            "bucket policy",
            "none: only the writer's own permissions keep it from deleting",
            "install the bucket policy that `strongroom archive init` prints",
        ),
        Condition::Unknown(failure) => Finding::unchecked("bucket policy", &failure),
    });
    findings.push(match s3.clock_ahead().await {
        Ok(Some(ahead)) if ahead.abs() > CLOCK_FAIL_SECONDS => Finding::fail(
            "clock",
            format!("the store's clock is {ahead} s ahead of this machine's"),
            "set this machine's clock: retention is requested on it",
        ),
        Ok(Some(ahead)) if ahead.abs() > CLOCK_WARN_SECONDS => Finding::warn(
            "clock",
            format!("the store's clock is {ahead} s ahead of this machine's"),
            "set this machine's clock",
        ),
        Ok(Some(ahead)) => {
            Finding::ok("clock", format!("the store's clock is {ahead} s ahead of this machine's"))
        }
        Ok(None) => {
            let detail = "not checked: the store's answers have no date".to_owned();
            Finding { checked: false, ..Finding::warn("clock", detail, "compare the clocks by hand") }
        }
        Err(failure) => Finding::unchecked("clock", &failure),
    });
    findings.push(match s3.shadowed(NAMES_MAX).await {
        Condition::Known((names, whole)) if names.is_empty() => match whole {
            true => Finding::ok("versions of objects", "one of each"),
            false => Finding::ok("versions of objects", "one of each, on the first page of the listing"),
        },
        Condition::Known((names, _)) => Finding::fail(
            "versions of objects",
            format!("replaced or hidden: {}", names.join(", ")),
            "objects below the archive were put or deleted by others; the oldest versions are the sealed ones",
        ),
        Condition::Unset => Finding::ok("versions of objects", "no objects"),
        Condition::Unknown(failure) => Finding::unchecked("versions of objects", &failure),
    });
    findings
}

/// Returns the finding about a bucket policy, which should refuse deletion to everyone.
fn policy_finding(text: &str) -> Finding {
    let remedy = "install the bucket policy that `strongroom archive init` prints";
    let Ok(policy) = serde_json::from_str::<Value>(text) else {
        return Finding::warn("bucket policy", "it is not JSON", remedy);
    };
    let listed = |value: &Value| match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(value) => vec![value.clone()],
        _ => Vec::new(),
    };
    let denials = match &policy["Statement"] {
        Value::Array(statements) => statements.clone(),
        statement => vec![statement.clone()],
    };
    let denied: Vec<String> = denials
        .iter()
        .filter(|statement| statement["Effect"] == "Deny")
        .filter(|statement| statement["Principal"] == "*" || statement["Principal"]["AWS"] == "*")
        .filter(|statement| statement["Condition"].is_null())
        .flat_map(|statement| listed(&statement["Action"]))
        .collect();
    let covers = |action: &str| {
        denied.iter().any(|pattern| match pattern.split_once('*') {
            Some((start, _)) => action.starts_with(start),
            None => pattern == action,
        })
    };
    match covers("s3:DeleteObject") && covers("s3:DeleteObjectVersion") {
        true => Finding::ok("bucket policy", "it refuses deletion to everyone"),
        false => Finding::warn("bucket policy", "it does not refuse deletion to everyone", remedy),
    }
}

/// Checks the locks of objects. The finding is about the first object whose lock is missing or too
/// weak.
async fn locks(
    item: &'static str,
    s3: &S3,
    retention: Retention,
    objects: Vec<(PathBuf, Option<String>)>,
) -> Finding {
    let count = objects.len();
    let judged = objects.into_iter().map(|(path, version)| async move {
        let object = s3.head(&path, version.as_deref()).await;
        let lock = s3.object_lock(&path, version.as_deref()).await;
        locked_until(item, retention, &path, object, lock)
    });
    let mut judged = stream::iter(judged).buffered(LOCKS_AT_ONCE);
    let mut soonest: Option<DateTime<Utc>> = None;
    while let Some(judged) = judged.next().await {
        match judged {
            Ok(until) => soonest = Some(soonest.map_or(until, |soonest| until.min(soonest))),
            Err(finding) => return *finding,
        }
    }
    let left = soonest.map_or(0, |soonest| (soonest - Utc::now()).num_days());
    Finding::ok(item, format!("{count} checked, all locked for {left} days or more"))
}

/// Returns the time until which an object is locked, or the finding about its lock if that is
/// missing or too weak.
fn locked_until(
    item: &'static str,
    retention: Retention,
    path: &Path,
    object: Result<ObjectMeta, S3Error>,
    lock: Condition<ObjectLock>,
) -> Result<DateTime<Utc>, Box<Finding>> {
    const REMEDY: &str = "extend the retention of these objects; extending is always possible";
    let fail =
        |what: &str, remedy| Box::new(Finding::fail(item, format!("{} {what}", path.display()), remedy));
    let put = match object {
        Ok(head) => head.modified,
        Err(failure) if failure.is_missing() => {
            return Err(fail("is missing", "restore it: it is a part of the archive"));
        }
        Err(failure) => return Err(Box::new(Finding::unchecked(item, &failure))),
    };
    let lock = match lock {
        Condition::Known(lock) => lock,
        Condition::Unset => return Err(fail("has no lock", REMEDY)),
        Condition::Unknown(failure) => return Err(Box::new(Finding::unchecked(item, &failure))),
    };
    let (Some(mode), Some(until)) = (lock.mode, lock.until) else {
        return Err(fail("has no lock", REMEDY));
    };
    if mode != retention.mode && retention.mode == LockMode::Compliance {
        return Err(fail("is locked in mode GOVERNANCE only", REMEDY));
    }
    // The day that is added to every retention is not required, because the clocks may differ.
    let owed = retention.until(put).and_then(|owed| owed.checked_sub_days(Days::new(1)));
    if owed.is_none_or(|owed| until < owed) {
        let until = until.to_rfc3339_opts(SecondsFormat::Secs, true);
        return Err(fail(&format!("is locked until {until} only"), REMEDY));
    }
    Ok(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_refuses_deletion_only_to_everybody_and_always() {
        let verdict = |text: &str| policy_finding(text).verdict;
        let full = r#"{"Statement":[{"Effect":"Deny","Principal":"*","Action":["s3:DeleteObject*"]}]}"#;
        assert_eq!(verdict(full), Verdict::Ok);
        for weak in [
            r#"{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:DeleteObject*"}]}"#,
            r#"{"Statement":[{"Effect":"Deny","Principal":{"AWS":"arn:x"},"Action":"s3:*"}]}"#,
            r#"{"Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:*","Condition":{"Bool":{}}}]}"#,
            r#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"s3:DeleteObject"}}"#,
            "nonsense",
        ] {
            assert_eq!(verdict(weak), Verdict::Warn, "{weak}");
        }
        let all = r#"{"Statement":{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"s3:*"}}"#;
        assert_eq!(verdict(all), Verdict::Ok);
    }
}
