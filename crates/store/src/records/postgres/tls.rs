//! TLS to PostgreSQL, by libpq's names: `sslmode` and `sslrootcert`.
//!
//! Two things are stricter than libpq. Certificates that are given are used, or the text is refused: nobody believes to
//! be safe who is not. And a handshake that fails is the end of it, also with `prefer`.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postgres::Config;
use postgres::config::{Host, SslMode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::text::Text;

/// What `sslrootcert` says for the authorities that this machine trusts.
const SYSTEM: &str = "system";

/// What PostgreSQL 17 calls its protocol in a handshake; older ones do not look.
const PROTOCOL: &[u8] = b"postgresql";

/// What is asked of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    /// No TLS.
    Disable,
    /// TLS if the server has it, whoever it is.
    Prefer,
    /// TLS, whoever the server is.
    Require,
    /// TLS with a server whose certificate is of one of the authorities in the file.
    VerifyCa(PathBuf),
    /// The same, and the certificate is for the host's name. Without a file, this machine's authorities count.
    VerifyFull(Option<PathBuf>),
}

impl Mode {
    fn read(mode: Option<&str>, roots: Option<&str>) -> Result<Self, String> {
        let unused = |mode: &str| {
            format!("sslrootcert needs sslmode=verify-full, or verify-ca for a file: nothing is verified with {mode}")
        };
        if roots.is_some_and(|roots| roots.contains('=')) {
            return Err("sslrootcert has no value, or one with an equals sign, which is refused".to_owned());
        }
        match (mode, roots) {
            (None, Some(_)) => Err(unused("the default, sslmode=prefer")),
            (Some(mode @ ("disable" | "prefer")), Some(_)) => Err(unused(mode)),
            (Some(mode @ ("require" | "verify-ca")), Some(SYSTEM)) => Err(unused(mode)),
            (Some("disable"), None) => Ok(Self::Disable),
            (None | Some("prefer"), None) => Ok(Self::Prefer),
            (Some("verify-full"), None | Some(SYSTEM)) => Ok(Self::VerifyFull(None)),
            (Some("verify-full"), Some(file)) => Ok(Self::VerifyFull(Some(file.into()))),
            // As with libpq, `require` verifies if it has something to go by.
            (Some("require" | "verify-ca"), Some(file)) => Ok(Self::VerifyCa(file.into())),
            (Some("require"), None) => Ok(Self::Require),
            (Some("verify-ca"), None) => {
                Err("sslmode=verify-ca needs sslrootcert, a file with the authority".to_owned())
            }
            (Some(other), _) => {
                // The rest of a text whose value is missing may be a password.
                let is_word = other.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
                let shown = if is_word { format!("sslmode {other:?}") } else { "the value of sslmode".to_owned() };
                Err(format!("{shown} is none of disable, prefer, require, verify-ca, verify-full"))
            }
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disable => f.write_str("sslmode=disable"),
            Self::Prefer => f.write_str("sslmode=prefer"),
            Self::Require => f.write_str("sslmode=require"),
            Self::VerifyCa(file) => write!(f, "sslmode=verify-ca and the authorities in {}", file.display()),
            Self::VerifyFull(Some(file)) => {
                write!(f, "sslmode=verify-full and the authorities in {}", file.display())
            }
            Self::VerifyFull(None) => f.write_str("sslmode=verify-full and the authorities that this machine trusts"),
        }
    }
}

/// How a server is reached.
pub(super) struct Target {
    pub(super) config: Config,
    tls: ClientConfig,
    mode: Mode,
}

impl Target {
    /// Reads a text. The files that it names are read each time, so that they may change.
    ///
    /// # Errors
    /// What is wrong with the text or a file, without the password.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let text = Text::read(text);
        let mut config: Config = text.rest.parse().map_err(|error: postgres::Error| super::describe(&error))?;
        let mode = Mode::read(text.mode.as_deref(), text.roots.as_deref())?;
        if config.get_hosts().is_empty() {
            // The address is the name then, and has to be in the certificate.
            for address in config.get_hostaddrs().to_vec() {
                config.host(&address.to_string());
            }
        }
        // As with libpq, there is no TLS within a machine. An address goes before a socket that is named beside it.
        let of_host = |host: &Host| matches!(host, Host::Tcp(_));
        let remote = !config.get_hostaddrs().is_empty() || config.get_hosts().iter().any(of_host);
        let mode = if remote { mode } else { Mode::Disable };
        config.ssl_mode(match mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa(_) | Mode::VerifyFull(_) => SslMode::Require,
        });
        let tls = client(&mode)?;
        Ok(Self { config, tls, mode })
    }

    pub(super) fn connect(&self) -> Result<postgres::Client, String> {
        self.config.connect(MakeRustlsConnect::new(self.tls.clone())).map_err(|error| {
            let message = super::describe(&error);
            match &self.mode {
                _ if !is_of_tls(&error) => message,
                mode @ Mode::Prefer => format!("{message}; asked for was {mode}: sslmode=disable connects without TLS"),
                mode => format!("{message}; asked for was {mode}"),
            }
        })
    }
}

