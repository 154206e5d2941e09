//! Unpacked layers: one directory each, in the form that overlayfs takes as a lower directory.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use model::Digest;

use crate::decompress::Decoder;
use crate::tar::TarReader;
use crate::{Descriptor, DigestReader, IdMap, rooted, unpack};

/// How much one layer may unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// The most entries.
    pub entries: u64,
    /// The most bytes of the uncompressed archive.
    pub bytes: u64,
}

impl Default for UnpackLimits {
    /// One million entries, 64 GiB.
    fn default() -> Self {
        Self { entries: 1_000_000, bytes: 64 << 30 }
    }
}

/// A digest that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// By the descriptor or the configuration.
    pub expected: Digest,
    /// In truth.
    pub found: Digest,
}

/// Why a layer is not there.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The blob could not be opened.
    #[error("cannot open the layer {digest}: {source}")]
    Open {
        /// The layer.
        digest: Digest,
        /// What the source said.
        source: io::Error,
    },
    /// The bytes are no archive, or could not be read.
    #[error("the layer cannot be read: {0}")]
    Archive(#[source] io::Error),
    /// The blob is not what its descriptor says.
    #[error("the layer should have the digest {} and has {}", .0.expected, .0.found)]
    Digest(Box<Mismatch>),
    /// The blob has another length than its descriptor says.
    #[error("the layer {digest} should have {expected} bytes and has {found}")]
    Size {
        /// The layer.
        digest: Digest,
        /// By the descriptor.
        expected: u64,
        /// In truth.
        found: u64,
    },
    /// What comes out of the compression is not what the image configuration says.
    #[error("the layer should unpack to {} and unpacks to {}", .0.expected, .0.found)]
    DiffId(Box<Mismatch>),
    /// An entry that no honest layer holds.
    #[error("the layer holds {path:?}, which is refused: {reason}")]
    Refused {
        /// The entry.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More entries than are accepted.
    #[error("the layer holds more than {0} files")]
    TooMany(u64),
    /// Something could not be written.
    #[error("cannot unpack {path:?}: {source}")]
    Write {
        /// The entry.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The directory of unpacked layers is not usable.
    #[error("cannot use the directory of unpacked layers {}: {source}", path.display())]
    Store {
        /// The directory, or what in it failed.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The directory of unpacked layers. It is a cache of blobs: whatever is missing is unpacked again.
///
/// `DIR/sha256-<hex>/` is one layer: deletions are character devices 0:0, and directories that hide what lies below
/// carry `user.overlay.opaque=y`, as an overlay mounted with `userxattr` takes it. A layer is complete if its name is there.
/// One process at a time unpacks into a directory; any number may read.
#[derive(Clone, Debug)]
pub struct LayerStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    ids: IdMap,
    limits: UnpackLimits,
    counter: AtomicU64,
    running: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

impl LayerStore {
    /// Opens the directory and makes it if it is missing.
    ///
    /// Layers that were unpacked before the machine was last started, or for other owners, are removed: nothing here is
    /// synced to disk one by one, so that a power cut may have left holes in them.
    ///
    /// # Errors
    /// When the directory cannot be made, listed or written.
    pub fn open(directory: &Path, ids: IdMap) -> Result<Self, LayerError> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self::open_in_boot(directory, ids, boot.trim())
    }

    fn open_in_boot(directory: &Path, ids: IdMap, boot: &str) -> Result<Self, LayerError> {
        let failed = |source| LayerError::Store { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o711).create(directory).map_err(failed)?;
        let owners = if ids.single { "own".to_owned() } else { format!("from {}", ids.base) };
        let mark = format!("boot {boot}\nowners {owners}\n");
        let mark_path = directory.join("made-in");
        let kept = !boot.is_empty() && fs::read_to_string(&mark_path).is_ok_and(|found| found == mark);
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let whole = digest_of_name(&entry.file_name()).is_some();
            let is_mark = entry.file_name() == "made-in";
            if !is_mark && (!kept || !whole) {
                remove_tree(&entry.path()).map_err(failed)?;
            }
        }
        fs::write(&mark_path, mark).map_err(failed)?;
        let inner = Inner {
            directory: directory.to_owned(),
            ids,
            limits: UnpackLimits::default(),
            counter: AtomicU64::new(0),
            running: Mutex::new(HashMap::new()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same directory with other limits.
    #[must_use]
    pub fn with_limits(&self, limits: UnpackLimits) -> Self {
        let inner = Inner {
            directory: self.inner.directory.clone(),
            ids: self.inner.ids,
            limits,
            counter: AtomicU64::new(1 << 32),
            running: Mutex::new(HashMap::new()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// How owners are written here.
    pub fn ids(&self) -> IdMap {
        self.inner.ids
    }

    /// Where the layer `digest` (compressed) is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.directory.join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// The directory of an unpacked layer; nothing if it is not there.
    pub fn find(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.path(digest)).filter(|path| path.is_dir())
    }

    /// The directory of the layer, unpacked from what `open` gives if it is not there yet. Callers that want the same
    /// layer at the same time share the work.
    ///
    /// The blob's digest and length, and its `diff_id` if that is given, are checked before the layer gets its name.
    ///
    /// # Errors
    /// When the blob cannot be read, is not what it is said to be, holds what no layer may, or cannot be written.
    pub fn ensure(
        &self,
        descriptor: &Descriptor,
        diff_id: Option<&Digest>,
        open: impl FnOnce() -> io::Result<Box<dyn Read>>,
    ) -> Result<PathBuf, LayerError> {
        let digest = descriptor.digest;
        if let Some(path) = self.find(&digest) {
            return Ok(path);
        }
        let _unpacking = Unpacking::of(&self.inner, digest);
        let lock = {
            let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(running.entry(digest).or_default())
        };
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = self.find(&digest) {
            return Ok(path);
        }
        let source = open().map_err(|source| LayerError::Open { digest, source })?;
        let temporary = self.temporary()?;
        let unpacked = self.unpack(descriptor, diff_id, source, &temporary);
        let placed = unpacked.and_then(|()| self.place(&temporary, &digest));
        if placed.is_err()
            && let Err(error) = remove_tree(&temporary)
        {
            tracing::warn!(path = %temporary.display(), %error, "a layer that was not finished stays until the next start");
        }
        placed
    }

    /// Takes over a directory that is in the form of a layer already (an overlay's upper directory, on the same
    /// filesystem) as the unpacked form of `digest`.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn adopt(&self, digest: &Digest, upper: &Path) -> Result<PathBuf, LayerError> {
        if let Some(path) = self.find(digest) {
            remove_tree(upper).map_err(|source| LayerError::Store { path: upper.to_owned(), source })?;
            return Ok(path);
        }
        self.place(upper, digest)
    }

    /// The digests of all layers that are there.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn list(&self) -> Result<Vec<Digest>, LayerError> {
        let failed = |source| LayerError::Store { path: self.inner.directory.clone(), source };
        let entries = fs::read_dir(&self.inner.directory).map_err(failed)?;
        let names = entries.map(|entry| entry.map(|entry| digest_of_name(&entry.file_name())));
        names.filter_map(Result::transpose).collect::<io::Result<Vec<_>>>().map_err(failed)
    }

    /// Removes a layer; that it is not there is no error. Nobody may be using it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<(), LayerError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| LayerError::Store { path, source }
        };
        let path = self.path(digest);
        // Away first, so that a layer half removed is never taken for a whole one.
        let aside = self.aside();
        match fs::rename(&path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&path)(error)),
            Ok(()) => remove_tree(&aside).map_err(failed(&aside)),
        }
    }

    fn aside(&self) -> PathBuf {
        let number = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        self.inner.directory.join(format!("unfinished-{}-{number}", std::process::id()))
    }

    fn temporary(&self) -> Result<PathBuf, LayerError> {
        let path = self.aside();
        let made = fs::DirBuilder::new().mode(0o755).create(&path);
        made.map_err(|source| LayerError::Store { path: path.clone(), source })?;
        Ok(path)
    }

    fn place(&self, from: &Path, digest: &Digest) -> Result<PathBuf, LayerError> {
        let path = self.path(digest);
        match fs::rename(from, &path) {
            Ok(()) => Ok(path),
            Err(source) => Err(LayerError::Store { path, source }),
        }
    }

    fn unpack(
        &self,
        descriptor: &Descriptor,
        diff_id: Option<&Digest>,
        source: Box<dyn Read>,
        directory: &Path,
    ) -> Result<(), LayerError> {
        let digest = descriptor.digest;
        let compressed = DigestReader::new(source, digest.algorithm(), descriptor.size);
        let decoder = Decoder::new(BufReader::with_capacity(256 << 10, compressed)).map_err(LayerError::Archive)?;
        let algorithm = diff_id.map_or(model::Algorithm::Sha256, Digest::algorithm);
        let plain = DigestReader::new(decoder, algorithm, self.inner.limits.bytes);
        let mut archive = TarReader::new(BufReader::with_capacity(256 << 10, plain));
        let unpacked = unpack::unpack(&mut archive, directory, self.inner.ids, self.inner.limits)?;
        if unpacked.skipped_devices > 0 {
            tracing::info!(%digest, devices = unpacked.skipped_devices, "devices of a layer were left out");
        }
        // What follows the end of the archive counts for both digests.
        let mut plain = archive.into_inner();
        io::copy(&mut plain, &mut io::sink()).map_err(LayerError::Archive)?;
        let (decoder, found_diff_id, _) = plain.into_inner().finish();
        let mut compressed = decoder.into_inner();
        io::copy(&mut compressed, &mut io::sink()).map_err(LayerError::Archive)?;
        let (_, found, size) = compressed.into_inner().finish();
        if size != descriptor.size {
            return Err(LayerError::Size { digest, expected: descriptor.size, found: size });
        }
        if found != digest {
            return Err(LayerError::Digest(Box::new(Mismatch { expected: digest, found })));
        }
        match diff_id {
            Some(expected) if *expected != found_diff_id => {
                Err(LayerError::DiffId(Box::new(Mismatch { expected: *expected, found: found_diff_id })))
            }
            _ => Ok(()),
        }
    }
}

/// Takes a digest off the list of running ones when its last caller is done.
struct Unpacking<'a> {
    inner: &'a Inner,
    digest: Digest,
}

impl<'a> Unpacking<'a> {
    fn of(inner: &'a Inner, digest: Digest) -> Self {
        Self { inner, digest }
    }
}

impl Drop for Unpacking<'_> {
    fn drop(&mut self) {
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&self.digest).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            running.remove(&self.digest);
        }
    }
}

fn digest_of_name(name: &std::ffi::OsStr) -> Option<Digest> {
    let (algorithm, hex) = name.to_str()?.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Removes a file or a whole tree, whatever its depth and its modes, without following links. Nothing there is no error.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "a path without a name cannot be removed");
    let name = path.file_name().ok_or_else(missing)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match fs::File::open(parent) {
        Ok(parent) => rooted::remove_at(parent.as_fd(), name.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
