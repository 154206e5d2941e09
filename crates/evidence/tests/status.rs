//! The status of runs, end by end.
#![allow(clippy::unwrap_used)]

#[path = "status/events.rs"]
mod events;

use events::{Log, at_stage, commit, digest, hit, image, live, miss};
use evidence::{Budget, EVIDENCE_FIELDS, Live, REQUIRED_FIELDS, StageState, TargetStatus, target_facts};
use model::{Cause, Event, Outcome, RunId, Stage, Timestamp};
use serde_json::{Value, json};

fn budget() -> Budget {
    Budget { stages: Stage::ALL.map(|stage| (stage != Stage::Pipeline).then_some(20)), end_to_end: Some(100) }
}

fn status(log: &Log, live: Option<&Live>) -> TargetStatus {
    let facts = target_facts(&log.events, RunId(5)).unwrap();
    TargetStatus::of(&facts, live, &budget(), Timestamp(log.now))
}

/// Checks what holds for every status, and gives its fields.
fn fields(status: &TargetStatus) -> Value {
    let names: Vec<&str> = status.status.keys().map(String::as_str).collect();
    let mut expected = REQUIRED_FIELDS.to_vec();
    expected.sort_unstable();
    assert_eq!((names.len(), names), (18, expected));
    let names: Vec<&str> = status.evidence.keys().map(String::as_str).collect();
    let mut expected = EVIDENCE_FIELDS.to_vec();
    expected.sort_unstable();
    assert_eq!((names.len(), names), (11, expected));
    for (name, value) in status.status.iter().chain(&status.evidence) {
        assert!(!value.is_null(), "{name} is neither a value nor a reason");
        if let Some(text) = value.as_str().filter(|text| text.starts_with("not_applicable")) {
            let reason = text.strip_prefix("not_applicable: ").unwrap_or_default();
            assert!(!reason.trim().is_empty(), "{name}: {text:?} gives no reason");
        }
        if let Some(same) = status.status.get(name).filter(|_| status.evidence.contains_key(name)) {
            assert_eq!(Some(same), status.evidence.get(name), "{name} says two things");
        }
    }
    assert_eq!(status.stages.iter().map(|it| it.stage).collect::<Vec<_>>(), Stage::ALL);
    Value::Object(status.status.clone())
}

fn states(status: &TargetStatus) -> String {
    let letter = |state| match state {
        StageState::Pending => 'p',
        StageState::Running => 'r',
        StageState::Succeeded => 's',
        StageState::Failed => 'f',
        StageState::NotApplicable => '-',
    };
    status.stages.iter().map(|stage| letter(stage.state)).collect()
}

