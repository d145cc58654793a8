//! The lock of one version of an object: reading and extending it, placing and releasing legal
//! holds, and removing versions without a lock.
//!
//! Invariants: a version is always named, except for an object that this process has just put. The
//! end of a lock is only ever moved to a later date. A version is removed only for
//! `retention::drop`. No request has a header that bypasses a lock, so the store refuses to shorten
//! a lock or to remove a locked version.

use std::path::Path;

use aws_sdk_s3::types::{
    ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention,
    ObjectLockRetentionMode,
};
use chrono::{DateTime, Utc};

use super::{Condition, Locked, S3, sdk_time, time};
use crate::options::LockMode;
use crate::s3_error::{S3Error, repeat};

/// What protects a version of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    pub mode: Option<LockMode>,
    pub until: Option<DateTime<Utc>>,
    /// Under a legal hold.
    pub is_held: bool,
}

impl S3 {
    /// Returns what protects a version. Takes one request for the object's head, and one more for
    /// each of lock and hold that the answer omits, because a store omits both a value that is not
    /// set and a value that it refuses to show.
    pub async fn protection(&self, name: &Path, version: Option<&str>) -> Result<Protection, S3Error> {
        let key = self.key(name);
        let mut found = repeat(self.timeout(0), || async {
            let head = self.0.client.head_object().bucket(&self.0.bucket).key(&key);
            let head = head.set_version_id(version.map(str::to_owned)).send().await;
            let head = head.map_err(|error| S3Error::of(&error))?;
            let mode = head.object_lock_mode().and_then(|mode| match mode {
                ObjectLockMode::Compliance => Some(LockMode::Compliance),
                ObjectLockMode::Governance => Some(LockMode::Governance),
                _ => None,
            });
            let until = time(head.object_lock_retain_until_date());
            let held = head.object_lock_legal_hold_status();
            let is_held = held.map(|status| status.as_str() == ObjectLockLegalHoldStatus::On.as_str());
            Ok((mode, until, is_held))
        })
        .await?;
        if found.0.is_none() || found.1.is_none() {
            match self.object_lock(name, version).await {
                Condition::Known(lock) => (found.0, found.1) = (lock.mode, lock.until),
                Condition::Unset => {}
                Condition::Unknown(failure) => return Err(failure),
            }
        }
        let is_held = match found.2 {
            Some(is_held) => is_held,
            None => match self.hold(name, version).await {
                Condition::Known(is_held) => is_held,
                Condition::Unset => false,
                Condition::Unknown(failure) => return Err(failure),
            },
        };
        Ok(Protection { mode: found.0, until: found.1, is_held })
    }

    /// Whether a version is under a legal hold.
    pub async fn hold(&self, name: &Path, version: Option<&str>) -> Condition<bool> {
        let key = self.key(name);
        let read = repeat(self.timeout(0), || async {
            let get = self.0.client.get_object_legal_hold().bucket(&self.0.bucket).key(&key);
            let got = get.set_version_id(version.map(str::to_owned)).send().await;
            let got = got.map_err(|error| S3Error::of(&error))?;
            let status = got.legal_hold().and_then(|hold| hold.status());
            Ok(status == Some(&ObjectLockLegalHoldStatus::On))
        });
        Condition::of(read.await)
    }

    /// Moves the end of a version's lock to a later date.
    pub async fn extend(&self, name: &Path, version: Option<&str>, locked: Locked) -> Result<(), S3Error> {
        let key = self.key(name);
        let mode = match locked.mode {
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
            LockMode::Governance => ObjectLockRetentionMode::Governance,
        };
        let until = sdk_time(locked.until);
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(until).build();
        repeat(self.timeout(0), || async {
            let put = self.0.client.put_object_retention().bucket(&self.0.bucket).key(&key);
            let put = put.set_version_id(version.map(str::to_owned)).retention(retention.clone());
            put.send().await.map(drop).map_err(|error| S3Error::of(&error))
        })
        .await
    }

    /// Puts a version under a legal hold, or releases it.
    pub async fn set_hold(&self, name: &Path, version: Option<&str>, hold: bool) -> Result<(), S3Error> {
        let key = self.key(name);
        let status = if hold { ObjectLockLegalHoldStatus::On } else { ObjectLockLegalHoldStatus::Off };
        let hold = ObjectLockLegalHold::builder().status(status).build();
        repeat(self.timeout(0), || async {
            let put = self.0.client.put_object_legal_hold().bucket(&self.0.bucket).key(&key);
            let put = put.set_version_id(version.map(str::to_owned)).legal_hold(hold.clone());
            put.send().await.map(drop).map_err(|error| S3Error::of(&error))
        })
        .await
    }

    /// Removes a version that no lock protects, or a delete marker; succeeds if it does not exist.
    pub async fn remove_version(&self, name: &Path, version: Option<&str>) -> Result<(), S3Error> {
        let Some(version) = version else {
            return Err(S3Error::Request {
                detail: "an object without a version would only be hidden".to_owned(),
            });
        };
        let key = self.key(name);
        let removed = repeat(self.timeout(0), || async {
            let delete = self.0.client.delete_object().bucket(&self.0.bucket).key(&key).version_id(version);
            delete.send().await.map(drop).map_err(|error| S3Error::of(&error))
        });
        match removed.await {
            Err(failure) if failure.is_missing() => Ok(()),
            outcome => outcome,
        }
    }
}
