//! The settings of a bucket: object lock, versioning, lifecycle rules, its policy, and whether it
//! refuses a second object under one name.
//!
//! Invariant: this module reads settings and creates buckets. It never changes the settings of an
//! existing bucket.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, ExpirationStatus,
    ObjectLockEnabled, ObjectLockRetentionMode,
};
use bytes::Bytes;
use chrono::{DateTime, Days, Utc};

use super::{Content, Locked, Put, S3, continues, time};
use crate::error::{Changed, Result, StoreError};
use crate::id::random_id;
use crate::layout;
use crate::options::LockMode;
use crate::s3_error::{S3Error, repeat};

/// Number of days for which the object of a probe is locked; the number has no meaning.
const PROBE_LOCK_DAYS: u64 = 1;
/// The region that a request to create a bucket must not name: a bucket without a named region is
/// created in it.
const REGION_UNNAMED: &str = "us-east-1";

/// Whether a bucket's objects can be locked, and its default lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockConfiguration {
    pub enabled: bool,
    /// Mode and length of the rule for objects that are put without a lock.
    pub default: Option<String>,
}

/// The store's answer about the lock of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    pub mode: Option<LockMode>,
    pub until: Option<DateTime<Utc>>,
}

/// Content of a version, as a listing describes it: its ETag and its size.
type Listed = (Option<String>, Option<i64>);

/// A version of an object, or a delete marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    pub version: Option<String>,
    pub modified: DateTime<Utc>,
    pub bytes: Option<u64>,
    pub is_delete_marker: bool,
}

/// A store's answer to a question about a setting, which may not exist or may not be readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition<T> {
    Known(T),
    /// The setting does not exist.
    Unset,
    /// The store refused or failed to answer.
    Unknown(S3Error),
}

impl<T> Condition<T> {
    pub(super) fn of(answer: Result<T, S3Error>) -> Self {
        match answer {
            Ok(known) => Condition::Known(known),
            Err(failure) if failure.is_missing() => Condition::Unset,
            Err(failure) => Condition::Unknown(failure),
        }
    }
}

impl S3 {
    fn bucket_failed(&self, operation: &'static str) -> impl Fn(S3Error) -> StoreError {
        let bucket = self.bucket().to_owned();
        move |source| StoreError::Bucket { operation, bucket: bucket.clone(), source }
    }

    /// True if the store refuses to put a second object under the same name. Tests this by putting
    /// an object that has no meaning.
    pub async fn is_conditional(&self, mode: LockMode) -> Result<bool> {
        let path = self.root().join(layout::PROBE).join(random_id()?);
        let failed = |source| StoreError::Probe { path: path.clone(), source };
        let until = Utc::now() + Days::new(PROBE_LOCK_DAYS);
        let locked = Locked { mode, until };
        let first = Content::Bytes(Bytes::from_static(b"first"));
        match self.put(&path, &first, locked).await.map_err(failed)? {
            Put::Done { .. } => {}
            // The store says that a random name is taken, which cannot be true.
            Put::Present => return Ok(false),
        }
        // The content must differ from that of the first object. If the answer to this PUT is lost,
        // `put` compares the stored object with the content of this PUT and counts equal content as
        // success, which would hide that the store refused the PUT.
        let second = Content::Bytes(Bytes::from_static(b"second"));
        Ok(self.put(&path, &second, locked).await.map_err(failed)? == Put::Present)
    }

    /// True if the bucket exists, false if it does not. If the store refuses to say, that is an
    /// error.
    pub async fn bucket_exists(&self) -> Result<bool> {
        let head = repeat(self.timeout(0), || async {
            let head = self.0.client.head_bucket().bucket(&self.0.bucket).send().await;
            head.map(drop).map_err(|error| S3Error::of(&error))
        });
        match head.await {
            Ok(()) => Ok(true),
            Err(failure) if failure.is_missing() || failure.is_bucket_missing() => Ok(false),
            Err(failure) => Err(self.bucket_failed("find")(failure)),
        }
    }

