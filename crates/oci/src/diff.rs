//! The upper directory of an overlay as a layer: only what changed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use model::Timestamp;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::rooted::{MAX_DEPTH, names, open_listed};
use crate::tar::{LayerWriter, Meta, WriteError, shown};
use crate::{IdMap, xattr};

/// How an upper directory becomes a layer.
pub struct DiffOptions<'a> {
    /// How owners on this machine are owners inside.
    pub ids: IdMap,
    /// Files changed after this are said to have been changed then, so that the same build gives the same layer.
    pub epoch: Option<Timestamp>,
    /// Paths (relative, without a slash at either end) that are left out with all that lies below them, such as what the
    /// sandbox mounted there.
    pub skip: &'a dyn Fn(&[u8]) -> bool,
}

/// What a layer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffSummary {
    /// Entries that were written, deletions included. Zero means that nothing changed.
    pub entries: u64,
    /// Bytes of file contents.
    pub bytes: u64,
    /// Sockets and devices, which are left out.
    pub left_out: u64,
}

/// Why an upper directory cannot be made a layer.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// Something in it could not be read.
    #[error("cannot read {path:?} of the changed files: {source}")]
    Read {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something in it has no meaning in a layer.
    #[error("{path:?} cannot be in a layer: {reason}")]
    Refused {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The layer could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes what changed in the overlay whose upper directory is `upper`: files in the order of their names, deletions as
/// `.wh.NAME`, replaced directories as `.wh..wh..opq`, second names as hard links. Nobody may be writing there meanwhile.
///
/// # Errors
/// When something cannot be read, cannot be in a layer, or the layer cannot be written.
pub fn write_upper<W: Write>(
    upper: &Path,
    writer: &mut LayerWriter<W>,
    options: &DiffOptions<'_>,
) -> Result<DiffSummary, DiffError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, upper, flags, Mode::empty())
        .map_err(|error| DiffError::Read { path: upper.display().to_string(), source: error.into() })?;
    let mut diff = Diff { writer, options, links: BTreeMap::new(), summary: DiffSummary::default() };
    diff.directory(root.as_fd(), &[], 0)?;
    Ok(diff.summary)
}

struct Diff<'a, W: Write> {
    writer: &'a mut LayerWriter<W>,
    options: &'a DiffOptions<'a>,
    /// The first name of each file with several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    summary: DiffSummary,
}

impl<W: Write> Diff<'_, W> {
    /// What lies in a directory, without the directory itself.
    fn directory(&mut self, directory: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), DiffError> {
        if depth > MAX_DEPTH {
            return Err(DiffError::Refused { path: shown(path), reason: "it lies deeper than 256 directories" });
        }
        let mut found = names(directory).map_err(reading(path))?;
        found.sort_unstable();
        for name in found {
            let below = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            if !(self.options.skip)(&below) {
                self.entry(directory, &name, &below, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8], depth: usize) -> Result<(), DiffError> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(reading(path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                self.writer.whiteout(path, self.clamped(&stat, true))?;
            }
            FileType::Directory => return self.subdirectory(parent, name, path, &stat, depth),
            FileType::RegularFile => self.file(parent, name, path, &stat)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(reading(path))?;
                let meta = self.meta(&stat, BTreeMap::new());
                self.writer.symlink(path, target.as_bytes(), &meta)?;
            }
            FileType::Fifo => {
                let meta = self.meta(&stat, BTreeMap::new());
                self.writer.fifo(path, &meta)?;
            }
            _ => {
                self.summary.left_out += 1;
                return Ok(());
            }
        }
        self.summary.entries += 1;
        Ok(())
    }

    fn subdirectory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        depth: usize,
    ) -> Result<(), DiffError> {
        let directory = open_listed(parent, name).map_err(reading(path))?;
        self.refuse_redirects(&directory, path)?;
        let opaque = ["user.overlay.opaque", "trusted.overlay.opaque"].iter().try_fold(false, |found, key| {
            xattr::get(&directory, key).map(|value| found || value.as_deref() == Some(b"y"))
        });
        let xattrs = xattr::portable(&directory).map_err(reading(path))?;
        let meta = self.meta(stat, xattrs);
        self.writer.directory(path, &meta)?;
        self.summary.entries += 1;
        if opaque.map_err(reading(path))? {
            self.writer.opaque(path, self.clamped(stat, true))?;
            self.summary.entries += 1;
        }
        let walked = self.directory(directory.as_fd(), path, depth + 1);
        // If reading it needed another mode, what runs next must find the old one.
        if rustix::fs::fstat(&directory).is_ok_and(|now| now.st_mode != stat.st_mode) {
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(reading(path))?;
        }
        walked
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<(), DiffError> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let meta = self.meta(stat, BTreeMap::new());
                return Ok(self.writer.hard_link(path, first, &meta)?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let file = open_file(parent, name, stat).map_err(reading(path))?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        if size == 0 && xattr::get(&file, "user.overlay.whiteout").map_err(reading(path))?.is_some() {
            return Ok(self.writer.whiteout(path, self.clamped(stat, true))?);
        }
        self.refuse_redirects(&file, path)?;
        let xattrs = xattr::portable(&file).map_err(reading(path))?;
        let meta = self.meta(stat, xattrs);
        self.writer.file(path, &meta, size, &mut std::fs::File::from(file))?;
        self.summary.bytes += size;
        Ok(())
    }

    /// Overlays are mounted so that these never come about; taking one for plain content would lose files.
    fn refuse_redirects(&self, file: &OwnedFd, path: &[u8]) -> Result<(), DiffError> {
        for key in ["user.overlay.redirect", "user.overlay.metacopy"] {
            if xattr::get(file, key).map_err(reading(path))?.is_some() {
                let reason = "the overlay refers to a lower layer for it (redirect_dir or metacopy is on)";
                return Err(DiffError::Refused { path: shown(path), reason });
            }
        }
        Ok(())
    }

    fn meta(&self, stat: &Stat, xattrs: BTreeMap<String, Vec<u8>>) -> Meta {
        Meta {
            mode: stat.st_mode & 0o7777,
            uid: self.options.ids.inside(stat.st_uid),
            gid: self.options.ids.inside(stat.st_gid),
            mtime: self.clamped(stat, false),
            xattrs,
        }
    }

    /// The time of a file, or of a mark: marks have no time of their own, so that they get the epoch if there is one.
    fn clamped(&self, stat: &Stat, mark: bool) -> i64 {
        match self.options.epoch {
            Some(epoch) if mark => epoch.seconds(),
            Some(epoch) => stat.st_mtime.min(epoch.seconds()),
            None => stat.st_mtime,
        }
    }
}

/// Opens a regular file for reading; as its owner also where its mode forbids that.
fn open_file(parent: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::chmodat(parent, name, mode | Mode::RUSR, AtFlags::empty())?;
            let file = rustix::fs::openat(parent, name, flags, Mode::empty());
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
            file
        }
        other => other,
    }
}

fn reading(path: &[u8]) -> impl Fn(Errno) -> DiffError + use<> {
    let path = shown(path);
    move |error| DiffError::Read { path: path.clone(), source: error.into() }
}
