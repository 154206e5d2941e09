//! The writer of layers.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use model::Timestamp;

use super::header::{Header, MAX_ID, MAX_LONG, Numbers};
use super::read::shown;
use super::{BLOCK, MAX_PATH, pax};

/// What an entry says of itself besides its path and content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner inside the container.
    pub uid: u32,
    /// The group inside the container.
    pub gid: u32,
    /// When it was changed, in seconds since the epoch.
    pub mtime: i64,
    /// Extended attributes by their full name (`security.capability`).
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Meta {
    /// Of root, changed at `mtime`.
    pub fn root(mode: u32, mtime: Timestamp) -> Self {
        Self { mode, mtime: mtime.seconds(), ..Self::default() }
    }
}

/// Why an entry cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The path is not one that a layer may hold.
    #[error("{path:?} cannot be in a layer: {reason}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file turned out shorter or longer than it was said to be.
    #[error("{path} changed while it was read: it should have {expected} bytes")]
    Length {
        /// The path.
        path: String,
        /// The length in its header.
        expected: u64,
    },
    /// The content could not be read, or the archive not be written.
    #[error("cannot write {path} to a layer: {source}")]
    Io {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes the tar of a layer. The same calls give the same bytes; the caller gives entries in the order they shall have.
///
/// Paths are relative to the root of the image, without `.` and `..`, with or without a slash at the end; a path with a
/// component that begins with `.wh.` is refused, because readers would take it for a whiteout.
pub struct LayerWriter<W: Write> {
    inner: W,
    buffer: Box<[u8]>,
}

impl<W: Write> LayerWriter<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: vec![0; 256 << 10].into_boxed_slice() }
    }

    /// A directory. The empty path is the root of the image.
    pub fn directory(&mut self, path: &[u8], meta: &Meta) -> Result<(), WriteError> {
        let mut name = if path.is_empty() { b".".to_vec() } else { checked(path)?.to_vec() };
        name.push(b'/');
        self.header(&name, b'5', b"", meta, 0)
    }

    /// A regular file with exactly `size` bytes of `content`.
    pub fn file(&mut self, path: &[u8], meta: &Meta, size: u64, content: &mut dyn Read) -> Result<(), WriteError> {
        self.header(checked(path)?, b'0', b"", meta, size)?;
        let failed = |source| WriteError::Io { path: shown(path), source };
        let length = || WriteError::Length { path: shown(path), expected: size };
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = read_retry(content, &mut self.buffer[..wanted]).map_err(failed)?;
            if read == 0 {
                return Err(length());
            }
            self.inner.write_all(&self.buffer[..read]).map_err(failed)?;
            left -= read as u64;
        }
        if read_retry(content, &mut self.buffer[..1]).map_err(failed)? != 0 {
            return Err(length());
        }
        self.pad(size).map_err(failed)
    }

    /// A symbolic link to `target`, whatever that is.
    pub fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<(), WriteError> {
        if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
            return Err(bad(path, "its target is empty, longer than 4096 bytes or holds a zero"));
        }
        self.header(checked(path)?, b'2', target, &Meta { mode: 0o777, ..meta.clone() }, 0)
    }

    /// Another name of the file `target`, which the layer holds already.
    pub fn hard_link(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<(), WriteError> {
        self.header(checked(path)?, b'1', checked(target)?, meta, 0)
    }

    /// A named pipe.
    pub fn fifo(&mut self, path: &[u8], meta: &Meta) -> Result<(), WriteError> {
        self.header(checked(path)?, b'6', b"", meta, 0)
    }

    /// Says that `path` of the layers below is gone.
    pub fn whiteout(&mut self, path: &[u8], mtime: i64) -> Result<(), WriteError> {
        let path = checked(path)?;
        let (directory, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => path.split_at(slash + 1),
            None => (&b""[..], path),
        };
        self.header(&[directory, b".wh.", name].concat(), b'0', b"", &Meta { mtime, ..Meta::default() }, 0)
    }

    /// Says that nothing of the directory `path` of the layers below is left.
    pub fn opaque(&mut self, path: &[u8], mtime: i64) -> Result<(), WriteError> {
        let path = if path.is_empty() { path } else { checked(path)? };
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let name = [path, slash, b".wh..wh..opq"].concat();
        self.header(&name, b'0', b"", &Meta { mtime, ..Meta::default() }, 0)
    }

    /// Writes the end mark and hands back where everything went.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn header(&mut self, name: &[u8], kind: u8, link: &[u8], meta: &Meta, size: u64) -> Result<(), WriteError> {
        let failed = |source| WriteError::Io { path: shown(name), source };
        let numbers = Numbers {
            mode: meta.mode & 0o7777,
            uid: fitting(u64::from(meta.uid), MAX_ID),
            gid: fitting(u64::from(meta.gid), MAX_ID),
            size: fitting(size, MAX_LONG),
            mtime: u64::try_from(meta.mtime).map_or(0, |time| fitting(time, MAX_LONG)),
        };
        let records = records(name, link, meta, size);
        if !records.is_empty() {
            let length = records.len() as u64;
            let numbers = Numbers { mode: 0o644, size: length, ..Numbers::default() };
            self.inner.write_all(&Header::posix(b"PaxHeaders.0/entry", b'x', b"", numbers).0).map_err(failed)?;
            self.inner.write_all(&records).map_err(failed)?;
            self.pad(length).map_err(failed)?;
        }
        self.inner.write_all(&Header::posix(name, kind, link, numbers).0).map_err(failed)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.inner.write_all(&[0; BLOCK][over..]) }
    }
}

