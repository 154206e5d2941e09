//! Files in directories that a job may write to. No symbolic link there is followed, and no path leads out.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

/// A user and group of the machine.
pub type Owner = (u32, u32);

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A directory that a job may write to, held open.
#[derive(Debug)]
pub struct Inside {
    fd: OwnedFd,
}

impl Inside {
    /// Opens `path`, a directory of our own that is no symbolic link.
    ///
    /// # Errors
    /// When it is not there or not a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// A path by which this process reaches the directory, whatever is moved or linked meanwhile. Valid while `self` is.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// The first `limit` bytes of the regular file `relative` and whether there are more; nothing if it is not there.
    ///
    /// # Errors
    /// When a part of the path is a symbolic link, or the file is not a regular one or cannot be read.
    pub fn read(&self, relative: &str, limit: u64) -> io::Result<Option<(Vec<u8>, bool)>> {
        let Some(file) = self.open_file(relative)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = bytes.len() > limit;
        bytes.truncate(limit);
        Ok(Some((bytes, more)))
    }

    /// The regular file `relative`, open for reading; nothing if it is not there.
    ///
    /// # Errors
    /// As [`Inside::read`].
    pub fn open_file(&self, relative: &str) -> io::Result<Option<File>> {
        // NONBLOCK: a named pipe must not hold us up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::openat2(&self.fd, relative, flags, Mode::empty(), BENEATH) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(Errno::LOOP) => return Err(io::Error::other(format!("{relative:?} is a symbolic link"))),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!("{relative:?} is not a regular file")));
        }
        Ok(Some(file))
    }

    /// The directory `relative`, made with all its parents if it is not there. What is made belongs to `owner`.
    ///
    /// # Errors
    /// When a part is a symbolic link, leads out, or cannot be made.
    pub fn make_dir(&self, relative: &str, owner: Option<Owner>) -> io::Result<Self> {
        let mut here = Self { fd: self.fd.try_clone()? };
        for part in relative.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(io::Error::other(format!("{relative:?} leads out with \"..\"")));
            }
            match rustix::fs::mkdirat(&here.fd, part, Mode::from_raw_mode(0o755)) {
                Ok(()) => here.give(part, owner)?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd =
                rustix::fs::openat2(&here.fd, part, flags, Mode::empty(), BENEATH).map_err(|error| match error {
                    Errno::LOOP => io::Error::other(format!("{part:?} in {relative:?} is a symbolic link")),
                    Errno::NOTDIR => io::Error::other(format!("{part:?} in {relative:?} is not a directory")),
                    error => error.into(),
                })?;
            here = Self { fd };
        }
        Ok(here)
    }

    /// The directory `name` in this one.
    ///
    /// # Errors
    /// When it is not there, not a directory, or a symbolic link.
    pub fn dir(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), BENEATH)? })
    }

    /// What `name` in this directory is; of a symbolic link, that it is one.
    ///
    /// # Errors
    /// When it is not there.
    pub fn kind(&self, name: &str) -> io::Result<FileType> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// Writes the new file `name`, which belongs to `owner`.
    ///
    /// # Errors
    /// When there is something of this name, or it cannot be written.
    pub fn write_new(&self, name: &str, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode))?);
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        // The process's umask must not decide what the job can read.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        file.write_all(bytes)
    }

    fn give(&self, name: &str, owner: Option<Owner>) -> io::Result<()> {
        rustix::fs::chmodat(&self.fd, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&self.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// The names in the directory, sorted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> io::Result<Vec<std::ffi::OsString>> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(std::ffi::OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Removes everything in the directory. Nothing may be running that writes there.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        for name in self.names()? {
            sandbox::remove_tree(&self.path().join(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn reads_regular_files_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        let inside = Inside::open(&dir.path().join("in")).unwrap();
        inside.write_new("file", b"12345", 0o644, None).unwrap();
        symlink("../secret", dir.path().join("in/link")).unwrap();
        symlink("..", dir.path().join("in/up")).unwrap();
        rustix::fs::mkfifoat(&inside.fd, "pipe", Mode::from_raw_mode(0o644)).unwrap();
        assert_eq!(inside.read("file", 10).unwrap(), Some((b"12345".to_vec(), false)));
        assert_eq!(inside.read("file", 3).unwrap(), Some((b"123".to_vec(), true)));
        assert_eq!(inside.read("absent", 3).unwrap(), None);
        for bad in ["link", "pipe", "up/secret", "../secret", "."] {
            assert!(inside.read(bad, 10).is_err(), "{bad}");
        }
        assert!(inside.write_new("link", b"x", 0o644, None).is_err());
        assert_eq!(std::fs::read_to_string(dir.path().join("secret")).unwrap(), "outside");
    }

    #[test]
    fn makes_directories_below_itself_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        let inside = Inside::open(&dir.path().join("in")).unwrap();
        inside.make_dir("a/b", None).unwrap().write_new("c", b"", 0o600, None).unwrap();
        assert!(dir.path().join("in/a/b/c").is_file());
        symlink("/tmp", dir.path().join("in/link")).unwrap();
        for bad in ["../out", "link/x", "a/b/c"] {
            assert!(inside.make_dir(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn removes_what_a_job_locked() {
        let dir = tempfile::tempdir().unwrap();
        let locked = dir.path().join("in/locked");
        std::fs::create_dir_all(locked.join("deeper")).unwrap();
        symlink("/", locked.join("root")).unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
        let inside = Inside::open(&dir.path().join("in")).unwrap();
        inside.clear().unwrap();
        assert!(inside.names().unwrap().is_empty());
    }
}
