//! One listening socket: accepts connections and bounds what each may take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use http::Version;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use store::Outlet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::direct::Direct;
use crate::edge::{Edge, Ends};
use crate::origin::{ListenerRules, Scheme};
use crate::tls::Tls;

/// Connections at one time on one listener.
const MOST_CONNECTIONS: usize = 4096;
/// How long a client may take to send the head of a request, and how long a connection may lie idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the head of a request.
const LONGEST_HEAD: usize = 64 << 10;
/// How long requests that are under way may still take when the server stops.
const DRAIN: Duration = Duration::from_secs(9);

/// A bound listener.
pub(crate) struct Bound {
    pub(crate) socket: TcpListener,
    pub(crate) address: SocketAddr,
    /// Where a client on this machine reaches it.
    pub(crate) url: String,
    pub(crate) rules: Arc<ListenerRules>,
    /// Plain HTTP without.
    pub(crate) tls: Option<Tls>,
}

impl Bound {
    /// Serves until `stop` turns true, then lets what is under way end, and ends what does not.
    pub(crate) async fn serve(self, routes: Router, edge: Arc<Edge>, mut stop: watch::Receiver<bool>) {
        let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        if let Some(tls) = &self.tls {
            connections.spawn(tls.watch());
        }
        loop {
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, self.socket.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                accepted = accepted => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer)) => {
                    let (rules, edge) = (Arc::clone(&self.rules), Arc::clone(&edge));
                    let connection = Connection { peer, rules, edge, routes: routes.clone() };
                    let (tls, watcher, stopped) = (self.tls.clone(), graceful.watcher(), stop.clone());
                    connections.spawn(async move {
                        connection.serve(stream, tls, watcher, stopped).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    // No descriptor left, most likely; the next may close soon.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.socket);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests that were still under way are cut off");
        }
        connections.shutdown().await;
    }
}

/// A connection that was accepted.
struct Connection {
    peer: SocketAddr,
    rules: Arc<ListenerRules>,
    edge: Arc<Edge>,
    routes: Router,
}

impl Connection {
    /// Serves it to its end.
    async fn serve(self, stream: TcpStream, tls: Option<Tls>, watcher: Watcher, mut stop: watch::Receiver<bool>) {
        let _ = stream.set_nodelay(true);
        let peer = self.peer;
        let edge = Arc::clone(&self.edge);
        let _open = edge.metrics.connections.enter();
        // Without its own address a connection has no origin.
        let Ok(local) = stream.local_addr() else { return };
        let Some(tls) = tls else {
            let (stream, outlet) = Direct::new(stream);
            return self.speak(stream, Some(outlet), Ends { local, peer, scheme: Scheme::Http }, watcher).await;
        };
        let accepted = tokio::select! {
            accepted = tls.accept(stream) => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok(stream) => self.speak(stream, None, Ends { local, peer, scheme: Scheme::Https }, watcher).await,
            Err(error) => {
                edge.metrics.failed_handshakes.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%peer, %error, "a TLS handshake failed");
            }
        }
    }

    /// Speaks HTTP.
    async fn speak<S>(self, stream: S, outlet: Option<Outlet>, ends: Ends, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, rules, edge, routes } = self;
        let asked = Arc::new(AtomicBool::new(false));
        let began = Arc::clone(&asked);
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            began.store(true, Ordering::Relaxed);
            // Over HTTP/2 what is sent is cut into frames.
            if let Some(outlet) = outlet.as_ref().filter(|_| request.version() < Version::HTTP_2) {
                request.extensions_mut().insert(outlet.clone());
            }
            let (rules, edge, routes) = (Arc::clone(&rules), Arc::clone(&edge), routes.clone());
            async move { Ok::<_, std::convert::Infallible>(edge.serve(request, ends, &rules, routes).await) }
        });
        let watched = watcher.watch(builder().serve_connection(TokioIo::new(stream), service).into_owned());
        let ended = tokio::select! {
            ended = watched => ended,
            () = late(&asked) => return tracing::debug!(%peer, "a client asked for nothing"),
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended with an error");
        }
    }
}

/// Ends if nothing was asked in time. The protocol is found out from the first bytes, for which nobody else keeps time.
async fn late(asked: &AtomicBool) {
    tokio::time::sleep(HEAD_TIMEOUT).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(LONGEST_HEAD);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT);
    http2.max_concurrent_streams(100).max_header_list_size(LONGEST_HEAD as u32).max_send_buf_size(256 << 10);
    http2.initial_stream_window_size(256 << 10).initial_connection_window_size(1 << 20);
    // A client that opens streams only to reset them is sent away.
    http2.max_pending_accept_reset_streams(20).max_local_error_reset_streams(100);
    builder
}
