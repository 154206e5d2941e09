//! Receivers are told what happens to images: from the client's push to the signed request.

use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use config::ServerSpec;
use serde_json::Value;
use server::ServeOptions;
use tempfile::TempDir;

type Inbox = &'static Mutex<Vec<(HeaderMap, Value)>>;

async fn take(State(inbox): State<Inbox>, headers: HeaderMap, body: String) {
    inbox.lock().unwrap().push((headers, serde_json::from_str(&body).unwrap()));
}

async fn receiver() -> (String, Inbox) {
    let inbox: Inbox = Box::leak(Box::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let app = Router::new().route("/hook", post(take)).with_state(inbox);
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, inbox)
}

fn spec(url: &str, secret: &std::path::Path) -> ServerSpec {
    let secret = secret.display();
    let text = format!(
        "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n  listeners: [{{address: '127.0.0.1:0'}}]\n  \
         registry:\n    anonymous: [pull, push]\n    webhooks:\n      \
         - {{name: all, url: '{url}', secret: 'file:{secret}', events: [push, pull, delete], images: ['acme/*']}}\n"
    );
    config::parse_server("towpath.yaml", &text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_pulls_and_deletes_are_told() {
    let (url, inbox) = receiver().await;
    let dir = TempDir::new().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let options = ServeOptions { data: dir.path().join("data"), spec: spec(&url, &secret) };
    let running = server::start(options).await.unwrap();
    let base = format!("http://{}/v2", running.addresses[0]);
    let client = reqwest::Client::new();
    let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    for image in ["other/app", "acme/app"] {
        let put = client.put(format!("{base}/{image}/manifests/v1"));
        let put = put.header("content-type", "application/vnd.oci.image.index.v1+json").body(index);
        assert_eq!(put.send().await.unwrap().status(), 201);
    }
    let got = client.get(format!("{base}/acme/app/manifests/v1")).send().await.unwrap();
    let digest = got.headers()["docker-content-digest"].to_str().unwrap().to_owned();
    assert_eq!(client.delete(format!("{base}/acme/app/manifests/v1")).send().await.unwrap().status(), 202);
    assert_eq!(client.delete(format!("{base}/acme/app/manifests/{digest}")).send().await.unwrap().status(), 202);
    // What is not sent yet when the server stops is sent by the next.
    running.stop().await;
    let options = ServeOptions { data: dir.path().join("data"), spec: spec(&url, &secret) };
    let running = server::start(options).await.unwrap();
    let told = async {
        while inbox.lock().unwrap().len() < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    running.stop().await;

    let got = inbox.lock().unwrap().clone();
    assert_eq!(got.len(), 4, "none for the other image: {got:?}");
    let mut actions = Vec::new();
    for (headers, body) in &got {
        assert_eq!(headers["content-type"], registry::ENVELOPE);
        let (id, seconds) = (headers["webhook-id"].to_str().unwrap(), headers["webhook-timestamp"].to_str().unwrap());
        let signed = webhook::signature(b"s3cret", id, seconds.parse().unwrap(), &body.to_string());
        assert_eq!(headers["webhook-signature"].to_str().unwrap(), signed);
        let event = &body["events"][0];
        assert_eq!(
            (&event["target"]["repository"], &event["actor"]["name"]),
            (&"acme/app".into(), &"anonymous".into())
        );
        actions.push((
            event["action"].as_str().unwrap(),
            event["target"]["tag"].is_string(),
            &event["target"]["digest"],
        ));
    }
    actions.sort_by_key(|(action, tag, _)| (*action, *tag));
    let digest = Value::from(digest);
    let none = Value::Null;
    assert_eq!(
        actions,
        [("delete", false, &digest), ("delete", true, &none), ("pull", true, &digest), ("push", true, &digest)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_not_there_ends_the_start() {
    let dir = TempDir::new().unwrap();
    let spec = spec("http://127.0.0.1:9/hook", &dir.path().join("missing"));
    let error = server::start(ServeOptions { data: dir.path().join("data"), spec }).await.err().unwrap();
    let said = error.to_string();
    assert!(said.starts_with("spec.registry.webhooks, all: secret file:"), "{said}");
}
