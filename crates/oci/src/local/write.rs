//! Writing layouts and archives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::TryStreamExt;
use model::Timestamp;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use super::{FULL_NAME, LocalError, LocalImages, REF_NAME, blob_path, name_of};
use crate::client::{BlobSource, ClientError};
use crate::media_type;
use crate::tar::{LayerWriter, Meta};
use crate::{Descriptor, Hasher, Index, ManifestKind};

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image layout that is written to. What it holds already stays.
#[derive(Debug)]
pub struct LayoutWriter {
    dir: PathBuf,
    index: Mutex<Index>,
}

impl LayoutWriter {
    /// Opens the layout in `dir`, or makes one.
    ///
    /// # Errors
    /// When the directory cannot be made, or holds something that is no layout.
    pub fn open(dir: &Path) -> Result<Self, LocalError> {
        let failed = |error| LocalError::Io { path: dir.to_owned(), error };
        std::fs::create_dir_all(dir.join("blobs")).map_err(failed)?;
        let index = match LocalImages::layout(dir) {
            Ok(images) => images.index,
            Err(LocalError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Index::new(Vec::new()),
            Err(error) => return Err(error),
        };
        std::fs::write(dir.join("oci-layout"), LAYOUT).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), index: Mutex::new(index) })
    }

    /// Whether a blob is there, by its length; its content was checked when it was written.
    pub fn has(&self, blob: &Descriptor) -> bool {
        std::fs::metadata(blob_path(&self.dir, &blob.digest)).is_ok_and(|found| found.len() == blob.size)
    }

    /// Writes a blob. It gets its name when its digest was checked.
    ///
    /// # Errors
    /// When the source fails or is not what its digest says, or the disk fails.
    pub async fn write(&self, blob: &Descriptor, source: &BlobSource) -> Result<(), ClientError> {
        let path = blob_path(&self.dir, &blob.digest);
        let partial = path.with_extension(format!("partial-{:016x}", rand::random::<u64>()));
        let done = self.fill(&partial, blob, source).await;
        let done = match done {
            Ok(()) => tokio::fs::rename(&partial, &path).await.map_err(|error| written(&path, &error)),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // What is left over is of no use to anybody.
            let _ = tokio::fs::remove_file(&partial).await;
        }
        done
    }

    async fn fill(&self, path: &Path, blob: &Descriptor, source: &BlobSource) -> Result<(), ClientError> {
        let failed = |error: io::Error| written(path, &error);
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(failed)?;
        }
        let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let mut stream = source.open(0).await?;
        let mut length = 0;
        while let Some(bytes) = stream.try_next().await? {
            length += bytes.len() as u64;
            if length > blob.size {
                return Err(ClientError::Source(format!("{} is longer than {} bytes", blob.digest, blob.size)));
            }
            hasher.update(&bytes);
            file.write_all(&bytes).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        let found = hasher.finish();
        if found != blob.digest || length != blob.size {
            return Err(ClientError::Source(format!("what should be {} is {found}, {length} bytes", blob.digest)));
        }
        Ok(())
    }

    /// Enters a manifest, whose blob is written, into the index; under `name` nothing else stays.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub async fn enter(&self, mut entry: Descriptor, name: Option<&str>) -> Result<(), LocalError> {
        let mut index = self.index.lock().await;
        if let Some(name) = name {
            let annotations = entry.annotations.get_or_insert_default();
            let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
            if name.contains([':', '/']) {
                annotations.insert(FULL_NAME.to_owned(), name.to_owned());
            }
            annotations.insert(REF_NAME.to_owned(), tag.to_owned());
            index.manifests.retain(|other| name_of(other) != name_of(&entry));
        } else if index.manifests.iter().any(|other| other.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        let path = self.dir.join("index.json");
        let partial = self.dir.join("index.json.partial");
        let text = serde_json::to_vec(&*index).map_err(io::Error::from);
        text.and_then(|text| std::fs::write(&partial, text))
            .and_then(|()| std::fs::rename(&partial, &path))
            .map_err(|error| LocalError::Io { path, error })
    }
}

fn written(path: &Path, error: &io::Error) -> ClientError {
    ClientError::Options(format!("{} cannot be written: {error}", path.display()))
}

