//! What a server takes of the machine's memory, with everything that it started.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::World;

/// The moment at which the most memory was taken.
#[derive(Clone, Debug, Default)]
pub struct Peak {
    /// Resident bytes of all processes together.
    pub bytes: u64,
    /// Each process with its resident bytes, largest first.
    pub processes: Vec<(String, u64)>,
}

/// Looks every few milliseconds.
pub struct MemoryWatch {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<Peak>,
}

impl MemoryWatch {
    /// Watches the server of `world`, its supervisors, and all that descends from them: git, jobs, builds and sites.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn start(world: &World) -> Self {
        let server = world.pid().expect("a server that runs");
        let data: PathBuf = world.data().canonicalize().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watcher = std::thread::spawn(move || {
            let mut peak = Peak::default();
            while !stopped.load(Ordering::Relaxed) {
                let now = sample(server, &data.to_string_lossy());
                if now.bytes > peak.bytes {
                    peak = now;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            peak
        });
        Self { stop, watcher }
    }

    /// Stops and tells the peak.
    pub fn peak(self) -> Peak {
        self.stop.store(true, Ordering::Relaxed);
        self.watcher.join().unwrap()
    }
}

struct Process {
    parent: u32,
    name: String,
    resident: u64,
}

fn sample(server: u32, data: &str) -> Peak {
    let processes: BTreeMap<u32, Process> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, process(pid)?)))
        .collect();
    let own = arguments(server);
    let supervises = |pid: u32, process: &Process| {
        process.name == "towpath" && {
            let line = arguments(pid);
            line.contains("__workload") && line.contains(data)
        }
    };
    let ours = |pid: u32| {
        let mut at = pid;
        while let Some(process) = processes.get(&at) {
            if at == server || supervises(at, process) {
                return true;
            }
            at = process.parent;
        }
        false
    };
    // A child that has not begun its own program yet shares the memory of the server, which is counted already.
    let unborn = |pid: u32| pid != server && arguments(pid) == own;
    let counted = processes.iter().filter(|(pid, _)| ours(**pid) && !unborn(**pid));
    let mut found: Vec<_> = counted.map(|(_, process)| (process.name.clone(), process.resident)).collect();
    found.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Peak { bytes: found.iter().map(|(_, bytes)| bytes).sum(), processes: found }
}

fn arguments(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

fn process(pid: u32) -> Option<Process> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // What has no memory of its own, a kernel thread or a process that has just ended, has no such line.
    let resident: u64 = field("VmRSS:")?.split_whitespace().next()?.parse().ok()?;
    Some(Process { parent: field("PPid:")?.parse().ok()?, name: field("Name:")?.to_owned(), resident: resident << 10 })
}
