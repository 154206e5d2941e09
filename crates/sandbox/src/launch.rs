//! From a [`Spec`] to a helper process that has been told what to do.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::error::SandboxError;
use crate::helper::HELPER;
use crate::probe::{Tier, probe};
use crate::spec::{Limits, MountSource, Network, Root, Spec, Stdio};
use crate::wire::{self, Plan, PlanTier, UserNetwork};

/// The ends of pipes that stay with the owner.
#[derive(Debug, Default)]
pub(crate) struct OwnEnds {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Checks a command against what this machine can do.
pub(crate) fn plan(mut spec: Spec) -> Result<Plan, SandboxError> {
    let found = probe();
    let tier = match &found.tier {
        Tier::Root => PlanTier::Root,
        Tier::SingleId => own_ids(),
        Tier::None { reason } => return Err(SandboxError::NoTier(reason.clone())),
    };
    check_texts(&spec)?;
    check_user(&spec, tier)?;
    check_limits(&spec.limits)?;
    if matches!(spec.root, Root::Layers { .. }) && !found.overlay {
        return Err(SandboxError::Refused("this kernel mounts no overlay here, which image layers need".to_owned()));
    }
    if let Network::Egress { .. } = spec.network {
        crate::egress::set_environment(&mut spec.env);
    }
    let user_network = match spec.network {
        Network::User { .. } => Some(user_network(tier)?),
        _ => None,
    };
    Ok(Plan { tier, trial: false, spec, user_network, cgroups: crate::probe::cgroups().clone() })
}

pub(crate) fn own_ids() -> PlanTier {
    PlanTier::SingleId { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

fn invalid(message: String) -> SandboxError {
    SandboxError::Invalid(message)
}

fn check_texts(spec: &Spec) -> Result<(), SandboxError> {
    if spec.argv.first().is_none_or(String::is_empty) {
        return Err(invalid("there is no program to run".to_owned()));
    }
    if let Some(text) = spec.argv.iter().find(|text| text.contains('\0')) {
        return Err(invalid(format!("argument {text:?} contains a NUL byte")));
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(format!("environment variable {name:?} has a name or value no environment can hold")));
        }
    }
    if !spec.cwd.starts_with('/') || spec.cwd.contains('\0') {
        return Err(invalid(format!("working directory {:?} is not an absolute path", spec.cwd)));
    }
    if spec.hostname.is_empty() || spec.hostname.len() > 64 || spec.hostname.contains('\0') {
        return Err(invalid(format!("host name {:?} must have 1 to 64 characters", spec.hostname)));
    }
    for mount in &spec.mounts {
        if !mount.target.starts_with('/') || mount.target.contains('\0') || mount.target.trim_matches('/').is_empty() {
            return Err(invalid(format!("mount target {:?} is not an absolute path below /", mount.target)));
        }
        if let MountSource::Bind { path, .. } = &mount.source {
            check_path(path)?;
        }
    }
    match &spec.root {
        Root::Host { also } => also.iter().try_for_each(|path| check_path(path)),
        Root::Layers { lower, upper, work } => {
            lower.iter().chain([upper, work]).try_for_each(|path| check_path(path))?;
            // The kernel takes at most 500 layers, and one page of options.
            if lower.len() > 120 {
                Err(invalid(format!("{} layers: at most 120 are possible", lower.len())))
            } else {
                Ok(())
            }
        }
    }
}

fn check_path(path: &Path) -> Result<(), SandboxError> {
    match path.to_str() {
        Some(text) if path.is_absolute() && !text.contains('\0') => Ok(()),
        _ => Err(invalid(format!("path {path:?} is not absolute or not UTF-8"))),
    }
}

fn check_user(spec: &Spec, tier: PlanTier) -> Result<(), SandboxError> {
    let (uid, gid) = spec.user;
    match tier {
        PlanTier::Root if uid.max(gid) >= crate::probe::RANGE => {
            Err(SandboxError::Refused(format!("user {uid}:{gid}: ids inside go up to {}", crate::probe::RANGE - 1)))
        }
        PlanTier::Root => Ok(()),
        PlanTier::SingleId { uid: own_uid, gid: own_gid } => {
            let exists = (uid == 0 || uid == own_uid) && (gid == 0 || gid == own_gid);
            if exists || spec.alias_user {
                return Ok(());
            }
            Err(SandboxError::Refused(format!(
                "user {uid}:{gid}: without root privileges only one user exists in a sandbox; it can be 0:0 or {own_uid}:{own_gid}"
            )))
        }
    }
}

fn check_limits(limits: &Limits) -> Result<(), SandboxError> {
    if !limits.strict {
        return Ok(());
    }
    let missing = crate::probe::cgroups();
    let wanted = [
        ("memory", limits.memory.is_some() && missing.memory.is_none()),
        ("cpu", limits.cpu_millis.is_some() && missing.cpu.is_none()),
    ];
    match wanted.iter().find(|(_, missing)| *missing) {
        Some((name, _)) => {
            Err(SandboxError::Refused(format!("the {name} limit cannot be enforced here: no writable cgroup")))
        }
        None => Ok(()),
    }
}

/// Finds the program for the machine's network. `pasta` gives up the rights of root before it can use them.
fn user_network(tier: PlanTier) -> Result<UserNetwork, SandboxError> {
    let find = |name: &str| -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_absolute() && file.is_file())
    };
    let (pasta, missing) = match tier {
        PlanTier::Root => (None, "slirp4netns is not"),
        PlanTier::SingleId { .. } => (find("pasta"), "neither pasta nor slirp4netns is"),
    };
    let program = pasta.map(UserNetwork::Pasta).or_else(|| find("slirp4netns").map(UserNetwork::Slirp4netns));
    program.ok_or_else(|| SandboxError::Refused(format!("network mode user: {missing} installed")))
}

