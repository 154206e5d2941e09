//! A certificate and its key, read from two files.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::CertificateFiles;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Bytes of a file with a certificate or key.
const LONGEST_FILE: u64 = 1 << 20;

/// Bits of a key file's mode that let others than its owner and group read it, or others than its owner write it.
const TOO_OPEN: u32 = 0o037;

/// Why a certificate cannot be used. One line.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{what} {}: {error}", path.display())]
    Read {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{what} {}: {reason}", path.display())]
    Content {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("key {} does not belong to certificate {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate cannot be used now.
    #[error("certificate {} is not valid any more: it ended at {ended}", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When it ended.
        ended: String,
    },
}

/// What tells a file that was written or replaced from the same one as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([(u64, i64, i64, i64, u64); 2]);

impl Stamp {
    /// The two files as they are now; nothing while one is missing.
    pub(super) fn of(files: &CertificateFiles) -> Option<Self> {
        let of = |path: &Path| std::fs::metadata(path).ok().map(|data| Self::one(&data));
        Some(Self([of(files.certificate.path())?, of(files.key.path())?]))
    }

    fn one(data: &Metadata) -> (u64, i64, i64, i64, u64) {
        (data.ino(), data.mtime(), data.mtime_nsec(), data.ctime_nsec(), data.size())
    }
}

/// Reads both files, which must match.
pub(super) fn read(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, CertificateError> {
    let (path, key_path) = (files.certificate.path(), files.key.path());
    let content = |what, path: &Path, reason: String| CertificateError::Content { what, path: path.into(), reason };
    let text = bytes("certificate", path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| content("certificate", path, format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(content("certificate", path, "holds no certificate in PEM".into()));
    }
    let text = bytes("key", key_path)?;
    // Nothing of a key's file is shown.
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        content("key", key_path, "holds no private key in PEM; one with a passphrase cannot be read".into())
    })?;
    let pair = certified(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            CertificateError::Mismatch { certificate: path.into(), key: key_path.into() }
        }
        error => content("certificate", path, error.to_string()),
    })?;
    warn_of_mode(key_path);
    Ok(pair)
}

/// A chain with its key, if they belong together.
pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, rustls::Error> {
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map(Arc::new)
}

fn bytes(what: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |error| CertificateError::Read { what, path: path.into(), error };
    let data = std::fs::metadata(path).map_err(failed)?;
    if !data.is_file() || data.len() > LONGEST_FILE {
        let reason = "is not a file of at most 1 MiB".into();
        return Err(CertificateError::Content { what, path: path.into(), reason });
    }
    std::fs::read(path).map_err(failed)
}

fn warn_of_mode(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |data| data.mode());
    if mode & TOO_OPEN != 0 {
        let mode = format!("{:03o}", mode & 0o777);
        tracing::warn!(key = %path.display(), mode, "others may read or write this private key; chmod it to 600");
    }
}

/// Milliseconds since 1970 between which a certificate is valid; nothing if it cannot be read.
pub(super) fn validity(pair: &CertifiedKey) -> Option<(i64, i64)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(pair.cert.first()?).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp() * 1000, validity.not_after.timestamp() * 1000))
}
