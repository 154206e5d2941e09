//! Pushes beside a collection that never rests, of one server or of several, and what tests of collection ask then.

use std::sync::Arc;

use model::{Digest, ImageName, ImagePattern, Timestamp};
use oci::{Descriptor, Manifest, media_type};
use registry::{Registry, VerifyEvent};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use store::Records;

use crate::site::{header, name, refusal, sha256};

/// Makes a request of a method and a path.
type Requests = dyn Fn(Method, &str) -> RequestBuilder + Send + Sync;

/// Several that push to images of one owner at the same time.
#[derive(Clone)]
pub struct Pushers {
    pub owner: &'static str,
    /// The registry that they push to.
    pub registry: Registry,
    /// A request to it of somebody who may push.
    pub request: Arc<Requests>,
}

impl Pushers {
    /// Pushes while `collector` collects without a pause. What was acknowledged and not deleted is there in the end, and
    /// something was collected meanwhile.
    pub async fn push_beside(&self, collector: &Registry) {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let collector = tokio::spawn({
            let registry = collector.clone();
            async move {
                let mut removed = 0;
                while !*stopped.borrow() {
                    removed += registry.collect(now(), true).await.unwrap().removed;
                }
                removed
            }
        });
        let pushers: Vec<_> = (0..4)
            .map(|number| {
                let pusher = self.clone();
                tokio::spawn(async move { pusher.push_until_there(number).await })
            })
            .collect();
        let mut pushed = Vec::new();
        for pusher in pushers {
            pushed.extend(pusher.await.unwrap());
        }
        stop.send_replace(true);
        assert!(collector.await.unwrap() > 0, "nothing was collected meanwhile");
        assert!(pushed.len() > 8, "{}", pushed.len());
        for (image, digest) in pushed {
            assert!(self.registry.exists_with_children(&image, &digest).await.unwrap(), "{image}@{digest}");
        }
        assert_eq!(problems(&self.registry).await, []);
    }

    /// Pushes images that share a layer with everybody else's, again where the collection took a blob in between, as it
    /// may without a grace; the shared layer comes in one piece, in parts, or is mounted. Answers what was acknowledged
    /// and not deleted.
    async fn push_until_there(&self, number: usize) -> Vec<(ImageName, Digest)> {
        let mut pushed = Vec::new();
        let image = format!("{}/p{number}", self.owner);
        let neighbour = format!("{}/p{}", self.owner, (number + 1) % 4);
        for round in 0..8 {
            let own = format!("layer {number} {round}");
            for attempt in 0..60 {
                let config = self.blob(&image, b"{}", false).await;
                let shared = sha256(b"shared by all");
                let path = format!("/v2/{image}/blobs/uploads/?mount={shared}&from={neighbour}");
                if attempt % 3 != 0 || self.send(Method::POST, &path, b"").await.status() != StatusCode::CREATED {
                    self.blob(&image, b"shared by all", attempt % 2 == 0).await;
                }
                let layer = self.blob(&image, own.as_bytes(), round % 2 == 0).await;
                let config = Descriptor::new(media_type::OCI_CONFIG, config, 2);
                let layers = [(shared, 13), (layer, own.len() as u64)];
                let layers = layers.map(|(digest, size)| Descriptor::new(media_type::OCI_LAYER, digest, size));
                let bytes = serde_json::to_vec(&Manifest::image(config, layers.to_vec())).unwrap();
                let digest = sha256(&bytes);
                let put = (self.request)(Method::PUT, &format!("/v2/{image}/manifests/r{round}"));
                let put = put.header("Content-Type", media_type::OCI_MANIFEST).body(bytes);
                let answer = put.send().await.unwrap();
                if answer.status() == StatusCode::CREATED {
                    pushed.push((name(&image), digest));
                    break;
                }
                assert_eq!(refusal(answer).await, (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
            }
            // What the shared layer hangs on comes and goes.
            if round % 2 == 0
                && let Some((image, digest)) = pushed.pop()
            {
                self.registry.delete_manifest(&image, &digest).await.unwrap();
            }
        }
        pushed
    }

    /// Sends a blob: in one piece, or in two parts.
    async fn blob(&self, image: &str, content: &[u8], in_parts: bool) -> Digest {
        let digest = sha256(content);
        let begin = format!("/v2/{image}/blobs/uploads/");
        let (last, rest) = if in_parts {
            let at = header(&self.send(Method::POST, &begin, b"").await, "location").to_owned();
            let (head, tail) = content.split_at(content.len() / 2);
            assert_eq!(self.send(Method::PATCH, &at, head).await.status(), StatusCode::ACCEPTED);
            ((Method::PUT, at), tail)
        } else {
            ((Method::POST, begin), content)
        };
        let done = self.send(last.0, &format!("{}?digest={digest}", last.1), rest).await;
        assert_eq!(done.status(), StatusCode::CREATED);
        digest
    }

    async fn send(&self, method: Method, path: &str, body: &[u8]) -> Response {
        (self.request)(method, path).body(body.to_vec()).send().await.unwrap()
    }
}

/// Now, as the registry has it.
pub fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

/// What is wrong, and with what; every blob is read.
pub async fn problems(registry: &Registry) -> Vec<(String, Digest)> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
    let registry = registry.clone();
    let verify = tokio::spawn(async move { registry.verify(&ImagePattern::all(), true, &sender).await.unwrap() });
    let mut problems = Vec::new();
    while let Some(event) = receiver.recv().await {
        if let VerifyEvent::Problem(problem) = event {
            problems.push((problem.wrong.name().to_owned(), problem.digest));
        }
    }
    assert_eq!(verify.await.unwrap().problems, problems.len() as u64);
    problems
}

/// Lets everything have been pushed two hours ago.
pub async fn age(records: &Records) {
    let at = Timestamp(now().0 - 7_200_000);
    let aged = records.write(move |tx| {
        tx.execute("UPDATE registry_blobs SET linked = $1", &[at.into()])?;
        tx.execute("UPDATE registry_manifests SET pushed = $1, renewed = NULL", &[at.into()])
    });
    aged.await.unwrap();
}
