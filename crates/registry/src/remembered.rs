//! Manifests that were asked for lately, so that a tag that everybody pulls costs no look into the records.
//!
//! What is remembered holds until a transaction of this process writes to the tables that it was read from. Where other
//! processes write as well, nothing is remembered.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::ImageName;
use store::{Records, Watch};

use crate::{ManifestRecord, Reference};

/// The most bytes of manifests, and with them of names and references; when there are more, all are forgotten.
const MOST_BYTES: usize = 4 << 20;

/// What an entry takes beside its bytes.
const ENTRY: usize = 1 << 10;

/// Whether a manifest's look-up reads this table.
fn concerns(table: &str) -> bool {
    matches!(table, "registry_images" | "registry_tags" | "registry_manifests")
}

#[derive(Debug)]
pub(crate) struct Remembered {
    watch: Option<Watch>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The number of the watch at which all of it was read.
    at: u64,
    images: HashMap<ImageName, HashMap<Reference, ManifestRecord>>,
    bytes: usize,
}

impl Remembered {
    pub(crate) fn new(records: &Records) -> Self {
        Self { watch: records.watch(concerns), known: Mutex::default() }
    }

    /// The manifest, if it is known and still right.
    pub(crate) fn get(&self, image: &ImageName, reference: &Reference) -> Option<ManifestRecord> {
        let now = self.watch.as_ref()?.now();
        let known = self.known();
        let found = known.images.get(image)?.get(reference)?;
        (known.at == now).then(|| found.clone())
    }

    /// When something that is about to be read is true; nothing if it is not to be remembered.
    pub(crate) fn now(&self) -> Option<u64> {
        self.watch.as_ref().map(Watch::now)
    }

    /// Remembers what was read after [`Remembered::now`] gave `at`.
    pub(crate) fn put(&self, at: Option<u64>, image: &ImageName, reference: &Reference, record: &ManifestRecord) {
        let Some(at) = at else { return };
        let mut known = self.known();
        if at < known.at {
            return;
        }
        if at > known.at || known.bytes > MOST_BYTES {
            *known = Known { at, ..Known::default() };
        }
        known.bytes += record.bytes.len() + ENTRY;
        known.images.entry(image.clone()).or_default().insert(reference.clone(), record.clone());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
