//! Leaving nothing behind. Jobs, services and proxies outlive their server by design, so stopping that is not enough.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::supervise;

/// How long a supervisor may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where supervisors have their directories, and how deep below.
const PLACES: [(&str, u32); 3] = [("sites", 1), ("services", 2), ("jobs", 1)];

/// Ends every supervisor that lives below a data directory whose server has ended. What is in their sandboxes ends with
/// them.
pub(super) fn end_supervisors(data: &Path) {
    let mut living = Vec::new();
    for (place, depth) in PLACES {
        collect(&data.join(place), depth, &mut living);
    }
    for dir in &living {
        // Its lock holds its process id for as long as it lives.
        let noted = std::fs::read_to_string(dir.join("lock")).unwrap_or_default();
        let pid = noted.trim().parse().ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| supervise::alive(dir)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let began = Instant::now();
    while living.iter().any(|dir| supervise::alive(dir)) && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn collect(dir: &Path, depth: u32, living: &mut Vec<PathBuf>) {
    if depth == 0 {
        if supervise::alive(dir) {
            living.push(dir.to_owned());
        }
        return;
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        collect(&entry.path(), depth - 1, living);
    }
}

/// Removes a directory with everything that sandboxes made in it. What just ended may still let go of files.
///
/// # Errors
/// When something cannot be removed.
pub(super) fn remove(dir: &Path) -> std::io::Result<()> {
    let began = Instant::now();
    loop {
        match sandbox::remove_tree(dir) {
            Err(_) if began.elapsed() < Duration::from_secs(2) => std::thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}