/// Whether the handshake failed, and not something before or after it.
fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn client(mode: &Mode) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let unnamed = |roots| Arc::new(Unnamed { roots, provider });
    let builder = match mode {
        Mode::Disable | Mode::Prefer | Mode::Require => {
            builder.dangerous().with_custom_certificate_verifier(unnamed(None))
        }
        Mode::VerifyCa(file) => builder.dangerous().with_custom_certificate_verifier(unnamed(Some(authorities(file)?))),
        Mode::VerifyFull(Some(file)) => builder.with_root_certificates(authorities(file)?),
        Mode::VerifyFull(None) => builder.with_root_certificates(trusted()?),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

/// The authorities in a file.
fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let failed = |error: &dyn fmt::Display| format!("the certificates of sslrootcert={}: {error}", file.display());
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))?;
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    }
    if store.is_empty() { Err(failed(&"there is none in the file")) } else { Ok(store) }
}

/// The authorities that this machine trusts.
fn trusted() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Some that are old cannot be read; the server's is found among the others, or is not trusted.
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let why = found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
        return Err(format!("the certificates that this machine trusts: {why}; name a file with sslrootcert"));
    }
    Ok(store)
}

/// Takes a certificate of the authorities for whatever name, or any certificate of X.509 version 3 without authorities. In
/// either case the server has to show that it has the certificate's key.
#[derive(Debug)]
struct Unnamed {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unnamed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(mode: &str, roots: &str) -> Result<Mode, String> {
        Mode::read(Some(mode).filter(|it| !it.is_empty()), Some(roots).filter(|it| !it.is_empty()))
    }

    #[test]
    fn modes_are_those_of_libpq() {
        let file = PathBuf::from("/ca.pem");
        assert_eq!(mode("", ""), Ok(Mode::Prefer));
        assert_eq!(mode("disable", ""), Ok(Mode::Disable));
        assert_eq!(mode("prefer", ""), Ok(Mode::Prefer));
        assert_eq!(mode("require", ""), Ok(Mode::Require));
        assert_eq!(mode("require", "/ca.pem"), Ok(Mode::VerifyCa(file.clone())));
        assert_eq!(mode("verify-ca", "/ca.pem"), Ok(Mode::VerifyCa(file.clone())));
        assert_eq!(mode("verify-full", "/ca.pem"), Ok(Mode::VerifyFull(Some(file))));
        for roots in ["", "system"] {
            assert_eq!(mode("verify-full", roots), Ok(Mode::VerifyFull(None)));
        }
    }

    #[test]
    fn what_would_verify_nothing_is_refused() {
        for (given, roots) in [("", "/ca.pem"), ("prefer", "/ca.pem"), ("disable", "/ca.pem"), ("require", "system")] {
            let error = mode(given, roots).unwrap_err();
            assert!(error.contains("verify-full") && error.contains("nothing is verified"), "{given}: {error}");
        }
        assert!(mode("verify-ca", "").unwrap_err().contains("needs sslrootcert"));
        assert!(mode("allow", "").unwrap_err().contains(r#""allow" is none of disable, prefer, require"#));
    }

    #[test]
    fn there_is_tls_to_other_machines_only() {
        let ssl_mode = |text: &str| Target::read(text).map(|target| target.config.get_ssl_mode());
        assert_eq!(ssl_mode("host=/run/postgresql sslmode=require"), Ok(SslMode::Disable));
        assert_eq!(ssl_mode("host=/run/postgresql,db sslmode=require"), Ok(SslMode::Require));
        let elsewhere = "host=/run/postgresql hostaddr=10.0.0.1 sslmode=verify-ca sslrootcert";
        assert!(ssl_mode(&format!("{elsewhere}=/none")).unwrap_err().contains("/none"), "the address counts");
        assert_eq!(ssl_mode("host=/run/postgresql hostaddr=10.0.0.1 sslmode=require"), Ok(SslMode::Require));
        assert_eq!(ssl_mode("host=db"), Ok(SslMode::Prefer));
        assert_eq!(ssl_mode("postgresql://ada@db/towpath?sslmode=disable"), Ok(SslMode::Disable));
        let named = Target::read("hostaddr=127.0.0.1 sslmode=require").unwrap().config;
        assert_eq!(named.get_hosts(), [Host::Tcp("127.0.0.1".to_owned())]);
    }

    #[test]
    fn a_password_after_a_missing_value_is_not_shown() {
        for text in ["host=db sslmode= password=hunter2", "host=db sslmode=verify-full sslrootcert= password=hunter2"] {
            let error = Target::read(text).err().unwrap();
            assert!(error.contains("ssl") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let read =
            || Target::read(&format!("host=db password=hunter2 sslmode=verify-full sslrootcert={}", file.display()));
        let error = read().err().unwrap();
        assert!(error.contains("ca.pem") && error.contains("No such file"), "{error}");
        std::fs::write(&file, "nothing\n").unwrap();
        let error = read().err().unwrap();
        assert!(error.contains("ca.pem") && error.contains("there is none"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
