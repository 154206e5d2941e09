//! One layer from its tar into a directory in the form that overlayfs takes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::layer::{LayerError, UnpackLimits};
use crate::rooted::{Links, Rooted, refused};
use crate::tar::{Entry, EntryKind, TarReader, shown};
use crate::{IdMap, xattr};

/// Bytes of paths that are remembered until the end of a layer (directories, whiteouts), with 64 for each of them.
const MAX_REMEMBERED: usize = 32 << 20;

const WHITEOUT: &[u8] = b".wh.";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What unpacking came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Devices, which are left out: a sandbox has its own.
    pub skipped_devices: u64,
}

/// Unpacks the rest of `archive` into `directory`, which is empty and nobody else's.
pub(crate) fn unpack<R: Read>(
    archive: &mut TarReader<R>,
    directory: &Path,
    ids: IdMap,
    limits: UnpackLimits,
) -> Result<Unpacked, LayerError> {
    let rooted = Rooted::new(directory).map_err(|source| LayerError::Write { path: String::new(), source })?;
    let mut unpacker = Unpacker {
        rooted,
        ids,
        limits,
        directories: BTreeMap::new(),
        whiteouts: Vec::new(),
        opaques: Vec::new(),
        remembered: 0,
        entries: 0,
        done: Unpacked::default(),
        buffer: vec![0; 256 << 10],
    };
    unpacker.directories.insert(Vec::new(), Late { mode: 0o755, mtime: 0 });
    unpacker.own(None, b"").map_err(|source| LayerError::Write { path: String::new(), source })?;
    while let Some(entry) = archive.next_entry().map_err(LayerError::Archive)? {
        unpacker.entry(archive, &entry)?;
    }
    unpacker.finish()?;
    Ok(unpacker.done)
}

/// What can be set on a directory only when everything in it is there.
#[derive(Clone, Copy)]
struct Late {
    mode: u32,
    mtime: i64,
}

struct Unpacker {
    rooted: Rooted,
    ids: IdMap,
    limits: UnpackLimits,
    directories: BTreeMap<Vec<u8>, Late>,
    whiteouts: Vec<Vec<u8>>,
    opaques: Vec<Vec<u8>>,
    remembered: usize,
    entries: u64,
    done: Unpacked,
    buffer: Vec<u8>,
}

/// The components of a path of an archive. A slash in front means nothing, as docker has it; `..` is refused.
fn components(path: &[u8]) -> io::Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(refused("it climbs out of the layer with .."));
    }
    Ok(parts)
}

