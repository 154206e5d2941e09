//! The configuration and manifest of an image whose layers are there.

use std::io::Write as _;

use model::{Algorithm, Timestamp};
use oci::media_type::{OCI_CONFIG, OCI_MANIFEST};
use oci::{Descriptor, History, ImageConfig, Manifest, RootFs, digest_of};

use super::steps::descriptor;
use super::{BuiltImage, Session};
use crate::error::BuildError;
use crate::stage::{Layer, Stage};

/// What history says of who wrote it.
const COMMENT: &str = "towpath";

impl Session<'_> {
    /// Makes the layers of a stage, and an image of them.
    pub fn assemble(&mut self, stage: &Stage) -> Result<BuiltImage, BuildError> {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        let mut empty = vec![true; stage.chain.len()];
        for (index, layer) in stage.chain.iter().enumerate() {
            let Some(blob) = self.layer(&stage.chain, index)? else { continue };
            layers.push(match layer.as_ref() {
                Layer::Base { image, index } => base_descriptor(&image.manifest.layers[*index]),
                Layer::Step(_) => descriptor(&blob),
            });
            diff_ids.push(blob.diff_id);
            empty[index] = false;
        }
        let config = self.config(stage, RootFs { diff_ids, ..RootFs::default() }, &empty);
        let config = serde_json::to_vec(&config).map_err(broken)?;
        let mut writer = self.builder.blobs.blocking_writer(self.lease()?, Algorithm::Sha256)?;
        writer.write_all(&config).map_err(BuildError::io("cannot write the image's configuration"))?;
        let stored = writer.finish()?;
        let described = Descriptor::new(OCI_CONFIG, stored.digest(), stored.size());
        let manifest = serde_json::to_vec(&Manifest::image(described, layers.clone())).map_err(broken)?;
        Ok(BuiltImage {
            digest: digest_of(Algorithm::Sha256, &manifest),
            manifest,
            media_type: OCI_MANIFEST,
            config_digest: stored.digest(),
            layers,
            steps: self.count,
        })
    }

    fn config(&self, stage: &Stage, rootfs: RootFs, empty: &[bool]) -> ImageConfig {
        // Whole seconds, as docker and git have them.
        let created = Timestamp(self.request.epoch.seconds() * 1000).to_string().replace(".000Z", "Z");
        let platform = &self.request.platform;
        let mut history = stage.base_history.clone();
        history.extend(stage.history.iter().map(|line| History {
            created: Some(created.clone()),
            created_by: Some(line.text.clone()),
            comment: Some(COMMENT.to_owned()),
            empty_layer: line.layer.is_none_or(|layer| empty.get(layer).copied().unwrap_or(true)),
            ..History::default()
        }));
        let mut config = stage.config.clone();
        config.labels.extend(self.request.labels.clone());
        ImageConfig {
            created: Some(created),
            author: stage.author.clone(),
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            config,
            rootfs,
            history,
            ..ImageConfig::default()
        }
    }
}

/// A base image's layer as an OCI manifest lists it: docker's own media types become OCI's.
fn base_descriptor(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.media_type.as_str() {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        other => other,
    };
    Descriptor::new(media_type, layer.digest, layer.size)
}

fn broken(error: serde_json::Error) -> BuildError {
    BuildError::Broken(error.to_string())
}
