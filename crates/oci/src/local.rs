//! Images on this machine: OCI layouts, and archives of docker and of layouts.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{Algorithm, Digest};
use serde::Deserialize;

use crate::client::{BlobSource, FetchedManifest};
use crate::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use crate::tar::{EntryKind, TarReader};
use crate::{Descriptor, DigestReader, Index, MAX_MANIFEST, Manifest, ManifestError, digest_of, image};

mod write;

pub use write::{LayoutWriter, pack};

/// The most entries of an archive that are looked at.
const MAX_ENTRIES: usize = 100_000;

/// The annotation of an index's entry with its name.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation by which docker and containerd give an entry its full name.
pub const FULL_NAME: &str = "io.containerd.image.name";

/// Why local images cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is not what it is said to be.
    #[error("{} is not an image layout or archive: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// There is no such image, or more than one.
    #[error("{} {why}", path.display())]
    NoImage {
        /// The layout or archive.
        path: PathBuf,
        /// What there is.
        why: String,
    },
    /// A blob is missing, or not what its digest says.
    #[error("{}: blob {digest} {why}", path.display())]
    Blob {
        /// The layout or archive.
        path: PathBuf,
        /// Which.
        digest: Box<Digest>,
        /// What is wrong with it.
        why: String,
    },
    /// A manifest is not one.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// The images of a layout or an archive, to be read. Opening reads an archive's table of contents, and no blob.
#[derive(Debug)]
pub struct LocalImages {
    path: PathBuf,
    /// Where blobs are in an archive, by offset and length; nothing for a directory.
    inside: Option<HashMap<Digest, (u64, u64)>>,
    /// What stands in no file: the manifests of archives that have none.
    made: HashMap<Digest, Bytes>,
    index: Index,
}

