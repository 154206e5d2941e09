//! Starting, streams, ends, signals.

use std::path::Path;
use std::time::{Duration, Instant};

use sandbox::{Exit, SandboxError, Stdio};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{finish, host, inside, isolates, run, shell};

#[tokio::test]
async fn says_what_it_wrote_and_how_it_ended() {
    if !isolates() {
        return;
    }
    let done = run(shell("echo out; echo err >&2; exit 3")).await;
    assert_eq!((done.exit, done.out.as_str(), done.err.as_str()), (Ok(Exit::Code(3)), "out\n", "err\n"));
    assert_eq!(run(shell("kill -SEGV $$")).await.exit, Ok(Exit::Signal(11)));
}

#[tokio::test]
async fn names_a_program_that_does_not_run() {
    if !isolates() {
        return;
    }
    assert_eq!(run(host(["no-such-program"])).await.exit, Err(SandboxError::NotFound("no-such-program".to_owned())));
    assert_eq!(run(host(["/no/such"])).await.exit, Err(SandboxError::NotFound("/no/such".to_owned())));
    for program in ["/usr", "/etc/passwd"] {
        match run(host([program])).await.exit {
            Err(SandboxError::CannotRun { program: named, .. }) => assert_eq!(named, program),
            other => panic!("{other:?}"),
        }
    }
    let mut spec = shell("true");
    spec.cwd = "/no/such/directory".to_owned();
    match run(spec).await.exit {
        Err(error) => assert!(error.to_string().contains("/no/such/directory"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn streams_go_where_they_are_led() {
    if !isolates() {
        return;
    }
    let mut spec = shell("cat; for i in 1 2 3; do echo o$i; echo e$i >&2; done");
    spec.stdin = Stdio::Piped;
    spec.stderr = Stdio::Stdout;
    let mut running = sandbox::spawn(spec).unwrap();
    let mut stdin = running.take_stdin().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    drop(stdin);
    let done = finish(running).await;
    assert_eq!((done.out.as_str(), done.err.as_str()), ("typed\no1\ne1\no2\ne2\no3\ne3\n", ""));

    let file = tempfile::NamedTempFile::new().unwrap();
    let mut spec = shell("echo to a file; readlink /proc/self/fd/0");
    spec.stdout = Stdio::Fd(file.reopen().unwrap().into());
    run(spec).await.ok();
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "to a file\n/dev/null\n");
}

#[tokio::test]
async fn orphans_are_reaped() {
    if !isolates() {
        return;
    }
    // A hundred processes whose parents are gone, each ended before the count.
    let script = "i=0; while [ $i -lt 100 ]; do (sh -c 'true' & ) ; i=$((i+1)); done; sleep 0.3; \
        cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '";
    assert_eq!(run(shell(script)).await.out, "0\n");
}

#[tokio::test]
async fn an_ignored_signal_is_not_the_last_word() {
    if !isolates() {
        return;
    }
    for (script, expected) in [
        ("trap '' TERM; echo ready; while :; do sleep 0.1; done", Exit::Signal(9)),
        ("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done", Exit::Code(7)),
    ] {
        let mut running = sandbox::spawn(shell(script)).unwrap();
        wait_for_output(&mut running).await;
        running.stop(libc::SIGTERM, Duration::from_millis(if expected == Exit::Code(7) { 20_000 } else { 300 }));
        assert_eq!(running.wait().await, Ok(expected));
    }
    let mut running = sandbox::spawn(shell("echo ready; exec sleep 100")).unwrap();
    wait_for_output(&mut running).await;
    running.signal(libc::SIGINT);
    assert_eq!(running.wait().await, Ok(Exit::Signal(2)));
}

async fn wait_for_output(running: &mut sandbox::Running) {
    let mut first = [0];
    running.take_stdout().unwrap().read_exact(&mut first).await.unwrap();
}

#[tokio::test]
async fn killing_and_dropping_end_everything() {
    if !isolates() {
        return;
    }
    let script = "(setsid sleep 1000 &); echo ready; sleep 1000";
    let mut running = sandbox::spawn(shell(script)).unwrap();
    wait_for_output(&mut running).await;
    let pid = running.pid().unwrap();
    assert!(exists(pid));
    running.kill();
    assert_eq!(running.wait().await, Ok(Exit::Signal(9)));
    assert!(!exists(pid));

    let mut running = sandbox::spawn(shell(script)).unwrap();
    wait_for_output(&mut running).await;
    let pid = running.pid().unwrap();
    drop(running);
    gone(pid);
}

#[tokio::test]
async fn a_killed_helper_is_not_silent() {
    if !isolates() {
        return;
    }
    let mut running = sandbox::spawn(shell("echo ready; exec sleep 1000")).unwrap();
    wait_for_output(&mut running).await;
    let pid = running.pid().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent: i32 = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(running.wait().await, Err(SandboxError::Lost));
    gone(pid);
}

#[tokio::test]
async fn the_machine_s_tools_work() {
    if !isolates() {
        return;
    }
    let script = "cd /tmp && git init -q r && cd r && echo x > f && git add f && \
        git -c user.name=a -c user.email=a@b commit -qm m && git log --format=%s && \
        printf 'b\\na\\n' | sort | head -1 && awk 'BEGIN { print 1 + 1 }' && tar -cf - f | tar -tf -";
    let mut spec = shell(script);
    spec.env.push(("HOME".to_owned(), "/tmp".to_owned()));
    assert_eq!(run(spec).await.ok(), "m\na\n2\nf\n");
}

#[tokio::test]
async fn dies_with_its_owner() {
    if !isolates() {
        return;
    }
    let mut owner = inside::command("own", Path::new("")).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let out = owner.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    assert!(exists(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    gone(pid);
}

/// As a process of its own: owns a sandbox until it is killed.
pub fn own(_: &str) {
    block_on(async {
        let running = sandbox::spawn(shell("(setsid sleep 1000 &); trap '' TERM HUP; sleep 1000")).unwrap();
        running.started().await.unwrap();
        let line = format!("{}\n", running.pid().unwrap());
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
        let _ = running.wait().await;
    });
}

pub fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

#[test]
fn leaves_nothing_behind_in_its_owner() {
    if !isolates() {
        return;
    }
    let output = inside::command("leaks", Path::new("")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0 0\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// As a process of its own: prints how many more descriptors and children it has after several sandboxes than before.
pub fn leaks() {
    block_on(async {
        let count = || {
            let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
            (std::fs::read_dir("/proc/self/fd").unwrap().count(), children.split_whitespace().count())
        };
        run(shell("true")).await.ok();
        let before = count();
        for _ in 0..5 {
            run(shell("echo x; exit 1")).await;
            run(host(["no-such-program"])).await;
            let dropped = sandbox::spawn(shell("sleep 100")).unwrap();
            let pid = loop {
                match dropped.pid() {
                    Some(pid) => break pid,
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            drop(dropped);
            while exists(pid) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let after = count();
        let line = format!("{} {}\n", after.0 - before.0, after.1 - before.1);
        std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
    });
}

pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until a process is gone.
pub fn gone(pid: u32) {
    let start = Instant::now();
    while exists(pid) {
        assert!(start.elapsed() < Duration::from_secs(10), "process {pid} still lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once() {
    if !isolates() {
        return;
    }
    let mut all = tokio::task::JoinSet::new();
    for n in 0..30 {
        all.spawn(async move { (n, run(shell(&format!("echo {n}; exit {n}"))).await) });
    }
    while let Some(done) = all.join_next().await {
        let (n, done) = done.unwrap();
        assert_eq!((done.exit, done.out), (Ok(Exit::Code(n)), format!("{n}\n")));
    }
}

#[test]
fn needs_a_runtime() {
    assert!(matches!(sandbox::spawn(shell("true")), Err(SandboxError::Invalid(_))));
}

#[tokio::test]
async fn refuses_what_cannot_be_said() {
    let bad = |change: fn(&mut sandbox::Spec)| {
        let mut spec = shell("true");
        change(&mut spec);
        assert!(matches!(sandbox::spawn(spec), Err(SandboxError::Invalid(_) | SandboxError::NoTier(_))));
    };
    bad(|spec| spec.argv.clear());
    bad(|spec| spec.argv.push("a\0b".to_owned()));
    bad(|spec| spec.env.push(("A=B".to_owned(), String::new())));
    bad(|spec| spec.cwd = "relative".to_owned());
    bad(|spec| spec.hostname = String::new());
    bad(|spec| spec.mounts.push(crate::bind(Path::new("/usr"), "/", true)));
    bad(|spec| spec.mounts.push(crate::bind(Path::new("usr"), "/x", true)));
}

#[tokio::test]
async fn starts_within_a_fifth_of_a_second() {
    if !isolates() {
        return;
    }
    run(shell("true")).await.ok();
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        run(shell("true")).await.ok();
        times.push(start.elapsed());
    }
    times.sort();
    assert!(times[10] < Duration::from_millis(200), "{times:?}");
}
