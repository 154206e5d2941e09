//! What steps came to, kept on disk: directories, blobs that layers became, and lists of picked files.
//!
//! Everything here may be lost or thrown away at any time; it is only made again. Names appear whole or not at all.
//! Directories are not synced file by file: those made before the machine was last started are not trusted.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use model::Digest;
use oci::{IdMap, remove_tree};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::BuildError;
use crate::key::Key;

/// The layer that a step became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerBlob {
    /// The compressed layer.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of the layer before compression.
    pub diff_id: Digest,
}

/// What is known of a step: its layer, or that it changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LayerRecord {
    /// It changed nothing.
    Empty,
    /// Its layer.
    Blob(LayerBlob),
}

/// The directory of the cache. One process at a time has it.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    counter: AtomicU64,
}

const TREES: &str = "trees";
const LAYERS: &str = "layers";
const PICKS: &str = "picks";
const MOUNTS: &str = "mounts";
const TEMPORARY: &str = "tmp";

impl Cache {
    /// Opens the cache, makes it if it is missing, and clears away what an earlier process left unfinished.
    pub fn open(directory: &Path, ids: IdMap) -> Result<Self, BuildError> {
        let failed = |source| BuildError::io(format!("cannot use the build cache {}", directory.display()))(source);
        fs::DirBuilder::new().recursive(true).mode(0o711).create(directory).map_err(failed)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let owners = if ids.single { "own".to_owned() } else { format!("from {}", ids.base) };
        let mark = format!("boot {}\nowners {owners}\nbuilder {}\n", boot.trim(), crate::BUILDER_VERSION);
        let mark_path = directory.join("made-in");
        remove_tree(&directory.join(TEMPORARY)).map_err(failed)?;
        if boot.is_empty() || fs::read_to_string(&mark_path).ok().as_deref() != Some(mark.as_str()) {
            remove_tree(&directory.join(TREES)).map_err(failed)?;
        }
        for part in [TREES, LAYERS, PICKS, MOUNTS, TEMPORARY] {
            fs::DirBuilder::new().recursive(true).mode(0o711).create(directory.join(part)).map_err(failed)?;
        }
        fs::write(&mark_path, mark).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), counter: AtomicU64::new(0) })
    }

    /// The directory that a step came to, in the form of an overlay's lower directory.
    pub fn tree(&self, key: &Key) -> Option<PathBuf> {
        let path = self.directory.join(TREES).join(key.to_string());
        if !path.is_dir() {
            return None;
        }
        touch(&path.with_extension("used"));
        Some(path)
    }

    /// Gives a finished directory its name. If another build was first, its directory stands.
    pub fn keep_tree(&self, key: &Key, made: &Path) -> Result<PathBuf, BuildError> {
        let path = self.directory.join(TREES).join(key.to_string());
        match fs::rename(made, &path) {
            Ok(()) => {}
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(BuildError::io(format!("cannot keep {}", path.display()))(error)),
        }
        touch(&path.with_extension("used"));
        Ok(path)
    }

    /// What a step's layer is known to be.
    pub fn layer(&self, key: &Key) -> Option<LayerRecord> {
        self.read(&self.directory.join(LAYERS).join(key.to_string()))
    }

    /// Remembers a step's layer.
    pub fn keep_layer(&self, key: &Key, record: &LayerRecord) -> Result<(), BuildError> {
        self.write(&self.directory.join(LAYERS).join(key.to_string()), record)
    }

    /// A list that was kept under `key`.
    pub fn picks<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        self.read(&self.directory.join(PICKS).join(key.to_string()))
    }

    /// Keeps a list under `key`.
    pub fn keep_picks<T: Serialize>(&self, key: &Key, picks: &T) -> Result<(), BuildError> {
        self.write(&self.directory.join(PICKS).join(key.to_string()), picks)
    }

    /// Where the files of a cache mount are.
    pub fn mount(&self, key: &Key) -> PathBuf {
        self.directory.join(MOUNTS).join(key.to_string())
    }

    /// A new directory for work in progress, removed when it is dropped.
    pub fn work(&self) -> Result<Work, BuildError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(TEMPORARY).join(number.to_string());
        let made = fs::DirBuilder::new().mode(0o711).create(&path);
        made.map_err(BuildError::io(format!("cannot make {}", path.display())))?;
        Ok(Work { path })
    }

    /// Removes what no build has used for `age`, cache mounts included. Nobody may be building.
    pub fn prune(&self, age: Duration) -> Result<u64, BuildError> {
        let limit = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut removed = 0;
        for part in [TREES, LAYERS, PICKS, MOUNTS] {
            let directory = self.directory.join(part);
            let failed = |source| BuildError::io(format!("cannot prune {}", directory.display()))(source);
            for entry in fs::read_dir(&directory).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let used = path.with_extension("used");
                let read =
                    fs::metadata(&used).or_else(|_| fs::symlink_metadata(&path)).and_then(|found| found.modified());
                if path.extension().is_none() && read.is_ok_and(|time| time < limit) {
                    remove_tree(&path).map_err(failed)?;
                    remove_tree(&used).map_err(failed)?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Reads what [`Cache::write`] wrote; nothing if it is missing or damaged.
    fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        let text = fs::read_to_string(path).ok()?;
        let (sum, body) = text.split_once('\n')?;
        if hex::encode(Sha256::digest(body.as_bytes())) != sum {
            return None;
        }
        let value = serde_json::from_str(body).ok()?;
        touch(path);
        Some(value)
    }

    /// Writes beside and renames. Not synced: the sum in front tells a torn file, which counts as missing.
    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), BuildError> {
        let failed = |source| BuildError::io(format!("cannot write {}", path.display()))(source);
        let body = serde_json::to_string(value).map_err(|error| failed(io::Error::other(error)))?;
        let sum = hex::encode(Sha256::digest(body.as_bytes()));
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let beside = self.directory.join(TEMPORARY).join(format!("record-{number}"));
        fs::write(&beside, format!("{sum}\n{body}")).map_err(failed)?;
        fs::rename(&beside, path).map_err(failed)
    }
}

