//! What is done by itself, for as long as the registry is served.

use std::future::Future;
use std::time::Duration;

use model::ImagePattern;
use tokio::time::Instant;

use crate::{Registry, RegistryError, now};

/// How often pulls are written.
const PULLS: Duration = Duration::from_secs(60);

/// How often uploads that nobody goes on with are looked for.
const UPLOADS: Duration = Duration::from_secs(3600);

/// How often content without a record is looked for, with the next collection.
const SCRUB: Duration = Duration::from_secs(86_400);

impl Registry {
    /// Sets the reserve of the disk aside, writes pulls, ends abandoned uploads, applies retention and collects, each when it is due, until `stopped`.
    pub async fn keep_house(&self, stopped: impl Future<Output = ()>) {
        let work = async {
            let started = Instant::now();
            self.refill().await;
            let (mut uploads, mut collected, mut scrubbed) = (started, started, None::<Instant>);
            loop {
                tokio::time::sleep(PULLS).await;
                self.refill().await;
                report("pulls could not be written", self.write_pulls().await);
                if uploads.elapsed() >= UPLOADS {
                    uploads = Instant::now();
                    report("abandoned uploads could not be looked after", self.expire_uploads().await.map(drop));
                }
                if self.policy().every.is_some_and(|every| collected.elapsed() >= every) {
                    collected = Instant::now();
                    let scrub = scrubbed.is_none_or(|at| at.elapsed() >= SCRUB);
                    let done = self.retain_and_collect(scrub).await;
                    if done.is_ok() && scrub {
                        scrubbed = Some(collected);
                    }
                    report("the registry could not be collected", done);
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stopped => {}
        }
    }

    async fn retain_and_collect(&self, scrub: bool) -> Result<(), RegistryError> {
        match self.take_turn().await {
            Err(RegistryError::Collecting) => return Ok(()),
            turn => turn?,
        }
        let done = self.in_turn(scrub).await;
        self.end_turn().await?;
        done
    }

    async fn in_turn(&self, scrub: bool) -> Result<(), RegistryError> {
        if !self.policy().retention.is_empty() {
            let retained = self.retain(&ImagePattern::all(), now(), true, None).await?;
            tracing::info!(?retained, "applied the rules of retention");
        }
        match self.collect(now(), scrub).await {
            // Another process does it, or somebody does not want it: neither is a fault.
            Err(RegistryError::Collecting | RegistryError::FrozenWhole(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn report(what: &str, done: Result<(), RegistryError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "{what}");
    }
}
