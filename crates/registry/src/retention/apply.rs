//! Making a plan of what is there, and carrying it out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Digest, ImageName, ImagePattern, Tag, Timestamp};
use store::{RecordsError, Tx, fault};
use tokio::sync::mpsc;

use crate::blobs::{Place, image_id};
use crate::events::{Announcement, ImageAction, ImageEvent};
use crate::policy::{Policy, millis};
use crate::retention::facts;
use crate::retention::plan::{Decision, ImageFacts, Moment, Subject, plan};
use crate::roots::RootsByImage;
use crate::{Registry, RegistryError, freeze, trash};

/// Things that are deleted in one transaction.
const BATCH: usize = 40;

/// How often what stands on something else that goes is tried again: as deep as indexes within indexes go.
const ROUNDS: usize = 16;

/// The decisions on one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The image.
    pub image: ImageName,
    /// What becomes of its tags and manifests.
    pub decisions: Vec<Decision>,
}

/// What a retention run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Tags and manifests that stay.
    pub kept: u64,
    /// Tags and manifests that the rules take away.
    pub planned: u64,
    /// Those that were deleted: what changed since the plan was made is left for the next.
    pub deleted: u64,
}

/// Something that is to go, as it was when that was decided.
#[derive(Clone)]
enum Going {
    Tag { tag: Tag, digest: Digest, updated: Timestamp, why: String },
    Manifest { digest: Digest, pushed: Timestamp, why: String },
}

/// What became of something that was to go.
enum Fate {
    Gone,
    /// It changed since the plan was made.
    Stays,
    /// An index that is still there holds it back.
    Later,
}

/// What a transaction deleted.
struct Done {
    count: u64,
    /// What an index that is still there holds back.
    later: Vec<Going>,
    announcement: Arc<Announcement>,
}

impl Registry {
    /// Decides on every tag and manifest of the images that `images` is about, sends the decisions image by image, and
    /// carries them out if `apply`. What is deleted can be brought back until its window ends.
    ///
    /// # Errors
    /// When records fail, or it cannot be found out what is needed; and when the receiver is gone. What was deleted until
    /// then stays so.
    pub async fn retain(
        &self,
        images: &ImagePattern,
        now: Timestamp,
        apply: bool,
        out: Option<&mpsc::Sender<Planned>>,
    ) -> Result<Retained, RegistryError> {
        if apply {
            self.give_way();
        }
        self.write_pulls().await?;
        let mut retained = Retained::default();
        let mut after = i64::MIN;
        loop {
            let (wanted, policy) = (images.clone(), self.policy());
            let page = self.records.read(move |tx| facts::page(tx, after, &wanted, &policy));
            let (Some(last), page) = page.await? else { return Ok(retained) };
            after = last;
            // Looked up for each page: what begins to be needed meanwhile is not taken away.
            let roots = self.roots().await?;
            for (facts, planned) in self.plan_page(page, roots, now).await? {
                let gone = planned.decisions.iter().filter(|decision| !decision.keep).count() as u64;
                retained.planned += gone;
                retained.kept += planned.decisions.len() as u64 - gone;
                if apply && gone > 0 {
                    retained.deleted += self.carry_out(&facts, &planned.decisions).await?;
                }
                if let Some(out) = out {
                    out.send(planned).await.map_err(|_| RegistryError::NobodyListens)?;
                }
            }
        }
    }

    /// Plans on a thread that may take its time.
    async fn plan_page(
        &self,
        page: Vec<ImageFacts>,
        mut roots: RootsByImage,
        now: Timestamp,
    ) -> Result<Vec<(ImageFacts, Planned)>, RegistryError> {
        let policy: Arc<Policy> = self.policy();
        let planned = tokio::task::spawn_blocking(move || {
            let moment = Moment { now, grace: millis(policy.grace) };
            let image = |mut facts: ImageFacts| {
                facts.roots = roots.remove(&facts.name).unwrap_or_default();
                let decisions = plan(&facts, &policy.retention, moment);
                let image = facts.name.clone();
                (facts, Planned { image, decisions })
            };
            page.into_iter().map(image).collect()
        });
        planned.await.map_err(|error| RegistryError::Roots(format!("the plan was not finished: {error}")))
    }

