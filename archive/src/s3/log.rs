//! The Delta log of a volume in a bucket, as the object store that the Delta library asks for.
//!
//! Invariants: `PutMode::Create` is a PUT that must find the name free, and says `AlreadyExists` only for somebody
//! else's object, so a commit is neither doubled nor reported lost when an answer was. Nothing is deleted,
//! renamed, copied or replaced.
//!
//! `_last_checkpoint`, which the library rewrites at each checkpoint, is neither written nor read here: under a
//! lock every rewriting would be kept for years, and a name that changes is a name that can be pointed elsewhere.
//! It is a hint, and readers without it list the log. A checkpoint is put once, under the name of its version.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as StoreResult, UploadPart,
};

use super::failure::repeat;
use super::{Content, Put, S3, StoreFailure, WHOLE_BYTES_MAX, time};
use crate::retention::policy::Promised;

/// The hint that is not kept.
const LAST_CHECKPOINT: &str = "_last_checkpoint";
const STORE: &str = "S3";

/// A volume in a bucket.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    s3: S3,
    folder: PathBuf,
    retention: Promised,
}

impl LogStore {
    pub(crate) fn below(s3: S3, folder: PathBuf, retention: Promised) -> Self {
        LogStore { s3, folder, retention }
    }

    fn name(&self, location: &Path) -> PathBuf {
        self.folder.join(location.as_ref())
    }

    async fn put(&self, location: &Path, payload: PutPayload, mode: PutMode) -> StoreResult<PutResult> {
        let replaces = match mode {
            PutMode::Create => false,
            PutMode::Overwrite => true,
            PutMode::Update(_) => return Err(unsupported("conditional update")),
        };
        if location.filename() == Some(LAST_CHECKPOINT) {
            return Ok(PutResult { e_tag: None, version: None });
        }
        let content = Content::Bytes(Bytes::from(payload));
        let locked = self.s3.locked(self.retention.now()).map_err(|failure| failed(location, failure))?;
        match self.s3.put(&self.name(location), &content, locked).await {
            Ok(Put::Done { version }) => Ok(PutResult { e_tag: None, version }),
            // The library may replace only a checkpoint, and one of the same version says the same.
            Ok(Put::Present) if replaces => Ok(PutResult { e_tag: None, version: None }),
            Ok(Put::Present) => Err(object_store::Error::AlreadyExists {
                path: location.to_string(),
                source: Box::new(StoreFailure::Differs),
            }),
            Err(failure) => Err(failed(location, failure)),
        }
    }

    /// One page of what lies below `prefix`, behind `after`.
    async fn page(
        &self,
        prefix: Option<&Path>,
        after: Option<String>,
        next: Option<String>,
    ) -> StoreResult<(Vec<ObjectMeta>, Option<String>)> {
        let base = self.s3.folder_key(&self.folder);
        let prefix = match prefix.map(Path::as_ref) {
            None | Some("") => base.clone(),
            Some(below) => format!("{base}{below}/"),
        };
        let after = after.map(|after| format!("{base}{after}"));
        let inner = &self.s3.0;
        let page = repeat(self.s3.timeout(0), || async {
            let list = inner.client.list_objects_v2().bucket(&inner.bucket).prefix(&prefix);
            let list = list.set_start_after(after.clone()).set_continuation_token(next.clone()).send().await;
            list.map_err(|error| StoreFailure::of(&error))
        });
        let page = page.await.map_err(|failure| failed(&Path::from(prefix.as_str()), failure))?;
        let objects = page.contents().iter().filter_map(|object| {
            Some(ObjectMeta {
                location: Path::parse(object.key()?.strip_prefix(&base)?).ok()?,
                last_modified: time(object.last_modified()).unwrap_or_default(),
                size: object.size().and_then(|size| size.try_into().ok()).unwrap_or(0),
                e_tag: None,
                version: None,
            })
        });
        let hint = |object: &ObjectMeta| object.location.filename() != Some(LAST_CHECKPOINT);
        let more = page.next_continuation_token().filter(|_| page.is_truncated() == Some(true));
        Ok((objects.filter(hint).collect(), more.map(str::to_owned)))
    }

