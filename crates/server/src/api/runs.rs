//! Runs: what they are, and what can be done with them.

use std::collections::BTreeMap;
use std::time::Duration;

use access::{Action, Resource};
use axum::extract::State;
use http::StatusCode;
use model::{DeliveryId, Event, RefName, RepoName, RunId};
use pipeline::RunStatus;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::api::records;
use crate::api::repositories::parse_name;
use crate::app::App;
use crate::core::{Who, name_of};
use crate::extract::{Input, Json, Path, Query};
use crate::problem::Problem;

/// Runs of one answer.
const MOST_RUNS: i64 = 200;
/// Seconds that one request may wait.
const LONGEST_WAIT: u64 = 300;

#[derive(Deserialize)]
pub(super) struct List {
    repository: Option<RepoName>,
    limit: Option<i64>,
}

pub(super) async fn list(State(app): State<App>, who: Who, Query(query): Query<List>) -> Result<Json<Value>, Problem> {
    let limit = query.limit.unwrap_or(30).clamp(1, MOST_RUNS);
    let runs = match &query.repository {
        Some(name) => {
            let repo = app.repository(&who.0, Action::Read, name).await?;
            app.pipeline.runs(Some(repo.id), limit).await?
        }
        None => {
            app.allow(&who.0, Action::Admin, Resource::Server).await?;
            app.pipeline.runs(None, limit).await?
        }
    };
    Ok(Json(json!({ "runs": runs })))
}

/// Asks the gate for the repository of a run. A run of another repository is as if it were not there.
pub(super) async fn authorize(app: &App, who: &Who, action: Action, run: RunId) -> Result<(), Problem> {
    let repository = match app.pipeline.run_repository(run).await? {
        Some(id) => app.pipeline.rooms().hosting.by_id(id).await?.map(|repo| repo.name),
        None => None,
    };
    app.allow_part(&who.0, action, repository, &format!("run {run}")).await
}

async fn status(app: &App, run: RunId) -> Result<RunStatus, Problem> {
    app.pipeline.status(run).await?.ok_or_else(|| Problem::not_found(format!("there is no run {run}")))
}

pub(super) async fn show(State(app): State<App>, who: Who, Path(run): Path<i64>) -> Result<Json<RunStatus>, Problem> {
    authorize(&app, &who, Action::Read, RunId(run)).await?;
    Ok(Json(status(&app, RunId(run)).await?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wait {
    timeout_seconds: Option<u64>,
}

pub(super) async fn wait(
    State(app): State<App>,
    who: Who,
    Path(run): Path<i64>,
    Query(query): Query<Wait>,
) -> Result<Json<RunStatus>, Problem> {
    let run = RunId(run);
    authorize(&app, &who, Action::Read, run).await?;
    let limit = Duration::from_secs(query.timeout_seconds.unwrap_or(60).min(LONGEST_WAIT));
    // Listen first, look then: an end between the two is not missed.
    let mut events = app.pipeline.subscribe();
    let until = tokio::time::Instant::now() + limit;
    loop {
        let status = status(&app, run).await?;
        if status.ended() {
            return Ok(Json(status));
        }
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = tokio::time::sleep_until(until) => return Ok(Json(status)),
                () = app.stopped() => return Ok(Json(status)),
            };
            match event {
                Ok(recorded) if !ends(&recorded.event, run) => {}
                Err(RecvError::Closed) => return Ok(Json(status)),
                // Its end, or so many events that it may have been among those missed.
                Ok(_) | Err(RecvError::Lagged(_)) => break,
            }
        }
    }
}

fn ends(event: &Event, run: RunId) -> bool {
    match event {
        Event::TargetRunFinished { run: this, .. } | Event::WorkflowRunFinished { run: this, .. } => *this == run,
        _ => false,
    }
}

pub(super) async fn cancel(State(app): State<App>, who: Who, Path(run): Path<i64>) -> Result<Json<Value>, Problem> {
    authorize(&app, &who, Action::Write, RunId(run)).await?;
    let cancelled = app.pipeline.cancel(RunId(run), &name_of(&who.0)).await?;
    if !cancelled {
        let problem = Problem::new(StatusCode::CONFLICT, format!("run {run} has nothing left to cancel"));
        return Err(problem.hint("it has ended, or is already publishing and goes to its end"));
    }
    Ok(Json(json!({ "run": run, "cancelled": true })))
}

async fn opened(app: &App, delivery: DeliveryId) -> Result<(StatusCode, Json<Value>), Problem> {
    let runs = app.pipeline.runs_of(delivery).await?;
    Ok((StatusCode::CREATED, Json(json!({ "delivery": delivery, "runs": runs }))))
}

pub(super) async fn retry(
    State(app): State<App>,
    who: Who,
    Path(run): Path<i64>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    authorize(&app, &who, Action::Write, RunId(run)).await?;
    opened(&app, app.pipeline.retry(RunId(run), &name_of(&who.0)).await?).await
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    to: Option<i64>,
}

pub(super) async fn rollback(
    State(app): State<App>,
    who: Who,
    Path(target): Path<String>,
    input: Input,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let target = records::find(&app, &who, Action::Write, &target).await?;
    let body: Option<Rollback> = input.optional_json().await?;
    let to = body.and_then(|body| body.to).map(RunId);
    opened(&app, app.pipeline.rollback(&target.name, to, &name_of(&who.0)).await?).await
}

pub(super) async fn target_status(
    State(app): State<App>,
    who: Who,
    Path(target): Path<String>,
) -> Result<Json<Value>, Problem> {
    let target = records::find(&app, &who, Action::Read, &target).await?;
    let none = || Problem::not_found(format!("target {} has had no run yet", target.name)).hint("push to its branch");
    let status = app.pipeline.target_status(&target.name).await?.ok_or_else(none)?;
    let mut value = serde_json::to_value(&status).map_err(|error| Problem::internal(&error))?;
    value["kind"] = json!("target");
    Ok(Json(value))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dispatch {
    #[serde(rename = "ref")]
    ref_name: String,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
}

pub(super) async fn dispatch(
    State(app): State<App>,
    who: Who,
    Path((owner, name)): Path<(String, String)>,
    input: Input,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let repo = app.repository(&who.0, Action::Write, &parse_name(&owner, &name)?).await?;
    let body: Dispatch = input.json().await?;
    let full = body.ref_name.parse::<RefName>().or_else(|_| RefName::branch(&body.ref_name));
    let full = full.map_err(|error| Problem::bad(format!("ref: {error}")))?;
    opened(&app, app.pipeline.dispatch(&repo, &full, body.inputs, &name_of(&who.0)).await?).await
}

pub(super) async fn delivery(
    State(app): State<App>,
    who: Who,
    Path(delivery): Path<i64>,
) -> Result<Json<Value>, Problem> {
    let delivery = DeliveryId(delivery);
    let events = app.pipeline.journal().delivery(delivery).await?;
    let repository = match events.first().map(|recorded| &recorded.event) {
        Some(Event::DeliveryCreated { delivery: created }) => {
            app.pipeline.rooms().hosting.by_id(created.repository).await?.map(|repo| repo.name)
        }
        _ => None,
    };
    app.allow_part(&who.0, Action::Read, repository, &format!("delivery {delivery}")).await?;
    let runs = app.pipeline.runs_of(delivery).await?;
    Ok(Json(json!({ "delivery": delivery, "runs": runs, "events": events })))
}
