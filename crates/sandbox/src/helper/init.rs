//! The first process of a sandbox: builds it, starts the command, reaps, hands out connections, and kills all when the
//! command ended, its time is up, or the owner is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::{CapabilitySets, UnshareFlags};

use super::{Brief, ids, network, rootfs, system, workload};
use crate::exit::{Exit, LimitHit};
use crate::spec::Network;
use crate::wire::{self, Failure, Notice, Order, PlanTier, Step, failed};

/// Never returns: when this process ends, the kernel kills all others in the sandbox.
pub(crate) fn first_process(brief: Brief) -> ! {
    let notice = match brief.control.try_clone() {
        Ok(control) => match live(brief, &control) {
            Ok(exit) => wire::send(&control, &Notice::Exited(exit), &[]),
            Err(failure) => wire::send(&control, &Notice::Failed(failure), &[]),
        },
        Err(error) => Err(error),
    };
    std::process::exit(i32::from(notice.is_err()))
}

fn live(brief: Brief, control: &OwnedFd) -> Result<Exit, Failure> {
    die_with_parent()?;
    await_go(&brief.helper)?;
    let spaces = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    let spaces = spaces | UnshareFlags::NEWNET | UnshareFlags::NEWCGROUP;
    system::unshare(spaces).map_err(failed("make namespaces"))?;
    nix::unistd::sethostname(&brief.plan.spec.hostname).map_err(failed("set the host name"))?;
    system::loopback_up().map_err(failed("bring up the loopback interface"))?;
    rootfs::build(&brief.plan)?;
    if brief.plan.user_network.is_some() {
        ask(&brief.helper, &Step::Networked)?;
        network::await_route()?;
    }
    if brief.plan.tier == PlanTier::Root {
        system::unshare(UnshareFlags::NEWUSER).map_err(failed("make a user namespace"))?;
        ask(&brief.helper, &Step::Unshared)?;
        ids::become_user(0, 0, Some(&[])).map_err(failed("become the sandbox's root"))?;
        die_with_parent()?;
    }
    if let Network::Egress { .. } = brief.plan.spec.network {
        let listener = network::listen(crate::egress::PORT).map_err(failed("listen for the proxy"))?;
        wire::send(control, &Notice::Listening, &[listener.as_fd()]).map_err(failed("hand out the proxy's socket"))?;
    }
    let mut only_children = SigSet::empty();
    only_children.add(nix::sys::signal::Signal::SIGCHLD);
    only_children.thread_block().map_err(failed("block signals"))?;
    let signals = SignalFd::with_flags(&only_children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(failed("listen to signals"))?;
    let wall = brief.plan.spec.limits.wall;
    let command = start(brief)?;
    wire::send(control, &Notice::Started, &[]).map_err(failed("report to the owner"))?;
    Ok(Watch { control, signals, command, deadline: wall.and_then(Deadline::wall) }.run())
}

/// Kills this process when the one that made it dies.
fn die_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("tie to the helper"))
}

fn ask(helper: &OwnedFd, step: &Step) -> Result<(), Failure> {
    wire::send(helper, step, &[]).map_err(failed("ask the helper"))?;
    await_go(helper)
}

fn await_go(socket: &OwnedFd) -> Result<(), Failure> {
    match wire::receive::<Step>(socket).map_err(failed("hear the helper"))? {
        Some((Step::Go, _)) => Ok(()),
        _ => Err(Failure::Step { what: "hear the helper".to_owned(), errno: libc::EPIPE }),
    }
}

