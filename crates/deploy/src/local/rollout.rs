//! One rollout, from images to moved traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use model::{HealthEvidence, TargetId};
use tokio::task::JoinSet;

use super::instances::{self, Instance};
use super::{Local, view};
use crate::health::Seen;
use crate::request::{Rollout, RolloutReport, ServiceRollout};
use crate::service;
use crate::site::{ServiceState, SiteState};
use crate::{RolloutFailure, control};

/// How long something that serves already may take to say that it is well.
const KNOWN: Duration = Duration::from_secs(2);
/// How long a process that never had traffic may take to stop.
const UNSEEN: Duration = Duration::from_secs(1);
/// Where a proxy listens if nobody says where: on a free port that only this machine reaches.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What was started and is not live yet. If the rollout is given up by whoever waits for it, it is stopped.
struct Started {
    local: Local,
    target: TargetId,
    armed: bool,
}

impl Started {
    fn done(mut self) {
        self.armed = false;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (local, target) = (self.local.clone(), self.target);
            runtime.spawn(async move { local.retire_started(target).await });
        }
    }
}

impl Local {
    /// Makes a revision live: starts what is new, waits until it is healthy, moves the traffic at once, and lets the old
    /// finish its requests in the background.
    ///
    /// Asked for again with the same key, also after the server was killed, it ends in the same state. What runs already
    /// just so is left running. When the future is dropped before the new version is healthy, that is stopped.
    ///
    /// # Errors
    /// When an image cannot be had or run, a service ends or does not become healthy, or an address cannot be listened
    /// on. What was live before serves on then.
    pub async fn rollout(&self, rollout: Rollout) -> Result<RolloutReport, RolloutFailure> {
        let public = validate(&rollout)?;
        let lock = self.lock(rollout.target).await;
        let live = SiteState::read(&self.site_dir(rollout.target))?;
        let mut wanted = Vec::new();
        for (index, service) in rollout.services.iter().enumerate() {
            wanted.push(self.instance(&rollout, service, index == public).await?);
        }
        let mut kept = Vec::new();
        for instance in &mut wanted {
            if let Some(serving) = self.serving(live.as_ref(), instance).await {
                kept.push(instance.check.service.clone());
                *instance = serving;
            }
        }
        let started = Started { local: self.clone(), target: rollout.target, armed: true };
        let health = match self.bring_up(&wanted).await {
            Ok(health) => health,
            Err(failure) => {
                self.take_down(live.as_ref(), &wanted).await;
                started.done();
                return Err(failure);
            }
        };
        started.done();
        // What follows is done as a whole, also if nobody waits for it any more.
        let local = self.clone();
        let moving = tokio::spawn(async move {
            let _lock = lock;
            local.go_live(&rollout, live, &wanted).await
        });
        let (address, addresses) = moving.await.map_err(|error| RolloutFailure::new(error.to_string()))??;
        Ok(RolloutReport { address, addresses, health, kept })
    }

    /// Moves the traffic to `instances`, and says where each service answers.
    async fn go_live(
        &self,
        rollout: &Rollout,
        live: Option<SiteState>,
        instances: &[Instance],
    ) -> Result<(String, BTreeMap<String, SocketAddr>), RolloutFailure> {
        let state = state(rollout, instances, live.as_ref());
        let addresses = match self.switch(live.as_ref(), &state).await {
            Ok(addresses) => addresses,
            Err(failure) => {
                self.take_down(live.as_ref(), instances).await;
                return Err(failure);
            }
        };
        self.keep(&state);
        self.retire_unreferenced(rollout.target, Some(&state))?;
        let address = state.public().and_then(|service| addresses.of(&service.name)).map(view::url).unwrap_or_default();
        Ok((address, addresses.0.into_iter().map(|(service, listening)| (service, listening.bound)).collect()))
    }

