//! The command's own process, from its making to its `exec`: gives up everything it was made with.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::{filter, ids, system};
use crate::spec::{Limits, Privileges, Spec};
use crate::wire::{self, Failure, Plan, PlanTier, Step, failed};

/// What user 0 keeps with [`Privileges::Container`].
const CONTAINER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT);

/// Executes the command; the first process hears of a failure through `parent`, and of success by its end.
pub(crate) fn run(plan: &Plan, streams: [OwnedFd; 3], parent: OwnedFd) -> ! {
    match prepare(plan, &streams, &parent) {
        Ok(()) if plan.trial => std::process::exit(0),
        Ok(()) => {}
        Err(failure) => give_up(&parent, failure),
    }
    let failure = execute(&plan.spec);
    give_up(&parent, failure)
}

fn give_up(parent: &OwnedFd, failure: Failure) -> ! {
    let _ = wire::send(parent, &Step::Failed(failure), &[]);
    std::process::exit(1)
}

fn prepare(plan: &Plan, streams: &[OwnedFd; 3], parent: &OwnedFd) -> Result<(), Failure> {
    let spec = &plan.spec;
    // The namespace remembers this limit for all its processes together, whatever ids they take; one is our parent.
    limit(Resource::Nproc, spec.limits.pids.map(|pids| pids.saturating_add(1)))?;
    let spaces = UnshareFlags::NEWUSER | UnshareFlags::NEWCGROUP;
    system::unshare(spaces).map_err(failed("make the inner user namespace"))?;
    wire::send(parent, &Step::Unshared, &[]).map_err(failed("ask for an id map"))?;
    match wire::receive::<Step>(parent).map_err(failed("hear the first process"))? {
        Some((Step::Go, _)) => {}
        _ => return Err(failed("hear the first process")(io::Error::from_raw_os_error(libc::EPIPE))),
    }
    rustix::process::setsid().map_err(failed("start a session"))?;
    set_limits(&spec.limits, plan.cgroups.memory.is_some())?;
    set_streams(streams).map_err(failed("connect the standard streams"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    system::default_signals().map_err(failed("reset signals"))?;
    give_up_rights(plan)?;
    // No other descriptor is left that the path could lead through.
    rustix::process::chdir(spec.cwd.as_str()).map_err(failed(format!("enter working directory {}", spec.cwd)))?;
    filter::install().map_err(failed("filter system calls"))
}

fn give_up_rights(plan: &Plan) -> Result<(), Failure> {
    let spec = &plan.spec;
    let kept = match spec.privileges {
        Privileges::Container if spec.user.0 == 0 => CONTAINER,
        Privileges::Container | Privileges::None => CapabilitySet::empty(),
    };
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if !kept.contains(one) && rustix::thread::remove_capability_from_bounding_set(one).is_err() {
            // The kernel knows no capability from here on.
            break;
        }
    }
    let groups = match plan.tier {
        PlanTier::Root => Some(spec.groups.as_slice()),
        // Setting groups is forbidden where only one id is mapped.
        PlanTier::SingleId { .. } => None,
    };
    ids::become_user(spec.user.0, spec.user.1, groups)
        .map_err(failed(format!("become user {}:{}", spec.user.0, spec.user.1)))?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(failed("give up rights"))?;
    rustix::thread::clear_ambient_capability_set().map_err(failed("give up rights"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("give up rights"))
}

fn set_limits(limits: &Limits, memory_in_group: bool) -> Result<(), Failure> {
    limit(Resource::Nproc, limits.pids)?;
    limit(Resource::Nofile, limits.open_files)?;
    limit(Resource::Fsize, limits.file_size)?;
    limit(Resource::Core, Some(0))?;
    if !memory_in_group {
        limit(Resource::Data, limits.memory)?;
    }
    Ok(())
}

/// Sets both limits of a resource, as far as this process may.
fn limit(resource: Resource, wanted: Option<u64>) -> Result<(), Failure> {
    let Some(wanted) = wanted else { return Ok(()) };
    let most = rustix::process::getrlimit(resource).maximum;
    let value = Some(most.map_or(wanted, |most| most.min(wanted)));
    rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })
        .map_err(failed(format!("limit {resource:?} to {wanted}")))
}

/// Puts the streams where programs expect them; everything else is closed by `exec`.
fn set_streams(streams: &[OwnedFd; 3]) -> io::Result<()> {
    let [stdin, stdout, stderr] = streams;
    // None of them can be at 0 to 2: the helper has /dev/null there.
    rustix::stdio::dup2_stdin(stdin.as_fd())?;
    rustix::stdio::dup2_stdout(stdout.as_fd())?;
    rustix::stdio::dup2_stderr(stderr.as_fd())?;
    debug_assert!(streams.iter().all(|stream| stream.as_raw_fd() > 2));
    system::close_on_exec_from(3)
}

fn execute(spec: &Spec) -> Failure {
    let program = spec.argv.first().cloned().unwrap_or_default();
    let cannot = |errno: i32| Failure::CannotRun { program: program.clone(), errno };
    let text = |text: &str| CString::new(text).map_err(|_| cannot(libc::EINVAL));
    let argv = spec.argv.iter().map(|argument| text(argument)).collect::<Result<Vec<_>, _>>();
    let env = spec.env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect::<Result<Vec<_>, _>>();
    let (argv, env) = match (argv, env) {
        (Ok(argv), Ok(env)) => (argv, env),
        (Err(failure), _) | (_, Err(failure)) => return failure,
    };
    let path = spec.env.iter().find(|(name, _)| name == "PATH").map_or("/usr/bin:/bin", |(_, path)| path.as_str());
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.clone()]
    } else {
        path.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { "." } else { dir })).collect()
    };
    let mut found = None;
    for candidate in candidates {
        let Ok(file) = text(&candidate) else { continue };
        match nix::unistd::execve(&file, &argv, &env) {
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR)
                if !std::path::Path::new(&candidate).is_file() => {}
            Err(error) => found = found.or(Some(error as i32)),
            Ok(never) => match never {},
        }
    }
    // A file that is there and still "not found" lacks the interpreter it names.
    found.map_or_else(|| Failure::NotFound { program: program.clone() }, cannot)
}
