//! How the rules of replication stand.

use access::{Action, Resource};
use axum::extract::{Path, State};
use model::Timestamp;
use registry::replication::ReplicationState;
use serde_json::{Value, json};

use crate::core::{Core, Who};
use crate::extract::Json;
use crate::problem::Problem;

/// `GET /registry/replication`
pub(crate) async fn list(State(core): State<Core>, who: Who) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let now = std::time::SystemTime::now().into();
    let rules: Vec<Value> = core.replication.states().await?.iter().map(|state| shown(state, now)).collect();
    Ok(Json(json!({ "rules": rules })))
}

/// `POST /registry/replication/{rule}`: everything that the rule is about is queued once more.
pub(crate) async fn again(
    State(core): State<Core>,
    who: Who,
    Path(rule): Path<String>,
) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let queued = core.replication.again(&rule).await?;
    let queued = queued.ok_or_else(|| Problem::not_found(format!("there is no rule of replication {rule}")))?;
    Ok(Json(json!({ "rule": rule, "queued": queued })))
}

fn shown(state: &ReplicationState, now: Timestamp) -> Value {
    let lag = state.waiting_since.map_or(0, |since| now.millis_since(since).max(0) / 1000);
    let (error, at) = state.error.clone().map_or((None, None), |(error, at)| (Some(error), Some(at)));
    json!({
        "name": state.name,
        "destination": state.destination,
        "queued": state.queued,
        "lagSeconds": lag,
        "lastSuccess": state.success,
        "lastError": error,
        "lastErrorAt": at,
        "pausedUntil": state.paused_until,
        "pushed": state.done.pushed,
        "sentBytes": state.done.bytes,
        "removed": state.done.removed,
        "failed": state.done.failed,
    })
}
