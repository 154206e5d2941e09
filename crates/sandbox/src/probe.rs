//! What this machine can do: found by doing it once.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use crate::error::SandboxError;
use crate::helper::cgroup::{self, Hierarchies};
use crate::launch;
use crate::spec::{Root, Spec, Stdio};
use crate::wire::{self, Notice, Plan, PlanTier};

/// The first of the machine's ids that the ids of a sandbox stand for, in the root tier.
pub(crate) const BASE: u32 = 1_000_000_000;
/// How many ids a sandbox has in the root tier.
pub(crate) const RANGE: u32 = 65_536;
/// A trial that takes longer has failed.
const TRIAL: Duration = Duration::from_secs(10);

/// How a sandbox is made here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The server has the rights of root: a sandbox has 65,536 ids of its own, none of which the machine uses.
    Root,
    /// The server is an ordinary user that may make user namespaces: one id exists inside.
    SingleId,
    /// Code that is not ours cannot be run.
    None {
        /// What was tried and what the system said.
        reason: String,
    },
}

/// What this machine can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// How a sandbox is made.
    pub tier: Tier,
    /// Whether image layers can be mounted.
    pub overlay: bool,
    /// The limits that this machine cannot hold a command to, each with the reason.
    pub unenforced: Vec<String>,
}

/// How the ids inside correspond to those of the machine: `inside + n` is `outside + n` for `n < count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// The first id inside.
    pub inside: u32,
    /// The user id of the machine it stands for.
    pub outside: u32,
    /// The group id of the machine it stands for.
    pub outside_group: u32,
    /// How many there are.
    pub count: u32,
}

impl IdMapping {
    /// The machine's user id for one inside.
    pub fn user(&self, inside: u32) -> Option<u32> {
        let offset = inside.checked_sub(self.inside).filter(|offset| *offset < self.count)?;
        self.outside.checked_add(offset)
    }

    /// The machine's group id for one inside.
    pub fn group(&self, inside: u32) -> Option<u32> {
        let offset = inside.checked_sub(self.inside).filter(|offset| *offset < self.count)?;
        self.outside_group.checked_add(offset)
    }

    /// The user and group inside that a job runs as: 1000:1000 where there are many, else the server's own numbers.
    pub fn ordinary(&self) -> (u32, u32) {
        if self.count > 1000 { (1000, 1000) } else { (self.outside, self.outside_group) }
    }
}

/// Holds, in the environment of a supervisor, what its starter found: trying again would cost each its 30 ms.
pub(crate) const INHERITED: &str = "TOWPATH_SANDBOX_PROBE";

static FOUND: OnceLock<Probe> = OnceLock::new();

/// What this machine can do. The first call tries it (some 30 ms) unless the starter of this process did; later ones
/// remember.
pub fn probe() -> &'static Probe {
    FOUND.get_or_init(|| inherited().unwrap_or_else(find))
}

/// What a supervisor is told, if it is known by now.
pub(crate) fn to_inherit() -> Option<String> {
    serde_json::to_string(FOUND.get()?).ok()
}

/// Taken only from a starter of the same rights: what root found does not hold for an ordinary user.
fn inherited() -> Option<Probe> {
    let probe: Probe = serde_json::from_str(&std::env::var(INHERITED).ok()?).ok()?;
    let root = rustix::process::geteuid().is_root();
    (root || probe.tier != Tier::Root).then_some(probe)
}

/// The id mapping of [`probe`]'s tier.
pub fn id_map() -> IdMapping {
    match probe().tier {
        Tier::Root => IdMapping { inside: 0, outside: BASE, outside_group: BASE, count: RANGE },
        Tier::SingleId | Tier::None { .. } => IdMapping {
            inside: 0,
            outside: rustix::process::geteuid().as_raw(),
            outside_group: rustix::process::getegid().as_raw(),
            count: 1,
        },
    }
}