impl Unpacker {
    fn entry<R: Read>(&mut self, archive: &mut TarReader<R>, entry: &Entry) -> Result<(), LayerError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(LayerError::TooMany(self.limits.entries));
        }
        let failed = |source: io::Error| failure(&entry.path, source);
        let parts = components(&entry.path).map_err(failed)?;
        let Some((name, parent)) = parts.split_last() else {
            return self.root_entry(entry).map_err(failed);
        };
        if parent.iter().any(|part| part.starts_with(WHITEOUT) && !part.starts_with(AUFS)) {
            return Err(failed(refused("it lies in a directory whose name means that it was deleted")));
        }
        if parts.iter().any(|part| part.starts_with(WHITEOUT)) {
            return self.mark(parent, name).map_err(failed);
        }
        match entry.kind {
            EntryKind::File => self.file(archive, entry, parent, name)?,
            EntryKind::Directory => self.directory(entry, &parts).map_err(failed)?,
            EntryKind::Symlink => self.symlink(entry, parent, name).map_err(failed)?,
            EntryKind::HardLink => self.hard_link(entry, parent, name).map_err(failed)?,
            EntryKind::Fifo => self.fifo(entry, parent, name).map_err(failed)?,
            EntryKind::Device => self.done.skipped_devices += 1,
        }
        self.adopt_implicit().map_err(failed)
    }

    fn root_entry(&mut self, entry: &Entry) -> io::Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(refused("the root of a layer must be a directory"));
        }
        self.directories.insert(Vec::new(), Late { mode: entry.mode, mtime: entry.mtime });
        self.own(Some(entry), b"")
    }

    /// Remembers a whiteout. They are made last: whatever their order, they mean the layers below and never this one.
    fn mark(&mut self, parent: &[&[u8]], name: &[u8]) -> io::Result<()> {
        if name == OPAQUE {
            let path = parent.join(&b'/');
            self.remember(path.len())?;
            self.opaques.push(path);
            return Ok(());
        }
        if name.starts_with(AUFS) || parent.iter().any(|part| part.starts_with(AUFS)) {
            // Bookkeeping of a filesystem that nobody uses any more.
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or(name);
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused("it says that a directory deletes itself or its parent"));
        }
        let path = parent.iter().copied().chain([hidden]).collect::<Vec<_>>().join(&b'/');
        self.remember(path.len())?;
        self.whiteouts.push(path);
        Ok(())
    }

    fn remember(&mut self, length: usize) -> io::Result<()> {
        self.remembered += length + 64;
        if self.remembered > MAX_REMEMBERED {
            return Err(refused("the layer has too many directories and deletions"));
        }
        Ok(())
    }

    fn adopt_implicit(&mut self) -> io::Result<()> {
        for path in self.rooted.take_implicit() {
            self.remember(path.len())?;
            let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
            if let Some((name, parent)) = parts.split_last() {
                let at = self.rooted.directory(parent, Links::Refused)?;
                chown(at, name, &self.ids, 0, 0)?;
            }
            self.directories.entry(path).or_insert(Late { mode: 0o755, mtime: 0 });
        }
        Ok(())
    }

    fn own(&self, entry: Option<&Entry>, name: &[u8]) -> io::Result<()> {
        let (uid, gid) = entry.map_or((0, 0), |entry| (entry.uid, entry.gid));
        let name = if name.is_empty() { b"." } else { name };
        chown(self.rooted.root(), name, &self.ids, uid, gid)
    }

    fn directory(&mut self, entry: &Entry, parts: &[&[u8]]) -> io::Result<()> {
        let Some((name, parent)) = parts.split_last() else { return Ok(()) };
        self.remember(entry.path.len())?;
        let ids = self.ids;
        let mut at = self.rooted.directory(parent, Links::Inside)?;
        if let Err(error) = rustix::fs::mkdirat(at, *name, Mode::from_raw_mode(0o755)) {
            let there = rustix::fs::statat(at, *name, AtFlags::SYMLINK_NOFOLLOW)?;
            if error != Errno::EXIST {
                return Err(error.into());
            }
            if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                self.rooted.remove(parent, name, Links::Inside)?;
                at = self.rooted.directory(parent, Links::Inside)?;
                rustix::fs::mkdirat(at, *name, Mode::from_raw_mode(0o755))?;
            }
        }
        chown(at, name, &ids, entry.uid, entry.gid)?;
        if entry.xattrs.keys().any(|key| xattr::allowed(key)) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            set_xattrs(rustix::fs::openat(at, *name, flags, Mode::empty())?, entry)?;
        }
        self.directories.insert(parts.join(&b'/'), Late { mode: entry.mode, mtime: entry.mtime });
        Ok(())
    }

    /// Makes something at a name; what was there by an earlier entry of this layer goes away.
    fn make<T>(
        &mut self,
        parent: &[&[u8]],
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make(self.rooted.directory(parent, Links::Inside)?) {
            Err(Errno::EXIST) => {
                self.rooted.remove(parent, name, Links::Inside)?;
                Ok(make(self.rooted.directory(parent, Links::Inside)?)?)
            }
            other => Ok(other?),
        }
    }

    fn file<R: Read>(
        &mut self,
        archive: &mut TarReader<R>,
        entry: &Entry,
        parent: &[&[u8]],
        name: &[u8],
    ) -> Result<(), LayerError> {
        let failed = |source: io::Error| failure(&entry.path, source);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = self.make(parent, name, |at| rustix::fs::openat(at, name, flags, mode)).map_err(failed)?;
        let mut file = std::fs::File::from(file);
        loop {
            let read = archive.read(&mut self.buffer).map_err(LayerError::Archive)?;
            if read == 0 {
                break;
            }
            file.write_all(&self.buffer[..read]).map_err(failed)?;
        }
        let finish = || -> io::Result<()> {
            if let (Some(uid), Some(gid)) = (self.ids.outside(entry.uid), self.ids.outside(entry.gid)) {
                rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            set_xattrs(&file, entry)?;
            // After the owner: changing that takes setuid away.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
            rustix::fs::futimens(&file, &times(entry.mtime))?;
            Ok(())
        };
        finish().map_err(failed)
    }

    fn symlink(&mut self, entry: &Entry, parent: &[&[u8]], name: &[u8]) -> io::Result<()> {
        if entry.link.is_empty() {
            return Err(refused("a symbolic link without a target"));
        }
        self.make(parent, name, |at| rustix::fs::symlinkat(entry.link.as_slice(), at, name))?;
        let ids = self.ids;
        let at = self.rooted.directory(parent, Links::Inside)?;
        chown(at, name, &ids, entry.uid, entry.gid)?;
        Ok(rustix::fs::utimensat(at, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn hard_link(&mut self, entry: &Entry, parent: &[&[u8]], name: &[u8]) -> io::Result<()> {
        let target =
            components(&entry.link).map_err(|_| refused("a hard link that climbs out of the layer with .."))?;
        let (target_name, target_parent) =
            target.split_last().ok_or_else(|| refused("a hard link to the root of the layer"))?;
        if target.join(&b'/') == [parent, &[name]].concat().join(&b'/') {
            return Err(refused("a hard link to itself"));
        }
        let from = rustix::io::fcntl_dupfd_cloexec(self.rooted.directory(target_parent, Links::Inside)?, 0)?;
        let there = rustix::fs::statat(&from, *target_name, AtFlags::SYMLINK_NOFOLLOW);
        match there.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::RegularFile | FileType::Symlink | FileType::Fifo) => {}
            Ok(_) => return Err(refused("a hard link to a directory")),
            Err(_) => return Err(refused("a hard link to a file that the layer does not hold")),
        }
        self.make(parent, name, |at| rustix::fs::linkat(&from, *target_name, at, name, AtFlags::empty()))
    }

    fn fifo(&mut self, entry: &Entry, parent: &[&[u8]], name: &[u8]) -> io::Result<()> {
        let mode = Mode::from_raw_mode(0o600);
        self.make(parent, name, |at| rustix::fs::mknodat(at, name, FileType::Fifo, mode, 0))?;
        let ids = self.ids;
        let at = self.rooted.directory(parent, Links::Inside)?;
        chown(at, name, &ids, entry.uid, entry.gid)?;
        // A pipe just made here, and no link: its mode may be set by name.
        rustix::fs::chmodat(at, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        Ok(rustix::fs::utimensat(at, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn finish(&mut self) -> Result<(), LayerError> {
        // The deepest first, so that a deletion inside a deleted directory makes that directory.
        let mut whiteouts = std::mem::take(&mut self.whiteouts);
        whiteouts.sort_unstable_by_key(|path| std::cmp::Reverse(path.iter().filter(|b| **b == b'/').count()));
        for path in whiteouts {
            self.whiteout(&path).map_err(|source| failure(&path, source))?;
        }
        for path in std::mem::take(&mut self.opaques) {
            self.opaque(&path).map_err(|source| failure(&path, source))?;
        }
        // Children before their parents: a parent may forbid its owner to go through it.
        while let Some((path, late)) = self.directories.pop_last() {
            self.settle(&path, late).map_err(|source| failure(&path, source))?;
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8]) -> io::Result<()> {
        let parts = components(path)?;
        let Some((name, parent)) = parts.split_last() else { return Ok(()) };
        let at = self.rooted.directory(parent, Links::Refused)?;
        match rustix::fs::mknodat(at, *name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => self.adopt_implicit(),
            Err(Errno::EXIST) => {
                // The layer holds something there itself, which hides what lies below: for a directory that must be said.
                let there = rustix::fs::statat(at, *name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(there.st_mode) == FileType::Directory { self.opaque(path) } else { Ok(()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn opaque(&mut self, path: &[u8]) -> io::Result<()> {
        let parts = components(path)?;
        let at = self.rooted.directory(&parts, Links::Refused)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(at, ".", flags, Mode::empty())?;
        rustix::fs::fsetxattr(&directory, xattr::OPAQUE, b"y", XattrFlags::empty())?;
        self.adopt_implicit()
    }

    fn settle(&mut self, path: &[u8], late: Late) -> io::Result<()> {
        let parts = components(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match parts.split_last() {
            Some((name, parent)) => match self.rooted.directory(parent, Links::Inside) {
                Ok(at) => rustix::fs::openat(at, *name, flags, Mode::empty()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(()),
                Err(error) => return Err(error),
            },
            None => rustix::fs::openat(self.rooted.root(), ".", flags, Mode::empty()),
        };
        match opened {
            Ok(directory) => {
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(late.mode))?;
                Ok(rustix::fs::futimens(&directory, &times(late.mtime))?)
            }
            // A later entry put something else in its place.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn failure(path: &[u8], source: io::Error) -> LayerError {
    let path = shown(path);
    if source.kind() == io::ErrorKind::InvalidData {
        LayerError::Refused { path, reason: source.to_string() }
    } else {
        LayerError::Write { path, source }
    }
}

fn chown(at: BorrowedFd<'_>, name: &[u8], ids: &IdMap, uid: u64, gid: u64) -> io::Result<()> {
    if let (Some(uid), Some(gid)) = (ids.outside(uid), ids.outside(gid)) {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn set_xattrs(file: impl AsFd, entry: &Entry) -> io::Result<()> {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| xattr::allowed(name)) {
        match rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
            // A filesystem that keeps no such attributes keeps the file all the same.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
