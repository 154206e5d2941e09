//! What a supervised process of this room does.

use std::path::Path;

/// Runs the workload `kind` (`site` or `service`) of the directory `dir` until it is told to stop, and says with which
/// exit code to end. This is what `__workload <kind> <dir>` calls.
pub fn workload_main(kind: &str, dir: &Path) -> i32 {
    // One thread: a proxy and its neighbours shall take little memory, and none of them computes anything.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no asynchronous runtime");
            return 1;
        }
    };
    let result = match kind {
        "site" => runtime.block_on(crate::site::run(dir)),
        "service" => runtime.block_on(crate::service::run(dir)),
        other => Err(format!("there is no workload {other:?}")),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(error, kind, dir = %dir.display(), "the workload ended");
            let _ = std::fs::write(dir.join("error"), &error);
            1
        }
    }
}
