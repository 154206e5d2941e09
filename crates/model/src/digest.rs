//! Content digests as OCI spells them: `algorithm:hex`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The hash functions of the OCI image specification that Towpath accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 32 bytes: what nearly every client sends.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of the hash in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// The digest of a blob: bytes with their algorithm, never a string.
///
/// Text form, by the OCI image specification: `sha256:` and 64, or `sha512:` and 128, lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 64],
}

impl Digest {
    /// A SHA-256 digest from its 32 bytes.
    pub fn sha256(hash: [u8; 32]) -> Self {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&hash);
        Self { algorithm: Algorithm::Sha256, bytes }
    }

    /// A SHA-512 digest from its 64 bytes.
    pub const fn sha512(hash: [u8; 64]) -> Self {
        Self { algorithm: Algorithm::Sha512, bytes: hash }
    }

    /// The hash function.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash itself, as long as its algorithm says.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.size()]
    }

    /// The hash as lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon.
    #[error("digest {0:?} has no algorithm: expected sha256:… or sha512:…")]
    NoAlgorithm(String),
    /// The algorithm is not one of [`Algorithm`].
    #[error("digest algorithm {0:?} is not supported: expected sha256 or sha512")]
    UnknownAlgorithm(String),
    /// The hash is not the right number of lower-case hexadecimal digits.
    #[error("digest {0:?} needs exactly {1} lower-case hexadecimal digits")]
    BadHex(String, usize),
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, digits) = text.split_once(':').ok_or_else(|| DigestError::NoAlgorithm(clip(text)))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::UnknownAlgorithm(clip(name))),
        };
        let bad = || DigestError::BadHex(clip(text), algorithm.size() * 2);
        if digits.len() != algorithm.size() * 2 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut bytes = [0; 64];
        hex::decode_to_slice(digits, &mut bytes[..algorithm.size()]).map_err(|_| bad())?;
        Ok(Self { algorithm, bytes })
    }
}

/// At most 80 characters of what a stranger sent, for an error message.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_not_a_digest() {
        for bad in ["", "sha256", "sha256:", "md5:00", "SHA256:00", "sha256:../../etc/passwd"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        let upper = format!("sha256:{}", "A".repeat(64));
        assert_eq!(upper.parse::<Digest>(), Err(DigestError::BadHex(upper.clone(), 64)));
    }

    proptest! {
        #[test]
        fn text_and_back(hash in any::<[u8; 32]>()) {
            let digest = Digest::sha256(hash);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = text.parse::<Digest>();
        }
    }
}
