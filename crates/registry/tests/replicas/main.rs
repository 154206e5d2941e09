//! Two processes that serve one registry over one PostgreSQL and one bucket, as far as they can be two in one test: each
//! with its own directory, connections and memory.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../../../store/tests/support/bucket.rs"]
mod bucket;
mod collecting;
mod heard;
#[path = "../../../store/tests/support/postgresql.rs"]
mod postgresql;
#[path = "../protocol/pushers.rs"]
mod pushers;
#[allow(dead_code)]
#[path = "../protocol/site.rs"]
mod site;

use access::{Access, Level, Scope};
use model::Digest;
use registry::Registry;
use registry::upstream::Upstreams;
use reqwest::{Method, RequestBuilder, Response};
use site::{header, json, refusal, serve_with, sha256};
use store::{Blobs, Location, Records};
use tempfile::TempDir;

/// One of the processes.
struct Replica {
    _dir: TempDir,
    host: String,
    registry: Registry,
    records: Records,
    access: Access,
    http: reqwest::Client,
}

impl Replica {
    /// A request without credentials: everybody may push.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.host))
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.request(method, path).body(body).send().await.unwrap()
    }

    async fn push_blob(&self, image: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        let path = format!("/v2/{image}/blobs/uploads/?digest={digest}");
        let answer = self.send(Method::POST, &path, content.to_vec()).await;
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        digest
    }

    /// The status of what somebody with this token is told of a private image.
    async fn asks(&self, token: &str) -> u16 {
        let path = "/v2/ada/site/tags/list";
        self.request(Method::GET, path).basic_auth("ada", Some(token)).send().await.unwrap().status().as_u16()
    }
}

/// What they share.
struct Town {
    bucket: bucket::Server,
    database: String,
}

impl Town {
    /// Nothing after saying what is missing.
    async fn start() -> Option<Self> {
        Some(Self { database: postgresql::database()?, bucket: bucket::Server::start().await })
    }

    async fn replica(&self) -> Replica {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(Location::Postgres(self.database.clone())).await.unwrap();
        let blobs = Blobs::open_bucket(dir.path(), &self.bucket.options(), &records).await.unwrap();
        let access = Access::install(records.clone()).await.unwrap().with_anonymous_images(Level::Write);
        let registry = Registry::open(records.clone(), blobs).await.unwrap();
        let host = serve_with(&registry, &access, Upstreams::default(), None).await;
        Replica { _dir: dir, host, registry, records, access, http: reqwest::Client::new() }
    }
}

