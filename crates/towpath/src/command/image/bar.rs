//! Progress on a terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use oci::transfer::Shared;

/// A bar on standard error, if that is a terminal, that follows a copying until it is dropped.
pub(crate) struct Bar {
    bar: ProgressBar,
    follow: tokio::task::JoinHandle<()>,
}

impl Bar {
    pub(crate) fn start(shared: Arc<Shared>) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {msg}") {
            bar.set_style(style);
        }
        let shown = bar.clone();
        let follow = tokio::spawn(async move {
            loop {
                let progress = &shared.progress;
                shown.set_length(progress.wanted.load(Relaxed).max(progress.bytes.load(Relaxed)));
                shown.set_position(progress.bytes.load(Relaxed));
                let blobs = progress.sent.load(Relaxed) + progress.mounted.load(Relaxed) + progress.there.load(Relaxed);
                shown.set_message(format!("{blobs} blobs, {} manifests", progress.manifests.load(Relaxed)));
                tokio::time::sleep(Duration::from_millis(120)).await;
            }
        });
        Self { bar, follow }
    }

    /// Takes it away.
    pub(crate) fn finish(self) {
        drop(self);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.follow.abort();
        self.bar.finish_and_clear();
    }
}
