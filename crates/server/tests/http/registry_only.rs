//! A server whose file names only the registry.

use config::{Anonymous, RegistrySpec, ServerSpec};
use reqwest::Client;
use server::{Running, ServeOptions};

use crate::world::{Answer, answer};

struct Alone {
    running: Running,
    client: Client,
    _dir: tempfile::TempDir,
}

impl Alone {
    async fn start(anonymous: &[Anonymous]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = RegistrySpec { anonymous: anonymous.to_vec(), ..RegistrySpec::default() };
        let mut spec = ServerSpec { registry: Some(registry), ..ServerSpec::default() };
        spec.listeners[0].address = ([127, 0, 0, 1], 0).into();
        let running = server::start(ServeOptions { data: dir.path().join("data"), spec }).await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        Self { running, client, _dir: dir }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method.parse().unwrap(), format!("http://{}{path}", self.running.addresses[0]))
    }

    async fn ask(&self, method: &str, path: &str) -> Answer {
        answer(self.request(method, path)).await
    }

    /// Pushes an artifact without blobs; as the administrator or nobody.
    async fn push(&self, image: &str, tag: &str, token: Option<&str>) -> Answer {
        let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let blob = self.request("POST", &format!("/v2/{image}/blobs/uploads/?digest={empty}")).body("{}");
        let blob = match token {
            Some(token) => blob.basic_auth("admin", Some(token)),
            None => blob,
        };
        let pushed = answer(blob).await;
        if pushed.status != 201 {
            return pushed;
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let descriptor = format!(r#"{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{empty}","size":2}}"#);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}","artifactType":"a/b","config":{descriptor},"layers":[{descriptor}]}}"#
        );
        let put = self.request("PUT", &format!("/v2/{image}/manifests/{tag}")).header("content-type", kind);
        let put = put.body(manifest);
        answer(match token {
            Some(token) => put.basic_auth("admin", Some(token)),
            None => put,
        })
        .await
    }
}

#[tokio::test]
async fn there_are_accounts_and_the_registry_and_nothing_else() {
    let alone = Alone::start(&[]).await;
    assert!(alone.running.pipeline.is_none());
    let token = alone.running.admin_token.clone().unwrap();
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/towpath/v1/version", 200)] {
        assert_eq!(alone.ask("GET", path).await.status, status, "{path}");
    }
    assert_eq!(answer(alone.request("GET", "/towpath/v1/users").bearer_auth(&token)).await.status, 200);
    for path in ["/towpath/v1/repositories", "/towpath/v1/runs", "/demo/site.git/info/refs?service=git-upload-pack"] {
        assert_eq!(answer(alone.request("GET", path).bearer_auth(&token)).await.status, 404, "{path}");
    }
    // Without the option, nobody in particular may do nothing.
    let base = alone.ask("GET", "/v2/").await;
    assert_eq!(base.status, 401);
    assert!(base.header("www-authenticate").starts_with("Bearer realm=\"http://127.0.0.1:"), "{base:?}");
    assert_eq!(alone.push("alpine", "v1", None).await.status, 401);
    assert_eq!(alone.push("alpine", "v1", Some(&token)).await.status, 201);
    assert_eq!(alone.ask("GET", "/v2/alpine/manifests/v1").await.status, 401);
    alone.running.stop().await;
}

#[tokio::test]
async fn where_everybody_may_push_nothing_is_challenged() {
    let alone = Alone::start(&[Anonymous::Pull, Anonymous::Push]).await;
    assert_eq!(alone.ask("GET", "/v2/").await.status, 200);
    for image in ["alpine", "nobody/has/this"] {
        assert_eq!(alone.push(image, "v1", None).await.status, 201, "{image}");
        assert_eq!(alone.ask("GET", &format!("/v2/{image}/manifests/v1")).await.status, 200, "{image}");
        assert_eq!(alone.ask("GET", &format!("/v2/{image}/tags/list")).await.json()["tags"][0], "v1");
    }
    assert_eq!(
        alone.ask("GET", "/v2/_catalog").await.json()["repositories"],
        serde_json::json!(["alpine", "nobody/has/this"])
    );
    assert_eq!(alone.ask("GET", "/v2/none/manifests/v1").await.status, 404);
    assert_eq!(alone.ask("DELETE", "/v2/alpine/manifests/v1").await.status, 202);
    // Accounts stay what they are.
    assert_eq!(alone.ask("GET", "/towpath/v1/users").await.status, 401);
    // Wrong credentials are not none.
    let wrong = alone.request("GET", "/v2/").basic_auth("admin", Some(crate::world::GARBAGE));
    assert_eq!(answer(wrong).await.status, 401);
    alone.running.stop().await;
}

#[tokio::test]
async fn where_everybody_may_pull_pushing_needs_a_token() {
    let alone = Alone::start(&[Anonymous::Pull]).await;
    let token = alone.running.admin_token.clone().unwrap();
    assert_eq!(alone.push("alpine", "v1", Some(&token)).await.status, 201);
    // The base is challenged, or clients with credentials would never show them; reading needs no token, and one that
    // was given to nobody in particular is as good.
    assert_eq!(alone.ask("GET", "/v2/").await.status, 401);
    assert_eq!(alone.ask("GET", "/v2/alpine/manifests/v1").await.status, 200);
    let path = "/towpath/v1/registry/token?service=towpath&scope=repository:alpine:pull,push";
    let bearer = alone.ask("GET", path).await.json()["token"].as_str().unwrap().to_owned();
    for path in ["/v2/", "/v2/alpine/manifests/v1"] {
        assert_eq!(answer(alone.request("GET", path).bearer_auth(&bearer)).await.status, 200, "{path}");
    }
    let refused = alone.push("alpine", "v2", None).await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").contains("scope=\"repository:alpine:pull,push\""), "{refused:?}");
    assert_eq!(answer(alone.request("DELETE", "/v2/alpine/manifests/v1").bearer_auth(&bearer)).await.status, 401);
    alone.running.stop().await;
}
