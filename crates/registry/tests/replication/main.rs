//! Replication to another registry with accounts, and to Debian's `docker-registry`.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod digests;
mod docker;
#[path = "../protocol/site.rs"]
#[allow(dead_code)]
mod site;
mod there;

use std::time::{Duration, Instant};

use model::{Digest, ImagePattern, Tag, TagPattern};
use oci::client::{Auth, Client, ClientOptions, Remote};
use oci::{Descriptor, Index, Manifest, Reference, media_type};
use registry::replication::{Replication, ReplicationRule};
use registry::retention::plan::Rule;
use site::{Site, sha256};
use tokio::task::JoinHandle;

/// How long something may take that takes moments.
const PATIENCE: Duration = Duration::from_secs(60);

/// A rule that pushes the images of alice to `host` as bob's.
fn rule(host: &str, password: &str) -> ReplicationRule {
    ReplicationRule {
        name: "offsite".to_owned(),
        images: vec!["alice/**".parse().unwrap()],
        tags: Vec::new(),
        host: host.parse().unwrap(),
        plain_http: true,
        strip: Some("alice".parse().unwrap()),
        prefix: Some("bob/mirror".parse().unwrap()),
        auth: Auth::Basic { user: "bob".to_owned(), password: password.to_owned().into() },
        ca: None,
        allow_private: false,
        deletes: false,
        retention: Vec::new(),
    }
}

fn keep_newest(tags: &str, newest: usize) -> Rule {
    Rule {
        images: ImagePattern::all(),
        tags: tags.parse::<TagPattern>().unwrap(),
        keep_newest: Some(newest),
        keep_younger: None,
        keep_pulled_within: None,
        untagged_older_than: None,
    }
}

/// Replication of a site's registry; ends when it is dropped, as if the process were killed.
struct Running(Replication, JoinHandle<()>);

impl Running {
    async fn start(site: &Site, rule: ReplicationRule) -> Self {
        let replication = Replication::open(&site.registry, vec![rule]).await.unwrap();
        let running = replication.clone();
        Self(replication, tokio::spawn(async move { running.run(std::future::pending()).await }))
    }

    async fn state(&self) -> registry::replication::ReplicationState {
        self.0.states().await.unwrap().remove(0)
    }

