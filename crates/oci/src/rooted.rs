//! Walking below a directory without ever leaving it, whatever links lie there; and removing what lies there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The most directories between a root and a file in it. Each costs an open descriptor while it is walked.
pub(crate) const MAX_DEPTH: usize = 256;

/// The most symbolic links that are followed on one path, as the kernel has it.
const MAX_LINKS: usize = 40;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory below which things are made.
pub(crate) struct Rooted {
    root: OwnedFd,
    /// The directories on the way to the one asked for last: entries of an archive mostly share their parents.
    walked: Vec<(Vec<u8>, OwnedFd)>,
    /// The end of the last walk, if it went through a symbolic link.
    detour: Option<OwnedFd>,
    /// Directories that were made on the way because nothing had made them before.
    implicit: Vec<Vec<u8>>,
}

/// Whether symbolic links on the way are followed, inside the root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// As a program with this root directory would follow them: `/` and `..` stay inside.
    Inside,
    /// A link on the way is an error.
    Refused,
}

impl Rooted {
    pub fn new(directory: &Path) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, directory, LISTED, Mode::empty())?;
        Ok(Self { root, walked: Vec::new(), detour: None, implicit: Vec::new() })
    }

    /// The root itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory at `path`, made if it is missing (with mode 0755, and remembered).
    pub fn directory(&mut self, path: &[&[u8]], links: Links) -> io::Result<BorrowedFd<'_>> {
        if path.len() > MAX_DEPTH {
            return Err(refused("it lies deeper than 256 directories"));
        }
        let shared = self.walked.iter().zip(path).take_while(|((name, _), wanted)| name.as_slice() == **wanted).count();
        self.walked.truncate(shared);
        for depth in shared..path.len() {
            let here = self.walked.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            match step(here, path[depth])? {
                Step::Into { directory, made } => {
                    if made {
                        self.implicit.push(path[..=depth].join(&b'/'));
                    }
                    self.walked.push((path[depth].to_vec(), directory));
                }
                Step::Link if links == Links::Inside => {
                    let end = self.follow(path)?;
                    let end: &OwnedFd = self.detour.insert(end);
                    return Ok(end.as_fd());
                }
                Step::Link => return Err(refused("the way to it leads through a symbolic link")),
            }
        }
        Ok(self.walked.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }

    /// Walks a path with symbolic links in it, one component at a time.
    fn follow(&self, path: &[&[u8]]) -> io::Result<OwnedFd> {
        let mut ahead: Vec<Vec<u8>> = path.iter().rev().map(|part| part.to_vec()).collect();
        let mut way: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    way.pop();
                    continue;
                }
                _ => {}
            }
            let here = way.last().map_or(self.root.as_fd(), AsFd::as_fd);
            match step(here, &part)? {
                Step::Into { directory, .. } => way.push(directory),
                Step::Link => {
                    links += 1;
                    let target = rustix::fs::readlinkat(here, part.as_slice(), Vec::new())?.into_bytes();
                    if links > MAX_LINKS {
                        return Err(refused("the way to it leads through too many symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        way.clear();
                    }
                    ahead.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
            }
            if way.len() > MAX_DEPTH {
                return Err(refused("it lies deeper than 256 directories"));
            }
        }
        match way.pop() {
            Some(end) => Ok(end),
            None => Ok(rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?),
        }
    }

    /// Removes what is called `name` in `path`, a whole tree if it is one. Nothing there is no error.
    pub fn remove(&mut self, path: &[&[u8]], name: &[u8], links: Links) -> io::Result<()> {
        let removed = remove_at(self.directory(path, links)?, name);
        // Directories of the last walk may be gone now.
        self.walked.clear();
        removed
    }

    /// The directories made on the way since the last call.
    pub fn take_implicit(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.implicit)
    }
}

enum Step {
    Into { directory: OwnedFd, made: bool },
    Link,
}

