//! `/towpath/v1`: our own API. JSON in and out; errors are problem documents.

mod accounts;
mod login;
mod logs;
mod records;
mod registry;
mod replication;
mod repositories;
mod robots;
mod runs;
mod upstreams;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post, put};

use crate::app::App;
use crate::core::Core;
use crate::extract::Json;

/// Bytes of a request body of this API.
const BODY_LIMIT: usize = 1 << 20;

/// What is there with and without a pipeline.
pub(crate) fn core_routes() -> Router<Core> {
    Router::new()
        .route("/version", get(version))
        .route("/user", get(accounts::me))
        .route("/users", get(accounts::users).post(accounts::create_user))
        .route("/users/import", post(accounts::import))
        .route("/users/{user}", delete(accounts::delete_user))
        .route("/users/{user}/identities/{provider}", put(accounts::link))
        .route("/login", get(login::ways))
        .route("/login/oidc/{provider}", get(login::begin))
        .route("/login/oidc/{provider}/callback", get(login::finish))
        .route("/users/{user}/tokens", get(accounts::tokens).post(accounts::create_token))
        .route("/users/{user}/tokens/{id}", delete(accounts::revoke_token))
        .route("/organisations", get(accounts::organisations).post(accounts::create_organisation))
        .route("/organisations/{org}/members", get(accounts::members))
        .route("/organisations/{org}/members/{user}", put(accounts::add_member).delete(accounts::remove_member))
        .route("/organisations/{org}/groups", get(robots::groups).post(robots::create_group))
        .route("/organisations/{org}/groups/{group}", delete(robots::remove_group))
        .route("/organisations/{org}/groups/{group}/grants", put(robots::grant).delete(robots::ungrant))
        .route(
            "/organisations/{org}/groups/{group}/members/{user}",
            put(robots::add_to_group).delete(robots::remove_from_group),
        )
        .route("/robots", get(robots::list).post(robots::create))
        .route("/robots/{id}", delete(robots::remove))
        .route("/registry/keys", get(robots::keys))
        .route("/registry/keys/rotate", post(robots::rotate_keys))
        .route("/registry/upstreams", get(upstreams::list))
        .route("/registry/replication", get(replication::list))
        .route("/registry/replication/{rule}", post(replication::again))
        .route("/registry/retention", get(registry::plan).post(registry::apply))
        .route("/registry/gc", post(registry::collect))
        .route("/registry/freezes", get(registry::freezes).post(registry::freeze).delete(registry::thaw))
        .route("/registry/verify", get(registry::verify))
        .route("/registry/deleted", get(registry::deleted))
        .route("/registry/undo", post(registry::undo))
        .route("/registry/quotas", get(registry::quotas))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

/// What the pipeline adds.
pub(crate) fn pipeline_routes() -> Router<App> {
    Router::new()
        .route("/repositories", get(repositories::list).post(repositories::create))
        .route(
            "/repositories/{owner}/{name}",
            get(repositories::show).patch(repositories::change).delete(repositories::remove),
        )
        .route("/repositories/{owner}/{name}/secrets", get(repositories::secrets))
        .route(
            "/repositories/{owner}/{name}/secrets/{secret}",
            put(repositories::set_secret).delete(repositories::remove_secret),
        )
        .route("/repositories/{owner}/{name}/dispatches", post(runs::dispatch))
        .route("/apply", post(records::apply))
        .route("/export", get(records::export))
        .route("/targets", get(records::targets))
        .route("/targets/{target}", get(records::target).delete(records::remove_target))
        .route("/targets/{target}/status", get(runs::target_status))
        .route("/targets/{target}/rollback", post(runs::rollback))
        .route("/runs", get(runs::list))
        .route("/runs/{run}", get(runs::show))
        .route("/runs/{run}/cancel", post(runs::cancel))
        .route("/runs/{run}/retry", post(runs::retry))
        .route("/runs/{run}/wait", get(runs::wait))
        .route("/runs/{run}/logs", get(logs::logs))
        .route("/deliveries/{delivery}", get(runs::delivery))
        .route("/events", get(logs::events))
        .route("/outbox", get(records::outbox))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }))
}
