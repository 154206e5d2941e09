//! The HTTP proxy of [`Network::Egress`](crate::Network::Egress): runs in the owner, on a listener that lies inside.
//!
//! A request names a host; the name is held against the list, resolved here, and the addresses it leads to are checked,
//! so that no listed name opens the machine's own or its neighbours' services.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Where the proxy listens inside.
pub(crate) const PORT: u16 = 3128;
/// Connections at once.
const CONNECTIONS: usize = 256;
/// The longest request head in bytes.
const HEAD: usize = 16 << 10;
/// How long a request head, and a connection outwards, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Points the usual variables at the proxy, unless they are set.
pub(crate) fn set_environment(env: &mut Vec<(String, String)>) {
    let proxy = format!("http://127.0.0.1:{PORT}");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        set_unless_there(env, name, &proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        set_unless_there(env, name, "127.0.0.1,localhost,::1");
    }
}

fn set_unless_there(env: &mut Vec<(String, String)>, name: &str, value: &str) {
    if !env.iter().any(|(there, _)| there == name) {
        env.push((name.to_owned(), value.to_owned()));
    }
}

/// Serves until it is aborted.
pub(crate) async fn serve(listener: OwnedFd, allow: Vec<String>) {
    let listener = match TcpListener::from_std(std::net::TcpListener::from(listener)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "the sandbox's proxy cannot listen");
            return;
        }
    };
    let allow = Arc::new(allow);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => {
                let allow = allow.clone();
                connections.spawn(async move {
                    let _slot = slot;
                    if let Err(error) = answer(client, &allow).await {
                        tracing::debug!(%error, "a connection through the sandbox's proxy failed");
                    }
                });
            }
            // Out of descriptors, most likely: the next one may succeed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What a client asks of the proxy.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    host: String,
    port: u16,
    /// What is sent on before the rest; nothing for a tunnel.
    head: Option<Vec<u8>>,
}

async fn answer(mut client: TcpStream, allow: &[String]) -> io::Result<()> {
    let (head, rest) = match tokio::time::timeout(PATIENCE, read_head(&mut client)).await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return Err(error),
        Err(_) => return refuse(&mut client, "408 Request Timeout", "the request did not come").await,
    };
    let Some(request) = parse(&head) else {
        return refuse(&mut client, "400 Bad Request", "expected CONNECT host:port or http://host/…").await;
    };
    let place = format!("{}:{}", request.host, request.port);
    if !allowed(allow, &request.host, request.port) {
        return refuse(&mut client, "403 Forbidden", &format!("{place} is not on the list of this sandbox")).await;
    }
    let mut upstream = match tokio::time::timeout(PATIENCE, dial(&request, allow)).await {
        Ok(Ok(upstream)) => upstream,
        Ok(Err(error)) => return refuse(&mut client, "502 Bad Gateway", &format!("{place}: {error}")).await,
        Err(_) => return refuse(&mut client, "504 Gateway Timeout", &format!("{place} does not answer")).await,
    };
    match request.head {
        Some(head) => upstream.write_all(&head).await?,
        None => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
    }
    upstream.write_all(&rest).await?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await.map(drop)
}

async fn refuse(client: &mut TcpStream, status: &str, why: &str) -> io::Result<()> {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{why}\n",
        why.len() + 1
    );
    client.write_all(text.as_bytes()).await?;
    client.shutdown().await
}