/// An image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl LocalImages {
    /// Opens the layout in `dir`.
    ///
    /// # Errors
    /// When there is none.
    pub fn layout(dir: &Path) -> Result<Self, LocalError> {
        let path = dir.join("index.json");
        let failed = |error| LocalError::Io { path: path.clone(), error };
        let file = File::open(&path).map_err(failed)?;
        let mut text = Vec::new();
        file.take(MAX_MANIFEST as u64 + 1).read_to_end(&mut text).map_err(failed)?;
        let index = read_index(dir, &text)?;
        Ok(Self { path: dir.to_owned(), inside: None, made: HashMap::new(), index })
    }

    /// Opens what `docker save`, `podman save` or `skopeo` wrote: a tar with an image layout, with `manifest.json`, or
    /// with both.
    ///
    /// # Errors
    /// When it is neither, or compressed as a whole.
    pub fn archive(path: &Path) -> Result<Self, LocalError> {
        let failed = |error| LocalError::Io { path: path.to_owned(), error };
        let mut file = File::open(path).map_err(failed)?;
        let contents = contents(&mut file).map_err(failed)?;
        let bad = |why: &str| LocalError::Malformed { path: path.to_owned(), why: why.to_owned() };
        let small = |file: &mut File, name: &str, limit: usize| match contents.get(name) {
            Some((_, size)) if *size > limit as u64 => Err(bad(&format!("{name} is longer than {limit} bytes"))),
            Some((offset, size)) => read_at(file, *offset, *size).map(Some).map_err(failed),
            None => Ok(None),
        };
        let mut images =
            Self { path: path.to_owned(), inside: None, made: HashMap::new(), index: Index::new(Vec::new()) };
        if let Some(text) = small(&mut file, "index.json", MAX_MANIFEST)? {
            images.index = read_index(path, &text)?;
            let blob = |(name, place): (&String, &(u64, u64))| {
                let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
                Some((format!("{algorithm}:{hex}").parse().ok()?, *place))
            };
            images.inside = Some(contents.iter().filter_map(blob).collect());
            return Ok(images);
        }
        let text = small(&mut file, "manifest.json", MAX_MANIFEST)?;
        let text = text.ok_or_else(|| bad("it holds neither index.json nor manifest.json"))?;
        let all: Vec<DockerImage> = serde_json::from_slice(&text).map_err(|error| bad(&error.to_string()))?;
        let mut inside = HashMap::new();
        for one in all {
            let config = small(&mut file, &one.config, image::MAX_CONFIG as usize)?;
            let config = config.ok_or_else(|| bad(&format!("{} is missing", one.config)))?;
            let mut blobs = Vec::new();
            for name in std::iter::once(&one.config).chain(&one.layers) {
                let (offset, size) = *contents.get(name).ok_or_else(|| bad(&format!("{name} is missing")))?;
                let digest = hash_at(&mut file, offset, size).map_err(failed)?;
                inside.insert(digest, (offset, size));
                blobs.push((digest, size));
            }
            let layer = |(digest, size): &(Digest, u64)| Descriptor::new(OCI_LAYER, *digest, *size);
            let (digest, size) = blobs.first().copied().unwrap_or((digest_of(Algorithm::Sha256, &config), 0));
            let layers = blobs.iter().skip(1).map(layer).collect();
            let manifest = Manifest::image(Descriptor::new(OCI_CONFIG, digest, size), layers);
            let bytes = Bytes::from(serde_json::to_vec(&manifest).map_err(|error| bad(&error.to_string()))?);
            images.enter(bytes, one.repo_tags.unwrap_or_default());
        }
        images.inside = Some(inside);
        Ok(images)
    }

    fn enter(&mut self, manifest: Bytes, names: Vec<String>) {
        let digest = digest_of(Algorithm::Sha256, &manifest);
        let plain = Descriptor::new(OCI_MANIFEST, digest, manifest.len() as u64);
        self.made.insert(digest, manifest);
        if names.is_empty() {
            self.index.manifests.push(plain.clone());
        }
        for name in names {
            let annotations = BTreeMap::from([(FULL_NAME.to_owned(), name)]);
            self.index.manifests.push(Descriptor { annotations: Some(annotations), ..plain.clone() });
        }
    }

    /// What its index lists.
    pub fn entries(&self) -> &[Descriptor] {
        &self.index.manifests
    }

    /// The image that is called `name`, or has this digest; without a name the only one there is.
    ///
    /// # Errors
    /// When there is none, or nobody can know which.
    pub fn find(&self, name: Option<&str>) -> Result<Descriptor, LocalError> {
        let no = |why: String| LocalError::NoImage { path: self.path.clone(), why };
        let names = || {
            let all: Vec<String> = self.index.manifests.iter().filter_map(name_of).take(20).collect();
            if all.is_empty() { "unnamed ones only".to_owned() } else { all.join(", ") }
        };
        let Some(wanted) = name else {
            let mut all: Vec<&Descriptor> = self.index.manifests.iter().collect();
            all.dedup_by_key(|entry| entry.digest);
            // Signatures and the like stand beside what they are about, without a name.
            if all.len() > 1 {
                all.retain(|entry| name_of(entry).is_some());
                all.dedup_by_key(|entry| entry.digest);
            }
            return match all.as_slice() {
                [one] => Ok((*one).clone()),
                [] => Err(no("holds no image".to_owned())),
                _ => Err(no(format!("holds more than one image; name one of: {}", names()))),
            };
        };
        let is_it = |entry: &&Descriptor| {
            let said = |key: &str| entry.annotations.as_ref().and_then(|annotations| annotations.get(key));
            let full = said(FULL_NAME).is_some_and(|full| full == wanted || short(full) == short(wanted));
            full || said(REF_NAME).is_some_and(|name| name == wanted) || entry.digest.to_string() == wanted
        };
        let found = self.index.manifests.iter().find(is_it);
        found.cloned().ok_or_else(|| no(format!("holds no image {wanted:?}; there are: {}", names())))
    }

    /// A manifest, checked.
    ///
    /// # Errors
    /// When it is not there, too long or not what its digest says.
    pub fn manifest(&self, digest: &Digest, media_type: &str) -> Result<FetchedManifest, LocalError> {
        let bytes = match self.made.get(digest) {
            Some(bytes) => bytes.clone(),
            None => {
                let (path, offset, size) = self.locate(digest)?;
                if size > MAX_MANIFEST as u64 {
                    return Err(ManifestError::TooLong(usize::try_from(size).unwrap_or(usize::MAX)).into());
                }
                let read = File::open(&path).and_then(|mut file| read_at(&mut file, offset, size));
                read.map_err(|error| LocalError::Io { path, error })?.into()
            }
        };
        if digest_of(digest.algorithm(), &bytes) != *digest {
            return Err(self.bad_blob(digest, "has other content than its digest says"));
        }
        let guessed = crate::guess_media_type(&bytes);
        let media_type = if media_type.is_empty() { guessed.unwrap_or_default() } else { media_type.to_owned() };
        Ok(FetchedManifest { digest: *digest, media_type, bytes })
    }

    /// Where a blob's bytes come from. Whoever takes them checks the digest.
    ///
    /// # Errors
    /// When it is not there, or of another length.
    pub fn blob(&self, blob: &Descriptor) -> Result<BlobSource, LocalError> {
        if let Some(bytes) = self.made.get(&blob.digest) {
            return Ok(BlobSource::bytes(bytes.clone()));
        }
        let (path, offset, size) = self.locate(&blob.digest)?;
        if size != blob.size {
            return Err(self.bad_blob(&blob.digest, &format!("has {size} bytes instead of {}", blob.size)));
        }
        Ok(BlobSource::file(path, offset, size))
    }

    /// A small blob, such as a configuration, whole and checked; at most `limit` bytes.
    ///
    /// # Errors
    /// When it is not there, longer or not what its digest says.
    pub fn small_blob(&self, blob: &Descriptor, limit: u64) -> Result<Bytes, LocalError> {
        let (path, offset, size) = self.locate(&blob.digest)?;
        if size > limit {
            return Err(self.bad_blob(&blob.digest, &format!("is longer than {limit} bytes")));
        }
        let read = File::open(&path).and_then(|mut file| read_at(&mut file, offset, size));
        let bytes = read.map_err(|error| LocalError::Io { path, error })?;
        if digest_of(blob.digest.algorithm(), &bytes) != blob.digest {
            return Err(self.bad_blob(&blob.digest, "has other content than its digest says"));
        }
        Ok(bytes.into())
    }

    /// What refers to `subject`, of all that the index lists.
    pub fn referrers(&self, subject: &Digest) -> Vec<Descriptor> {
        let about = |entry: &&Descriptor| {
            let manifest = self.manifest(&entry.digest, &entry.media_type).ok();
            let kind = manifest.and_then(|manifest| manifest.parse().ok());
            kind.is_some_and(|kind| kind.subject().is_some_and(|found| found.digest == *subject))
        };
        self.index.manifests.iter().filter(about).cloned().collect()
    }

    fn locate(&self, digest: &Digest) -> Result<(PathBuf, u64, u64), LocalError> {
        let missing = || self.bad_blob(digest, "is missing");
        match &self.inside {
            Some(inside) => {
                inside.get(digest).map(|(offset, size)| (self.path.clone(), *offset, *size)).ok_or_else(missing)
            }
            None => {
                let path = blob_path(&self.path, digest);
                let size = std::fs::metadata(&path).map_err(|_| missing())?.len();
                Ok((path, 0, size))
            }
        }
    }

    fn bad_blob(&self, digest: &Digest, why: &str) -> LocalError {
        LocalError::Blob { path: self.path.clone(), digest: Box::new(*digest), why: why.to_owned() }
    }
}

