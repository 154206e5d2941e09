//! After a restart of the server.

use std::path::Path;

use model::TargetId;

use super::{Local, names, sites};
use crate::health::chain;
use crate::service::InstanceSpec;
use crate::site::SiteState;
use crate::{RolloutFailure, control};

/// What [`Local::recover`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The targets that are live.
    pub live: Vec<TargetId>,
    /// Supervisors that were dead and were started.
    pub started: Vec<String>,
    /// Instances nothing refers to; they are being stopped.
    pub retired: Vec<String>,
    /// What could not be brought back, in words.
    pub problems: Vec<String>,
}

impl Local {
    /// Looks after what is live: attaches to the supervisors that live, starts those that do not, and stops instances that
    /// no route leads to. Never fails as a whole: a target that cannot be brought back is no reason to leave the others.
    pub async fn recover(&self) -> Recovered {
        let mut found = Recovered::default();
        let dir = &self.inner.config.dir;
        for kind in ["sites", "services"] {
            let listed = names(&dir.join(kind)).unwrap_or_else(|error| {
                found.problems.push(chain(&error));
                Vec::new()
            });
            for target in listed.iter().filter_map(|name| name.parse().ok()) {
                let done = match kind {
                    "sites" => self.recover_site(target, &mut found).await,
                    _ => self.recover_services(target, &mut found).await,
                };
                if let Err(failure) = done {
                    found.problems.push(format!("target {target}: {failure}"));
                }
            }
        }
        found
    }

    async fn recover_site(&self, target: TargetId, found: &mut Recovered) -> Result<(), RolloutFailure> {
        let _lock = self.lock(target).await;
        let site = self.site_dir(target);
        let Some(state) = SiteState::read(&site)? else {
            // A first rollout, or a removal, that did not come to its end.
            return Ok(self.remove_site(target).await?);
        };
        for service in &state.services {
            let dir = self.instance_dir(target, &service.instance);
            if !control::alive(&dir) {
                self.restore_layers(&service.name, &dir).await?;
                control::start(&dir, "service").await?;
                found.started.push(format!("{}/{}", state.name, service.name));
            }
        }
        if !control::alive(&site) {
            found.started.push(format!("{}: proxy", state.name));
        }
        // Whatever becomes of the proxy now, it is looked after.
        self.keep(&state);
        found.live.push(target);
        sites::reload(&site, state.generation).await?;
        Ok(())
    }

    /// Unpacked layers are a cache, and may be gone after a restart of the machine.
    async fn restore_layers(&self, service: &str, dir: &Path) -> Result<(), RolloutFailure> {
        let Some(mut spec) = InstanceSpec::read(dir)? else {
            return Err(RolloutFailure::of(service, format!("{service}: {} has no spec.json", dir.display())));
        };
        if !spec.lower.iter().all(|layer| layer.is_dir()) {
            (_, spec.lower) = self.layers(service, &spec.image).await?;
            spec.write(dir)?;
        }
        Ok(())
    }

    async fn recover_services(&self, target: TargetId, found: &mut Recovered) -> Result<(), RolloutFailure> {
        let _lock = self.lock(target).await;
        let state = SiteState::read(&self.site_dir(target))?;
        found.retired.extend(self.retire_unreferenced(target, state.as_ref())?);
        Ok(())
    }
}