/// Marks a file as used now. That it fails only makes it look older.
fn touch(path: &Path) {
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}

/// A directory for work in progress.
#[derive(Debug)]
pub(crate) struct Work {
    path: PathBuf,
}

impl Work {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a build's work stays until the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyHasher;

    fn sample() -> LayerRecord {
        let digest = Digest::sha256([1; 32]);
        LayerRecord::Blob(LayerBlob { digest, size: 5, diff_id: digest })
    }

    #[test]
    fn survives_a_restart_and_damage_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyHasher::new("test").finish();
        let cache = Cache::open(dir.path(), IdMap::single()).unwrap();
        assert_eq!(cache.layer(&key), None);
        cache.keep_layer(&key, &sample()).unwrap();
        let work = cache.work().unwrap();
        fs::create_dir(work.path().join("tree")).unwrap();
        let kept = cache.keep_tree(&key, &work.path().join("tree")).unwrap();
        std::mem::forget(work);

        let again = Cache::open(dir.path(), IdMap::single()).unwrap();
        assert_eq!(again.layer(&key), Some(sample()));
        assert_eq!(again.tree(&key), Some(kept));
        assert_eq!(fs::read_dir(dir.path().join(TEMPORARY)).unwrap().count(), 0, "unfinished work is cleared away");

        let other = Cache::open(dir.path(), IdMap::shifted(7)).unwrap();
        assert_eq!(other.tree(&key), None, "directories made for other owners are not used");
        assert_eq!(other.layer(&key), Some(sample()));

        let path = dir.path().join(LAYERS).join(key.to_string());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 3]).unwrap();
        assert_eq!(other.layer(&key), None, "a torn record is a miss");
    }

    #[test]
    fn prunes_what_was_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyHasher::new("test").finish();
        let cache = Cache::open(dir.path(), IdMap::single()).unwrap();
        cache.keep_layer(&key, &sample()).unwrap();
        let work = cache.work().unwrap();
        cache.keep_tree(&key, work.path()).unwrap();
        assert_eq!(cache.prune(Duration::from_secs(3600)).unwrap(), 0);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(cache.prune(Duration::ZERO).unwrap(), 2);
        assert_eq!((cache.layer(&key), cache.tree(&key)), (None, None));
        assert_eq!(fs::read_dir(dir.path().join(TREES)).unwrap().count(), 0);
    }
}
