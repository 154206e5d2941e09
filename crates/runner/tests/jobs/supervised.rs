//! Jobs as the server has them: in processes that outlive it.

use std::path::Path;
use std::time::Duration;

use model::{JobId, JobResult};
use runner::{JobSpec, JobState, Jobs, JobsError};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::bed::{Bed, texts};

/// The jobs of a bed.
fn jobs(bed: &Bed) -> Jobs {
    Jobs::new(bed.dir.path().join("jobs"))
}

/// As a process of its own: starts the job in `dir/spec.json` and dies without a farewell.
pub fn server(dir: &Path) -> ! {
    let spec = JobSpec::read(dir).unwrap().unwrap();
    // The job must not depend on what the server's files may be read by.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Jobs::new(dir.join("jobs")).start(&spec)).unwrap();
    kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
    unreachable!("killed")
}

async fn until_log_says(jobs: &Jobs, job: JobId, line: &str) {
    let path = jobs.log_path(job);
    while !path.exists() || !texts(&path).iter().any(|text| text == line) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn from_start_to_report() {
    let Some(bed) = Bed::new().await else { return };
    let jobs = jobs(&bed);
    let mut spec = bed.spec(&json!([{"uses": "actions/checkout@v4"}, {"run": "cat README; echo ${{ secrets.S }}"}]));
    spec.secrets.insert("S".to_owned(), "hunter2hunter2".to_owned());
    assert_eq!(jobs.state(spec.job).unwrap(), JobState::Absent);
    assert!(matches!(jobs.wait(spec.job).await, Err(JobsError::Absent(_))));
    jobs.start(&spec).await.unwrap();
    assert!(!texts(&jobs.log_path(spec.job)).is_empty(), "the first line is there at once");
    let (one, other) = tokio::join!(jobs.wait(spec.job), jobs.wait(spec.job));
    let report = one.unwrap();
    assert_eq!(report.result, JobResult::Success, "{report:?} {:?}", texts(&jobs.log_path(spec.job)));
    assert_eq!(other.unwrap(), report);
    jobs.start(&spec).await.unwrap();
    assert_eq!(jobs.state(spec.job).unwrap(), JobState::Ended(Box::new(report)));

    let first = jobs.read_log(spec.job, 0, 0).unwrap();
    let text = String::from_utf8(first.text).unwrap();
    assert!(text.contains(" hello\n") && text.contains(" ***\n"), "{text}");
    let end = jobs.read_log(spec.job, first.next, 0).unwrap();
    assert_eq!((end.text.len(), end.next), (0, first.next));

    // What is secret, and what is large, does not stay.
    let dir = jobs.dir(spec.job);
    while sandbox::supervise::alive(&dir) || dir.join("workspace").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kept = JobSpec::read(&dir).unwrap().unwrap();
    assert!(kept.secrets.is_empty() && kept.token.is_none());
    jobs.remove(spec.job).unwrap();
    assert_eq!(jobs.state(spec.job).unwrap(), JobState::Absent);
}

#[tokio::test]
async fn outlives_the_server() {
    let Some(bed) = Bed::new().await else { return };
    let go = "until test -e /workspace/go; do sleep 0.01; done; echo after";
    let spec = bed.spec(&json!([{"run": format!("echo before; {go}")}]));
    spec.write(bed.dir.path()).unwrap();
    let mut server = tokio::process::Command::new("/proc/self/exe");
    let status = server.args(["__workload", "server"]).arg(bed.dir.path()).status().await.unwrap();
    assert_eq!(status.code(), None, "the server was killed");
    let jobs = jobs(&bed);
    until_log_says(&jobs, spec.job, "before").await;
    assert_eq!(jobs.state(spec.job).unwrap(), JobState::Running);
    std::fs::write(jobs.dir(spec.job).join("workspace/go"), "").unwrap();
    assert_eq!(jobs.wait(spec.job).await.unwrap().result, JobResult::Success);
    assert!(texts(&jobs.log_path(spec.job)).contains(&"after".to_owned()));
}

#[tokio::test]
async fn is_cancelled_from_the_server() {
    let Some(bed) = Bed::new().await else { return };
    let jobs = jobs(&bed);
    let spec = bed.spec(&json!([{"run": "echo ready; sleep 1000"}, {"run": "echo cleaning", "condition": "always()"}]));
    assert!(!jobs.cancel(spec.job).await.unwrap());
    jobs.start(&spec).await.unwrap();
    until_log_says(&jobs, spec.job, "ready").await;
    assert!(jobs.cancel(spec.job).await.unwrap());
    assert!(jobs.remove(spec.job).is_err(), "it still cleans up");
    assert_eq!(jobs.wait(spec.job).await.unwrap().result, JobResult::Cancelled);
    assert!(texts(&jobs.log_path(spec.job)).contains(&"cleaning".to_owned()));
    assert!(!jobs.cancel(spec.job).await.unwrap());
}

#[tokio::test]
async fn runs_again_when_its_process_was_killed() {
    let Some(bed) = Bed::new().await else { return };
    let jobs = jobs(&bed);
    let script = "if test -e /workspace/left; then echo dirty; fi; touch left; echo ready; ${{ vars.DO }}";
    let mut spec = bed.spec(&json!([{ "run": script }]));
    spec.vars.insert("DO".to_owned(), "sleep 1000".to_owned());
    jobs.start(&spec).await.unwrap();
    until_log_says(&jobs, spec.job, "ready").await;
    let pid = std::fs::read_to_string(jobs.dir(spec.job).join("lock")).unwrap();
    kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    assert!(matches!(jobs.wait(spec.job).await, Err(JobsError::Interrupted(_))));
    spec.vars.insert("DO".to_owned(), "echo done".to_owned());
    jobs.start(&spec).await.unwrap();
    assert_eq!(jobs.wait(spec.job).await.unwrap().result, JobResult::Success);
    let lines = texts(&jobs.log_path(spec.job));
    assert!(lines.contains(&"done".to_owned()) && !lines.contains(&"dirty".to_owned()), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("The job was interrupted")), "{lines:?}");
}

