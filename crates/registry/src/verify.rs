//! Looking whether everything that is recorded is there, and is what it says. Nothing is changed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{Digest, ImageName, ImagePattern};
use oci::{Hasher, ManifestKind};
use store::{RecordsError, Row, Tx};
use tokio::sync::mpsc;

use crate::retention::text;
use crate::{Registry, RegistryError};

/// Blobs or manifests that are read at a time.
const PAGE: i64 = 200;

/// How often it is told how far this is.
const TELL: Duration = Duration::from_millis(500);

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Recorded and not stored.
    Missing,
    /// Stored with other content.
    Corrupt,
    /// Stored with another length.
    WrongSize,
    /// A tag or manifest refers to something that its image does not have.
    Dangling,
    /// An index lacks one of its manifests.
    Childless,
    /// It cannot be read.
    Unreadable,
}

impl Wrong {
    /// Its name, for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Corrupt => "corrupt",
            Self::WrongSize => "wrong-size",
            Self::Dangling => "dangling",
            Self::Childless => "childless",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blobs.
    pub blobs: u64,
    /// Bytes of blobs that were read.
    pub bytes: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// What was found wrong.
    pub problems: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of wrong.
    pub wrong: Wrong,
    /// The blob or manifest.
    pub digest: Digest,
    /// Some of the images that have it.
    pub images: Vec<ImageName>,
    /// In one line.
    pub detail: String,
}

/// What is told on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyEvent {
    /// How far it is.
    Progress(Verified),
    /// What is wrong.
    Problem(Problem),
}

/// A blob as an image has it.
struct Held {
    image: i64,
    digest: Digest,
    size: u64,
}

struct Run<'a> {
    registry: &'a Registry,
    images: &'a ImagePattern,
    /// Whether content is read, or only looked for.
    read: bool,
    out: &'a mpsc::Sender<VerifyEvent>,
    so_far: Verified,
    told: Instant,
}

impl Registry {
    /// Looks at every blob, manifest and tag of the images that `images` is about; reads and hashes the blobs if `read`.
    /// Problems are told as they are found. What is pushed or deleted meanwhile may be looked at or not.
    ///
    /// # Errors
    /// When the records cannot be read, or nobody listens any more.
    pub async fn verify(
        &self,
        images: &ImagePattern,
        read: bool,
        out: &mpsc::Sender<VerifyEvent>,
    ) -> Result<Verified, RegistryError> {
        let so_far = Verified::default();
        let mut run = Run { registry: self, images, read, out, so_far, told: Instant::now() };
        run.manifests().await?;
        run.tags().await?;
        run.blobs().await?;
        Ok(run.so_far)
    }
}

