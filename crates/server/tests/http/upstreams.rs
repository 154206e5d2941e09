//! A server that pulls images through from another server, as its file says.

use config::{Anonymous, Listener, RegistrySpec, ServerSpec, parse_server};
use reqwest::{Client, RequestBuilder};
use server::{Running, ServeOptions};
use tempfile::TempDir;

use crate::world::answer;

async fn start(dir: &TempDir, mut spec: ServerSpec) -> Result<Running, server::StartError> {
    spec.listeners.iter_mut().for_each(|listener| listener.address = ([127, 0, 0, 1], 0).into());
    server::start(ServeOptions { data: dir.path().join("data"), spec }).await
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

/// An artifact without blobs of its own, pushed by nobody in particular.
async fn push(running: &Running, image: &str) {
    let at = |path: &str| format!("http://{}/v2/{image}/{path}", running.addresses[0]);
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let blob = client().post(at(&format!("blobs/uploads/?digest={empty}"))).body("{}");
    assert_eq!(answer(blob).await.status, 201);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let part = format!(r#"{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{empty}","size":2}}"#);
    let manifest =
        format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","artifactType":"a/b","config":{part},"layers":[{part}]}}"#);
    let put = client().put(at("manifests/v1")).header("content-type", kind).body(manifest);
    assert_eq!(answer(put).await.status, 201);
}

fn cache_of(upstream: &Running) -> ServerSpec {
    let text = format!(
        "apiVersion: towpath.dev/v1alpha1
kind: Towpath
spec:
  listeners: [{{}}, {{address: '127.0.0.1:7081', upstream: up.test}}]
  registry:
    upstreams:
      - {{name: up.test, url: 'http://{}', insecurePlainHttp: true, anonymous: true}}
",
        upstream.addresses[0]
    );
    parse_server("towpath.yaml", &text).unwrap()
}

#[tokio::test]
async fn images_come_from_the_other_server_under_three_names() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = RegistrySpec { anonymous: vec![Anonymous::Pull, Anonymous::Push], ..RegistrySpec::default() };
    let spec = ServerSpec { registry: Some(open), listeners: vec![Listener::default()], ..ServerSpec::default() };
    let upstream = start(&first, spec).await.unwrap();
    push(&upstream, "acme/app").await;
    let cache = start(&second, cache_of(&upstream)).await.unwrap();
    let get = |listener: usize, path: &str| client().get(format!("http://{}{path}", cache.addresses[listener]));
    for (listener, path, came) in [
        (0, "/v2/up.test/acme/app/manifests/v1", "miss"),
        (0, "/v2/acme/app/manifests/v1?ns=up.test", "hit"),
        (1, "/v2/acme/app/manifests/v1", "hit"),
    ] {
        let found = answer(get(listener, path)).await;
        assert_eq!((found.status, found.header("towpath-cache")), (200, came), "{path}");
    }
    let token = cache.admin_token.clone().unwrap();
    let admin = |request: RequestBuilder| request.bearer_auth(&token);
    let shown = answer(admin(get(0, "/towpath/v1/registry/upstreams"))).await.json();
    let shown = &shown["upstreams"][0];
    assert_eq!(
        (&shown["name"], &shown["state"], &shown["answers"]["hit"]),
        (&"up.test".into(), &"ok".into(), &2.into())
    );
    // The prefix is nobody's name.
    let user = client().post(format!("http://{}/towpath/v1/users", cache.addresses[0]));
    let refused = answer(admin(user).json(&serde_json::json!({ "name": "Up.test" }))).await;
    assert!((400..500).contains(&refused.status), "{refused:?}");
    cache.stop().await;
    upstream.stop().await;
}

#[tokio::test]
async fn a_prefix_that_somebody_has_is_refused_at_the_start() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alone = ServerSpec { registry: Some(RegistrySpec::default()), ..ServerSpec::default() };
    let upstream = start(&first, alone.clone()).await.unwrap();
    let earlier = start(&second, alone).await.unwrap();
    earlier.basis.access.create_user("up.test", false).await.unwrap();
    earlier.stop().await;
    let Err(error) = start(&second, cache_of(&upstream)).await else { panic!("it started") };
    let error = error.to_string();
    assert!(error.contains("\"up.test\"") && error.contains("prefix"), "{error}");
    upstream.stop().await;
}
