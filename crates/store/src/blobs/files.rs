//! Blobs as files: `sha256/ab/<hex>` below the directory, `tmp/<random>/` for what a process is writing. With a bucket
//! only what is being written is here.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use model::{Algorithm, Digest};
use rand::RngExt;
use sha2::Digest as _;

use crate::blobs::bucket::{Bucket, Going};
use crate::blobs::gather::Append;
use crate::blobs::lease::{BlobLease, Held, Leaving};
use crate::blobs::reader::Source;
use crate::blobs::uploads::Table;
use crate::blobs::{BlobError, ListedBlob, Removed, StoredBlob};
use crate::fault;

/// Where finished blobs are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the directory.
    Directory,
    /// In a bucket.
    Bucket(Arc<Bucket>),
}

/// The directory of blobs, with a place of its own for temporary files.
#[derive(Debug)]
pub(super) struct Files {
    place: Place,
    dir: PathBuf,
    temporary: PathBuf,
    /// Held while the process lives, so that others know its temporary files are in use.
    _alive: File,
    counter: AtomicU64,
    pub(super) held: Arc<Held>,
    pub(super) known_uploads: Table,
}

impl Files {
    pub(super) fn open(dir: &Path, place: Place) -> Result<Self, BlobError> {
        make_dirs(dir)?;
        let tmp = dir.join("tmp");
        // One at a time: a place that is being made must not look abandoned.
        let guard = lock_file(&dir.join("tmp.lock"))?;
        guard.lock().map_err(|error| BlobError::io(&tmp, error))?;
        sweep(&tmp)?;
        let temporary = tmp.join(random_name());
        make_dir(&temporary)?;
        let alive = lock_file(&temporary.join("lock"))?;
        alive.lock().map_err(|error| BlobError::io(&temporary, error))?;
        drop(guard);
        Ok(Self {
            place,
            dir: dir.to_owned(),
            temporary,
            _alive: alive,
            counter: AtomicU64::new(0),
            held: Arc::default(),
            known_uploads: Arc::default(),
        })
    }

