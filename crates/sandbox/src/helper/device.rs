//! `/dev` and `/proc` of a sandbox.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mounts::{self, Kind, Place, SAFE};
use super::system;
use crate::wire::{Failure, failed};

/// The devices that every program may expect.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Files of `/proc` that tell about or act on the machine.
const MASKED_FILES: [&str; 8] =
    ["kcore", "keys", "timer_list", "sched_debug", "latency_stats", "kmsg", "kallsyms", "sysrq-trigger"];

/// Directories of `/proc` that do.
const MASKED_DIRECTORIES: [&str; 4] = ["acpi", "scsi", "asound", "driver"];

/// Parts of `/proc` that may be read only.
const FIXED: [&str; 4] = ["sys", "bus", "fs", "irq"];

/// The size of `/dev/shm` in bytes: what containers have.
const SHM: u64 = 64 << 20;

/// Opens the machine's device nodes. One that it lacks is left out, except `/dev/null`.
pub(crate) fn open_nodes() -> Result<Vec<(&'static str, OwnedFd)>, Failure> {
    let mut nodes = Vec::new();
    for name in NODES {
        match mounts::copy_from(rustix::fs::CWD, &Path::new("/dev").join(name)) {
            Ok(node) => nodes.push((name, node)),
            Err(Errno::NOENT) if name != "null" => {}
            Err(error) => return Err(failed(format!("open /dev/{name}"))(error)),
        }
    }
    Ok(nodes)
}

/// Makes `/dev`.
pub(crate) fn dev(place: Place<'_>, nodes: &[(&str, OwnedFd)]) -> Result<(), Failure> {
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let memory = mounts::tmpfs(place.owner, "755", 1 << 20, quiet)?;
    place.attach(&memory, "/dev", Kind::Directory)?;
    for (name, node) in nodes {
        place.attach(node, &format!("/dev/{name}"), Kind::File)?;
    }
    let terminals = mounts::new("devpts", &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")], quiet)?;
    place.attach(&terminals, "/dev/pts", Kind::Directory)?;
    let shared = mounts::tmpfs(place.owner, "1777", SHM, SAFE)?;
    place.attach(&shared, "/dev/shm", Kind::Directory)?;
    let dir = place.open("/dev").map_err(failed("open /dev in the sandbox"))?;
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        mounts::link(&dir, name, target).map_err(failed(format!("make /dev/{name} in the sandbox")))?;
    }
    system::set_mount(&memory, quiet | MountAttrFlags::MOUNT_ATTR_RDONLY, false).map_err(failed("make /dev read-only"))
}

/// Makes `/proc`, and covers what in it is the machine's. Nothing of the sandbox runs yet, so nothing can be swapped.
pub(crate) fn proc(place: Place<'_>) -> Result<(), Failure> {
    let proc = mounts::new("proc", &[], SAFE | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    place.attach(&proc, "/proc", Kind::Directory)?;
    let inside = Place { root: proc.as_fd(), owner: place.owner };
    allow_low_ports(&inside)?;
    for name in MASKED_FILES {
        let Some(target) = there(&inside, name)? else { continue };
        let cover = mounts::copy_from(rustix::fs::CWD, Path::new("/dev/null")).map_err(failed("open /dev/null"))?;
        mounts::attach_at(&cover, &target).map_err(failed(format!("cover /proc/{name}")))?;
    }
    for name in MASKED_DIRECTORIES {
        let Some(target) = there(&inside, name)? else { continue };
        let cover = mounts::tmpfs(place.owner, "0", 4096, SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        mounts::attach_at(&cover, &target).map_err(failed(format!("cover /proc/{name}")))?;
    }
    for name in FIXED {
        let Some(target) = there(&inside, name)? else { continue };
        let fix = || -> std::io::Result<()> {
            let copy = mounts::copy_from(&proc, Path::new(name))?;
            let quiet = SAFE | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
            system::set_mount(&copy, quiet, true)?;
            Ok(mounts::attach_at(&copy, &target)?)
        };
        fix().map_err(failed(format!("make /proc/{name} read-only")))?;
    }
    Ok(())
}

fn there(proc: &Place<'_>, name: &str) -> Result<Option<OwnedFd>, Failure> {
    match proc.open(name) {
        Ok(target) => Ok(Some(target)),
        Err(Errno::NOENT | Errno::ACCESS) => Ok(None),
        Err(error) => Err(failed(format!("open /proc/{name}"))(error)),
    }
}

/// Ports below 1024 of the sandbox's own network are nothing special in it.
fn allow_low_ports(proc: &Place<'_>) -> Result<(), Failure> {
    let path = "sys/net/ipv4/ip_unprivileged_port_start";
    let put = || -> std::io::Result<()> {
        let file = rustix::fs::openat(proc.root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        std::io::Write::write_all(&mut std::fs::File::from(file), b"0")
    };
    put().map_err(failed("allow ports below 1024 inside"))
}
