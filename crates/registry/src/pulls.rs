//! When tags and manifests were last pulled: gathered in memory, and written now and then in batches.
//!
//! A process that is killed forgets the pulls of the last minute; one that is stopped writes them first.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use model::{Digest, ImageName, Tag, Timestamp};
use store::{RecordsError, Tx};

use crate::{Reference, Registry, RegistryError, now};

/// Parts of the table, so that requests seldom wait for each other.
const SHARDS: usize = 16;

/// Pulls of different things that one part remembers until they are written; further ones are not counted.
const MOST: usize = 16_384;

/// Pulls that are written in one transaction.
const BATCH: usize = 500;

/// The pulls that were not written yet.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    /// By the hash of image and reference, so that a pull of something that is here already copies nothing.
    shards: [Mutex<HashMap<u64, Pull>>; SHARDS],
    hasher: RandomState,
}

#[derive(Clone, Debug)]
struct Pull {
    image: ImageName,
    tag: Option<Tag>,
    digest: Digest,
    at: Timestamp,
}

impl Pulls {
    pub(crate) fn note(&self, image: &ImageName, reference: &Reference, digest: &Digest) {
        let key = self.hasher.hash_one((image, reference, digest));
        let shard = usize::try_from(key % SHARDS as u64).unwrap_or(0);
        let mut pulls = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pull) = pulls.get_mut(&key) {
            pull.at = now();
        } else if pulls.len() < MOST {
            let tag = match reference {
                Reference::Tag(tag) => Some(tag.clone()),
                Reference::Digest(_) => None,
            };
            pulls.insert(key, Pull { image: image.clone(), tag, digest: *digest, at: now() });
        }
    }

    fn take(&self) -> Vec<Pull> {
        let take = |shard: &Mutex<HashMap<u64, Pull>>| {
            std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner))
        };
        self.shards.iter().flat_map(take).map(|(_, pull)| pull).collect()
    }
}

fn write(tx: &mut Tx<'_>, pulls: &[Pull]) -> Result<(), RecordsError> {
    let sql = "INSERT INTO registry_pulls (image, reference, at)
               SELECT id, CAST($2 AS TEXT), CAST($3 AS BIGINT) FROM registry_images WHERE name = $1
               ON CONFLICT (image, reference) DO UPDATE SET at = excluded.at WHERE excluded.at > registry_pulls.at";
    for pull in pulls {
        let names = [pull.tag.as_ref().map(ToString::to_string), Some(pull.digest.to_string())];
        for name in names.into_iter().flatten() {
            tx.execute(sql, &[pull.image.as_str().as_bytes().into(), name.into(), pull.at.into()])?;
        }
    }
    Ok(())
}

impl Registry {
    /// Notes that a manifest was pulled. Costs no more than a look into a table in memory.
    pub(crate) fn pulled(&self, image: &ImageName, reference: &Reference, digest: &Digest) {
        self.shared.pulls.note(image, reference, digest);
    }

    /// Writes the pulls that were noted since the last time.
    ///
    /// # Errors
    /// When the records cannot be written. Pulls that were taken out and not written are forgotten.
    pub async fn write_pulls(&self) -> Result<(), RegistryError> {
        let pulls = self.shared.pulls.take();
        for batch in pulls.chunks(BATCH) {
            let batch = batch.to_vec();
            self.records.write(move |tx| write(tx, &batch)).await?;
        }
        Ok(())
    }
}
