//! Space kept aside on the data disk, so that whoever frees a full one has room to work in.
//!
//! It is a file of [`SIZE`] bytes. Deleting, collecting and starting give it back when the disk is nearly full; as long
//! as it is out nobody may push, so that what was given back is not filled at once. It is set aside again when the disk
//! has room for that.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;
use rustix::fs::FallocateFlags;

/// Bytes kept aside: the log of the records grows to about half of that before it is written back.
const SIZE: u64 = 8 << 20;

/// A disk with less than this is nearly full.
const LOW: u64 = 4 << 20;

/// The reserve of a data directory. Clones are the same reserve.
#[derive(Clone, Debug)]
pub struct Reserve {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The data directory.
    dir: PathBuf,
    /// Whether the file is not there, as far as this process knows.
    out: AtomicBool,
    /// Held by who changes the file.
    turn: Mutex<()>,
}

impl Reserve {
    /// The reserve of `dir`, as it is. A nearly full disk gets it back: whoever opens the directory needs room.
    pub(crate) fn open(dir: &Path) -> Self {
        let inner = Inner { dir: dir.to_owned(), out: AtomicBool::new(true), turn: Mutex::default() };
        let reserve = Self { inner: Arc::new(inner) };
        reserve.inner.out.store(!reserve.is_there(), Ordering::Release);
        reserve.give_way();
        reserve
    }

    /// The directory that it is for.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    fn path(&self) -> PathBuf {
        self.inner.dir.join("reserve")
    }

    fn is_there(&self) -> bool {
        std::fs::metadata(self.path()).is_ok_and(|file| file.len() == SIZE)
    }

    /// Bytes that are free on the disk; nothing if that cannot be found out.
    fn free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.inner.dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.inner.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the space back if the disk is nearly full. For those that free more than they take.
    pub fn give_way(&self) {
        if self.free().is_some_and(|free| free < LOW) {
            self.give_back();
        }
    }

    /// Gives the space back, however full the disk is.
    pub fn give_back(&self) {
        let _turn = self.turn();
        if self.inner.out.load(Ordering::Acquire) {
            return;
        }
        match std::fs::remove_file(self.path()) {
            Ok(()) => tracing::warn!("the data disk is full: its reserve is given back, and pushes are refused"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return tracing::error!(%error, "the reserve of the data disk cannot be given back"),
        }
        self.inner.out.store(true, Ordering::Release);
    }

    /// Whether the space is not set aside. Then [`Reserve::set_aside`] has to work before anything is pushed.
    pub fn is_out(&self) -> bool {
        self.inner.out.load(Ordering::Acquire)
    }

    /// Sets the space aside, unless it is, if as much is free beside it. Whether it is aside then. May block.
    ///
    /// # Errors
    /// When the file cannot be made for another reason than want of space.
    pub fn set_aside(&self) -> io::Result<bool> {
        let _turn = self.turn();
        if self.is_there() {
            self.inner.out.store(false, Ordering::Release);
            return Ok(true);
        }
        if self.free().is_some_and(|free| free < 2 * SIZE) {
            return Ok(false);
        }
        if let Err(error) = self.make() {
            let _ = std::fs::remove_file(self.path());
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            return if full { Ok(false) } else { Err(error) };
        }
        if self.inner.out.swap(false, Ordering::AcqRel) {
            tracing::info!("the reserve of the data disk is set aside");
        }
        Ok(true)
    }

    fn make(&self) -> io::Result<()> {
        let file = File::create(self.path())?;
        if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE).is_err() {
            // Not known to every file system. Some take nothing for zeros.
            let mut block = vec![0; 1 << 20];
            rand::rng().fill_bytes(&mut block);
            for _ in 0..SIZE >> 20 {
                (&file).write_all(&block)?;
            }
        }
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_set_aside_given_back_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(dir.path());
        assert!(reserve.is_out());
        assert!(reserve.set_aside().unwrap() && !reserve.is_out());
        let blocks = std::os::unix::fs::MetadataExt::blocks(&dir.path().join("reserve").metadata().unwrap());
        assert!(blocks * 512 >= SIZE, "{blocks}");
        assert!(!Reserve::open(dir.path()).is_out());
        // There is room on this disk.
        reserve.give_way();
        assert!(!reserve.is_out());
        reserve.give_back();
        assert!(reserve.is_out() && !dir.path().join("reserve").exists());
    }
}
