//! Moving the traffic.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use model::TargetId;

use super::{Local, instances, names};
use crate::site::{self, Addresses, SiteState};
use crate::{DeployError, RolloutFailure, control, files};

impl Local {
    /// Makes `new` what is live, or leaves `old` so.
    pub(super) async fn switch(&self, old: Option<&SiteState>, new: &SiteState) -> Result<Addresses, RolloutFailure> {
        let dir = self.site_dir(new.target);
        files::make_dir(&dir).map_err(DeployError::file("make the directory", &dir))?;
        new.write(&dir)?;
        let why = match reload(&dir, new.generation).await {
            Ok(addresses) => return Ok(addresses),
            Err(error) => error,
        };
        match old {
            Some(old) => {
                old.write(&dir)?;
                let _ = reload(&dir, old.generation).await;
            }
            None => self.remove_site(new.target).await?,
        }
        let failure = RolloutFailure::new(format!("the traffic of {} could not be moved: {why}", new.name));
        Err(failure.hint("free the address, or give the target another one"))
    }

    /// Ends the proxy of a target and forgets its routes and addresses.
    pub(super) async fn remove_site(&self, target: TargetId) -> Result<(), DeployError> {
        let dir = self.site_dir(target);
        self.release(&dir);
        // First the routes: what has none is not started again.
        match std::fs::remove_file(dir.join("state.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DeployError::file("remove the routes in", &dir)(error));
            }
            Err(_) => {}
            // Else a power cut would bring the site back.
            Ok(()) => files::sync_dir(&dir).map_err(DeployError::file("sync", &dir))?,
        }
        if control::alive(&dir) {
            let grace = self.inner.config.drain;
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            let _: Result<site::Reply, _> = control::ask_for(&dir, &site::Request::Stop { grace_ms }, grace * 2).await;
            control::gone(&dir, Duration::from_secs(5)).await?;
        }
        sandbox::remove_tree(&dir).map_err(DeployError::file("remove", &dir))
    }

    /// Stops every instance of a target that no route leads to, in the background. Says which.
    pub(super) fn retire_unreferenced(
        &self,
        target: TargetId,
        state: Option<&SiteState>,
    ) -> Result<Vec<String>, DeployError> {
        let referenced: BTreeSet<&str> =
            state.iter().flat_map(|state| &state.services).map(|service| service.instance.as_str()).collect();
        let mut retired = names(&self.inner.config.dir.join("services").join(target.to_string()))?;
        retired.retain(|instance| !referenced.contains(instance.as_str()));
        for instance in &retired {
            self.retire(target, instance.clone());
        }
        Ok(retired)
    }

    /// The same after a rollout that was given up.
    pub(super) async fn retire_started(&self, target: TargetId) {
        let _lock = self.lock(target).await;
        let retired =
            SiteState::read(&self.site_dir(target)).and_then(|state| self.retire_unreferenced(target, state.as_ref()));
        if let Err(error) = retired {
            tracing::warn!(error = crate::health::chain(&error), "what was started could not be stopped");
        }
    }

    /// Stops an instance in the background as soon as its last request is answered, unless it is live again by then.
    fn retire(&self, target: TargetId, instance: String) {
        let local = self.clone();
        tokio::spawn(async move {
            let site = local.site_dir(target);
            let drain = local.inner.config.drain;
            let limit_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
            let request = site::Request::Drain { instance: instance.clone(), limit_ms };
            if control::alive(&site) {
                let _: Result<site::Reply, _> = control::ask_for(&site, &request, drain * 2).await;
            }
            let _lock = local.lock(target).await;
            let live = SiteState::read(&site);
            let referenced = match &live {
                Ok(live) => live.iter().flat_map(|live| &live.services).any(|service| service.instance == instance),
                Err(_) => true,
            };
            if referenced {
                return;
            }
            let dir = local.instance_dir(target, &instance);
            local.release(&dir);
            if let Err(error) = instances::remove(&dir, None).await {
                tracing::warn!(error = crate::health::chain(&error), instance, "an old instance could not be stopped");
            }
        });
    }
}

/// Lets the proxy in `dir` take the routes, and starts it if it does not live.
pub(super) async fn reload(dir: &Path, generation: u64) -> Result<Addresses, DeployError> {
    control::start(dir, "site").await?;
    let reply: site::Reply = control::ask(dir, &site::Request::Reload).await?;
    match reply.error {
        Some(error) => Err(DeployError::Supervisor(error)),
        None if reply.generation < generation => {
            Err(DeployError::Supervisor(format!("the proxy has the routes {} and not {generation}", reply.generation)))
        }
        None => Ok(reply.addresses),
    }
}
