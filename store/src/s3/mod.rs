//! A bucket with object lock as the store of an archive.
//!
//! Terms. A *name* is a path below the archive's root, which is written `s3://bucket/prefix`. The
//! key of a name in the bucket is the prefix and the path below the root. A *version* is what the
//! lock protects. A key may have many versions: a lock does not prevent anyone who may put objects
//! from putting a newer version over an older one.
//!
//! Invariants:
//! 1. An object is one PUT with `If-None-Match: *`, its SHA-256, a lock mode and an explicit
//!    retain-until date. There is no multipart upload, so half an object never exists.
//! 2. No object is ever replaced or copied: there is no code that could do so. A version is deleted
//!    only if it belongs to a volume that was dropped and no lock protects it.
//! 3. A PUT that may have succeeded although its answer was lost is confirmed by comparing the
//!    object with the content of the PUT: if they are equal, the PUT was done. So a lost answer
//!    neither duplicates an object nor fails a run.
//! 4. All requests run on the threads of `background`, which live as long as the process, so
//!    connections do not die with the runtime of the first caller.
//!
//! After a crash at any moment, an object exists whole or not at all. Objects that no commit names
//! stay in the bucket, locked like all other objects; readers never see them.

mod body;
mod bucket;
mod clock;
mod credentials;
mod iam;
mod lock;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, timeout::TimeoutConfig,
};
use aws_sdk_s3::primitives::{ByteStream, DateTime as SdkTime};
use aws_sdk_s3::types::{ChecksumMode, ObjectLockMode, ServerSideEncryption};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};

pub use self::bucket::{Condition, ObjectLock, ObjectVersion};
use self::credentials::Lookup;
pub use self::iam::{auditor_policy, bucket_policy, keeper_policy, remover_policy, writer_policy};
pub use self::lock::Protection;
use super::s3_error::{S3Error, Tries, repeat};
use crate::error::{Result, StoreError};
use crate::options::{LockMode, Retention, S3Options};

/// The scheme of locations in buckets.
pub const SCHEME: &str = "s3";
/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Slowest transfer that does not run into the time limit of a request: the limit is extended by
/// the time that the request's bytes take at this speed.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// Maximum size of one PUT in S3.
const PUT_BYTES_MAX: u64 = 5 << 30;
/// Two ranges with a smaller gap than this are read with one request: reading this many unneeded
/// bytes costs less than a second request.
const GAP_BYTES_MAX: u64 = 256 << 10;
/// Maximum size of one ranged request; a longer range becomes several parallel requests.
const RANGE_BYTES_MAX: u64 = 8 << 20;
/// Maximum number of parallel requests of one read.
const READS_MAX: usize = 8;
/// The region in requests to stores that have no regions.
const REGION_ELSEWHERE: &str = "us-east-1";

/// A prefix of a bucket. Cheap to clone.
#[derive(Clone)]
pub struct S3(Arc<Inner>);

struct Inner {
    client: Client,
    bucket: String,
    /// Without leading and trailing slashes; may be empty.
    prefix: String,
    root: PathBuf,
    kms_key_id: Option<String>,
    request_timeout: Duration,
    single_writer: bool,
    staging: Option<PathBuf>,
    asked: Retention,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client is left out, because it contains the source of credentials.
        f.debug_struct("S3").field("root", &self.0.root).finish_non_exhaustive()
    }
}

/// The content of a PUT.
#[derive(Clone, Debug)]
pub enum Content {
    Bytes(Bytes),
    /// A whole file, and its hash.
    File {
        file: Arc<File>,
        bytes: u64,
        sha256: [u8; 32],
    },
}

impl Content {
    fn bytes(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { bytes, .. } => *bytes,
        }
    }

    fn sha256(&self) -> [u8; 32] {
        match self {
            Content::Bytes(bytes) => Sha256::digest(bytes).into(),
            Content::File { sha256, .. } => *sha256,
        }
    }

    fn stream(&self) -> ByteStream {
        match self {
            Content::Bytes(bytes) => ByteStream::from(bytes.clone()),
            Content::File { file, bytes, .. } => {
                ByteStream::from_body_1_x(body::FileBody::new(Arc::clone(file), *bytes))
            }
        }
    }
}

/// The lock of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    pub mode: LockMode,
    pub until: DateTime<Utc>,
}

/// The outcome of a PUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object exists, and it is ours. `version` is `None` if the store keeps no versions.
    Done { version: Option<String> },
    /// Another object has the name.
    Present,
}

/// A part of an object.
#[derive(Clone, Debug)]
pub struct Part {
    pub bytes: Bytes,
    pub start: u64,
}

