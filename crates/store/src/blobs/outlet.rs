//! Files on their way to a socket, past this process.
//!
//! A chunk of a file is offered as a mapping that nobody here reads. Whoever writes to the socket finds out to which file
//! and place it belongs and lets the system send it from there, which copies nothing. Somebody who does not know of that
//! gets the same bytes from the mapping.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

/// How much of a file is offered at a time, in bytes: a multiple of the size of a page.
const WINDOW: u64 = 1 << 20;

/// What a mapping begins at a multiple of, in bytes: no system has larger pages.
const PAGE: u64 = 64 << 10;

/// The way to one socket. Clones are the same way.
///
/// It is only for a connection on which bytes go out as they are, plain HTTP/1.1: a mapping must not be read by this
/// process, which would be ended by a signal if the file had become shorter or its disk failed. The system, when it reads
/// for a write to a socket, says an error instead.
#[derive(Clone, Debug, Default)]
pub struct Outlet(Arc<Mutex<Vec<Piece>>>);

/// A place in a file.
#[derive(Clone, Debug)]
pub struct Piece {
    file: Arc<File>,
    at: u64,
    memory: Range<usize>,
}

impl Piece {
    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where in the file it begins, in bytes.
    pub const fn at(&self) -> u64 {
        self.at
    }
}

impl Outlet {
    /// The beginning of `rest` of a file, at most 1 MiB; nothing if some of it would have to come from the disk first.
    pub(super) fn offer(&self, file: &Arc<File>, rest: Range<u64>) -> Option<Bytes> {
        let start = rest.start - rest.start % PAGE;
        let end = rest.end.min(start + WINDOW);
        let mapping = Mapping::new(file, start..end).ok()?;
        if !mapping.is_in_memory() {
            return None;
        }
        let skipped = usize::try_from(rest.start - start).ok()?;
        let begin = mapping.address.as_ptr() as usize;
        let piece = Piece { file: Arc::clone(file), at: start, memory: begin..begin + mapping.length };
        self.pieces().push(piece);
        let offered = Offered { mapping, outlet: Arc::downgrade(&self.0) };
        Some(Bytes::from_owner(offered).slice(skipped..))
    }

    /// Where `bytes` are from, if they are a part of what was offered and not dropped yet.
    pub fn find(&self, bytes: &[u8]) -> Option<Piece> {
        let begin = bytes.as_ptr() as usize;
        let pieces = self.pieces();
        let piece =
            pieces.iter().find(|piece| piece.memory.contains(&begin) && begin + bytes.len() <= piece.memory.end)?;
        let at = piece.at + (begin - piece.memory.start) as u64;
        Some(Piece { file: Arc::clone(&piece.file), at, memory: begin..begin + bytes.len() })
    }

    fn pieces(&self) -> MutexGuard<'_, Vec<Piece>> {
        lock(&self.0)
    }
}

fn lock(pieces: &Mutex<Vec<Piece>>) -> MutexGuard<'_, Vec<Piece>> {
    pieces.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mapping that its outlet knows, until it is dropped.
struct Offered {
    mapping: Mapping,
    outlet: Weak<Mutex<Vec<Piece>>>,
}

impl AsRef<[u8]> for Offered {
    fn as_ref(&self) -> &[u8] {
        self.mapping.bytes()
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        // Before its addresses can be those of something else.
        let begin = self.mapping.address.as_ptr() as usize;
        if let Some(outlet) = self.outlet.upgrade() {
            lock(&outlet).retain(|piece| piece.memory.start != begin);
        }
    }
}

/// A part of a file, mapped for reading. Blobs are never written to once they have their name.
struct Mapping {
    address: NonNull<u8>,
    length: usize,
}

// SAFETY: it is only read.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: it is only read.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

#[allow(unsafe_code)]
impl Mapping {
    fn new(file: &File, range: Range<u64>) -> io::Result<Self> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let length = usize::try_from(range.end - range.start).map_err(invalid)?;
        let at = libc::off_t::try_from(range.start).map_err(invalid)?;
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address that the system chooses, of a file that is open.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, file.as_raw_fd(), at) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { address, length })
    }

    /// Whether the system has all of it in its memory.
    fn is_in_memory(&self) -> bool {
        let mut pages = [0_u8; (WINDOW / 4096) as usize];
        // SAFETY: the mapping is this long, and the array has a byte for each of its pages, which have 4 KiB at least.
        let asked = unsafe { libc::mincore(self.address.as_ptr().cast(), self.length, pages.as_mut_ptr()) };
        asked == 0 && pages[..self.length.div_ceil(page_size())].iter().all(|page| page & 1 == 1)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is this long, and nobody writes to what it is of.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.length) }
    }
}

#[allow(unsafe_code)]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nobody has a reference into it any more.
        unsafe {
            libc::munmap(self.address.as_ptr().cast(), self.length);
        }
    }
}

fn page_size() -> usize {
    rustix::param::page_size()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(length: usize) -> (Arc<File>, Vec<u8>) {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        file.write_all(&content).unwrap();
        (Arc::new(file), content)
    }

    #[test]
    fn what_is_offered_is_the_file() {
        let (file, content) = file(3_000_001);
        let outlet = Outlet::default();
        for from in [0, 1, 4095, 65_536, 1_048_575, 2_999_999, 3_000_000] {
            let mut at = from;
            while at < content.len() {
                let chunk = outlet.offer(&file, at as u64..content.len() as u64).unwrap();
                assert!(!chunk.is_empty() && chunk.len() as u64 <= WINDOW, "{at}");
                assert_eq!(chunk, content[at..at + chunk.len()], "{at}");
                at += chunk.len();
            }
        }
        let part = outlet.offer(&file, 70_000..70_010).unwrap();
        assert_eq!(part, content[70_000..70_010]);
    }

    #[test]
    fn where_bytes_are_from_is_known_while_they_live() {
        let (file, _) = file(2_000_000);
        let outlet = Outlet::default();
        let chunk = outlet.offer(&file, 5..2_000_000).unwrap();
        assert_eq!(outlet.find(&chunk).unwrap().at(), 5);
        assert_eq!(outlet.find(&chunk[100_000..200_000]).unwrap().at(), 100_005);
        assert!(outlet.find(&[1, 2, 3]).is_none());
        assert!(Outlet::default().find(&chunk).is_none(), "another connection's");
        let last = chunk.slice(chunk.len() - 1..);
        drop(chunk);
        assert_eq!(outlet.find(&last).unwrap().at(), WINDOW - 1);
        drop(last);
        assert!(outlet.pieces().is_empty());
    }

    #[test]
    fn what_a_file_does_not_have_is_not_offered() {
        let (file, _) = file(100_000);
        let outlet = Outlet::default();
        assert!(outlet.offer(&file, 0..300_000).is_none());
        assert!(outlet.pieces().is_empty());
    }
}
