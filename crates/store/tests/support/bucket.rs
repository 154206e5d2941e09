//! An S3 server of this process, over files.

use std::path::PathBuf;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use store::BucketOptions;

const BUCKET: &str = "images";
const PREFIX: &str = "towpath/blobs";
const KEY: (&str, &str) = ("somebody", "secret");

/// Serves until its runtime ends.
pub struct Server {
    root: tempfile::TempDir,
    endpoint: String,
}

impl Server {
    /// Starts it with an empty bucket.
    pub async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join(BUCKET).join(PREFIX)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY.0, KEY.1));
        let service = builder.build().into_shared();
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", socket.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let connections = Builder::new(TokioExecutor::new());
                    let _ = connections.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { root, endpoint }
    }

    /// How to reach the bucket.
    pub fn options(&self) -> BucketOptions {
        BucketOptions {
            endpoint: Some(self.endpoint.clone()),
            region: "us-east-1".into(),
            bucket: BUCKET.into(),
            prefix: PREFIX.into(),
            access_key: KEY.0.into(),
            secret_key: KEY.1.into(),
            path_style: true,
        }
    }

    /// Where the objects lie as files.
    pub fn objects(&self) -> PathBuf {
        self.root.path().join(BUCKET).join(PREFIX)
    }
}
