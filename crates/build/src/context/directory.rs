//! A directory as context. Whoever may write in it may be a stranger, and may be writing now: nothing is opened through
//! a link.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::BuildError;
use crate::files::{Kind, Node, join};
use crate::ignore::IgnoreRules;

/// How deep directories may lie in each other. Each level costs an open descriptor while it is walked.
const DEEPEST: usize = 256;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Reads below a directory.
pub(super) struct DirectoryReader {
    root: OwnedFd,
    path: PathBuf,
}

impl DirectoryReader {
    pub fn open(path: &Path) -> Result<Self, BuildError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| {
            BuildError::io(format!("cannot open the build context {}", path.display()))(error.into())
        })?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Everything that is not ignored. What an ignored directory may still hold is looked for.
    pub fn walk(&self, rules: &IgnoreRules, most: usize) -> Result<BTreeMap<String, Node>, BuildError> {
        let mut found = BTreeMap::new();
        let mut walk = Walk { rules, most, found: &mut found };
        walk.directory(self.root.as_fd(), "", 0).map_err(|(path, error)| {
            BuildError::io(format!("cannot read {} of the build context {}", path, self.path.display()))(error)
        })?;
        Ok(found)
    }

    /// Opens a regular file.
    pub fn file(&self, path: &str) -> io::Result<File> {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut here: Option<OwnedFd> = None;
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            let at = here.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            here = Some(rustix::fs::openat(at, part, DIRECTORY, Mode::empty())?);
        }
        let at = here.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(at, name, flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not a regular file"))),
        }
    }

    /// The content of a small file; nothing if there is none.
    pub fn read_text(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, BuildError> {
        let failed = |error| BuildError::io(format!("cannot read {path} of the build context"))(error);
        let file = match self.file(path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > limit {
            let message = format!("it has more than {limit} bytes");
            return Err(BuildError::Unusable { path: path.to_owned(), message });
        }
        Ok(Some(bytes))
    }
}

struct Walk<'a> {
    rules: &'a IgnoreRules,
    most: usize,
    found: &'a mut BTreeMap<String, Node>,
}

type Walked = Result<(), (String, io::Error)>;

impl Walk<'_> {
    fn directory(&mut self, directory: BorrowedFd<'_>, at: &str, depth: usize) -> Walked {
        let failed = |error: Errno| (format!("/{at}"), io::Error::from(error));
        if depth > DEEPEST {
            return Err((at.to_owned(), io::Error::other(format!("it lies deeper than {DEEPEST} directories"))));
        }
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let Ok(name) = std::str::from_utf8(name) else {
                let shown = join(at, &String::from_utf8_lossy(name));
                return Err((shown, io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8")));
            };
            self.entry(directory, name, &join(at, name), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, directory: BorrowedFd<'_>, name: &str, path: &str, depth: usize) -> Walked {
        let failed = |error: Errno| (path.to_owned(), io::Error::from(error));
        let ignored = self.rules.ignores(path);
        if ignored && self.rules.prunes(path) {
            return Ok(());
        }
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File(u64::try_from(stat.st_size).unwrap_or(0)),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new()).map_err(failed)?;
                let target = target.into_string();
                let unreadable = io::Error::new(io::ErrorKind::InvalidData, "the target of the link is not UTF-8");
                Kind::Symlink(target.map_err(|_| (path.to_owned(), unreadable))?)
            }
            // A socket is an address, not a file.
            FileType::Socket => return Ok(()),
            _ => Kind::Other,
        };
        let enter = kind == Kind::Directory;
        if !ignored {
            // Owners and times of a checkout say who checked it out, and when: they do not come along.
            let node = Node { kind, mode: stat.st_mode & 0o7777, ..Node::directory(0) };
            self.found.insert(path.to_owned(), node);
            if self.found.len() > self.most {
                return Err((path.to_owned(), io::Error::other(format!("there are more than {} files", self.most))));
            }
        }
        if enter {
            let below = rustix::fs::openat(directory, name, DIRECTORY, Mode::empty()).map_err(failed)?;
            self.directory(below.as_fd(), path, depth + 1)?;
        }
        Ok(())
    }
}