    async fn carry_out(&self, facts: &ImageFacts, decisions: &[Decision]) -> Result<u64, RegistryError> {
        let mut left = going(facts, decisions);
        let mut deleted = 0;
        for _ in 0..ROUNDS {
            let mut later = Vec::new();
            let before = deleted;
            for batch in left.chunks(BATCH) {
                let begun = Instant::now();
                let (registry, batch, name) = (self.acting_for("retention"), batch.to_vec(), facts.name.clone());
                fault::point(fault::BEFORE_RETENTION);
                let done = self.records.write(move |tx| registry.delete_batch(tx, &name, &batch)).await?;
                fault::point(fault::AFTER_RETENTION);
                self.announced(&done.announcement);
                deleted += done.count;
                later.extend(done.later);
                // Others write as long as this did.
                tokio::time::sleep(begun.elapsed().min(Duration::from_millis(250))).await;
            }
            if later.is_empty() || deleted == before {
                break;
            }
            left = later;
        }
        Ok(deleted)
    }
}

/// What goes, tags first.
fn going(facts: &ImageFacts, decisions: &[Decision]) -> Vec<Going> {
    let updated: HashMap<&Tag, Timestamp> = facts.tags.iter().map(|facts| (&facts.tag, facts.updated)).collect();
    let pushed: HashMap<&Digest, Timestamp> =
        facts.manifests.iter().map(|facts| (&facts.digest, facts.pushed)).collect();
    let going = |decision: &Decision| {
        let why = format!("retention: {}", decision.why);
        match &decision.subject {
            Subject::Tag(tag, digest) => {
                let updated = *updated.get(tag)?;
                Some(Going::Tag { tag: tag.clone(), digest: *digest, updated, why })
            }
            Subject::Manifest(digest) => Some(Going::Manifest { digest: *digest, pushed: *pushed.get(digest)?, why }),
        }
    };
    decisions.iter().filter(|decision| !decision.keep).filter_map(going).collect()
}

impl Registry {
    /// Deletes what is still as it was, and tells of it.
    fn delete_batch(&self, tx: &mut Tx<'_>, name: &ImageName, batch: &[Going]) -> Result<Done, RecordsError> {
        let (mut events, mut later) = (Vec::new(), Vec::new());
        let frozen = freeze::all(tx)?.iter().any(|freeze| freeze.images.matches(name));
        if let Some(id) = image_id(tx, name)?.filter(|_| !frozen) {
            let policy = self.policy();
            let place = Place { id, name, policy: &policy, at: crate::now() };
            for going in batch {
                match delete(tx, &place, going)? {
                    Fate::Stays => {}
                    Fate::Later => later.push(going.clone()),
                    Fate::Gone => events.push(match going {
                        Going::Tag { tag, .. } => {
                            ImageEvent { tag: Some(tag.clone()), ..self.event(ImageAction::Delete, name, None) }
                        }
                        Going::Manifest { digest, .. } => self.event(ImageAction::Delete, name, Some(*digest)),
                    }),
                }
            }
        }
        let count = events.len() as u64;
        let announcement = self.announce(events);
        announcement.write(tx)?;
        Ok(Done { count, later, announcement })
    }
}

fn delete(tx: &mut Tx<'_>, place: &Place<'_>, going: &Going) -> Result<Fate, RecordsError> {
    let gone = match going {
        Going::Tag { tag, digest, updated, why } => {
            let sql = "SELECT 1 FROM registry_tags WHERE image = $1 AND tag = $2 AND digest = $3 AND updated = $4";
            let key = [place.id.into(), tag.as_str().as_bytes().into(), digest.into(), (*updated).into()];
            tx.query_first(sql, &key)?.is_some() && trash::tag(tx, place, tag, why)?
        }
        Going::Manifest { digest, pushed, why } => {
            if !is_unchanged(tx, place.id, digest, *pushed)? {
                return Ok(Fate::Stays);
            }
            let sql = "SELECT 1 FROM registry_references WHERE image = $1 AND digest = $2 LIMIT 1";
            if tx.query_first(sql, &[place.id.into(), digest.into()])?.is_some() {
                return Ok(Fate::Later);
            }
            trash::manifest(tx, place, digest, why)?
        }
    };
    Ok(if gone { Fate::Gone } else { Fate::Stays })
}

/// Whether a manifest has no tag, and nobody pushed or asked for it since the plan was made.
fn is_unchanged(tx: &mut Tx<'_>, image: i64, digest: &Digest, pushed: Timestamp) -> Result<bool, RecordsError> {
    let sql = "SELECT 1 FROM registry_manifests m WHERE image = $1 AND digest = $2 AND pushed <= $3
               AND (renewed IS NULL OR renewed <= $3)
               AND NOT EXISTS (SELECT 1 FROM registry_tags t WHERE t.image = m.image AND t.digest = m.digest)";
    Ok(tx.query_first(sql, &[image.into(), digest.into(), pushed.into()])?.is_some())
}