    /// Creates the bucket, with object lock and therefore with versions; `false` if we already own
    /// it.
    pub async fn create_bucket(&self) -> Result<bool> {
        let region =
            self.0.client.config().region().map(AsRef::as_ref).filter(|name| *name != REGION_UNNAMED);
        let place = region.map(|region| {
            let region = BucketLocationConstraint::from(region);
            CreateBucketConfiguration::builder().location_constraint(region).build()
        });
        let made = repeat(self.timeout(0), || async {
            let create = self.0.client.create_bucket().bucket(&self.0.bucket);
            let create = create.object_lock_enabled_for_bucket(true);
            let made = create.set_create_bucket_configuration(place.clone()).send().await;
            match made {
                Ok(_) => Ok(true),
                Err(SdkError::ServiceError(refused))
                    if refused.err().code() == Some("BucketAlreadyOwnedByYou") =>
                {
                    Ok(false)
                }
                Err(error) => Err(S3Error::of(&error)),
            }
        });
        made.await.map_err(self.bucket_failed("create"))
    }

    /// Returns the settings of Object Lock of the bucket.
    pub async fn lock_configuration(&self) -> Condition<LockConfiguration> {
        let read = repeat(self.timeout(0), || async {
            let get = self.0.client.get_object_lock_configuration().bucket(&self.0.bucket);
            let got = get.send().await.map_err(|error| S3Error::of(&error))?;
            let Some(found) = got.object_lock_configuration() else {
                return Ok(LockConfiguration::default());
            };
            let rule = found.rule().and_then(|rule| rule.default_retention());
            let default = rule.map(|rule| {
                let length = match (rule.years(), rule.days()) {
                    (Some(years), _) => format!("{years} years"),
                    (None, Some(days)) => format!("{days} days"),
                    (None, None) => "no time".to_owned(),
                };
                format!("{} for {length}", rule.mode().map_or("no mode", ObjectLockRetentionMode::as_str))
            });
            let enabled = found.object_lock_enabled() == Some(&ObjectLockEnabled::Enabled);
            Ok(LockConfiguration { enabled, default })
        });
        Condition::of(read.await)
    }

    /// Whether the bucket keeps versions of its objects.
    pub async fn versioning(&self) -> Condition<bool> {
        let read = repeat(self.timeout(0), || async {
            let get = self.0.client.get_bucket_versioning().bucket(&self.0.bucket).send().await;
            let got = get.map_err(|error| S3Error::of(&error))?;
            Ok(got.status() == Some(&BucketVersioningStatus::Enabled))
        });
        Condition::of(read.await)
    }

    /// Returns the ids of the lifecycle rules that remove or hide objects of the archive.
    pub async fn expiring_rules(&self) -> Condition<Vec<String>> {
        let probes = format!("{}{}/", self.folder_key(self.root()), layout::PROBE);
        let read = repeat(self.timeout(0), || async {
            let get = self.0.client.get_bucket_lifecycle_configuration().bucket(&self.0.bucket).send().await;
            let got = get.map_err(|error| S3Error::of(&error))?;
            let rules = got.rules().iter().filter(|rule| {
                let prefix = rule
                    .filter()
                    .and_then(|filter| filter.prefix().or_else(|| filter.and().and_then(|and| and.prefix())));
                #[expect(deprecated, reason = "old rules have their prefix there")]
                let prefix = prefix.or_else(|| rule.prefix()).unwrap_or_default();
                let ours = self.folder_key(self.root());
                let touches_us =
                    (prefix.starts_with(&ours) || ours.starts_with(prefix)) && !prefix.starts_with(&probes);
                let removes = rule.expiration().is_some() || rule.noncurrent_version_expiration().is_some();
                *rule.status() == ExpirationStatus::Enabled && removes && touches_us
            });
            Ok(rules.map(|rule| rule.id().unwrap_or("without an id").to_owned()).collect())
        });
        Condition::of(read.await)
    }

    /// Returns the bucket policy, as JSON text.
    pub async fn policy(&self) -> Condition<String> {
        let read = repeat(self.timeout(0), || async {
            let get = self.0.client.get_bucket_policy().bucket(&self.0.bucket).send().await;
            let got = get.map_err(|error| S3Error::of(&error))?;
            Ok(got.policy().unwrap_or_default().to_owned())
        });
        match Condition::of(read.await) {
            Condition::Known(text) if text.is_empty() => Condition::Unset,
            condition => condition,
        }
    }

