//! The client of `/towpath/v1`: the only way in which commands reach a server.

use std::path::Path;

use reqwest::{Certificate, Method, Response, StatusCode};
use serde_json::Value;

use crate::cli::Connection;
use crate::error::{Failure, Kind};
use crate::kept::{self, Kept};

/// Where `towpath up` listens by default.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7080";

/// What `towpath login` has kept.
fn kept() -> Result<Kept, Failure> {
    kept::path().map_or_else(|| Ok(Kept::default()), |path| kept::read(&path))
}

/// A server and whom we are there.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: String,
}

impl Client {
    /// As the token says that is given, or else as `towpath login` has kept it.
    pub(crate) fn new(connection: &Connection) -> Result<Self, Failure> {
        if !connection.token.is_empty() {
            return Self::anonymous(connection).map(|client| client.with_token(&connection.token));
        }
        let kept = kept()?;
        let client = Self::to(connection, &kept)?;
        match kept.servers.get(&kept::address(&client.server)) {
            Some(login) => Ok(client.with_token(&login.token)),
            None => Ok(client),
        }
    }

    /// As nobody.
    pub(crate) fn anonymous(connection: &Connection) -> Result<Self, Failure> {
        // The file is not looked at where nothing of it is needed.
        let kept = if connection.server.is_none() { kept()? } else { Kept::default() };
        Self::to(connection, &kept)
    }

    /// The same server, as whom the token stands for.
    #[must_use]
    pub(crate) fn with_token(self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self }
    }

    /// The server's address.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    fn to(connection: &Connection, kept: &Kept) -> Result<Self, Failure> {
        let server = connection.server.as_deref().or(kept.server.as_deref()).unwrap_or(DEFAULT_SERVER);
        let server = server.trim_end_matches('/').to_owned();
        let plain = server.starts_with("http://");
        if !plain && !server.starts_with("https://") {
            let message = format!("the server's address {server:?} does not begin with http:// or https://");
            return Err(Failure::usage(message));
        }
        let mut http = reqwest::Client::builder().no_proxy();
        if let Some(ca) = &connection.ca {
            http = http.tls_certs_only(authorities(ca)?);
        } else if plain {
            // Nobody is verified: the machine's own authorities need not be read.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|error| Failure::failed(format!("no client can be made: {}", root(&error))))?;
        Ok(Self { http, server, token: String::new() })
    }

    /// The response to a request, if it went well.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, Failure> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.finish(request).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/towpath/v1{path}", self.server));
        if self.token.is_empty() { request } else { request.bearer_auth(&self.token) }
    }

    async fn finish(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| {
            let cause = root(&error);
            Failure::new(Kind::Unreachable, format!("the server at {} cannot be reached: {cause}", self.server))
                .hint("start one with `towpath up`, or name another with --server or TOWPATH_SERVER")
        })?;
        if response.status().is_success() { Ok(response) } else { Err(problem(response).await) }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        json(self.send(Method::GET, path, None).await?).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        json(self.send(method, path, Some(body)).await?).await
    }

    /// Sends a text as it is.
    pub(crate) async fn post_text(&self, path: &str, text: String) -> Result<Value, Failure> {
        json(self.finish(self.request(Method::POST, path).body(text)).await?).await
    }
}

/// The certificates of a PEM file.
fn authorities(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    match Certificate::from_pem_bundle(&text) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Failure::usage(format!("{shown} holds no certificate in PEM"))),
    }
}

/// The JSON of an answer; nothing where it has no body.
async fn json(response: Response) -> Result<Value, Failure> {
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(Value::Null);
    }
    response.json().await.map_err(|error| Failure::failed(format!("the server's answer is not JSON: {error}")))
}

async fn problem(response: Response) -> Failure {
    let status = response.status();
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Refused,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Kind::Usage,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Kind::Unreachable,
        _ => Kind::Failed,
    };
    let text = response.text().await.unwrap_or_default();
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    let detail =
        document["detail"].as_str().map_or_else(|| format!("the server answered {status}: {text}"), str::to_owned);
    let failure = Failure::new(kind, detail);
    match document["hint"].as_str() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn root(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}
