//! How a request reached us: the only source of absolute URLs.
//!
//! The socket, the Host header and, from a proxy that is listed, `X-Forwarded-Host` and `-Proto` make one [`Origin`].
//! A Host that is not ours gets 421, so that no page of another name can talk to us through a rebound DNS entry.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use config::Listener;
use http::HeaderMap;
use registry::upstream::ListenerUpstream;

use crate::edge::Ends;

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS, ended by us or by a proxy.
    Https,
}

/// Scheme, host and port as the client dialled them. Prints as `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The scheme.
    pub scheme: Scheme,
    /// Host and port, as in the Host header.
    pub authority: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// The Host is not one of this listener's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host {0:?} is not served here")]
pub struct Misdirected(pub String);

/// What a listener believes.
#[derive(Clone, Debug)]
pub struct ListenerRules {
    hosts: Vec<String>,
    proxies: Vec<(IpAddr, u8)>,
    upstream: Option<ListenerUpstream>,
}

impl ListenerRules {
    /// The rules of a configured listener, which was checked.
    pub fn new(listener: &Listener) -> Self {
        let network = |text: &String| {
            let (address, bits) = text.split_once('/').map_or((text.as_str(), None), |(a, bits)| (a, Some(bits)));
            let address: IpAddr = address.parse().ok()?;
            let all = if address.is_ipv4() { 32 } else { 128 };
            Some((address, bits.and_then(|bits| bits.parse().ok()).unwrap_or(all)))
        };
        Self {
            hosts: listener.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            proxies: listener.trusted_proxies.iter().filter_map(network).collect(),
            upstream: listener.upstream.as_deref().map(|name| ListenerUpstream(name.into())),
        }
    }

    /// The upstream that every image asked for here is of.
    pub(crate) fn upstream(&self) -> Option<ListenerUpstream> {
        self.upstream.clone()
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.proxies.iter().any(|(network, bits)| match (network, peer) {
            (IpAddr::V4(network), IpAddr::V4(peer)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
                network.to_bits() & mask == peer.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(peer)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
                network.to_bits() & mask == peer.to_bits() & mask
            }
            _ => false,
        })
    }

    /// The address of the client: the peer's, or what the nearest proxy that is not ours was seen as.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        // Each proxy adds whom it saw at the end; from there on back, the first that is no proxy of ours is the client.
        let mut client = peer;
        for value in headers.get_all("x-forwarded-for").iter().rev() {
            for address in value.to_str().unwrap_or_default().rsplit(',') {
                let Ok(address) = address.trim().parse() else { return client };
                client = address;
                if !self.trusts(client) {
                    return client;
                }
            }
        }
        client
    }

    /// Whether what a peer says of its clients is believed.
    pub(crate) fn believes(&self, peer: IpAddr) -> bool {
        self.trusts(peer)
    }

    /// The origin of a request over a connection; `authority` is that of an HTTP/2 request.
    ///
    /// # Errors
    /// When the host is not served here.
    pub(crate) fn resolve(
        &self,
        ends: Ends,
        authority: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Origin, Misdirected> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let forwarded = self.trusts(ends.peer.ip());
        let host = authority.or_else(|| text("host")).unwrap_or_default();
        let host = text("x-forwarded-host").filter(|_| forwarded).map_or(host, last);
        let scheme = match text("x-forwarded-proto").filter(|_| forwarded).map(last) {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            // The socket's own, which no header can raise.
            _ => ends.scheme,
        };
        let authority = host.to_ascii_lowercase();
        if self.serves(&authority, ends.local) {
            Ok(Origin { scheme, authority })
        } else {
            Err(Misdirected(host.to_owned()))
        }
    }

    fn serves(&self, authority: &str, local: SocketAddr) -> bool {
        let name = match authority.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => name,
            _ => authority,
        };
        if self.hosts.iter().any(|host| host == authority || host == name) {
            return true;
        }
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        let ip = literal.parse::<IpAddr>();
        let here = ip.is_ok_and(|ip| ip.to_canonical() == local.ip().to_canonical());
        here || (name == "localhost" && local.ip().to_canonical().is_loopback())
    }
}

