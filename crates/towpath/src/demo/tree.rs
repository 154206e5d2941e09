//! A file tree for an image: parts of this machine under the paths that they have here, and texts.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use model::{Algorithm, Digest, Timestamp};
use oci::compress::GzipWriter;
use oci::tar::{LayerWriter, Meta};

/// Symbolic links on the way to one file.
const MOST_LINKS: usize = 40;
/// The base image is made anew with every demo: quickly rather than small.
const LEVEL: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory(u32),
    /// A file of this machine, with its mode.
    File(PathBuf, u32),
    Text(&'static str),
    Link(PathBuf),
}

/// Files by their path from the root, without a slash at the beginning.
#[derive(Default)]
pub(super) struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
}

/// A layer as it is pushed.
pub(super) struct Layer {
    /// The compressed archive.
    pub(super) bytes: Vec<u8>,
    /// Its digest.
    pub(super) digest: Digest,
    /// The digest of the archive before compression.
    pub(super) diff_id: Digest,
}

impl Tree {
    fn put(&mut self, path: &Path, node: Node) {
        let path = path.strip_prefix("/").unwrap_or(path);
        self.nodes.entry(path.as_os_str().as_bytes().to_vec()).or_insert(node);
    }

    /// A directory; those that lead to it must have been made.
    pub(super) fn directory(&mut self, path: &str, mode: u32) {
        self.put(Path::new(path), Node::Directory(mode));
    }

    /// A file with this text.
    pub(super) fn text(&mut self, path: &str, text: &'static str) {
        self.put(Path::new(path), Node::Text(text));
    }

    /// A file of this machine, with every directory and symbolic link that leads to it. Owners, set-id bits and times
    /// are not taken over.
    ///
    /// # Errors
    /// When it is not there, or not a file.
    pub(super) fn add(&mut self, path: &Path) -> io::Result<()> {
        let mut rest: VecDeque<OsString> = parts(path);
        let mut current = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == ".." {
                current.pop();
                continue;
            }
            let next = current.join(part);
            let found = fs::symlink_metadata(&next)?;
            if found.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::other("too many symbolic links"));
                }
                let target = fs::read_link(&next)?;
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
                if target.is_absolute() {
                    current = PathBuf::from("/");
                }
                self.put(&next, Node::Link(target));
            } else if found.is_dir() {
                self.put(&next, Node::Directory(0o755));
                current = next;
            } else if found.is_file() && rest.is_empty() {
                let mode = if found.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                self.put(&next, Node::File(next.clone(), mode));
            } else {
                return Err(io::Error::other("neither a file nor a directory"));
            }
        }
        Ok(())
    }

    /// Every file below a directory of this machine.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn add_all(&mut self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() && !path.is_symlink() => self.add_all(&path)?,
                Ok(found) if found.is_file() => self.add(&path)?,
                // Links that lead nowhere, sockets and the like are nothing for an image.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The tree as a layer: the same files give the same bytes.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn layer(&self) -> Result<Layer, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let mut writer = LayerWriter::new(GzipWriter::with_level(Vec::new(), LEVEL));
        for (path, node) in &self.nodes {
            write(&mut writer, path, node).map_err(|error| text(&*error))?;
        }
        let gzip = writer.finish().map_err(|error| text(&error))?;
        let done = gzip.finish().map_err(|error| text(&error))?;
        let digest = oci::digest_of(Algorithm::Sha256, &done.inner);
        Ok(Layer { bytes: done.inner, digest, diff_id: done.diff_id })
    }
}

type Writer = LayerWriter<GzipWriter<Vec<u8>>>;

fn write(writer: &mut Writer, path: &[u8], node: &Node) -> Result<(), Box<dyn std::error::Error>> {
    let meta = |mode| Meta::root(mode, Timestamp(0));
    match node {
        Node::Directory(mode) => writer.directory(path, &meta(*mode))?,
        Node::Text(text) => writer.file(path, &meta(0o644), text.len() as u64, &mut text.as_bytes())?,
        Node::Link(target) => writer.symlink(path, target.as_os_str().as_bytes(), &meta(0o777))?,
        Node::File(source, mode) => {
            let named = |error: io::Error| format!("cannot read {}: {error}", source.display());
            let mut file = fs::File::open(source).map_err(named)?;
            let size = file.metadata().map_err(named)?.len();
            writer.file(path, &meta(*mode), size, &mut file)?;
        }
    }
    Ok(())
}

/// The names in a path; only `..` of those that mean something else stays.
fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_on_the_way_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/tool-2"), "x").unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("../bin/tool-2", root.join("usr/bin/tool")).unwrap();
        let mut tree = Tree::default();
        tree.add(&root.join("bin/tool")).unwrap();
        let at = |name: &str| {
            let path = root.join(name).strip_prefix("/").unwrap().as_os_str().as_bytes().to_vec();
            tree.nodes.get(&path).cloned()
        };
        assert_eq!(at("bin"), Some(Node::Link("usr/bin".into())));
        assert_eq!(at("usr/bin/tool"), Some(Node::Link("../bin/tool-2".into())));
        assert_eq!(at("usr/bin/tool-2"), Some(Node::File(root.join("usr/bin/tool-2"), 0o644)));
        assert!(tree.add(&root.join("bin/absent")).is_err());
        symlink("turn", root.join("turn")).unwrap();
        assert!(tree.add(&root.join("turn")).is_err());
    }

    #[test]
    fn the_same_files_give_the_same_layer() {
        let make = || {
            let mut tree = Tree::default();
            tree.text("etc/b", "2");
            tree.directory("etc", 0o755);
            tree.add(Path::new("/bin/sh")).unwrap();
            tree.layer().unwrap()
        };
        let (one, other) = (make(), make());
        assert_eq!(one.bytes, other.bytes);
        assert_ne!(one.digest, one.diff_id);
    }
}
