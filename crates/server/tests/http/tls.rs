//! TLS of the server's own: certificates by name, changed while it runs, and files that cannot be used.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{CertificateFiles, Listener, ServerSpec, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use server::{Running, ServeOptions};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::raw;

/// An authority, the files of certificates that it gave out, and a server's data.
struct Setup {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Setup {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), issuer }
    }

    /// Writes a new certificate for a name, as far as `parts` says.
    fn issue(&self, name: &str, parts: &[&str]) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let files = CertificateFiles { certificate: self.path(name, "pem").into(), key: self.path(name, "key").into() };
        for (part, text) in [("pem", certificate.pem()), ("key", key.serialize_pem())] {
            if parts.contains(&part) {
                std::fs::write(self.path(name, part), text).unwrap();
            }
        }
        files
    }

    fn path(&self, name: &str, part: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.{part}"))
    }

    async fn start(&self, tls: Tls) -> Result<Running, String> {
        let listener = Listener {
            address: ([127, 0, 0, 1], 0).into(),
            hosts: vec!["a.example".into(), "b.example".into()],
            tls: Some(tls),
            ..Listener::default()
        };
        let spec = ServerSpec { listeners: vec![listener], ..ServerSpec::default() };
        let data = self.dir.path().join("data");
        Box::pin(server::start(ServeOptions { data, spec })).await.map_err(|error| error.to_string())
    }

    fn client(&self, address: SocketAddr) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(self.issuer.pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
        client.resolve("a.example", address).resolve("b.example", address).build().unwrap()
    }

    /// Makes a handshake that asks for a name.
    async fn connect(&self, address: SocketAddr, name: &str, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.issuer.pem().as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
    }

    /// The certificate that the server shows for a name.
    async fn shown(&self, address: SocketAddr, name: &str) -> Vec<u8> {
        let stream = self.connect(address, name, b"http/1.1").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

fn tls(first: CertificateFiles, more: Vec<CertificateFiles>) -> Tls {
    Tls { certificate: Some(first.certificate), key: Some(first.key), more, acme: None }
}

fn der(file: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(file).unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_name_has_its_certificate_and_its_origin() {
    let setup = Setup::new();
    let first = setup.issue("a.example", &["pem", "key"]);
    let second = setup.issue("b.example", &["pem", "key"]);
    let running = setup.start(tls(first, vec![second])).await.unwrap();
    let address = running.addresses[0];
    assert_eq!(running.urls, [format!("https://a.example:{}", address.port())]);
    let client = setup.client(address);
    for name in ["a.example", "b.example"] {
        let own = format!("https://{name}:{}", address.port());
        // Nobody here is a trusted proxy.
        let asked = client.get(format!("{own}/v2/")).header("x-forwarded-proto", "http").send().await.unwrap();
        assert_eq!(asked.status(), 401);
        let challenge = asked.headers()["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains(&format!("realm=\"{own}/towpath/v1/registry/token\"")), "{challenge}");
        assert_eq!(setup.shown(address, name).await, der(&setup.path(name, "pem")));
    }
    let misdirected = client.get(format!("https://a.example:{}/livez", address.port())).header("host", "c.example");
    assert_eq!(misdirected.send().await.unwrap().status(), 421);
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let stream = setup.connect(address, "a.example", protocol).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    }
    assert!(setup.connect(address, "c.example", b"h2").await.is_err(), "nobody vouches for this name");
    let plain = raw(&address.to_string(), b"GET /livez HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 400 ") && plain.ends_with("use https:// here"), "{plain}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let setup = Setup::new();
    let files = setup.issue("a.example", &["pem", "key"]);
    let path = setup.path("a.example", "pem");
    let running = setup.start(tls(files, Vec::new())).await.unwrap();
    let address = running.addresses[0];
    let old = der(&path);
    // One after the other: in between, the two do not belong together.
    setup.issue("a.example", &["pem"]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(setup.shown(address, "a.example").await, old);
    setup.issue("a.example", &["pem", "key"]);
    let new = der(&path);
    let until = Instant::now() + Duration::from_secs(60);
    while setup.shown(address, "a.example").await != new {
        assert!(Instant::now() < until, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    std::fs::write(&path, "half of a file").unwrap();
    // A third certificate after the broken file shows that the server has seen it and gone on with the second.
    assert_eq!(setup.shown(address, "a.example").await, new);
    setup.issue("a.example", &["pem", "key"]);
    let third = der(&path);
    loop {
        let shown = setup.shown(address, "a.example").await;
        if shown == third {
            break;
        }
        assert_eq!(shown, new);
        assert!(Instant::now() < until, "the third certificate is not used");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_end_the_start() {
    let setup = Setup::new();
    let good = setup.issue("a.example", &["pem", "key"]);
    let other = setup.issue("b.example", &["pem", "key"]);
    let absent =
        CertificateFiles { certificate: setup.path("none", "pem").into(), key: setup.path("none", "key").into() };
    let mixed = CertificateFiles { certificate: good.certificate.clone(), key: other.key.clone() };
    let swapped = CertificateFiles { certificate: good.key.clone(), key: good.certificate.clone() };
    for (files, said) in [
        (absent, "none.pem: No such file"),
        (mixed, "b.example.key does not belong to certificate"),
        (swapped, "a.example.key: holds no certificate in PEM"),
    ] {
        let Err(error) = setup.start(tls(good.clone(), vec![files])).await else { panic!("{said}") };
        assert!(error.starts_with("spec.listeners[0].tls: ") && error.contains(said), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(!setup.dir.path().join("data").exists(), "nothing is left behind");
    }
}