/// The helper's command line: this program again, from its own open file, so that a replaced binary does not matter.
pub(crate) fn helper_command(control: OwnedFd) -> Command {
    let mut command = Command::new("/proc/self/exe");
    // A process group of its own: what a terminal sends to ours is for us to pass on.
    command.arg0("towpath").arg(HELPER).env_clear().current_dir("/").process_group(0);
    command.stdin(control).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command
}

/// A pair of packet sockets; neither end survives an `exec`.
pub(crate) fn control_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Opens the three standard streams and hands them over with the plan.
pub(crate) fn hand_over(control: &OwnedFd, plan: &mut Plan) -> Result<OwnEnds, SandboxError> {
    let (streams, own) = open_streams(&mut plan.spec).map_err(|error| setup("open the standard streams", &error))?;
    let send = || -> io::Result<()> {
        let file = rustix::fs::memfd_create("plan", MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        file.write_all(&serde_json::to_vec(&plan)?)?;
        let [stdin, stdout, stderr] = &streams;
        wire::send(control, &(), &[file.as_fd(), stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
    };
    send().map_err(|error| setup("hand the command to the helper", &error))?;
    Ok(own)
}

pub(crate) fn setup(what: &str, error: &io::Error) -> SandboxError {
    SandboxError::Setup { what: what.to_owned(), reason: error.to_string() }
}

fn open_streams(spec: &mut Spec) -> io::Result<([OwnedFd; 3], OwnEnds)> {
    let mut own = OwnEnds::default();
    let stdin = match std::mem::take(&mut spec.stdin) {
        Stdio::Fd(fd) => fd,
        Stdio::Piped => {
            let (read, write) = pipe(End::Write)?;
            own.stdin = Some(write);
            read
        }
        Stdio::Null | Stdio::Stdout => null(OFlags::RDONLY)?,
    };
    let stdout = output(std::mem::take(&mut spec.stdout), &mut own.stdout)?;
    let stderr = match std::mem::take(&mut spec.stderr) {
        Stdio::Stdout => stdout.try_clone()?,
        other => output(other, &mut own.stderr)?,
    };
    Ok(([stdin, stdout, stderr], own))
}

fn output(stdio: Stdio, own: &mut Option<OwnedFd>) -> io::Result<OwnedFd> {
    match stdio {
        Stdio::Fd(fd) => Ok(fd),
        Stdio::Piped => {
            let (read, write) = pipe(End::Read)?;
            *own = Some(read);
            Ok(write)
        }
        Stdio::Null | Stdio::Stdout => Ok(null(OFlags::WRONLY)?),
    }
}

/// The end of a pipe that the owner keeps, and which therefore must not block.
enum End {
    Read,
    Write,
}

fn pipe(own: End) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let end = match own {
        End::Read => &read,
        End::Write => &write,
    };
    rustix::fs::fcntl_setfl(end, rustix::fs::fcntl_getfl(end)? | OFlags::NONBLOCK)?;
    Ok((read, write))
}

fn null(access: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/null", access | OFlags::CLOEXEC, Mode::empty())
}
