//! `GET /metrics`, on a listener of its own.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::header;
use registry::{Registry, Usage};

use super::text::Text;
use super::{Metrics, process};
use crate::problem::Problem;

/// How long what the registry holds is not counted anew: that reads all its records.
const FRESH: Duration = Duration::from_secs(60);

/// What a page is made of.
struct Page {
    metrics: Arc<Metrics>,
    registry: Registry,
    usage: RwLock<Option<(Instant, Usage)>>,
}

/// The page alone.
pub(crate) fn routes(metrics: Arc<Metrics>, registry: Registry) -> Router {
    let page = Page { metrics, registry, usage: RwLock::new(None) };
    Router::new()
        .route("/metrics", get(show))
        .with_state(Arc::new(page))
        .fallback(|| async { Problem::not_found("the metrics are at /metrics") })
}

async fn show(State(page): State<Arc<Page>>) -> ([(header::HeaderName, &'static str); 1], String) {
    let mut text = Text::default();
    text.family("towpath_build_info", "gauge", "The version that runs.");
    text.sample("towpath_build_info", concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1);
    page.metrics.write(&mut text);
    match page.usage().await {
        Ok(usage) => write_usage(&usage, &mut text),
        Err(error) => tracing::warn!(%error, "what the registry holds cannot be counted"),
    }
    process::write(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.finish())
}

impl Page {
    async fn usage(&self) -> Result<Usage, registry::RegistryError> {
        let known = *self.usage.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, usage)) = known.filter(|(counted, _)| counted.elapsed() < FRESH) {
            return Ok(usage);
        }
        let usage = self.registry.usage().await?;
        *self.usage.write().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), usage));
        Ok(usage)
    }
}

fn write_usage(usage: &Usage, text: &mut Text) {
    for (name, help, value) in [
        ("towpath_registry_images", "Images of the registry.", usage.images),
        ("towpath_registry_tags", "Tags of all images.", usage.tags),
        ("towpath_registry_manifests", "Manifests of all images.", usage.manifests),
        ("towpath_registry_blobs", "Different blobs that images refer to.", usage.blobs),
        ("towpath_registry_storage_bytes", "Bytes of these blobs.", usage.bytes),
        ("towpath_registry_uploads_open", "Uploads that were begun and not ended.", usage.uploads),
    ] {
        text.single(name, "gauge", help, value);
    }
}
