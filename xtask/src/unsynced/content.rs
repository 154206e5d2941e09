//! The bytes of a file, in pieces that its states share.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// Bytes with holes.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pieces: BTreeMap<u64, Arc<Vec<u8>>>,
    size: u64,
}

/// The piece that a place is in, and where in it.
fn place(offset: u64) -> (u64, usize) {
    let piece = PIECE as u64;
    (offset / piece, usize::try_from(offset % piece).unwrap_or(0))
}

impl Content {
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn read(&self, offset: u64, most: usize) -> Vec<u8> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = most.min(left);
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let (number, begin) = place(offset + bytes.len() as u64);
            let end = PIECE.min(begin + count - bytes.len());
            match self.pieces.get(&number) {
                Some(piece) => bytes.extend_from_slice(&piece[begin..end]),
                None => bytes.resize(bytes.len() + end - begin, 0),
            }
        }
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut written = 0;
        while written < bytes.len() {
            let (number, begin) = place(offset + written as u64);
            let end = PIECE.min(begin + bytes.len() - written);
            let piece = self.pieces.entry(number).or_insert_with(|| Arc::new(vec![0; PIECE]));
            let next = written + end - begin;
            Arc::make_mut(piece)[begin..end].copy_from_slice(&bytes[written..next]);
            written = next;
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    pub(super) fn resize(&mut self, size: u64) {
        if size < self.size {
            let (number, begin) = place(size);
            self.pieces.retain(|piece, _| *piece <= number);
            if let Some(piece) = self.pieces.get_mut(&number) {
                // A file that grows again has zeros there.
                Arc::make_mut(piece)[begin..].fill(0);
            }
        }
        self.size = size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_they_were_written() {
        let mut content = Content::default();
        let bytes: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        content.write(100, &bytes);
        assert_eq!(content.size(), 200_100);
        assert_eq!(content.read(0, 100), vec![0; 100]);
        assert_eq!(content.read(100, 1 << 20), bytes);
        let earlier = content.clone();
        content.write(70_000, b"x");
        assert_eq!(earlier.read(100, 1 << 20), bytes);
        content.resize(150);
        content.resize(200);
        assert_eq!(content.read(100, 100), [&bytes[..50], &[0; 50]].concat());
        assert!(content.read(200, 10).is_empty());
    }
}
