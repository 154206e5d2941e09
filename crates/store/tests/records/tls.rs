//! TLS to a server, as its connection text asks for it.

use std::path::PathBuf;
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use store::{Location, Records, RecordsError};

use crate::postgresql_cluster::{Listening, PASSWORD, listening};

/// The name in the server's certificate.
const NAME: &str = "db.example.org";

/// A server with TLS.
struct Server {
    listening: Listening,
    dir: tempfile::TempDir,
}

impl Server {
    /// The one of all tests; nothing after saying what is missing.
    fn get() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        SERVER.get_or_init(Self::start).as_ref()
    }

    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (issuer, stranger) = (authority("Authority"), authority("Stranger"));
        std::fs::write(dir.path().join("authority.pem"), issuer.pem()).unwrap();
        std::fs::write(dir.path().join("stranger.pem"), stranger.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let listening = listening(Some((&certificate.pem(), &key.serialize_pem())))?;
        Some(Self { listening, dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whether a connection with what `words` add has TLS.
    async fn has_tls(&self, words: &str) -> Result<bool, String> {
        has_tls(self.listening.port, words).await
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

async fn has_tls(port: u16, words: &str) -> Result<bool, String> {
    let text = format!("hostaddr=127.0.0.1 port={port} user=towpath password={PASSWORD} dbname=postgres {words}");
    let asked = async {
        let records = Records::open(Location::Postgres(text)).await?;
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let row = records.read(move |tx| tx.query_first(sql, &[])).await?;
        Ok(row.unwrap().get::<i64>(0)? == 1)
    };
    asked.await.map_err(|error: RecordsError| {
        let message = error.to_string();
        assert!(!message.contains(PASSWORD), "{message}");
        message
    })
}

#[tokio::test]
async fn a_server_of_the_right_name_and_authority_is_connected_to() {
    let Some(server) = Server::get() else { return };
    let roots = server.file("authority.pem");
    let words = format!("host={NAME} sslmode=verify-full sslrootcert={}", roots.display());
    assert_eq!(server.has_tls(&words).await, Ok(true));
    // The password's proof is bound to the certificate, which nobody in between has.
    assert_eq!(server.has_tls(&format!("{words} channel_binding=require")).await, Ok(true));
    let port = server.listening.port;
    let url = format!(
        "postgresql://towpath:{PASSWORD}@{NAME}:{port}/postgres?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={}",
        roots.display()
    );
    Records::open(Location::Postgres(url)).await.unwrap();
}

#[tokio::test]
async fn a_server_of_another_name_is_refused_unless_the_authority_is_enough() {
    let Some(server) = Server::get() else { return };
    let roots = server.file("authority.pem");
    let words = |host: &str, mode: &str| format!("{host} sslmode={mode} sslrootcert={}", roots.display());
    for (host, name) in [("host=other.example.org", "other.example.org"), ("", "127.0.0.1")] {
        let error = server.has_tls(&words(host, "verify-full")).await.unwrap_err();
        assert!(error.contains("certificate not valid for name") && error.contains(name), "{error}");
        assert!(error.contains(NAME), "the names that it is valid for: {error}");
        assert_eq!(server.has_tls(&words(host, "verify-ca")).await, Ok(true), "{host}");
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let Some(server) = Server::get() else { return };
    let stranger = server.file("stranger.pem");
    for mode in ["verify-full", "verify-ca", "require"] {
        let words = format!("host={NAME} sslmode={mode} sslrootcert={}", stranger.display());
        let error = server.has_tls(&words).await.unwrap_err();
        assert!(error.contains("UnknownIssuer") && error.contains("stranger.pem"), "{mode}: {error}");
    }
    let error = server.has_tls(&format!("host={NAME} sslmode=verify-full")).await.unwrap_err();
    assert!(error.contains("this machine trusts"), "{error}");
}

#[tokio::test]
async fn without_an_authority_tls_is_what_the_server_has() {
    let Some(server) = Server::get() else { return };
    for words in ["", "sslmode=prefer", "sslmode=require", "host=other.example.org sslmode=require"] {
        assert_eq!(server.has_tls(words).await, Ok(true), "{words}");
    }
    assert_eq!(server.has_tls("sslmode=disable").await, Ok(false));
    let Some(plain) = listening(None) else { return };
    for words in ["", "sslmode=prefer", "sslmode=disable"] {
        assert_eq!(has_tls(plain.port, words).await, Ok(false), "{words}");
    }
    let verify = format!("sslmode=verify-full sslrootcert={}", server.file("authority.pem").display());
    for words in ["sslmode=require", &verify] {
        let error = has_tls(plain.port, words).await.unwrap_err();
        assert!(error.contains("server does not support TLS"), "{words}: {error}");
    }
}
