//! What a container would see of a stack of layers, without mounting it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::xattr;

/// The most symbolic links that are followed on one path.
const MAX_LINKS: usize = 40;

/// Unpacked layers, seen as one. They must not change meanwhile.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The topmost first.
    layers: Vec<PathBuf>,
}

/// Something in the merged tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it lies on this machine. Its parents are directories, and no links.
    pub path: PathBuf,
    /// Where it lies in the container: absolute, without links on the way.
    pub inside: PathBuf,
    /// Its kind, mode, owner on this machine, times and length.
    pub metadata: std::fs::Metadata,
}

enum Sight {
    Absent,
    Hidden,
    Here(std::fs::Metadata),
}

impl Merged {
    /// The stack of `layers`, the topmost first.
    pub fn new(layers: Vec<PathBuf>) -> Self {
        Self { layers }
    }

    /// What is at `path`, after following links on the way, and at its end if `follow` says so; nothing if nothing is
    /// there. Links stay inside, as for a program whose root this is.
    ///
    /// # Errors
    /// When a layer cannot be read, or links go in a circle.
    pub fn find(&self, path: &Path, follow: bool) -> io::Result<Option<Node>> {
        let parts = |path: &OsStr| -> Vec<Vec<u8>> {
            path.as_bytes().split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect()
        };
        let mut ahead = parts(path.as_os_str());
        let mut way: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    way.pop();
                    continue;
                }
                _ => way.push(part),
            }
            let Some(node) = self.lookup(&way)? else { return Ok(None) };
            let last = ahead.iter().all(|part| part.is_empty());
            if node.metadata.is_symlink() && (follow || !last) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other(format!("{}: too many symbolic links", path.display())));
                }
                let target = std::fs::read_link(&node.path)?;
                way.pop();
                if target.is_absolute() {
                    way.clear();
                }
                ahead.extend(parts(target.as_os_str()));
            }
        }
        self.lookup(&way)
    }

    /// The content of the regular file at `path`, after following links; nothing if there is none.
    ///
    /// # Errors
    /// When it cannot be read or is longer than `limit` bytes.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(node) = self.find(path, true)? else { return Ok(None) };
        if !node.metadata.is_file() {
            return Ok(None);
        }
        let mut content = Vec::new();
        std::fs::File::open(&node.path)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::other(format!("{} is longer than {limit} bytes", path.display())));
        }
        Ok(Some(content))
    }

    /// What lies in the directory `path` (after following links), by name and sorted; nothing if it is no directory.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn list(&self, path: &Path) -> io::Result<Option<BTreeMap<OsString, Node>>> {
        let Some(node) = self.find(path, true)?.filter(|node| node.metadata.is_dir()) else { return Ok(None) };
        let relative = node.inside.strip_prefix("/").unwrap_or(&node.inside).to_owned();
        let way: Vec<Vec<u8>> = relative.iter().map(|part| part.as_bytes().to_vec()).collect();
        let mut found = BTreeMap::new();
        for layer in &self.layers {
            match sight(layer, &way)? {
                Sight::Absent => continue,
                Sight::Hidden => break,
                Sight::Here(metadata) if !metadata.is_dir() => break,
                Sight::Here(_) => {}
            }
            let here = layer.join(&relative);
            for entry in std::fs::read_dir(&here)? {
                let entry = entry?;
                found.entry(entry.file_name()).or_insert(Some(entry.path()));
            }
            if is_opaque(&here)? {
                break;
            }
        }
        let mut nodes = BTreeMap::new();
        for (name, path) in found {
            let Some(path) = path else { continue };
            let metadata = std::fs::symlink_metadata(&path)?;
            if !is_whiteout(&metadata) {
                let inside = node.inside.join(&name);
                nodes.insert(name, Node { path, inside, metadata });
            }
        }
        Ok(Some(nodes))
    }

    /// What is at a way without links.
    fn lookup(&self, way: &[Vec<u8>]) -> io::Result<Option<Node>> {
        let relative: PathBuf = way.iter().map(|part| OsString::from_vec(part.clone())).collect();
        for layer in &self.layers {
            match sight(layer, way)? {
                Sight::Absent => {}
                Sight::Hidden => return Ok(None),
                Sight::Here(metadata) => {
                    let node = Node { path: layer.join(&relative), inside: Path::new("/").join(&relative), metadata };
                    return Ok(Some(node));
                }
            }
        }
        Ok(None)
    }
}

/// What one layer says about a way: nothing, that it is not there whatever lies below, or what is there.
fn sight(layer: &Path, way: &[Vec<u8>]) -> io::Result<Sight> {
    let mut here = layer.to_owned();
    let mut opaque = false;
    let mut metadata = std::fs::symlink_metadata(&here)?;
    for part in way {
        if !metadata.is_dir() {
            return Ok(Sight::Hidden);
        }
        opaque = opaque || is_opaque(&here)?;
        here.push(OsStr::from_bytes(part));
        metadata = match std::fs::symlink_metadata(&here) {
            Ok(metadata) if is_whiteout(&metadata) => return Ok(Sight::Hidden),
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if opaque { Sight::Hidden } else { Sight::Absent });
            }
            Err(error) => return Err(error),
        };
    }
    Ok(Sight::Here(metadata))
}

fn is_whiteout(metadata: &std::fs::Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(directory: &Path) -> io::Result<bool> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::openat(rustix::fs::CWD, directory, flags, rustix::fs::Mode::empty())?;
    Ok(xattr::get(&opened, xattr::OPAQUE)?.as_deref() == Some(b"y"))
}