/// Writes the layout in `dir` as the archive `file`; with `manifest.json` if it is for docker, which then reads it as
/// well as podman and skopeo do. The file gets its name when it is complete.
///
/// # Errors
/// When the layout cannot be read or the file not be written; for docker, when an image has several platforms.
pub fn pack(dir: &Path, file: &Path, docker: bool) -> Result<(), LocalError> {
    let images = LocalImages::layout(dir)?;
    let manifest = if docker { Some(docker_manifest(&images)?) } else { None };
    let partial = file.with_extension("partial");
    let failed = |error| LocalError::Io { path: file.to_owned(), error };
    let done = File::create(&partial)
        .map_err(failed)
        .and_then(|out| write_archive(dir, manifest, BufWriter::with_capacity(256 << 10, out)))
        .and_then(|()| std::fs::rename(&partial, file).map_err(failed));
    if done.is_err() {
        // What is left over is of no use to anybody.
        let _ = std::fs::remove_file(&partial);
    }
    done
}

fn write_archive(dir: &Path, manifest: Option<Vec<u8>>, out: BufWriter<File>) -> Result<(), LocalError> {
    let broken = |error: &dyn std::fmt::Display| LocalError::Io {
        path: dir.to_owned(),
        error: io::Error::other(error.to_string()),
    };
    let mut tar = LayerWriter::new(out);
    let meta = Meta::root(0o644, Timestamp(0));
    let directory = Meta::root(0o755, Timestamp(0));
    if let Some(text) = manifest {
        tar.file(b"manifest.json", &meta, text.len() as u64, &mut &text[..]).map_err(|error| broken(&error))?;
    }
    let mut ahead = vec![PathBuf::new()];
    while let Some(below) = ahead.pop() {
        let listed = std::fs::read_dir(dir.join(&below)).map_err(|error| broken(&error))?;
        let names: Result<BTreeSet<_>, _> = listed.map(|entry| entry.map(|entry| entry.file_name())).collect();
        for name in names.map_err(|error| broken(&error))? {
            let path = below.join(&name);
            let text = path.to_string_lossy().into_owned();
            let found = std::fs::metadata(dir.join(&path)).map_err(|error| broken(&error))?;
            if found.is_dir() {
                tar.directory(text.as_bytes(), &directory).map_err(|error| broken(&error))?;
                ahead.push(path);
            } else {
                let mut content = File::open(dir.join(&path)).map_err(|error| broken(&error))?;
                tar.file(text.as_bytes(), &meta, found.len(), &mut content).map_err(|error| broken(&error))?;
            }
        }
    }
    let mut out = tar.finish().map_err(|error| broken(&error))?;
    out.flush().and_then(|()| out.get_ref().sync_all()).map_err(|error| broken(&error))
}

/// `manifest.json`, as `docker save` writes it: one entry for each image with all of its names.
fn docker_manifest(images: &LocalImages) -> Result<Vec<u8>, LocalError> {
    let mut all: BTreeMap<_, (serde_json::Value, Vec<String>)> = BTreeMap::new();
    for entry in images.entries() {
        let kind = images.manifest(&entry.digest, &entry.media_type)?.parse()?;
        let ManifestKind::Image(manifest) = kind else {
            let why = "has an image of several platforms, which docker's archives cannot hold; choose one".to_owned();
            return Err(LocalError::NoImage { path: images.path.clone(), why });
        };
        // Signatures and the like are no images to docker.
        if !manifest.layers.iter().all(|layer| media_type::is_layer(&layer.media_type)) {
            continue;
        }
        let path = |blob: &Descriptor| format!("blobs/{}/{}", blob.digest.algorithm().name(), blob.digest.hex());
        let layers: Vec<String> = manifest.layers.iter().map(path).collect();
        let image = json!({ "Config": path(&manifest.config), "Layers": layers });
        let (_, names) = all.entry(entry.digest).or_insert((image, Vec::new()));
        names.extend(name_of(entry).filter(|name| name.contains(':')));
    }
    let list: Vec<serde_json::Value> = all
        .into_values()
        .map(|(mut image, names)| {
            image["RepoTags"] = names.into();
            image
        })
        .collect();
    serde_json::to_vec(&list)
        .map_err(|error| LocalError::Malformed { path: images.path.clone(), why: error.to_string() })
}

impl LayoutWriter {
    /// Writes a manifest's bytes.
    ///
    /// # Errors
    /// As [`LayoutWriter::write`].
    pub async fn write_manifest(&self, entry: &Descriptor, bytes: Bytes) -> Result<(), ClientError> {
        self.write(entry, &BlobSource::bytes(bytes)).await
    }
}