/// The store's description of an object.
#[derive(Clone, Debug)]
pub struct ObjectMeta {
    pub bytes: u64,
    pub version: Option<String>,
    pub modified: DateTime<Utc>,
    sha256: Option<String>,
}

/// Bucket and prefix of a location `s3://bucket/prefix`.
fn split(location: &str) -> Option<(String, String)> {
    let (scheme, rest) = location.split_once("://")?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let bucket_fits = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let prefix_fits = prefix.is_empty()
        || prefix.split('/').all(is_plain)
            && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.=+ ".contains(&byte));
    (bucket_fits && prefix_fits).then(|| (bucket.to_owned(), prefix.to_owned()))
}

fn sdk_time(time: DateTime<Utc>) -> SdkTime {
    SdkTime::from_secs(time.timestamp())
}

fn time(sdk: Option<&SdkTime>) -> Option<DateTime<Utc>> {
    sdk.and_then(|time| DateTime::from_timestamp(time.secs(), time.subsec_nanos()))
}

impl S3 {
    /// Whether a location is in a bucket.
    pub fn is_location(location: &str) -> bool {
        location.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
    }

    /// Whether a location names a bucket and a prefix.
    pub fn is_valid_location(location: &str) -> bool {
        split(location).is_some()
    }

    /// Prepares access to `location`, without a request to the store.
    pub async fn connect(location: &str, options: &S3Options) -> Result<S3> {
        // The part of a location before an @ may be a secret key.
        let shown = location.rsplit('@').next().unwrap_or(location);
        let shown = if shown.len() < location.len() {
            format!("{SCHEME}://…@{shown}")
        } else {
            location.to_owned()
        };
        let invalid = || StoreError::LocationInvalid { location: shown.clone() };
        let (bucket, prefix) = split(location).ok_or_else(invalid)?;
        let mut trusted = TrustStore::default();
        if let Some(path) = &options.ca_file {
            let pem = std::fs::read(path)
                .map_err(|source| StoreError::ReadCertificates { path: path.clone(), source })?;
            trusted.add_pem_certificate(pem);
        }
        let tls = TlsContext::builder().with_trust_store(trusted).build();
        let tls = tls.map_err(|error| StoreError::Connect {
            location: location.to_owned(),
            detail: error.to_string(),
        })?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls)
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http.clone())
            // We retry ourselves: a request whose answer was lost must be confirmed.
            .retry_config(RetryConfig::disabled())
            .credentials_provider(Lookup::new(http.clone()))
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        let region = match (&options.region, &options.endpoint) {
            (Some(region), _) => Some(region.clone()),
            (None, Some(_)) => Some(REGION_ELSEWHERE.to_owned()),
            (None, None) => None,
        };
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        }
        if let Some(endpoint) = &options.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(StoreError::Connect {
                location: location.to_owned(),
                detail: "no region is set".to_owned(),
            });
        }
        let config = aws_sdk_s3::config::Builder::from(&config).force_path_style(options.path_style).build();
        let root = match prefix.as_str() {
            "" => PathBuf::from(format!("{SCHEME}://{bucket}")),
            prefix => PathBuf::from(format!("{SCHEME}://{bucket}/{prefix}")),
        };
        Ok(S3(Arc::new(Inner {
            client: Client::from_conf(config),
            bucket,
            prefix,
            root,
            kms_key_id: options.kms_key_id.clone(),
            request_timeout: options.request_timeout,
            single_writer: options.single_writer,
            staging: options.staging.clone(),
            asked: Retention { mode: options.mode, years: options.retention_years },
        })))
    }

    /// Returns the root as it appears in names: `s3://bucket/prefix`.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Returns the name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.0.bucket
    }

    /// Returns the prefix of the archive in the bucket, without slashes at its ends.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// Returns the retention that the options request. The archive itself may require more.
    pub fn asked(&self) -> Retention {
        self.0.asked
    }

    /// Whether the user has promised that no other writer runs.
    pub fn single_writer(&self) -> bool {
        self.0.single_writer
    }

    /// Folder for files that are being written, if one was named.
    pub fn staging(&self) -> Option<&Path> {
        self.0.staging.as_deref()
    }

    fn key(&self, name: &Path) -> String {
        let below = name.strip_prefix(&self.0.root).unwrap_or(name).to_string_lossy();
        match self.0.prefix.as_str() {
            "" => below.into_owned(),
            prefix if below.is_empty() => prefix.to_owned(),
            prefix => format!("{prefix}/{below}"),
        }
    }

    /// Returns the common prefix of the keys of everything below a folder.
    fn folder_key(&self, folder: &Path) -> String {
        match self.key(folder) {
            key if key.is_empty() => key,
            key => key + "/",
        }
    }

    /// Returns the lock for an object put now.
    pub fn locked(&self, retention: Retention) -> Result<Locked, S3Error> {
        let until = retention.until(Utc::now()).ok_or_else(|| S3Error::Request {
            detail: format!("a retention of {} years ends beyond the calendar", retention.years),
        })?;
        Ok(Locked { mode: retention.mode, until })
    }

    fn timeout(&self, bytes: u64) -> Duration {
        self.0.request_timeout.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND_MIN))
    }

    /// Puts an object. Its name must not be taken, except by an earlier try of this same call.
    pub async fn put(&self, name: &Path, content: &Content, locked: Locked) -> Result<Put, S3Error> {
        if content.bytes() > PUT_BYTES_MAX {
            return Err(S3Error::TooBig { bytes: content.bytes() });
        }
        let key = self.key(name);
        let sha256 = BASE64.encode(content.sha256());
        let mode = match locked.mode {
            LockMode::Compliance => ObjectLockMode::Compliance,
            LockMode::Governance => ObjectLockMode::Governance,
        };
        let request = || async {
            let mut put = self
                .0
                .client
                .put_object()
                .bucket(&self.0.bucket)
                .key(&key)
                .if_none_match("*")
                .checksum_sha256(&sha256)
                .content_length(i64::try_from(content.bytes()).unwrap_or(i64::MAX))
                .object_lock_mode(mode.clone())
                .object_lock_retain_until_date(sdk_time(locked.until));
            if let Some(key_id) = &self.0.kms_key_id {
                put = put.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(key_id);
            }
            let sent = put.body(content.stream()).send().await;
            sent.map_err(|error| S3Error::of(&error))
        };
        let mut tries = Tries::new(self.timeout(content.bytes()));
        loop {
            match tries.once(request()).await {
                None => {}
                Some(Ok(done)) => {
                    return Ok(Put::Done { version: done.version_id().map(str::to_owned) });
                }
                Some(Err(failure)) if failure.is_present() => {
                    return match tries.maybe_done {
                        true => self.is_ours(name, content).await,
                        false => Ok(Put::Present),
                    };
                }
                // The last try may have put the object although its answer was lost.
                Some(Err(failure)) if tries.maybe_done => {
                    return match self.is_ours(name, content).await {
                        Ok(done @ Put::Done { .. }) => Ok(done),
                        Ok(Put::Present) | Err(_) => Err(failure),
                    };
                }
                Some(Err(failure)) => return Err(failure),
            }
        }
    }

    /// Puts an object whose name is derived from its content. An existing object with that name and
    /// the same content counts as success; other content is an error. Returns the object's version.
    pub async fn put_named_by_content(
        &self,
        name: &Path,
        content: &Content,
        locked: Locked,
    ) -> Result<Option<String>, S3Error> {
        match self.put(name, content, locked).await? {
            Put::Done { version } => Ok(version),
            Put::Present => match self.is_ours(name, content).await? {
                Put::Done { version } => Ok(version),
                Put::Present => Err(S3Error::Differs),
            },
        }
    }

    /// Compares the object with this name with `content`. Returns [`Put::Done`] if they are equal,
    /// otherwise [`Put::Present`].
    async fn is_ours(&self, name: &Path, content: &Content) -> Result<Put, S3Error> {
        let head = self.head(name, None).await?;
        if head.bytes != content.bytes() {
            return Ok(Put::Present);
        }
        let same = match &head.sha256 {
            Some(sha256) => *sha256 == BASE64.encode(content.sha256()),
            None => self.hash(name, &head).await? == content.sha256(),
        };
        Ok(if same { Put::Done { version: head.version } } else { Put::Present })
    }

    /// Returns the SHA-256 of an object, which is read in parts.
    async fn hash(&self, name: &Path, head: &ObjectMeta) -> Result<[u8; 32], S3Error> {
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < head.bytes {
            let end = head.bytes.min(at + RANGE_BYTES_MAX);
            hasher.update(&self.read(name, head.version.as_deref(), at..end).await?);
            at = end;
        }
        Ok(hasher.finalize().into())
    }

    /// Returns the store's description of a version, or of the newest version if none is named.
    pub async fn head(&self, name: &Path, version: Option<&str>) -> Result<ObjectMeta, S3Error> {
        let key = self.key(name);
        repeat(self.timeout(0), || async {
            let head = self.0.client.head_object().bucket(&self.0.bucket).key(&key);
            let head = head.set_version_id(version.map(str::to_owned)).checksum_mode(ChecksumMode::Enabled);
            let head = head.send().await;
            let head = head.map_err(|error| S3Error::of(&error))?;
            Ok(ObjectMeta {
                bytes: head.content_length().and_then(|bytes| bytes.try_into().ok()).unwrap_or(0),
                version: head.version_id().map(str::to_owned),
                modified: time(head.last_modified()).unwrap_or_default(),
                sha256: head.checksum_sha256().map(str::to_owned),
            })
        })
        .await
    }

    /// Returns the whole newest version; `None` if there is none. A version of more than
    /// `bytes_max` bytes is an error.
    pub async fn get(&self, name: &Path, bytes_max: u64) -> Result<Option<Bytes>, S3Error> {
        match self.get_part(name, None, None, bytes_max).await {
            Ok(part) => Ok(Some(part.bytes)),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Reads the range of bytes that `range` states in the form of the HTTP header `Range`, or the
    /// whole object if `range` is `None`. An answer of more than `bytes_max` bytes is an error.
    pub async fn get_part(
        &self,
        name: &Path,
        version: Option<&str>,
        range: Option<String>,
        bytes_max: u64,
    ) -> Result<Part, S3Error> {
        let key = self.key(name);
        let garbled = |detail: &str| S3Error::Answer { detail: detail.to_owned() };
        repeat(self.timeout(bytes_max.min(RANGE_BYTES_MAX)), || async {
            let get = self.0.client.get_object().bucket(&self.0.bucket).key(&key);
            let get = get.set_version_id(version.map(str::to_owned)).set_range(range.clone()).send().await;
            let mut got = get.map_err(|error| S3Error::of(&error))?;
            let length: u64 = got.content_length().and_then(|length| length.try_into().ok()).unwrap_or(0);
            if length > bytes_max {
                return Err(S3Error::TooBig { bytes: length });
            }
            let start = match got.content_range() {
                Some(text) => content_range(text).ok_or_else(|| garbled("it has no range"))?,
                None if range.is_some() => return Err(garbled("it has no range")),
                None => 0,
            };
            let mut bytes = Vec::with_capacity(length as usize);
            while let Some(chunk) = got.body.next().await {
                bytes.extend_from_slice(&chunk.map_err(|_| garbled("the connection ended"))?);
            }
            if bytes.len() as u64 != length {
                return Err(garbled("the connection ended"));
            }
            Ok(Part { bytes: bytes.into(), start })
        })
        .await
    }

    /// Reads exactly the bytes of `range`, from one version or, if none is named, from the newest.
    pub async fn read(
        &self,
        name: &Path,
        version: Option<&str>,
        range: Range<u64>,
    ) -> Result<Bytes, S3Error> {
        let (Some(length), Some(last)) = (range.end.checked_sub(range.start), range.end.checked_sub(1))
        else {
            return Ok(Bytes::new());
        };
        if length == 0 {
            return Ok(Bytes::new());
        }
        let asked = Some(format!("bytes={}-{last}", range.start));
        let part = self.get_part(name, version, asked, length).await?;
        if part.start != range.start || part.bytes.len() as u64 != length {
            return Err(S3Error::Answer { detail: "it does not have the requested bytes".to_owned() });
        }
        Ok(part.bytes)
    }

    /// Reads several ranges of one version and returns them in the order given. Ranges close to
    /// each other become one request; long ranges become several.
    pub async fn read_ranges(
        &self,
        name: &Path,
        version: Option<&str>,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, S3Error> {
        let requests = requests(ranges);
        // Owned, so that the future can move to another thread.
        let read = requests.iter().cloned().map(|range| {
            let (s3, name, version) = (self.clone(), name.to_owned(), version.map(str::to_owned));
            async move { s3.read(&name, version.as_deref(), range).await }
        });
        let parts: Vec<Bytes> = stream::iter(read).buffered(READS_MAX).try_collect().await?;
        Ok(ranges.iter().map(|range| cut(&requests, &parts, range)).collect())
    }

    /// Returns the names of the objects and folders directly below a folder; empty if the folder
    /// does not exist.
    pub async fn names(&self, folder: &Path) -> Result<Vec<String>, S3Error> {
        self.names_from(folder, None).await
    }

    /// Like [`S3::names`], but only names that sort after `from` in byte order. These include
    /// longer names that start with `from`, but not a name equal to it.
    pub async fn names_from(&self, folder: &Path, from: Option<&str>) -> Result<Vec<String>, S3Error> {
        let prefix = self.folder_key(folder);
        let after = from.map(|from| format!("{prefix}{from}"));
        let mut names = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page = repeat(self.timeout(0), || async {
                let list = self.0.client.list_objects_v2().bucket(&self.0.bucket).prefix(&prefix);
                let list = list.set_start_after(after.clone()).delimiter("/");
                let list = list.set_continuation_token(next.clone()).send().await;
                list.map_err(|error| S3Error::of(&error))
            });
            let page = page.await?;
            let objects = page.contents().iter().filter_map(|object| object.key());
            let folders = page.common_prefixes().iter().filter_map(|folder| folder.prefix());
            let below = objects.chain(folders).filter_map(|key| key.strip_prefix(&prefix));
            names.extend(below.map(|name| name.trim_end_matches('/').to_owned()));
            next = page.next_continuation_token().map(str::to_owned);
            if !continues(page.is_truncated(), next.as_deref())? {
                names.retain(|name| !name.is_empty());
                return Ok(names);
            }
        }
    }
}

/// Whether another page of a listing follows, at the place that the last page named.
///
/// # Errors
/// If the page says that another page follows, but not from where.
fn continues(is_truncated: Option<bool>, next: Option<&str>) -> Result<bool, S3Error> {
    match (is_truncated, next) {
        (Some(true), None) => {
            Err(S3Error::Answer { detail: "a listing is truncated, but has no continuation".to_owned() })
        }
        (Some(true), Some(_)) => Ok(true),
        _ => Ok(false),
    }
}

/// Returns the first number of a `Content-Range` such as `bytes 0-9/100`.
fn content_range(text: &str) -> Option<u64> {
    let (range, _) = text.strip_prefix("bytes ")?.split_once('/')?;
    range.split_once('-')?.0.parse().ok()
}

/// Returns the requests that together read all `ranges`, in byte order, without overlap.
fn requests(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> =
        ranges.iter().filter(|range| range.start < range.end).cloned().collect();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP_BYTES_MAX) => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    let pieces = merged.into_iter().flat_map(|range| {
        let starts = (range.start..range.end).step_by(RANGE_BYTES_MAX as usize);
        starts.map(move |start| start..range.end.min(start + RANGE_BYTES_MAX))
    });
    pieces.collect()
}