#[test]
fn the_names_are_those_of_the_specification() {
    let required = "target sourceCommit snapshotRef giteaMirrorLag actionsRunId pipelineRunName builderJobName \
                    buildServices reusedServices skipImageBuild reuseEnvImage imageDigest gitopsRevision argoSync \
                    argoHealth runtimeTargetSha health elapsedSeconds";
    assert_eq!(REQUIRED_FIELDS.to_vec(), required.split_whitespace().collect::<Vec<_>>());
    let evidence = "sourceCommit snapshotRef actionsRunId pipelineRunName builderJobName gitopsRevision argoHealth \
                    runtimeTargetSha imageDigest envIdentity reuseDecision";
    assert_eq!(EVIDENCE_FIELDS.to_vec(), evidence.split_whitespace().collect::<Vec<_>>());
    let ids = "mirror-sync actions-dispatch reuse-plan build-or-reuse tekton-pipelinerun gitops-publish argo-closeout \
               runtime-provenance";
    assert_eq!(Stage::ALL.map(Stage::id).to_vec(), ids.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn a_run_that_succeeded() {
    let log = Log::to_the_end(vec![miss("web")], &[7]);
    let live = live(5, 'c', &["web"]);
    let status = status(&log, Some(&live));
    assert_eq!((states(&status).as_str(), status.outcome), ("ssss-sss", Some(Outcome::Succeeded)));
    assert_eq!(
        fields(&status),
        json!({
            "target": "site",
            "sourceCommit": commit('c'),
            "snapshotRef": "refs/towpath/snapshots/1",
            "giteaMirrorLag": "not_applicable: the repository is hosted here; there is no mirror",
            "actionsRunId": 7,
            "pipelineRunName": "not_applicable: no outside pipeline is used",
            "builderJobName": "embedded-5",
            "buildServices": ["web"],
            "reusedServices": [],
            "skipImageBuild": false,
            "reuseEnvImage": false,
            "imageDigest": digest(3),
            "gitopsRevision": commit('d'),
            "argoSync": "not_applicable: the local engine deploys; Argo CD is not used",
            "argoHealth": "not_applicable: the local engine deploys; Argo CD is not used",
            "runtimeTargetSha": commit('c'),
            "health": { "probe": "GET /", "status": 200, "identity": "cccc" },
            "elapsedSeconds": 17.0,
        })
    );
    assert_eq!(status.evidence["envIdentity"], json!(digest(2)));
    assert_eq!(status.evidence["reuseDecision"], json!({ "web": { "decision": "miss", "why": "a.txt differs" } }));
    assert_eq!((status.over_budget.len(), status.address.as_deref()), (0, Some("http://127.0.0.1:9")));
    assert_eq!(status.stages[0].seconds, Some(1.0));
    assert_eq!((status.stages[4].budget_seconds, status.stages[0].budget_seconds), (None, Some(20)));
}

#[test]
fn several_services_and_several_workflows() {
    let log = Log::to_the_end(vec![miss("web"), hit("api")], &[7, 8]);
    let both = live(5, 'c', &["web", "api"]);
    let fields = fields(&status(&log, Some(&both)));
    assert_eq!(fields["actionsRunId"], json!([7, 8]));
    assert_eq!((&fields["buildServices"], &fields["reusedServices"]), (&json!(["web"]), &json!(["api"])));
    assert_eq!(fields["imageDigest"], json!({ "api": digest(9), "web": digest(3) }));
    assert_eq!((&fields["skipImageBuild"], &fields["reuseEnvImage"]), (&json!(false), &json!(false)));
    assert_eq!(fields["health"].as_object().unwrap().keys().collect::<Vec<_>>(), ["api", "web"]);
}

#[test]
fn a_run_without_workflows_or_builds() {
    let log = Log::to_the_end(vec![hit("web")], &[]);
    let fields = fields(&status(&log, Some(&live(5, 'b', &["web"]))));
    assert_eq!(fields["actionsRunId"], "not_applicable: no workflow of the repository fires on this push");
    assert_eq!(fields["builderJobName"], "not_applicable: no image had to be built");
    assert_eq!((&fields["skipImageBuild"], &fields["reuseEnvImage"]), (&json!(true), &json!(true)));
    // What runs is of the commit it was built from, whatever commit asked for it.
    assert_eq!((&fields["runtimeTargetSha"], &fields["sourceCommit"]), (&json!(commit('b')), &json!(commit('c'))));
    assert_eq!(fields["imageDigest"], json!(digest(9)));
}

#[test]
fn a_reused_run_shows_what_is_live() {
    let mut log = at_stage(Stage::Reuse, vec![hit("web")]);
    log.stage_ends(Stage::Reuse, None).ends(Outcome::Reused, None);
    let live = live(4, 'b', &["web"]);
    let status = status(&log, Some(&live));
    assert_eq!(states(&status), "sss-----");
    let reason = |stage: usize| status.stages[stage].reason.as_deref();
    assert_eq!((reason(5), reason(2)), (Some("everything was live already"), None));
    let fields = fields(&status);
    assert_eq!((&fields["gitopsRevision"], &fields["imageDigest"]), (&json!(commit('e')), &json!(digest(9))));
    assert_eq!((&fields["runtimeTargetSha"], &fields["health"]["status"]), (&json!(commit('b')), &json!(200)));
    assert_eq!(status.evidence["reuseDecision"]["web"]["decision"], "hit");
}

#[test]
fn a_run_that_failed_in_its_build() {
    let cause = Cause::new("RUN make: exit code 2").at(Stage::Build);
    let mut log = at_stage(Stage::Build, vec![miss("web")]);
    log.stage_ends(Stage::Build, Some(cause.clone())).ends(Outcome::Failed, Some(cause));
    let older = live(4, 'b', &["web"]);
    let found = status(&log, Some(&older));
    assert_eq!(states(&found), "sssf----");
    assert_eq!(found.stages[3].reason.as_deref(), Some("RUN make: exit code 2"));
    assert_eq!(found.stages[5].reason.as_deref(), Some("the run failed before it"));
    let fields_with_live = fields(&found);
    for name in ["imageDigest", "gitopsRevision"] {
        assert_eq!(fields_with_live[name], "not_applicable: the run failed in stage build", "{name}");
    }
    // The site is still the old one, and says so.
    assert_eq!(fields_with_live["runtimeTargetSha"], json!(commit('b')));
    assert_eq!(fields_with_live["health"]["identity"], "bbbb");
    // Without anything live there is nothing to say of it.
    let fields = fields(&status(&log, None));
    assert_eq!(fields["runtimeTargetSha"], "not_applicable: nothing is live");
    assert_eq!(fields["health"], "not_applicable: the run failed in stage build");
}

#[test]
fn a_failed_closeout_shows_the_branch_it_went_back_to() {
    for (back, shown) in [(Some(commit('e')), 'e'), (None, 'd')] {
        let cause = Cause::new("GET / answered 500").at(Stage::Closeout);
        let mut log = at_stage(Stage::Closeout, vec![miss("web")]);
        log.stage_ends(Stage::Closeout, Some(cause.clone()));
        log.push(Event::GitopsReverted { run: RunId(5), revision: back }).ends(Outcome::Failed, Some(cause));
        let status = status(&log, Some(&live(4, 'b', &["web"])));
        assert_eq!(states(&status), "ssss-ssf");
        let fields = fields(&status);
        assert_eq!(fields["gitopsRevision"], json!(commit(shown)));
        // Never a value of a version that does not run.
        assert_eq!((&fields["runtimeTargetSha"], &fields["health"]["identity"]), (&json!(commit('b')), &json!("bbbb")));
        assert_eq!(fields["imageDigest"], json!(digest(3)));
    }
}

#[test]
fn a_run_that_gave_way() {
    for (outcome, word) in [(Outcome::Superseded, "was superseded"), (Outcome::Cancelled, "was cancelled")] {
        let mut log = at_stage(Stage::Build, vec![miss("web")]);
        log.wait(3000).ends(outcome, Some(Cause::new("ffffffff was pushed to main in the meantime")));
        let found = status(&log, None);
        assert_eq!(states(&found), "sss-----");
        assert_eq!(found.stages[3].reason, Some(format!("the run {word} in it")));
        assert_eq!(found.stages[3].seconds, Some(3.0));
        assert_eq!(found.stages[6].reason, Some(format!("the run {word} before it")));
        let fields = fields(&found);
        assert_eq!(fields["imageDigest"], format!("not_applicable: the run {word} before stage build ended"));
        assert_eq!(fields["snapshotRef"], "refs/towpath/snapshots/1");
        assert_eq!(found.cause.unwrap().message, "ffffffff was pushed to main in the meantime");
    }
}

#[test]
fn a_snapshot_is_named_once_it_is_there() {
    let mut log = Log::created();
    assert_eq!(states(&status(&log, None)), "pppp-ppp");
    log.stage_begins(Stage::Source).wait(1500);
    let found = status(&log, None);
    assert_eq!((states(&found).as_str(), found.stages[0].seconds), ("rppp-ppp", Some(1.5)));
    assert_eq!(fields(&found)["snapshotRef"], "not_applicable: stage source has not ended yet");
    assert_eq!(fields(&found)["elapsedSeconds"], json!(1.5));
    log.ends(Outcome::Superseded, None);
    let fields = fields(&status(&log, None));
    assert_eq!(fields["snapshotRef"], "not_applicable: the run was superseded before stage source ended");
    assert_eq!(fields["actionsRunId"], "not_applicable: the run was superseded before stage workflow ended");
}

#[test]
fn a_run_under_way_says_what_is_still_to_come() {
    let log = at_stage(Stage::Build, vec![miss("web")]);
    let found = status(&log, None);
    assert_eq!(states(&found), "sssr-ppp");
    let fields = fields(&found);
    assert_eq!(fields["imageDigest"], "not_applicable: stage build has not ended yet");
    assert_eq!(fields["gitopsRevision"], "not_applicable: stage publish has not ended yet");
    assert_eq!(fields["health"], "not_applicable: stage closeout has not ended yet");
    assert_eq!(fields["buildServices"], json!(["web"]));
    // With several services the digest is shown once all images are there.
    let mut log = at_stage(Stage::Build, vec![miss("web"), hit("api")]);
    assert!(self::fields(&status(&log, None))["imageDigest"].is_string());
    log.push(Event::ImageBuilt { run: RunId(5), service: "web".into(), identity: digest(1), image: image("web", 3) });
    assert!(self::fields(&status(&log, None))["imageDigest"].is_object());
}

#[test]
fn each_budget_is_judged_alone() {
    let mut log = at_stage(Stage::Build, vec![miss("web")]);
    log.wait(20_000);
    assert!(status(&log, None).over_budget.is_empty(), "a budget that is used up is not exceeded");
    log.wait(1);
    let over = status(&log, None).over_budget;
    assert_eq!(over.iter().map(|it| it.what.as_str()).collect::<Vec<_>>(), ["build-or-reuse"]);
    assert_eq!((over[0].seconds, over[0].budget_seconds), (20.001, 20));
    log.wait(90_000).stage_ends(Stage::Build, None);
    let over = status(&log, None).over_budget;
    assert_eq!(over.iter().map(|it| it.what.as_str()).collect::<Vec<_>>(), ["build-or-reuse", "end-to-end"]);
    // Time stands still once the run has ended.
    log.ends(Outcome::Failed, None);
    let then = status(&log, None).status["elapsedSeconds"].clone();
    log.wait(50_000);
    assert_eq!(status(&log, None).status["elapsedSeconds"], then);
    // Without budgets nothing is over.
    let facts = target_facts(&log.events, RunId(5)).unwrap();
    assert!(TargetStatus::of(&facts, None, &Budget::default(), Timestamp(log.now)).over_budget.is_empty());
}

#[test]
fn a_clock_that_goes_back_takes_no_time() {
    let mut log = at_stage(Stage::Build, vec![miss("web")]);
    log.now = 1;
    let found = status(&log, None);
    assert_eq!((found.stages[3].seconds, &found.status["elapsedSeconds"]), (Some(0.0), &json!(0.0)));
}

#[test]
fn a_run_of_another_delivery_has_no_status() {
    let log = Log::to_the_end(vec![miss("web")], &[7]);
    assert!(target_facts(&log.events, RunId(6)).is_none());
    assert!(target_facts(&log.events, RunId(7)).is_none(), "a workflow run is not of a target");
    assert!(target_facts(&[], RunId(5)).is_none());
    assert!(target_facts(&log.events[1..], RunId(5)).is_none());
}
