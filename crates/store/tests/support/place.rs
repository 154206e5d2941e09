//! Where the tests of blobs have them: in a directory, or in a bucket.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use model::Digest;
use store::{Blobs, BucketOptions, Location, Records};
use tokio::sync::OnceCell;

use crate::bucket;

/// Each test on files and on a real S3 server.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod directory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::place::Place::directory()).await;
            })*
        }

        mod in_a_bucket {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::place::Place::bucket().await).await;
            })*
        }
    };
}
pub(crate) use on_both;

/// The digest of `hello`.
pub fn hello() -> Digest {
    "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".parse().unwrap()
}

/// Where a test has its blobs.
pub struct Place {
    dir: tempfile::TempDir,
    /// For the records of a bucket.
    beside: tempfile::TempDir,
    records: OnceCell<Records>,
    bucket: Option<bucket::Server>,
}

impl Place {
    pub fn directory() -> Self {
        let (dir, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Self { dir, beside, records: OnceCell::new(), bucket: None }
    }

    pub async fn bucket() -> Self {
        Self { bucket: Some(bucket::Server::start().await), ..Self::directory() }
    }

    pub async fn open(&self) -> Blobs {
        match &self.bucket {
            Some(bucket) => Blobs::open_bucket(self.dir(), &bucket.options(), &self.records().await).await.unwrap(),
            None => Blobs::open(self.dir()).await.unwrap(),
        }
    }

    /// The records that uploads to the bucket are in.
    pub async fn records(&self) -> Records {
        let location = Location::Sqlite(self.beside.path().join("towpath.db"));
        self.records.get_or_init(async || Records::open(location).await.unwrap()).await.clone()
    }

    /// How to reach the bucket.
    pub fn options(&self) -> BucketOptions {
        self.bucket.as_ref().unwrap().options()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where finished blobs lie: names of objects are names of files there.
    pub fn finished(&self) -> PathBuf {
        self.bucket.as_ref().map_or_else(|| self.dir().to_owned(), bucket::Server::objects)
    }

    pub fn file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.finished().join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    /// Puts something there that is no blob.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.finished().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// All files, here and in the bucket.
    pub fn left(&self) -> Vec<PathBuf> {
        let mut left = files(self.dir());
        left.extend(self.bucket.iter().flat_map(|bucket| files(&bucket.objects())));
        left
    }
}

/// Every file below `dir` that is not a lock.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in dir.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.to_string_lossy().ends_with("lock") {
            found.push(path);
        }
    }
    found
}
