//! What an image is made of: descriptors, manifests, configurations and layers, and how layers become directories and
//! directories layers.
//!
//! Everything but [`client`] blocks; async rooms call it from a blocking thread. [`client`] speaks to registries; nothing
//! here serves one, and no layer is ever held in memory. Image content is a stranger's: whatever it says, nothing outside
//! the directory of its own layer is read, written or removed.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client;
pub mod compress;
pub mod credentials;
pub mod decompress;
mod descriptor;
pub mod diff;
mod hash;
mod host;
pub mod image;
pub mod layer;
pub mod local;
mod manifest;
pub mod media_type;
pub mod merged;
mod owner;
mod place;
mod reference;
mod rooted;
pub mod tar;
pub mod transfer;
mod unpack;
pub mod user;
mod xattr;

pub use descriptor::{Descriptor, Platform};
pub use hash::{DigestReader, DigestWriter, Hasher, digest_of};
pub use host::RegistryHost;
pub use image::{History, ImageConfig, RootFs, RuntimeConfig};
pub use layer::{LayerError, LayerStore, Mismatch, UnpackLimits, remove_tree};
pub use manifest::{Index, MAX_MANIFEST, Manifest, ManifestError, ManifestKind, guess_media_type, parse_manifest};
pub use owner::IdMap;
pub use place::Place;
pub use reference::Reference;
