//! Taking the addresses that the configuration names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::Listener;
use tokio::net::TcpListener;

use crate::listen::Bound;
use crate::origin::ListenerRules;
use crate::serve::StartError;
use crate::tls::{Certificates, Tls};

/// How long an address that is taken may take to become free.
const FREED: Duration = Duration::from_secs(1);

/// Reads the certificates of all listeners, then binds them.
pub(crate) async fn bind(listeners: &[Listener]) -> Result<Vec<Bound>, StartError> {
    let tls = listeners.iter().enumerate().map(|(index, listener)| tls(index, listener));
    let tls: Vec<_> = tls.collect::<Result<_, _>>()?;
    let mut bound = Vec::new();
    for (listener, tls) in listeners.iter().zip(tls) {
        bound.push(bind_one(listener, tls).await?);
    }
    Ok(bound)
}

/// Binds the listener of the metrics.
pub(crate) async fn bind_metrics(metrics: Option<&config::Metrics>) -> Result<Option<Bound>, StartError> {
    let Some(config::Metrics { address, hosts }) = metrics.cloned() else { return Ok(None) };
    bind_one(&Listener { address, hosts, ..Listener::default() }, None).await.map(Some)
}

fn tls(index: usize, listener: &Listener) -> Result<Option<Tls>, StartError> {
    let Some(tls) = &listener.tls else { return Ok(None) };
    let failed = |reason: String| StartError::Tls { listener: index, reason };
    let certificates = Certificates::read(tls.files()).map_err(|error| failed(error.to_string()))?;
    Tls::new(Arc::new(certificates)).map(Some).map_err(|error| failed(error.to_string()))
}

async fn bind_one(listener: &Listener, tls: Option<Tls>) -> Result<Bound, StartError> {
    let address = listener.address;
    let socket = bound(address).await.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program listens there already".to_owned(),
            std::io::ErrorKind::PermissionDenied => "you may not listen on this port".to_owned(),
            std::io::ErrorKind::AddrNotAvailable => "this machine does not have the address".to_owned(),
            _ => error.to_string(),
        };
        StartError::Listen { address, reason }
    })?;
    let address = socket.local_addr().unwrap_or(address);
    let url = url(listener, address);
    Ok(Bound { socket, address, url, rules: Arc::new(ListenerRules::new(listener)), tls })
}

/// Binds, waiting a little for an earlier server that was killed: a child it had just forked still holds its sockets
/// until it becomes another program.
async fn bound(address: SocketAddr) -> std::io::Result<TcpListener> {
    let until = tokio::time::Instant::now() + FREED;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            result => return result,
        }
    }
}

/// Where a client on this machine reaches a listener: with TLS under its first name, which a certificate can be made
/// out to, and else under its address.
fn url(listener: &Listener, address: SocketAddr) -> String {
    let Some(name) = listener.hosts.first().filter(|_| listener.tls.is_some()) else {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        return format!("{scheme}://{}", reachable(address));
    };
    if name.contains(':') || address.port() == 443 {
        format!("https://{name}")
    } else {
        format!("https://{name}:{}", address.port())
    }
}

/// An address that a client on this machine can dial.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr =
            if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}