/// The name of an index's entry, the fullest there is.
pub fn name_of(entry: &Descriptor) -> Option<String> {
    let annotations = entry.annotations.as_ref()?;
    annotations.get(FULL_NAME).or_else(|| annotations.get(REF_NAME)).cloned()
}

/// A name without what docker fills in.
fn short(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

fn read_index(path: &Path, text: &[u8]) -> Result<Index, LocalError> {
    match crate::parse_manifest(text, OCI_INDEX)? {
        crate::ManifestKind::Index(index) => Ok(*index),
        crate::ManifestKind::Image(_) => {
            Err(LocalError::Malformed { path: path.to_owned(), why: "index.json is an image".to_owned() })
        }
    }
}

/// The regular files of an archive with the places of their contents.
fn contents(file: &mut File) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let mut start = [0; 4];
    let read = file.read(&mut start)?;
    if start[..read].starts_with(&[0x1f, 0x8b]) || start[..read] == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(io::Error::other("the archive is compressed as a whole; decompress it first"));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut found = BTreeMap::new();
    let mut links = Vec::new();
    let mut reader = TarReader::new(Counted { inner: BufReader::with_capacity(256 << 10, file), count: 0 });
    let clean = |path: &[u8]| {
        let text = String::from_utf8_lossy(path).into_owned();
        text.strip_prefix("./").unwrap_or(&text).to_owned()
    };
    for _ in 0..MAX_ENTRIES {
        let Some(entry) = reader.next_entry()? else {
            // Old archives link layers that are the same: `../<id>/layer.tar`.
            for (from, to) in links {
                let target: String = to;
                let place = found.get(target.trim_start_matches("../")).copied();
                found.extend(place.map(|place| (from, place)));
            }
            return Ok(found);
        };
        match entry.kind {
            EntryKind::File => drop(found.insert(clean(&entry.path), (reader.get_ref().count, entry.size))),
            EntryKind::Symlink | EntryKind::HardLink => links.push((clean(&entry.path), clean(&entry.link))),
            _ => {}
        }
    }
    Err(io::Error::other(format!("the archive has more than {MAX_ENTRIES} entries")))
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

fn read_at(file: &mut File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn hash_at(file: &mut File, offset: u64, size: u64) -> io::Result<Digest> {
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = DigestReader::new(BufReader::with_capacity(256 << 10, file.take(size)), Algorithm::Sha256, size);
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.finish().1)
}