#[tokio::test]
async fn its_log_is_followed_live() {
    let Some(bed) = Bed::new().await else { return };
    let jobs = jobs(&bed);
    let script = "echo one; until test -e /workspace/go; do sleep 0.01; done; seq 1 20000; echo last";
    let spec = bed.spec(&json!([{ "run": script }]));
    jobs.start(&spec).await.unwrap();
    let mut follower = jobs.follow(spec.job, 0);
    let mut text = String::new();
    while !text.contains("Z one\n") {
        text.push_str(&String::from_utf8(follower.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(!text.contains("Z last\n"));
    std::fs::write(jobs.dir(spec.job).join("workspace/go"), "").unwrap();
    while let Some(part) = follower.next().await.unwrap() {
        text.push_str(&String::from_utf8(part).unwrap());
    }
    assert_eq!(text, std::fs::read_to_string(jobs.log_path(spec.job)).unwrap());
    assert!(text.contains("Z last\n") && text.ends_with("Z Job ended: success\n"));
    assert_eq!(follower.position(), text.len() as u64);
}

#[tokio::test]
async fn is_not_started_for_ever() {
    let Some(bed) = Bed::new().await else { return };
    let jobs = jobs(&bed);
    let spec = bed.spec(&json!([{"run": "sleep 1000"}]));
    let mut killed = 0;
    let report = loop {
        jobs.start(&spec).await.unwrap();
        if let JobState::Ended(report) = jobs.state(spec.job).unwrap() {
            break report;
        }
        let pid = std::fs::read_to_string(jobs.dir(spec.job).join("lock")).unwrap();
        kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
        assert!(matches!(jobs.wait(spec.job).await, Err(JobsError::Interrupted(_))));
        killed += 1;
    };
    assert_eq!(killed, 10);
    assert!(report.cause.unwrap().message.contains("killed 10 times"));
}
