//! Decisions case by case, and then all of them together in a world where anything may happen.

mod simulation;

use model::{Event, HeadCommit, JobId, JobResult, Stage, TargetId, WorkflowPlanned};

use super::*;
use crate::fixtures::{commit, contexts, delivery, hit, image, job_end, miss, target_run, with_workflow, workflow_run};

const ONE_JOB: &str = "on: push\njobs:\n  a:\n    runs-on: x\n    steps: [{run: 'true'}]\n";

fn created() -> Event {
    Event::DeliveryCreated { delivery: delivery(1) }
}

fn pinned() -> Event {
    Event::SnapshotPinned { head: HeadCommit::default() }
}

fn planned(runs: Vec<WorkflowPlanned>) -> Event {
    Event::WorkflowsPlanned { runs }
}

fn cause() -> Cause {
    Cause::new("because")
}

/// Folds `events`, then applies what follows until nothing does; the events that followed, and the effects at the end.
fn settle(events: &[Event], world: &World) -> (State, Vec<Event>, Vec<Effect>) {
    let mut state = State::fold(events).unwrap();
    let mut followed = Vec::new();
    for _ in 0..100 {
        let next = next(&state, world);
        if next.events.is_empty() {
            return (state, followed, next.effects);
        }
        for event in next.events {
            state.apply(&event).unwrap();
            followed.push(event);
        }
    }
    panic!("no end of events: {followed:#?}");
}

/// A target run 5 with everything done before its stage `to`, and `more` after that.
fn at(to: Stage, more: Vec<Event>) -> Vec<Event> {
    let run = RunId(5);
    let mut events = vec![created(), target_run(5), pinned(), planned(Vec::new())];
    for stage in Stage::ALL.into_iter().filter(|stage| *stage < to && *stage != Stage::Pipeline) {
        events.push(Event::StageStarted { run, stage });
        match stage {
            Stage::Reuse => {
                events.push(Event::ReuseDecided { run, services: vec![hit("web"), hit("api")], live: false });
            }
            Stage::Publish => events.push(committed(true)),
            Stage::Rollout => events.push(Event::RolledOut { run, address: None, health: Vec::new() }),
            _ => {}
        }
        events.push(Event::StageFinished { run, stage, millis: 1, cause: None });
    }
    events.push(Event::StageStarted { run, stage: to });
    events.extend(more);
    events
}

fn committed(changed: bool) -> Event {
    Event::GitopsCommitted { run: RunId(5), revision: commit('d'), previous: Some(commit('e')), changed }
}

fn failed_at(stage: Stage) -> Event {
    Event::StageFinished { run: RunId(5), stage, millis: 1, cause: Some(cause()) }
}

#[test]
fn a_push_is_pinned_before_anything_else() {
    let (_, followed, effects) = settle(&[created(), target_run(5)], &World::default());
    assert_eq!(followed, [Event::StageStarted { run: RunId(5), stage: Stage::Source }]);
    assert_eq!(effects, [Effect::Pin]);
}

#[test]
fn reading_the_workflows_is_part_of_the_workflow_stage() {
    let events = [created(), target_run(5), Event::StageStarted { run: RunId(5), stage: Stage::Source }, pinned()];
    let (state, followed, effects) = settle(&events, &World::default());
    assert_eq!(effects, [Effect::PlanWorkflows]);
    assert_eq!(followed.len(), 2, "{followed:?}");
    assert!(state.targets[&RunId(5)].ended(Stage::Source));
    assert!(state.targets[&RunId(5)].under_way(Stage::Workflow));
}

