//! Git over smart HTTP: `/{owner}/{name}[.git]/…`.

use access::Action;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode, header};
use model::RepoName;
use serde::Deserialize;
use source::{HostedRepo, Service};

use crate::app::{App, body_stream};
use crate::core::{Who, name_of};
use crate::extract::{Path, Query};
use crate::problem::Problem;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/{owner}/{name}/info/refs", get(info_refs))
        .route("/{owner}/{name}/git-upload-pack", post(upload_pack))
        .route("/{owner}/{name}/git-receive-pack", post(receive_pack))
}

#[derive(Deserialize)]
struct InfoRefs {
    service: Option<String>,
}

fn repo_name(owner: &str, name: &str) -> Result<RepoName, Problem> {
    let name = name.strip_suffix(".git").unwrap_or(name);
    format!("{owner}/{name}").parse().map_err(|_| Problem::not_found("there is no such repository"))
}

async fn repository(app: &App, who: &Who, service: Service, owner: &str, name: &str) -> Result<HostedRepo, Problem> {
    let action = if service == Service::ReceivePack { Action::Write } else { Action::Read };
    app.repository(&who.0, action, &repo_name(owner, name)?).await
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get("git-protocol").and_then(|value| value.to_str().ok())
}

fn answer(service: Service, kind: &str, body: Body) -> Response {
    let content_type = format!("application/x-{}-{kind}", service.name());
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache".to_owned())], body).into_response()
}

async fn info_refs(
    State(app): State<App>,
    who: Who,
    Path((owner, name)): Path<(String, String)>,
    Query(query): Query<InfoRefs>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let service = query.service.as_deref().and_then(Service::from_name).ok_or_else(|| {
        Problem::new(StatusCode::FORBIDDEN, "only git's smart HTTP protocol is served")
            .hint("use a git client of this decade")
    })?;
    let repo = repository(&app, &who, service, &owner, &name).await?;
    if service == Service::ReceivePack && !has_room(&app).await {
        // Git shows its user what is plain text, and nothing else.
        let text = "no space left on the data disk of this server; nothing was pushed\n";
        return Ok((StatusCode::INSUFFICIENT_STORAGE, [(header::CONTENT_TYPE, "text/plain")], text).into_response());
    }
    let advertised = app.pipeline.rooms().hosting.advertise(repo.id, service, protocol(&headers)).await;
    let body = advertised.map_err(|error| Problem::internal(&error))?;
    Ok(answer(service, "advertisement", Body::from(body)))
}

/// A push that could not be delivered is refused before it begins: its run could not even store why it failed.
async fn has_room(app: &App) -> bool {
    let pipeline = app.pipeline.clone();
    tokio::task::spawn_blocking(move || pipeline.rooms().has_room()).await.unwrap_or(false)
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip" | b"x-gzip") => Ok(true),
        Some(_) => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content encoding is not gzip")),
    }
}

async fn upload_pack(
    State(app): State<App>,
    who: Who,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let service = Service::UploadPack;
    let repo = repository(&app, &who, service, &owner, &name).await?;
    let gzip = is_gzip(request.headers())?;
    let protocol = protocol(request.headers()).map(str::to_owned);
    let body = body_stream(request);
    let served = app.pipeline.rooms().hosting.upload_pack(repo.id, protocol.as_deref(), gzip, body);
    Ok(answer(service, "result", Body::from_stream(served.map_err(|error| Problem::internal(&error))?)))
}

async fn receive_pack(
    State(app): State<App>,
    who: Who,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let service = Service::ReceivePack;
    let repo = repository(&app, &who, service, &owner, &name).await?;
    let gzip = is_gzip(request.headers())?;
    let protocol = protocol(request.headers()).map(str::to_owned);
    let body = body_stream(request);
    let (pipeline, actor, id) = (app.pipeline.clone(), name_of(&who.0), repo.id);
    let on_push = move |updates| async move {
        match pipeline.pushed(&repo, updates, &actor).await {
            Ok(lines) => lines,
            Err(error) => {
                tracing::error!(repository = %repo.name, %error, "a push could not be delivered");
                vec!["towpath: the push is stored, but its delivery could not be recorded".to_owned()]
            }
        }
    };
    let hosting = &app.pipeline.rooms().hosting;
    let served = hosting.receive_pack(id, protocol.as_deref(), gzip, body, on_push);
    Ok(answer(service, "result", Body::from_stream(served.map_err(|error| Problem::internal(&error))?)))
}
