//! The sealed secret store's cipher: XChaCha20-Poly1305 under a key that lies beside the data.
//!
//! A sealed text is `v1:` and base64 of a random 24-byte nonce and the ciphertext. The context (whose secret, which
//! name) is authenticated with it, so a sealed value that is moved to another row does not open.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Seals and opens values.
#[derive(Clone)]
pub struct Sealer {
    cipher: XChaCha20Poly1305,
}

/// Why a value cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be made or read.
    #[error("the key of the sealed secrets cannot be used: {path}: {error}")]
    Key {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The text was not sealed with this key for this context, or was changed.
    #[error("the sealed secret of {0} does not open with this server's key")]
    DoesNotOpen(String),
}

impl Sealer {
    /// Opens the key at `path`, or makes one (32 random bytes, mode 0600, on disk before it is used).
    ///
    /// # Errors
    /// When the file cannot be read or written, is not 32 bytes, or others may read it.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let fail = |error| SealError::Key { path: path.display().to_string(), error };
        let key = match fs::read(path) {
            Ok(key) => Zeroizing::new(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(path).map_err(fail)?,
            Err(error) => return Err(fail(error)),
        };
        let mode = fs::metadata(path).map_err(fail)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(fail(io::Error::other(format!("its mode is {:o}; others may read it", mode & 0o777))));
        }
        let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| fail(io::Error::other("not 32 bytes")))?;
        Ok(Self { cipher })
    }

    /// Seals `value` for `context`.
    ///
    /// # Errors
    /// Never for values of a size that fits in memory; the cipher's own limit is 256 GiB.
    pub fn seal(&self, context: &str, value: &[u8]) -> Result<String, SealError> {
        let nonce: [u8; 24] = rand::random();
        let payload = Payload { msg: value, aad: context.as_bytes() };
        let sealed = self
            .cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| SealError::DoesNotOpen(context.to_owned()))?;
        Ok(format!("v1:{}", STANDARD_NO_PAD.encode([nonce.as_slice(), &sealed].concat())))
    }

    /// Opens what was sealed for `context`.
    ///
    /// # Errors
    /// When it was sealed with another key, for another context, or was changed.
    pub fn open_sealed(&self, context: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let fail = || SealError::DoesNotOpen(context.to_owned());
        let bytes = sealed.strip_prefix("v1:").and_then(|text| STANDARD_NO_PAD.decode(text).ok()).ok_or_else(fail)?;
        let (nonce, text) = bytes.split_at_checked(24).ok_or_else(fail)?;
        let payload = Payload { msg: text, aad: context.as_bytes() };
        self.cipher.decrypt(XNonce::from_slice(nonce), payload).map(Zeroizing::new).map_err(|_| fail())
    }
}

/// What is shown of a secret: the first 8 hexadecimal digits of the SHA-256 of context and value.
pub fn fingerprint(context: &str, value: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update((context.len() as u64).to_be_bytes());
    hash.update(context.as_bytes());
    hash.update(value);
    hex::encode(&hash.finalize()[..4])
}

fn make_key(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let key: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.as_slice())?;
    file.sync_all()?;
    if let Some(parent) = path.parent() {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(Zeroizing::new(key.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_its_key_and_context() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(&dir.path().join("key")).unwrap();
        let sealed = sealer.seal("demo/site TOKEN", b"value").unwrap();
        assert_eq!(sealer.open_sealed("demo/site TOKEN", &sealed).unwrap().as_slice(), b"value");
        assert!(sealer.open_sealed("demo/other TOKEN", &sealed).is_err());
        let again = Sealer::open(&dir.path().join("key")).unwrap();
        assert!(again.open_sealed("demo/site TOKEN", &sealed).is_ok());
        let other = Sealer::open(&dir.path().join("other")).unwrap();
        assert!(other.open_sealed("demo/site TOKEN", &sealed).is_err());
        assert!(sealer.open_sealed("demo/site TOKEN", "v1:AAAA").is_err());
    }

    #[test]
    fn refuses_a_key_that_others_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        Sealer::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Sealer::open(&path).is_err());
    }
}
