//! A file larger than all memory that git may use goes in and out. A test of its own, as it measures all git processes
//! of its server.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use support::Host;

/// The length of the file in bytes.
const SIZE: usize = 300 << 20;

/// How much the git processes of the server may have in memory together, in kilobytes.
const MOST: u64 = 100 << 10;

/// The resident memory in kilobytes of all processes that work in `dir`: those of now, summed.
fn resident(dir: &std::path::Path) -> u64 {
    let here = |process: &std::path::Path| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == dir);
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|it| it.path()).filter(|it| here(it));
    let memory = processes.filter_map(|process| {
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    memory.sum()
}

fn space(dir: &std::path::Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(0, |stat| stat.f_bavail * stat.f_frsize)
}

#[allow(clippy::print_stderr)] // What was missing, and the figures.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_in_and_out() {
    let shared = std::path::Path::new("/dev/shm");
    let root = if space(shared) > 3 << 30 { shared.to_owned() } else { std::env::temp_dir() };
    if space(&root) < 3 << 30 {
        eprintln!("skipped: 3 GiB of space in {}", root.display());
        return;
    }
    let host = Host::start_in(tempfile::tempdir_in(root).unwrap()).await;
    let dir = host.git_dir().canonicalize().unwrap();
    let (done, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = std::thread::spawn({
        let (done, most) = (done.clone(), most.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(resident(&dir), Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    });

    let client = host.with_commit("client").await;
    let mut file = std::fs::File::create(client.dir.join("large")).unwrap();
    let mut seed = 7_u64;
    for _ in 0..SIZE >> 20 {
        let mut chunk = vec![0; 1 << 20];
        chunk.chunks_mut(8).for_each(|bytes| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.copy_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
        });
        file.write_all(&chunk).unwrap();
    }
    // The client's compression is not what is measured, and slow.
    client.git(&["config", "core.compression", "0"]).await;
    client.git(&["config", "core.bigFileThreshold", "1m"]).await;
    client.git(&["add", "."]).await;
    client.git(&["commit", "-q", "-m", "large"]).await;
    let began = Instant::now();
    client.git(&["push", "-q", "origin", "main"]).await;
    let (pushed, push_peak) = (began.elapsed(), most.swap(0, Ordering::Relaxed));
    let copy = host.client("copy");
    let began = Instant::now();
    copy.git(&["clone", "-q", "--bare", &host.url, "."]).await;
    let cloned = began.elapsed();
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    let clone_peak = most.load(Ordering::Relaxed);
    eprintln!("push {pushed:?} {push_peak} kB, clone {cloned:?} {clone_peak} kB");
    assert_eq!(copy.git(&["cat-file", "-s", "main:large"]).await, SIZE.to_string());
    assert!(push_peak > 0 && push_peak < MOST, "push: {push_peak} kB");
    assert!(clone_peak > 0 && clone_peak < MOST, "clone: {clone_peak} kB");
}
