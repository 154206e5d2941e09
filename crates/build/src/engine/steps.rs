//! Steps made real: as directories that commands run on, and as layers of the image.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use model::Digest;
use oci::Descriptor;
use store::BlobLease;
use tokio::sync::oneshot;

use super::{Ask, Session};
use crate::base::{BaseImageError, ResolvedImage};
use crate::cache::{LayerBlob, LayerRecord};
use crate::error::BuildError;
use crate::files::{Destination, Picks, place};
use crate::key::Key;
use crate::layer::{Contents, LayerOutput};
use crate::run;
use crate::stage::{Action, From, Layer, Step};
use crate::view::{Nothing, View};

/// How long to wait before looking again whether another build has made a step.
const RETRY: Duration = Duration::from_millis(20);

impl Session<'_> {
    /// The directory of each layer, the topmost first; empty layers are left out.
    pub fn trees(&mut self, chain: &[Arc<Layer>]) -> Result<Vec<PathBuf>, BuildError> {
        let mut trees = Vec::with_capacity(chain.len());
        for index in 0..chain.len() {
            trees.extend(self.tree(chain, index)?);
        }
        trees.reverse();
        Ok(trees)
    }

    /// The files of a chain, all of it unpacked.
    pub fn full_view(&mut self, chain: &[Arc<Layer>]) -> Result<View, BuildError> {
        Ok(View::new(self.trees(chain)?, Vec::new(), self.builder.layers.ids()))
    }

    /// The files of a chain; copied ones above the last command are only listed.
    pub(super) fn view(&mut self, chain: &[Arc<Layer>]) -> Result<View, BuildError> {
        let needs_tree = |layer: &Arc<Layer>| match layer.as_ref() {
            Layer::Base { .. } => true,
            Layer::Step(step) => matches!(step.action, Action::Run(_)),
        };
        let listed = chain.iter().rposition(needs_tree).map_or(0, |last| last + 1);
        let trees = self.trees(&chain[..listed])?;
        let mut placed = Vec::new();
        for index in listed..chain.len() {
            placed.push(self.placement(chain, index)?);
        }
        Ok(View::new(trees, placed, self.builder.layers.ids()))
    }

    /// Whether what is remembered of a step may be used.
    fn trusted(&self, key: &Key) -> bool {
        !self.request.no_cache || self.made.contains(key)
    }

    /// The directory of layer `index`; nothing if the layer is empty.
    pub fn tree(&mut self, chain: &[Arc<Layer>], index: usize) -> Result<Option<PathBuf>, BuildError> {
        self.check_cancelled()?;
        let step = match chain[index].as_ref() {
            Layer::Base { image, index } => return self.base_tree(image, *index).map(Some),
            Layer::Step(step) => step,
        };
        if let Some(found) = self.known_tree(step)? {
            return Ok(found);
        }
        match &step.action {
            Action::Run(action) => {
                let lower = self.trees(&chain[..index])?;
                let mounts = run::mounts(self, step, action)?;
                self.alone(&step.key, |session| {
                    if let Some(found) = session.known_tree(step)? {
                        return Ok(found);
                    }
                    let tree = run::run(session, step, action, lower, mounts)?;
                    session.made.insert(step.key);
                    session.ran.insert(step.key);
                    session.count.executed += 1;
                    Ok(Some(tree))
                })
            }
            Action::Copy(_) | Action::Directory(_) => self.placed_tree(chain, index, step),
        }
    }

    /// The directory of a step that was made before.
    fn known_tree(&mut self, step: &Step) -> Result<Option<Option<PathBuf>>, BuildError> {
        if !self.trusted(&step.key) {
            return Ok(None);
        }
        if let Some(tree) = self.builder.cache.tree(&step.key) {
            return Ok(Some(Some(tree)));
        }
        match self.known_layer(&step.key) {
            Some(LayerRecord::Empty) => Ok(Some(None)),
            Some(LayerRecord::Blob(blob)) => {
                self.unpacked(&descriptor(&blob), &blob.diff_id).map(|tree| Some(Some(tree)))
            }
            None => Ok(None),
        }
    }

    fn placed_tree(&mut self, chain: &[Arc<Layer>], index: usize, step: &Step) -> Result<Option<PathBuf>, BuildError> {
        let placement = self.placement(chain, index)?;
        if placement.entries.is_empty() {
            return Ok(None);
        }
        if !placement.archives.is_empty() {
            // Archives are unpacked by what unpacks layers, which trusts nothing in them.
            return match self.layer(chain, index)? {
                Some(blob) => self.unpacked(&descriptor(&blob), &blob.diff_id).map(Some),
                None => Ok(None),
            };
        }
        let from = self.contents_view(step)?;
        self.alone(&step.key, |session| {
            if let Some(found) = session.known_tree(step)? {
                return Ok(found);
            }
            let work = session.builder.cache.work()?;
            let root = work.path().join("tree");
            std::fs::create_dir(&root).map_err(BuildError::io(format!("cannot make {}", root.display())))?;
            let output = session.output()?;
            output.tree(&root, &placement, session.contents(from.as_ref()), session.builder.layers.ids())?;
            let tree = session.builder.cache.keep_tree(&step.key, &root)?;
            session.made.insert(step.key);
            Ok(Some(tree))
        })
    }

    /// The files of a mount, in a directory of their own.
    pub fn bound_tree(&mut self, key: &Key, picks: &Picks, from: &From) -> Result<PathBuf, BuildError> {
        if let Some(tree) = self.builder.cache.tree(key) {
            return Ok(tree);
        }
        let view = match from {
            From::Context => None,
            From::Chain(chain) => Some(self.full_view(chain)?),
        };
        let destination = Destination { path: String::new(), directory: true, owner: None, mode: None };
        let placement =
            place(&Nothing, picks, &[], &destination).map_err(|error| BuildError::Broken(error.to_string()))?;
        let work = self.builder.cache.work()?;
        let root = work.path().join("tree");
        std::fs::create_dir(&root).map_err(BuildError::io(format!("cannot make {}", root.display())))?;
        self.output()?.tree(&root, &placement, self.contents(view.as_ref()), self.builder.layers.ids())?;
        self.builder.cache.keep_tree(key, &root)
    }

    fn base_tree(&mut self, image: &Arc<ResolvedImage>, index: usize) -> Result<PathBuf, BuildError> {
        let layer = &image.manifest.layers[index];
        if let Some(tree) = self.builder.layers.find(&layer.digest) {
            return Ok(tree);
        }
        self.fetch(image, layer)?;
        self.unpacked(layer, &image.config.rootfs.diff_ids[index])
    }

    /// Brings a layer of a base image into the blob store.
    fn fetch(&self, image: &Arc<ResolvedImage>, layer: &Descriptor) -> Result<(), BuildError> {
        self.lease()?.hold(&layer.digest);
        if self.has_blob(&layer.digest) {
            return Ok(());
        }
        let failed = |error: BaseImageError| BuildError::Broken(error.to_string());
        let gone = || BuildError::Cancelled;
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Fetch { image: Arc::clone(image), layer: Box::new(layer.clone()), answer };
        self.caller.asks.blocking_send(ask).map_err(|_| gone())?;
        answered.blocking_recv().map_err(|_| gone())?.map_err(failed)
    }

    fn unpacked(&self, layer: &Descriptor, diff_id: &Digest) -> Result<PathBuf, BuildError> {
        let path = self.builder.blobs.local_path(&layer.digest);
        let open = || -> std::io::Result<Box<dyn Read>> {
            let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "it is not in the blob store");
            Ok(Box::new(File::open(path.ok_or_else(missing)?)?))
        };
        Ok(self.builder.layers.ensure(layer, Some(diff_id), open)?)
    }

    pub(super) fn contents<'v>(&'v self, from: Option<&'v View>) -> Contents<'v> {
        from.map_or(Contents::Context(self.context), Contents::View)
    }

    /// The layer that `index` of a chain is in the image; nothing if it is empty.
    pub fn layer(&mut self, chain: &[Arc<Layer>], index: usize) -> Result<Option<LayerBlob>, BuildError> {
        self.check_cancelled()?;
        let step = match chain[index].as_ref() {
            Layer::Base { image, index } => {
                let layer = &image.manifest.layers[*index];
                self.fetch(image, layer)?;
                let diff_id = image.config.rootfs.diff_ids[*index];
                return Ok(Some(LayerBlob { digest: layer.digest, size: layer.size, diff_id }));
            }
            Layer::Step(step) => step,
        };
        if self.trusted(&step.key)
            && let Some(record) = self.known_layer(&step.key)
        {
            if !self.made.contains(&step.key) {
                self.count.cached += 1;
                self.log(format!("cached: {}", step.shown));
            }
            return Ok(record.into_blob());
        }
        let record = match &step.action {
            Action::Run(_) => match self.tree(chain, index)? {
                Some(tree) => self.output()?.upper(&tree, self.builder.layers.ids())?,
                None => LayerRecord::Empty,
            },
            Action::Copy(_) | Action::Directory(_) => {
                let placement = self.placement(chain, index)?;
                let from = self.contents_view(step)?;
                self.log(step.shown.clone());
                self.count.executed += 1;
                let written = self.output()?.placement(&placement, self.contents(from.as_ref()));
                // What can be read and written wrongly here has to do with the instruction: its place helps.
                written?
            }
        };
        self.builder.cache.keep_layer(&step.key, &record)?;
        self.made.insert(step.key);
        Ok(record.into_blob())
    }

    /// What a step's layer was before, if it is still there; then the lease holds it.
    fn known_layer(&self, key: &Key) -> Option<LayerRecord> {
        let record = self.builder.cache.layer(key)?;
        if let LayerRecord::Blob(blob) = &record {
            self.lease?.hold(&blob.digest);
            if !self.has_blob(&blob.digest) {
                return None;
            }
        }
        Some(record)
    }

    fn has_blob(&self, digest: &Digest) -> bool {
        self.builder.blobs.local_path(digest).is_some()
    }

    pub fn lease(&self) -> Result<&BlobLease, BuildError> {
        self.lease.ok_or_else(|| BuildError::Broken("files are needed where only the inputs were asked for".to_owned()))
    }

    fn output(&self) -> Result<LayerOutput<'_>, BuildError> {
        let (blobs, lease) = (&self.builder.blobs, self.lease()?);
        Ok(LayerOutput { blobs, lease, epoch: self.request.epoch, cancel: &self.caller.cancel })
    }

    /// Does `make` while no other build makes the same.
    fn alone<T>(&mut self, key: &Key, make: impl FnOnce(&mut Self) -> Result<T, BuildError>) -> Result<T, BuildError> {
        let lock = self.builder.lock(key);
        let result = loop {
            match lock.try_lock() {
                Ok(_held) => break make(self),
                Err(std::sync::TryLockError::Poisoned(_)) => break make(self),
                Err(std::sync::TryLockError::WouldBlock) => std::thread::sleep(RETRY),
            }
            self.check_cancelled()?;
        };
        drop(lock);
        self.builder.unlock(key);
        result
    }
}

impl super::Inner {
    /// The lock of something that is being made or used.
    pub fn lock(&self, key: &Key) -> Arc<std::sync::Mutex<()>> {
        Arc::clone(self.making.lock().unwrap_or_else(PoisonError::into_inner).entry(*key).or_default())
    }

    /// Forgets a lock that nobody has any more.
    pub fn unlock(&self, key: &Key) {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if making.get(key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            making.remove(key);
        }
    }
}

impl LayerRecord {
    fn into_blob(self) -> Option<LayerBlob> {
        match self {
            Self::Empty => None,
            Self::Blob(blob) => Some(blob),
        }
    }
}

/// The descriptor of a layer that was made here.
pub(super) fn descriptor(blob: &LayerBlob) -> Descriptor {
    Descriptor::new(oci::media_type::OCI_LAYER_GZIP, blob.digest, blob.size)
}
