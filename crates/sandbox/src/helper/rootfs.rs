//! The sandbox's file system: built in a mount namespace of its own from the outside, then entered for good.

use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags};

use super::mounts::{self, Kind, Place, SAFE};
use super::{device, view};
use crate::probe::{BASE, RANGE};
use crate::spec::{Mount, MountSource, Network, Root, Spec};
use crate::wire::{Failure, Plan, PlanTier, failed};

/// Directories that exist nearly everywhere and that the build may cover in its own namespace.
const STAGES: [&str; 6] = ["/tmp", "/var/tmp", "/mnt", "/run", "/dev/shm", "/opt"];

/// Builds the root and makes it the root of this process. Nothing of the machine is reachable afterwards.
pub(crate) fn build(plan: &Plan) -> Result<(), Failure> {
    let owner = match plan.tier {
        PlanTier::Root => (BASE, BASE),
        PlanTier::SingleId { .. } => (0, 0),
    };
    let spec = &plan.spec;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).map_err(failed("detach from the machine's mounts"))?;
    // Everything of the machine is opened before the stage covers any of it.
    let sources = spec.mounts.iter().map(open_source).collect::<Result<Sources, _>>()?;
    let nodes = device::open_nodes()?;
    let base = match &spec.root {
        Root::Host { also } => Base::Host(view::open(also)?),
        Root::Layers { lower, upper, work } => Base::Layers(Layers::open(lower, upper, work, owner)?),
    };
    let stage = set_stage()?;
    let root = match base {
        Base::Host(view) => {
            let root = view::make(&view, &stage.dir.join("root"), owner)?;
            let place = Place { root: root.as_fd(), owner };
            view::etc(&view, place, spec)?;
            root
        }
        Base::Layers(layers) => layers.mount(&stage, spec, &sources, owner)?,
    };
    let place = Place { root: root.as_fd(), owner };
    for (mount, source) in spec.mounts.iter().zip(&sources) {
        attach(place, &stage, mount, source.as_ref(), plan)?;
    }
    if matches!(spec.root, Root::Layers { .. }) {
        for (name, text) in network_files(spec) {
            let file = stage_file(&stage, owner, name, text.as_bytes(), 0o644)?;
            place.attach(&file, &format!("/etc/{name}"), Kind::File)?;
        }
    }
    device::proc(place)?;
    device::dev(place, &nodes)?;
    if matches!(spec.root, Root::Host { .. }) {
        let fixed = SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY;
        super::system::set_mount(&root, fixed, false).map_err(failed("make the root read-only"))?;
    }
    enter(&root).map_err(failed("enter the new root"))
}

/// What is to be mounted, opened; nothing for what is made on the spot.
type Sources = Vec<Option<(OwnedFd, Kind)>>;

/// What the root is made of, opened.
enum Base {
    Host(view::View),
    Layers(Layers),
}

fn open_source(mount: &Mount) -> Result<Option<(OwnedFd, Kind)>, Failure> {
    match &mount.source {
        MountSource::Bind { path, read_only } => {
            let read_only = if *read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
            mounts::copy_of(path, SAFE | read_only).map(Some)
        }
        MountSource::Tmpfs { .. } | MountSource::Secret { .. } => Ok(None),
    }
}

/// A small file system in memory to build in; its own directories `root`, `skeleton` and `files`.
struct Stage {
    dir: PathBuf,
    files: OwnedFd,
}

fn set_stage() -> Result<Stage, Failure> {
    let dir = STAGES.iter().map(Path::new).find(|dir| dir.is_dir());
    let dir = dir.ok_or_else(|| failed("find a directory to build in (/tmp)")(rustix::io::Errno::NOENT))?;
    rustix::mount::mount(c"towpath", dir, c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755,size=16m")
        .map_err(failed(format!("mount memory on {}", dir.display())))?;
    for name in ["root", "skeleton", "files"] {
        rustix::fs::mkdir(dir.join(name), Mode::from_raw_mode(0o755)).map_err(failed("prepare the stage"))?;
    }
    let files = open_directory(&dir.join("files")).map_err(failed("prepare the stage"))?;
    Ok(Stage { dir: dir.to_owned(), files })
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// A file in memory, as a mount to attach.
fn stage_file(stage: &Stage, owner: (u32, u32), name: &str, content: &[u8], mode: u32) -> Result<OwnedFd, Failure> {
    let put = || -> std::io::Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&stage.files, name, flags, Mode::from_raw_mode(0o600))?;
        std::io::Write::write_all(&mut std::fs::File::from(file.try_clone()?), content)?;
        // The rights come last, so that nobody else can open it before.
        let place = Place { root: stage.files.as_fd(), owner };
        place.give(&stage.files, name)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
        let mount = mounts::copy_from(&stage.files, Path::new(name))?;
        super::system::set_mount(&mount, SAFE, false)?;
        Ok(mount)
    };
    put().map_err(failed(format!("make the file {name}")))
}

fn attach(
    place: Place<'_>,
    stage: &Stage,
    mount: &Mount,
    source: Option<&(OwnedFd, Kind)>,
    plan: &Plan,
) -> Result<(), Failure> {
    match (&mount.source, source) {
        (_, Some((tree, kind))) => place.attach(tree, &mount.target, *kind),
        (MountSource::Secret { content, mode, owner }, None) => {
            let owner = outside(plan, *owner);
            let name = format!("secret{}", mount.target.replace('/', "-"));
            let file = stage_file(stage, owner, &name, &content.0, *mode)?;
            place.attach(&file, &mount.target, Kind::File)
        }
        (MountSource::Tmpfs { bytes }, None) => {
            let memory = mounts::tmpfs(place.owner, "1777", *bytes, SAFE)?;
            place.attach(&memory, &mount.target, Kind::Directory)
        }
        (MountSource::Bind { .. }, None) => Ok(()),
    }
}

