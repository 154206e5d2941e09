//! Where a registry is.

use std::fmt;
use std::str::FromStr;

use model::NameError;

/// Host and, where it is not the scheme's own, port of a registry: `ghcr.io`, `registry.example:5000`, `[::1]:5000`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryHost(String);

/// What people call docker's registry.
const DOCKER: &str = "docker.io";
/// Where docker's registry answers.
const DOCKER_ENDPOINT: &str = "registry-1.docker.io";

impl RegistryHost {
    /// Docker's registry, where images without a host come from.
    pub fn docker() -> Self {
        Self(DOCKER.to_owned())
    }

    /// As people write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is docker's registry, whose official images are below `library/`.
    pub fn is_docker(&self) -> bool {
        self.0 == DOCKER
    }

    /// Host and port that requests go to.
    pub fn endpoint(&self) -> &str {
        if self.is_docker() { DOCKER_ENDPOINT } else { &self.0 }
    }
}

impl FromStr for RegistryHost {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let shown: String = text.chars().take(80).collect();
        let bad = || NameError::new("registry", shown.clone(), "host[:port], such as ghcr.io or localhost:5000");
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => {
                address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
                (None, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(text), None),
            },
        };
        let label = |label: &str| {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !label.is_empty() && label.len() <= 63 && label.bytes().all(legal)
        };
        if host.is_some_and(|host| host.len() > 253 || !host.split('.').all(label)) {
            return Err(bad());
        }
        if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().unwrap_or(0) == 0) {
            return Err(bad());
        }
        let text = text.to_ascii_lowercase();
        Ok(match text.as_str() {
            "index.docker.io" | DOCKER_ENDPOINT => Self::docker(),
            _ => Self(text),
        })
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for good in ["ghcr.io", "localhost:5000", "[::1]:5000", "[fd00::1]", "10.0.0.1", "my_host"] {
            assert_eq!(good.parse::<RegistryHost>().unwrap().as_str(), good);
        }
        assert_eq!("Index.Docker.io".parse::<RegistryHost>().unwrap().endpoint(), "registry-1.docker.io");
        for bad in ["", ":5000", "a:0", "a:66000", "a:+1", "a..b", "a/b", "u@h", "[::1", "[x]", "[::1]5", "a b", "a?b"]
        {
            assert!(bad.parse::<RegistryHost>().is_err(), "{bad}");
        }
    }
}