#[test]
fn a_delivery_whose_runs_all_ended_early_reads_no_workflows() {
    let end = |outcome| Event::TargetRunFinished { run: RunId(5), outcome, cause: Some(cause()) };
    // Its snapshot is still made: the status names it.
    let (_, _, effects) = settle(&[created(), target_run(5), end(Outcome::Superseded)], &World::default());
    assert_eq!(effects, [Effect::Pin]);
    let (state, followed, effects) =
        settle(&[created(), target_run(5), end(Outcome::Superseded), pinned()], &World::default());
    assert_eq!((followed, effects), (vec![Event::DeliveryFinished], Vec::new()));
    assert!(state.finished);
    // One without targets is read like any other.
    let (_, _, effects) = settle(&[created(), pinned()], &World::default());
    assert_eq!(effects, [Effect::PlanWorkflows]);
}

#[test]
fn ending_a_delivery() {
    let (events, outcome) = (|events: &[Event]| State::fold(events).unwrap(), Outcome::Cancelled);
    // Before it has any run.
    assert_eq!(end(&events(&[created()]), outcome, &cause()), [Event::DeliveryFinished]);
    // With a workflow run and a target run under way.
    let runs = vec![workflow_run(7, ONE_JOB, &contexts(&delivery(1)), 1)];
    let state = events(&[created(), target_run(5), pinned(), planned(runs)]);
    let ended = end(&state, outcome, &cause());
    assert_eq!(
        ended,
        [
            Event::WorkflowRunFinished { run: RunId(7), outcome, cause: Some(cause()) },
            Event::TargetRunFinished { run: RunId(5), outcome, cause: Some(cause()) },
        ]
    );
    // From the GitOps commit on a run goes to its end.
    assert_eq!(end(&events(&at(Stage::Publish, Vec::new())), outcome, &cause()), []);
}

#[test]
fn a_target_waits_for_its_workflows_and_for_their_success() {
    let runs = || planned(vec![workflow_run(7, ONE_JOB, &contexts(&delivery(1)), 1)]);
    let (_, _, effects) = settle(&[created(), target_run(5), pinned(), runs()], &World::default());
    assert_eq!(effects, [Effect::Job(JobId(1))]);
    let good = [created(), target_run(5), pinned(), runs(), job_end(1, JobResult::Success, &[])];
    assert_eq!(settle(&good, &World::default()).2, [Effect::PlanReuse(RunId(5))]);
    let bad = [created(), target_run(5), pinned(), runs(), job_end(1, JobResult::Failure, &[])];
    let (state, followed, effects) = settle(&bad, &World::default());
    assert!(effects.is_empty() && state.finished, "{followed:?}");
    let why = followed.iter().find_map(|event| match event {
        Event::TargetRunFinished { outcome: Outcome::Failed, cause, .. } => cause.clone(),
        _ => None,
    });
    let why = why.unwrap();
    assert_eq!((why.stage, why.message.contains("job a")), (Some(Stage::Workflow), true), "{}", why.message);
}

#[test]
fn a_broken_workflow_file_fails_its_run_and_the_target() {
    let invalid = Some(Cause::new("line 3: unknown key").in_place("ci.yml:3:1"));
    let broken = WorkflowPlanned { jobs: Vec::new(), invalid, ..workflow_run(7, ONE_JOB, &contexts(&delivery(1)), 1) };
    let (state, _, _) = settle(&[created(), target_run(5), pinned(), planned(vec![broken])], &World::default());
    assert_eq!(state.workflows[&RunId(7)].outcome, Some(Outcome::Failed));
    assert_eq!(state.targets[&RunId(5)].outcome, Some(Outcome::Failed));
    assert_eq!(state.targets[&RunId(5)].failure().unwrap().place.as_deref(), Some("ci.yml:3:1"));
}

