//! Limits by client, metrics and traces.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use config::{Listener, Metrics, RateLimits, ServerSpec, Traces};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use server::{Running, ServeOptions};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::world::{Answer, GARBAGE, answer};

struct Edge {
    running: Running,
    client: Client,
    token: String,
    _dir: TempDir,
}

impl Edge {
    /// A server that takes this machine for a trusted proxy.
    async fn start(change: impl FnOnce(&mut ServerSpec)) -> Self {
        let dir = TempDir::new().unwrap();
        let listener = Listener {
            address: ([127, 0, 0, 1], 0).into(),
            trusted_proxies: vec!["127.0.0.1".into()],
            ..Listener::default()
        };
        let mut spec = ServerSpec { listeners: vec![listener], ..ServerSpec::default() };
        change(&mut spec);
        let data = dir.path().join("data");
        let running = Box::pin(server::start(ServeOptions { data, spec })).await.unwrap();
        let token = running.admin_token.clone().unwrap();
        Self { running, client: Client::builder().no_proxy().build().unwrap(), token, _dir: dir }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.running.urls[0]))
    }

    /// Asks as a client behind the proxy until it is refused.
    async fn until_refused(&self, path: &str, client: &str, token: Option<&str>) -> Answer {
        for _ in 0..2_000 {
            let mut asked = self.get(path).header("x-forwarded-for", client);
            if let Some(token) = token {
                asked = asked.bearer_auth(token);
            }
            let answer = answer(asked).await;
            if answer.status == 429 {
                return answer;
            }
        }
        panic!("{path} is never refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_too_often_is_told_to_wait() {
    let limits = RateLimits { requests_per_second: Some(1), burst: Some(3), failed_logins_per_minute: 0 };
    let edge = Edge::start(|spec| spec.rate_limits = limits).await;
    let refused = edge.until_refused("/v2/", "198.51.100.1", None).await;
    assert_eq!(refused.json()["errors"][0]["code"], "TOOMANYREQUESTS", "{refused:?}");
    assert_eq!(refused.header("retry-after"), "1");
    let refused = edge.until_refused("/towpath/v1/version", "198.51.100.1", None).await;
    refused.is_problem(429);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    // Nobody else waits for it: not its neighbour, and not who comes without a proxy.
    let neighbour = edge.get("/towpath/v1/version").header("x-forwarded-for", "198.51.100.2");
    assert_eq!(answer(neighbour).await.status, 200);
    for _ in 0..20 {
        assert_eq!(answer(edge.get("/towpath/v1/version")).await.status, 200);
    }
    edge.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_logins_are_limited_by_address() {
    let limits = RateLimits { failed_logins_per_minute: 2, ..RateLimits::default() };
    let edge = Edge::start(|spec| spec.rate_limits = limits).await;
    let known = || edge.get("/towpath/v1/users").header("x-forwarded-for", "198.51.100.1").bearer_auth(&edge.token);
    assert_eq!(answer(known()).await.status, 200);
    let refused = edge.until_refused("/v2/", "198.51.100.1", Some(GARBAGE)).await;
    assert_eq!(refused.json()["errors"][0]["code"], "TOOMANYREQUESTS", "{refused:?}");
    assert_eq!(answer(known()).await.status, 200, "who was good before goes on");
    let challenged = edge.get("/v2/").header("x-forwarded-for", "198.51.100.1");
    assert_eq!(answer(challenged).await.status, 401, "no login, so no limit");
    edge.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_on_a_listener_of_their_own() {
    let address = ([127, 0, 0, 1], 0).into();
    let edge = Edge::start(|spec| spec.metrics = Some(Metrics { address, hosts: Vec::new() })).await;
    for _ in 0..3 {
        assert_eq!(answer(edge.get("/v2/")).await.status, 401);
    }
    let body = "x".repeat(1000);
    let apply =
        edge.client.post(format!("{}/towpath/v1/apply", edge.running.urls[0])).bearer_auth(&edge.token).body(body);
    assert_eq!(answer(apply).await.status, 400);
    assert_eq!(answer(edge.get("/metrics")).await.status, 404, "not for everybody");
    let page = answer(edge.client.get(format!("http://{}/metrics", edge.running.metrics_address.unwrap()))).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "towpath_http_requests_total{route=\"base\",method=\"GET\",status=\"401\"} 3",
        "towpath_http_requests_total{route=\"api\",method=\"POST\",status=\"400\"} 1",
        "towpath_http_request_duration_seconds_bucket{route=\"base\",le=\"+Inf\"} 3",
        "towpath_http_received_bytes_total{route=\"api\"} 1000",
        "towpath_registry_images 0",
        "towpath_registry_uploads_open 0",
    ] {
        assert!(page.text.lines().any(|it| it == line), "{line}\n{}", page.text);
    }
    for name in
        ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "towpath_connections"]
    {
        let value = page.text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= 0.0), "{name}\n{}", page.text);
    }
    edge.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_their_receiver() {
    let (sender, mut received) = mpsc::unbounded_channel();
    let take = move |body: axum::Json<Value>| {
        let sender = sender.clone();
        async move { sender.send(body.0).unwrap() }
    };
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(socket, Router::new().route("/v1/traces", post(take))).await });
    let edge = Edge::start(|spec| spec.traces = Some(Traces { endpoint, sample: config::Share::default() })).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";
    let asked =
        |sampled: &str| edge.get("/v2/").bearer_auth(&edge.token).header("traceparent", format!("{parent}{sampled}"));
    assert_eq!(answer(asked("0")).await.status, 200);
    assert_eq!(answer(asked("1")).await.status, 200);
    let until = Instant::now() + Duration::from_secs(60);
    let body = tokio::time::timeout_at(until.into(), received.recv()).await.unwrap().unwrap();
    let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
    assert_eq!(spans.as_array().unwrap().len(), 1, "the other was not to be traced: {body:#}");
    let span = &spans[0];
    assert_eq!(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(span["name"], "GET base");
    let attribute = |key: &str| {
        let found = span["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key).unwrap();
        let value = &found["value"];
        value["stringValue"].as_str().or(value["intValue"].as_str()).unwrap().to_owned()
    };
    assert_eq!(attribute("enduser.id"), "admin", "the registry's requests say who asked");
    assert_eq!(attribute("http.response.status_code"), "200");
    // What is still on its way when the server stops is sent.
    assert_eq!(answer(asked("1")).await.status, 200);
    edge.running.stop().await;
    let last = tokio::time::timeout_at(until.into(), received.recv()).await.unwrap().unwrap();
    assert_eq!(last["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 1, "{last:#}");
}
