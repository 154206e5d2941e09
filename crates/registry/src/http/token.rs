//! The token endpoint: credentials for a token that is good for a few images and a few minutes.

use std::time::Duration;

use access::{Action, BearerScope, Credentials, Principal, Resource};
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use model::ImageName;
use serde_json::json;

use crate::http::auth::tell;
use crate::http::failure::Failure;
use crate::http::form::Form;
use crate::http::{RegistryHttp, body};
use crate::upstream::Meant;

/// Where the server mounts [`token`].
pub const TOKEN_PATH: &str = "/towpath/v1/registry/token";

/// How long a token is good. Rights are asked for again at each request all the same.
const TTL: Duration = Duration::from_secs(300);

/// The most scopes of one token.
const MAX_SCOPES: usize = 30;

/// The grant of RFC 8693.
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The longest form.
const MAX_FORM: usize = 64 << 10;

/// Answers `GET` with `Basic` credentials or none, and the `POST` form of OAuth 2 (`password`, and `refresh_token` with a
/// user's token), with a token for what of the wanted scopes is allowed. Wrong credentials are refused, never taken for
/// none.
pub async fn token(State(state): State<RegistryHttp>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let outcome = match parts.method {
        Method::GET | Method::HEAD => state.token_by_get(&parts).await,
        Method::POST => state.token_by_post(&parts, body).await,
        _ => Err(Failure::method("GET, HEAD, POST")),
    };
    let mut response = outcome.unwrap_or_else(|failure| {
        failure.log(&parts);
        failure.respond(&parts, &state)
    });
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"towpath\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl RegistryHttp {
    async fn token_by_get(&self, parts: &Parts) -> Result<Response, Failure> {
        let header = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => Some(value.to_str().map_err(|_| unauthorized("the Authorization header is not text"))?),
            None => None,
        };
        let credentials = Credentials::from_header(header)?;
        let query = Form::parse(parts.uri.query().unwrap_or_default());
        self.grant(parts, &credentials, &query).await
    }

    async fn token_by_post(&self, parts: &Parts, body: Body) -> Result<Response, Failure> {
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = oci::media_type::essence(content_type.unwrap_or_default()).to_ascii_lowercase();
        if essence != "application/x-www-form-urlencoded" {
            return Err(Failure::request("expected a form: application/x-www-form-urlencoded"));
        }
        let bytes = body::collect(body, MAX_FORM).await?;
        let form = Form::parse(std::str::from_utf8(&bytes).map_err(|_| Failure::request("the form is not UTF-8"))?);
        let field = |name: &'static str| {
            let value = form.get(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| Failure::request(format!("the form has no {name}")))
        };
        let credentials = match field("grant_type")? {
            "password" => {
                Credentials::Basic { user: field("username")?.to_owned(), password: field("password")?.into() }
            }
            // The token of a workload's issuer, which says itself whose it is.
            EXCHANGE => Credentials::Bearer(field("subject_token")?.into()),
            "refresh_token" => Credentials::Bearer(field("refresh_token")?.into()),
            other => {
                let shown: String = other.chars().take(80).collect();
                return Err(Failure::request(format!("grant_type {shown:?} is not supported")));
            }
        };
        self.grant(parts, &credentials, &form).await
    }

    async fn grant(&self, parts: &Parts, credentials: &Credentials, form: &Form) -> Result<Response, Failure> {
        if form.get("service").is_some_and(|service| !service.is_empty() && service != &*self.service) {
            return Err(Failure::request(format!("tokens are made for the service {:?} only", self.service)));
        }
        let principal = self.access.authenticate(credentials).await?;
        tell(parts, &principal);
        let wanted = wanted(form.all("scope"))?;
        let mut granted = Vec::new();
        for mut scope in wanted {
            scope.name = self.scope_name(parts, scope.name);
            let actions = self.granted(&principal, &scope).await?;
            if !actions.is_empty() {
                granted.push(BearerScope { actions, ..scope });
            }
        }
        self.access.refresh_keys().await?;
        let token = self.access.issue_bearer(&principal, &granted, &self.service, TTL);
        // No `issued_at`: with it, a client whose clock differs keeps the token for ever.
        let answer = json!({ "token": token, "access_token": token, "expires_in": TTL.as_secs() });
        Ok(Json(answer).into_response())
    }

    /// The name that the image of a scope has here. On an upstream's listener clients ask by its name there, or as they
    /// were challenged.
    fn scope_name(&self, parts: &Parts, name: String) -> String {
        let Ok(image) = name.parse::<ImageName>() else { return name };
        let local = match self.upstreams.place(&image) {
            Some(_) => self.upstreams.local_name(image, &Meant::default()),
            None => self.local_name(parts, image).ok(),
        };
        local.map_or(name, |image| image.to_string())
    }

    /// Which of the wanted actions are allowed now.
    async fn granted(&self, principal: &Principal, scope: &BearerScope) -> Result<Vec<String>, Failure> {
        let all = scope.actions.iter().any(|action| action == "*");
        if scope.kind == "registry" {
            let listed = scope.name == "catalog" && all;
            let allowed = listed && self.may(principal, Action::Read, Resource::Images).await?;
            return Ok(if allowed { vec!["*".to_owned()] } else { Vec::new() });
        }
        let Ok(image) = scope.name.parse::<ImageName>() else { return Ok(Vec::new()) };
        let mut granted = Vec::new();
        for (name, action) in [("pull", Action::Read), ("push", Action::Write), ("delete", Action::Delete)] {
            let asked = all || scope.actions.iter().any(|wanted| wanted == name);
            if asked && self.may(principal, action, self.resource(image.clone())).await? {
                granted.push(name.to_owned());
            }
        }
        Ok(granted)
    }

    async fn may(&self, principal: &Principal, action: Action, resource: Resource) -> Result<bool, Failure> {
        match self.access.authorize(principal, action, resource).await {
            Ok(_) => Ok(true),
            Err(access::Denied::Unavailable(why)) => Err(access::AccessError::Records(why).into()),
            Err(_) => Ok(false),
        }
    }
}

