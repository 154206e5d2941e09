//! Workloads that outlive who started them.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::Exit;
use sandbox::supervise::{self, Control, Started, SuperviseError, Supervised};

use crate::inside::{self, WORD};
use crate::process::{block_on, exists, gone};
use crate::{Work, isolates, shell};

fn argv(dir: &Path) -> Vec<String> {
    [WORD, "supervise", dir.to_str().unwrap()].map(str::to_owned).to_vec()
}

/// As a process of its own: starts a supervisor and ends without a farewell.
pub fn starter(dir: &Path) {
    assert_eq!(supervise::start(dir, &argv(dir)).unwrap(), Started::New);
    nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// As a process of its own: owns a sandbox and does as it is told.
pub fn supervise(dir: &Path) {
    if dir.join("broken").exists() {
        std::io::stderr().write_all(b"the configuration is broken\n").unwrap();
        std::process::exit(1);
    }
    block_on(async {
        let mut control = match Control::open(dir) {
            Ok(control) => control,
            Err(error) => panic!("{error}"),
        };
        let running = isolates().then(|| sandbox::spawn(shell("sleep 1000")).unwrap());
        if let Some(running) = &running {
            running.started().await.unwrap();
        }
        // Should the test that started it fail, it goes by itself.
        while let Ok(Some(request)) = tokio::time::timeout(Duration::from_secs(60), control.next()).await {
            let line = request.line().to_owned();
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("pid", _) => request.reply(std::process::id().to_string()).await,
                ("inner", _) => request.reply(running.as_ref().and_then(|r| r.pid()).unwrap_or(0).to_string()).await,
                ("file", text) => {
                    let mut file = tempfile::tempfile().unwrap();
                    file.write_all(text.as_bytes()).unwrap();
                    std::io::Seek::rewind(&mut file).unwrap();
                    request.reply_with("here", file.into()).await;
                }
                ("finish", code) => {
                    request.reply("bye").await;
                    let detail = serde_json::json!({ "why": "told" });
                    return control.finish(Exit::Code(code.parse().unwrap()), detail).unwrap();
                }
                _ => drop(request),
            }
        }
    });
}

async fn number(supervised: &Supervised, what: &str) -> u32 {
    supervised.request(what).await.unwrap().parse().unwrap()
}

#[tokio::test]
async fn outlives_its_starter_and_records_its_end() {
    let work = Work::new((0, 0));
    // Longer than a socket's path may be.
    let dir = work.0.join("d".repeat(120)).join("e".repeat(80));
    let status = inside::command("start", &dir).status().unwrap();
    assert!(!status.success());
    assert!(supervise::alive(&dir) && supervise::exit(&dir).is_none());
    let supervised = Supervised::attach(&dir).unwrap().unwrap();
    let pid = number(&supervised, "pid").await;
    assert!(exists(pid));
    // Nobody's child: a session of its own, with init or a subreaper as parent.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_ne!(fields[1].parse::<u32>().unwrap(), std::process::id());
    assert_ne!(
        fields[3],
        std::fs::read_to_string("/proc/self/stat")
            .unwrap()
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .nth(3)
            .unwrap()
    );

    assert_eq!(supervise::start(&dir, &argv(&dir)).unwrap(), Started::Running);
    let other = Supervised::attach(&dir).unwrap().unwrap();
    assert_eq!(number(&other, "pid").await, pid);
    let (line, file) = other.request_with("file content").await.unwrap();
    assert_eq!(
        (line.as_str(), std::io::read_to_string(std::fs::File::from(file.unwrap())).unwrap().as_str()),
        ("here", "content")
    );

    let (record, bye) = tokio::join!(supervised.wait(), other.request("finish 5"));
    assert_eq!(bye.unwrap(), "bye");
    let record = record.unwrap();
    assert_eq!((record.exit, record.detail), (Exit::Code(5), serde_json::json!({ "why": "told" })));
    gone(pid);
    assert!(!supervise::alive(&dir));
    assert_eq!(supervise::exit(&dir).unwrap().exit, Exit::Code(5));
    assert!(Supervised::attach(&dir).unwrap().is_none());
    // Once ended, it is not started again unless that is wanted.
    assert_eq!(supervise::start(&dir, &argv(&dir)).unwrap(), Started::Finished);
    supervise::reset(&dir).unwrap();
    assert_eq!(supervise::start(&dir, &argv(&dir)).unwrap(), Started::New);
    let again = Supervised::attach(&dir).unwrap().unwrap();
    assert!(matches!(supervise::reset(&dir), Err(SuperviseError::AlreadyRunning(_))));
    again.request("finish 0").await.unwrap();
    assert!(again.wait().await.unwrap().exit.success());
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_sandbox_along_and_is_lost() {
    if !isolates() {
        return;
    }
    let work = Work::new((0, 0));
    let dir = work.0.join("s");
    supervise::start(&dir, &argv(&dir)).unwrap();
    let supervised = Supervised::attach(&dir).unwrap().unwrap();
    let (pid, inner) = (number(&supervised, "pid").await, number(&supervised, "inner").await);
    assert!(exists(inner));
    let pid_to_kill = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    let (lost, ()) = tokio::join!(supervised.wait(), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        nix::sys::signal::kill(pid_to_kill, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    assert!(matches!(lost, Err(SuperviseError::Lost(_))));
    gone(inner);
    gone(pid);
    assert!(supervised.request("pid").await.is_err());
    // The directory can be used again as it is.
    assert_eq!(supervise::start(&dir, &argv(&dir)).unwrap(), Started::New);
    let supervised = Supervised::attach(&dir).unwrap().unwrap();
    supervised.request("finish 0").await.unwrap();
    supervised.wait().await.unwrap();
}

#[test]
fn a_supervisor_that_fails_says_why() {
    let work = Work::new((0, 0));
    std::fs::write(work.0.join("broken"), "").unwrap();
    match supervise::start(&work.0, &argv(&work.0)) {
        Err(SuperviseError::NotStarted { said, .. }) => assert!(said.contains("the configuration is broken"), "{said}"),
        other => panic!("{other:?}"),
    }
    assert!(!supervise::alive(&work.0));
}

#[tokio::test]
async fn two_starters_make_one_supervisor() {
    let work = Work::new((0, 0));
    let dir = work.0.join("s");
    let start = || {
        let dir = dir.clone();
        tokio::task::spawn_blocking(move || supervise::start(&dir, &argv(&dir)))
    };
    let (a, b, c) = tokio::join!(start(), start(), start());
    let all = [a.unwrap().unwrap(), b.unwrap().unwrap(), c.unwrap().unwrap()];
    assert!(all.iter().all(|started| matches!(started, Started::New | Started::Running)), "{all:?}");
    let supervised = Supervised::attach(&dir).unwrap().unwrap();
    let before = Instant::now();
    for _ in 0..100 {
        number(&supervised, "pid").await;
    }
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    let (a, b, c) = tokio::join!(number(&supervised, "pid"), number(&supervised, "pid"), number(&supervised, "pid"));
    assert!(a == b && b == c);
    // An asker that gives up leaves no answer for the next one.
    tokio::select! {
        biased;
        _ = supervised.request("file x") => {}
        () = std::future::ready(()) => {}
    }
    assert_eq!(number(&supervised, "pid").await, a);
    // An answer that never comes ends the connection, and no other.
    assert!(supervised.request("nonsense").await.is_err());
    let again = Supervised::attach(&dir).unwrap().unwrap();
    assert!(matches!(again.request(&"x".repeat(1 << 20)).await, Err(SuperviseError::TooLong(_))));
    again.request("finish 0").await.unwrap();
    again.wait().await.unwrap();
}