#[test]
fn what_is_live_already_is_reused_unless_another_run_holds_the_target() {
    let live = Event::ReuseDecided { run: RunId(5), services: vec![hit("web"), hit("api")], live: true };
    let events = at(Stage::Reuse, vec![live]);
    let (state, _, effects) = settle(&events, &World::default());
    assert_eq!((state.targets[&RunId(5)].outcome, effects), (Some(Outcome::Reused), Vec::new()));

    // What the other run is about to bring is not what this one saw.
    let taken = World { claims: [(TargetId(1), RunId(4))].into(), ..World::default() };
    let (state, _, effects) = settle(&events, &taken);
    assert_eq!((state.targets[&RunId(5)].outcome, effects), (None, Vec::new()));
    assert!(state.targets[&RunId(5)].ended(Stage::Build));
    // Once the target is free, the run goes on to it.
    let publish = Event::StageStarted { run: RunId(5), stage: Stage::Publish };
    assert_eq!(next(&state, &taken).events, []);
    assert_eq!(next(&state, &World::default()).events, [publish]);
}

#[test]
fn only_what_is_missing_is_built() {
    let services = vec![hit("web"), miss("api")];
    let decided = Event::ReuseDecided { run: RunId(5), services, live: false };
    let mut events = at(Stage::Reuse, vec![decided]);
    assert_eq!(settle(&events, &World::default()).2, [Effect::Build(RunId(5))]);
    let identity = crate::fixtures::digest(1);
    events.push(Event::ImageBuilt { run: RunId(5), service: "api".into(), identity, image: image("api", 3) });
    let (state, _, effects) = settle(&events, &World::default());
    assert_eq!(effects, [Effect::Publish(RunId(5))]);
    let run = &state.targets[&RunId(5)];
    assert_eq!((run.image_of("web"), run.image_of("api")), (Some(&image("web", 9)), Some(&image("api", 3))));
}

#[test]
fn a_failure_after_the_commit_is_taken_back_first() {
    for stage in [Stage::Rollout, Stage::Closeout] {
        let mut events = at(stage, vec![failed_at(stage)]);
        let (state, _, effects) = settle(&events, &World::default());
        assert_eq!((state.targets[&RunId(5)].outcome, effects), (None, vec![Effect::Revert(RunId(5))]), "{stage}");
        events.push(Event::GitopsReverted { run: RunId(5), revision: Some(commit('e')) });
        let (state, _, effects) = settle(&events, &World::default());
        assert_eq!((state.targets[&RunId(5)].outcome, effects), (Some(Outcome::Failed), Vec::new()), "{stage}");
    }
}

#[test]
fn a_failure_that_changed_nothing_has_nothing_to_take_back() {
    let unchanged = |stage, more: &[Event]| {
        let events = at(stage, more.to_vec());
        let swap = |event| if matches!(event, Event::GitopsCommitted { .. }) { committed(false) } else { event };
        events.into_iter().map(swap).collect::<Vec<_>>()
    };
    let (state, _, effects) = settle(&unchanged(Stage::Rollout, &[failed_at(Stage::Rollout)]), &World::default());
    assert_eq!((state.targets[&RunId(5)].outcome, effects), (Some(Outcome::Failed), Vec::new()));
    let (state, _, _) = settle(&at(Stage::Publish, vec![failed_at(Stage::Publish)]), &World::default());
    assert_eq!(state.targets[&RunId(5)].outcome, Some(Outcome::Failed));
    // But a version that has the traffic and fails its closeout must go, whoever wrote the manifests.
    let (_, _, effects) = settle(&unchanged(Stage::Closeout, &[failed_at(Stage::Closeout)]), &World::default());
    assert_eq!(effects, [Effect::Revert(RunId(5))]);
}

#[test]
fn how_a_workflow_run_ends() {
    let text = "on: push\njobs:\n  a: {runs-on: x, continue-on-error: true, steps: [{run: 'true'}]}\n  \
                b: {runs-on: x, steps: [{run: 'true'}]}\n";
    use JobResult::{Cancelled, Failure, Skipped, Success};
    for (a, b, outcome) in [
        (Success, Success, Outcome::Succeeded),
        (Failure, Success, Outcome::Succeeded),
        (Success, Failure, Outcome::Failed),
        (Cancelled, Failure, Outcome::Failed),
        (Success, Cancelled, Outcome::Cancelled),
        (Skipped, Success, Outcome::Succeeded),
        (Skipped, Skipped, Outcome::Skipped),
    ] {
        let mut state = with_workflow(text);
        state.apply(&job_end(1, a, &[])).unwrap();
        state.apply(&job_end(2, b, &[])).unwrap();
        let events = next(&state, &World::default()).events;
        let found = matches!(&events[..], [Event::WorkflowRunFinished { outcome: it, .. }] if *it == outcome);
        assert!(found, "{a:?} {b:?}: {events:?}");
    }
}

