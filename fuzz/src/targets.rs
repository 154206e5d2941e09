//! What is fed to which parser, and what must hold of whatever it makes of it.

use std::io::{Cursor, Read};
use std::path::Path;

use access::Credentials;
use model::{Algorithm, Digest, ImageName, ImageRef, Tag};
use oci::local::LocalImages;
use oci::{Descriptor, IdMap, ImageConfig, LayerStore, Reference, digest_of, media_type, parse_manifest};

/// Takes what a stranger sent.
pub(crate) type Target = fn(&[u8]);

/// All targets; `xtask/src/fuzz.rs` reads their names from the directories of `fuzz/corpus`.
pub(crate) const ALL: &[(&str, Target)] = &[
    ("names", names),
    ("route", |data| text(data, registry::http::fuzz::route)),
    ("range", range),
    ("scopes", |data| text(data, registry::http::fuzz::scopes)),
    ("authorization", authorization),
    ("manifest", manifest),
    ("config", config),
    ("challenge", |data| text(data, oci::client::fuzz::challenge)),
    ("link", |data| text(data, oci::client::fuzz::link)),
    ("layer", layer),
    ("archive", archive),
    ("push", push),
];

fn text(data: &[u8], parse: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        parse(text);
    }
}

/// What is taken for a name is written as it was read.
fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<ImageName>() {
        assert_eq!(name.as_str(), text);
        assert!(!text.starts_with('/') && !text.contains("..") && !text.contains("//"), "{text}");
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(image) = text.parse::<ImageRef>() {
        assert_eq!(image.to_string().parse::<ImageRef>().ok(), Some(image));
    }
}

fn range(data: &[u8]) {
    let Some((size, header)) = data.split_first() else { return };
    let Ok(header) = std::str::from_utf8(header) else { return };
    for size in [u64::from(*size), u64::MAX] {
        registry::http::fuzz::range(header, size);
    }
}

fn authorization(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Something that was sent never counts as nothing.
    assert!(!matches!(Credentials::from_header(Some(text)), Ok(Credentials::None)));
}

fn manifest(data: &[u8]) {
    for kind in [
        media_type::OCI_MANIFEST,
        media_type::OCI_INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ] {
        let _ = parse_manifest(data, kind);
    }
    let _ = oci::guess_media_type(data);
}

fn config(data: &[u8]) {
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(data) {
        let written = serde_json::to_vec(&config).expect("what was read can be written");
        let again = serde_json::from_slice::<ImageConfig>(&written);
        assert!(again.is_ok(), "{again:?}");
    }
}

/// A directory in memory, so that syncs cost nothing.
fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a directory for a try")
}

/// Whatever a layer holds, nothing is written beside the store.
fn layer(data: &[u8]) {
    let dir = place();
    std::fs::write(dir.path().join("beside"), "as it was").expect("a file beside the store");
    let store = LayerStore::open(&dir.path().join("layers"), IdMap::single()).expect("a store");
    let described = Descriptor::new(media_type::OCI_LAYER, digest_of(Algorithm::Sha256, data), data.len() as u64);
    let bytes = data.to_vec();
    let _ = store.ensure(&described, None, move || Ok(Box::new(Cursor::new(bytes)) as Box<dyn Read>));
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["beside", "layers"]);
    assert_eq!(std::fs::read(dir.path().join("beside")).expect("the file"), b"as it was");
    let _ = oci::remove_tree(&dir.path().join("layers"));
}

fn archive(data: &[u8]) {
    let dir = place();
    let path = dir.path().join("image.tar");
    std::fs::write(&path, data).expect("the archive");
    let Ok(images) = LocalImages::archive(&path) else { return };
    for entry in images.entries() {
        if let Ok(fetched) = images.manifest(&entry.digest, &entry.media_type) {
            assert_eq!(digest_of(entry.digest.algorithm(), &fetched.bytes), entry.digest);
        }
        let _ = images.small_blob(entry, 1 << 20);
    }
}

fn push(data: &[u8]) {
    let Some((cut, body)) = data.split_first() else { return };
    source::fuzz::commands(body, usize::from(*cut));
}