/// The ids that stand for those inside, as this process sees them now.
fn outside(plan: &Plan, (user, group): (u32, u32)) -> (u32, u32) {
    match plan.tier {
        PlanTier::Root => (BASE.saturating_add(user.min(RANGE - 1)), BASE.saturating_add(group.min(RANGE - 1))),
        PlanTier::SingleId { .. } => (0, 0),
    }
}

/// The files that name the machine and its neighbours.
pub(crate) fn network_files(spec: &Spec) -> [(&'static str, String); 3] {
    let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n");
    let _ = writeln!(hosts, "127.0.1.1\t{}", spec.hostname);
    let resolver = match spec.network {
        Network::User { .. } => format!("nameserver {}\n", super::network::USER_RESOLVER),
        _ => String::new(),
    };
    [("hosts", hosts), ("hostname", format!("{}\n", spec.hostname)), ("resolv.conf", resolver)]
}

/// Image layers, opened.
struct Layers {
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
}

impl Layers {
    fn open(lower: &[PathBuf], upper: &Path, work: &Path, owner: (u32, u32)) -> Result<Self, Failure> {
        let open = |path: &Path| open_directory(path).map_err(failed(format!("open layer {}", path.display())));
        let lower = lower.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        let upper_fd = open_or_make(upper)?;
        prepare_upper(&upper_fd, upper, lower.first(), owner)
            .map_err(failed(format!("prepare {}", upper.display())))?;
        // A directory of its own: the kernel refuses one that an interrupted use left behind.
        let work = work.join(format!("work-{}", std::process::id()));
        let made = std::fs::create_dir_all(&work);
        made.map_err(failed(format!("make {}", work.display())))?;
        let fresh = (0..1000).map(|n| work.join(n.to_string())).find_map(|dir| match std::fs::create_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
            Err(error) => Some(Err(error)),
            Ok(()) => Some(Ok(dir)),
        });
        let fresh = fresh.unwrap_or_else(|| Err(std::io::Error::from_raw_os_error(libc::EEXIST)));
        let fresh = fresh.map_err(failed(format!("make a directory in {}", work.display())))?;
        let work = open(&fresh)?;
        Ok(Self { lower, upper: upper_fd, work })
    }

    /// Mounts the overlay. Below the image lies a skeleton with the places that will be mounted over, so that making
    /// them leaves no trace in the upper directory.
    fn mount(self, stage: &Stage, spec: &Spec, sources: &Sources, owner: (u32, u32)) -> Result<OwnedFd, Failure> {
        let skeleton = open_directory(&stage.dir.join("skeleton")).map_err(failed("prepare the stage"))?;
        let place = Place { root: skeleton.as_fd(), owner };
        for dir in ["proc", "dev", "sys"] {
            place.make(dir, Kind::Directory)?;
        }
        for (name, _) in network_files(spec) {
            place.make(&format!("etc/{name}"), Kind::File)?;
        }
        for (mount, source) in spec.mounts.iter().zip(sources) {
            let kind = match (&mount.source, source) {
                (_, Some((_, kind))) => *kind,
                (MountSource::Secret { .. }, None) => Kind::File,
                (MountSource::Tmpfs { .. } | MountSource::Bind { .. }, None) => Kind::Directory,
            };
            place.make(&mount.target, kind)?;
        }
        // Short names for open directories: paths of any length and spelling fit into the one page of options.
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let lower: Vec<String> = self.lower.iter().chain([&skeleton]).map(name).collect();
        let options = format!(
            "userxattr,volatile,lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            name(&self.upper),
            name(&self.work)
        );
        let options = std::ffi::CString::new(options).map_err(failed("name the layers"))?;
        let root = stage.dir.join("root");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount(c"overlay", &root, c"overlay", flags, options.as_c_str())
            .map_err(failed("mount the image layers"))?;
        open_directory(&root).map_err(failed("open the mounted layers"))
    }
}

fn open_or_make(path: &Path) -> Result<OwnedFd, Failure> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Err(rustix::io::Errno::EXIST) | Ok(()) => {}
        Err(error) => return Err(failed(format!("make {}", path.display()))(error)),
    }
    open_directory(path).map_err(failed(format!("open {}", path.display())))
}

/// The owner and mode of the upper directory are those of `/` inside: a new one takes them from the image.
fn prepare_upper(upper: &OwnedFd, path: &Path, top: Option<&OwnedFd>, owner: (u32, u32)) -> std::io::Result<()> {
    if std::fs::read_dir(path)?.next().is_some() {
        return Ok(());
    }
    let top = top.map(rustix::fs::fstat).transpose()?;
    let inside = |id: u32, first: u32| id >= first && id - first < RANGE;
    let kept = top.as_ref().filter(|stat| inside(stat.st_uid, owner.0) && inside(stat.st_gid, owner.1));
    let (user, group) = kept.map_or(owner, |stat| (stat.st_uid, stat.st_gid));
    let mode = top.map_or(0o755, |stat| stat.st_mode & 0o7777);
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    let (user, group) = (rustix::process::Uid::from_raw(user), rustix::process::Gid::from_raw(group));
    rustix::fs::chownat(upper, c"", Some(user), Some(group), flags)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    Ok(())
}

/// Makes `root` the root, and lets go of the old one.
fn enter(root: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}
