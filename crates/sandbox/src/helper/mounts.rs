//! Mounts as open files, and places inside a root that cannot lead out of it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::{Gid, Uid};

use super::system;
use crate::wire::{Failure, failed};

/// What every mount of ours has: no set-uid programs, no devices.
pub(crate) const SAFE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Whether a place is to be a file or a directory if it has to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
}

/// A root under construction, and the ids that what is made in it belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub root: BorrowedFd<'a>,
    pub owner: (u32, u32),
}

impl Place<'_> {
    /// Opens what is at `path`, taking symbolic links as a process in this root would.
    pub(crate) fn open(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The kernel asks for another try when something was renamed on the way.
        for _ in 0..16 {
            match rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens what is at `path`, making it and the directories that lead to it if they are missing.
    pub(crate) fn make(&self, path: &str, kind: Kind) -> Result<OwnedFd, Failure> {
        let what = || format!("make {path} in the sandbox");
        let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.contains(&"..") {
            return Err(failed(what())(Errno::INVAL));
        }
        let mut current = self.open("/").map_err(failed(what()))?;
        for (index, part) in parts.iter().enumerate() {
            let kind = if index + 1 == parts.len() { kind } else { Kind::Directory };
            let so_far = parts[..=index].join("/");
            current = match self.open(&so_far) {
                Err(Errno::NOENT) => {
                    self.create(&current, part, kind).map_err(failed(what()))?;
                    self.open(&so_far)
                }
                other => other,
            }
            .map_err(failed(what()))?;
        }
        Ok(current)
    }

    fn create(&self, parent: &OwnedFd, name: &str, kind: Kind) -> rustix::io::Result<()> {
        match kind {
            Kind::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?,
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644))?;
            }
        }
        self.give(parent, name)
    }

    /// Lets the sandbox's root own a name.
    pub(crate) fn give(&self, parent: impl AsFd, name: &str) -> rustix::io::Result<()> {
        let (user, group) = self.owner;
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        rustix::fs::chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Attaches a mount.
    pub(crate) fn attach(&self, mount: &OwnedFd, path: &str, kind: Kind) -> Result<(), Failure> {
        let target = self.make(path, kind)?;
        attach_at(mount, &target).map_err(failed(format!("mount on {path} in the sandbox")))
    }
}

/// Attaches a mount to an open place.
pub(crate) fn attach_at(mount: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, c"", target, c"", flags)
}

/// A copy of what the machine shows at `path`, not attached anywhere; symbolic links at its end are refused.
pub(crate) fn copy_of(path: &Path, attributes: MountAttrFlags) -> Result<(OwnedFd, Kind), Failure> {
    let what = || format!("open {} for the sandbox", path.display());
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(what()))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => return Err(failed(what())(Errno::LOOP)),
        _ => Kind::File,
    };
    let mount = copy_from(CWD, path).map_err(failed(what()))?;
    system::set_mount(&mount, attributes, true).map_err(failed(what()))?;
    Ok((mount, kind))
}

/// A copy of the tree at `path` seen from `dir`, with everything mounted in it.
pub(crate) fn copy_from(dir: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = flags | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(dir, path, flags)
}

/// A new file system, not attached anywhere.
pub(crate) fn new(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            match *value {
                "" => rustix::mount::fsconfig_set_flag(&context, *key)?,
                value => rustix::mount::fsconfig_set_string(&context, *key, value)?,
            }
        }
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().map_err(failed(format!("make a {kind} file system")))
}

/// A new directory in memory that belongs to the sandbox's root.
pub(crate) fn tmpfs(owner: (u32, u32), mode: &str, bytes: u64, attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let (user, group, size) = (owner.0.to_string(), owner.1.to_string(), bytes.to_string());
    // One inode for 4 KiB, as many as a disk would have.
    let inodes = (bytes / 4096).max(64).to_string();
    let options = [("uid", user.as_str()), ("gid", &group), ("mode", mode), ("size", &size), ("nr_inodes", &inodes)];
    new("tmpfs", &options, attributes)
}

/// A symbolic link, if nothing is there.
pub(crate) fn link(dir: impl AsFd, name: &str, target: &str) -> rustix::io::Result<()> {
    let target = CString::new(target).map_err(|_| Errno::INVAL)?;
    match rustix::fs::symlinkat(target, dir, name) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}