/// Goes from `here` into `name`, which is made if it is missing.
fn step(here: BorrowedFd<'_>, name: &[u8]) -> io::Result<Step> {
    match rustix::fs::openat(here, name, DIRECTORY, Mode::empty()) {
        Ok(directory) => Ok(Step::Into { directory, made: false }),
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(here, name, Mode::from_raw_mode(0o755))?;
            let directory = rustix::fs::openat(here, name, DIRECTORY, Mode::empty())?;
            Ok(Step::Into { directory, made: true })
        }
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let stat = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => Ok(Step::Link),
                _ => Err(refused("the way to it leads through something that is no directory")),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Why an archive is refused; told apart from what the system says by its kind.
pub(crate) fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Opens a directory so that it can be listed; as its owner also where its mode forbids that.
pub(crate) fn open_listed(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(parent, name, LISTED, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // `name` is a directory, no link: its mode may be changed by name.
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Err(Errno::NOTDIR);
            }
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(parent, name, LISTED, Mode::empty())
        }
        other => other,
    }
}

/// The names in a directory.
pub(crate) fn names(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push(name.to_vec());
        }
    }
    Ok(found)
}

/// Levels of a tree that are removed by recursion; deeper ones are moved up first, so that no depth runs out of
/// descriptors or stack.
const LEVELS: usize = 64;

/// Removes `name` in `parent`, a whole tree if it is one, without following links. Nothing there is no error.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = open_listed(parent, name)?;
    let mut moved = 0;
    while !names(top.as_fd())?.is_empty() {
        empty(top.as_fd(), top.as_fd(), LEVELS, &mut moved)?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

fn empty(top: BorrowedFd<'_>, directory: BorrowedFd<'_>, levels: usize, moved: &mut u64) -> io::Result<()> {
    // A directory without write permission for its owner keeps its names.
    let mode = Mode::from_raw_mode(rustix::fs::fstat(directory)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        rustix::fs::fchmod(directory, Mode::RWXU)?;
    }
    for name in names(directory)? {
        match rustix::fs::unlinkat(directory, name.as_slice(), AtFlags::empty()) {
            Ok(()) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        if levels == 0 {
            *moved += 1;
            let aside = format!(".removed-{}-{moved}", std::process::id());
            rustix::fs::renameat(directory, name.as_slice(), top, aside)?;
            continue;
        }
        let below = open_listed(directory, &name)?;
        empty(top, below.as_fd(), levels - 1, moved)?;
        rustix::fs::unlinkat(directory, name.as_slice(), AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_are_followed_inside_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        symlink("/usr/lib", root.join("lib")).unwrap();
        symlink("../../../outside", root.join("up")).unwrap();
        symlink("round", root.join("round")).unwrap();
        let mut rooted = Rooted::new(&root).unwrap();
        rooted.directory(&[b"lib", b"new"], Links::Inside).unwrap();
        assert!(root.join("usr/lib/new").is_dir());
        rooted.directory(&[b"up", b"new"], Links::Inside).unwrap();
        assert!(root.join("outside/new").is_dir());
        assert!(!dir.path().join("outside/new").exists());
        assert!(rooted.directory(&[b"round", b"x"], Links::Inside).is_err());
        assert!(rooted.directory(&[b"lib", b"x"], Links::Refused).is_err());
    }

    #[test]
    fn removes_deep_and_locked_trees_but_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        let tree = dir.path().join("tree");
        let deep: String = "d/".repeat(400);
        fs::create_dir_all(tree.join(deep)).unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        fs::create_dir(tree.join("locked")).unwrap();
        fs::write(tree.join("locked/file"), "x").unwrap();
        fs::set_permissions(tree.join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
        let parent = fs::File::open(dir.path()).unwrap();
        remove_at(parent.as_fd(), b"tree").unwrap();
        assert!(!tree.exists() && kept.join("file").exists());
        remove_at(parent.as_fd(), b"tree").unwrap();
    }
}