    /// Returns the store's answer about the lock of an object's version.
    pub async fn object_lock(&self, name: &std::path::Path, version: Option<&str>) -> Condition<ObjectLock> {
        let key = self.key(name);
        let read = repeat(self.timeout(0), || async {
            let get = self.0.client.get_object_retention().bucket(&self.0.bucket).key(&key);
            let got = get.set_version_id(version.map(str::to_owned)).send().await;
            let got = got.map_err(|error| S3Error::of(&error))?;
            let retention = got.retention();
            let mode = retention.and_then(|retention| retention.mode()).and_then(|mode| match mode {
                ObjectLockRetentionMode::Compliance => Some(LockMode::Compliance),
                ObjectLockRetentionMode::Governance => Some(LockMode::Governance),
                _ => None,
            });
            let until = retention.and_then(|retention| time(retention.retain_until_date()));
            Ok(ObjectLock { mode, until })
        });
        Condition::of(read.await)
    }

    /// Returns the names that have more than one version, or a delete marker. Returns at most
    /// `names_max` of the names on the first page of the listing, and true if that page was the
    /// whole listing.
    pub async fn shadowed(&self, names_max: usize) -> Condition<(Vec<String>, bool)> {
        let prefix = self.folder_key(self.root());
        let read = repeat(self.timeout(0), || async {
            let list = self.0.client.list_object_versions().bucket(&self.0.bucket).prefix(&prefix);
            let page = list.send().await.map_err(|error| S3Error::of(&error))?;
            let older = page.versions().iter().filter(|version| version.is_latest() == Some(false));
            let older = older.filter_map(|version| version.key());
            let deleted = page.delete_markers().iter().filter_map(|marker| marker.key());
            let mut names: Vec<String> = older.chain(deleted).map(str::to_owned).collect();
            names.sort();
            names.dedup();
            names.truncate(names_max);
            Ok((names, page.is_truncated() != Some(true)))
        });
        Condition::of(read.await)
    }

    /// Returns the names of the objects and folders directly below a folder, including those that a
    /// delete marker hides; and the first object that `is_ours` accepts and that was hidden or
    /// replaced after it was put.
    pub async fn names_and_changes(
        &self,
        folder: &std::path::Path,
        is_ours: fn(&str) -> bool,
    ) -> Result<(Vec<String>, Option<(String, Changed)>), S3Error> {
        let prefix = self.folder_key(folder);
        let mut names = BTreeSet::new();
        // The content of each object, as the store describes it; `None` for a delete marker.
        let mut objects: BTreeMap<String, Vec<Option<Listed>>> = BTreeMap::new();
        let (mut key_marker, mut version_marker): (Option<String>, Option<String>) = (None, None);
        loop {
            let page = repeat(self.timeout(0), || async {
                let list = self.0.client.list_object_versions().bucket(&self.0.bucket).prefix(&prefix);
                let list = list.delimiter("/").set_key_marker(key_marker.clone());
                let list = list.set_version_id_marker(version_marker.clone());
                list.send().await.map_err(|error| S3Error::of(&error))
            });
            let page = page.await?;
            let below = |key: Option<&str>| key.and_then(|key| key.strip_prefix(&prefix)).map(str::to_owned);
            for folder in page.common_prefixes() {
                names.extend(below(folder.prefix()).map(|name| name.trim_end_matches('/').to_owned()));
            }
            for object in page.versions() {
                let content = (object.e_tag().map(str::to_owned), object.size());
                objects.entry(below(object.key()).unwrap_or_default()).or_default().push(Some(content));
            }
            for marker in page.delete_markers() {
                objects.entry(below(marker.key()).unwrap_or_default()).or_default().push(None);
            }
            key_marker = page.next_key_marker().map(str::to_owned);
            version_marker = page.next_version_id_marker().map(str::to_owned);
            if !continues(page.is_truncated(), key_marker.as_deref())? {
                break;
            }
        }
        let change = |versions: &[Option<Listed>]| match versions {
            versions if versions.iter().any(Option::is_none) => Some(Changed::Hidden),
            // Versions with equal content are allowed: a PUT may be repeated because its answer was
            // lost.
            versions if versions.windows(2).any(|pair| pair[0] != pair[1]) => Some(Changed::Replaced),
            _ => None,
        };
        let changed = objects
            .iter()
            .filter(|(name, _)| is_ours(name))
            .find_map(|(name, versions)| Some((name.clone(), change(versions)?)));
        names.extend(objects.into_keys());
        names.remove("");
        Ok((names.into_iter().collect(), changed))
    }

