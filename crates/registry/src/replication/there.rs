//! What goes at the destination: only what the rule has pushed, and only while it is still that.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use model::{Digest, ImageName, Timestamp};
use oci::Reference;
use oci::client::{ClientError, Remote};
use store::fault;

use crate::replication::ReplicationError;
use crate::replication::records::{self, Pushed};
use crate::replication::sender::Sender;
use crate::retention::plan::{Decision, ImageFacts, ManifestFacts, Moment, Subject, TagFacts, plan};

/// The most tags of a repository that are looked through to find out whether a manifest may go.
const MOST_TAGS: usize = 1000;

/// Images whose retention is looked at together.
const PAGE: i64 = 50;

impl Sender {
    /// Whether retention would take this tag away there as soon as it is pushed.
    pub(super) async fn would_go(&self, image: &ImageName, pushed: &Pushed) -> Result<bool, ReplicationError> {
        if self.rule().retention.is_empty() {
            return Ok(false);
        }
        let mut all = self.standing(image).await?;
        all.retain(|other| other.tag != pushed.tag);
        all.push(pushed.clone());
        let goes = |decision: &Decision| match &decision.subject {
            Subject::Tag(tag, _) => *tag == pushed.tag && !decision.keep,
            Subject::Manifest(_) => false,
        };
        Ok(self.plan(image, &all).iter().any(goes))
    }

    /// Takes away there what the rules of retention do not keep.
    pub(super) async fn retain(&self, image: &ImageName) -> Result<(), ReplicationError> {
        if self.rule().retention.is_empty() {
            return Ok(());
        }
        let all = self.standing(image).await?;
        let there = self.remote().repository(self.rule().name_there(image)?);
        for decision in self.plan(image, &all).iter().filter(|decision| !decision.keep) {
            let Subject::Tag(tag, _) = &decision.subject else { continue };
            let Some(pushed) = all.iter().find(|pushed| pushed.tag == *tag) else { continue };
            if remove(self, &there, image, pushed, true).await? {
                let (rule, why) = (&self.rule().name, &decision.why);
                tracing::info!(rule, %image, %tag, to = %there.host(), why, "retention took it away there");
            }
        }
        Ok(())
    }

    /// The same for all images.
    pub(super) async fn retain_all(&self) -> Result<(), ReplicationError> {
        let mut after = String::new();
        while !self.rule().retention.is_empty() {
            let rule = Arc::clone(self.rule());
            let page = self.registry().records.read(move |tx| records::images(tx, &rule.name, &after, PAGE)).await?;
            let Some(last) = page.last() else { break };
            after = last.as_str().to_owned();
            for image in &page {
                self.retain(image).await?;
            }
        }
        Ok(())
    }

    /// The tags of this rule that are there.
    async fn standing(&self, image: &ImageName) -> Result<Vec<Pushed>, ReplicationError> {
        let (rule, image) = (Arc::clone(self.rule()), image.clone());
        let mut all = self.registry().records.read(move |tx| records::tags(tx, &rule.name, &image)).await?;
        all.retain(|pushed| pushed.own && !pushed.retired);
        Ok(all)
    }

    fn plan(&self, image: &ImageName, all: &[Pushed]) -> Vec<Decision> {
        let there = |pushed: &Pushed| Some((pushed.tag.clone(), pushed.intended.or(pushed.digest)?, pushed.updated));
        let there: Vec<_> = all.iter().filter_map(there).collect();
        let tag = |(tag, digest, updated): &(model::Tag, Digest, Timestamp)| TagFacts {
            tag: tag.clone(),
            digest: *digest,
            updated: *updated,
            pulled: None,
            immutable: None,
        };
        let manifest = |(_, digest, updated): &(model::Tag, Digest, Timestamp)| ManifestFacts {
            digest: *digest,
            size: 0,
            pushed: *updated,
            pulled: None,
            subject: None,
        };
        let facts = ImageFacts {
            name: image.clone(),
            frozen: None,
            manifests: there.iter().map(manifest).collect(),
            tags: there.iter().map(tag).collect(),
            children: Vec::new(),
            roots: std::collections::HashMap::new(),
        };
        plan(&facts, &self.rule().retention, Moment { now: crate::now(), grace: 0 })
    }
}

/// Takes a tag away there if it is this rule's and still as it was pushed. Whether it was taken away. If it is `retired`,
/// it is not pushed again until it is set anew here.
pub(super) async fn remove(
    sender: &Sender,
    there: &Remote,
    image: &ImageName,
    pushed: &Pushed,
    retired: bool,
) -> Result<bool, ReplicationError> {
    let reference = Reference::Tag(pushed.tag.clone());
    let stands = there.head_manifest(&reference, Remote::ACCEPT).await?.map(|head| head.digest);
    let Some(digest) = stands.filter(|stands| pushed.own && pushed.is(stands)) else {
        // It is gone, or another's by now.
        forget(sender, image, pushed).await?;
        return Ok(false);
    };
    match there.delete(&reference).await {
        Ok(()) => {}
        Err(error) if takes_no_tags(&error) => remove_manifest(sender, there, image, pushed, digest).await?,
        Err(error) => return Err(error.into()),
    }
    fault::point(fault::AFTER_REPLICA_REMOVAL);
    sender.counters().removed.fetch_add(1, Relaxed);
    if retired {
        let (rule, image, tag) = (Arc::clone(sender.rule()), image.clone(), pushed.tag.clone());
        sender.registry().records.write(move |tx| records::retire(tx, &rule.name, &image, &tag)).await?;
    } else {
        forget(sender, image, pushed).await?;
    }
    Ok(true)
}

/// Whether a registry says that it deletes manifests by their digests only.
fn takes_no_tags(error: &ClientError) -> bool {
    matches!(error, ClientError::NotFound { .. } | ClientError::Status { status: 400 | 405 | 501, .. })
}

/// Where tags cannot be deleted, the manifest goes, unless another tag there points to it.
async fn remove_manifest(
    sender: &Sender,
    there: &Remote,
    image: &ImageName,
    pushed: &Pushed,
    digest: Digest,
) -> Result<(), ReplicationError> {
    let tags = there.all_tags(MOST_TAGS + 1).await?;
    if tags.len() > MOST_TAGS {
        return Err(ReplicationError::There(format!(
            "{} deletes no tags, and has more than {MOST_TAGS} that could point to the same manifest as {}",
            there.host(),
            pushed.tag
        )));
    }
    for other in tags.into_iter().filter(|other| *other != pushed.tag) {
        let head = there.head_manifest(&Reference::Tag(other.clone()), Remote::ACCEPT).await?;
        if head.is_some_and(|head| head.digest == digest) {
            return Err(ReplicationError::There(format!(
                "{} deletes no tags, and {other} points to the same manifest as {}",
                there.host(),
                pushed.tag
            )));
        }
    }
    there.delete(&Reference::Digest(digest)).await?;
    let (rule, image) = (Arc::clone(sender.rule()), image.clone());
    let forgotten =
        sender.registry().records.write(move |tx| records::forget_manifest(tx, &rule.name, &image, &digest));
    Ok(forgotten.await?)
}

async fn forget(sender: &Sender, image: &ImageName, pushed: &Pushed) -> Result<(), ReplicationError> {
    let (rule, image, tag) = (Arc::clone(sender.rule()), image.clone(), pushed.tag.clone());
    Ok(sender.registry().records.write(move |tx| records::forget(tx, &rule.name, &image, &tag)).await?)
}
