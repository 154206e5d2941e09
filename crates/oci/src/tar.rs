//! Reading and writing tar archives as OCI layers use them: ustar with PAX and GNU's long names.
//!
//! The reader is for bytes of strangers: it holds at most [`MAX_RECORDS`] of headers in memory, never panics and never
//! guesses. The writer gives the same bytes for the same entries, everywhere and always.

mod header;
mod pax;
mod read;
mod write;

pub use pax::MAX_RECORDS;
pub(crate) use read::shown;
pub use read::{Entry, EntryKind, TarReader};
pub use write::{LayerWriter, Meta, WriteError};

/// The unit of a tar archive, in bytes.
const BLOCK: usize = 512;

/// The longest path of an entry, in bytes.
pub const MAX_PATH: usize = 4096;