/// Returns the bytes of `range`, taken from the answers to `requests`.
fn cut(requests: &[Range<u64>], parts: &[Bytes], range: &Range<u64>) -> Bytes {
    if range.start >= range.end {
        return Bytes::new();
    }
    let mut at = requests.partition_point(|request| request.end <= range.start);
    let within = |at: usize| {
        let from = range.start.max(requests[at].start) - requests[at].start;
        let to = range.end.min(requests[at].end) - requests[at].start;
        parts[at].slice(from as usize..to as usize)
    };
    if range.end <= requests[at].end {
        return within(at);
    }
    let mut joined = Vec::with_capacity((range.end - range.start) as usize);
    while at < requests.len() && requests[at].start < range.end {
        joined.extend_from_slice(&within(at));
        at += 1;
    }
    joined.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_have_a_bucket_and_a_prefix() {
        let parts = |bucket: &str, prefix: &str| Some((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(split("s3://logs-1"), parts("logs-1", ""));
        assert_eq!(split("S3://logs/a/b/"), parts("logs", "a/b"));
        for wrong in
            ["s3://", "s3:///a", "s3://a", "s3://logs/a//b", "s3://logs/../b", "s3://logs/a?b", "/s3"]
        {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ranges_come_back_whole_however_they_are_asked_for() {
        let whole: Vec<u8> = (0..40_000_000u32).map(|at| (at % 251) as u8).collect();
        let far = RANGE_BYTES_MAX * 2;
        let cases: [&[Range<u64>]; 5] = [
            &[],
            &[5..5, 9..9],
            &[0..10, 20..30, 10..20],
            &[far + 7..far + 9, 0..3, 100..RANGE_BYTES_MAX * 2 + 5],
            &[0..30_000_000, 4..5, 39_999_999..40_000_000],
        ];
        for ranges in cases {
            let requests = requests(ranges);
            assert!(requests.windows(2).all(|pair| pair[0].end <= pair[1].start), "{requests:?}");
            assert!(requests.iter().all(|request| request.end - request.start <= RANGE_BYTES_MAX));
            let slice = |range: &Range<u64>| &whole[range.start as usize..range.end as usize];
            let parts: Vec<Bytes> =
                requests.iter().map(|request| Bytes::copy_from_slice(slice(request))).collect();
            for range in ranges {
                assert!(cut(&requests, &parts, range) == slice(range), "{range:?}");
            }
        }
        assert_eq!(requests(&[0..10, 20..30]).len(), 1);
        assert_eq!(requests(&[0..10, 10_000_000..10_000_010]).len(), 2);
    }
}
