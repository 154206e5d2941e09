//! Control groups, of version 1 or 2, where this process may make them: memory and processor time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::Limits;
use crate::wire::{Failure, failed};

/// Where groups can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hierarchies {
    pub memory: Option<Place>,
    pub cpu: Option<Place>,
}

/// A directory below which groups can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    V1(PathBuf),
    V2(PathBuf),
}

impl Place {
    fn dir(&self) -> &Path {
        match self {
            Self::V1(dir) | Self::V2(dir) => dir,
        }
    }
}

/// What the names of our groups begin with.
const PREFIX: &str = "towpath-";

/// Looks for hierarchies that can be written, by making a group in each.
pub(crate) fn find() -> Hierarchies {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let find = |controller: &str| v1(&mounts, &own, controller).or_else(|| v2(&mounts, controller));
    Hierarchies { memory: find("memory"), cpu: find("cpu") }
}

/// Mount points of cgroup hierarchies, with their super block options.
fn mounted<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = (PathBuf, &'a str)> {
    mounts.lines().filter_map(move |line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut parts = filesystem.split(' ');
        let options = (parts.next()? == kind).then(|| parts.nth(1))??;
        Some((PathBuf::from(mount.split(' ').nth(4)?), options))
    })
}

fn v1(mounts: &str, own: &str, controller: &str) -> Option<Place> {
    let (point, _) =
        mounted(mounts, "cgroup").find(|(_, options)| options.split(',').any(|option| option == controller))?;
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        controllers.split(',').any(|name| name == controller).then(|| parts.next())?
    })?;
    let below = point.join(path.trim_start_matches('/'));
    [below, point].into_iter().find(|dir| writable(dir)).map(Place::V1)
}

fn v2(mounts: &str, controller: &str) -> Option<Place> {
    let (point, _) = mounted(mounts, "cgroup2").next()?;
    let has = |dir: &Path, file: &str| {
        fs::read_to_string(dir.join(file)).is_ok_and(|list| list.split_whitespace().any(|name| name == controller))
    };
    let dir = point.join("towpath");
    if !has(&point, "cgroup.controllers") {
        return None;
    }
    let enable = |dir: &Path| {
        has(dir, "cgroup.subtree_control")
            || fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).is_ok()
    };
    let made = dir.is_dir() || fs::create_dir(&dir).is_ok();
    (made && enable(&point) && enable(&dir) && writable(&dir)).then_some(Place::V2(dir))
}

/// Whether a group can be made in `dir`. Groups of helpers that were killed are removed on the way.
fn writable(dir: &Path) -> bool {
    sweep(dir);
    let trial = dir.join(format!("{PREFIX}{}-trial", std::process::id()));
    fs::create_dir(&trial).is_ok() && fs::remove_dir(&trial).is_ok()
}

fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let owner = owner.split('-').next().unwrap_or_default();
        if !owner.is_empty() && owner.bytes().all(|b| b.is_ascii_digit()) && !Path::new("/proc").join(owner).exists() {
            // Fails, as it should, while something is in it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The groups of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Group {
    memory: Option<Place>,
    cpu: Option<Place>,
}

impl Group {
    /// Makes the groups that the limits need, as far as this machine lets us.
    pub(crate) fn make(limits: &Limits, found: &Hierarchies) -> Result<Self, Failure> {
        let mut group = Self::default();
        if let (Some(bytes), Some(place)) = (limits.memory, &found.memory) {
            let place = group.memory.insert(make(place)?);
            limit_memory(place, bytes).map_err(failed(format!("limit memory to {bytes} bytes")))?;
        }
        if let (Some(millis), Some(place)) = (limits.cpu_millis, &found.cpu) {
            let joined = group.memory.as_ref().filter(|memory| same_hierarchy(memory, place));
            let place = match joined {
                Some(memory) => memory.clone(),
                None => make(place)?,
            };
            limit_cpu(&place, millis).map_err(failed(format!("limit processor time to {millis} thousandths")))?;
            group.cpu = Some(place);
        }
        Ok(group)
    }

    /// Puts a process, and all it will start, into the groups.
    pub(crate) fn add(&self, pid: i32) -> Result<(), Failure> {
        for place in [&self.memory, &self.cpu].into_iter().flatten() {
            fs::write(place.dir().join("cgroup.procs"), pid.to_string()).map_err(failed("join a control group"))?;
        }
        Ok(())
    }

    /// Removes the groups once they are empty; says whether the kernel killed something for want of memory.
    pub(crate) fn remove(self) -> bool {
        let killed = self.memory.as_ref().is_some_and(|place| out_of_memory(place).unwrap_or(false));
        for place in [self.memory, self.cpu].into_iter().flatten() {
            let _ = fs::remove_dir(place.dir());
        }
        killed
    }
}

fn same_hierarchy(made: &Place, place: &Place) -> bool {
    made.dir().parent() == Some(place.dir())
}

fn make(place: &Place) -> Result<Place, Failure> {
    let dir = place.dir().join(format!("{PREFIX}{}", std::process::id()));
    // A helper with the same id may have been killed before it could tidy up.
    let _ = fs::remove_dir(&dir);
    fs::create_dir(&dir).map_err(failed(format!("make control group {}", dir.display())))?;
    Ok(match place {
        Place::V1(_) => Place::V1(dir),
        Place::V2(_) => Place::V2(dir),
    })
}

fn limit_memory(place: &Place, bytes: u64) -> io::Result<()> {
    let bytes = bytes.to_string();
    match place {
        Place::V1(dir) => {
            fs::write(dir.join("memory.limit_in_bytes"), &bytes)?;
            let swap = dir.join("memory.memsw.limit_in_bytes");
            if swap.exists() { fs::write(swap, &bytes) } else { Ok(()) }
        }
        Place::V2(dir) => {
            fs::write(dir.join("memory.max"), &bytes)?;
            let swap = dir.join("memory.swap.max");
            if swap.exists() { fs::write(swap, "0") } else { Ok(()) }
        }
    }
}

fn limit_cpu(place: &Place, millis: u64) -> io::Result<()> {
    // The kernel takes no quota below a millisecond per period of 100 ms.
    let quota = millis.saturating_mul(100).max(1000);
    match place {
        Place::V1(dir) => {
            fs::write(dir.join("cpu.cfs_period_us"), "100000")?;
            fs::write(dir.join("cpu.cfs_quota_us"), quota.to_string())
        }
        Place::V2(dir) => fs::write(dir.join("cpu.max"), format!("{quota} 100000")),
    }
}

fn out_of_memory(place: &Place) -> Option<bool> {
    let file = match place {
        Place::V1(dir) => dir.join("memory.oom_control"),
        Place::V2(dir) => dir.join("memory.events"),
    };
    let text = fs::read_to_string(file).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    Some(count.trim() != "0")
}
