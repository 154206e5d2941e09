//! PAX records: `length key=value\n`.

use std::collections::BTreeMap;
use std::io;

use super::header::invalid;

/// The most bytes of extended headers that one entry may have.
pub const MAX_RECORDS: u64 = 1 << 20;

/// The prefix of records that are extended attributes.
pub(super) const XATTR: &str = "SCHILY.xattr.";

/// What PAX says of the entry that follows.
#[derive(Default)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<i64>,
    pub sparse: bool,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Records {
    /// Reads the content of a PAX header into what is known already; later records win.
    pub fn read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (key, value, rest) =
                record(bytes).ok_or_else(|| invalid("a PAX record of the archive is malformed"))?;
            self.set(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let Ok(key) = std::str::from_utf8(key) else { return Ok(()) };
        match key {
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(number(key, value)?),
            "uid" => self.uid = Some(number(key, value)?),
            "gid" => self.gid = Some(number(key, value)?),
            "mtime" => self.mtime = Some(seconds(value)?),
            _ if key.starts_with("GNU.sparse.") => self.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR).filter(|name| !name.is_empty() && !name.contains('\0')) {
                    self.xattrs.insert(name.to_owned(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

/// The first record's key and value, and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

fn number(key: &str, value: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| invalid(&format!("the PAX record {key} of the archive is not a number")))
}

/// Whole seconds of a time with a fraction, rounded down.
fn seconds(value: &[u8]) -> io::Result<i64> {
    let bad = || invalid("the PAX record mtime of the archive is not a time");
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole_number: i64 = whole.parse().map_err(|_| bad())?;
    let partly = fraction.bytes().any(|b| b != b'0');
    Ok(if whole.starts_with('-') && partly { whole_number.saturating_sub(1) } else { whole_number })
}

/// Writes one record; its length counts itself.
pub(super) fn write(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_round_down() {
        assert_eq!(seconds(b"1.9").unwrap(), 1);
        assert_eq!(seconds(b"-1.5").unwrap(), -2);
        assert_eq!(seconds(b"-1.0").unwrap(), -1);
        assert!(seconds(b"x").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let mut bytes = Vec::new();
            write(&mut bytes, "path", &value);
            write(&mut bytes, "uid", b"7");
            let mut records = Records::default();
            records.read(&bytes).unwrap();
            prop_assert_eq!((records.path, records.uid), (Some(value), Some(7)));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Records::default().read(&bytes);
        }
    }
}
