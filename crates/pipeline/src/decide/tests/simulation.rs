//! A world in which pushes, failures, cancellations and restarts come in any order.

use std::collections::{BTreeMap, BTreeSet};

use model::{DeliveryId, Event, HeadCommit, JobId, JobResult, Stage};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::decide::{self, Effect, World, follow, next};
use crate::fixtures::{commit, contexts, delivery, digest, hit, image, jobs, miss, target_run, workflow_run};
use crate::jobs::{needs, plan_of};
use crate::state::State;
use crate::{context, effect};
use model::{Cause, Outcome, RunId, WorkflowPlanned};

const SERVER: &str = "http://here";

/// What a workflow file of a push may look like.
const FILES: [&str; 4] = [
    "on: push\njobs:\n  a: {runs-on: x, steps: [{run: 'true'}]}\n  b: {runs-on: x, needs: a, steps: [{run: 'true'}]}\n",
    "on: push\njobs:\n  m:\n    runs-on: x\n    strategy: {max-parallel: 2, matrix: {n: [1, 2, 3]}}\n    steps: [{run: 'true'}]\n  \
     z: {runs-on: x, needs: m, if: always(), steps: [{run: 'true'}]}\n",
    "on: push\njobs:\n  a: {runs-on: x, steps: [{run: 'true'}]}\n  l:\n    runs-on: x\n    needs: a\n    strategy:\n      \
     fail-fast: false\n      matrix: {n: \"${{ fromJSON(needs.a.outputs.m) }}\"}\n    steps: [{run: 'true'}]\n  \
     z: {runs-on: x, needs: [l], if: failure(), steps: [{run: 'true'}]}\n",
    "on: push\njobs:\n  a: {runs-on: x, continue-on-error: true, steps: [{run: 'true'}]}\n  \
     b: {runs-on: x, needs: a, if: \"needs.a.result == 'success'\", steps: [{run: 'true'}]}\n",
];

#[derive(Clone, Debug)]
enum Action {
    /// A push of the ref: the older deliveries with targets give way, unless they are of `another` ref (the target
    /// followed another branch then).
    Push { target: bool, another: bool },
    /// One effect gets on, well or not.
    Perform { which: Index, luck: u8 },
    /// A person ends a run.
    Cancel { which: Index },
    /// The branch is deleted.
    Delete,
    /// The server is killed and started again.
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => any::<(bool, bool)>().prop_map(|(target, another)| Action::Push { target, another }),
        40 => (any::<Index>(), any::<u8>()).prop_map(|(which, luck)| Action::Perform { which, luck }),
        1 => any::<Index>().prop_map(|which| Action::Cancel { which }),
        1 => Just(Action::Delete),
        2 => Just(Action::Restart),
    ]
}

#[derive(Default)]
struct Simulation {
    log: Vec<(DeliveryId, Event)>,
    states: BTreeMap<DeliveryId, State>,
    under_way: BTreeSet<(DeliveryId, Effect)>,
    last_id: i64,
}