    fn pages(
        &self,
        prefix: Option<&Path>,
        after: Option<&Path>,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let (store, prefix, after) = (self.clone(), prefix.cloned(), after.map(ToString::to_string));
        // `None` when there is no further page, else the token of the next one, which the first does not need.
        let pages = stream::try_unfold(Some(None::<String>), move |next| {
            let (store, prefix, after) = (store.clone(), prefix.clone(), after.clone());
            async move {
                let Some(next) = next else { return Ok(None) };
                let (objects, more) = store.page(prefix.as_ref(), after, next).await?;
                let objects = stream::iter(objects.into_iter().map(Ok));
                Ok::<_, object_store::Error>(Some((objects, more.map(Some))))
            }
        });
        pages.try_flatten().boxed()
    }

    fn meta(&self, location: &Path, size: u64, last_modified: DateTime<Utc>) -> ObjectMeta {
        ObjectMeta { location: location.clone(), last_modified, size, e_tag: None, version: None }
    }
}

fn failed(location: &Path, failure: StoreFailure) -> object_store::Error {
    match failure.is_missing() {
        true => object_store::Error::NotFound { path: location.to_string(), source: Box::new(failure) },
        false => object_store::Error::Generic { store: STORE, source: Box::new(failure) },
    }
}

fn unsupported(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "an archive under a lock".to_owned(),
    }
}

impl fmt::Display for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3({})", self.folder.display())
    }
}

#[async_trait]
impl ObjectStore for LogStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.put(location, payload, options.mode).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Ok(Box::new(Collected { store: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        if location.filename() == Some(LAST_CHECKPOINT) {
            return Err(object_store::Error::NotFound {
                path: location.to_string(),
                source: "an archive under a lock keeps no such hint".into(),
            });
        }
        let name = self.name(location);
        if options.head {
            let head = self.s3.head(&name, None).await.map_err(|failure| failed(location, failure))?;
            return Ok(GetResult {
                payload: GetResultPayload::Stream(stream::empty().boxed()),
                meta: self.meta(location, head.bytes, head.modified),
                range: 0..0,
                attributes: Attributes::new(),
            });
        }
        let range = options.range.as_ref().map(|range| match range {
            GetRange::Bounded(range) => format!("bytes={}-{}", range.start, range.end.saturating_sub(1)),
            GetRange::Offset(start) => format!("bytes={start}-"),
            GetRange::Suffix(bytes) => format!("bytes=-{bytes}"),
        });
        let version = options.version.as_deref();
        let part = self.s3.get_part(&name, version, range, WHOLE_BYTES_MAX).await;
        let part = part.map_err(|failure| failed(location, failure))?;
        let range = part.start..part.start + part.bytes.len() as u64;
        Ok(GetResult {
            meta: self.meta(location, part.total, part.modified),
            payload: GetResultPayload::Stream(stream::once(std::future::ready(Ok(part.bytes))).boxed()),
            range,
            attributes: Attributes::new(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        locations.map(|_| Err(unsupported("delete"))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.pages(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.pages(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let depth = prefix.map_or(0, Path::parts_count);
        let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
        let mut objects = self.pages(prefix, None);
        while let Some(object) = objects.try_next().await? {
            if object.location.parts_count() == depth + 1 {
                result.objects.push(object);
                continue;
            }
            let folder: Path = object.location.parts().take(depth + 1).collect();
            if result.common_prefixes.last() != Some(&folder) {
                result.common_prefixes.push(folder);
            }
        }
        Ok(result)
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> StoreResult<()> {
        Err(unsupported("copy"))
    }
}

/// A checkpoint arrives in parts and is put when it is whole, as one object.
#[derive(Debug)]
struct Collected {
    store: LogStore,
    location: Path,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for Collected {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let payload = std::mem::take(&mut self.parts).iter().flat_map(PutPayload::iter).cloned().collect();
        self.store.put(&self.location, payload, PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.parts.clear();
        Ok(())
    }
}
