//! `towpath up`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::ServerSpec;
use server::{ServeOptions, StartError};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::UpArgs;
use crate::error::{Failure, Kind};
use crate::output;

pub(crate) async fn up(args: UpArgs) -> Result<ExitCode, Failure> {
    prepare(args.log_json);
    let here = Path::new("towpath.yaml");
    let mut spec = match args.config.as_deref().or_else(|| here.exists().then_some(here)) {
        Some(path) => read_spec(path)?,
        None => ServerSpec::default(),
    };
    if let Some(address) = args.listen {
        spec.listeners.truncate(1);
        spec.listeners[0].address = address;
    }
    if spec.is_registry_only() {
        output::note(
            "the file names only `registry`, so nothing else is served; `actions: {}` beside it adds the rest",
        );
    }
    serve(spec, args.data).await
}

/// What a server's process needs before it has threads.
pub(crate) fn prepare(log_json: bool) {
    start_log(log_json);
    keep_memory_together();
    // Files are made for this user alone where they must be; what jobs read must not depend on a caller's umask.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
}

/// Serves until a signal says stop.
pub(crate) async fn serve(spec: ServerSpec, data: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let (data, registry_only) = (data.map_or_else(default_data, Ok)?, spec.is_registry_only());
    let running = server::start(ServeOptions { data: data.clone(), spec }).await.map_err(|error| failure(&error))?;
    if let Some(token) = &running.admin_token {
        output::note("This is the first start. The administrator `admin` has this token; it is not shown again:");
        output::data(&format!("{token}\n"));
    }
    for url in &running.urls {
        output::note(&format!("towpath serves {url} with its data in {}", data.display()));
    }
    let broken = |error: std::io::Error| Failure::failed(format!("signals cannot be awaited: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let ousted = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = running.ousted() => true,
    };
    if registry_only {
        output::note("stopping");
    } else {
        output::note("stopping; jobs and sites go on under their supervisors");
    }
    running.stop().await;
    if ousted {
        return Err(Failure::failed("another server has taken the records while this one was silent"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn start_log(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TOWPATH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second log in one process is refused; the first goes on.
    let _ = if json { log.json().try_init() } else { log.with_ansi(false).try_init() };
}

pub(crate) fn read_spec(path: &Path) -> Result<ServerSpec, Failure> {
    let shown = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    config::parse_server(&shown, &text).map_err(|error| Failure::usage(error.to_string()))
}

/// `$XDG_DATA_HOME/towpath`, else `~/.local/share/towpath`; for root `/var/lib/towpath`.
fn default_data() -> Result<PathBuf, Failure> {
    if let Some(dir) = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("towpath"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/towpath".into());
    }
    match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/towpath")),
        None => Err(Failure::usage("there is no home directory; name a data directory with --data")),
    }
}

pub(crate) fn failure(error: &StartError) -> Failure {
    Failure::new(Kind::Failed, error.to_string())
}

/// Two heaps for all threads: with one for each, what a thread has freed is of no use to the others and stays with us.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn keep_memory_together() {
    // SAFETY: `mallopt` only sets a number, before any other thread of ours allocates much.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // What bodies pass through is used again at once: to give it back to the system and to be given it anew, cleared,
        // would take longer than to move the bytes.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 << 20);
    }
}

/// Other allocators have no such setting.
#[cfg(not(target_env = "gnu"))]
fn keep_memory_together() {}
