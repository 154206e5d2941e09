//! Blobs as objects of an S3 bucket: `PREFIX/sha256/ab/<hex>`, the same names as the files have.
//!
//! A blob is complete on this machine, hashed and synced, before it is sent; an object appears whole or not at all. The
//! functions that wait are for threads that may.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path as FilePath;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use model::{Digest, Timestamp};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use crate::blobs::{BlobError, ListedBlob, UploadId};

/// Blobs up to this size are sent in one request, larger ones in parts of this size or more.
const PART: u64 = 8 << 20;

/// How many parts a blob may have; S3 takes 10,000.
const MOST_PARTS: u64 = 9_000;

/// Parts of one blob that are in memory at a time.
const AT_A_TIME: usize = 2;

/// What the names of parts of uploads begin with, after the prefix.
const STAGING: &str = "uploads";

/// How long the removal of a blob may take. Others wait for it, and must know when it is over.
const REMOVAL: Duration = Duration::from_secs(20);

/// How long a connection may take, and how long the other side may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Where a bucket is and who may use it.
#[derive(Clone)]
pub struct BucketOptions {
    /// `https://host:port` of a server that speaks S3; that of AWS for the region without it.
    pub endpoint: Option<String>,
    /// The region, for the signature.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What all names begin with; may be empty.
    pub prefix: String,
    /// The name of the key.
    pub access_key: String,
    /// The key.
    pub secret_key: String,
    /// Whether the bucket is named in the path and not in the host name.
    pub path_style: bool,
}

impl fmt::Debug for BucketOptions {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, region, bucket, prefix, .. } = self;
        write!(f, "BucketOptions({endpoint:?}, {region:?}, {bucket:?}, {prefix:?})")
    }
}

/// The blobs of a bucket below a prefix.
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: Path,
    /// For messages.
    name: String,
    runtime: Handle,
    /// Digests whose objects are being removed at the moment. Whoever looks for one waits for the end of it.
    going: Mutex<HashSet<Digest>>,
    gone: Condvar,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({})", self.name)
    }
}

impl Bucket {
    /// Connects to a bucket and looks into it once, so that wrong keys are found at the start.
    pub(super) async fn connect(options: &BucketOptions) -> Result<Self, BlobError> {
        let name = options.bucket.clone();
        let failed = |error: object_store::Error| of(&name, &error);
        let plain = options.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new()
            .with_allow_http(plain)
            .with_connect_timeout(SILENCE)
            .with_read_timeout(SILENCE)
            .with_timeout_disabled();
        let mut builder = AmazonS3Builder::new()
            .with_client_options(client)
            .with_region(&options.region)
            .with_bucket_name(&options.bucket)
            .with_access_key_id(&options.access_key)
            .with_secret_access_key(&options.secret_key)
            .with_virtual_hosted_style_request(!options.path_style);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(failed)?;
        let prefix = Path::parse(options.prefix.trim_matches('/')).map_err(|error| failed(error.into()))?;
        store.list(Some(&prefix)).next().await.transpose().map_err(failed)?;
        let (going, gone) = (Mutex::default(), Condvar::new());
        Ok(Self { store, prefix, name, runtime: Handle::current(), going, gone })
    }

    fn key(&self, digest: &Digest) -> Path {
        let hex = digest.hex();
        self.prefix.clone().join(digest.algorithm().name()).join(&hex[..2]).join(hex.as_str())
    }

    pub(super) fn failed(&self, message: String) -> BlobError {
        BlobError::Bucket { bucket: self.name.clone(), message }
    }

    fn wait<T>(&self, future: impl Future<Output = object_store::Result<T>>) -> Result<T, BlobError> {
        self.runtime.block_on(future).map_err(|error| of(&self.name, &error))
    }