    /// Where a blob is, or would be.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.dir.join("uploads")
    }

    /// The file of a blob, if it is one.
    pub(super) fn local_path(&self, digest: &Digest) -> Option<PathBuf> {
        match self.place {
            Place::Directory => Some(self.path(digest)).filter(|path| path.is_file()),
            Place::Bucket(_) => None,
        }
    }

    /// The bucket, if finished blobs are in one.
    pub(super) const fn bucket(&self) -> Option<&Arc<Bucket>> {
        match &self.place {
            Place::Directory => None,
            Place::Bucket(bucket) => Some(bucket),
        }
    }

    /// A file that goes when this process does.
    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.temporary.join(name)
    }

    pub(super) const fn is_local(&self) -> bool {
        matches!(self.place, Place::Directory)
    }

    pub(super) fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match &self.place {
            Place::Directory => {
                let path = self.path(digest);
                found(path.metadata(), &path).map(|metadata| metadata.map(|metadata| metadata.len()))
            }
            Place::Bucket(bucket) => bucket.size(digest),
        }
    }

    /// What a blob is read from, and its length.
    pub(super) fn source(&self, digest: &Digest) -> Result<Option<(Source, u64)>, BlobError> {
        match &self.place {
            Place::Directory => Ok(self.open_file(digest)?.map(|(file, size)| (Source::file(file), size))),
            Place::Bucket(bucket) => Ok(bucket.size(digest)?.map(|size| (Source::object(Arc::clone(bucket)), size))),
        }
    }

    fn open_file(&self, digest: &Digest) -> Result<Option<(File, u64)>, BlobError> {
        let path = self.path(digest);
        let opened = File::open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
        found(opened, &path)
    }

    pub(super) fn bytes(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, BlobError> {
        let fits = |size| match size {
            size if size > limit => Err(BlobError::TooLarge { digest: *digest, size, limit }),
            _ => Ok(()),
        };
        let bytes = match &self.place {
            Place::Directory => {
                let Some((file, size)) = self.open_file(digest)? else { return Ok(None) };
                fits(size)?;
                let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
                file.take(limit).read_to_end(&mut bytes).map_err(|error| BlobError::io(&self.path(digest), error))?;
                bytes.into()
            }
            Place::Bucket(bucket) => {
                let Some(size) = bucket.size(digest)? else { return Ok(None) };
                fits(size)?;
                let Some(bytes) = bucket.bytes(digest)? else { return Ok(None) };
                bytes
            }
        };
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() != *digest {
            return Err(BlobError::Corrupt { digest: *digest });
        }
        Ok(Some(bytes))
    }

    pub(super) fn delete(&self, digest: &Digest) -> Result<Removed, BlobError> {
        let path = match &self.place {
            Place::Directory => self.path(digest),
            Place::Bucket(bucket) => return gone(self.held.unless_held(digest, || bucket.begin_removal(digest))),
        };
        fault::point(fault::BEFORE_BLOB_REMOVAL);
        match self.held.unless_held(digest, || std::fs::remove_file(&path)) {
            Err(purpose) => Ok(Removed::Held(purpose)),
            Ok(removed) => Ok(found(removed, &path)?.map_or(Removed::Absent, |()| Removed::Yes)),
        }
    }

    /// Removes a blob that nobody leased since its removal began. Its name goes while no lease can come for it; freeing
    /// what a large file holds takes longer, and keeps nobody waiting.
    pub(super) fn remove(&self, leaving: &Leaving) -> Result<Removed, BlobError> {
        if let Place::Bucket(bucket) = &self.place {
            return gone(leaving.unless_wanted(|| bucket.begin_removal(leaving.digest())));
        }
        let path = self.path(leaving.digest());
        let aside = self.temporary.join(self.counter.fetch_add(1, Ordering::Relaxed).to_string());
        fault::point(fault::BEFORE_BLOB_REMOVAL);
        match leaving.unless_wanted(|| std::fs::rename(&path, &aside)) {
            Err(purpose) => Ok(Removed::Held(purpose)),
            Ok(moved) => match found(moved, &path)? {
                None => Ok(Removed::Absent),
                Some(()) => {
                    fault::point(fault::AFTER_BLOB_ASIDE);
                    std::fs::remove_file(&aside).map_err(|error| BlobError::io(&aside, error))?;
                    Ok(Removed::Yes)
                }
            },
        }
    }

    /// At most `limit` blobs after `after`, in the order of their algorithms' names and hexadecimal digits.
    pub(super) fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<ListedBlob>, BlobError> {
        if let Place::Bucket(bucket) = &self.place {
            return bucket.list(after, limit);
        }
        let after = after.map(|digest| (digest.algorithm(), digest.hex()));
        let mut listed = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for shard in 0..=255_u8 {
                let shard = hex::encode([shard]);
                let passed = after.as_ref().is_some_and(|(at, hex)| (*at, &hex[..2]) > (algorithm, shard.as_str()));
                if !passed {
                    self.list_shard(algorithm, &shard, after.as_ref(), limit, &mut listed)?;
                }
                if listed.len() >= limit {
                    return Ok(listed);
                }
            }
        }
        Ok(listed)
    }

    fn list_shard(
        &self,
        algorithm: Algorithm,
        shard: &str,
        after: Option<&(Algorithm, String)>,
        limit: usize,
        listed: &mut Vec<ListedBlob>,
    ) -> Result<(), BlobError> {
        let dir = self.dir.join(algorithm.name()).join(shard);
        let io = |error| BlobError::io(&dir, error);
        let mut names = Vec::new();
        for entry in dir.read_dir().map_err(io)? {
            // What is no blob was not put there by us and is left alone.
            let Ok(name) = entry.map_err(io)?.file_name().into_string() else { continue };
            if after.is_none_or(|(at, hex)| (*at, hex) < (algorithm, &name)) {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let Ok(digest) = format!("{}:{name}", algorithm.name()).parse::<Digest>() else { continue };
            let path = dir.join(&name);
            let Some(metadata) = found(path.metadata(), &path)? else { continue };
            let written = metadata.modified().map_err(|error| BlobError::io(&path, error))?;
            listed.push(ListedBlob { digest, size: metadata.len(), written: written.into() });
            if listed.len() >= limit {
                break;
            }
        }
        Ok(())
    }

    /// Gives the synced file at `from` the name of its digest, durably.
    pub(super) fn publish(&self, from: &Path, digest: &Digest) -> Result<(), BlobError> {
        if let Place::Bucket(bucket) = &self.place {
            bucket.send(from, digest)?;
            return std::fs::remove_file(from).map_err(|error| BlobError::io(from, error));
        }
        let path = self.path(digest);
        fault::point(fault::BEFORE_BLOB_NAME);
        // Over one that may be there: the content is the same, and a damaged file heals.
        std::fs::rename(from, &path).map_err(|error| BlobError::io(&path, error))?;
        fault::point(fault::BEFORE_NAME_SYNC);
        sync_dir(path.parent().unwrap_or(&self.dir))
    }
}

/// Removes an object, while nobody can look for it.
fn gone(begun: Result<Option<Going<'_>>, String>) -> Result<Removed, BlobError> {
    match begun {
        Err(purpose) => Ok(Removed::Held(purpose)),
        Ok(None) => Ok(Removed::Held("another removal".to_owned())),
        Ok(Some(going)) => Ok(if going.remove()? { Removed::Yes } else { Removed::Absent }),
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.temporary);
    }
}

