//! A real client: skopeo pulls through the prefix and through a listener.

use std::process::Stdio;

use tokio::process::Command;

use crate::front::{UP, World};
use crate::site::serve_with;

async fn copy(world: &World, from: &str, to: &str) {
    let dir = world.cache.dir.path();
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
        .arg(format!("docker://{from}"))
        .arg(format!("dir:{}", dir.join(to).display()))
        .env("HOME", dir)
        .env("XDG_RUNTIME_DIR", dir)
        .env("REGISTRY_AUTH_FILE", dir.join("auth.json"))
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{from}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_through() {
    if std::process::Command::new("skopeo").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: skopeo");
        return;
    }
    let world = World::start(|_| ()).await;
    let digest = world.upstream.push_image("alice/open", "v1", "the layer").await;
    let mirror = serve_with(&world.cache.registry, &world.cache.access, world.upstreams.clone(), Some(UP)).await;
    copy(&world, &format!("{}/{UP}/alice/open:v1", world.cache.host), "prefix").await;
    world.front.answer(503, &[]);
    copy(&world, &format!("{mirror}/alice/open:v1"), "listener").await;
    copy(&world, &format!("{}/{UP}/alice/open@{digest}", world.cache.host), "digest").await;
    let layer = crate::site::sha256(b"the layer");
    for to in ["prefix", "listener", "digest"] {
        assert_eq!(std::fs::read(world.cache.dir.path().join(to).join(layer.hex())).unwrap(), b"the layer");
    }
    let (manifests, blobs) = (world.front.count("GET", "/manifests/"), world.front.count("GET", "/blobs/"));
    assert_eq!((manifests, blobs), (1, 2));
}