/// `value`, or zero where only a PAX record can hold it.
fn fitting(value: u64, most: u64) -> u64 {
    if value <= most { value } else { 0 }
}

/// The PAX records of what a plain header cannot hold.
fn records(name: &[u8], link: &[u8], meta: &Meta, size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let awkward = |text: &[u8]| text.len() > 100 || !text.is_ascii();
    if awkward(name) {
        pax::write(&mut out, "path", name);
    }
    if awkward(link) {
        pax::write(&mut out, "linkpath", link);
    }
    for (key, id) in [("uid", meta.uid), ("gid", meta.gid)] {
        if u64::from(id) > MAX_ID {
            pax::write(&mut out, key, id.to_string().as_bytes());
        }
    }
    if size > MAX_LONG {
        pax::write(&mut out, "size", size.to_string().as_bytes());
    }
    if u64::try_from(meta.mtime).map_or(true, |time| time > MAX_LONG) {
        pax::write(&mut out, "mtime", meta.mtime.to_string().as_bytes());
    }
    for (name, value) in &meta.xattrs {
        pax::write(&mut out, &format!("{}{name}", pax::XATTR), value);
    }
    out
}

fn read_retry(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match content.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn bad(path: &[u8], reason: &'static str) -> WriteError {
    WriteError::Path { path: shown(path), reason }
}

/// `path` without a slash at the end, if a layer may hold it.
fn checked(path: &[u8]) -> Result<&[u8], WriteError> {
    let trimmed = path.strip_suffix(b"/").unwrap_or(path);
    if trimmed.len() > MAX_PATH || trimmed.contains(&0) {
        return Err(bad(path, "it is longer than 4096 bytes or holds a zero"));
    }
    for component in trimmed.split(|b| *b == b'/') {
        if matches!(component, b"" | b"." | b"..") {
            return Err(bad(path, "it must be relative, without empty parts, . and .."));
        }
        if component.starts_with(b".wh.") {
            return Err(bad(path, "names beginning with .wh. mean that a file was deleted"));
        }
    }
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Entry, EntryKind, TarReader};

    fn meta() -> Meta {
        Meta { mode: 0o4755, uid: 1, gid: 3_000_000, mtime: 1_700_000_000, xattrs: BTreeMap::new() }
    }

    fn sample() -> Vec<u8> {
        let mut writer = LayerWriter::new(Vec::new());
        let long = ["d"; 120].join("/");
        writer.directory(b"", &meta()).unwrap();
        writer.directory(b"a/", &meta()).unwrap();
        writer.file(b"a/f", &meta(), 600, &mut io::repeat(b'x').take(600)).unwrap();
        writer.file("a/\u{fc}".as_bytes(), &Meta { mtime: -5, ..meta() }, 0, &mut io::empty()).unwrap();
        writer.hard_link(b"a/g", b"a/f", &meta()).unwrap();
        writer.symlink(b"a/s", b"../../etc/passwd", &meta()).unwrap();
        let xattrs = BTreeMap::from([("security.capability".to_owned(), vec![1, 0, b'\n', b'='])]);
        writer.file(long.as_bytes(), &Meta { xattrs, ..meta() }, 1, &mut &b"y"[..]).unwrap();
        writer.whiteout(b"a/gone", 0).unwrap();
        writer.opaque(b"a", 0).unwrap();
        writer.finish().unwrap()
    }

    fn entries(archive: &[u8]) -> Vec<Entry> {
        let mut reader = TarReader::new(archive);
        std::iter::from_fn(|| reader.next_entry().unwrap()).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let entries = entries(&sample());
        let paths: Vec<String> = entries.iter().map(|e| String::from_utf8(e.path.clone()).unwrap()).collect();
        let long = ["d"; 120].join("/");
        assert_eq!(paths, ["./", "a/", "a/f", "a/ü", "a/g", "a/s", &long, "a/.wh.gone", "a/.wh..wh..opq"]);
        assert_eq!((entries[2].uid, entries[2].gid, entries[2].mode, entries[2].size), (1, 3_000_000, 0o4755, 600));
        assert_eq!(entries[3].mtime, -5);
        assert_eq!((entries[4].kind, &entries[4].link[..]), (EntryKind::HardLink, &b"a/f"[..]));
        assert_eq!(entries[6].xattrs["security.capability"], [1, 0, b'\n', b'=']);
    }

    #[test]
    fn another_reader_agrees() {
        let archive = sample();
        let mut other = ::tar::Archive::new(&archive[..]);
        let theirs: Vec<(Vec<u8>, u64, u64)> = other
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path_bytes().into_owned(), entry.size(), entry.header().gid().unwrap()))
            .collect();
        let ours: Vec<(Vec<u8>, u64)> = entries(&archive).into_iter().map(|e| (e.path, e.size)).collect();
        assert_eq!(theirs.iter().map(|(path, size, _)| (path.clone(), *size)).collect::<Vec<_>>(), ours);
        assert_eq!(theirs[2].2, 3_000_000);
    }

    #[test]
    fn refuses_paths_that_would_mean_something_else() {
        let mut writer = LayerWriter::new(io::sink());
        for path in ["", "/a", "../a", "a/../b", "a//b", "./a", "a/.wh.b", ".wh..wh..opq", "a\0b"] {
            assert!(writer.file(path.as_bytes(), &meta(), 0, &mut io::empty()).is_err(), "{path:?}");
        }
        assert!(matches!(writer.file(b"a", &meta(), 3, &mut &b"ab"[..]), Err(WriteError::Length { .. })));
        assert!(matches!(writer.file(b"a", &meta(), 1, &mut &b"ab"[..]), Err(WriteError::Length { .. })));
    }

    #[test]
    fn torn_and_lying_archives_are_errors() {
        let archive = sample();
        for cut in [100, 513, 1600, 1024 + 600] {
            let mut reader = TarReader::new(&archive[..cut]);
            let failed = std::iter::from_fn(|| reader.next_entry().transpose()).any(|entry| entry.is_err());
            assert!(failed, "cut at {cut}");
        }
        let mut flipped = archive.clone();
        flipped[0] ^= 1;
        assert!(TarReader::new(&flipped[..]).next_entry().is_err());
    }

    #[test]
    fn endless_extended_headers_are_refused() {
        let numbers = Numbers { size: 1 << 40, ..Numbers::default() };
        let header = Header::posix(b"x", b'x', b"", numbers).0;
        assert!(TarReader::new((&header[..]).chain(io::repeat(b'a'))).next_entry().is_err());
        let header = Header::posix(b"x", b'L', b"", Numbers::default()).0;
        let many = header.repeat(3000);
        assert!(TarReader::new(&many[..]).next_entry().is_err());
    }

    mod random {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn a_damaged_archive_never_panics(at in 0usize..4000, to in any::<u8>()) {
                let mut archive = sample();
                let at = at % archive.len();
                archive[at] = to;
                let mut reader = TarReader::new(&archive[..]);
                while let Ok(Some(_)) = reader.next_entry() {}
            }
        }
    }
}
