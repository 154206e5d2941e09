//! Ends that are not the script's own: refusals, cancellation, time limits.

use std::time::{Duration, Instant};

use model::JobResult;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, texts};

#[tokio::test]
async fn what_this_runner_does_not_do_is_refused_by_name() {
    let Some(bed) = Bed::new().await else { return };
    let changed = |key: &str, value: Value| {
        let mut spec = bed.spec(&json!([{"run": "echo ran"}]));
        let mut plan = serde_json::to_value(&spec.plan).unwrap();
        plan[key] = value;
        spec.plan = serde_json::from_value(plan).unwrap();
        spec
    };
    for (spec, expected) in [
        (changed("container", json!({"image": "node:20"})), "asks for a container"),
        (changed("services", json!({"db": {"image": "postgres"}})), "asks for the service \"db\""),
        (
            changed("call", json!({"uses": "./.github/workflows/x.yml"})),
            "calls the workflow \"./.github/workflows/x.yml\"",
        ),
        (
            changed("runsOn", json!(["windows-latest"])),
            "no runner has the label \"windows-latest\": known labels are ubuntu-latest",
        ),
    ] {
        let ran = bed.run(&spec).await;
        assert!(ran.failure().contains(expected), "{}", ran.failure());
        assert!(!ran.says("ran") && ran.report.steps.is_empty());
    }
}

/// Runs `steps`, cancels when the log has the line `ready`, and returns how long it took from then.
async fn cancelled(bed: &Bed, steps: Value) -> (crate::bed::Ran, Duration) {
    let spec = bed.spec(&steps);
    let cancel = CancellationToken::new();
    let log = bed.dir.path().join("job/log");
    let watch = async {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if log.exists() && texts(&log).iter().any(|line| line == "ready") {
                cancel.cancel();
                return Instant::now();
            }
        }
    };
    let (ran, at) = tokio::join!(bed.run_with(&spec, cancel.clone()), watch);
    (ran, at.elapsed())
}

#[tokio::test]
async fn a_cancelled_job_still_cleans_up() {
    let Some(bed) = Bed::new().await else { return };
    let (ran, took) = cancelled(
        &bed,
        json!([
            {"id": "long", "run": "echo ready; sleep 1000"},
            {"run": "echo next"},
            {"run": "echo cleaning ${{ steps.long.outcome }} ${{ job.status }}", "condition": "always()"},
            {"run": "echo on cancel", "condition": "cancelled()"},
            {"run": "echo on failure", "condition": "failure()"},
        ]),
    )
    .await;
    assert_eq!(ran.report.result, JobResult::Cancelled, "{:?}", ran.lines);
    ran.must_say("cleaning cancelled cancelled");
    ran.must_say("on cancel");
    assert_eq!(ran.results(), ["cancelled", "skipped", "success", "success", "skipped"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_step_may_end_in_order_or_is_killed() {
    let Some(bed) = Bed::new().await else { return };
    let script = "trap 'echo asked; exit 0' TERM; echo ready; while true; do sleep 0.01; done";
    let (ran, _) = cancelled(&bed, json!([{ "run": script }])).await;
    assert_eq!(ran.report.result, JobResult::Cancelled);
    ran.must_say("asked");
    let stubborn = "trap '' TERM; echo ready; while true; do sleep 0.01; done";
    let (ran, took) = cancelled(&bed, json!([{ "run": stubborn }])).await;
    assert_eq!(ran.report.result, JobResult::Cancelled);
    assert!(took > Duration::from_millis(400), "the grace was not given: {took:?}");
}

#[tokio::test]
async fn a_cancelled_action_is_cancelled() {
    let action =
        "runs: {using: composite, steps: [{shell: sh, run: 'echo ready; sleep 1000'}, {shell: sh, run: echo no}]}";
    let Some(bed) = Bed::with(&[("action.yml", action)]).await else { return };
    let (ran, _) = cancelled(&bed, json!([{"uses": "actions/checkout@v4"}, {"uses": "./"}])).await;
    assert_eq!(ran.results(), ["success", "cancelled"]);
    assert_eq!(ran.report.result, JobResult::Cancelled);
    assert!(!ran.says("no"));
}

#[tokio::test]
async fn a_step_has_a_time_limit() {
    let Some(bed) = Bed::new().await else { return };
    // Less than a minute cannot be asked for in a workflow, but would mean this.
    let over = json!([
        {"run": "sleep 1000", "timeoutMinutes": {"is": 0}},
        {"run": "echo on failure", "condition": "failure()"},
    ]);
    let ran = bed.steps(over).await;
    assert!(ran.failure().contains("ran longer than its time limit"), "{}", ran.failure());
    ran.must_say("on failure");
    let wrong = bed.steps(json!([{"run": "true", "timeoutMinutes": {"expression": "${{ 'x' }}"}}])).await;
    assert!(wrong.failure().contains("timeout-minutes"), "{}", wrong.failure());
}

#[tokio::test]
async fn a_job_has_a_time_limit() {
    let Some(bed) = Bed::new().await else { return };
    let mut spec = bed
        .spec(&json!([{"run": "sleep 1000"}, {"run": "echo no"}, {"run": "echo cleaning", "condition": "always()"}]));
    // Less than a minute cannot be asked for in a workflow, but would mean this.
    spec.plan.timeout_minutes = 0;
    let ran = bed.run(&spec).await;
    assert!(ran.failure().contains("longer than its limit of 0 minutes"), "{}", ran.failure());
    ran.must_say("cleaning");
    assert!(!ran.says("no"));
}

#[tokio::test]
async fn an_interrupted_job_begins_again() {
    let Some(bed) = Bed::new().await else { return };
    bed.script("echo first > left; echo left > /tmp/left").await.good();
    let ran = bed.script("ls /workspace /tmp | grep left || echo empty").await.good();
    ran.must_say("The job was interrupted; it runs again from its first step.");
    ran.must_say("empty");
}

#[tokio::test]
async fn a_log_has_its_limit() {
    let Some(bed) = Bed::new().await else { return };
    let mut spec = bed.spec(&json!([{"run": "seq 1 100000; echo ::error::seen; exit 1"}]));
    spec.limits.log_bytes = 20_000;
    let ran = bed.run(&spec).await;
    assert!(ran.lines.iter().any(|line| line.contains("limit of 20000 bytes")));
    assert!(std::fs::metadata(ran.dir.join("log")).unwrap().len() < 25_000);
    ran.must_say("##[error]step \"Run seq 1 100000; echo ::error::seen; exit 1\": ended with exit code 1");
    assert_eq!(ran.report.annotations[0].message, "seen");
}
