//! Repositories and their secrets.

use access::{Action, Resource};
use axum::extract::State;
use config::Visibility;
use http::StatusCode;
use model::{RefName, RepoName, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use source::HostedRepo;

use crate::app::App;
use crate::core::Who;
use crate::extract::{Input, Json, Path};
use crate::problem::Problem;

pub(super) fn parse_name(owner: &str, name: &str) -> Result<RepoName, Problem> {
    format!("{owner}/{name}").parse().map_err(|error: model::NameError| Problem::bad(error.to_string()))
}

async fn json_of(app: &App, repo: &HostedRepo) -> Result<Value, Problem> {
    let public = app.access.is_public(&repo.name).await?.unwrap_or(false);
    let visibility = if public { Visibility::Public } else { Visibility::Private };
    Ok(json!({
        "id": repo.id, "name": repo.name, "defaultBranch": repo.default_branch,
        "visibility": visibility, "created": repo.created,
    }))
}

pub(super) async fn list(State(app): State<App>, who: Who) -> Result<Json<Value>, Problem> {
    let mut visible = Vec::new();
    for repo in app.pipeline.rooms().hosting.list().await? {
        // Those that may not be read are not there.
        if app.access.authorize(&who.0, Action::Read, Resource::Repository(repo.name.clone())).await.is_ok() {
            visible.push(json_of(&app, &repo).await?);
        }
    }
    Ok(Json(json!({ "repositories": visible })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct New {
    name: RepoName,
    default_branch: Option<String>,
    visibility: Option<Visibility>,
}

pub(super) async fn create(
    State(app): State<App>,
    who: Who,
    input: Input,
) -> Result<(StatusCode, Json<Value>), Problem> {
    who.known()?;
    let new: New = input.json().await?;
    app.allow(&who.0, Action::Write, Resource::Owner(new.name.owner().to_owned())).await?;
    let branch = new.default_branch.as_deref().unwrap_or("main");
    RefName::branch(branch).map_err(|error| Problem::bad(format!("defaultBranch: {error}")))?;
    let public = new.visibility == Some(Visibility::Public);
    let repo = app.pipeline.create_repository(&new.name, branch, public).await?;
    Ok((StatusCode::CREATED, Json(json_of(&app, &repo).await?)))
}

pub(super) async fn show(
    State(app): State<App>,
    who: Who,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let repo = app.repository(&who.0, Action::Read, &parse_name(&owner, &name)?).await?;
    Ok(Json(json_of(&app, &repo).await?))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Change {
    name: Option<RepoName>,
    default_branch: Option<String>,
    visibility: Option<Visibility>,
}

pub(super) async fn change(
    State(app): State<App>,
    who: Who,
    Path((owner, name)): Path<(String, String)>,
    input: Input,
) -> Result<Json<Value>, Problem> {
    let mut repo = app.repository(&who.0, Action::Admin, &parse_name(&owner, &name)?).await?;
    let change: Change = input.json().await?;
    let rename = change.name.filter(|to| *to != repo.name);
    // All rights before any change.
    if let Some(to) = &rename {
        app.allow(&who.0, Action::Write, Resource::Owner(to.owner().to_owned())).await?;
    }
    let hosting = &app.pipeline.rooms().hosting;
    if let Some(branch) = &change.default_branch {
        let head = RefName::branch(branch).map_err(|error| Problem::bad(format!("defaultBranch: {error}")))?;
        hosting.set_default_branch(repo.id, &head).await?;
        repo.default_branch.clone_from(branch);
    }
    if let Some(visibility) = change.visibility {
        app.access.put_repository(&repo.name, visibility == Visibility::Public).await?;
    }
    if let Some(to) = rename {
        app.pipeline.rename_repository(&repo.name, &to).await?;
        repo.name = to;
    }
    Ok(Json(json_of(&app, &repo).await?))
}

pub(super) async fn remove(
    State(app): State<App>,
    who: Who,
    Path((owner, name)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let repo = app.repository(&who.0, Action::Delete, &parse_name(&owner, &name)?).await?;
    app.pipeline.remove_repository(&repo.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn secrets(
    State(app): State<App>,
    who: Who,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let repo = app.repository(&who.0, Action::Admin, &parse_name(&owner, &name)?).await?;
    let secrets = pipeline::secrets::list(&app.pipeline.rooms().records, repo.id).await?;
    Ok(Json(json!({ "secrets": secrets })))
}

pub(super) async fn set_secret(
    State(app): State<App>,
    who: Who,
    Path((owner, name, secret)): Path<(String, String, String)>,
    input: Input,
) -> Result<Json<Value>, Problem> {
    let repo = app.repository(&who.0, Action::Admin, &parse_name(&owner, &name)?).await?;
    let body: Value = input.json().await?;
    // Said without what was sent, which is a secret whatever its form.
    let form = || Problem::bad("expected {\"value\": TEXT} and nothing else");
    let value =
        body.as_object().filter(|it| it.len() == 1).and_then(|it| it.get("value")?.as_str()).ok_or_else(form)?;
    let rooms = app.pipeline.rooms();
    let now = Timestamp::from(std::time::SystemTime::now());
    let set = pipeline::secrets::set(&rooms.records, &rooms.sealer, repo.id, &secret, value, now).await;
    match set {
        Ok(info) => Ok(Json(json!(info))),
        Err(error @ (pipeline::secrets::SecretsError::BadName(_) | pipeline::secrets::SecretsError::TooLong(_))) => {
            Err(Problem::bad(error.to_string()))
        }
        Err(error) => Err(Problem::internal(&error)),
    }
}

pub(super) async fn remove_secret(
    State(app): State<App>,
    who: Who,
    Path((owner, name, secret)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    let repo = app.repository(&who.0, Action::Admin, &parse_name(&owner, &name)?).await?;
    let removed = pipeline::secrets::remove(&app.pipeline.rooms().records, repo.id, &secret).await?;
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found(format!("there is no secret {secret:?}"))) }
}
