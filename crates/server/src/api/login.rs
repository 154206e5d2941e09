//! Signing in through a provider of identities: two addresses for a browser.

use access::LoginError;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use crate::core::Core;
use crate::extract::{Json, Path, Query};
use crate::origin::{Origin, Scheme};
use crate::problem::Problem;

/// What the browser brings back between the two requests.
const COOKIE: &str = "towpath_login";

/// Where the provider sends the browser back to.
fn callback(origin: &Origin, provider: &str) -> String {
    format!("{origin}/towpath/v1/login/oidc/{provider}/callback")
}

fn origin(parts: &Parts) -> Result<Origin, Problem> {
    let found = parts.extensions.get::<Origin>().cloned();
    found.ok_or_else(|| Problem::bad("this address cannot be reached this way"))
}

/// A cookie for these addresses alone, which no script reads and no other site sends but by a link.
fn cookie(origin: &Origin, value: &str, seconds: u32) -> Result<HeaderValue, Problem> {
    let secure = if origin.scheme == Scheme::Https { "; Secure" } else { "" };
    let text =
        format!("{COOKIE}={value}; Path=/towpath/v1/login/oidc; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).map_err(|error| Problem::internal(&error))
}

/// `GET /login`: through whom people can sign in.
pub(super) async fn ways(State(core): State<Core>) -> Json<serde_json::Value> {
    Json(json!({ "oidc": core.access.providers() }))
}

pub(super) async fn begin(
    State(core): State<Core>,
    Path(provider): Path<String>,
    parts: Parts,
) -> Result<Response, Problem> {
    let origin = origin(&parts)?;
    let start = core.access.begin_login(&provider, &callback(&origin, &provider)).await?;
    let location = HeaderValue::try_from(start.url).map_err(|error| Problem::internal(&error))?;
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::SET_COOKIE, cookie(&origin, &start.cookie, 600)?);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[derive(Deserialize)]
pub(super) struct Back {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
}

pub(super) async fn finish(
    State(core): State<Core>,
    Path(provider): Path<String>,
    Query(back): Query<Back>,
    parts: Parts,
) -> Result<Response, Problem> {
    let origin = origin(&parts)?;
    let brought = brought(&parts.headers);
    let redirect = callback(&origin, &provider);
    let entered = core.access.finish_login(&provider, &redirect, &brought, (&back.code, &back.state)).await?;
    let (user, token) = (entered.user.as_str(), entered.token.expose());
    let mut response = if wants_json(&parts.headers) {
        Json(json!({ "user": user, "token": token, "expires": entered.expires })).into_response()
    } else {
        // Both are letters, digits and a few signs that mean nothing in HTML.
        let page = format!(
            "<!doctype html><meta charset=utf-8><title>Towpath</title><p>You are {user}. This token is good until {} \
             and is not shown again:</p><pre>{token}</pre>\n",
            entered.expires
        );
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
    };
    response.headers_mut().insert(header::SET_COOKIE, cookie(&origin, "", 0)?);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn brought(headers: &HeaderMap) -> String {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned()).unwrap_or_default()
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("json")
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        let status = match error {
            LoginError::Access(error) => return error.into(),
            LoginError::NoProvider(_) => StatusCode::NOT_FOUND,
            LoginError::Stale => StatusCode::BAD_REQUEST,
            LoginError::Refused => StatusCode::FORBIDDEN,
            LoginError::Unreachable => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}
