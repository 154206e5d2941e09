//! What a stage's files are at a point, seen without mounting them.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::Algorithm;
use oci::merged::Merged;
use oci::{Hasher, IdMap};

use crate::files::{Kind, Node, Placement, Tree, base_name, join, parent};

/// Unpacked layers, and above them layers that were only placed: nothing of those has been written.
pub(crate) struct View {
    merged: Merged,
    ids: IdMap,
    /// The lowest first.
    placed: Vec<Arc<Placement>>,
}

impl View {
    /// Of `layers` (the topmost first) and `placed` (the lowest first) above them.
    pub fn new(layers: Vec<PathBuf>, placed: Vec<Arc<Placement>>, ids: IdMap) -> Self {
        Self { merged: Merged::new(layers), ids, placed }
    }

    /// The unpacked layers.
    pub fn merged(&self) -> &Merged {
        &self.merged
    }

    /// Where the regular file `path` of the unpacked layers lies on this machine.
    pub fn host_path(&self, path: &str) -> io::Result<PathBuf> {
        let found = self.merged.find(Path::new(path), false)?.filter(|node| node.metadata.is_file());
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{path} is not there any more"));
        found.map(|node| node.path).ok_or_else(missing)
    }

    fn node(&self, found: &oci::merged::Node) -> io::Result<Node> {
        let metadata = &found.metadata;
        let kind = if metadata.is_dir() {
            Kind::Directory
        } else if metadata.is_file() {
            Kind::File(metadata.len())
        } else if metadata.is_symlink() {
            Kind::Symlink(text(std::fs::read_link(&found.path)?.as_os_str())?)
        } else {
            Kind::Other
        };
        Ok(Node {
            kind,
            mode: metadata.mode() & 0o7777,
            uid: self.ids.inside(metadata.uid()),
            gid: self.ids.inside(metadata.gid()),
            mtime: Some(metadata.mtime()),
            object: Arc::default(),
        })
    }
}

fn text(name: &OsStr) -> io::Result<String> {
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, format!("the name {name:?} is not UTF-8"));
    std::str::from_utf8(name.as_bytes()).map(str::to_owned).map_err(|_| unreadable())
}

impl Tree for View {
    fn lookup(&self, path: &str) -> io::Result<Option<Node>> {
        for placement in self.placed.iter().rev() {
            if let Some(entry) = placement.entries.get(path) {
                return Ok(Some(entry.node()));
            }
            // What is placed as a file hides whatever lies below its name.
            let mut up = parent(path);
            while !up.is_empty() {
                if placement.entries.get(up).is_some_and(|entry| !entry.node().is_directory()) {
                    return Ok(None);
                }
                up = parent(up);
            }
        }
        match self.merged.find(Path::new(path), false)? {
            Some(found) => self.node(&found).map(Some),
            None => Ok(None),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<(String, Node)>> {
        let mut found = std::collections::BTreeMap::new();
        for (name, node) in self.merged.list(Path::new(path))?.unwrap_or_default() {
            found.insert(text(&name)?, self.node(&node)?);
        }
        for placement in &self.placed {
            for (at, entry) in placement.entries.iter().filter(|(at, _)| parent(at) == path && !at.is_empty()) {
                found.insert(base_name(at).to_owned(), entry.node());
            }
        }
        Ok(found.into_iter().collect())
    }

    fn object(&self, path: &str, _: &Node) -> io::Result<Arc<str>> {
        hash_file(&mut std::fs::File::open(self.host_path(path)?)?)
    }
}

/// The identity of a file's content by its SHA-256.
pub(crate) fn hash_file(file: &mut dyn Read) -> io::Result<Arc<str>> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish().to_string().into()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A view of nothing: what `--link` copies onto.
pub(crate) struct Nothing;

impl Tree for Nothing {
    fn lookup(&self, path: &str) -> io::Result<Option<Node>> {
        Ok(path.is_empty().then(|| Node::directory(0o755)))
    }

    fn list(&self, _: &str) -> io::Result<Vec<(String, Node)>> {
        Ok(Vec::new())
    }

    fn object(&self, path: &str, _: &Node) -> io::Result<Arc<str>> {
        Err(io::Error::new(io::ErrorKind::NotFound, join("", path)))
    }
}