/// The value that the nearest proxy added.
fn last(list: &str) -> &str {
    list.rsplit(',').next().unwrap_or(list).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> ListenerRules {
        ListenerRules::new(&Listener {
            hosts: vec!["registry.example".into(), "git.example:8443".into()],
            trusted_proxies: vec!["10.1.0.0/16".into(), "fd00::/8".into()],
            ..Listener::default()
        })
    }

    fn resolve(peer: &str, headers: &[(&'static str, &'static str)]) -> Result<String, Misdirected> {
        resolve_over(Scheme::Http, peer, headers)
    }

    fn resolve_over(
        scheme: Scheme,
        peer: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<String, Misdirected> {
        let map = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let ends = Ends { local: "127.0.0.1:7080".parse().unwrap(), peer: peer.parse().unwrap(), scheme };
        rules().resolve(ends, None, &map).map(|origin| origin.to_string())
    }

    #[test]
    fn takes_its_own_names_only() {
        let peer = "127.0.0.1:40000";
        assert_eq!(resolve(peer, &[("host", "127.0.0.1:7080")]).unwrap(), "http://127.0.0.1:7080");
        assert_eq!(resolve(peer, &[("host", "LOCALHOST:7080")]).unwrap(), "http://localhost:7080");
        assert_eq!(resolve(peer, &[("host", "registry.example")]).unwrap(), "http://registry.example");
        assert_eq!(resolve(peer, &[("host", "registry.example:99")]).unwrap(), "http://registry.example:99");
        for bad in ["evil.example", "git.example", "git.example:1", "10.0.0.9", "", "registry.example.evil"] {
            assert_eq!(resolve(peer, &[("host", bad)]), Err(Misdirected(bad.into())));
        }
    }

    #[test]
    fn believes_only_listed_proxies() {
        let headers =
            [("host", "127.0.0.1:7080"), ("x-forwarded-host", "registry.example"), ("x-forwarded-proto", "https")];
        assert_eq!(resolve("10.1.2.3:1", &headers).unwrap(), "https://registry.example");
        assert_eq!(resolve("[fd12::1]:1", &headers).unwrap(), "https://registry.example");
        assert_eq!(resolve("10.2.2.3:1", &headers).unwrap(), "http://127.0.0.1:7080");
        let plain = [("host", "registry.example")];
        assert_eq!(resolve("10.1.2.3:1", &plain).unwrap(), "http://registry.example", "https is never assumed");
    }

    #[test]
    fn the_client_is_who_the_outermost_of_our_proxies_saw() {
        let client = |peer: &str, values: &[&'static str]| {
            let header =
                |value: &&'static str| (http::HeaderName::from_static("x-forwarded-for"), value.parse().unwrap());
            rules().client(peer.parse().unwrap(), &values.iter().map(header).collect()).to_string()
        };
        assert_eq!(client("192.0.2.9", &["198.51.100.1"]), "192.0.2.9", "nobody's word");
        assert_eq!(client("10.1.0.1", &[]), "10.1.0.1");
        assert_eq!(client("10.1.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.1.0.1", &["1.1.1.1, 198.51.100.1, 10.1.0.2"]), "198.51.100.1");
        assert_eq!(client("10.1.0.1", &["1.1.1.1", "198.51.100.1"]), "198.51.100.1", "the last line is the nearest");
        assert_eq!(client("10.1.0.1", &["1.1.1.1, nonsense, 10.1.0.2"]), "10.1.0.2");
    }

    #[test]
    fn tls_on_the_socket_is_https() {
        let host = ("host", "registry.example");
        let over_tls = |peer, headers: &[_]| resolve_over(Scheme::Https, peer, headers).unwrap();
        assert_eq!(over_tls("10.9.9.9:1", &[host]), "https://registry.example");
        let proto = ("x-forwarded-proto", "http");
        assert_eq!(over_tls("10.9.9.9:1", &[host, proto]), "https://registry.example", "nobody's word");
        assert_eq!(over_tls("10.1.2.3:1", &[host, proto]), "http://registry.example", "the proxy's clients dial http");
    }
}
