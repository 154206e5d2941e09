//! The decompression of layers: gzip, zstd or none, told apart by their first bytes.

use std::io::{self, BufRead, Read};

/// The largest window of a zstd frame, as a power of two: 64 MiB. Frames that need more memory are refused.
const ZSTD_WINDOW_LOG: u32 = 26;

/// Reads the uncompressed bytes of a layer. Memory is bounded; how much comes out is for the reader to bound.
pub enum Decoder<R: BufRead> {
    /// Not compressed.
    Plain(R),
    /// One or more gzip members.
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    /// One or more zstd frames.
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes of `source` and reads it as what it is.
    ///
    /// # Errors
    /// When `source` cannot be read.
    pub fn new(mut source: R) -> io::Result<Self> {
        let start = source.fill_buf()?;
        Ok(if start.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source)))
        } else if is_zstd(start) {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Self::Zstd(Box::new(decoder))
        } else {
            Self::Plain(source)
        })
    }

    /// The compressed source, wherever reading stopped.
    pub fn into_inner(self) -> R {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }
}

/// A zstd frame, or one of the frames that hold no content and may stand before it.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18])
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn tells_the_compressions_apart() {
        let text = b"hello hello hello".repeat(100);
        let mut gzip = crate::compress::GzipWriter::new(Vec::new());
        gzip.write_all(&text).unwrap();
        assert_eq!(decoded(&gzip.finish().unwrap().inner).unwrap(), text);
        assert_eq!(decoded(&zstd::encode_all(&text[..], 3).unwrap()).unwrap(), text);
        assert_eq!(decoded(&text).unwrap(), text);
        assert_eq!(decoded(b"").unwrap(), b"");
    }

    #[test]
    fn refuses_torn_and_memory_hungry_streams() {
        let whole = zstd::encode_all(&[7u8; 100_000][..], 3).unwrap();
        assert!(decoded(&whole[..whole.len() - 3]).is_err());
        assert!(decoded(&[0x1f, 0x8b, 8, 0]).is_err());
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&vec![1u8; 1 << 20]).unwrap();
        assert!(decoded(&encoder.finish().unwrap()).is_err());
    }
}
