//! Debian's `docker-registry` as the destination: it lists no referrers, and deletes manifests by their digests only.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::*;

struct Docker {
    _child: Child,
    _dir: tempfile::TempDir,
    host: String,
}

impl Docker {
    async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:0', secret: x}}\n",
            dir.path().join("data").display()
        );
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stderr(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let Ok(mut child) = command.spawn() else {
            eprintln!("skipped: docker-registry is not installed");
            return None;
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = loop {
            let line = lines.next_line().await.unwrap().expect("docker-registry ended");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split('"').next().unwrap().trim().to_owned();
            }
        };
        // Nobody reads on: it must not stand still for that.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { _child: child, _dir: dir, host })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_referrers_and_retention() {
    let Some(docker) = Docker::start().await else { return };
    let here = Site::start().await;
    let to =
        ReplicationRule { auth: Auth::Anonymous, retention: vec![keep_newest("pr-*", 1)], ..rule(&docker.host, "") };
    let running = Running::start(&here, to).await;
    let (index, children) = push_index(&here, "alice/app", "v1", &["amd64", "arm64"]).await;
    let signature = push_about(&here, "alice/app", &index, "a/signature", None).await;
    let app = remote(&docker.host, "bob/mirror/app", Auth::Anonymous);
    until("the referrer arrives", async || digest_of(&app, &signature.to_string()).await.is_some()).await;
    running.rest().await;
    assert_eq!(digest_of(&app, "v1").await, Some(index));
    assert_eq!(digest_of(&app, &children[0].to_string()).await, Some(children[0]));
    let about: Vec<_> = app.referrers(&index, None).await.unwrap().iter().map(|it| it.digest).collect();
    assert_eq!(about, [signature], "by the tag that stands for the list");
    here.push_image("alice/app", "pr-1", "1").await;
    running.rest().await;
    here.push_image("alice/app", "pr-2", "2").await;
    running.rest().await;
    let (old, new) = (digest_of(&app, "pr-1").await, digest_of(&app, "pr-2").await);
    assert_eq!((old.is_some(), new.is_some()), (false, true), "{:?}", running.state().await);
    // Of two tags of one manifest, none can go alone there, and the other is not ours to take.
    let shared = here.push_image("alice/app", "kept", "3").await;
    here.push_image("alice/app", "pr-3", "3").await;
    running.rest().await;
    here.push_image("alice/app", "pr-4", "4").await;
    until("it is said", async || running.state().await.error.is_some()).await;
    running.rest().await;
    assert_eq!(digest_of(&app, "kept").await, Some(shared));
    let (said, _) = running.state().await.error.unwrap();
    assert!(said.contains("retention of alice/app to") && said.contains("deletes no tags, and kept"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_no_sha512_digest_and_that_is_said() {
    let Some(docker) = Docker::start().await else { return };
    let here = Site::start().await;
    let running = Running::start(&here, ReplicationRule { auth: Auth::Anonymous, ..rule(&docker.host, "") }).await;
    let wide = digests::push_wide(&here, "alice/app", "v1", "one").await;
    until("it fails", async || running.state().await.error.is_some()).await;
    let (said, _) = running.state().await.error.unwrap();
    assert!(said.starts_with(&format!("alice/app:v1 to {}", docker.host)) && said.contains("digest"), "{said}");
    let app = remote(&docker.host, "bob/mirror/app", Auth::Anonymous);
    assert_eq!((digest_of(&app, "v1").await, running.state().await.queued), (None, 1), "{wide}");
}