    /// Returns the id of the oldest version of an object, even if a newer version or a delete
    /// marker hides it; `None` if the object never existed.
    pub async fn oldest_version(&self, name: &std::path::Path) -> Result<Option<String>, S3Error> {
        let key = self.key(name);
        let page = repeat(self.timeout(0), || async {
            let list = self.0.client.list_object_versions().bucket(&self.0.bucket).prefix(&key);
            list.send().await.map_err(|error| S3Error::of(&error))
        });
        let page = page.await?;
        let versions = page.versions().iter().filter(|version| version.key() == Some(&key));
        // Stores list newer versions first.
        let oldest = versions.rev().min_by_key(|version| time(version.last_modified()));
        Ok(oldest.and_then(|version| version.version_id()).map(str::to_owned))
    }

    /// Returns every version of every object below the root, by its path relative to the root.
    pub async fn all_versions(&self) -> Result<BTreeMap<String, Vec<ObjectVersion>>, S3Error> {
        self.versions_below(self.root()).await
    }

    /// Returns every version of every object below a folder, by its path relative to the root.
    pub async fn versions_below(
        &self,
        folder: &std::path::Path,
    ) -> Result<BTreeMap<String, Vec<ObjectVersion>>, S3Error> {
        let (root, prefix) = (self.folder_key(self.root()), self.folder_key(folder));
        let mut found: BTreeMap<String, Vec<ObjectVersion>> = BTreeMap::new();
        let (mut key_marker, mut version_marker): (Option<String>, Option<String>) = (None, None);
        loop {
            let page = repeat(self.timeout(0), || async {
                let list = self.0.client.list_object_versions().bucket(&self.0.bucket).prefix(&prefix);
                let list = list.set_key_marker(key_marker.clone());
                let list = list.set_version_id_marker(version_marker.clone());
                list.send().await.map_err(|error| S3Error::of(&error))
            });
            let page = page.await?;
            let version_of = |version: Option<&str>| version.filter(|id| *id != "null").map(str::to_owned);
            for object in page.versions() {
                let Some(path) = object.key().and_then(|key| key.strip_prefix(&root)) else { continue };
                found.entry(path.to_owned()).or_default().push(ObjectVersion {
                    version: version_of(object.version_id()),
                    modified: time(object.last_modified()).unwrap_or_default(),
                    bytes: object.size().and_then(|bytes| bytes.try_into().ok()),
                    is_delete_marker: false,
                });
            }
            for marker in page.delete_markers() {
                let Some(path) = marker.key().and_then(|key| key.strip_prefix(&root)) else { continue };
                found.entry(path.to_owned()).or_default().push(ObjectVersion {
                    version: version_of(marker.version_id()),
                    modified: time(marker.last_modified()).unwrap_or_default(),
                    bytes: None,
                    is_delete_marker: true,
                });
            }
            key_marker = page.next_key_marker().map(str::to_owned);
            version_marker = page.next_version_id_marker().map(str::to_owned);
            if !continues(page.is_truncated(), key_marker.as_deref())? {
                return Ok(found);
            }
        }
    }

    /// Returns how many seconds the store's clock is ahead of ours. The dates in the store's
    /// answers have a precision of one second.
    pub async fn clock_ahead(&self) -> Result<Option<i64>, S3Error> {
        repeat(self.timeout(0), || async {
            let head = self.0.client.head_bucket().bucket(&self.0.bucket).customize();
            let (seen, interceptor) = super::clock::DateSeen::new();
            head.interceptor(interceptor).send().await.map_err(|error| S3Error::of(&error))?;
            Ok(seen.seconds_ahead())
        })
        .await
    }
}
