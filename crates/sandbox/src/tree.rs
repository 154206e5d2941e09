//! Directories that a sandbox worked in: given to it before, removed after.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::probe::id_map;

/// How many directories are open at once while a tree is removed; what lies deeper is moved up first.
const DEPTH: u32 = 64;

/// Lets the container user and group `inside` own the file or directory at `path` (not what is in it). Ids that do not
/// exist in this machine's tier become the one that does.
///
/// # Errors
/// What the system says.
pub fn give(path: &Path, inside: (u32, u32)) -> io::Result<()> {
    let map = id_map();
    let user = Uid::from_raw(map.user(inside.0).unwrap_or(map.outside));
    let group = Gid::from_raw(map.group(inside.1).unwrap_or(map.outside_group));
    Ok(rustix::fs::chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Removes what is at `path`, whatever a sandbox made of it: symbolic links are not followed, directories that their
/// owner made unreadable are opened, and depth does not matter. Nothing there is no error.
///
/// # Errors
/// What the system says of the first thing that could not be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no name to remove", path.display())));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::open(parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let name = std::ffi::CString::new(name.as_encoded_bytes())?;
    match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = open(&parent, &name)?;
    let mut moved = 0;
    // Each round removes all that was not moved to the top in it.
    while clear(&top, &top, 0, &mut moved)? {}
    Ok(rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR)?)
}

/// Opens a directory with all rights for its owner.
fn open(parent: impl AsFd, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(&parent, name, flags, Mode::empty())
        }
        other => other,
    }?;
    if rustix::fs::fstat(&opened)?.st_mode & 0o700 != 0o700 {
        rustix::fs::fchmod(&opened, Mode::RWXU)?;
    }
    Ok(opened)
}

/// Empties a directory; true if something was moved to `top` and is still there.
fn clear(dir: &OwnedFd, top: &OwnedFd, depth: u32, moved: &mut u64) -> rustix::io::Result<bool> {
    let mut left = false;
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) => continue,
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(error),
            }
        }
        if rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        if depth < DEPTH {
            left |= clear(&open(dir, name)?, top, depth + 1, moved)?;
            rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
            continue;
        }
        // A directory can be moved only by who may write to it.
        drop(open(dir, name)?);
        loop {
            *moved += 1;
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(dir, name, top, format!(".moved-{moved}"), flags) {
                Err(Errno::EXIST) => {}
                other => break other?,
            }
        }
        left = true;
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn removes_what_others_leave_behind() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::write(&kept, "x").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("closed/inner")).unwrap();
        std::fs::write(tree.join("closed/inner/file"), "x").unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        symlink(dir.path(), tree.join("up")).unwrap();
        std::fs::set_permissions(tree.join("closed/inner"), std::fs::Permissions::from_mode(0o000)).unwrap();
        std::fs::set_permissions(tree.join("closed"), std::fs::Permissions::from_mode(0o500)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn removes_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut at = rustix::fs::open(&tree, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..400 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