    /// Nothing where there is no object.
    fn found<T>(&self, future: impl Future<Output = object_store::Result<T>>) -> Result<Option<T>, BlobError> {
        self.wait(async {
            match future.await {
                Ok(value) => Ok(Some(value)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Waits until nobody is removing a blob.
    fn settled(&self, digest: &Digest) {
        let mut going = self.going.lock().unwrap_or_else(PoisonError::into_inner);
        while going.contains(digest) {
            going = self.gone.wait(going).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.settled(digest);
        let found = self.found(self.store.head(&self.key(digest)))?;
        Ok(found.map(|meta| meta.size))
    }

    /// The whole of a blob that has been found to be small.
    pub(super) fn bytes(&self, digest: &Digest) -> Result<Option<Bytes>, BlobError> {
        let key = self.key(digest);
        self.found(async { self.store.get(&key).await?.bytes().await })
    }

    /// A part of a blob as it arrives.
    pub(super) async fn stream(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let name = self.name.clone();
        let answer = self.store.get_opts(&self.key(digest), options).await.map_err(|error| of(&name, &error))?;
        Ok(answer.into_stream().map_err(move |error| of(&name, &error)).boxed())
    }

    /// Sends a file, which becomes the blob `digest` when all of it is there.
    pub(super) fn send(&self, from: &FilePath, digest: &Digest) -> Result<(), BlobError> {
        let file = File::open(from).map_err(|error| BlobError::io(from, error))?;
        let size = file.metadata().map_err(|error| BlobError::io(from, error))?.len();
        self.settled(digest);
        self.put(from, &file, 0..size, &self.key(digest))
    }

    /// Sends a part of a file, which becomes an object when all of it is there.
    fn put(&self, from: &FilePath, file: &File, whole: Range<u64>, key: &Path) -> Result<(), BlobError> {
        let io = |error| BlobError::io(from, error);
        let size = whole.end - whole.start;
        if size <= PART {
            let bytes = read(file, whole).map_err(io)?;
            return self.wait(self.store.put(key, bytes.into())).map(drop);
        }
        let upload = self.wait(self.store.create_multipart(key))?;
        let part = size.div_ceil(MOST_PARTS).max(PART);
        let begins = (0..size.div_ceil(part)).map(|number| whole.start + number * part);
        let parts = stream::iter(begins.map(|begin| begin..(begin + part).min(whole.end)))
            .enumerate()
            .map(|(number, range)| {
                // The thread may wait for the disk.
                let bytes = read(file, range).map_err(io);
                let upload = &upload;
                async move {
                    let sent = self.store.put_part(key, upload, number, bytes?.into()).await;
                    sent.map_err(|error| of(&self.name, &error))
                }
            })
            .buffered(AT_A_TIME)
            .try_collect::<Vec<PartId>>();
        let sent = self.runtime.block_on(parts);
        let sent = sent.and_then(|parts| self.wait(self.store.complete_multipart(key, &upload, parts)).map(drop));
        if sent.is_err() {
            // Otherwise its parts are paid for until somebody finds them.
            let _ = self.wait(self.store.abort_multipart(key, &upload));
        }
        sent
    }

    /// Where a part of an upload is kept until the upload is finished.
    fn staging(&self, upload: &UploadId, object: &str) -> Path {
        self.prefix.clone().join(STAGING).join(upload.as_str()).join(object)
    }

    /// Keeps a part of a file as a part of an upload.
    pub(super) fn stage(
        &self,
        (from, file): (&FilePath, &File),
        range: Range<u64>,
        upload: &UploadId,
        object: &str,
    ) -> Result<(), BlobError> {
        self.put(from, file, range, &self.staging(upload, object))
    }

    /// Makes the only part of an upload a blob, without sending it again.
    pub(super) fn copy_staged(&self, upload: &UploadId, object: &str, digest: &Digest) -> Result<(), BlobError> {
        self.settled(digest);
        self.wait(self.store.copy(&self.staging(upload, object), &self.key(digest)))
    }

    /// Writes the part of an upload into a file from `at` on. Returns how long it was.
    pub(super) fn fetch_staged(
        &self,
        upload: &UploadId,
        object: &str,
        (to, file): (&FilePath, &File),
        at: u64,
    ) -> Result<u64, BlobError> {
        let key = self.staging(upload, object);
        let mut parts = self.wait(self.store.get(&key))?.into_stream();
        let mut end = at;
        while let Some(bytes) = self.wait(parts.try_next())? {
            file.write_all_at(&bytes, end).map_err(|error| BlobError::io(to, error))?;
            end += bytes.len() as u64;
        }
        Ok(end - at)
    }

    /// Removes one part of an upload.
    pub(super) fn remove_staged(&self, upload: &UploadId, object: &str) -> Result<(), BlobError> {
        self.found(self.store.delete(&self.staging(upload, object))).map(drop)
    }

    /// The names of what is kept of an upload.
    pub(super) fn list_upload(&self, upload: &UploadId) -> Result<Vec<String>, BlobError> {
        let dir = self.prefix.clone().join(STAGING).join(upload.as_str());
        let name = |object: ObjectMeta| object.location.filename().map(ToOwned::to_owned);
        let listed = self.store.list(Some(&dir)).try_filter_map(|object| std::future::ready(Ok(name(object))));
        self.wait(listed.try_collect())
    }

    /// The parts of uploads that were kept before `before`.
    pub(super) fn list_staged(&self, before: Timestamp) -> Result<Vec<(UploadId, String)>, BlobError> {
        let dir = self.prefix.clone().join(STAGING);
        let staged = |object: ObjectMeta| {
            let old = object.last_modified.timestamp_millis() <= before.0;
            let mut names = object.location.as_ref().rsplit('/');
            let (name, upload) = (names.next().filter(|_| old)?, names.next()?);
            Some((upload.parse().ok()?, name.to_owned()))
        };
        let listed = self.store.list(Some(&dir)).try_filter_map(|object| std::future::ready(Ok(staged(object))));
        self.wait(listed.try_collect())
    }

    /// Says that a blob is about to go. Nothing if somebody is removing it already.
    pub(super) fn begin_removal(&self, digest: &Digest) -> Option<Going<'_>> {
        let new = self.going.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest);
        new.then_some(Going { bucket: self, digest: *digest })
    }

    /// At most `limit` blobs after `after`, in the order of their names.
    pub(super) fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<ListedBlob>, BlobError> {
        let prefix = Some(&self.prefix);
        let objects = match after {
            Some(after) => self.store.list_with_offset(prefix, &self.key(after)),
            None => self.store.list(prefix),
        };
        let listed = objects.try_filter_map(|object| std::future::ready(Ok(listed(&object))));
        self.wait(listed.take(limit).try_collect())
    }
}

/// What is no blob was not put there by us and is left alone.
fn listed(object: &ObjectMeta) -> Option<ListedBlob> {
    let mut names = object.location.as_ref().rsplit('/');
    let (hex, shard, algorithm) = (names.next()?, names.next()?, names.next()?);
    let digest = format!("{algorithm}:{hex}").parse().ok().filter(|_| hex.starts_with(shard))?;
    let written = Timestamp(object.last_modified.timestamp_millis());
    Some(ListedBlob { digest, size: object.size, written })
}

fn read(file: &File, range: Range<u64>) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(std::io::Error::other)?];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

fn of(bucket: &str, error: &object_store::Error) -> BlobError {
    BlobError::Bucket { bucket: bucket.to_owned(), message: error.to_string() }
}

/// A blob whose object is being removed; over when it is dropped.
pub(super) struct Going<'b> {
    bucket: &'b Bucket,
    digest: Digest,
}

impl Going<'_> {
    /// Removes the object. False if there was none.
    pub(super) fn remove(&self) -> Result<bool, BlobError> {
        let (store, key) = (&self.bucket.store, self.bucket.key(&self.digest));
        let removal = async {
            // S3 does not say whether there was one.
            match store.head(&key).await {
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
                Ok(_) => store.delete(&key).await.map(|()| true),
            }
        };
        let in_time = self.bucket.runtime.block_on(async { tokio::time::timeout(REMOVAL, removal).await });
        match in_time {
            Ok(removed) => removed.map_err(|error| of(&self.bucket.name, &error)),
            Err(_) => Err(self.bucket.failed(format!("a blob was not removed within {} seconds", REMOVAL.as_secs()))),
        }
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.bucket.going.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
        self.bucket.gone.notify_all();
    }
}