#[test]
fn a_matrix_keeps_to_its_width_and_ends_with_its_first_failure() {
    let text = "on: push\njobs:\n  m:\n    runs-on: x\n    strategy: {max-parallel: 2, matrix: {n: [1, 2, 3, 4]}}\n    \
                steps: [{run: 'true'}]\n";
    let mut state = with_workflow(text);
    let job = |id| Effect::Job(JobId(id));
    assert_eq!(next(&state, &World::default()).effects, [job(1), job(2)]);
    state.apply(&Event::JobStarted { job: JobId(2) }).unwrap();
    assert_eq!(next(&state, &World::default()).effects, [job(1), job(2)]);
    state.apply(&job_end(2, JobResult::Success, &[])).unwrap();
    assert_eq!(next(&state, &World::default()).effects, [job(1), job(3)]);
    state.apply(&Event::JobStarted { job: JobId(3) }).unwrap();
    state.apply(&job_end(1, JobResult::Failure, &[])).unwrap();
    let next = next(&state, &World::default());
    assert_eq!(next.effects, []);
    let cancelled = |event: &Event| matches!(event, Event::JobFinished { result: JobResult::Cancelled, .. });
    assert_eq!((next.events.len(), next.events.iter().all(cancelled)), (2, true), "{:?}", next.events);
}

#[test]
fn without_fail_fast_the_others_go_on() {
    for (setting, job) in [("fail-fast: false", ""), ("fail-fast: true", "continue-on-error: true")] {
        let text = format!(
            "on: push\njobs:\n  m:\n    runs-on: x\n    {job}\n    strategy: {{{setting}, matrix: {{n: [1, 2]}}}}\n    \
             steps: [{{run: 'true'}}]\n"
        );
        let mut state = with_workflow(&text);
        state.apply(&job_end(1, JobResult::Failure, &[])).unwrap();
        assert_eq!(next(&state, &World::default()).effects, [Effect::Job(JobId(2))], "{setting} {job}");
    }
}

#[test]
fn of_two_runs_that_wait_for_a_target_one_gets_it() {
    let waiting = |id: i64| {
        let run = RunId(id);
        let mut events =
            vec![Event::DeliveryCreated { delivery: delivery(id) }, target_run(id), pinned(), planned(Vec::new())];
        for stage in [Stage::Source, Stage::Workflow, Stage::Reuse, Stage::Build] {
            events.push(Event::StageStarted { run, stage });
            if stage == Stage::Reuse {
                events.push(Event::ReuseDecided { run, services: vec![hit("web"), hit("api")], live: false });
            }
            events.push(Event::StageFinished { run, stage, millis: 1, cause: None });
        }
        State::fold(&events).unwrap()
    };
    let mut states = [waiting(5), waiting(6)];
    let publish = |id| (DeliveryId(id), Event::StageStarted { run: RunId(id), stage: Stage::Publish });
    let events = follow(states.iter(), World::of(states.iter(), ""));
    assert_eq!(events, [publish(5)]);
    states[0].apply(&events[0].1).unwrap();
    assert_eq!(follow(states.iter(), World::of(states.iter(), "")), []);
    let finished = Event::TargetRunFinished { run: RunId(5), outcome: Outcome::Failed, cause: None };
    states[0].apply(&finished).unwrap();
    let events = follow(states.iter(), World::of(states.iter(), ""));
    assert_eq!(events, [(DeliveryId(5), Event::DeliveryFinished), publish(6)]);
}
