//! How the registries are that are pulled through this one.

use access::{Action, Resource};
use axum::extract::State;
use registry::upstream::{Condition, UpstreamState};
use serde_json::{Value, json};

use crate::core::{Core, Who};
use crate::extract::Json;
use crate::problem::Problem;

/// `GET /registry/upstreams`
pub(crate) async fn list(State(core): State<Core>, who: Who) -> Result<Json<Value>, Problem> {
    core.allow(&who.0, Action::Admin, Resource::Server).await?;
    let upstreams: Vec<Value> = core.upstreams.states().iter().map(shown).collect();
    Ok(Json(json!({ "upstreams": upstreams })))
}

fn shown(state: &UpstreamState) -> Value {
    let (condition, why, again) = match &state.condition {
        Condition::Well => ("ok", None, None),
        Condition::Down { why, again } => ("down", Some(why), Some(again.as_secs())),
        Condition::Limited { again } => ("limited", None, Some(again.as_secs())),
    };
    let budget = state.budget.map(|budget| {
        json!({
            "limit": budget.limit,
            "remaining": budget.remaining,
            "windowSeconds": budget.window.map(|window| window.as_secs()),
            "reserved": state.reserve,
        })
    });
    json!({
        "name": state.name,
        "prefix": state.prefix,
        "host": state.host,
        "state": condition,
        "cause": why,
        "retryAfterSeconds": again,
        "budget": budget,
        "answers": {
            "hit": state.hits,
            "miss": state.misses,
            "revalidated": state.revalidated,
            "stale": state.stale,
        },
        "blobRequests": state.fetches,
        "blobBytes": state.bytes,
        "fetching": state.running,
    })
}
