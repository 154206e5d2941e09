//! Where a registry may send us: a stranger's realm or redirect must not reach what only we can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How far inside an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The internet.
    Public,
    /// A network of somebody's own.
    Private,
    /// This machine.
    Loopback,
    /// Link-local (clouds keep credentials there), multicast, and what is no address of anybody.
    Nowhere,
}

impl Place {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, c, _] = address.octets();
        match (a, b) {
            (127, _) | (0, _) => Self::Loopback,
            (10, _) | (192, 168) | (198, 18..=19) => Self::Private,
            (172, 16..=31) | (100, 64..=127) => Self::Private,
            (192, 0) if c == 0 => Self::Private,
            (169, 254) | (224..=255, _) => Self::Nowhere,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let parts = address.segments();
        let v4 = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match parts {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::Loopback,
            // Ways to write an IPv4 address: mapped, compatible, translated (RFC 6052) and 6to4.
            [0, 0, 0, 0, 0, 0xffff | 0, high, low] => v4(high, low),
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
            [0x2002, high, low, ..] => v4(high, low),
            [0xfc00..=0xfdff, ..] => Self::Private,
            [0xfe80..=0xfeff, ..] | [0xff00..=0xffff, ..] => Self::Nowhere,
            _ => Self::Public,
        }
    }
}

/// Which addresses a connection may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Wherever the user said.
    Anywhere,
    /// The internet only.
    Public,
    /// Private networks too.
    Private,
    /// This machine too.
    Loopback,
}

impl Reach {
    /// Where a registry at `addresses` may send us: no further inside than it is itself.
    pub(super) fn from_registry(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        match addresses.into_iter().map(Place::of).filter(|place| *place != Place::Nowhere).max() {
            Some(Place::Loopback) => Self::Loopback,
            Some(Place::Private) => Self::Private,
            _ => Self::Public,
        }
    }

    pub(super) fn allows(self, address: IpAddr) -> bool {
        let place = Place::of(address);
        match self {
            Self::Anywhere => true,
            Self::Public => place <= Place::Public,
            Self::Private => place <= Place::Private,
            Self::Loopback => place <= Place::Loopback,
        }
    }

    /// Whether a URL's host may be asked. A name is judged by [`Guard`] when it is resolved.
    pub(super) fn allows_host(self, host: &str) -> bool {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        literal.parse().map_or(true, |address| self.allows(address))
    }
}

/// Resolves names, and leaves out addresses that are out of reach. Connections use exactly what this gives, so a name
/// cannot mean one thing when it is checked and another when it is used.
pub(super) struct Guard(pub Reach);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let total = found.len();
            let allowed: Vec<SocketAddr> = found.into_iter().filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() && total > 0 {
                return Err(format!("{} is at an internal address, and the registry is not", name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::of(text.parse().unwrap())
    }

    #[test]
    fn every_spelling_of_an_internal_address() {
        for loopback in
            ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::127.0.0.1"]
        {
            assert_eq!(place(loopback), Place::Loopback, "{loopback}");
        }
        for private in ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "2002:0a00:0001::1"] {
            assert_eq!(place(private), Place::Private, "{private}");
        }
        for nowhere in
            ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "224.0.0.1", "255.255.255.255", "ff02::1"]
        {
            assert_eq!(place(nowhere), Place::Nowhere, "{nowhere}");
        }
        assert_eq!(place("140.82.112.33"), Place::Public);
        assert_eq!(place("2606:50c0::1"), Place::Public);
    }

    #[test]
    fn nobody_sends_us_further_inside_than_they_are() {
        let at = |text: &str| Reach::from_registry([text.parse().unwrap()]);
        let (public, private, loopback) = (at("140.82.112.33"), at("10.0.0.5"), at("127.0.0.1"));
        assert!(!public.allows_host("10.0.0.1") && !public.allows_host("[::1]"));
        assert!(private.allows_host("10.1.0.1") && !private.allows_host("127.0.0.1"));
        assert!(loopback.allows_host("127.0.0.1") && loopback.allows_host("10.0.0.1"));
        assert!(!loopback.allows_host("169.254.169.254"));
        assert!(public.allows_host("auth.docker.io"));
    }
}
