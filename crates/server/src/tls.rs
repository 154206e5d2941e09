//! TLS on a listener: which certificates there are, and the handshake.
//!
//! Certificates come from files or from an authority, are chosen by the name that the client asks for, and change while
//! the server runs. An authority that wants to know whether a name is ours is answered in the handshake (RFC 8737).

mod certificates;
mod pair;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use acme::Challenges;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

pub(crate) use certificates::Certificates;

/// How long a client may take for the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE_RECORD: u8 = 22;

/// What a client gets that speaks plain HTTP to a TLS listener.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 47\r\n\
    Connection: close\r\n\r\nthis address speaks TLS only: use https:// here";

/// The protocol that an authority asks for to find out whether a name is ours.
const CHALLENGE: &[u8] = b"acme-tls/1";

/// What a listener with TLS does with a connection.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    /// What authorities are answered here.
    challenges: Arc<OnceLock<Challenges>>,
}

impl Tls {
    /// TLS 1.2 and 1.3, and HTTP/2 and 1.1 over them.
    pub(crate) fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as Arc<_>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Whoever comes again needs no second signature, and we keep nothing of them in the meantime.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(Self { config: Arc::new(config), certificates, challenges: Arc::default() })
    }

    /// Answers authorities from now on. Returns the certificates, for what they issue.
    pub(crate) fn answer(&self, challenges: Challenges) -> Arc<Certificates> {
        let _ = self.challenges.set(challenges);
        Arc::clone(&self.certificates)
    }

    /// Keeps the certificates as their files are, for ever.
    pub(crate) fn watch(&self) -> impl Future<Output = ()> + use<> {
        Arc::clone(&self.certificates).watch()
    }

    /// Makes the handshake.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
                return Err(refuse_plain(stream).await);
            }
            match self.challenges.get() {
                None => TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await,
                Some(challenges) => self.accept_or_answer(stream, challenges).await,
            }
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
        tokio::time::timeout(HANDSHAKE_TIME, handshake).await.map_err(late)?
    }
}

impl Tls {
    async fn accept_or_answer(&self, stream: TcpStream, challenges: &Challenges) -> io::Result<TlsStream<TcpStream>> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let hello = start.client_hello();
        if !hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == CHALLENGE)) {
            return start.into_stream(Arc::clone(&self.config)).await;
        }
        let name = hello.server_name().unwrap_or_default().to_owned();
        let config = challenge(challenges, &name).await?;
        start.into_stream(config).await
    }
}

/// How the handshake with an authority goes that asks about a name.
async fn challenge(challenges: &Challenges, name: &str) -> io::Result<Arc<ServerConfig>> {
    let handshake = challenges.handshake(name).await.map_err(io::Error::other)?;
    let none = || io::Error::new(io::ErrorKind::NotFound, format!("no order is under way for {name:?}"));
    let handshake = handshake.ok_or_else(none)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?.with_no_client_auth();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(handshake.key));
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(io::Error::other)?;
    // Not looked into: what it says to the authority is critical, and unknown to everybody else.
    let pair = CertifiedKey::new(vec![CertificateDer::from(handshake.certificate)], key);
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![CHALLENGE.to_vec()];
    Ok(Arc::new(config))
}

async fn refuse_plain(mut stream: TcpStream) -> io::Error {
    // What was sent is read first: a socket that is closed with bytes unread takes the answer back.
    let mut unread = [0; 4096];
    let _ = stream.try_read(&mut unread);
    let _ = stream.write_all(NOT_TLS).await;
    let _ = stream.shutdown().await;
    io::Error::new(io::ErrorKind::InvalidData, "plain HTTP on a TLS listener")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(super::NOT_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