/// The request head with its empty line, and what came with it.
async fn read_head(client: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Ok((read, rest));
        }
        if read.len() > HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the request head is too long"));
        }
        if client.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse(head: &[u8]) -> Option<Request> {
    let text = std::str::from_utf8(head).ok()?;
    let (line, headers) = text.split_once("\r\n")?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    if method == "CONNECT" {
        let (host, port) = split_port(target)?;
        return Some(Request { host, port: port?, head: None });
    }
    let rest = target.strip_prefix("http://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = split_port(authority)?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    // One request for each connection: the next one may be for somebody else.
    let mut sent = format!("{method} {slash}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
    for header in headers.split("\r\n").filter(|header| !header.is_empty()) {
        let name = header.split(':').next()?.trim().to_ascii_lowercase();
        if !matches!(name.as_str(), "host" | "connection" | "keep-alive" | "upgrade") && !name.starts_with("proxy-") {
            sent.push_str(header);
            sent.push_str("\r\n");
        }
    }
    sent.push_str("\r\n");
    Some(Request { host, port: port.unwrap_or(80), head: Some(sent.into_bytes()) })
}

/// Host in lower case and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':')?)),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map(str::parse).transpose().ok()?;
    let valid = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
    (valid && !host.is_empty()).then(|| (host.trim_end_matches('.').to_ascii_lowercase(), port))
}

fn allowed(allow: &[String], host: &str, port: u16) -> bool {
    allow.iter().any(|entry| {
        let (wild, entry) = match entry.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, entry.as_str()),
        };
        let Some((name, listed)) = split_port(entry) else { return false };
        let named = if wild { host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.')) } else { host == name };
        named && listed.map_or(matches!(port, 80 | 443), |listed| listed == port)
    })
}

async fn dial(request: &Request, allow: &[String]) -> io::Result<TcpStream> {
    let addresses = tokio::net::lookup_host((request.host.as_str(), request.port)).await?;
    let listed = |address: &SocketAddr| allowed(allow, &address.ip().to_string(), address.port());
    let mut last = io::Error::new(io::ErrorKind::PermissionDenied, "it is an address of this machine or its network");
    for address in addresses.filter(|address| is_public(address.ip()) || listed(address)) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether an address belongs to the internet at large.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && matches!(b, 18 | 19);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
                && !(a == 0 || a >= 240 || shared || benchmark || ip.is_documentation())
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => is_public(IpAddr::V4(v4)),
            // Global unicast, without the ranges that embed an IPv4 address (6to4, NAT64, Teredo).
            None => {
                let parts = ip.segments();
                (parts[0] & 0xe000) == 0x2000 && parts[0] != 0x2002 && !(parts[0] == 0x2001 && parts[1] < 0x200)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_exact() {
        let allow = ["crates.io", "*.example.org:8443", "10.0.0.5:3000"].map(str::to_owned);
        for (host, port, expected) in [
            ("crates.io", 443, true),
            ("crates.io", 80, true),
            ("crates.io", 22, false),
            ("static.crates.io", 443, false),
            ("evilcrates.io", 443, false),
            ("a.example.org", 8443, true),
            ("example.org", 8443, false),
            ("evilexample.org", 8443, false),
            ("10.0.0.5", 3000, true),
        ] {
            assert_eq!(allowed(&allow, host, port), expected, "{host}:{port}");
        }
    }

    #[test]
    fn inner_addresses_are_not_public() {
        for inner in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "192.168.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "255.255.255.255",
            "224.0.0.1",
        ] {
            assert!(!is_public(inner.parse().unwrap()), "{inner}");
        }
        assert!(is_public("93.184.216.34".parse().unwrap()) && is_public("2606:2800:220:1::1".parse().unwrap()));
    }

    #[test]
    fn requests_are_rewritten_for_their_origin() {
        let tunnel = parse(b"CONNECT Crates.io:443 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(tunnel, Request { host: "crates.io".to_owned(), port: 443, head: None });
        let plain =
            parse(b"GET http://a.b:81/x?y HTTP/1.1\r\nHost: other\r\nProxy-Auth: s\r\nAccept: *\r\n\r\n").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("a.b", 81));
        let sent = String::from_utf8(plain.head.unwrap()).unwrap();
        assert_eq!(sent, "GET /x?y HTTP/1.1\r\nHost: a.b:81\r\nConnection: close\r\nAccept: *\r\n\r\n");
        for bad in ["", "GET / HTTP/1.1\r\n\r\n", "CONNECT x HTTP/1.1\r\n\r\n", "GET http://a@b/ HTTP/1.1\r\n\r\n"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
