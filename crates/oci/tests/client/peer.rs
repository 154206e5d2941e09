//! Debian's `docker-registry`.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use model::Digest;
use oci::client::{Auth, BlobPush, BlobSource, Remote};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::script::client;

pub struct Peer {
    pub address: SocketAddr,
    _child: Child,
    _dir: TempDir,
}

impl Peer {
    /// Starts one with an empty store; nothing if it is not installed.
    pub async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:0', secret: x}}\n",
            dir.path().join("data").display()
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: docker-registry is not installed");
            return None;
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let wait = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("docker-registry ended");
                if let Some((_, rest)) = line.split_once("listening on ") {
                    return rest.split('"').next().unwrap().parse().unwrap();
                }
            }
        };
        let address = tokio::time::timeout(Duration::from_secs(60), wait).await.expect("docker-registry listens");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { address, _child: child, _dir: dir })
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn remote(&self, name: &str) -> Remote {
        client(&[self.host()]).repository(self.host().parse().unwrap(), name.parse().unwrap(), Auth::Anonymous)
    }

    pub async fn put_blob(&self, name: &str, content: &Bytes) -> Digest {
        let digest = oci::digest_of(model::Algorithm::Sha256, content);
        let push = BlobPush::new(digest, content.len() as u64, BlobSource::bytes(content.clone()));
        self.remote(name).push_blob(&push).await.unwrap();
        digest
    }
}

/// Bytes that look like nothing in particular, always the same.
pub fn noise(length: usize) -> Bytes {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect::<Vec<u8>>().into()
}
