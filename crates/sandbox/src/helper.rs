//! The helper process: single-threaded, outside the new process namespace, and gone when the sandbox is.
//!
//! It enters a user namespace first if it has no rights, makes the first process of the sandbox in a process namespace
//! of its own, gives it its id map, and waits for it. Nothing here runs in the owner's process.

pub(crate) mod cgroup;
mod device;
mod filter;
mod ids;
mod init;
mod mounts;
mod network;
mod rootfs;
mod system;
mod view;
mod workload;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::wire::{self, Failure, Notice, Plan, PlanTier, Step, failed};

/// The first argument that makes this program the helper.
pub(crate) const HELPER: &str = "__sandbox";
/// The first argument that makes this program start another one detached.
pub(crate) const DETACH: &str = "__detach";

/// To be called first thing in `main`: if this process was started as a helper, it does its work and never returns.
///
/// Reads the command line from `/proc`, so that it works before `main` too.
pub fn dispatch() {
    let Ok(line) = std::fs::read("/proc/self/cmdline") else { return };
    match line.split(|byte| *byte == 0).nth(1) {
        Some(word) if word == HELPER.as_bytes() => helper(),
        Some(word) if word == DETACH.as_bytes() => crate::supervise::detach(),
        _ => {}
    }
}

fn helper() -> ! {
    if let Some(control) = inherit()
        && let Err(failure) = run(&control)
    {
        let _ = wire::send(&control, &Notice::Failed(failure), &[]);
    }
    std::process::exit(0)
}

/// Takes the one socket from the standard input and closes all that came along by accident.
fn inherit() -> Option<OwnedFd> {
    system::close_from(3).ok()?;
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).ok()?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()).ok()?;
    rustix::stdio::dup2_stdin(&null).ok()?;
    rustix::stdio::dup2_stdout(&null).ok()?;
    rustix::stdio::dup2_stderr(&null).ok()?;
    Some(control)
}

/// What the first process needs from the helper.
pub(crate) struct Brief {
    pub plan: Plan,
    pub streams: [OwnedFd; 3],
    pub control: OwnedFd,
    /// To and from the helper.
    pub helper: OwnedFd,
}

fn receive_plan(control: &OwnedFd) -> io::Result<(Plan, [OwnedFd; 3])> {
    let gone = || io::Error::from_raw_os_error(libc::EPIPE);
    let ((), mut fds) = wire::receive::<()>(control)?.ok_or_else(gone)?;
    let streams: [OwnedFd; 3] = fds.split_off(1.min(fds.len())).try_into().map_err(|_| gone())?;
    let mut text = Vec::new();
    let mut file = File::from(fds.pop().ok_or_else(gone)?);
    io::Seek::rewind(&mut file)?;
    file.read_to_end(&mut text)?;
    Ok((serde_json::from_slice(&text)?, streams))
}

fn run(control: &OwnedFd) -> Result<(), Failure> {
    let (plan, streams) = receive_plan(control).map_err(failed("read the command"))?;
    let group = cgroup::Group::make(&plan.spec.limits, &plan.cgroups)?;
    let companion = plan.user_network.as_ref().map(network::Companion::prepare).transpose()?;
    if let PlanTier::SingleId { uid, gid } = plan.tier {
        system::unshare(UnshareFlags::NEWUSER).map_err(failed("make a user namespace"))?;
        ids::map_self(uid, gid)?;
    }
    system::unshare(UnshareFlags::NEWPID).map_err(failed("make a process namespace"))?;
    let (ours, theirs) = crate::launch::control_pair().map_err(failed("make a socket pair"))?;
    let control_inside = control.try_clone().map_err(failed("copy the socket"))?;
    let tier = plan.tier;
    let first = match system::fork().map_err(failed("make the first process"))? {
        None => {
            drop((ours, group, companion));
            init::first_process(Brief { plan, streams, control: control_inside, helper: theirs })
        }
        Some(pid) => pid,
    };
    drop((theirs, control_inside, streams));
    let guided = guide(&ours, first, tier, &group, companion.as_ref(), control);
    if guided.is_err() {
        let _ = rustix::process::kill_process(first, Signal::KILL);
    }
    wait_for(first);
    if let Some(companion) = companion {
        companion.end();
    }
    let out_of_memory = group.remove();
    guided?;
    let _ = wire::send(control, &Notice::Ended { out_of_memory }, &[]);
    Ok(())
}

/// Leads the first process through what it cannot do itself. Returns when it is on its own.
fn guide(
    first_socket: &OwnedFd,
    first: Pid,
    tier: PlanTier,
    group: &cgroup::Group,
    companion: Option<&network::Companion>,
    control: &OwnedFd,
) -> Result<(), Failure> {
    let pid = first.as_raw_nonzero().get();
    group.add(pid)?;
    let _ = wire::send(control, &Notice::Pid(pid), &[]);
    let go = || wire::send(first_socket.as_fd(), &Step::Go, &[]).map_err(failed("lead the first process"));
    go()?;
    // The other end closes when the first process needs nothing more, or died.
    while let Some((step, _)) = wire::receive::<Step>(first_socket).map_err(failed("hear the first process"))? {
        match step {
            Step::Unshared => {
                if tier == PlanTier::Root {
                    ids::map_range(pid)?;
                }
            }
            Step::Networked => {
                if let Some(companion) = companion {
                    companion.start(pid)?;
                }
            }
            Step::Failed(failure) => return Err(failure),
            Step::Go | Step::Join(_) => {}
        }
        go()?;
    }
    Ok(())
}

pub(crate) fn wait_for(pid: Pid) {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Closes every descriptor but the standard streams.
pub(crate) fn close_inherited() -> io::Result<()> {
    system::close_from(3)
}

pub(crate) use system::{fork, timespec};