fn unauthorized(message: &str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
}

/// The scopes of a request, one for each thing: given several times or with spaces between them, their actions are added
/// up. What is not a scope of ours asks for nothing.
pub(super) fn wanted<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Vec<BearerScope>, Failure> {
    let mut found: Vec<BearerScope> = Vec::new();
    for scope in fields.flat_map(str::split_ascii_whitespace).filter_map(read_scope) {
        match found.iter_mut().find(|known| known.kind == scope.kind && known.name == scope.name) {
            Some(known) => known.actions.extend(scope.actions),
            None => found.push(scope),
        }
        if found.len() > MAX_SCOPES {
            return Err(Failure::request(format!("a token is for at most {MAX_SCOPES} images")));
        }
    }
    Ok(found)
}

/// `type:name:action,action`. The name may hold colons (a host with a port); the type may have a class in parentheses.
fn read_scope(text: &str) -> Option<BearerScope> {
    let (kind, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let kind = kind.split('(').next().unwrap_or_default();
    if !matches!(kind, "repository" | "registry") || name.is_empty() {
        return None;
    }
    let known = |action: &&str| matches!(*action, "pull" | "push" | "delete" | "*");
    let actions = actions.split(',').map(str::trim).filter(known).map(str::to_owned).collect();
    Some(BearerScope { kind: kind.to_owned(), name: name.to_owned(), actions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scopes_are_merged() {
        let fields =
            ["repository:a/b:pull repository(plugin):c:push,pull", "repository:a/b:push", "registry:catalog:*"];
        let found = wanted(fields.into_iter()).unwrap();
        let shown: Vec<_> = found.iter().map(|s| (s.kind.as_str(), s.name.as_str(), s.actions.join(","))).collect();
        assert_eq!(
            shown,
            [
                ("repository", "a/b", "pull,push".to_owned()),
                ("repository", "c", "push,pull".to_owned()),
                ("registry", "catalog", "*".to_owned())
            ]
        );
    }

    #[test]
    fn what_is_no_scope_asks_for_nothing() {
        assert_eq!(read_scope("repository:host:5000/a:pull").unwrap().name, "host:5000/a");
        assert_eq!(read_scope("repository:a:pull,fly").unwrap().actions, ["pull"]);
        for bad in ["", "x", "repository", "repository:a", "repository::pull", "user:a:pull"] {
            assert_eq!(read_scope(bad), None, "{bad}");
        }
        let many: Vec<String> = (0..40).map(|i| format!("repository:a{i}:pull")).collect();
        assert!(wanted(many.iter().map(String::as_str)).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = wanted([text.as_str()].into_iter());
        }
    }
}
