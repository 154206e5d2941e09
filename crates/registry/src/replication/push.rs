//! One entry of the queue: the other side is made as this one is.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::{Digest, ImageName, Tag, Timestamp};
use oci::Reference;
use oci::client::Remote;
use oci::transfer::{Sink, Transfer, Wanted, What};
use store::fault;

use crate::blobs::image_id;
use crate::replication::queue::{self, Entry};
use crate::replication::records::{self, Pushed};
use crate::replication::sender::Sender;
use crate::replication::source::Here;
use crate::replication::{ReplicationError, there};

/// What clients append to the name of a manifest to make a tag of what they say about it.
const ABOUT: [&str; 3] = ["sig", "att", "sbom"];

impl Sender {
    /// Makes what an entry names as it is here. Whether there was anything to do.
    pub(super) async fn replicate(&self, entry: &Entry) -> Result<bool, ReplicationError> {
        let there = self.remote().repository(self.rule().name_there(&entry.image)?);
        match &entry.what {
            Reference::Tag(tag) => match self.registry().manifest(&entry.image, &entry.what).await? {
                None => self.deleted(&there, &entry.image, tag).await,
                Some(_) if !self.rule().wants(&entry.image, tag) => self.about(&there, &entry.image, tag).await,
                Some(found) => self.tag(&there, &entry.image, tag, found.digest).await,
            },
            Reference::Digest(digest) => self.referrer(&there, &entry.image, digest).await,
        }
    }

    async fn deleted(&self, there: &Remote, image: &ImageName, tag: &Tag) -> Result<bool, ReplicationError> {
        let Some(pushed) = self.known(image, tag).await? else { return Ok(false) };
        if !self.rule().deletes || pushed.retired {
            return Ok(false);
        }
        there::remove(self, there, image, &pushed, false).await
    }

    /// A tag by which clients keep signatures: it follows the manifest that it is about.
    async fn about(&self, there: &Remote, image: &ImageName, tag: &Tag) -> Result<bool, ReplicationError> {
        let Some(subject) = queue::subject_of(tag) else { return Ok(false) };
        if !self.has(image, &subject).await? {
            return Ok(false);
        }
        self.copy(there, image, &Reference::Tag(tag.clone()), Some(tag)).await.map(|_| true)
    }

    /// A manifest that is about another follows it. If that was not pushed yet, it comes along when it is.
    async fn referrer(&self, there: &Remote, image: &ImageName, digest: &Digest) -> Result<bool, ReplicationError> {
        let reference = Reference::Digest(*digest);
        let Some(found) = self.registry().manifest(image, &reference).await? else { return Ok(false) };
        let kind = found.parse().map_err(crate::RegistryError::from)?;
        let Some(subject) = kind.subject() else { return Ok(false) };
        if !self.has(image, &subject.digest).await? {
            return Ok(false);
        }
        let written = self.copy(there, image, &reference, None).await?;
        self.wrote(image, None, written).await?;
        Ok(true)
    }

    async fn tag(
        &self,
        there: &Remote,
        image: &ImageName,
        tag: &Tag,
        digest: Digest,
    ) -> Result<bool, ReplicationError> {
        let known = self.known(image, tag).await?;
        let updated = self.updated(image, tag).await?;
        if known.as_ref().is_some_and(|known| known.retired && updated <= known.updated) {
            return Ok(false);
        }
        let head = there.head_manifest(&Reference::Tag(tag.clone()), Remote::ACCEPT).await?;
        let stands = head.map(|head| head.digest);
        let whole = known.as_ref().is_some_and(|known| known.digest == Some(digest) && known.intended.is_none());
        let own = match (stands, &known) {
            (Some(stands), Some(known)) if known.is(&stands) => known.own,
            // Somebody else has put just this there.
            (Some(stands), _) => stands != digest,
            (None, _) => true,
        };
        let pushed = Pushed { tag: tag.clone(), digest: None, intended: Some(digest), updated, own, retired: false };
        if self.would_go(image, &pushed).await? {
            return Ok(false);
        }
        self.intend(image, pushed).await?;
        fault::point(fault::BEFORE_REPLICA);
        if whole && stands == Some(digest) {
            self.wrote(image, Some(tag), Vec::new()).await?;
            return Ok(false);
        }
        let mut written = self.copy(there, image, &Reference::Digest(digest), Some(tag)).await?;
        for subject in written.clone() {
            written.extend(self.copy_about(there, image, &subject).await?);
        }
        fault::point(fault::AFTER_REPLICA);
        self.wrote(image, Some(tag), written).await?;
        tracing::info!(rule = self.rule().name, %image, %tag, %digest, to = %there.host(), "replicated");
        Ok(true)
    }

