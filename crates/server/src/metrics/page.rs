//! `GET /metrics`, on a listener of its own.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::header;
use registry::replication::{Replication, ReplicationState};
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
    replication: Replication,
    usage: RwLock<Option<(Instant, Usage)>>,
}

/// The page alone.
pub(crate) fn routes(metrics: Arc<Metrics>, registry: Registry, replication: Replication) -> Router {
    let page = Page { metrics, registry, replication, usage: RwLock::new(None) };
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
    match page.replication.states().await {
        Ok(states) => write_replication(&states, &mut text),
        Err(error) => tracing::warn!(%error, "how replication stands cannot be read"),
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

/// What is said of a rule of replication.
type OfRule = fn(&ReplicationState) -> Option<i64>;

fn write_replication(states: &[ReplicationState], text: &mut Text) {
    let families: [(&str, &str, &str, OfRule); 7] = [
        ("queued", "gauge", "Tags and manifests that wait to be replicated.", |it| i64::try_from(it.queued).ok()),
        ("lag_seconds", "gauge", "For how long the oldest of them waits.", |it| {
            let now = model::Timestamp::from(std::time::SystemTime::now());
            Some(it.waiting_since.map_or(0, |since| now.millis_since(since).max(0) / 1000))
        }),
        ("last_success_timestamp_seconds", "gauge", "When something was last found or made right.", |it| {
            it.success.map(|at| at.0 / 1000)
        }),
        ("pushed_total", "counter", "Tags and manifests that were replicated.", |it| count(it.done.pushed)),
        ("sent_bytes_total", "counter", "Bytes of blobs that were sent.", |it| count(it.done.bytes)),
        ("removed_total", "counter", "Tags that were taken away at the destination.", |it| count(it.done.removed)),
        ("failures_total", "counter", "Attempts that failed.", |it| count(it.done.failed)),
    ];
    for (name, kind, help, value) in families {
        if states.is_empty() {
            return;
        }
        let name = format!("towpath_replication_{name}");
        text.family(&name, kind, help);
        for (state, value) in states.iter().filter_map(|state| Some((state, value(state)?))) {
            // The name of a rule needs no escapes.
            text.sample(&name, format_args!("{{rule=\"{}\"}}", state.name), value);
        }
    }
}

fn count(counter: u64) -> Option<i64> {
    i64::try_from(counter).ok()
}
