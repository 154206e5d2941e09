//! Records as YAML, targets and the outbox.

use access::{Action, Principal, Resource};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use config::Record;
use http::{StatusCode, header};
use model::RepoName;
use pipeline::targets::{self, ConfiguredTarget};
use serde_json::{Value, json};

use crate::app::App;
use crate::core::Who;
use crate::extract::{Input, Json, Path};
use crate::problem::Problem;

pub(super) async fn apply(State(app): State<App>, who: Who, input: Input) -> Result<Json<Value>, Problem> {
    who.known()?;
    let text = input.text().await?;
    let records = config::parse_records("input", &text).map_err(|error| Problem::bad(error.to_string()))?;
    // All rights before any change.
    for record in &records {
        may_apply(&app, &who.0, record).await?;
    }
    let applied = app.pipeline.apply(records, &who.0).await?;
    Ok(Json(json!({ "applied": applied })))
}

async fn may_apply(app: &App, who: &Principal, record: &Record) -> Result<(), Problem> {
    match record {
        Record::Organisation(_) | Record::User(_) => app.allow(who, Action::Admin, Resource::Server).await?,
        Record::Repository(it) => {
            let name: RepoName =
                it.metadata.name.parse().map_err(|error: model::NameError| Problem::bad(error.to_string()))?;
            if app.pipeline.rooms().hosting.find(&name).await?.is_some() {
                app.allow(who, Action::Admin, Resource::Repository(name)).await?
            } else {
                app.allow(who, Action::Write, Resource::Owner(name.owner().to_owned())).await?
            }
        }
        // A target decides what runs on this machine and where it listens.
        Record::Target(_) => app.allow(who, Action::Admin, Resource::Server).await?,
    };
    Ok(())
}

pub(super) async fn export(State(app): State<App>, who: Who) -> Result<Response, Problem> {
    app.allow(&who.0, Action::Admin, Resource::Server).await?;
    let records = app.pipeline.export().await?;
    let text = config::to_yaml(&records).map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], text).into_response())
}

fn target_json(target: &ConfiguredTarget) -> Value {
    json!({ "id": target.id, "name": target.name, "spec": target.spec })
}

pub(super) async fn targets(State(app): State<App>, who: Who) -> Result<Json<Value>, Problem> {
    let mut visible = Vec::new();
    for target in targets::list(&app.pipeline.rooms().records).await? {
        let repository = Resource::Repository(target.spec.repository.clone());
        if app.access.authorize(&who.0, Action::Read, repository).await.is_ok() {
            visible.push(target_json(&target));
        }
    }
    Ok(Json(json!({ "targets": visible })))
}

/// A target whose repository `who` may do `action` with.
pub(super) async fn find(app: &App, who: &Who, action: Action, name: &str) -> Result<ConfiguredTarget, Problem> {
    let all = targets::list(&app.pipeline.rooms().records).await?;
    let target = all.into_iter().find(|it| it.name == name);
    let (what, repository) = (format!("target {name:?}"), target.as_ref().map(|it| it.spec.repository.clone()));
    app.allow_part(&who.0, action, repository, &what).await?;
    target.ok_or_else(|| Problem::not_found(format!("there is no {what}")))
}

pub(super) async fn target(State(app): State<App>, who: Who, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    Ok(Json(target_json(&find(&app, &who, Action::Read, &name).await?)))
}

pub(super) async fn remove_target(
    State(app): State<App>,
    who: Who,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    app.allow(&who.0, Action::Admin, Resource::Server).await?;
    let target = find(&app, &who, Action::Admin, &name).await?;
    app.pipeline.remove_target(&target).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn outbox(State(app): State<App>, who: Who) -> Result<Json<Value>, Problem> {
    app.allow(&who.0, Action::Admin, Resource::Server).await?;
    let entries = app.records.read(|tx| store::outbox::list(tx, None, 100)).await?;
    let entry = |it: &store::outbox::Entry| {
        json!({ "id": it.id, "key": it.key, "destination": it.destination, "attempts": it.attempts,
                "state": it.state.name(), "error": it.error })
    };
    Ok(Json(json!({ "messages": entries.iter().map(entry).collect::<Vec<_>>() })))
}
