//! The reader.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::header::{Header, invalid};
use super::pax::{MAX_RECORDS, Records};
use super::{BLOCK, MAX_PATH};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// Another name of an entry before it.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character or block device.
    Device,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry, without its content. Everything in it is as the archive says, which may be a lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path, as written.
    pub path: Vec<u8>,
    /// The target of a link, as written.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// The permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// When it was changed, in seconds since the epoch.
    pub mtime: i64,
    /// The length of the content in bytes; zero for what is no regular file.
    pub size: u64,
    /// The extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Reads an archive from front to back. The content of the current entry is read through [`Read`].
pub struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry not yet read.
    remaining: u64,
    /// Zeros that fill its last block.
    padding: u64,
    ended: bool,
}

impl<R: Read> TarReader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, remaining: 0, padding: 0, ended: false }
    }

    /// The stream.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The stream, wherever reading stopped.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, after skipping what is left of the one before; nothing at the end of the archive.
    ///
    /// # Errors
    /// When the stream cannot be read, ends inside an entry, or is not an archive of a supported form.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut records = Records::default();
        let mut extended = 0;
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return if extended == 0 {
                    Ok(None)
                } else {
                    Err(invalid("the archive ends after an extended header"))
                };
            };
            let size = header.size()?;
            match header.kind() {
                b'x' => records.read(&self.extended(size, &mut extended)?)?,
                b'L' => records.path = Some(until_nul(self.extended(size, &mut extended)?)),
                b'K' => records.link = Some(until_nul(self.extended(size, &mut extended)?)),
                // Global headers hold a comment of the program that wrote the archive.
                b'g' => drop(self.extended(size, &mut extended)?),
                kind => return self.entry(kind, &header, records).map(Some),
            }
        }
    }

    fn entry(&mut self, kind: u8, header: &Header, records: Records) -> io::Result<Entry> {
        let path = records.path.unwrap_or_else(|| header.path());
        let link = records.link.unwrap_or_else(|| header.link());
        let kind = match kind {
            // Archives from before POSIX mark directories by a slash at the end.
            0 | b'0' | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' | b'4' => EntryKind::Device,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'S' => return Err(invalid(&format!("{}: sparse files are not supported", shown(&path)))),
            other => {
                return Err(invalid(&format!(
                    "{}: entries of type {:?} are not supported",
                    shown(&path),
                    char::from(other)
                )));
            }
        };
        if records.sparse {
            return Err(invalid(&format!("{}: sparse files are not supported", shown(&path))));
        }
        if path.len() > MAX_PATH || link.len() > MAX_PATH || path.contains(&0) || link.contains(&0) {
            return Err(invalid(&format!(
                "{}: the path is longer than {MAX_PATH} bytes or holds a zero",
                shown(&path)
            )));
        }
        // What is no file has no content, whatever size some writers put there.
        let size = if kind == EntryKind::File { records.size.map_or_else(|| header.size(), Ok)? } else { 0 };
        self.begin(size);
        Ok(Entry {
            path,
            link,
            kind,
            mode: header.mode()?,
            uid: records.uid.map_or_else(|| header.uid(), Ok)?,
            gid: records.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: records.mtime.map_or_else(|| header.mtime(), Ok)?,
            size,
            xattrs: records.xattrs,
        })
    }

    fn begin(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// Skips to the next header.
    fn skip(&mut self) -> io::Result<()> {
        let left = self.remaining.checked_add(self.padding).ok_or_else(|| invalid("an entry is impossibly long"))?;
        let skipped = io::copy(&mut (&mut self.inner).take(left), &mut io::sink())?;
        // The last padding of an archive without an end mark may be missing.
        if skipped < self.remaining {
            return Err(torn());
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        let mut header = Header([0; BLOCK]);
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut header.0[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.ended = filled == 0 || (filled == BLOCK && header.is_end());
        if self.ended {
            return Ok(None);
        }
        if filled < BLOCK {
            return Err(torn());
        }
        header.verify()?;
        Ok(Some(header))
    }

    /// The content of an extended header. `total` counts what all extended headers of one entry take.
    fn extended(&mut self, size: u64, total: &mut u64) -> io::Result<Vec<u8>> {
        // An empty one counts too, or there could be any number of them.
        *total = total.saturating_add(size.max(BLOCK as u64));
        if *total > MAX_RECORDS {
            return Err(invalid(&format!("the extended headers of an entry are longer than {MAX_RECORDS} bytes")));
        }
        self.begin(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }
}

impl<R: Read> Read for TarReader<R> {
    /// Reads the content of the current entry.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(torn());
        }
        self.remaining -= read as u64;
        Ok(read)
    }
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of an entry")
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// At most 200 characters of a path, for a message.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).collect()
}
