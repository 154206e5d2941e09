//! Texts that must not show.

use std::fmt;

use rand::RngExt;
use rand::distr::Alphanumeric;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

/// What a user's token begins with.
pub(crate) const TOKEN: &str = "twp_";
/// What a robot's token begins with.
pub(crate) const ROBOT_TOKEN: &str = "twr_";
/// What a job's token begins with.
pub(crate) const JOB_TOKEN: &str = "twj_";

/// Base62 digits of a token: 238 bits.
const LENGTH: usize = 40;

/// A token or password. Prints as `…`, is wiped when dropped, and is compared nowhere.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A new one: `prefix` and 40 base62 digits from the system's generator.
    pub(crate) fn generate(prefix: &str) -> Self {
        let mut text = String::with_capacity(prefix.len() + LENGTH);
        text.push_str(prefix);
        text.extend(rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from));
        Self(text)
    }

    /// What is stored of it. No salt or stretching: it is random, not chosen by a person.
    pub(crate) fn hash(&self) -> Hash {
        let hash: [u8; 32] = Sha256::digest(self.0.as_bytes()).into();
        Hash(hash)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The SHA-256 of a secret.
pub(crate) struct Hash([u8; 32]);

impl Hash {
    /// What rows are found by. Its timing tells an attacker 64 bits of a hash, which lead to no secret.
    pub(crate) fn lookup(&self) -> i64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        i64::from_be_bytes(first)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// In constant time.
    pub(crate) fn is(&self, stored: &[u8]) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_slice().ct_eq(stored).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_long_random_and_hidden() {
        let (one, two) = (Secret::generate(TOKEN), Secret::generate(TOKEN));
        assert_eq!(one.expose().len(), 44);
        assert!(one.expose()[4..].bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(one.expose(), two.expose());
        assert_eq!(format!("{one:?}"), "…");
        assert!(one.hash().is(&one.hash().bytes()) && !one.hash().is(&two.hash().bytes()));
        assert!(!one.hash().is(&[]));
    }
}
