//! Blobs, records, the event log, the outbox and leases: what must still be there after the power was cut.
//!
//! - [`DataDir`] takes a data directory for one process.
//! - [`Records`] keeps tables in SQLite or PostgreSQL; every room brings its own migrations.
//! - [`log`], [`outbox`] and [`leases`] are tables of this room that others write within their own transactions.
//! - [`Blobs`] keeps content by digest. It is the only maker of a [`StoredBlob`].
//!
//! This room does not know what a stage is: an event is a kind, a version and a text.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod blobs;
mod datadir;
pub mod fault;
pub mod leases;
pub mod log;
pub mod outbox;
mod records;
mod reserve;

pub use blobs::{
    BlobError, BlobLease, BlobReader, BlobWriter, Blobs, BucketOptions, Following, FollowingReader, ListedBlob, Outlet,
    PartialBlob, Piece, Removal, Removed, StoredBlob, UploadId, UploadWriter, Uploads,
};
pub use datadir::{DataDir, DataDirError};
pub use records::{FromValue, Location, Records, RecordsError, Row, Tx, Value, Watch};
pub use reserve::Reserve;
