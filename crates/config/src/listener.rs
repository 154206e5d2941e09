//! The sockets on which the server answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Upstream;

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Listener {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Host names under which it may be asked, besides its own address and `localhost`. Another Host gets 421.
    pub hosts: Vec<String>,
    /// Addresses or networks (`10.0.0.0/8`) whose `X-Forwarded-For`, `-Host` and `-Proto` count.
    pub trusted_proxies: Vec<String>,
    /// TLS on this socket; plain HTTP without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The upstream of the registry that every image here is of: for clients that know a mirror by its address alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 7080)),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            upstream: None,
        }
    }
}

/// How a listener proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file of the certificate and its chain, the certificate itself first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<AbsoluteFile>,
    /// PEM file of its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<AbsoluteFile>,
    /// Further certificates. Each client gets the first one that is made out to the name it asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<CertificateFiles>,
    /// A certificate from an authority that speaks ACME, beside those from files or alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<Acme>,
}

/// A certificate that an authority issues and that is renewed in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acme {
    /// The URL of the authority's directory; Let's Encrypt's by default.
    #[serde(default = "lets_encrypt")]
    pub directory: String,
    /// The names that it is made out to.
    pub domains: Vec<String>,
    /// Whom the authority may write to: `mailto:ops@example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contact: Vec<String>,
    /// A file of certificates (PEM) that are trusted besides the system's when the authority is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<AbsoluteFile>,
    /// How it is shown that the names are ours.
    #[serde(default)]
    pub challenge: AcmeChallenge,
}

/// What the authority connects to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AcmeChallenge {
    /// This listener, which it must reach at port 443 of each name.
    #[default]
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    /// Any listener without TLS, which it must reach at port 80 of each name.
    #[serde(rename = "http-01")]
    Http,
}

fn lets_encrypt() -> String {
    "https://acme-v02.api.letsencrypt.org/directory".to_owned()
}

impl Acme {
    fn check(&self) -> Result<(), String> {
        let host = self.directory.strip_prefix("https://").and_then(|rest| rest.split('/').next());
        if host.is_none_or(|host| host.is_empty() || host.contains('@')) {
            return Err(format!("directory: {:?} is not a URL that begins with https://", self.directory));
        }
        if self.domains.is_empty() || self.domains.len() > 100 {
            return Err(format!("domains: {} names; expected 1 to 100", self.domains.len()));
        }
        for domain in &self.domains {
            let label = |label: &str| {
                let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                (1..=63).contains(&label.len())
                    && label.bytes().all(inner)
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            };
            if domain.starts_with("*.") {
                return Err(format!("domains: {domain}: a wildcard cannot be shown to be ours over TLS or HTTP"));
            }
            let number = domain.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
            if domain.len() > 253 || !domain.split('.').all(label) || number {
                return Err(format!("domains: {domain:?} is not a host name in lower case"));
            }
        }
        match self.contact.iter().find(|contact| !contact.starts_with("mailto:")) {
            Some(contact) => Err(format!("contact: {contact:?} does not begin with mailto:")),
            None => Ok(()),
        }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file of the certificate and its chain, the certificate itself first.
    pub certificate: AbsoluteFile,
    /// PEM file of its private key.
    pub key: AbsoluteFile,
}

impl Tls {
    /// All certificates that are read from files, in the order in which they are looked through.
    pub fn files(&self) -> Vec<CertificateFiles> {
        let first = self.certificate.clone().zip(self.key.clone());
        let first = first.map(|(certificate, key)| CertificateFiles { certificate, key });
        first.into_iter().chain(self.more.iter().cloned()).collect()
    }

