//! The 512 bytes before each entry.

use std::io;

use super::BLOCK;

/// A header as it stands in the archive.
pub(super) struct Header(pub [u8; BLOCK]);

impl Header {
    /// Fields by offset and length.
    const NAME: (usize, usize) = (0, 100);
    const MODE: (usize, usize) = (100, 8);
    const UID: (usize, usize) = (108, 8);
    const GID: (usize, usize) = (116, 8);
    const SIZE: (usize, usize) = (124, 12);
    const MTIME: (usize, usize) = (136, 12);
    const CHECKSUM: (usize, usize) = (148, 8);
    const TYPE: usize = 156;
    const LINK: (usize, usize) = (157, 100);
    const MAGIC: (usize, usize) = (257, 8);
    const PREFIX: (usize, usize) = (345, 155);

    fn field(&self, (start, length): (usize, usize)) -> &[u8] {
        &self.0[start..start + length]
    }

    fn text(&self, place: (usize, usize)) -> &[u8] {
        let field = self.field(place);
        &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
    }

    /// Whether this is the block of zeros that ends an archive.
    pub fn is_end(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// The sum of all bytes, with the checksum itself taken as spaces; historic writers summed signed bytes.
    fn sums(&self) -> (u64, i64) {
        let (start, length) = Self::CHECKSUM;
        let bytes = self.0.iter().enumerate();
        let bytes = bytes.map(|(i, b)| if (start..start + length).contains(&i) { b' ' } else { *b });
        bytes.fold((0, 0), |(unsigned, signed), b| (unsigned + u64::from(b), signed + i64::from(b.cast_signed())))
    }

    /// Checks the checksum.
    pub fn verify(&self) -> io::Result<()> {
        let written = self.number("checksum", Self::CHECKSUM)?;
        let (unsigned, signed) = self.sums();
        if written == i128::from(unsigned) || written == i128::from(signed) {
            Ok(())
        } else {
            Err(invalid("a header of the archive has a wrong checksum"))
        }
    }

    /// The name, joined with its prefix where this is a POSIX header.
    pub fn path(&self) -> Vec<u8> {
        let name = self.text(Self::NAME);
        let prefix = self.text(Self::PREFIX);
        if self.field(Self::MAGIC) == b"ustar\x0000" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    pub fn link(&self) -> Vec<u8> {
        self.text(Self::LINK).to_vec()
    }

    pub fn kind(&self) -> u8 {
        self.0[Self::TYPE]
    }

    pub fn mode(&self) -> io::Result<u32> {
        // Only the permission bits mean anything; some writers put the file type there too.
        Ok((self.number("mode", Self::MODE)? & 0o7777) as u32)
    }

    pub fn uid(&self) -> io::Result<u64> {
        self.unsigned("owner", Self::UID)
    }

    pub fn gid(&self) -> io::Result<u64> {
        self.unsigned("group", Self::GID)
    }

    pub fn size(&self) -> io::Result<u64> {
        self.unsigned("size", Self::SIZE)
    }

    pub fn mtime(&self) -> io::Result<i64> {
        let time = self.number("time", Self::MTIME)?;
        i64::try_from(time).map_err(|_| invalid("a time in the archive is out of range"))
    }

    fn unsigned(&self, what: &str, place: (usize, usize)) -> io::Result<u64> {
        u64::try_from(self.number(what, place)?)
            .map_err(|_| invalid(&format!("a {what} in the archive is out of range")))
    }

    /// Octal digits, or GNU's base 256 where the first bit is set.
    fn number(&self, what: &str, place: (usize, usize)) -> io::Result<i128> {
        let field = self.field(place);
        if field[0] & 0x80 != 0 {
            let first = if field[0] & 0x40 == 0 { i128::from(field[0] & 0x3f) } else { i128::from(field[0]) - 0x100 };
            return Ok(field[1..].iter().fold(first, |number, b| (number << 8) | i128::from(*b)));
        }
        let digits = field.split(|b| *b == 0).next().unwrap_or_default().trim_ascii();
        let octal = |number: i128, b: &u8| matches!(b, b'0'..=b'7').then(|| (number << 3) | i128::from(b - b'0'));
        digits.iter().try_fold(0, octal).ok_or_else(|| invalid(&format!("a {what} in the archive is not a number")))
    }

    /// A POSIX header. The caller has checked that every value fits.
    pub fn posix(name: &[u8], kind: u8, link: &[u8], numbers: Numbers) -> Self {
        let mut header = Self([0; BLOCK]);
        header.put(Self::NAME, name);
        header.put_octal(Self::MODE, u64::from(numbers.mode));
        header.put_octal(Self::UID, numbers.uid);
        header.put_octal(Self::GID, numbers.gid);
        header.put_octal(Self::SIZE, numbers.size);
        header.put_octal(Self::MTIME, numbers.mtime);
        header.0[Self::TYPE] = kind;
        header.put(Self::LINK, link);
        header.put(Self::MAGIC, b"ustar\x0000");
        let (sum, _) = header.sums();
        header.put(Self::CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        header
    }

    fn put(&mut self, (start, length): (usize, usize), bytes: &[u8]) {
        let kept = bytes.len().min(length);
        self.0[start..start + kept].copy_from_slice(&bytes[..kept]);
    }

    fn put_octal(&mut self, place: (usize, usize), number: u64) {
        let width = place.1 - 1;
        self.put(place, format!("{number:0width$o}").as_bytes());
    }
}

/// The numbers of a header that is written.
#[derive(Clone, Copy, Default)]
pub(super) struct Numbers {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub mtime: u64,
}

/// The largest owner that fits a header.
pub(super) const MAX_ID: u64 = 0o7_777_777;
/// The largest size and time that fit a header.
pub(super) const MAX_LONG: u64 = 0o77_777_777_777;

pub(super) fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
