//! What is live, asked and ended.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use model::{HealthEvidence, TargetId};
use tokio::net::TcpStream;

use super::{Local, instances, names};
use crate::health::{Check, Seen};
use crate::request::{LiveService, LiveSite};
use crate::service::{self, last_lines};
use crate::site::{Addresses, ServiceState, SiteState};
use crate::{DeployError, RolloutFailure, control};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// How many lines of output a failure shows.
const LINES: usize = 20;

impl Local {
    /// What is live of a target; nothing if it was never rolled out, or stopped.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub async fn live(&self, target: TargetId) -> Result<Option<LiveSite>, DeployError> {
        let dir = self.site_dir(target);
        let Some(state) = SiteState::read(&dir)? else { return Ok(None) };
        let addresses = Addresses::read(&dir)?;
        let mut services = Vec::new();
        for service in &state.services {
            services.push(self.live_service(target, service, &addresses).await);
        }
        let address = state.public().and_then(|service| addresses.of(&service.name)).map(url);
        let SiteState { name, key, revision, .. } = state;
        Ok(Some(LiveSite { target, name, key, revision, address, services }))
    }

    async fn live_service(&self, target: TargetId, service: &ServiceState, addresses: &Addresses) -> LiveService {
        let dir = self.instance_dir(target, &service.instance);
        let status: Option<service::Reply> = control::ask(&dir, &service::Request::Status).await.ok();
        LiveService {
            name: service.name.clone(),
            image: service.check.image.clone(),
            address: addresses.of(&service.name),
            supervised: status.is_some(),
            running: status.as_ref().is_some_and(|status| status.running),
            pid: status.as_ref().and_then(|status| status.pid),
            restarts: status.map_or(0, |status| status.starts.saturating_sub(1)),
        }
    }

    /// Where the public service of a target answers; nothing if it is not live.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn address(&self, target: TargetId) -> Result<Option<String>, DeployError> {
        let dir = self.site_dir(target);
        let Some(state) = SiteState::read(&dir)? else { return Ok(None) };
        let addresses = Addresses::read(&dir)?;
        Ok(state.public().and_then(|service| addresses.of(&service.name)).map(url))
    }

    /// The last lines of output of a live service, oldest first.
    ///
    /// # Errors
    /// When the target's state cannot be read.
    pub fn last_lines(&self, target: TargetId, service: &str, count: usize) -> Result<Vec<String>, DeployError> {
        let state = SiteState::read(&self.site_dir(target))?;
        let live = state.iter().flat_map(|state| &state.services).find(|live| live.name == service);
        Ok(live.map(|live| last_lines(&self.instance_dir(target, &live.instance), count)).unwrap_or_default())
    }

    /// Asks every service through the site's own address whether it is what it should be.
    ///
    /// # Errors
    /// When a service is not live, runs another image, or does not answer well within its health timeout.
    pub async fn closeout(&self, target: TargetId, checks: &[Check]) -> Result<Vec<HealthEvidence>, RolloutFailure> {
        let dir = self.site_dir(target);
        let state = SiteState::read(&dir)?;
        let addresses = Addresses::read(&dir)?;
        let mut evidence = Vec::new();
        for check in checks {
            let live = state.iter().flat_map(|state| &state.services).find(|live| live.name == check.service);
            let (Some(live), Some(address)) = (live, addresses.of(&check.service)) else {
                return Err(RolloutFailure::of(&check.service, format!("nothing of {} is live", check.service)));
            };
            if live.check.image != check.image {
                let message = format!("{} runs {}, not {}", check.service, live.check.image, check.image);
                return Err(RolloutFailure::of(&check.service, message));
            }
            let instance = self.instance_dir(target, &live.instance);
            // Only the port it serves on has an address.
            let way = match check.health.port.filter(|port| *port != live.port) {
                Some(port) => Way::Inside(&instance, port),
                None => Way::Address(address),
            };
            match way.ask(check).await {
                Ok(seen) => evidence.push(seen),
                Err(seen) => {
                    let probe = format!("{} at {}", check.probe(), url(address));
                    let message = format!("{}: {probe}: {}", check.service, check.describe(&seen));
                    let last_lines = last_lines(&instance, LINES);
                    return Err(RolloutFailure {
                        probe: Some(probe),
                        last_lines,
                        ..RolloutFailure::of(&check.service, message)
                    });
                }
            }
        }
        Ok(evidence)
    }

    /// Ends everything of a target: no address, no process, no file is left.
    ///
    /// # Errors
    /// When something cannot be stopped or removed.
    pub async fn stop(&self, target: TargetId) -> Result<(), DeployError> {
        let _lock = self.lock(target).await;
        self.remove_site(target).await?;
        let dir = self.inner.config.dir.join("services").join(target.to_string());
        for instance in names(&dir)? {
            let instance = dir.join(instance);
            self.release(&instance);
            instances::remove(&instance, None).await?;
        }
        sandbox::remove_tree(&dir).map_err(DeployError::file("remove", &dir))
    }
}

/// How a live service is reached.
enum Way<'a> {
    /// As everybody reaches it.
    Address(SocketAddr),
    /// On a port that only the machine reaches.
    Inside(&'a Path, u16),
}

impl Way<'_> {
    async fn connect(&self) -> std::io::Result<TcpStream> {
        match self {
            Self::Address(address) => TcpStream::connect(address).await,
            Self::Inside(dir, port) => control::connect(dir, *port).await,
        }
    }

    /// Asks until the answer is good or the time is over.
    async fn ask(&self, check: &Check) -> Result<HealthEvidence, Seen> {
        let deadline = Instant::now() + Duration::from_millis(check.health.timeout_ms.max(1));
        loop {
            let seen = match tokio::time::timeout(ANSWER, self.connect()).await {
                Ok(Ok(stream)) => check.ask(stream, ANSWER).await,
                Ok(Err(error)) => Seen::Nothing(error.to_string()),
                Err(_) => Seen::Nothing("no connection in time".to_owned()),
            };
            match seen {
                Seen::Healthy(evidence) => return Ok(evidence),
                seen if Instant::now() + PAUSE >= deadline => return Err(seen),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// The address as people open it. One that listens everywhere is shown by a name of this machine.
pub(super) fn url(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://localhost:{}", address.port()),
        false => format!("http://{address}"),
    }
}
