//! What has to be done now and then so that the disk does not fill up.

use std::sync::Arc;
use std::time::Duration;

use crate::Pipeline;
use crate::rooms::Rooms;

/// How often.
const EVERY: Duration = Duration::from_secs(3600);
/// Build steps that nobody asked for in this time are removed.
const STEP_AGE: Duration = Duration::from_secs(14 * 86_400);

impl Pipeline {
    /// Keeps house until the pipeline is gone.
    pub(crate) fn keep_house(&self) {
        let rooms = Arc::downgrade(&self.rooms);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let Some(rooms) = rooms.upgrade() else { return };
                once(&rooms).await;
            }
        });
    }
}

/// Each part on its own: that one fails keeps no other from its work.
async fn once(rooms: &Rooms) {
    report("unused build steps", rooms.builder.prune(STEP_AGE).await.map(drop).map_err(|error| error.to_string()));
    for repo in rooms.hosting.list().await.unwrap_or_default() {
        let maintained = match rooms.hosting.repository(repo.id) {
            Ok(repository) => repository.maintain().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        report(&format!("the packs of {}", repo.name), maintained);
    }
}

fn report(what: &str, done: Result<(), String>) {
    if let Err(error) = done {
        tracing::warn!(error, "{what} could not be looked after");
    }
}
