//! What a server and all its processes take: processor time and memory.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::processes::{Ledger, Process, Tree, seconds};

/// The pause between two looks. Shorter ones would take the time that is measured.
const PAUSE: Duration = Duration::from_millis(40);

/// Looks at the processes of a data directory until it is dropped.
pub(crate) struct Meter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

struct State {
    tree: Tree,
    ledger: Ledger,
    peak: Peak,
}

/// The most memory of all processes at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    /// The sum of what each has in memory, in bytes: pages that several share count for each.
    pub(crate) rss: u64,
    /// The same with shared pages counted once, in bytes; looked at when `rss` grows.
    pub(crate) pss: u64,
    /// How many processes there were.
    pub(crate) processes: usize,
}

impl Meter {
    pub(crate) fn start(data: &Path) -> Self {
        let state = State { tree: Tree::new(data), ledger: Ledger::default(), peak: Peak::default() };
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), state: Mutex::new(state) });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !theirs.stop.load(Ordering::Relaxed) {
                theirs.look();
                std::thread::sleep(PAUSE);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Seconds of processor time that all processes took that lived so far.
    pub(crate) fn cpu(&self) -> f64 {
        self.shared.look();
        seconds(self.shared.state().ledger.total())
    }

    /// The most memory so far.
    pub(crate) fn peak(&self) -> Peak {
        self.shared.state().peak
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let mut state = self.state();
        let processes = state.tree.look();
        state.ledger.take(&processes);
        let rss = processes.iter().map(Process::rss).sum();
        if rss > state.peak.rss {
            let pss: u64 = processes.iter().map(Process::pss).sum();
            state.peak = Peak { rss, pss: pss.max(state.peak.pss), processes: processes.len() };
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
