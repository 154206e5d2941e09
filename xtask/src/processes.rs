//! The processes of a server: what it started, and the supervisors that nothing ties to it.

use std::collections::{HashMap, HashSet};

/// One process, as `/proc` has it at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// When it started, in ticks since boot: with the pid it names one process for good.
    pub(crate) start: u64,
    /// Processor time of itself and of the children it waited for, in ticks.
    pub(crate) ticks: u64,
    name: String,
}

/// Ticks of a second, in `/proc/PID/stat`.
const TICKS: f64 = 100.0;

/// Ticks as seconds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS
}

impl Process {
    /// Nothing if it has ended.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything.
        let (head, rest) = text.rsplit_once(") ")?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |index: usize| fields.get(index)?.trim().parse::<u64>().ok();
        let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        let parent = u32::try_from(number(1)?).ok()?;
        Some(Self { pid, parent, start: number(19)?, ticks, name })
    }

    fn key(&self) -> (u32, u64) {
        (self.pid, self.start)
    }

    /// Bytes it has in memory.
    pub(crate) fn rss(&self) -> u64 {
        self.kibibytes("status", "VmRSS:")
    }

    /// The most bytes it had in memory.
    pub(crate) fn peak_rss(&self) -> u64 {
        self.kibibytes("status", "VmHWM:")
    }

    /// The same with its share of what it has together with others, in bytes.
    pub(crate) fn pss(&self) -> u64 {
        self.kibibytes("smaps_rollup", "Pss:")
    }

    fn kibibytes(&self, file: &str, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

/// The command line of a process, with spaces between its words.
pub(crate) fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Finds the processes that belong to one data directory.
pub(crate) struct Tree {
    /// The directory: it is in the command line of the server and of each supervisor.
    data: String,
    /// What a look at the command line said, by process and name: the name changes with what a process executes.
    known: HashMap<(u32, u64, String), bool>,
}

impl Tree {
    pub(crate) fn new(data: &std::path::Path) -> Self {
        Self { data: data.display().to_string(), known: HashMap::new() }
    }

    /// The processes of now.
    pub(crate) fn look(&mut self) -> Vec<Process> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let all: Vec<Process> = pids.filter_map(Process::read).collect();
        let mut mine: HashSet<u32> = all.iter().filter(|it| self.is_root(it)).map(|it| it.pid).collect();
        loop {
            let more: Vec<u32> =
                all.iter().filter(|it| mine.contains(&it.parent) && !mine.contains(&it.pid)).map(|it| it.pid).collect();
            if more.is_empty() {
                break;
            }
            mine.extend(more);
        }
        all.into_iter().filter(|it| mine.contains(&it.pid)).collect()
    }

    fn is_root(&mut self, process: &Process) -> bool {
        let key = (process.pid, process.start, process.name.clone());
        let data = &self.data;
        *self.known.entry(key).or_insert_with(|| {
            let line = command_line(process.pid);
            // A git client of ours has its work tree elsewhere; only the program itself names its data directory.
            line.contains(data.as_str()) && (line.contains(" up --data ") || line.contains("__workload"))
        })
    }
}

/// Adds up the processor time of a tree whose processes come and go.
#[derive(Default)]
pub(crate) struct Ledger {
    living: HashMap<(u32, u64), Process>,
    gone: u64,
}

impl Ledger {
    /// Takes a look at the tree.
    pub(crate) fn take(&mut self, processes: &[Process]) {
        let now: HashMap<_, _> = processes.iter().map(|it| (it.key(), it.clone())).collect();
        let alive: HashSet<u32> = processes.iter().map(|it| it.pid).collect();
        for (key, process) in &self.living {
            // What a parent waited for is in the parent's own count.
            if !now.contains_key(key) && !alive.contains(&process.parent) {
                self.gone += process.ticks;
            }
        }
        self.living = now;
    }

    /// The time of all that lived, in ticks.
    pub(crate) fn total(&self) -> u64 {
        self.gone + self.living.values().map(|it| it.ticks).sum::<u64>()
    }
}