/// Starts the command; returns when it has been executed.
fn start(brief: Brief) -> Result<Pid, Failure> {
    let (ours, theirs) = crate::launch::control_pair().map_err(failed("make a socket pair"))?;
    // Changing ids made this process's files in /proc inaccessible; its copy's id map has to be written there.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed("open up to the copy"))?;
    let Brief { plan, streams, control, helper } = brief;
    let command = match system::fork().map_err(failed("make a process for the command"))? {
        None => {
            drop((ours, control, helper));
            workload::run(&plan, streams, theirs)
        }
        Some(pid) => pid,
    };
    drop((streams, theirs, control));
    let single = match plan.tier {
        PlanTier::Root => None,
        PlanTier::SingleId { .. } => Some(plan.spec.user),
    };
    while let Some((step, _)) = wire::receive::<Step>(&ours).map_err(failed("hear the command's process"))? {
        match step {
            Step::Unshared => {
                ids::map_inner(command.as_raw_nonzero().get(), single)?;
                wire::send(&ours, &Step::Go, &[]).map_err(failed("lead the command's process"))?;
            }
            Step::Failed(failure) => return Err(failure),
            Step::Go | Step::Networked | Step::Join(_) => {}
        }
    }
    // From here on this process needs no right: it owns the namespace the command is in.
    let none = rustix::thread::CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(failed("give up rights"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("close to others"))?;
    drop(helper);
    Ok(command)
}

/// When everything is killed, and what is said of it.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    exit: Exit,
}

impl Deadline {
    /// Nothing if it is further away than the clock reaches.
    fn after(time: Duration, exit: Exit) -> Option<Self> {
        Instant::now().checked_add(time).map(|at| Self { at, exit })
    }

    fn wall(time: Duration) -> Option<Self> {
        Self::after(time, Exit::Limit(LimitHit::Wall))
    }
}

/// The loop of the first process.
struct Watch<'a> {
    control: &'a OwnedFd,
    signals: SignalFd,
    command: Pid,
    deadline: Option<Deadline>,
}

impl Watch<'_> {
    fn run(mut self) -> Exit {
        loop {
            if let Some(exit) = self.reap() {
                return exit;
            }
            let left = self.deadline.map(|deadline| deadline.at.saturating_duration_since(Instant::now()));
            if let (Some(deadline), Some(Duration::ZERO)) = (self.deadline, left) {
                return deadline.exit;
            }
            if self.sleep(left)
                && let Some(exit) = self.obey()
            {
                return exit;
            }
        }
    }

    /// Waits for something to happen; true if the owner said something or is gone.
    fn sleep(&self, time: Option<Duration>) -> bool {
        let time = time.map(system::timespec);
        let mut fds = [PollFd::new(self.control, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        let woken = rustix::event::poll(&mut fds, time.as_ref()).is_ok();
        let said = woken && !fds[0].revents().is_empty();
        while let Ok(Some(_)) = self.signals.read_signal() {}
        said
    }

    /// Takes the exit statuses of all that ended, whoever started them.
    fn reap(&self) -> Option<Exit> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.command => return Some(exit_of(status)),
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return None,
                // The command's process cannot be gone without having been reaped here.
                Err(_) => return Some(Exit::Signal(libc::SIGKILL)),
            }
        }
    }

    fn obey(&mut self) -> Option<Exit> {
        let killed = Some(Exit::Signal(libc::SIGKILL));
        let Ok(Some((order, _))) = wire::receive::<Order>(self.control) else { return killed };
        match order {
            Order::Kill => return killed,
            Order::Signal(signal) => self.signal(signal),
            Order::Stop { signal, grace_ms } => {
                self.signal(signal);
                let stop = Deadline::after(Duration::from_millis(grace_ms), Exit::Signal(libc::SIGKILL));
                self.deadline = [self.deadline, stop].into_iter().flatten().min_by_key(|deadline| deadline.at);
            }
            Order::Connect { id, port } => self.connect(id, port),
        }
        None
    }

    fn signal(&self, signal: i32) {
        let command = nix::unistd::Pid::from_raw(self.command.as_raw_nonzero().get());
        if let Ok(signal) = nix::sys::signal::Signal::try_from(signal) {
            let _ = nix::sys::signal::kill(command, signal);
        }
    }

    fn connect(&self, id: u64, port: u16) {
        // The owner notices a lost answer by the end of the connection.
        let _ = match network::connect(port) {
            Ok(socket) => wire::send(self.control, &Notice::Connected { id }, &[socket.as_fd()]),
            Err(errno) => wire::send(self.control, &Notice::NotConnected { id, errno }, &[]),
        };
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Signal(libc::SIGKILL),
    }
}