    /// Copies the tags by which clients keep signatures of a manifest.
    async fn copy_about(
        &self,
        there: &Remote,
        image: &ImageName,
        subject: &Digest,
    ) -> Result<Vec<Digest>, ReplicationError> {
        let mut written = Vec::new();
        for kind in ABOUT {
            let name = format!("{}-{}.{kind}", subject.algorithm().name(), subject.hex());
            let Ok(tag) = name.parse::<Tag>() else { continue };
            let reference = Reference::Tag(tag.clone());
            if self.registry().manifest(image, &reference).await?.is_some() {
                written.extend(self.copy(there, image, &reference, Some(&tag)).await?);
            }
        }
        Ok(written)
    }

    /// Copies a manifest with all that it stands on and all that is about it. Which manifests that were.
    async fn copy(
        &self,
        there: &Remote,
        image: &ImageName,
        reference: &Reference,
        tag: Option<&Tag>,
    ) -> Result<Vec<Digest>, ReplicationError> {
        let here = Here { registry: self.registry().clone(), image: image.clone(), rule: Arc::clone(self.rule()) };
        let what = What { platform: None, referrers: true };
        let shared = self.shared();
        let before = shared.progress.bytes.load(Relaxed);
        let transfer = Transfer::given(Arc::new(here), Sink::Remote(there.clone()), what, Arc::clone(&shared));
        let digest = transfer.copy(&Wanted::Reference(reference.clone()), tag, None).await?;
        self.counters().bytes.fetch_add(shared.progress.bytes.load(Relaxed).saturating_sub(before), Relaxed);
        let mut written = transfer.written();
        written.push(digest);
        Ok(written)
    }

    async fn known(&self, image: &ImageName, tag: &Tag) -> Result<Option<Pushed>, ReplicationError> {
        let (rule, image, tag) = (Arc::clone(self.rule()), image.clone(), tag.clone());
        Ok(self.registry().records.read(move |tx| records::find(tx, &rule.name, &image, &tag)).await?)
    }

    async fn has(&self, image: &ImageName, digest: &Digest) -> Result<bool, ReplicationError> {
        let (rule, image, digest) = (Arc::clone(self.rule()), image.clone(), *digest);
        Ok(self.registry().records.read(move |tx| records::has_manifest(tx, &rule.name, &image, &digest)).await?)
    }

    /// When a tag was set here.
    async fn updated(&self, image: &ImageName, tag: &Tag) -> Result<Timestamp, ReplicationError> {
        let (image, tag) = (image.clone(), tag.clone());
        let updated = self.registry().records.read(move |tx| {
            let Some(image) = image_id(tx, &image)? else { return Ok(None) };
            let sql = "SELECT updated FROM registry_tags WHERE image = $1 AND tag = $2";
            let row = tx.query_first(sql, &[image.into(), tag.as_str().as_bytes().into()])?;
            row.map(|row| row.get(0)).transpose()
        });
        Ok(updated.await?.unwrap_or_else(crate::now))
    }

    async fn intend(&self, image: &ImageName, pushed: Pushed) -> Result<(), ReplicationError> {
        let (rule, image) = (Arc::clone(self.rule()), image.clone());
        Ok(self.registry().records.write(move |tx| records::intend(tx, &rule.name, &image, &pushed)).await?)
    }

    async fn wrote(&self, image: &ImageName, tag: Option<&Tag>, written: Vec<Digest>) -> Result<(), ReplicationError> {
        let (rule, image, tag) = (Arc::clone(self.rule()), image.clone(), tag.cloned());
        let noted = self.registry().records.write(move |tx| {
            if let Some(tag) = &tag {
                records::finish(tx, &rule.name, &image, tag)?;
            }
            records::add_manifests(tx, &rule.name, &image, &written)
        });
        Ok(noted.await?)
    }
}