    fn check(&self) -> Result<(), String> {
        if let Some(acme) = &self.acme {
            acme.check().map_err(|why| format!("acme.{why}"))?;
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => Err("certificate: its key is missing; add `key: /path`".into()),
            (None, Some(_)) => Err("key: its certificate is missing; add `certificate: /path`".into()),
            (None, None) if self.more.is_empty() && self.acme.is_none() => {
                Err("`certificate` and `key` are needed, or `acme`".into())
            }
            _ => Ok(()),
        }
    }
}

/// What is said of a text that is no [`AbsoluteFile`].
pub(crate) const NOT_A_FILE: &str = "expected the absolute path of a file, as /path or file:/path";

/// The absolute path of a file, written `/path` or `file:/path`. What is no path is not repeated in the error: it may be
/// a key that somebody put where its file belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AbsoluteFile(PathBuf);

impl AbsoluteFile {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl From<PathBuf> for AbsoluteFile {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl From<AbsoluteFile> for String {
    fn from(file: AbsoluteFile) -> Self {
        file.0.display().to_string()
    }
}

impl TryFrom<String> for AbsoluteFile {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let path = text.strip_prefix("file:").unwrap_or(&text);
        if path.starts_with('/') && !path.contains('\n') { Ok(Self(path.into())) } else { Err(NOT_A_FILE) }
    }
}

/// What is wrong with the listeners, with its place.
pub(crate) fn check(listeners: &[Listener]) -> Result<(), String> {
    if listeners.is_empty() {
        return Err("spec.listeners: at least one listener is needed".into());
    }
    for (index, listener) in listeners.iter().enumerate() {
        let place = format!("spec.listeners[{index}]");
        for proxy in &listener.trusted_proxies {
            check_network(proxy).map_err(|why| format!("{place}.trustedProxies: {proxy:?} {why}"))?;
        }
        if let Some(tls) = &listener.tls {
            tls.check().map_err(|why| format!("{place}.tls: {why}"))?;
        }
        let twin = listeners[..index].iter().find(|other| other.address == listener.address);
        if twin.is_some() && listener.address.port() != 0 {
            return Err(format!("{place}.address: {} is listed twice", listener.address));
        }
    }
    Ok(())
}

/// Whether every listener that stands for an upstream stands for one that is there.
pub(crate) fn check_upstreams(listeners: &[Listener], upstreams: &[Upstream]) -> Result<(), String> {
    for (index, name) in listeners.iter().enumerate().filter_map(|(index, it)| Some((index, it.upstream.as_ref()?))) {
        if !upstreams.iter().any(|upstream| upstream.name == *name) {
            return Err(format!("spec.listeners[{index}].upstream: {name:?} is not one of spec.registry.upstreams"));
        }
    }
    Ok(())
}

pub(crate) fn check_network(text: &str) -> Result<(), &'static str> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: std::net::IpAddr = address.parse().map_err(|_| "is not an address or network")?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    match bits.map(str::parse::<u8>) {
        None => Ok(()),
        Some(Ok(bits)) if bits <= most => Ok(()),
        Some(_) => Err("has a prefix length that is out of range"),
    }
}

#[cfg(test)]
mod tests {
    use crate::{ConfigError, ServerSpec, parse_server};

    fn parse(spec: &str) -> Result<ServerSpec, ConfigError> {
        parse_server("towpath.yaml", &format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n{spec}"))
    }

    fn refused(tls: &str) -> String {
        parse(&format!("  listeners: [{{tls: {{{tls}}}}}]\n")).unwrap_err().to_string()
    }

    #[test]
    fn a_certificate_needs_its_key_and_a_path() {
        let spec = parse("  listeners: [{tls: {certificate: /c.pem, key: 'file:/k.pem'}}]\n").unwrap();
        let files = spec.listeners[0].tls.as_ref().unwrap().files();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].key.path(), std::path::Path::new("/k.pem"));
        assert!(
            refused("").contains("spec.listeners[0].tls: `certificate` and `key` are needed, or `acme`"),
            "{}",
            refused("")
        );
        assert!(refused("certificate: /c.pem").contains("its key is missing"));
        assert!(refused("key: /c.pem").contains("its certificate is missing"));
        assert!(refused("certificate: c.pem, key: /k.pem").contains("absolute path"));
    }

    #[test]
    fn a_key_in_place_of_its_file_is_not_printed() {
        let error = refused("certificate: /c.pem, key: \"-----BEGIN PRIVATE KEY-----\\nhunter2\"");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
