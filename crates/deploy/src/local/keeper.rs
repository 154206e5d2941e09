//! Starting supervisors again that died.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use model::TargetId;

use super::Local;
use crate::control;
use crate::site::SiteState;

impl Local {
    /// Looks after every supervisor of what is live.
    pub(super) fn keep(&self, state: &SiteState) {
        self.keep_one(state.target, self.site_dir(state.target), "site");
        for service in &state.services {
            self.keep_one(state.target, self.instance_dir(state.target, &service.instance), "service");
        }
    }

    fn keep_one(&self, target: TargetId, dir: PathBuf, kind: &'static str) {
        let mut keepers = self.inner.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        if keepers.get(&dir).is_some_and(|keeper| !keeper.is_finished()) {
            return;
        }
        // Weak, so that an engine nobody uses any more is not held by its keepers.
        let engine = std::sync::Arc::downgrade(&self.inner);
        let of = dir.clone();
        let keeper = tokio::spawn(async move {
            let mut pause = Duration::ZERO;
            loop {
                let began = Instant::now();
                control::gone(&of, Duration::MAX).await.unwrap_or_default();
                let Some(inner) = engine.upgrade() else { return };
                let local = Local { inner };
                pause = if began.elapsed() > Duration::from_secs(60) { Duration::ZERO } else { pause };
                tokio::time::sleep(pause).await;
                pause = (pause * 2).clamp(Duration::from_millis(50), Duration::from_secs(30));
                let _lock = local.lock(target).await;
                if !local.is_live(target, &of) {
                    return;
                }
                tracing::warn!(dir = %of.display(), kind, "a supervisor died and is started again");
                if let Err(error) = control::start(&of, kind).await {
                    tracing::warn!(error = crate::health::chain(&error), "it could not be started");
                }
            }
        });
        keepers.insert(dir, keeper.abort_handle());
    }

    /// Does not look after a supervisor any more.
    pub(super) fn release(&self, dir: &Path) {
        let mut keepers = self.inner.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keepers.remove(dir) {
            keeper.abort();
        }
    }

    fn is_live(&self, target: TargetId, dir: &Path) -> bool {
        let site = self.site_dir(target);
        match SiteState::read(&site) {
            Ok(Some(state)) => {
                dir == site || state.services.iter().any(|service| self.instance_dir(target, &service.instance) == dir)
            }
            _ => false,
        }
    }
}
