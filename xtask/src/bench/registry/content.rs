//! Bytes to push: cheap to make, never the same twice, and known by their digest before they are sent.

use sha2::{Digest, Sha256};

/// How much is made and sent at a time.
pub(super) const BLOCK: usize = 1 << 20;

/// Bytes that follow from a seed.
#[derive(Clone)]
pub(super) struct Content {
    size: u64,
    seed: u64,
    block: Vec<u8>,
}

impl Content {
    pub(super) fn new(size: u64, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut block = vec![0; BLOCK];
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        Self { size, seed, block }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Gives every piece to `f`, in order.
    pub(super) fn each<E>(&mut self, mut f: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut left = self.size;
        let mut number = self.seed;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            number = number.wrapping_add(1);
            self.block[..8].copy_from_slice(&number.to_le_bytes());
            f(&self.block[..length])?;
            left -= length as u64;
        }
        Ok(())
    }

    /// As `sha256:…`.
    pub(super) fn digest(&mut self) -> String {
        let mut hasher = Sha256::new();
        let hashed: Result<(), std::convert::Infallible> = self.each(|piece| {
            hasher.update(piece);
            Ok(())
        });
        let Ok(()) = hashed;
        format!("sha256:{}", hex::encode(hasher.finalize()))
    }
}

/// The digest of bytes that are at hand.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
