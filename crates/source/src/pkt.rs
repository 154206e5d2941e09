//! Pkt-lines, by git's `protocol-common`: four hexadecimal digits of length, then that many bytes less four.

/// What is wrong with a stream of pkt-lines.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PktError {
    /// The length is not four hexadecimal digits, or is 1 to 3 where that means nothing.
    #[error("the stream holds {0:?} where the length of a pkt-line belongs")]
    BadLength(String),
}

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Data.
    Data(&'a [u8]),
    /// `0000`.
    Flush,
    /// `0001` or `0002`.
    Special,
}

/// The first packet of `bytes` and how long it is with its length; nothing if it is not all there yet.
///
/// # Errors
/// When `bytes` does not begin with a length.
pub fn next(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, PktError> {
    let Some(digits) = bytes.get(..4) else { return Ok(None) };
    let bad = || PktError::BadLength(String::from_utf8_lossy(digits).into_owned());
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(bad());
    }
    let text = std::str::from_utf8(digits).map_err(|_| bad())?;
    let length = usize::from_str_radix(text, 16).map_err(|_| bad())?;
    match length {
        0 => Ok(Some((Packet::Flush, 4))),
        1 | 2 => Ok(Some((Packet::Special, 4))),
        3 => Err(bad()),
        _ => Ok(bytes.get(4..length).map(|data| (Packet::Data(data), length))),
    }
}

/// A pkt-line of `data`, which must be at most 65,516 bytes.
pub fn line(data: &[u8]) -> Vec<u8> {
    let mut line = format!("{:04x}", data.len() + 4).into_bytes();
    line.extend_from_slice(data);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let bytes = line(b"hello");
        assert_eq!(next(&bytes).unwrap(), Some((Packet::Data(b"hello"), 9)));
        assert_eq!(next(&bytes[..8]).unwrap(), None);
        assert_eq!(next(b"0000").unwrap(), Some((Packet::Flush, 4)));
        assert_eq!(next(b"0004").unwrap(), Some((Packet::Data(b""), 4)));
    }

    #[test]
    fn refuses_what_is_not_a_length() {
        for bad in [&b"0003"[..], b"+123", b"GET ", b"\xff\xff\xff\xff"] {
            assert!(next(bad).is_err());
        }
    }
}
