//! The machine's own tools as a root: read-only, and nothing that belongs to anybody.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountFlags};

use super::mounts::{self, Kind, Place, SAFE};
use super::rootfs::network_files;
use crate::spec::Spec;
use crate::wire::{Failure, failed};

/// The directories in which a system keeps its programs.
const TOOLS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs read below `/etc` that says nothing about this machine's users and services.
const ETC: [&str; 32] = [
    "alternatives",
    "alpine-release",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "ethertypes",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "login.defs",
    "lsb-release",
    "magic",
    "magic.mime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "profile",
    "protocols",
    "redhat-release",
    "rpc",
    "services",
    "terminfo",
    "timezone",
    "maven",
];

/// The same, where only a part of a directory may be seen.
const ETC_PARTS: [&str; 6] =
    ["ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "pki/tls/certs", "pki/ca-trust", "pki/tls/cert.pem"];

/// Names that begin like this are settings of language tool chains.
const ETC_PREFIXES: [&str; 4] = ["java", "python", "perl", "ld-musl-"];

/// The size of the private `/tmp`, `/var/tmp` and `/run` together with their directories, in bytes each.
const TMP: u64 = 1 << 30;

/// A part of the machine that will be shown.
enum Part {
    Tree(OwnedFd, Kind),
    Link(String),
}

/// All parts, with their paths.
pub(crate) struct View {
    parts: Vec<(String, Part)>,
    users: String,
    groups: String,
}

/// Opens what will be shown.
pub(crate) fn open(also: &[PathBuf]) -> Result<View, Failure> {
    let mut view = View { parts: Vec::new(), users: read("/etc/passwd"), groups: read("/etc/group") };
    for name in TOOLS {
        view.add(&format!("/{name}"))?;
    }
    for name in ETC.iter().chain(&ETC_PARTS) {
        view.add(&format!("/etc/{name}"))?;
    }
    for entry in fs::read_dir("/etc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|name| ETC_PREFIXES.iter().any(|prefix| name.starts_with(prefix))) {
            view.add(&format!("/etc/{name}"))?;
        }
    }
    for path in also {
        let text = path.to_string_lossy().into_owned();
        let (tree, kind) = mounts::copy_of(path, SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        view.parts.push((text, Part::Tree(tree, kind)));
    }
    Ok(view)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

impl View {
    /// Adds a part, if the machine has it.
    fn add(&mut self, path: &str) -> Result<(), Failure> {
        let part = match fs::symlink_metadata(path) {
            Err(_) => return Ok(()),
            Ok(found) if found.is_symlink() => match fs::read_link(path) {
                Ok(target) => Part::Link(target.to_string_lossy().into_owned()),
                Err(_) => return Ok(()),
            },
            Ok(_) => {
                let (tree, kind) = mounts::copy_of(Path::new(path), SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
                Part::Tree(tree, kind)
            }
        };
        self.parts.push((path.to_owned(), part));
        Ok(())
    }
}

/// Makes a root with the parts in it, on the directory `dir`.
pub(crate) fn make(view: &View, dir: &Path, owner: (u32, u32)) -> Result<OwnedFd, Failure> {
    rustix::mount::mount(c"towpath", dir, c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755,size=16m")
        .map_err(failed("mount memory for the root"))?;
    let root = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the root"))?;
    let place = Place { root: root.as_fd(), owner };
    // First, because a part may lie below one of them.
    for dir in ["/tmp", "/var/tmp", "/run"] {
        let memory = mounts::tmpfs(owner, if dir == "/run" { "755" } else { "1777" }, TMP, SAFE)?;
        place.attach(&memory, dir, Kind::Directory)?;
    }
    for (path, part) in &view.parts {
        match part {
            Part::Tree(tree, kind) => place.attach(tree, path, *kind)?,
            Part::Link(target) => {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                let parent = place.make(parent, Kind::Directory)?;
                mounts::link(&parent, name, target).map_err(failed(format!("make {path} in the sandbox")))?;
            }
        }
    }
    for dir in ["proc", "dev", "sys", "root", "home", "mnt", "opt"] {
        place.make(dir, Kind::Directory)?;
    }
    Ok(root)
}

/// Writes the files of `/etc` that are the sandbox's own: names of hosts, and of users with the one it runs as.
pub(crate) fn etc(view: &View, place: Place<'_>, spec: &Spec) -> Result<(), Failure> {
    let (user, group) = spec.user;
    let home = spec.env.iter().find(|(name, _)| name == "HOME").map_or("/tmp", |(_, home)| home.as_str());
    let mut users = view.users.clone();
    if !has_id(&users, user) {
        let _ = writeln!(users, "towpath:x:{user}:{group}::{home}:/bin/sh");
    }
    let mut groups = view.groups.clone();
    if !has_id(&groups, group) {
        let _ = writeln!(groups, "towpath:x:{group}:");
    }
    let dir = place.make("etc", Kind::Directory)?;
    for (name, text) in [("passwd", users), ("group", groups)].into_iter().chain(network_files(spec)) {
        write(&dir, name, &text).map_err(failed(format!("make /etc/{name} in the sandbox")))?;
    }
    Ok(())
}

/// Whether a line of `passwd` or `group` has this number in its third field.
fn has_id(text: &str, id: u32) -> bool {
    text.lines().any(|line| line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(id))
}

fn write(dir: &OwnedFd, name: &str, text: &str) -> std::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    std::io::Write::write_all(&mut fs::File::from(file), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_ids_in_the_third_field_only() {
        let text = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:1000::/:/bin/false\n";
        assert!(has_id(text, 0) && has_id(text, 65_534));
        assert!(!has_id(text, 1000) && !has_id("", 0));
    }
}