/// Makes every directory that a blob may need, so that a writer has only its own to sync.
fn make_dirs(dir: &Path) -> Result<(), BlobError> {
    if dir.join("tmp").is_dir() {
        return Ok(());
    }
    for algorithm in ["sha256", "sha512"] {
        for shard in 0..=255_u8 {
            make_dir(&dir.join(algorithm).join(hex::encode([shard])))?;
        }
    }
    make_dir(&dir.join("uploads"))?;
    for made in [dir.join("sha256"), dir.join("sha512"), dir.to_owned()] {
        sync_dir(&made)?;
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    // The last one: who finds it knows that the others are durable.
    make_dir(&dir.join("tmp"))
}

/// Removes the temporary files of processes that are gone.
fn sweep(tmp: &Path) -> Result<(), BlobError> {
    let io = |error| BlobError::io(tmp, error);
    for entry in tmp.read_dir().map_err(io)? {
        let path = entry.map_err(io)?.path();
        let abandoned = match File::open(path.join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if abandoned {
            tracing::info!(path = %path.display(), "removing what an earlier process was writing");
            std::fs::remove_dir_all(&path).map_err(|error| BlobError::io(&path, error))?;
        }
    }
    Ok(())
}

fn lock_file(path: &Path) -> Result<File, BlobError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| BlobError::io(path, error))
}

pub(super) fn make_dir(path: &Path) -> Result<(), BlobError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| BlobError::io(path, error))
}

pub(super) fn sync_dir(path: &Path) -> Result<(), BlobError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| BlobError::io(path, error))
}

pub(super) fn random_name() -> String {
    hex::encode(rand::rng().random::<[u8; 16]>())
}

/// Nothing where there is no file.
pub(super) fn found<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>, BlobError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BlobError::io(path, error)),
    }
}

/// A running hash.
#[derive(Clone, Debug)]
pub(super) enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::sha512(hasher.finalize().into()),
        }
    }
}

/// Writes a blob from a thread that may block. Dropped unfinished, it leaves nothing behind.
pub struct Writer {
    files: Arc<Files>,
    lease: BlobLease,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    written: u64,
}

impl Writer {
    pub(super) fn create(files: Arc<Files>, lease: BlobLease, algorithm: Algorithm) -> Result<Self, BlobError> {
        let path = files.temporary.join(files.counter.fetch_add(1, Ordering::Relaxed).to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| BlobError::io(&path, error))?;
        Ok(Self { files, lease, path, file, hasher: Hasher::new(algorithm), written: 0 })
    }

    /// How many bytes were written so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The file that is being written, open for reading. It stays readable whatever becomes of the blob.
    pub(super) fn reader(&self) -> Result<File, BlobError> {
        File::open(&self.path).map_err(|error| BlobError::io(&self.path, error))
    }

    /// Writes all of `bytes`, with an error that knows a full disk.
    ///
    /// # Errors
    /// When the file system fails. The blob cannot be finished then.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.write_all(bytes).map_err(|error| BlobError::io(&self.path, error))
    }

    /// Makes the blob durable under the digest that it has.
    ///
    /// # Errors
    /// When the file system fails; nothing is left behind.
    pub fn finish(self) -> Result<StoredBlob, BlobError> {
        let digest = self.hasher.clone().finish();
        self.publish(digest)
    }

    /// Makes the blob durable if it has the digest `expected`.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when it has another, or when the file system fails; nothing is left behind.
    pub fn finish_as(self, expected: &Digest) -> Result<StoredBlob, BlobError> {
        let found = if expected.algorithm() == self.hasher.algorithm() {
            self.hasher.clone().finish()
        } else {
            hash_file(&self.path, expected.algorithm())?
        };
        if found != *expected {
            return Err(BlobError::Mismatch { expected: *expected, found: Box::new(found) });
        }
        self.publish(found)
    }

    fn publish(self, digest: Digest) -> Result<StoredBlob, BlobError> {
        fault::point(fault::BEFORE_BLOB_SYNC);
        self.file.sync_all().map_err(|error| BlobError::io(&self.path, error))?;
        // Held before it is visible: no collector sees it in between.
        self.lease.hold(&digest);
        self.files.publish(&self.path, &digest)?;
        fault::point(fault::AFTER_BLOB_SYNC);
        Ok(StoredBlob { digest, size: self.written })
    }
}

impl Append for Writer {
    fn append(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        Self::append(self, bytes)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Not there any more once it is published.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The digest of a file.
pub(super) fn hash_file(path: &Path, algorithm: Algorithm) -> Result<Digest, BlobError> {
    let io = |error| BlobError::io(path, error);
    let mut file = File::open(path).map_err(io)?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
}