impl Simulation {
    fn id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Push { target, another } => {
                let id = self.id();
                let mut batch = self.end_all(Outcome::Superseded, |state| !state.targets.is_empty() && !another);
                batch.push((DeliveryId(id), Event::DeliveryCreated { delivery: delivery(id) }));
                if *target {
                    batch.push((DeliveryId(id), target_run(self.id())));
                }
                self.settle(batch);
            }
            Action::Perform { which, luck } => {
                let Some((id, effect)) = pick(&self.under_way, which) else { return };
                let events = self.perform(id, &effect, *luck);
                self.settle(events.into_iter().map(|event| (id, event)).collect());
            }
            Action::Cancel { which } => {
                let ended = self.end_all(Outcome::Cancelled, |_| true);
                let ended: Vec<_> = ended.into_iter().filter(|(_, event)| *event != Event::DeliveryFinished).collect();
                if !ended.is_empty() {
                    self.settle(vec![ended[which.index(ended.len())].clone()]);
                }
            }
            Action::Delete => {
                let ended = self.end_all(Outcome::Cancelled, |_| true);
                self.settle(ended);
            }
            Action::Restart => self.restart(),
        }
    }

    fn end_all(&self, outcome: Outcome, which: impl Fn(&State) -> bool) -> Vec<(DeliveryId, Event)> {
        let cause = Cause::new("its time has come");
        let open = self.states.iter().filter(|(_, state)| !state.finished && which(state));
        open.flat_map(|(id, state)| decide::end(state, outcome, &cause).into_iter().map(|event| (*id, event))).collect()
    }

    fn world(&self) -> World {
        World::of(self.states.values(), SERVER)
    }

    fn settle(&mut self, batch: Vec<(DeliveryId, Event)>) {
        let mut batch = batch;
        for pass in 0.. {
            assert!(pass < 100, "no end of events: {batch:?}");
            for (id, event) in batch {
                self.apply(id, event);
            }
            batch = follow(self.states.values(), self.world());
            if batch.is_empty() {
                break;
            }
        }
        self.under_way = wanted(&self.states);
        for (id, effect) in &self.under_way {
            let state = &self.states[id];
            assert!(!state.finished, "{effect:?} is wanted after the end");
            assert!(!run_has_ended(state, effect), "{effect:?} is wanted after the end of its run");
        }
    }

    fn apply(&mut self, id: DeliveryId, event: Event) {
        self.check(id, &event);
        match self.states.get_mut(&id) {
            Some(state) => state.apply(&event).unwrap(),
            None => {
                self.states.insert(id, State::new(&event).unwrap());
            }
        }
        self.log.push((id, event));
    }

    /// Whether `event` may come now.
    fn check(&self, id: DeliveryId, event: &Event) {
        let Some(state) = self.states.get(&id) else { return };
        assert!(!state.finished, "after the end of the delivery: {event:?}");
        if let Event::JobStarted { job } | Event::JobExpanded { job, .. } | Event::JobFinished { job, .. } = event {
            let run = state.workflows.values().find(|run| run.jobs.contains_key(job)).unwrap();
            assert!(run.outcome.is_none() && run.jobs[job].finished.is_none(), "after the end: {event:?}");
            let started = matches!(event, Event::JobStarted { .. });
            assert!(!started || needs(run, &run.jobs[job]).is_some(), "before what it needs: {event:?}");
        }
        if let Event::WorkflowRunFinished { run, .. } = event {
            assert!(state.workflows[run].outcome.is_none(), "twice: {event:?}");
        }
        let Some(run) = target_of(event).map(|run| &state.targets[&run]) else { return };
        assert!(run.outcome.is_none(), "after the end of the run: {event:?}");
        match event {
            Event::StageStarted { stage, .. } => {
                assert!(!run.started(*stage), "twice: {event:?}");
                let others = self.states.values().flat_map(|state| state.targets.values());
                let held =
                    others.filter(|it| it.run != run.run && it.target == run.target && it.holds_target()).count();
                assert!(*stage != Stage::Publish || held == 0, "two runs hold the target: {event:?}");
            }
            Event::StageFinished { stage, .. } => assert!(run.under_way(*stage), "not under way: {event:?}"),
            Event::GitopsCommitted { .. } => assert!(run.holds_target() && run.published.is_none(), "{event:?}"),
            Event::RolledOut { .. } => assert!(run.published.is_some(), "before its commit: {event:?}"),
            Event::TargetRunFinished { outcome, .. } => {
                let changed = run.published.as_ref().is_some_and(|published| published.changed);
                let reverted = !changed || run.closed_out || run.reverted;
                assert!(*outcome != Outcome::Failed || reverted, "the branch still asks for what failed");
                assert!(*outcome != Outcome::Superseded || !run.holds_target(), "superseded while it held the target");
                assert!(*outcome != Outcome::Succeeded || run.closed_out, "a success that nobody checked");
            }
            _ => {}
        }
    }

    /// Folding what is on disk makes the same states, which want the same effects.
    fn restart(&mut self) {
        let mut streams: BTreeMap<DeliveryId, Vec<&Event>> = BTreeMap::new();
        for (id, event) in &self.log {
            streams.entry(*id).or_default().push(event);
        }
        let fold = |(id, events): (DeliveryId, Vec<&Event>)| (id, State::fold(events).unwrap());
        let states: BTreeMap<_, _> = streams.into_iter().map(fold).collect();
        assert_eq!(format!("{states:?}"), format!("{:?}", self.states));
        assert_eq!(wanted(&states), self.under_way);
        self.states = states;
        assert_eq!(follow(self.states.values(), self.world()), []);
    }

    /// What an effect records next. It fails where `luck` is low.
    fn perform(&mut self, id: DeliveryId, effect: &Effect, luck: u8) -> Vec<Event> {
        let state = self.states[&id].clone();
        let failed = || effect::failed(&state, effect, Cause::new("bad luck"));
        if luck < 16 {
            return failed();
        }
        match effect {
            Effect::Pin => vec![Event::SnapshotPinned { head: HeadCommit::default() }],
            Effect::PlanWorkflows => vec![Event::WorkflowsPlanned { runs: self.workflows(&state, luck) }],
            Effect::Expand(job) => {
                let (run, job) = find(&state, *job);
                let contexts = context::of_job(&state, run, &needs(run, job).unwrap(), SERVER);
                let Ok(plans) = workflow::expand_matrix(&plan_of(job).unwrap(), &contexts) else { return failed() };
                let first = self.last_id + 1;
                self.last_id += i64::try_from(plans.len()).unwrap();
                let jobs = jobs(plans, first);
                vec![Event::JobExpanded { run: run.planned.run, job: job.planned.job, jobs }]
            }
            Effect::Job(id) if !find(&state, *id).1.started => vec![Event::JobStarted { job: *id }],
            Effect::Job(id) => {
                let outputs = [("m".to_owned(), "[1, 2]".to_owned())].into();
                let result = match luck % 16 {
                    0 => JobResult::Failure,
                    1 => JobResult::Cancelled,
                    _ => JobResult::Success,
                };
                vec![Event::JobFinished { job: *id, result, outputs, cause: None }]
            }
            Effect::PlanReuse(run) => vec![reuse(*run, luck)],
            Effect::Build(run) => {
                let built = |service: &str| Event::ImageBuilt {
                    run: *run,
                    service: service.into(),
                    identity: digest(1),
                    image: image(service, 3),
                };
                // What was built before a stop is not built again.
                let missing = ["web", "api"].into_iter().find(|it| state.targets[run].image_of(it).is_none());
                missing.map(built).into_iter().collect()
            }
            Effect::Publish(run) => vec![Event::GitopsCommitted {
                run: *run,
                revision: commit('d'),
                previous: Some(commit('e')),
                changed: !luck.is_multiple_of(3),
            }],
            Effect::Rollout(run) => vec![Event::RolledOut { run: *run, address: None, health: Vec::new() }],
            Effect::Closeout(run) => vec![Event::ClosedOut { run: *run, health: Vec::new() }],
            Effect::Revert(run) => vec![Event::GitopsReverted { run: *run, revision: Some(commit('e')) }],
        }
    }

    fn workflows(&mut self, state: &State, luck: u8) -> Vec<WorkflowPlanned> {
        let mut runs = Vec::new();
        for (index, text) in FILES.into_iter().enumerate() {
            if !luck.is_multiple_of(3) && luck >> (index + 3) & 1 == 1 {
                let run = self.id();
                let mut planned = workflow_run(run, text, &contexts(&state.delivery), self.last_id + 1);
                self.last_id += i64::try_from(planned.jobs.len()).unwrap();
                if luck.is_multiple_of(29) {
                    planned.jobs.clear();
                    planned.invalid = Some(Cause::new("line 1: no"));
                }
                runs.push(planned);
            }
        }
        runs
    }
}

