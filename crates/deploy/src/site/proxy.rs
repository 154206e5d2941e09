//! The proxy's process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sandbox::Exit;
use sandbox::supervise::{self, Control};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};

use super::listeners::Listeners;
use super::route::{Backend, Backends, Slot};
use super::state::{Addresses, SiteState};
use crate::control;
use crate::health::chain;

/// The pause between two tries to listen, after a start.
const PAUSE: Duration = Duration::from_millis(250);

/// What the server asks of a proxy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Take the routes from `state.json`.
    Reload,
    /// Wait until an instance has no request on its way.
    Drain { instance: String, limit_ms: u64 },
    /// Take no connection any more, let requests finish, and end.
    Stop { grace_ms: u64 },
}

/// What a proxy answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Why it was not done.
    pub error: Option<String>,
    /// The generation of the routes in use.
    pub generation: u64,
    pub addresses: Addresses,
    /// Requests on their way; after `Drain`, those of that instance.
    pub in_flight: usize,
}

struct Proxy {
    dir: PathBuf,
    listeners: Mutex<Listeners>,
    backends: Backends,
    generation: AtomicU64,
    stopped: Notify,
}

/// Proxies for the site in `dir` until it is told to stop.
pub(crate) async fn run(dir: &Path) -> Result<(), String> {
    raise_open_files();
    let proxy = Arc::new(Proxy {
        dir: dir.to_owned(),
        listeners: Mutex::default(),
        backends: Backends::default(),
        generation: AtomicU64::new(0),
        stopped: Notify::new(),
    });
    let mut control = Control::open(dir).map_err(|error| chain(&error))?;
    let starting = proxy.clone();
    let start = async move {
        while let Err(error) = starting.reload().await {
            tracing::warn!(error, "the routes cannot be taken yet");
            tokio::time::sleep(PAUSE).await;
        }
        std::future::pending::<()>().await;
    };
    let serve = control::serve(&mut control, |asked, request| proxy.clone().answer(asked, request));
    tokio::select! {
        () = proxy.stopped.notified() => {}
        () = start => {}
        () = serve => {}
    }
    control.finish(Exit::Code(0), serde_json::Value::Null).map_err(|error| chain(&error))
}

/// Each request on its way takes two descriptors.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

impl Proxy {
    async fn answer(self: Arc<Self>, asked: Request, request: supervise::Request) {
        let mut error = None;
        let mut in_flight = None;
        let mut stop = false;
        match asked {
            Request::Reload => error = self.reload().await.err(),
            Request::Drain { instance, limit_ms } => {
                in_flight = Some(match self.backends.get(&instance) {
                    Some(backend) => backend.drained(Duration::from_millis(limit_ms)).await,
                    None => 0,
                });
            }
            Request::Stop { grace_ms } => {
                self.drain(Duration::from_millis(grace_ms)).await;
                stop = true;
            }
        }
        let reply = Reply {
            error,
            generation: self.generation.load(Ordering::Acquire),
            addresses: self.listeners.lock().await.addresses(),
            in_flight: in_flight.unwrap_or_else(|| self.backends.in_flight()),
        };
        control::reply(request, &reply).await;
        if stop {
            self.stopped.notify_one();
        }
    }

    /// Takes the routes from disk: all of them, or none if one of the addresses cannot be had.
    async fn reload(&self) -> Result<(), String> {
        let state = SiteState::read(&self.dir).map_err(|error| chain(&error))?;
        let state = state.ok_or_else(|| format!("{} has no state.json", self.dir.display()))?;
        let known = Addresses::read(&self.dir).map_err(|error| chain(&error))?;
        let mut listeners = self.listeners.lock().await;
        let mut bound = Vec::new();
        for service in &state.services {
            let new = listeners.slot(&service.name, service.listen).is_none();
            bound.push(match new {
                true => Some(Listeners::bind(service.listen, known.0.get(&service.name).copied()).await?),
                false => None,
            });
        }
        for (service, bound) in state.services.iter().zip(bound) {
            let backend = self.backends.get_or_make(&service.instance, || {
                let dir = SiteState::instance_dir(&self.dir, state.target, &service.instance);
                Backend::new(dir, service.port)
            });
            match (listeners.slot(&service.name, service.listen), bound) {
                (Some(slot), _) => slot.replace(backend),
                (None, Some(bound)) => {
                    let slot = Slot::new(service.name.clone(), backend);
                    listeners.open(bound, slot).map_err(|error| error.to_string())?;
                }
                (None, None) => {}
            }
        }
        listeners.keep(&state.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>());
        let addresses = listeners.addresses();
        if addresses != known {
            addresses.write(&self.dir).map_err(|error| chain(&error))?;
        }
        self.generation.store(state.generation, Ordering::Release);
        Ok(())
    }

    async fn drain(&self, grace: Duration) {
        self.listeners.lock().await.close();
        let empty = async {
            while self.backends.in_flight() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(grace, empty).await;
    }
}
