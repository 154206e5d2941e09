//! The compression of layers.
//!
//! A layer is cut into segments of [`SEGMENT`] bytes, each its own gzip member (RFC 1952 lets members follow each other;
//! docker, containerd and podman read them). That lets every core compress, and a changed byte changes one member only.
//! The same input gives the same bytes on every machine, however many cores it has.

use std::io::{self, Write};
use std::thread;

use flate2::{Compression, GzBuilder};
use model::{Algorithm, Digest};

use crate::Hasher;

/// Bytes of a layer in one gzip member.
pub const SEGMENT: usize = 1 << 20;

/// The level that layers are compressed with unless somebody asks for another.
pub const DEFAULT_LEVEL: u32 = 6;

/// Segments held in memory, and compressed side by side, at most.
const MAX_WORKERS: usize = 8;

/// Compresses what is written to it, and hashes it before that.
pub struct GzipWriter<W: Write> {
    inner: W,
    level: Compression,
    workers: usize,
    pending: Vec<u8>,
    hasher: Hasher,
    uncompressed: u64,
    empty: bool,
}

/// What [`GzipWriter::finish`] hands back.
pub struct Gzipped<W> {
    /// Where the compressed bytes went.
    pub inner: W,
    /// The SHA-256 of what was written, uncompressed: the `diff_id` of a layer.
    pub diff_id: Digest,
    /// How many bytes were written, uncompressed.
    pub uncompressed: u64,
}

impl<W: Write> GzipWriter<W> {
    /// Writes to `inner` with [`DEFAULT_LEVEL`].
    pub fn new(inner: W) -> Self {
        Self::with_level(inner, DEFAULT_LEVEL)
    }

    /// Writes to `inner` with a level from 0 (stored) to 9; higher ones count as 9.
    pub fn with_level(inner: W, level: u32) -> Self {
        let workers = thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
        Self {
            inner,
            level: Compression::new(level.min(9)),
            workers,
            pending: Vec::new(),
            hasher: Hasher::new(Algorithm::Sha256),
            uncompressed: 0,
            empty: true,
        }
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// When `inner` cannot be written to.
    pub fn finish(mut self) -> io::Result<Gzipped<W>> {
        if !self.pending.is_empty() || self.empty {
            self.compress_pending()?;
        }
        self.inner.flush()?;
        Ok(Gzipped { inner: self.inner, diff_id: self.hasher.finish(), uncompressed: self.uncompressed })
    }

    fn compress_pending(&mut self) -> io::Result<()> {
        let (level, pending, hasher) = (self.level, &self.pending, &mut self.hasher);
        let members = if pending.len() <= SEGMENT {
            hasher.update(pending);
            vec![member(pending, level)?]
        } else {
            thread::scope(|scope| {
                let segments = pending.chunks(SEGMENT).map(|segment| scope.spawn(move || member(segment, level)));
                let running: Vec<_> = segments.collect();
                hasher.update(pending);
                let panicked = |_| io::Error::other("a thread that compressed a layer broke off");
                running.into_iter().map(|thread| thread.join().map_err(panicked)?).collect::<io::Result<Vec<_>>>()
            })?
        };
        for member in members {
            self.inner.write_all(&member)?;
        }
        self.pending.clear();
        self.empty = false;
        Ok(())
    }
}

/// One gzip member without a time or a name, so that it depends on nothing but `segment` and `level`.
fn member(segment: &[u8], level: Compression) -> io::Result<Vec<u8>> {
    let room = Vec::with_capacity(segment.len() / 2 + 64);
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(room, level);
    encoder.write_all(segment)?;
    encoder.finish()
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.workers * SEGMENT;
        if self.pending.len() == room {
            self.compress_pending()?;
        }
        let taken = bytes.len().min(room - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        self.uncompressed += taken as u64;
        Ok(taken)
    }

    /// Does nothing: where members end must not depend on when somebody flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::digest_of;

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * i / 7 % 251) as u8).collect()
    }

    fn gzip(bytes: &[u8], workers: usize, piece: usize) -> Gzipped<Vec<u8>> {
        let mut writer = GzipWriter::new(Vec::new());
        writer.workers = workers;
        for chunk in bytes.chunks(piece) {
            writer.write_all(chunk).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn reads_back_whatever_the_length() {
        for length in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 5 * SEGMENT + 17] {
            let bytes = sample(length);
            let gzipped = gzip(&bytes, 3, 65_537);
            let mut back = Vec::new();
            flate2::read::MultiGzDecoder::new(&gzipped.inner[..]).read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}");
            assert_eq!(gzipped.diff_id, digest_of(Algorithm::Sha256, &bytes));
            assert_eq!(gzipped.uncompressed, length as u64);
        }
    }

    #[test]
    fn depends_on_neither_cores_nor_write_sizes() {
        let bytes = sample(3 * SEGMENT + 5);
        assert!(gzip(&bytes, 1, 1000).inner == gzip(&bytes, 8, 1 << 22).inner);
    }
}