fn reuse(run: RunId, luck: u8) -> Event {
    let services = match luck % 3 {
        0 => vec![miss("web"), miss("api")],
        1 => vec![hit("web"), miss("api")],
        _ => vec![hit("web"), hit("api")],
    };
    Event::ReuseDecided { run, services, live: luck % 3 == 2 && luck.is_multiple_of(2) }
}

fn find(state: &State, id: JobId) -> (&crate::state::WorkflowRun, &crate::state::Job) {
    state.workflows.values().find_map(|run| Some((run, run.jobs.get(&id)?))).unwrap()
}

fn wanted(states: &BTreeMap<DeliveryId, State>) -> BTreeSet<(DeliveryId, Effect)> {
    let world = World::of(states.values(), SERVER);
    let of = |(id, state): (&DeliveryId, &State)| {
        let id = *id;
        next(state, &world).effects.into_iter().map(move |effect| (id, effect)).collect::<Vec<_>>()
    };
    states.iter().flat_map(of).collect()
}

fn pick<T: Clone>(of: &BTreeSet<T>, which: &Index) -> Option<T> {
    if of.is_empty() { None } else { of.iter().nth(which.index(of.len())).cloned() }
}

fn run_has_ended(state: &State, effect: &Effect) -> bool {
    match effect {
        Effect::Pin | Effect::PlanWorkflows => false,
        Effect::Expand(job) | Effect::Job(job) => find(state, *job).0.outcome.is_some(),
        Effect::PlanReuse(run)
        | Effect::Build(run)
        | Effect::Publish(run)
        | Effect::Rollout(run)
        | Effect::Closeout(run)
        | Effect::Revert(run) => state.targets[run].outcome.is_some(),
    }
}

fn target_of(event: &Event) -> Option<RunId> {
    match event {
        Event::StageStarted { run, .. }
        | Event::StageFinished { run, .. }
        | Event::ReuseDecided { run, .. }
        | Event::ImageBuilt { run, .. }
        | Event::GitopsCommitted { run, .. }
        | Event::RolledOut { run, .. }
        | Event::ClosedOut { run, .. }
        | Event::GitopsReverted { run, .. }
        | Event::TargetRunFinished { run, .. } => Some(*run),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_delivery_ends_as_it_should(
        actions in prop::collection::vec(action(), 1..160),
        lucks in prop::collection::vec(any::<u8>(), 64),
    ) {
        let mut world = Simulation::default();
        world.act(&Action::Push { target: true, another: false });
        for action in &actions {
            world.act(action);
        }
        // From here on nothing more is asked: what is under way comes to its end.
        for step in 0..2000 {
            let luck = lucks[step % lucks.len()];
            let next = world.under_way.iter().nth(step % world.under_way.len().max(1)).cloned();
            let Some((id, effect)) = next else { break };
            let events = world.perform(id, &effect, luck);
            world.settle(events.into_iter().map(|event| (id, event)).collect());
        }
        world.restart();
        for (id, state) in &world.states {
            prop_assert!(state.finished, "delivery {} has not ended: {:?}", id, world.under_way);
            prop_assert!(state.targets.values().all(|run| run.outcome.is_some()));
            prop_assert!(state.workflows.values().all(|run| run.outcome.is_some()));
        }
    }
}
