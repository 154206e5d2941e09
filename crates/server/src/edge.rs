//! What every request and every answer goes through, whichever route it is for: the limits, its origin, the refusal of what
//! another site's page sends, and the headers that keep browsers from guessing. What is known of it at its end is the
//! exchange's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use acme::Challenges;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use config::ServerSpec;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use hyper::body::Incoming;
use serde_json::json;
use tokio::task::JoinHandle;
use tower::ServiceExt;
use tracing::Instrument;

use crate::exchange::Exchange;
use crate::kind::Kind;
use crate::limits::{Limits, Refused};
use crate::metrics::Metrics;
use crate::origin::{ListenerRules, Misdirected, Origin, Scheme};
use crate::patience::Patient;
use crate::problem::Problem;
use crate::serve::StartError;
use crate::traces::Tracer;

/// Where an authority asks whether a name is ours (RFC 8555, section 8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// Names a request in its answer and in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The two ends of a connection, and what is spoken between them.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
}

/// What is kept over all requests.
pub(crate) struct Edge {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) tracer: Option<Tracer>,
    /// What authorities are answered that issue certificates for listeners.
    pub(crate) challenges: Option<Challenges>,
}

impl Edge {
    /// As it is configured, with the task that sends spans, which ends after the last request.
    pub(crate) fn new(spec: &ServerSpec) -> Result<(Self, Option<JoinHandle<()>>), StartError> {
        let metrics = Arc::<Metrics>::default();
        let limits = Limits::new(&spec.rate_limits);
        let without = Self { metrics: Arc::clone(&metrics), limits, tracer: None, challenges: None };
        let Some(traces) = &spec.traces else { return Ok((without, None)) };
        let (tracer, exporter) = Tracer::new(traces, Arc::clone(&metrics)).map_err(StartError::Traces)?;
        Ok((Self { tracer: Some(tracer), ..without }, Some(tokio::spawn(exporter.run()))))
    }

    /// Answers a request.
    pub(crate) async fn serve(
        self: Arc<Self>,
        request: http::Request<Incoming>,
        ends: Ends,
        rules: &ListenerRules,
        routes: Router,
    ) -> Response {
        let (head, body) = request.into_parts();
        let mut exchange = Exchange::of(Arc::clone(&self), &head, ends.peer.ip(), rules);
        let body = Body::new(Patient::new(body, head.version, &head.headers, exchange.received()));
        let mut request = http::Request::from_parts(head, body);
        let span = tracing::error_span!("request", id = %exchange.id);
        let ours = request.uri().path().starts_with("/towpath/");
        let mut response = match self
            .challenge(request.uri().path())
            .await
            .map_or_else(|| self.admit(&request, ends, rules, &mut exchange), |answer| Err(Box::new(answer)))
        {
            Ok(origin) => {
                request.extensions_mut().insert(exchange.asker());
                request.extensions_mut().insert(origin);
                if let Some(upstream) = rules.upstream() {
                    request.extensions_mut().insert(upstream);
                }
                let Ok(response) = routes.oneshot(request).instrument(span).await;
                response
            }
            Err(response) => *response,
        };
        let fails = !response.status().is_success();
        add_headers(response.headers_mut(), &exchange.id, ours || fails);
        exchange.until_sent(response)
    }

    /// What an authority is answered that asks whether a name is ours; under any name, since it decides which.
    async fn challenge(&self, path: &str) -> Option<Response> {
        let token = path.strip_prefix(CHALLENGE_PATH)?;
        Some(match self.challenges.as_ref()?.http(token).await {
            Ok(Some(answer)) => ([(header::CONTENT_TYPE, "application/octet-stream")], answer).into_response(),
            Ok(None) => Problem::not_found("no certificate is being ordered with this token").into_response(),
            Err(error) => Problem::internal(&error).into_response(),
        })
    }

    fn admit(
        &self,
        request: &Request,
        ends: Ends,
        rules: &ListenerRules,
        exchange: &mut Exchange,
    ) -> Result<Origin, Box<Response>> {
        if exchange.kind != Kind::Health {
            let header = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
            let login = exchange.kind == Kind::Token && request.method() == Method::POST;
            match self.limits.admit(exchange.client, header, login, Instant::now()) {
                Ok(pass) => exchange.pass = Some(pass),
                Err(refused) => return Err(Box::new(self.too_many(exchange.kind, refused))),
            }
        }
        admit(request, ends, rules).map_err(|problem| Box::new(problem.into_response()))
    }

    /// 429, with the seconds to wait, in the words of the protocol that was spoken.
    fn too_many(&self, kind: Kind, refused: Refused) -> Response {
        let (counter, seconds, why) = match refused {
            Refused::Requests(seconds) => {
                (&self.metrics.too_many_requests, seconds, "too many requests from this client")
            }
            Refused::Logins(seconds) => {
                (&self.metrics.too_many_logins, seconds, "too many failed logins from this address")
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut response = if kind.is_registry() {
            let body = json!({ "errors": [{ "code": "TOOMANYREQUESTS", "message": why, "detail": null }] });
            (status, axum::Json(body)).into_response()
        } else {
            Problem::new(status, why).hint(format!("try again in {seconds} s")).into_response()
        };
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        response
    }
}

fn admit(request: &Request, ends: Ends, rules: &ListenerRules) -> Result<Origin, Problem> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    // Over HTTP/2 a Host header repeats the authority (RFC 9113, section 8.3.1): one that says something else is neither.
    let contradiction = authority.zip(host).filter(|(authority, host)| !authority.eq_ignore_ascii_case(host));
    let resolved = match contradiction.filter(|_| request.version() == Version::HTTP_2) {
        Some((_, host)) => Err(Misdirected(host.to_owned())),
        None => rules.resolve(ends, authority, request.headers()),
    };
    let origin = resolved.map_err(|error| {
        let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, error.to_string());
        problem.hint("add the name to `hosts` of the listener in the server's file")
    })?;
    if is_cross_site(request.method(), request.headers(), &origin) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "a page of another site may not change anything here"));
    }
    Ok(origin)
}

/// Whether a browser sends this for a page of another site, perhaps with credentials that it remembers. Programs that
/// are no browsers send neither header.
fn is_cross_site(method: &Method, headers: &HeaderMap, origin: &Origin) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(from) = headers.get(header::ORIGIN) else { return false };
    let from = from.to_str().unwrap_or_default();
    from.split_once("://").is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(&origin.authority))
}

fn add_headers(headers: &mut HeaderMap, id: &str, private: bool) {
    let mut absent = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    absent(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // What is stored here is somebody's: shown by a browser, it does nothing and is framed by nobody.
    absent(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox");
    absent(header::REFERRER_POLICY, "no-referrer");
    absent(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if private {
        absent(header::CACHE_CONTROL, "no-store");
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let ours = Origin { scheme: Scheme::Http, authority: "127.0.0.1:7080".into() };
        let crosses = |method: Method, headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            is_cross_site(&method, &headers, &ours)
        };
        assert!(!crosses(Method::POST, &[]), "a program");
        assert!(!crosses(Method::POST, &[("origin", "http://127.0.0.1:7080")]));
        assert!(!crosses(Method::POST, &[("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:7080")]));
        for origin in ["http://evil.example", "http://127.0.0.1:8080", "null", ""] {
            assert!(crosses(Method::POST, &[("origin", origin)]), "{origin}");
            assert!(!crosses(Method::GET, &[("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", "what"] {
            assert!(crosses(Method::DELETE, &[("sec-fetch-site", site)]), "{site}");
        }
    }
}
