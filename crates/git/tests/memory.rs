//! A file larger than all memory that a server may use passes through in pieces. A test of its own, as it measures its
//! own process.

#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use git::{Git, Materialise, Repository};
use model::{CommitId, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The length of the file in bytes.
const SIZE: u64 = 300 << 20;

/// How much this process and all its children may have in memory together, in bytes.
const MOST: u64 = 100 << 20;

/// The resident memory of this process and its children now, in bytes.
fn resident() -> u64 {
    let own = std::process::id().to_string();
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().trim_end_matches(" kB").to_owned()))
    };
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let status = std::fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
        let mine = field(&status, "Pid:")? == own || field(&status, "PPid:")? == own;
        mine.then(|| field(&status, "VmRSS:")?.parse::<u64>().ok())?
    });
    processes.sum::<u64>() << 10
}

/// The most memory used while `work` ran, in bytes.
async fn peak<T>(work: impl Future<Output = T>) -> (T, u64) {
    let (done, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (watched, seen) = (done.clone(), most.clone());
    let watcher = std::thread::spawn(move || {
        while !watched.load(Ordering::Relaxed) {
            seen.fetch_max(resident(), Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    let result = work.await;
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    (result, most.load(Ordering::Relaxed))
}

/// Bytes that do not compress.
fn noise(seed: &mut u64) -> Vec<u8> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33).to_le_bytes()
    };
    (0..1 << 17).flat_map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_does_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let git = Git::discover().unwrap();
    let repository = Repository::init(&git, &dir.path().join("r.git"), "main").await.unwrap();
    let file = dir.path().join("noise");
    let mut out = std::fs::File::create(&file).unwrap();
    let mut seed = 7;
    for _ in 0..SIZE >> 20 {
        std::io::Write::write_all(&mut out, &noise(&mut seed)).unwrap();
    }
    let path = file.to_str().unwrap();
    // The compression is not what is measured, and slow.
    let args = ["-c", "core.compression=0", "hash-object", "-w", path];
    let (blob, most) = peak(answer(&repository, &args, b"")).await;
    assert!(most < MOST, "writing: {most}");
    let tree = format!("100644 blob {blob}\tlarge\0");
    let tree = answer(&repository, &["mktree", "-z"], tree.as_bytes()).await;
    let mut commit = repository.command();
    for who in ["AUTHOR", "COMMITTER"] {
        commit.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a");
    }
    let output = commit.args(["commit-tree", &tree, "-m", "x"]).output().await.unwrap();
    let commit = String::from_utf8(output.stdout).unwrap().trim().parse::<CommitId>().unwrap();

    // What a fetch and a push do.
    let other = Repository::init(&git, &dir.path().join("other.git"), "main").await.unwrap();
    let (_, most) = peak(async {
        let mut pack = repository.command();
        pack.args(["pack-objects", "--revs", "--stdout", "-q"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut pack = pack.spawn().unwrap();
        pack.stdin.take().unwrap().write_all(format!("{commit}\n").as_bytes()).await.unwrap();
        let from: Stdio = pack.stdout.take().unwrap().try_into().unwrap();
        let mut index = other.command();
        index.args(["index-pack", "--stdin", "--strict", "--fix-thin"]).stdin(from).stdout(Stdio::null());
        assert!(index.status().await.unwrap().success());
    })
    .await;
    assert!(most < MOST, "sending and receiving: {most}");

    let dest = dir.path().join("out");
    let wanted = Materialise { path: "", owner: None, mtime: Timestamp(0), keep: &|_| true };
    let (summary, most) = peak(other.materialise(&commit, wanted, &dest)).await;
    assert_eq!(summary.unwrap().bytes, SIZE);
    assert!(most < MOST, "materialising: {most}");
    assert!(same(&file, &dest.join("large")));

    let (read, most) = peak(async {
        let mut batch = other.blobs().await.unwrap();
        let mut blob = batch.read(&blob).await.unwrap();
        let (mut read, mut chunk) = (0, vec![0; 64 << 10]);
        while let count @ 1.. = blob.read(&mut chunk).await.unwrap() {
            read += count as u64;
        }
        read
    })
    .await;
    assert_eq!(read, SIZE);
    assert!(most < MOST, "reading: {most}");
}

async fn answer(repository: &Repository, args: &[&str], input: &[u8]) -> String {
    let mut child = repository.command().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).await.unwrap_or_default();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn same(one: &std::path::Path, other: &std::path::Path) -> bool {
    use std::io::Read;
    let (mut one, mut other) = (std::fs::File::open(one).unwrap(), std::fs::File::open(other).unwrap());
    let (mut first, mut second) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for _ in 0..SIZE >> 20 {
        one.read_exact(&mut first).unwrap();
        other.read_exact(&mut second).unwrap();
        if first != second {
            return false;
        }
    }
    other.read(&mut first).unwrap() == 0
}