/// The cgroup hierarchies this process may make groups in.
pub(crate) fn cgroups() -> &'static Hierarchies {
    static FOUND: OnceLock<Hierarchies> = OnceLock::new();
    FOUND.get_or_init(cgroup::find)
}

fn find() -> Probe {
    let mut tried = Vec::new();
    let mut tiers = vec![(Tier::SingleId, launch::own_ids())];
    if rustix::process::geteuid().is_root() {
        tiers.insert(0, (Tier::Root, PlanTier::Root));
    }
    for (tier, plan) in tiers {
        match trial(plan, Root::Host { also: Vec::new() }) {
            Ok(()) => return Probe { tier, overlay: overlay(plan), unenforced: unenforced() },
            Err(error) => tried.push(error.to_string()),
        }
    }
    Probe { tier: Tier::None { reason: tried.join("; ") }, overlay: false, unenforced: unenforced() }
}

fn unenforced() -> Vec<String> {
    let found = cgroups();
    let mut list = Vec::new();
    if found.memory.is_none() {
        list.push("memory of all processes together: no writable cgroup; each process is limited alone".to_owned());
    }
    if found.cpu.is_none() {
        list.push("processor time: no writable cgroup".to_owned());
    }
    list.push("total size on disk: only single files are limited".to_owned());
    list
}

fn overlay(tier: PlanTier) -> bool {
    let dir = std::env::temp_dir().join(format!("towpath-probe-{}-{}", std::process::id(), random()));
    let lower = dir.join("lower");
    let tried = std::fs::create_dir(&dir)
        .and_then(|()| std::fs::create_dir(&lower))
        .map_err(|error| launch::setup("probe", &error));
    let result = tried.and_then(|()| {
        trial(tier, Root::Layers { lower: vec![lower], upper: dir.join("upper"), work: dir.join("work") })
    });
    let _ = crate::tree::remove_tree(&dir);
    if let Err(error) = &result {
        tracing::warn!(%error, "no overlay can be mounted");
    }
    result.is_ok()
}

/// A name that no other process guesses beforehand.
fn random() -> String {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_or_else(|_| "0".to_owned(), |()| format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// Makes a sandbox and executes nothing in it.
fn trial(tier: PlanTier, root: Root) -> Result<(), SandboxError> {
    let (ours, theirs) = launch::control_pair().map_err(|error| launch::setup("make a socket pair", &error))?;
    let mut spec = Spec::new(root, ["/"]);
    spec.stdout = Stdio::Null;
    spec.stderr = Stdio::Null;
    let mut plan = Plan { tier, trial: true, spec, user_network: None, cgroups: Hierarchies::default() };
    launch::hand_over(&ours, &mut plan)?;
    let mut command = launch::helper_command(theirs);
    let mut child = command.spawn().map_err(|error| launch::setup("start the helper process", &error))?;
    drop(command);
    let result = listen(&ours);
    drop(ours);
    let _ = child.wait();
    result
}

fn listen(control: &std::os::fd::OwnedFd) -> Result<(), SandboxError> {
    let deadline = Instant::now() + TRIAL;
    let mut result = Err(SandboxError::Setup {
        what: "try a sandbox".to_owned(),
        reason: format!("the helper did not answer: the program at {} must call sandbox::dispatch first", program()),
    });
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = crate::helper::timespec(left);
        let ready = rustix::event::poll(&mut [PollFd::new(control, PollFlags::IN)], Some(&left));
        match ready.map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return result,
            Ok(_) => {}
        }
        match wire::receive::<Notice>(control) {
            Ok(Some((Notice::Failed(failure), _))) => return Err(failure.into()),
            Ok(Some((Notice::Exited(exit), _))) if exit.success() => result = Ok(()),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return result,
        }
    }
}

fn program() -> String {
    std::fs::read_link("/proc/self/exe")
        .unwrap_or_else(|_| Path::new("/proc/self/exe").to_owned())
        .display()
        .to_string()
}
