//! Logs of runs as the pipeline writes them.

use std::collections::BTreeMap;

use evidence::Live;
use model::{
    Cause, CommitId, Delivery, DeliveryId, Digest, Event, HeadCommit, HealthEvidence, Outcome, PinnedImage,
    RecordedEvent, RefName, RepoId, ReuseDecision, RunId, ServiceDecision, SnapshotRef, Stage, TargetId, Timestamp,
    Trigger, WorkflowPlanned,
};

pub const RUN: RunId = RunId(5);

/// A log with a clock.
pub struct Log {
    pub events: Vec<RecordedEvent>,
    /// Milliseconds.
    pub now: i64,
}

pub fn commit(digit: char) -> CommitId {
    std::iter::repeat_n(digit, 40).collect::<String>().parse().unwrap()
}

pub fn digest(number: u8) -> Digest {
    Digest::sha256([number; 32])
}

pub fn image(service: &str, number: u8) -> PinnedImage {
    PinnedImage { name: format!("demo/{service}").parse().unwrap(), digest: digest(number) }
}

fn decided(service: &str, env_reused: bool, decision: ReuseDecision) -> ServiceDecision {
    let service = service.to_owned();
    ServiceDecision { service, identity: digest(1), env_identity: digest(2), env_reused, decision }
}

pub fn miss(service: &str) -> ServiceDecision {
    decided(service, false, ReuseDecision::Miss { why: "a.txt differs".into() })
}

pub fn hit(service: &str) -> ServiceDecision {
    let decision = ReuseDecision::Hit { image: image(service, 9), source_commit: commit('b'), run: RunId(4) };
    decided(service, true, decision)
}

fn health(service: &str, digit: char) -> HealthEvidence {
    HealthEvidence {
        service: service.into(),
        probe: "GET /".into(),
        status: 200,
        identity: Some(digit.to_string().repeat(4)),
        image: digest(3),
    }
}

/// What run `run` brought to life, built from commit `digit`.
pub fn live(run: i64, digit: char, services: &[&str]) -> Live {
    Live {
        run: RunId(run),
        revision: commit('e'),
        source_commit: commit(digit),
        source_commits: BTreeMap::new(),
        images: services.iter().map(|service| ((*service).to_owned(), image(service, 3))).collect(),
        health: services.iter().map(|service| health(service, digit)).collect(),
        address: Some("http://127.0.0.1:9".into()),
    }
}

impl Log {
    /// A push to `main`, and run 5 of the target `site`.
    pub fn created() -> Self {
        let delivery = Delivery {
            id: DeliveryId(1),
            repository: RepoId(1),
            repository_name: "demo/site".parse().unwrap(),
            ref_name: RefName::branch("main").unwrap(),
            before: None,
            commit: commit('c'),
            snapshot: SnapshotRef::of(DeliveryId(1)),
            trigger: Trigger::Push,
            actor: "ann".into(),
        };
        let mut log = Self { events: Vec::new(), now: 1_000_000 };
        log.push(Event::DeliveryCreated { delivery });
        let spec = serde_json::Value::Null;
        log.push(Event::TargetRunCreated { run: RUN, number: 3, target: TargetId(1), name: "site".into(), spec });
        log
    }

    pub fn push(&mut self, event: Event) -> &mut Self {
        let seq = i64::try_from(self.events.len()).unwrap() + 1;
        self.events.push(RecordedEvent { seq, at: Timestamp(self.now), delivery: DeliveryId(1), event });
        self
    }

    pub fn wait(&mut self, millis: i64) -> &mut Self {
        self.now += millis;
        self
    }

    pub fn stage_begins(&mut self, stage: Stage) -> &mut Self {
        self.push(Event::StageStarted { run: RUN, stage })
    }

    /// The stage ends; it took as long as the clock says.
    pub fn stage_ends(&mut self, stage: Stage, cause: Option<Cause>) -> &mut Self {
        let begun = self.events.iter().find(|it| it.event == Event::StageStarted { run: RUN, stage }).unwrap().at;
        let millis = self.now - begun.0;
        self.push(Event::StageFinished { run: RUN, stage, millis, cause })
    }

    pub fn ends(&mut self, outcome: Outcome, cause: Option<Cause>) -> &mut Self {
        self.push(Event::TargetRunFinished { run: RUN, outcome, cause })
    }

    /// The events of a stage that goes well, without its end.
    fn stage(&mut self, stage: Stage, services: &[ServiceDecision], workflows: &[i64]) -> &mut Self {
        self.stage_begins(stage);
        let address = Some("http://127.0.0.1:9".to_owned());
        let seen = || services.iter().map(|it| health(&it.service, 'c')).collect();
        match stage {
            Stage::Source => {
                self.wait(1000).push(Event::SnapshotPinned { head: HeadCommit::default() });
            }
            Stage::Workflow => {
                let runs = workflows.iter().map(|run| workflow(*run)).collect();
                self.wait(1000).push(Event::WorkflowsPlanned { runs });
            }
            Stage::Reuse => {
                self.wait(1000).push(Event::ReuseDecided { run: RUN, services: services.to_vec(), live: false });
            }
            Stage::Publish => {
                let (revision, previous) = (commit('d'), Some(commit('e')));
                self.wait(1000).push(Event::GitopsCommitted { run: RUN, revision, previous, changed: true });
            }
            Stage::Rollout => {
                self.wait(1000).push(Event::RolledOut { run: RUN, address, health: seen() });
            }
            Stage::Build | Stage::Pipeline | Stage::Closeout => {}
        }
        self
    }

    /// A run that succeeds, in which the build takes ten seconds and the others one or two.
    pub fn to_the_end(services: Vec<ServiceDecision>, workflows: &[i64]) -> Self {
        let mut log = Self::created();
        for stage in Stage::ALL.into_iter().filter(|stage| *stage != Stage::Pipeline) {
            log.stage(stage, &services, workflows);
            if stage == Stage::Build {
                log.wait(10_000).build(&services);
            }
            if stage == Stage::Closeout {
                let health = services.iter().map(|it| health(&it.service, 'c')).collect();
                log.wait(2000).push(Event::ClosedOut { run: RUN, health });
            }
            log.stage_ends(stage, None);
        }
        log.ends(Outcome::Succeeded, None).push(Event::DeliveryFinished);
        log
    }

    fn build(&mut self, services: &[ServiceDecision]) {
        for it in services.iter().filter(|it| matches!(it.decision, ReuseDecision::Miss { .. })) {
            let (service, image) = (it.service.clone(), image(&it.service, 3));
            self.push(Event::ImageBuilt { run: RUN, service, identity: it.identity, image });
        }
    }
}

fn workflow(run: i64) -> WorkflowPlanned {
    WorkflowPlanned {
        run: RunId(run),
        number: 1,
        attempt: 1,
        path: ".github/workflows/ci.yml".into(),
        name: "CI".into(),
        jobs: Vec::new(),
        invalid: None,
    }
}

/// A run that has just come to `to`, with all before that done; one in its reuse plan has decided.
pub fn at_stage(to: Stage, services: Vec<ServiceDecision>) -> Log {
    let mut log = Log::created();
    for stage in Stage::ALL.into_iter().filter(|stage| *stage <= to && *stage != Stage::Pipeline) {
        log.stage(stage, &services, &[7]);
        if stage < to {
            if stage == Stage::Build {
                log.build(&services);
            }
            log.stage_ends(stage, None);
        }
    }
    log
}
