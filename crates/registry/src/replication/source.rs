//! This registry's images as something to copy from.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use model::{Digest, ImageName};
use oci::client::{BlobSource, ClientError, FetchedManifest};
use oci::transfer::Images;
use oci::{Descriptor, Reference};

use crate::Registry;
use crate::replication::{ReplicationRule, records};

/// How many referrers are read at a time.
const PAGE: usize = 100;

/// One image of this registry.
#[derive(Debug)]
pub(super) struct Here {
    pub registry: Registry,
    pub image: ImageName,
    pub rule: Arc<ReplicationRule>,
}

fn unreadable(error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Source(error.to_string())
}

impl Images for Here {
    fn manifest<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<FetchedManifest, ClientError>> {
        async move {
            let found = self.registry.manifest(&self.image, reference).await.map_err(|error| unreadable(&error))?;
            let found = found.ok_or_else(|| unreadable(&format_args!("{} has no {reference}", self.image)))?;
            Ok(FetchedManifest { digest: found.digest, media_type: found.media_type, bytes: found.bytes })
        }
        .boxed()
    }

    fn blob(&self, blob: &Descriptor) -> BlobSource {
        let (blobs, digest) = (self.registry.blobs().clone(), blob.digest);
        BlobSource::opened(move |from| {
            let blobs = blobs.clone();
            async move {
                let reader = blobs.read(&digest).await.map_err(|error| unreadable(&error))?;
                let mut reader = reader.ok_or_else(|| unreadable(&format_args!("blob {digest} is gone")))?;
                reader.seek(from..u64::MAX);
                let stream = futures_util::stream::try_unfold(reader, |mut reader| async move {
                    let chunk = reader.chunk().await.map_err(|error| unreadable(&error))?;
                    Ok(chunk.map(|bytes| (bytes, reader)))
                });
                Ok(stream.boxed())
            }
            .boxed()
        })
    }

    fn referrers<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>, ClientError>> {
        async move {
            let mut all: Vec<Descriptor> = Vec::new();
            loop {
                let after = all.last().map(|entry| entry.digest.to_string());
                let page = self.registry.referrers(&self.image, digest, None, after.as_deref(), PAGE);
                let page = page.await.map_err(|error| unreadable(&error))?;
                let entry = |it: crate::Referrer| Descriptor::new(&it.media_type, it.digest, it.size);
                all.extend(page.entries.into_iter().map(entry));
                if !page.more {
                    return Ok(all);
                }
            }
        }
        .boxed()
    }

    fn elsewhere<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Option<ImageName>> {
        async move {
            let (rule, image, blob) = (Arc::clone(&self.rule), self.image.clone(), *digest);
            // It only saves sending bytes: if it cannot be told, they are sent.
            let home = self.registry.records.read(move |tx| records::home(tx, &rule.name, &image, &blob)).await;
            self.rule.name_there(&home.ok()??).ok()
        }
        .boxed()
    }
}