    /// The live instance that runs just what `instance` would, if there is one and it is well.
    async fn serving(&self, live: Option<&SiteState>, instance: &Instance) -> Option<Instance> {
        let fingerprint = instance.spec.fingerprint();
        let same =
            |service: &&ServiceState| service.name == instance.check.service && service.fingerprint == fingerprint;
        let service = live?.services.iter().find(same)?;
        let dir = self.instance_dir(instance.spec.target, &service.instance);
        let serving = Instance { name: service.instance.clone(), dir, ..instance.clone() };
        if !control::alive(&serving.dir) {
            return None;
        }
        matches!(serving.ask(KNOWN).await, Seen::Healthy(_)).then_some(serving)
    }

    /// Starts every instance that does not run, waits until all are healthy, and lets them be kept.
    async fn bring_up(&self, instances: &[Instance]) -> Result<Vec<HealthEvidence>, RolloutFailure> {
        let mut tasks = JoinSet::new();
        for (index, instance) in instances.iter().cloned().enumerate() {
            tasks.spawn(async move {
                instance.start().await?;
                let evidence = instance.healthy().await?;
                let _: service::Reply = control::ask(&instance.dir, &service::Request::Promote).await?;
                Ok::<_, RolloutFailure>((index, evidence))
            });
        }
        let mut evidence = Vec::new();
        while let Some(result) = tasks.join_next().await {
            // The others are of no use then; dropping the set ends the waiting for them.
            evidence.push(result.map_err(|error| RolloutFailure::new(error.to_string()))??);
        }
        evidence.sort_by_key(|(index, _)| *index);
        Ok(evidence.into_iter().map(|(_, evidence)| evidence).collect())
    }

    /// Stops what was started for a rollout that failed, and nothing that is live.
    async fn take_down(&self, live: Option<&SiteState>, instances: &[Instance]) {
        let is_live = |name: &str| live.iter().flat_map(|live| &live.services).any(|service| service.instance == name);
        let mut tasks = JoinSet::new();
        for instance in instances.iter().filter(|instance| !is_live(&instance.name)) {
            let dir = instance.dir.clone();
            tasks.spawn(async move {
                if let Err(error) = instances::remove(&dir, Some(UNSEEN)).await {
                    tracing::warn!(error = crate::health::chain(&error), "what failed could not be stopped");
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Checks what can be checked without an image. Says which service is public.
fn validate(rollout: &Rollout) -> Result<usize, RolloutFailure> {
    let mut names = BTreeSet::new();
    for ServiceRollout { name, health, .. } in &rollout.services {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 63 || name.starts_with('.') || !name.bytes().all(legal) {
            return Err(RolloutFailure::new(format!("{name:?} cannot be the name of a service")));
        }
        if !names.insert(name) {
            return Err(RolloutFailure::of(name, format!("there are two services {name}")));
        }
        if !health.path.starts_with('/') {
            return Err(RolloutFailure::of(name, format!("the health path {:?} does not begin with /", health.path)));
        }
    }
    let public: Vec<usize> = (0..rollout.services.len()).filter(|index| rollout.services[*index].public).collect();
    match (rollout.services.is_empty(), public.as_slice()) {
        (true, _) => Err(RolloutFailure::new(format!("{} has no services", rollout.name))),
        (false, []) => Ok(0),
        (false, [one]) => Ok(*one),
        (false, [first, second, ..]) => {
            let (first, second) = (&rollout.services[*first].name, &rollout.services[*second].name);
            Err(RolloutFailure::new(format!(
                "both {first} and {second} are public; one service has the target's address"
            )))
        }
    }
}

fn state(rollout: &Rollout, instances: &[Instance], live: Option<&SiteState>) -> SiteState {
    let service = |instance: &Instance| ServiceState {
        name: instance.check.service.clone(),
        public: instance.public,
        listen: rollout.listen.filter(|_| instance.public).unwrap_or(LOOPBACK),
        instance: instance.name.clone(),
        fingerprint: instance.spec.fingerprint(),
        port: instance.spec.port,
        check: instance.check.clone(),
    };
    SiteState {
        target: rollout.target,
        name: rollout.name.clone(),
        generation: live.map_or(0, |live| live.generation) + 1,
        key: rollout.key.clone(),
        revision: rollout.revision.clone(),
        services: instances.iter().map(service).collect(),
    }
}
