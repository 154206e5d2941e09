//! The proxy's listeners and the connections they take.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::forward::{BUFFER, forward};
use super::route::Slot;
use super::state::{Addresses, Listening};
use crate::health::chain;

/// How long a client may be silent before or within the head of a request.
const SILENCE: Duration = Duration::from_secs(120);
/// Connections of one listener at the same time; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;

/// A listener and the service behind it.
struct Listener {
    listening: Listening,
    slot: Arc<Slot>,
    accepting: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The connections it took live on.
        self.accepting.abort();
    }
}

/// All listeners of a site, by service.
#[derive(Default)]
pub(crate) struct Listeners(BTreeMap<String, Listener>);

/// A listener that is bound and not in use yet.
pub(crate) struct Bound {
    wanted: SocketAddr,
    socket: TcpListener,
}

impl Listeners {
    /// The slot of a service that listens already where it is wanted.
    pub fn slot(&self, service: &str, wanted: SocketAddr) -> Option<&Arc<Slot>> {
        let fits = |listener: &&Listener| listener.listening.wanted == wanted || listener.listening.bound == wanted;
        self.0.get(service).filter(fits).map(|listener| &listener.slot)
    }

    /// Binds the address that is wanted; where a port of 0 is, the one it had before (`known`).
    pub async fn bind(wanted: SocketAddr, known: Option<Listening>) -> Result<Bound, String> {
        let address = match known {
            Some(known) if known.wanted == wanted => known.bound,
            _ => wanted,
        };
        match TcpListener::bind(address).await {
            Ok(socket) => Ok(Bound { wanted, socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(format!("cannot listen on {address}: another program does"))
            }
            Err(error) => Err(format!("cannot listen on {address}: {error}")),
        }
    }

    /// Puts a bound listener in the place of the one the service had.
    pub fn open(&mut self, bound: Bound, slot: Arc<Slot>) -> io::Result<()> {
        let listening = Listening { wanted: bound.wanted, bound: bound.socket.local_addr()? };
        let accepting = tokio::spawn(accept(bound.socket, slot.clone()));
        self.0.insert(slot.service.clone(), Listener { listening, slot, accepting });
        Ok(())
    }

    /// Closes the listeners of services that are not among `services`.
    pub fn keep(&mut self, services: &[&str]) {
        self.0.retain(|service, _| services.contains(&service.as_str()));
    }

    pub fn close(&mut self) {
        self.0.clear();
    }

    pub fn addresses(&self) -> Addresses {
        Addresses(self.0.iter().map(|(service, listener)| (service.clone(), listener.listening)).collect())
    }
}

async fn accept(socket: TcpListener, slot: Arc<Slot>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, client)) => {
                let slot = slot.clone();
                tokio::spawn(async move {
                    serve(stream, client, slot).await;
                    drop(place);
                });
            }
            // Too many open files, or a client that has gone already: neither is a reason to stop.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, client: SocketAddr, slot: Arc<Slot>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| forward(slot.clone(), client.ip(), request));
    let connection = http1::Builder::new()
        .half_close(true)
        .max_buf_size(BUFFER)
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(error = chain(&error), "connection of a client ended");
    }
}