    /// Waits until nothing is queued.
    async fn rest(&self) {
        until("the queue is empty", async || self.state().await.queued == 0).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.1.abort();
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "not after a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn remote(host: &str, name: &str, auth: Auth) -> Remote {
    let options = ClientOptions { plain_http: vec![host.to_owned()], ..ClientOptions::default() };
    Client::new(options).unwrap().repository(host.parse().unwrap(), name.parse().unwrap(), auth)
}

fn bob(site: &Site) -> Auth {
    Auth::Basic { user: "bob".to_owned(), password: site.bob.clone().into() }
}

async fn digest_of(remote: &Remote, reference: &str) -> Option<Digest> {
    let reference: Reference = reference.parse().unwrap();
    remote
        .head_manifest(&reference, &[media_type::OCI_MANIFEST, media_type::OCI_INDEX])
        .await
        .unwrap()
        .map(|it| it.digest)
}

async fn tags(remote: &Remote) -> Vec<String> {
    match remote.all_tags(100).await {
        Ok(tags) => tags.iter().map(Tag::to_string).collect(),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// Pushes something about `subject` under a tag or its digest.
async fn push_about(site: &Site, image: &str, subject: &Digest, kind: &str, tag: Option<&str>) -> Digest {
    let empty = site.push_blob(image, b"{}").await;
    let descriptor = Descriptor::new("application/vnd.oci.empty.v1+json", empty, 2);
    let mut manifest = Manifest::image(descriptor.clone(), vec![descriptor]);
    manifest.artifact_type = Some(kind.to_owned());
    let size = match site.registry.manifest(&site::name(image), &Reference::Digest(*subject)).await.unwrap() {
        Some(found) => found.bytes.len() as u64,
        None => 1,
    };
    // Those under a tag of their own name no subject.
    manifest.subject = tag.is_none().then(|| Descriptor::new(media_type::OCI_MANIFEST, *subject, size));
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let digest = sha256(&bytes);
    let reference = tag.map_or_else(|| digest.to_string(), str::to_owned);
    let answer = site.push_manifest(image, &reference, bytes, media_type::OCI_MANIFEST).await;
    assert_eq!(answer.status(), 201);
    digest
}

/// Pushes an index of images that are pushed by their digests.
async fn push_index(site: &Site, image: &str, tag: &str, parts: &[&str]) -> (Digest, Vec<Digest>) {
    let mut entries = Vec::new();
    for part in parts {
        let digest = site.push_image(image, "part", part).await;
        let found = site.registry.manifest(&site::name(image), &Reference::Digest(digest)).await.unwrap().unwrap();
        entries.push(Descriptor::new(media_type::OCI_MANIFEST, digest, found.bytes.len() as u64));
        site.registry.delete_tag(&site::name(image), &"part".parse().unwrap()).await.unwrap();
    }
    let children = entries.iter().map(|entry| entry.digest).collect();
    let bytes = serde_json::to_vec(&Index::new(entries)).unwrap();
    let digest = sha256(&bytes);
    assert_eq!(site.push_manifest(image, tag, bytes, media_type::OCI_INDEX).await.status(), 201);
    (digest, children)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_and_what_comes_arrives_with_all_that_belongs_to_it() {
    let (here, there) = (Site::start().await, Site::start().await);
    let (index, children) = push_index(&here, "alice/app", "v1", &["amd64", "arm64"]).await;
    let signature = push_about(&here, "alice/app", &children[0], "a/signature", None).await;
    let cosign = format!("sha256-{}.sig", index.hex());
    push_about(&here, "alice/app", &index, "a/cosign", Some(&cosign)).await;
    here.push_image("alice/app", "untold", "not chosen").await;
    let chosen = ReplicationRule { tags: vec!["v*".parse().unwrap()], ..rule(&there.host, &there.bob) };
    let running = Running::start(&here, chosen).await;
    running.rest().await;
    let app = remote(&there.host, "bob/mirror/app", bob(&there));
    assert_eq!(tags(&app).await, [cosign.as_str(), "v1"]);
    assert_eq!(digest_of(&app, "v1").await, Some(index));
    assert_eq!(digest_of(&app, &children[1].to_string()).await, Some(children[1]));
    let about: Vec<_> = app.referrers(&children[0], None).await.unwrap().iter().map(|it| it.digest).collect();
    assert_eq!(about, [signature]);
    // From now on it is told of by pushes.
    let begun = Instant::now();
    let second = here.push_image("alice/app", "v2", "second").await;
    until("a push arrives", async || digest_of(&app, "v2").await == Some(second)).await;
    eprintln!("a push was there after {:?}", begun.elapsed());
    let about = push_about(&here, "alice/app", &second, "a/bill", None).await;
    until("a referrer follows", async || digest_of(&app, &about.to_string()).await.is_some()).await;
    let late = format!("sha256-{}.att", second.hex());
    push_about(&here, "alice/app", &second, "a/att", Some(&late)).await;
    until("a tag that stands for one follows", async || tags(&app).await.contains(&late)).await;
    running.rest().await;
    let state = running.state().await;
    assert_eq!((state.error, state.done.failed), (None, 0));
    assert!(state.success.is_some());
    // A layer that another image has brought is mounted.
    let sent = state.done.bytes;
    here.push_image("alice/other", "v1", "second").await;
    let other = remote(&there.host, "bob/mirror/other", bob(&there));
    until("the other image arrives", async || digest_of(&other, "v1").await.is_some()).await;
    running.rest().await;
    assert_eq!(running.state().await.done.bytes, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_nobody_answers_and_a_tag_is_pushed_as_it_is_then() {
    let (mut here, there) = (Site::start().await, Site::start().await);
    // Taken for as long as it takes to know that nobody listens there.
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = socket.local_addr().unwrap().to_string();
    drop(socket);
    let running = Running::start(&here, rule(&host, &there.bob)).await;
    let first = here.push_image("alice/app", "v1", "first").await;
    until("it fails", async || running.state().await.error.is_some()).await;
    let state = running.state().await;
    let (said, _) = state.error.unwrap();
    assert!(said.starts_with(&format!("alice/app:v1 to {host}/bob/mirror: 127.0.0.1 cannot be reached")), "{said}");
    assert_eq!(state.queued, 1);
    here.push_image("alice/app", "v1", "second").await;
    // Killed, and served anew.
    drop(running);
    here.restart().await;
    let last = here.push_image("alice/app", "v1", "third").await;
    let running = Running::start(&here, rule(&host, &there.bob)).await;
    here.push_image("alice/app", "v2", "with the rule").await;
    assert_eq!(running.state().await.queued, 2);
    let served = there.serve_at(&host).await;
    running.rest().await;
    let app = remote(&served, "bob/mirror/app", bob(&there));
    assert_eq!(digest_of(&app, "v1").await, Some(last));
    assert_eq!(digest_of(&app, &first.to_string()).await, None, "what it was before was pushed");
    assert_eq!(tags(&app).await, ["v1", "v2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_works_for_a_rule() {
    let (here, there) = (Site::start().await, Site::start().await);
    let running = Running::start(&here, rule(&there.host, &there.bob)).await;
    let app = remote(&there.host, "bob/mirror/app", bob(&there));
    let lease = |ttl: i64| {
        here.records.write(move |tx| {
            let now = std::time::SystemTime::now().into();
            store::leases::acquire(tx, "registry-replication/offsite", "another", now, ttl)
        })
    };
    assert!(lease(600_000).await.unwrap());
    here.push_image("alice/app", "v1", "first").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(tags(&app).await.len(), 0, "another has the turn");
    // It dies: its turn ends.
    assert!(lease(1).await.unwrap());
    running.rest().await;
    assert_eq!(tags(&app).await, ["v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_holds_up_nothing_else() {
    let (here, there) = (Site::start().await, Site::start().await);
    let strip = Some("alice/good".parse().unwrap());
    let running = Running::start(&here, ReplicationRule { prefix: None, strip, ..rule(&there.host, &there.bob) }).await;
    // Its name stays as it is, and there that is not bob's.
    here.push_image("alice/app", "v1", "refused").await;
    until("it fails", async || running.state().await.error.is_some()).await;
    let (said, _) = running.state().await.error.unwrap();
    assert!(said.starts_with(&format!("alice/app:v1 to {}: {}", there.host, there.host)), "{said}");
    here.push_image("alice/good/bob/app", "v1", "taken").await;
    let good = remote(&there.host, "bob/app", bob(&there));
    until("the other arrives", async || digest_of(&good, "v1").await.is_some()).await;
    until("one is left", async || running.state().await.queued == 1).await;
    assert_eq!(running.state().await.paused_until, None);
}