async fn two() -> Option<(Town, Replica, Replica)> {
    let town = Town::start().await?;
    // At once, on an empty database.
    let (one, other) = tokio::join!(town.replica(), town.replica());
    Some((town, one, other))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_of_two_at_once_makes_one_administrator_and_one_key() {
    let Some((_town, one, other)) = two().await else { return };
    let (first, second) = tokio::join!(one.access.bootstrap(), other.access.bootstrap());
    let made: Vec<_> = [first.unwrap(), second.unwrap()].into_iter().flatten().collect();
    assert_eq!(made.len(), 1);
    let keys = one.access.list_keys().await.unwrap();
    assert_eq!((keys.len(), &keys), (1, &other.access.list_keys().await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_an_upload_may_come_to_another() {
    let Some((_town, one, other)) = two().await else { return };
    let begun = one.send(Method::POST, "/v2/demo/site/blobs/uploads/", "").await;
    assert_eq!(begun.status(), 202);
    let at = header(&begun, "location").to_owned();
    let patch = |replica: &Replica, range: &'static str, body: &'static str| {
        replica.request(Method::PATCH, &at).header("Content-Range", range).body(body).send()
    };
    let first = patch(&other, "0-4", "hello").await.unwrap();
    assert_eq!((first.status().as_u16(), header(&first, "range")), (202, "0-4"));
    let early = patch(&one, "3-4", "xx").await.unwrap();
    assert_eq!((early.status().as_u16(), header(&early, "range"), header(&early, "location")), (416, "0-4", &*at));
    assert_eq!(patch(&one, "5-6", ", ").await.unwrap().status(), 202);
    for replica in [&one, &other] {
        let status = replica.send(Method::GET, &at, "").await;
        assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-6"));
    }
    let digest = sha256(b"hello, world");
    let done = other.send(Method::PUT, &format!("{at}?digest={digest}"), "world").await;
    assert_eq!(done.status(), 201);
    for replica in [&one, &other] {
        let blob = replica.send(Method::GET, &format!("/v2/demo/site/blobs/{digest}"), "").await;
        assert_eq!(blob.bytes().await.unwrap(), "hello, world");
        assert_eq!(refusal(replica.send(Method::GET, &at, "").await).await.1, "BLOB_UPLOAD_UNKNOWN");
    }
    // Ended by one, it is over for both.
    let begun = one.send(Method::POST, "/v2/demo/site/blobs/uploads/", "").await;
    let at = header(&begun, "location").to_owned();
    assert_eq!(one.send(Method::PATCH, &at, "hello").await.status(), 202);
    assert_eq!(other.send(Method::DELETE, &at, "").await.status(), 204);
    assert_eq!(one.send(Method::PATCH, &at, "hello").await.status(), 404);
    // And so it is with a wrong digest.
    let begun = one.send(Method::POST, "/v2/demo/site/blobs/uploads/", "").await;
    let at = header(&begun, "location").to_owned();
    assert_eq!(one.send(Method::PATCH, &at, "hello").await.status(), 202);
    assert_eq!(other.send(Method::PUT, &format!("{at}?digest={digest}"), "").await.status(), 400);
    assert_eq!(one.send(Method::GET, &at, "").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_uploads_of_all_together_have_a_limit() {
    let Some((_town, one, other)) = two().await else { return };
    let many = one.records.write(|tx| {
        let sql = "INSERT INTO registry_uploads (id, image, subject, begun)
                   SELECT 'upload ' || n, 'demo/site', 'somebody', 0 FROM generate_series(1, 10000) AS n";
        tx.execute(sql, &[])
    });
    assert_eq!(many.await.unwrap(), 10_000);
    let begin = async |replica: &Replica| replica.send(Method::POST, "/v2/demo/site/blobs/uploads/", "").await;
    for replica in [&one, &other] {
        assert_eq!(refusal(begin(replica).await).await, (429, "TOOMANYREQUESTS".to_owned()));
    }
    let ended = other.records.write(|tx| tx.execute("DELETE FROM registry_uploads WHERE id LIKE 'upload 999_'", &[]));
    assert_eq!(ended.await.unwrap(), 10);
    for _ in 0..10 {
        assert_eq!(begin(&one).await.status(), 202);
    }
    for replica in [&one, &other] {
        assert_eq!(begin(replica).await.status(), 429);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_parts_at_once_one_counts() {
    let Some((town, one, other)) = two().await else { return };
    for round in 0..8 {
        let begun = one.send(Method::POST, "/v2/demo/site/blobs/uploads/", "").await;
        let at = header(&begun, "location").to_owned();
        let parts = ["a".repeat(100_000), "b".repeat(200_000)];
        let (first, second) = tokio::join!(
            one.send(Method::PATCH, &at, parts[0].clone()),
            other.send(Method::PATCH, &at, parts[1].clone())
        );
        let mut statuses = [first.status().as_u16(), second.status().as_u16()];
        let content = match statuses {
            // One after the other, in either order: both count.
            [202, 202] if header(&first, "range") == "0-99999" => parts.concat(),
            [202, 202] => format!("{}{}", parts[1], parts[0]),
            [202, _] => parts[0].clone(),
            _ => parts[1].clone(),
        };
        statuses.sort_unstable();
        assert!([[202, 202], [202, 416]].contains(&statuses), "round {round}: {statuses:?}");
        let end = format!("{at}?digest={}", sha256(content.as_bytes()));
        assert_eq!(one.send(Method::PUT, &end, "").await.status(), 201, "round {round}: {statuses:?}");
    }
    let staged = town.bucket.objects().join("uploads");
    let left = staged.read_dir().unwrap().flatten().flat_map(|dir| dir.path().read_dir().unwrap());
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_is_told_the_other_heeds_at_the_next_request() {
    let Some((_town, one, other)) = two().await else { return };
    let access = [&one, &other].map(|replica| replica.access.clone().with_anonymous_images(Level::None));
    let user = access[0].create_user("ada", false).await.unwrap();
    let (token, secret) = access[0].create_token(user, "test", &[Scope::All], None).await.unwrap();
    let secret = secret.expose().to_owned();
    one.push_blob("ada/site", b"{}").await;
    let mut closed = Vec::new();
    for (replica, access) in [&one, &other].into_iter().zip(&access) {
        let host = serve_with(&replica.registry, access, Upstreams::default(), None).await;
        closed.push(host);
    }
    let (one, other) = (Replica { host: closed.remove(0), ..one }, Replica { host: closed.remove(0), ..other });
    // A token of one opens the other, before and after the keys were rotated there.
    for round in 0..2 {
        let path = format!("{}?service={}&scope=repository:ada/site:pull", registry::http::TOKEN_PATH, site::SERVICE);
        let answer = one.request(Method::GET, &path).basic_auth("ada", Some(&secret)).send().await.unwrap();
        let bearer = json(answer).await["token"].as_str().unwrap().to_owned();
        let blob = format!("/v2/ada/site/blobs/{}", sha256(b"{}"));
        let read = other.request(Method::GET, &blob).bearer_auth(&bearer).send().await.unwrap();
        assert_eq!(read.status(), 200, "round {round}");
        one.access.rotate_keys(false).await.unwrap();
        // The other looks for a key that it does not know five times a second at most.
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    assert_eq!((one.asks(&secret).await, other.asks(&secret).await), (200, 200));
    access[0].revoke_token(user, token).await.unwrap();
    assert_eq!((other.asks(&secret).await, one.asks(&secret).await), (401, 401));
    let frozen: model::ImagePattern = "demo/*".parse().unwrap();
    one.registry.freeze(frozen.clone(), "ada", "a move").await.unwrap();
    let lease = other.registry.blobs().lease("test");
    let index = serde_json::to_vec(&oci::Index::new(Vec::new())).unwrap();
    let commit = async |name: &str| {
        other.registry.commit(&lease, &site::name(name), index.clone().into(), oci::media_type::OCI_INDEX, &[]).await
    };
    assert!(matches!(commit("demo/site").await, Err(registry::RegistryError::Frozen { .. })));
    commit("other/site").await.unwrap();
    assert!(one.registry.thaw(&frozen).await.unwrap());
    commit("demo/site").await.unwrap();
}
