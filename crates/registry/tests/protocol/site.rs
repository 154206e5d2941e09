//! A registry on a port of its own, with two users.

use std::sync::Arc;
use std::time::Duration;

use access::{Access, Scope};
use bytes::Bytes;
use model::{Algorithm, Digest, ImageName};
use oci::{Descriptor, Manifest, digest_of, media_type};
use registry::Registry;
use registry::http::{RegistryHttp, TOKEN_PATH, router, token_router};
use registry::upstream::{ListenerUpstream, Upstreams};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use store::{Blobs, Location, Records};
use tempfile::TempDir;

pub const SERVICE: &str = "towpath";

/// Each image's owner may do everything with it; `alice/open` is public.
pub struct Site {
    pub dir: TempDir,
    /// Host and port.
    pub host: String,
    pub registry: Registry,
    pub records: Records,
    pub access: Access,
    pub admin: String,
    pub alice: String,
    pub bob: String,
    http: reqwest::Client,
}

impl Site {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (records, registry, access) = open(&dir).await;
        let admin = access.bootstrap().await.unwrap().unwrap().expose().to_owned();
        let mut tokens = Vec::new();
        for name in ["alice", "bob"] {
            let user = access.create_user(name, false).await.unwrap();
            let (_, secret) = access.create_token(user, "test", &[Scope::All], None).await.unwrap();
            tokens.push(secret.expose().to_owned());
        }
        access.put_repository(&"alice/open".parse().unwrap(), true).await.unwrap();
        let host = serve(&registry, &access).await;
        let (alice, bob) = (tokens.remove(0), tokens.remove(0));
        Self { dir, host, registry, records, access, admin, alice, bob, http: reqwest::Client::new() }
    }

    /// Stops nothing, but serves the same data again with nothing in memory.
    pub async fn restart(&mut self) {
        let (records, registry, access) = open(&self.dir).await;
        self.host = serve(&registry, &access).await;
        (self.registry, self.records, self.access) = (registry, records, access);
    }

    /// Serves the same data at this address too.
    #[allow(dead_code)]
    pub async fn serve_at(&self, host: &str) -> String {
        serve_at(host, &self.registry, &self.access, Upstreams::default(), None).await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.host))
    }

    /// As alice, with her token as the password.
    pub fn alice(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).basic_auth("alice", Some(&self.alice))
    }

    pub fn bob(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).basic_auth("bob", Some(&self.bob))
    }

    /// A registry token for `user`, by the endpoint.
    pub async fn token(&self, user: &str, secret: &str, scopes: &[&str]) -> String {
        let query: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
        let path = format!("{TOKEN_PATH}?service={SERVICE}&{}", query.join("&"));
        let answer = self.request(Method::GET, &path).basic_auth(user, Some(secret)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        json(answer).await["token"].as_str().unwrap().to_owned()
    }

    /// Pushes a blob in one piece as alice.
    pub async fn push_blob(&self, image: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        let path = format!("/v2/{image}/blobs/uploads/?digest={digest}");
        let answer = self.alice(Method::POST, &path).body(content.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        digest
    }

    pub async fn push_manifest(&self, image: &str, reference: &str, bytes: Vec<u8>, kind: &str) -> Response {
        let path = format!("/v2/{image}/manifests/{reference}");
        self.alice(Method::PUT, &path).header("Content-Type", kind).body(bytes).send().await.unwrap()
    }

    /// Pushes a small image as alice and answers its digest.
    pub async fn push_image(&self, image: &str, tag: &str, content: &str) -> Digest {
        let config = self.push_blob(image, b"{}").await;
        let layer = self.push_blob(image, content.as_bytes()).await;
        let bytes = manifest(config, 2, layer, content.len() as u64);
        let answer = self.push_manifest(image, tag, bytes.clone(), media_type::OCI_MANIFEST).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        sha256(&bytes)
    }

    pub async fn has_blob(&self, image: &str, digest: &Digest) -> bool {
        let answer = self.alice(Method::HEAD, &format!("/v2/{image}/blobs/{digest}")).send().await.unwrap();
        answer.status() == StatusCode::OK
    }
}

async fn open(dir: &TempDir) -> (Records, Registry, Access) {
    let records = Records::open(Location::Sqlite(dir.path().join("towpath.db"))).await.unwrap();
    let blobs = Blobs::open(&dir.path().join("blobs")).await.unwrap();
    let access = Access::install(records.clone()).await.unwrap();
    (records.clone(), Registry::open(records, blobs).await.unwrap(), access)
}

async fn serve(registry: &Registry, access: &Access) -> String {
    serve_with(registry, access, Upstreams::default(), None).await
}

/// Serves a registry with a pull-through cache; all its names are those of `upstream` if one is given.
pub async fn serve_with(
    registry: &Registry,
    access: &Access,
    upstreams: Upstreams,
    upstream: Option<&'static str>,
) -> String {
    serve_at("127.0.0.1:0", registry, access, upstreams, upstream).await
}

async fn serve_at(
    address: &str,
    registry: &Registry,
    access: &Access,
    upstreams: Upstreams,
    upstream: Option<&'static str>,
) -> String {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let state = RegistryHttp {
        registry: registry.clone(),
        access: access.clone(),
        service: SERVICE.into(),
        realm: Arc::new(|parts| {
            let host = parts.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
            format!("http://{host}{TOKEN_PATH}")
        }),
        upstreams,
    };
    let mut app = router(state.clone()).merge(token_router(state));
    if let Some(name) = upstream {
        app = app.layer(axum::Extension(ListenerUpstream(name.into())));
    }
    tokio::spawn(async move { axum::serve(listener, app).await });
    host
}

pub fn sha256(content: &[u8]) -> Digest {
    digest_of(Algorithm::Sha256, content)
}

pub fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

pub fn manifest(config: Digest, config_size: u64, layer: Digest, layer_size: u64) -> Vec<u8> {
    let config = Descriptor::new(media_type::OCI_CONFIG, config, config_size);
    let layer = Descriptor::new(media_type::OCI_LAYER, layer, layer_size);
    serde_json::to_vec(&Manifest::image(config, vec![layer])).unwrap()
}

pub async fn json(answer: Response) -> serde_json::Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// The status and error code of an answer.
pub async fn refusal(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body = json(answer).await;
    (status, body["errors"][0]["code"].as_str().unwrap().to_owned())
}

pub fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A body of `pieces` that comes slowly and without a length.
pub fn pieces(pieces: Vec<&'static [u8]>) -> reqwest::Body {
    let stream = futures_util::stream::unfold(pieces.into_iter(), async |mut rest| {
        tokio::time::sleep(Duration::from_millis(5)).await;
        rest.next().map(|piece| (Ok::<_, std::io::Error>(Bytes::from_static(piece)), rest))
    });
    reqwest::Body::wrap_stream(stream)
}
