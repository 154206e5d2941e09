//! Certificates from pebble, the authority that Let's Encrypt keeps for tests.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "registry/go.rs"]
#[allow(dead_code)]
mod go;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use e2e::{Daemon, Program, free_port, program};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

const NAME: &str = "registry.towpath.test";

/// How long an order may take.
const PATIENCE: Duration = Duration::from_secs(120);

struct Setup {
    dir: tempfile::TempDir,
    /// Of the server, with TLS and without.
    tls: u16,
    plain: u16,
    /// Of the authority, for orders and for who looks after it.
    authority: u16,
    management: u16,
    /// Keeps the ports ours.
    _ports: Vec<std::fs::File>,
    pebble: Option<Daemon>,
    _names: Daemon,
}

impl Setup {
    /// An authority whose certificates last `seconds`; nothing if it cannot be built.
    fn start(seconds: u64) -> Option<Self> {
        static BUILT: OnceLock<Option<(PathBuf, PathBuf)>> = OnceLock::new();
        let (pebble, names) = BUILT.get_or_init(go::pebble).as_ref()?;
        let dir = tempfile::tempdir().unwrap();
        let (ports, locks): (Vec<u16>, Vec<_>) = (0..6).map(|_| free_port()).unzip();
        let [tls, plain, authority, management, dns, names_management] = ports[..] else { unreachable!() };
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("authority.pem"), certificate.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(path("authority.key"), key.serialize_pem()).unwrap();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{authority}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": path("authority.pem"),
            "privateKey": path("authority.key"),
            "httpPort": plain,
            "tlsPort": tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "retryAfter": { "authz": 1, "order": 1 },
            "keyAlgorithm": "ecdsa",
            "profiles": { "default": { "description": "for tests", "validityPeriod": seconds } },
        }});
        std::fs::write(path("pebble.json"), config.to_string()).unwrap();
        let mut command = Command::new(names);
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv6", ""]);
        command.args(["-dnsserver", &format!("127.0.0.1:{dns}"), "-management", &format!(":{names_management}")]);
        let mut names = Daemon::start(command, &path("names.log"));
        assert!(names.serves(|| listens(names_management)), "{}", names.said());
        let mut command = Command::new(pebble);
        command.arg("-config").arg(path("pebble.json")).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "20");
        let mut pebble = Daemon::start(command, &path("pebble.log"));
        assert!(pebble.serves(|| listens(authority) && listens(management)), "{}", pebble.said());
        Some(Self { dir, tls, plain, authority, management, _ports: locks, pebble: Some(pebble), _names: names })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The server, which answers without TLS at once.
    fn serve(&self, directory: &str, challenge: &str) -> Daemon {
        let (tls, plain, ca) = (self.tls, self.plain, self.path("authority.pem"));
        let text = format!(
            "apiVersion: towpath.dev/v1alpha1
kind: Towpath
spec:
  listeners:
    - address: 127.0.0.1:{plain}
    - address: 127.0.0.1:{tls}
      hosts: [{NAME}]
      tls:
        acme:
          directory: {directory}
          domains: [{NAME}]
          contact: ['mailto:ops@towpath.test']
          ca: {}
          challenge: {challenge}
  registry: {{}}
",
            ca.display()
        );
        std::fs::write(self.path("towpath.yaml"), text).unwrap();
        let mut command = Command::new(program(Program::Debug));
        command.args(["registry", "serve", "--config"]).arg(self.path("towpath.yaml"));
        command.arg("--data").arg(self.path("data")).env_remove("TOWPATH_DATA").env("TOWPATH_LOG", "info");
        let mut server = Daemon::start(command, &self.path("towpath.log"));
        assert!(server.serves(|| listens(self.plain)), "{}", server.said());
        server
    }

    fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.authority)
    }

    /// What the authority signs with.
    async fn roots(&self) -> RootCertStore {
        let own = std::fs::read(self.path("authority.pem")).unwrap();
        let own = reqwest::Certificate::from_pem(&own).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([own]).build().unwrap();
        let root = client.get(format!("https://127.0.0.1:{}/roots/0", self.management)).send().await.unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&root.bytes().await.unwrap()).unwrap()).unwrap();
        roots
    }

    /// The certificate that the server shows, if it is the authority's and made out to the name.
    async fn shown(&self, roots: &RootCertStore) -> std::io::Result<Vec<u8>> {
        let config = ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
        let address = SocketAddr::from(([127, 0, 0, 1], self.tls));
        let name = ServerName::try_from(NAME).unwrap();
        let stream = tokio::net::TcpStream::connect(address).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    }

    async fn issued(&self, roots: &RootCertStore, server: &Daemon) -> Vec<u8> {
        let begun = Instant::now();
        loop {
            match self.shown(roots).await {
                Ok(certificate) => return certificate,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}\n{}", server.said()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn holds(dir: &Path, text: &str) -> bool {
    std::fs::read_to_string(dir).is_ok_and(|said| said.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_issued_over_tls_and_kept_over_a_restart() {
    let Some(mut setup) = Setup::start(7_776_000) else { return };
    let roots = setup.roots().await;
    let server = setup.serve(&setup.directory(), "tls-alpn-01");
    // While the order is under way, others are answered.
    let alive = reqwest::get(format!("http://127.0.0.1:{}/livez", setup.plain)).await.unwrap();
    assert_eq!(alive.status(), 200);
    let begun = Instant::now();
    let first = setup.issued(&roots, &server).await;
    eprintln!("a certificate was there after {:?}", begun.elapsed());
    drop(server);
    // Nobody is there who could issue another.
    setup.pebble = None;
    let server = setup.serve(&setup.directory(), "tls-alpn-01");
    assert_eq!(setup.issued(&roots, &server).await, first);
    assert!(!server.said().contains("ordering a certificate"), "{}", server.said());
    let database = std::fs::metadata(setup.path("data")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&database.permissions()) & 0o077, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_lived_certificate_is_renewed_over_http_while_it_serves() {
    let Some(setup) = Setup::start(36) else { return };
    let roots = setup.roots().await;
    let server = setup.serve(&setup.directory(), "http-01");
    let mut seen = vec![setup.issued(&roots, &server).await];
    let begun = Instant::now();
    while seen.len() < 3 {
        // There is one at any time, and it has not ended.
        let shown = setup.shown(&roots).await.unwrap_or_else(|error| panic!("{error}\n{}", server.said()));
        if !seen.contains(&shown) {
            seen.push(shown);
        }
        assert!(begun.elapsed() < PATIENCE, "{}", server.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_and_holds_nobody_up() {
    let Some(setup) = Setup::start(7_776_000) else { return };
    let log = setup.path("towpath.log");
    let cases = [
        (format!("https://127.0.0.1:{}/nonsense", setup.authority), "is not the directory of an ACME authority"),
        (format!("https://127.0.0.1:{}/dir", free_port().0), "Connection refused"),
    ];
    for (directory, said) in cases {
        let server = setup.serve(&directory, "tls-alpn-01");
        let begun = Instant::now();
        while !holds(&log, said) {
            assert!(begun.elapsed() < PATIENCE, "{}", server.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(server.said().contains(&directory) && server.said().contains(NAME), "{}", server.said());
        let alive = reqwest::get(format!("http://127.0.0.1:{}/livez", setup.plain)).await.unwrap();
        assert_eq!(alive.status(), 200);
    }
}