impl Run<'_> {
    async fn send(&self, event: VerifyEvent) -> Result<(), RegistryError> {
        self.out.send(event).await.map_err(|_| RegistryError::NobodyListens)
    }

    async fn progress(&mut self) -> Result<(), RegistryError> {
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            self.send(VerifyEvent::Progress(self.so_far)).await?;
        }
        Ok(())
    }

    async fn problem(&mut self, wrong: Wrong, digest: Digest, detail: String) -> Result<(), RegistryError> {
        self.so_far.problems += 1;
        let images = self.registry.records.read(move |tx| holders(tx, &digest)).await?;
        self.send(VerifyEvent::Problem(Problem { wrong, digest, images, detail })).await
    }

    /// Every manifest: its content, and everything that it refers to.
    async fn manifests(&mut self) -> Result<(), RegistryError> {
        let mut after = (i64::MIN, String::new());
        loop {
            let (start, wanted) = (after.clone(), self.images.clone());
            let read = self.registry.records.read(move |tx| manifests(tx, &start, &wanted));
            let (last, found) = read.await?;
            for (digest, problems) in found {
                self.so_far.manifests += 1;
                for (wrong, detail) in problems {
                    self.problem(wrong, digest, detail).await?;
                }
            }
            self.progress().await?;
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    async fn tags(&mut self) -> Result<(), RegistryError> {
        let wanted = self.images.clone();
        let read = self.registry.records.read(move |tx| {
            let sql = "SELECT i.name, t.tag, t.digest FROM registry_tags t JOIN registry_images i ON i.id = t.image
                       WHERE NOT EXISTS (SELECT 1 FROM registry_manifests m
                                         WHERE m.image = t.image AND m.digest = t.digest)";
            let mut broken = Vec::new();
            for row in tx.query(sql, &[])? {
                let (name, tag): (ImageName, model::Tag) = (text(&row, 0)?, text(&row, 1)?);
                if wanted.matches(&name) {
                    broken.push((row.parse(2)?, format!("tag {tag} of {name} points to a manifest that is not there")));
                }
            }
            let row = tx.query_first("SELECT COUNT(*) FROM registry_tags", &[])?;
            Ok((row.map_or(Ok(0), |row| row.get::<i64>(0))?, broken))
        });
        let (count, broken) = read.await?;
        self.so_far.tags = count.unsigned_abs();
        for (digest, detail) in broken {
            self.problem(Wrong::Dangling, digest, detail).await?;
        }
        Ok(())
    }

    /// Every blob, once however many images have it.
    async fn blobs(&mut self) -> Result<(), RegistryError> {
        let mut after = String::new();
        let everything = *self.images == ImagePattern::all();
        loop {
            let start = after.clone();
            let page = self.registry.records.read(move |tx| blobs(tx, &start)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.digest.to_string();
            let mut seen = BTreeSet::new();
            for held in page {
                if !everything && !self.is_about(held.image).await? {
                    continue;
                }
                if seen.insert((held.digest, held.size)) {
                    self.blob(&held).await?;
                }
                self.progress().await?;
            }
        }
    }

    async fn is_about(&self, image: i64) -> Result<bool, RegistryError> {
        let wanted = self.images.clone();
        let read = self.registry.records.read(move |tx| {
            let row = tx.query_first("SELECT name FROM registry_images WHERE id = $1", &[image.into()])?;
            let name = row.map(|row| text::<ImageName>(&row, 0)).transpose()?;
            Ok(name.is_some_and(|name| wanted.matches(&name)))
        });
        Ok(read.await?)
    }

    async fn blob(&mut self, held: &Held) -> Result<(), RegistryError> {
        self.so_far.blobs += 1;
        let Held { digest, size, .. } = *held;
        let stored = match self.registry.blobs.stat(&digest).await {
            Ok(stored) => stored,
            Err(error) => return self.problem(Wrong::Unreadable, digest, error.to_string()).await,
        };
        match stored {
            Some(found) if found != size => {
                let detail = format!("the blob has {found} bytes where {size} are recorded");
                return self.problem(Wrong::WrongSize, digest, detail).await;
            }
            Some(_) if !self.read => return Ok(()),
            Some(_) => {}
            None => return self.missing(held).await,
        }
        match self.hash(&digest).await {
            Ok(Some(found)) if found == digest => Ok(()),
            Ok(Some(found)) => self.problem(Wrong::Corrupt, digest, format!("the content has digest {found}")).await,
            Ok(None) => self.missing(held).await,
            Err(error) => self.problem(Wrong::Unreadable, digest, error.to_string()).await,
        }
    }

    /// A blob that is not stored: wrong, unless it was deleted while this looked.
    async fn missing(&mut self, held: &Held) -> Result<(), RegistryError> {
        let digest = held.digest;
        let held = self.registry.records.read(move |tx| holders(tx, &digest).map(|images| !images.is_empty()));
        if !held.await? {
            return Ok(());
        }
        self.problem(Wrong::Missing, digest, "the blob is recorded and not stored".to_owned()).await
    }

    async fn hash(&mut self, digest: &Digest) -> Result<Option<Digest>, store::BlobError> {
        let Some(mut reader) = self.registry.blobs.read(digest).await? else { return Ok(None) };
        let mut hasher = Hasher::new(digest.algorithm());
        while let Some(chunk) = reader.chunk().await? {
            self.so_far.bytes += chunk.len() as u64;
            hasher.update(&chunk);
            // Hashing does not wait for anything by itself.
            tokio::task::yield_now().await;
            if self.progress().await.is_err() {
                break;
            }
        }
        Ok(Some(hasher.finish()))
    }
}

/// Some of the images that have a blob or manifest.
fn holders(tx: &mut Tx<'_>, digest: &Digest) -> Result<Vec<ImageName>, RecordsError> {
    let mut images = BTreeSet::new();
    for table in ["registry_blobs", "registry_manifests"] {
        let sql = format!(
            "SELECT i.name FROM {table} t JOIN registry_images i ON i.id = t.image WHERE t.digest = $1 LIMIT 5"
        );
        for row in tx.query(&sql, &[digest.into()])? {
            images.insert(text::<ImageName>(&row, 0)?);
        }
    }
    Ok(images.into_iter().collect())
}

fn blobs(tx: &mut Tx<'_>, after: &str) -> Result<Vec<Held>, RecordsError> {
    // Whole digests only: a page ends where the next digest begins.
    let sql = "SELECT image, digest, size FROM registry_blobs WHERE digest > $1 AND digest <= (
                   SELECT COALESCE(MAX(digest), '') FROM (
                       SELECT digest FROM registry_blobs WHERE digest > $1 ORDER BY digest LIMIT $2) page)
               ORDER BY digest";
    let rows = tx.query(sql, &[after.into(), PAGE.into()])?;
    let held =
        |row: &Row| Ok(Held { image: row.get(0)?, digest: row.parse(1)?, size: row.get::<i64>(2)?.unsigned_abs() });
    rows.iter().map(held).collect()
}

/// Where a page ended: an image and a digest.
type Cursor = (i64, String);

/// A manifest, and what is wrong with it.
type Found = (Digest, Vec<(Wrong, String)>);

fn manifests(
    tx: &mut Tx<'_>,
    (image, digest): &Cursor,
    wanted: &ImagePattern,
) -> Result<(Option<Cursor>, Vec<Found>), RecordsError> {
    let sql = "SELECT m.image, m.digest, m.media_type, m.size, m.content, i.name, i.upstream
               FROM registry_manifests m JOIN registry_images i ON i.id = m.image
               WHERE (m.image, m.digest) > ($1, $2) ORDER BY m.image, m.digest LIMIT $3";
    let rows = tx.query(sql, &[(*image).into(), digest.into(), PAGE.into()])?;
    let last = rows.last().map(|row| Ok::<_, RecordsError>((row.get(0)?, row.get(1)?))).transpose()?;
    let mut found = Vec::new();
    for row in rows {
        let name: ImageName = text(&row, 5)?;
        if wanted.matches(&name) {
            found.push((row.parse(1)?, manifest(tx, &row, &name)?));
        }
    }
    Ok((last, found))
}

/// What is wrong with one manifest.
fn manifest(tx: &mut Tx<'_>, row: &Row, name: &ImageName) -> Result<Vec<(Wrong, String)>, RecordsError> {
    let (image, digest): (i64, Digest) = (row.get(0)?, row.parse(1)?);
    let (media_type, size): (String, i64) = (row.get(2)?, row.get(3)?);
    let content = Bytes::from(row.get::<Vec<u8>>(4)?);
    let mut problems = Vec::new();
    let found = oci::digest_of(digest.algorithm(), &content);
    if found != digest {
        problems.push((Wrong::Corrupt, format!("a manifest of {name} has digest {found}")));
        return Ok(problems);
    }
    if size.unsigned_abs() != content.len() as u64 {
        let detail = format!("a manifest of {name} has {} bytes where {size} are recorded", content.len());
        problems.push((Wrong::WrongSize, detail));
    }
    let kind = match oci::parse_manifest(&content, &media_type) {
        Ok(kind) => kind,
        Err(error) => {
            problems.push((Wrong::Unreadable, format!("a manifest of {name}: {error}")));
            return Ok(problems);
        }
    };
    // What an upstream has comes when it is asked for.
    if row.get::<Option<String>>(6)?.is_none() {
        refers(tx, image, name, &kind, &mut problems)?;
    }
    Ok(problems)
}

fn refers(
    tx: &mut Tx<'_>,
    image: i64,
    name: &ImageName,
    kind: &ManifestKind,
    problems: &mut Vec<(Wrong, String)>,
) -> Result<(), RecordsError> {
    let blobs = kind.blobs().into_iter().map(|blob| (blob, "registry_blobs", "blob", Wrong::Dangling));
    let children = kind.children().iter().map(|child| (child, "registry_manifests", "manifest", Wrong::Childless));
    for (descriptor, table, what, wrong) in blobs.chain(children) {
        let sql = format!("SELECT size FROM {table} WHERE image = $1 AND digest = $2");
        let row = tx.query_first(&sql, &[image.into(), (&descriptor.digest).into()])?;
        match row.map(|row| row.get::<i64>(0)).transpose()? {
            None => {
                problems.push((wrong, format!("it refers to {what} {}, which {name} does not have", descriptor.digest)))
            }
            Some(size) if size.unsigned_abs() != descriptor.size => {
                let detail =
                    format!("it says that {} has {} bytes; {name} has {size}", descriptor.digest, descriptor.size);
                problems.push((Wrong::WrongSize, detail));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
