//! Images that outside systems push into the registry: what of them a target should run, and the deliveries that bring
//! it there.
//!
//! Nothing is remembered here. What a target was last given is in the log, what it should have is in the registry; a
//! push says only that the two may differ. So a push that was committed when the server died is delivered by the next.

use config::{ExternalProducer, Service};
use model::{Digest, ImageName, Trigger};
use registry::{ImageAction, ImageEvent};
use tokio::sync::broadcast::error::RecvError;

use crate::targets::{self, ConfiguredTarget};
use crate::{Pipeline, PipelineError};

impl Pipeline {
    /// Delivers what outside systems push, from now on and what was pushed before.
    pub(crate) fn follow_images(&self) {
        let (pipeline, mut events) = (self.clone(), self.rooms.registry.events());
        tokio::spawn(async move {
            let mut pushed = None;
            loop {
                if let Err(error) = Box::pin(pipeline.deliver_images(pushed.as_ref())).await {
                    if matches!(error, PipelineError::Stopping) {
                        return;
                    }
                    tracing::error!(%error, "images that outside systems pushed could not be delivered");
                }
                pushed = loop {
                    match events.recv().await {
                        Ok(ImageEvent { action: ImageAction::Push, image, .. }) => break Some(image),
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => break None,
                        Err(RecvError::Closed) => return,
                    }
                };
            }
        });
    }

    /// Delivers every target once more that should run another image than it was given; only those with the image
    /// `pushed`, if one is said.
    async fn deliver_images(&self, pushed: Option<&ImageName>) -> Result<(), PipelineError> {
        for target in targets::list(&self.rooms.records).await? {
            for (service, producer) in external(&target) {
                if pushed.is_some_and(|image| *image != service.image) {
                    continue;
                }
                let Some(digest) = self.newest(service, producer).await? else { continue };
                if self.was_given(&target, service, digest).await? {
                    continue;
                }
                // One target that cannot be delivered must not keep the others from it.
                match self.deliver_image(&target, service, digest, &producer.system).await {
                    Ok(()) => {}
                    Err(PipelineError::Stopping) => return Err(PipelineError::Stopping),
                    Err(error) => {
                        tracing::error!(target = target.name, image = %service.image, %error, "not delivered");
                    }
                }
            }
        }
        Ok(())
    }

    async fn newest(&self, service: &Service, producer: &ExternalProducer) -> Result<Option<Digest>, PipelineError> {
        let found = self.rooms.registry.newest(&service.image, &producer.tags).await;
        Ok(found.map_err(|error| PipelineError::Refused(error.to_string()))?.map(|(_, digest)| digest))
    }

    /// Whether the last run of the target is made for this image, or came to it by itself.
    async fn was_given(
        &self,
        target: &ConfiguredTarget,
        service: &Service,
        digest: Digest,
    ) -> Result<bool, PipelineError> {
        let Some(last) = self.journal.last_run(target.id).await? else { return Ok(false) };
        let events = self.journal.delivery(last.delivery).await?;
        let Some(facts) = evidence::target_facts(&events, last.run) else { return Ok(false) };
        if let Trigger::Image { image, digest: given } = &facts.delivery.trigger
            && *image == service.image
        {
            return Ok(*given == digest);
        }
        Ok(facts.images().get(service.name.as_str()).is_some_and(|image| image.digest == digest))
    }

    async fn deliver_image(
        &self,
        target: &ConfiguredTarget,
        service: &Service,
        digest: Digest,
        by: &str,
    ) -> Result<(), PipelineError> {
        let Some(repo) = self.rooms.hosting.find(&target.spec.repository).await? else { return Ok(()) };
        let ref_name = target.spec.ref_name().map_err(|error| PipelineError::Refused(error.to_string()))?;
        // Without a commit there are no manifests either: the first push brings the image along.
        if self.rooms.hosting.repository(repo.id)?.resolve(ref_name.as_str()).await?.is_none() {
            return Ok(());
        }
        let trigger = Trigger::Image { image: service.image.clone(), digest };
        let delivery = self.again(&repo, &ref_name, trigger, by).await?;
        tracing::info!(%delivery, target = target.name, image = %service.image, %digest, "an image was pushed");
        Ok(())
    }
}

fn external(target: &ConfiguredTarget) -> impl Iterator<Item = (&Service, &ExternalProducer)> {
    target.spec.services.iter().filter_map(|service| Some((service, service.external.as_ref()?)))
}
