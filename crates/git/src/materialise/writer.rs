//! The blocking half: takes blobs from git's pipe and writes them below a directory handle.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use model::Timestamp;
use rustix::fs::{AtFlags, Gid, Mode as Permissions, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tokio::sync::mpsc::Receiver;

use super::{Summary, Wanted};
use crate::{GitError, Mode, path};

/// How deep directories may lie in each other: each level keeps a handle open.
const DEEPEST: usize = 200;

/// How much all files together may have, in bytes. One blob can be in a tree any number of times.
const MOST_BYTES: u64 = 64 << 30;

/// The longest target of a symbolic link that Linux takes, in bytes.
const LONGEST_TARGET: u64 = 4095;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Writes the files of all lists that come, whose blobs come from `blobs` in the same order.
pub(super) fn write(
    dest: &Path,
    owner: Option<(u32, u32)>,
    mtime: Timestamp,
    blobs: PipeReader,
    mut lists: Receiver<Vec<Wanted>>,
) -> Result<Summary, GitError> {
    let mut writer = Writer::open(dest, owner, mtime)?;
    let mut blobs = BufReader::with_capacity(256 << 10, blobs);
    let mut header = String::new();
    while let Some(list) = lists.blocking_recv() {
        for wanted in list {
            let size = next_size(&mut blobs, &mut header).map_err(|error| GitError::run("read blobs", error))?;
            writer.summary.bytes = writer.summary.bytes.saturating_add(size);
            if writer.summary.bytes > MOST_BYTES {
                let what = "all files of the commit together".to_owned();
                return Err(GitError::TooLarge { what, limit: MOST_BYTES, unit: "bytes" });
            }
            writer.entry(&wanted, &mut (&mut blobs).take(size), size)?;
            blobs.read_exact(&mut [0]).map_err(|error| GitError::run("read blobs", error))?;
        }
    }
    writer.finish()
}

/// The length of the next blob, from the line before it: `8b137891… blob 1`.
fn next_size(blobs: &mut BufReader<PipeReader>, header: &mut String) -> io::Result<u64> {
    header.clear();
    if blobs.take(1024).read_line(header)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut fields = header.split_ascii_whitespace();
    match (fields.next(), fields.next(), fields.next().and_then(|size| size.parse().ok())) {
        (Some(_), Some("blob"), Some(size)) => Ok(size),
        _ => Err(io::Error::other(format!("git answered {header:?}"))),
    }
}

struct Writer {
    dest: PathBuf,
    root: OwnedFd,
    /// The open directories on the way to the last file: the length of each one's path, and its handle.
    open: Vec<(usize, OwnedFd)>,
    /// The path of the innermost of them.
    current: Vec<u8>,
    owner: Option<(Uid, Gid)>,
    times: Timestamps,
    /// Whether the umask takes away permissions that files should have.
    masked: bool,
    buffer: Vec<u8>,
    summary: Summary,
}

impl Writer {
    fn open(dest: &Path, owner: Option<(u32, u32)>, mtime: Timestamp) -> Result<Self, GitError> {
        let failed = |error: Errno| GitError::io(dest, error.into());
        let new = match rustix::fs::mkdir(dest, Permissions::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed(error)),
        };
        let root = rustix::fs::open(dest, DIRECTORY, Permissions::empty()).map_err(failed)?;
        let time = Timespec { tv_sec: mtime.seconds(), tv_nsec: mtime.0.rem_euclid(1000) * 1_000_000 };
        let writer = Self {
            dest: dest.to_owned(),
            root,
            open: Vec::new(),
            current: Vec::new(),
            owner: owner.map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group))),
            times: Timestamps { last_access: time, last_modification: time },
            masked: umask_takes(0o755),
            buffer: Vec::new(),
            summary: Summary::default(),
        };
        writer.give_away(new, &[])?;
        Ok(writer)
    }

    /// Closes all directories, the destination last.
    fn finish(mut self) -> Result<Summary, GitError> {
        self.leave(0)?;
        rustix::fs::futimens(&self.root, &self.times).map_err(|error| GitError::io(&self.dest, error.into()))?;
        Ok(self.summary)
    }

    fn entry(&mut self, wanted: &Wanted, content: &mut impl Read, size: u64) -> Result<(), GitError> {
        let (parent, name) = match wanted.path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&wanted.path[..slash], &wanted.path[slash + 1..]),
            None => (&[][..], &wanted.path[..]),
        };
        self.enter(parent)?;
        if wanted.mode == Mode::Symlink {
            return self.symlink(wanted, name, content, size);
        }
        self.file(wanted, name, content, size)
    }

    fn file(&mut self, wanted: &Wanted, name: &[u8], content: &mut impl Read, size: u64) -> Result<(), GitError> {
        let mode = if wanted.mode == Mode::Executable { 0o755 } else { 0o644 };
        let permissions = Permissions::from_raw_mode(mode);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file =
            self.replacing(wanted, name, |dir| rustix::fs::openat(dir, name, flags, permissions).map(File::from))?;
        let failed = |error| GitError::io(&self.dest.join(path::text(&wanted.path)), error);
        self.buffer.resize(256 << 10, 0);
        let mut left = size;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            content.read_exact(&mut self.buffer[..most]).map_err(|error| GitError::run("read blobs", error))?;
            file.write_all(&self.buffer[..most]).map_err(failed)?;
            left -= most as u64;
        }
        if let Some((user, group)) = self.owner {
            rustix::fs::fchown(&file, Some(user), Some(group)).map_err(|error| failed(error.into()))?;
        }
        if self.masked {
            rustix::fs::fchmod(&file, permissions).map_err(|error| failed(error.into()))?;
        }
        rustix::fs::futimens(&file, &self.times).map_err(|error| failed(error.into()))?;
        self.summary.files += 1;
        Ok(())
    }

    fn symlink(&mut self, wanted: &Wanted, name: &[u8], content: &mut impl Read, size: u64) -> Result<(), GitError> {
        let refuse = |why| Err(GitError::BadPath { path: path::clip(&path::text(&wanted.path)), why });
        if size == 0 || size > LONGEST_TARGET {
            return refuse("it is a symbolic link to a name that is empty or longer than 4095 bytes");
        }
        let mut target = Vec::new();
        content.read_to_end(&mut target).map_err(|error| GitError::run("read blobs", error))?;
        if target.len() as u64 != size {
            return Err(GitError::run("read blobs", io::ErrorKind::UnexpectedEof.into()));
        }
        if target.contains(&0) {
            return refuse("it is a symbolic link to a name with a NUL byte");
        }
        self.replacing(wanted, name, |dir| rustix::fs::symlinkat(&target[..], dir, name))?;
        let failed = |error: Errno| GitError::io(&self.dest.join(path::text(&wanted.path)), error.into());
        let dir = self.innermost();
        if let Some((user, group)) = self.owner {
            rustix::fs::chownat(dir, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        rustix::fs::utimensat(dir, name, &self.times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        self.summary.symlinks += 1;
        Ok(())
    }

    /// Makes a new entry in the innermost directory, after removing a file or link that has its name.
    fn replacing<T>(
        &self,
        wanted: &Wanted,
        name: &[u8],
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, GitError> {
        let dir = self.innermost();
        let made = match make(dir) {
            Err(Errno::EXIST) => rustix::fs::unlinkat(dir, name, AtFlags::empty()).and_then(|()| make(dir)),
            other => other,
        };
        made.map_err(|error| GitError::io(&self.dest.join(path::text(&wanted.path)), error.into()))
    }

    fn innermost(&self) -> &OwnedFd {
        self.open.last().map_or(&self.root, |(_, dir)| dir)
    }

    /// Makes `parent` the innermost open directory. Git lists a directory in one piece, so what is left is complete.
    fn enter(&mut self, parent: &[u8]) -> Result<(), GitError> {
        if self.current == parent {
            return Ok(());
        }
        let shared = self.open.iter().rposition(|(end, _)| {
            parent.get(..*end) == Some(&self.current[..*end]) && matches!(parent.get(*end), None | Some(b'/'))
        });
        self.leave(shared.map_or(0, |index| index + 1))?;
        let mut start = self.open.last().map_or(0, |(end, _)| end + 1);
        while start < parent.len() {
            let end = parent[start..].iter().position(|b| *b == b'/').map_or(parent.len(), |slash| start + slash);
            if self.open.len() == DEEPEST {
                let path = path::clip(&path::text(parent));
                return Err(GitError::BadPath { path, why: "it is more than 200 directories deep" });
            }
            self.descend(&parent[start..end], &parent[..end])?;
            start = end + 1;
        }
        Ok(())
    }

    /// Closes the open directories from the one with this index on.
    fn leave(&mut self, index: usize) -> Result<(), GitError> {
        while self.open.len() > index {
            if let Some((_, dir)) = self.open.pop() {
                let failed = |error: Errno| GitError::io(&self.dest.join(path::text(&self.current)), error.into());
                rustix::fs::futimens(&dir, &self.times).map_err(failed)?;
            }
            let end = self.open.last().map_or(0, |(end, _)| *end);
            self.current.truncate(end);
        }
        Ok(())
    }

    /// Makes the directory `name` in the innermost one, or takes the one that is there, and opens it.
    fn descend(&mut self, name: &[u8], whole: &[u8]) -> Result<(), GitError> {
        let failed = |error: Errno| GitError::io(&self.dest.join(path::text(whole)), error.into());
        let parent = self.innermost();
        let new = match rustix::fs::mkdirat(parent, name, Permissions::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed(error)),
        };
        let dir = rustix::fs::openat(parent, name, DIRECTORY, Permissions::empty()).map_err(failed)?;
        self.open.push((whole.len(), dir));
        self.current = whole.to_vec();
        self.summary.directories += u64::from(new);
        self.give_away(new, whole)
    }

    /// Gives the innermost directory its owner and, if it is new, its permissions.
    fn give_away(&self, new: bool, whole: &[u8]) -> Result<(), GitError> {
        let failed = |error: Errno| GitError::io(&self.dest.join(path::text(whole)), error.into());
        let dir = self.innermost();
        if let Some((user, group)) = self.owner {
            rustix::fs::fchown(dir, Some(user), Some(group)).map_err(failed)?;
        }
        if new && self.masked {
            rustix::fs::fchmod(dir, Permissions::from_raw_mode(0o755)).map_err(failed)?;
        }
        Ok(())
    }
}

/// Whether this process's umask takes any of `bits` away; yes if that cannot be known.
fn umask_takes(bits: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok());
    mask.is_none_or(|mask| mask & bits != 0)
}
