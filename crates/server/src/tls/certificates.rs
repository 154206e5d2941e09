//! The certificates of a listener: found by name, read again when their files change.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use config::CertificateFiles;
use model::Timestamp;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::pair::{self, CertificateError, Stamp};

/// How often it is looked whether files have changed.
const LOOK: Duration = Duration::from_secs(2);

/// How long before its end a certificate is warned of.
const ENDS_SOON_MILLIS: i64 = 14 * 24 * 3600 * 1000;

/// The certificates of a listener, in the order in which they are looked through.
pub(crate) struct Certificates {
    slots: Vec<Slot>,
    /// What an authority issued; after those from files.
    issued: RwLock<Option<Arc<CertifiedKey>>>,
}

/// A pair of files and what was last read from them.
struct Slot {
    files: CertificateFiles,
    pair: RwLock<Arc<CertifiedKey>>,
    stamp: RwLock<Option<Stamp>>,
}

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(crate) fn read(files: Vec<CertificateFiles>) -> Result<Self, CertificateError> {
        let slot = |files: CertificateFiles| {
            // Taken before the files are read: what changes meanwhile is read again.
            let stamp = Stamp::of(&files);
            let pair = pair::read(&files)?;
            warn_of_end(&files, &pair);
            Ok(Slot { files, pair: RwLock::new(pair), stamp: RwLock::new(stamp) })
        };
        Ok(Self { slots: files.into_iter().map(slot).collect::<Result<_, _>>()?, issued: RwLock::new(None) })
    }

    /// Serves what an authority issued, in PEM.
    ///
    /// # Errors
    /// When it is no certificate, or the key is another's; what was there before stays then.
    pub(crate) fn put_issued(&self, chain: &str, key: &str) -> Result<(), String> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.map_err(|error| error.to_string())?;
        // Nothing of a key is shown.
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "its key cannot be read".to_owned())?;
        let pair = pair::certified(chain, key).map_err(|error| error.to_string())?;
        *self.issued.write().unwrap_or_else(PoisonError::into_inner) = Some(pair);
        Ok(())
    }

    /// Reads again what has changed, for ever. What cannot be used is logged, and the certificate before it stays.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let all = Arc::clone(&self);
            // A file may lie on a slow file system.
            let _ = tokio::task::spawn_blocking(move || all.slots.iter().for_each(Slot::refresh)).await;
        }
    }

    fn find(&self, name: Option<&str>, fits: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner).clone();
        let pairs = || self.slots.iter().map(Slot::pair).chain(issued.clone());
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let covers = |pair: &CertifiedKey| name.as_ref().is_some_and(|name| covers(pair, name));
        // A client that asks for a name of nobody's learns from the first certificate whom it reached.
        pairs().find(|pair| covers(pair) && fits(pair)).or_else(|| pairs().find(|pair| fits(pair)))
    }
}

impl Slot {
    fn pair(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.pair.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn refresh(&self) {
        let stamp = Stamp::of(&self.files);
        if *self.stamp.read().unwrap_or_else(PoisonError::into_inner) == stamp {
            return;
        }
        // Said once for each change; the next one may be the file that is still missing.
        *self.stamp.write().unwrap_or_else(PoisonError::into_inner) = stamp;
        match pair::read(&self.files).and_then(|pair| unexpired(&self.files, pair)) {
            Ok(pair) => {
                warn_of_end(&self.files, &pair);
                *self.pair.write().unwrap_or_else(PoisonError::into_inner) = pair;
                let certificate = self.files.certificate.path().display();
                tracing::info!(%certificate, "a certificate has changed and is used from now on");
            }
            Err(error) => tracing::error!(%error, "a changed certificate cannot be used; the one before it stays"),
        }
    }
}

/// A certificate that takes the place of another must be better than that.
fn unexpired(files: &CertificateFiles, pair: Arc<CertifiedKey>) -> Result<Arc<CertifiedKey>, CertificateError> {
    match pair::validity(&pair) {
        Some((_, end)) if end < now() => {
            let path = files.certificate.path().to_owned();
            Err(CertificateError::Expired { path, ended: Timestamp(end).to_string() })
        }
        _ => Ok(pair),
    }
}

fn warn_of_end(files: &CertificateFiles, pair: &CertifiedKey) {
    let end = pair::validity(pair).map_or(i64::MAX, |(_, end)| end);
    if end < now().saturating_add(ENDS_SOON_MILLIS) {
        let certificate = files.certificate.path().display();
        tracing::warn!(%certificate, ends = %Timestamp(end), "a certificate ends soon, or has ended");
    }
}

fn now() -> i64 {
    Timestamp::from(std::time::SystemTime::now()).0
}

/// Whether a certificate is made out to a name.
fn covers(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = pair.cert.first().and_then(|der| ParsedCertificate::try_from(der).ok());
    parsed.is_some_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name(), |pair| pair.key.choose_scheme(hello.signature_schemes()).is_some())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| &slot.files)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn write(dir: &Path, file: &str, names: &[&str]) -> CertificateFiles {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let files = CertificateFiles {
            certificate: dir.join(format!("{file}.pem")).into(),
            key: dir.join(format!("{file}.key")).into(),
        };
        std::fs::write(files.certificate.path(), certificate.pem()).unwrap();
        std::fs::write(files.key.path(), key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_name_finds_its_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let files = vec![
            write(dir.path(), "a", &["a.example"]),
            write(dir.path(), "b", &["b.example", "*.c.example"]),
            write(dir.path(), "d", &["d.example", "x.c.example"]),
        ];
        let all = Certificates::read(files).unwrap();
        let found = |name: Option<&str>| {
            let found = all.find(name, |_| true).unwrap();
            all.slots.iter().position(|slot| Arc::ptr_eq(&slot.pair(), &found)).unwrap()
        };
        assert_eq!(found(Some("a.example")), 0);
        assert_eq!(found(Some("b.example")), 1);
        assert_eq!(found(Some("x.c.example")), 1, "the first that fits");
        assert_eq!(found(Some("d.example")), 2);
        assert_eq!(found(Some("nobody.example")), 0);
        assert_eq!(found(None), 0);
    }

    #[test]
    fn a_broken_pair_is_refused_by_name_and_the_old_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let files = write(dir.path(), "a", &["a.example"]);
        let all = Certificates::read(vec![files.clone()]).unwrap();
        let first = all.slots[0].pair();
        let refresh = || {
            all.slots[0].refresh();
            all.slots[0].pair()
        };
        assert!(Arc::ptr_eq(&first, &refresh()));
        let other = write(dir.path(), "b", &["a.example"]);
        std::fs::copy(other.certificate.path(), files.certificate.path()).unwrap();
        assert!(Arc::ptr_eq(&first, &refresh()), "a certificate without its key");
        let error = Certificates::read(vec![files.clone()]).unwrap_err().to_string();
        assert!(error.contains("does not belong to") && !error.contains('\n'), "{error}");
        std::fs::copy(other.key.path(), files.key.path()).unwrap();
        let second = refresh();
        assert!(!Arc::ptr_eq(&first, &second));
        for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "hunter2"] {
            std::fs::write(files.certificate.path(), broken).unwrap();
            assert!(Arc::ptr_eq(&second, &refresh()), "{broken}");
            let error = Certificates::read(vec![files.clone()]).unwrap_err().to_string();
            assert!(error.contains("a.pem") && !error.contains("hunter2") && !error.contains('\n'), "{error}");
        }
        std::fs::remove_file(files.key.path()).unwrap();
        assert!(Arc::ptr_eq(&second, &refresh()));
    }
}
