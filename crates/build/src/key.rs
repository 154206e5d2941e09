//! Keys of steps: what a step's result depends on, in 32 bytes.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The key of a step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key([u8; 32]);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A key in the making. Every field goes in with its length, so that no two lists of fields are the same bytes.
#[derive(Clone)]
pub(crate) struct KeyHasher(Sha256);

impl KeyHasher {
    /// For a key of a certain kind.
    pub fn new(kind: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.field(crate::BUILDER_VERSION);
        hasher.field(kind);
        hasher
    }

    /// Adds a field.
    pub fn field(&mut self, field: impl AsRef<[u8]>) -> &mut Self {
        let bytes = field.as_ref();
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.field(number.to_be_bytes())
    }

    /// Adds a key.
    pub fn key(&mut self, key: &Key) -> &mut Self {
        self.field(key.0)
    }

    /// The key.
    pub fn finish(&self) -> Key {
        Key(self.0.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = |fields: &[&str]| {
            fields.iter().fold(KeyHasher::new("test"), |mut hasher, field| {
                hasher.field(field);
                hasher
            })
        };
        assert_ne!(key(&["ab", "c"]).finish(), key(&["a", "bc"]).finish());
        assert_ne!(key(&["ab"]).finish(), key(&["ab", ""]).finish());
        assert_eq!(key(&["ab", "c"]).finish(), key(&["ab", "c"]).finish());
    }
}
