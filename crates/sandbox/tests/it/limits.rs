//! What a command cannot use up.

use std::time::{Duration, Instant};

use sandbox::{Exit, LimitHit, Privileges, SandboxError, probe};

use crate::{isolates, probe_program, run, shell};

#[tokio::test]
async fn a_fork_bomb_is_held_to_its_number() {
    if !isolates() {
        return;
    }
    // Also when it takes on many user ids.
    for (user, privileges) in [(sandbox::id_map().ordinary(), Privileges::None), ((0, 0), Privileges::Container)] {
        let mut spec = probe_program("fork-bomb");
        (spec.user, spec.privileges) = (user, privileges);
        spec.limits.pids = Some(40);
        let processes: usize = run(spec).await.ok().trim().parse().unwrap();
        // The first process of the sandbox is seen and does not count.
        assert!((30..=41).contains(&processes), "{processes} processes as {user:?}");
    }
}

#[tokio::test]
async fn time_is_up_for_everything() {
    if !isolates() {
        return;
    }
    let start = Instant::now();
    let mut spec = shell("trap '' TERM; (setsid sleep 100 &) ; sleep 100 & wait");
    spec.limits.wall = Some(Duration::from_millis(300));
    // The output ends only when every process that holds it is dead.
    assert_eq!(run(spec).await.exit, Ok(Exit::Limit(LimitHit::Wall)));
    let passed = start.elapsed();
    assert!(passed >= Duration::from_millis(300) && passed < Duration::from_secs(5), "{passed:?}");
}

#[tokio::test]
async fn memory_is_held_or_declared() {
    if !isolates() {
        return;
    }
    let declared = probe().unenforced.iter().any(|line| line.starts_with("memory"));
    let mut spec = probe_program("memory");
    spec.limits.memory = Some(64 << 20);
    let exit = run(spec).await.exit.unwrap();
    if declared {
        assert_eq!(exit, Exit::Code(9));
    } else {
        assert_eq!(exit, Exit::Limit(LimitHit::Memory));
    }
    let mut spec = shell("true");
    spec.limits.memory = Some(64 << 20);
    spec.limits.strict = true;
    match run(spec).await.exit {
        Err(SandboxError::Refused(message)) if declared => assert!(message.contains("memory"), "{message}"),
        Ok(Exit::Code(0)) if !declared => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn output_is_held() {
    if !isolates() {
        return;
    }
    let mut spec = shell("yes");
    spec.limits.output = Some(1 << 20);
    let done = run(spec).await;
    assert_eq!(done.exit, Ok(Exit::Limit(LimitHit::Output)));
    assert!(done.out.len() <= 1 << 20, "{}", done.out.len());
}

#[tokio::test]
async fn files_and_descriptors_are_held() {
    if !isolates() {
        return;
    }
    let mut spec = shell("ulimit -n; ulimit -c; head -c 100000 /dev/zero > /tmp/big; wc -c < /tmp/big");
    spec.limits.file_size = Some(4096);
    spec.limits.open_files = Some(64);
    assert_eq!(run(spec).await.out, "64\n0\n4096\n");
}

#[tokio::test]
async fn processor_time_is_held_or_declared() {
    if !isolates() {
        return;
    }
    if probe().unenforced.iter().any(|line| line.starts_with("processor")) {
        testkit::skipped("a writable cgroup for processor time");
        return;
    }
    let mut spec = shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
    let start = Instant::now();
    run(shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")).await.ok();
    let free = start.elapsed();
    spec.limits.cpu_millis = Some(100);
    let start = Instant::now();
    run(spec).await.ok();
    assert!(start.elapsed() > free * 3, "{free:?} {:?}", start.elapsed());
}
