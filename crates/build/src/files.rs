//! Trees of files that instructions read or write, whether they are a build context, the files of a stage, or files
//! that are nowhere yet.

mod pick;
mod place;
mod unpack;

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use pick::{Pick, PickError, Picked, Picks, pick};
pub(crate) use place::{Archive, Content, Destination, Entry, EntryKind, Placement, place};
pub(crate) use unpack::archived;

/// The most symbolic links that are followed on one path, as the kernel has it.
const MAX_LINKS: usize = 40;

/// Something in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner, as an id inside a container.
    pub uid: u32,
    /// Group, as an id inside a container.
    pub gid: u32,
    /// When it was changed, in seconds since the epoch; nothing if that has no meaning (a commit keeps no times).
    pub mtime: Option<i64>,
    /// What identifies the content of a file: `git:<object name>` or `sha256:<hex>`; empty until somebody asks for it.
    #[serde(with = "shared_text")]
    pub object: Arc<str>,
}

/// What a [`Node`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A regular file of this many bytes.
    File(u64),
    /// A symbolic link to this target.
    Symlink(String),
    /// A pipe, socket or device.
    Other,
}

impl Node {
    /// A directory of root.
    pub fn directory(mode: u32) -> Self {
        Self { kind: Kind::Directory, mode, uid: 0, gid: 0, mtime: None, object: Arc::default() }
    }

    /// A file of root.
    pub fn file(mode: u32, size: u64, object: impl Into<Arc<str>>) -> Self {
        Self { kind: Kind::File(size), mode, uid: 0, gid: 0, mtime: None, object: object.into() }
    }

    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// Texts that many copies of a [`Node`] share.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

/// A tree that can be looked into. Paths are relative with `/`, without `.` and `..`; the empty path is the root.
pub(crate) trait Tree {
    /// What is at `path`, no part of which is followed if it is a link.
    fn lookup(&self, path: &str) -> io::Result<Option<Node>>;
    /// The names in the directory `path`, sorted, with what they are.
    fn list(&self, path: &str) -> io::Result<Vec<(String, Node)>>;
    /// What identifies the content of the regular file `path`, which is `node`.
    fn object(&self, path: &str, node: &Node) -> io::Result<Arc<str>>;
}

/// What is at `path`, after following links on the way, and at its end if `follow` says so. Links stay inside the tree,
/// as for a program whose root it is. The path that comes back has no links on the way.
pub(crate) fn find(tree: &dyn Tree, path: &str, follow: bool) -> io::Result<Option<(String, Node)>> {
    let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut at = String::new();
    let mut node = tree.lookup("")?.unwrap_or_else(|| Node::directory(0o755));
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                at = parent(&at).to_owned();
                node = tree.lookup(&at)?.unwrap_or_else(|| Node::directory(0o755));
                continue;
            }
            _ => {}
        }
        let next = join(&at, &part);
        let Some(found) = tree.lookup(&next)? else { return Ok(None) };
        let last = ahead.iter().all(|part| part.is_empty());
        match &found.kind {
            Kind::Symlink(target) if follow || !last => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other(format!("{path}: too many symbolic links")));
                }
                if target.starts_with('/') {
                    at.clear();
                }
                ahead.extend(target.split('/').rev().map(str::to_owned));
                node = Node::directory(0o755);
            }
            _ => {
                at = next;
                node = found;
            }
        }
    }
    if at.is_empty() {
        node = tree.lookup("")?.unwrap_or_else(|| Node::directory(0o755));
    }
    Ok(Some((at, node)))
}

/// `name` in the directory `path`.
pub(crate) fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_owned(),
        (path, "") => path.to_owned(),
        (path, name) => format!("{path}/{name}"),
    }
}

/// The directory that `path` is in.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The last part of `path`.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// A path as written, made relative to the root: without `.`, doubled and outer slashes; `..` stops at the root.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A tree in memory: `path/` is a directory, `path -> target` a link, `path = content` a file.
    pub(crate) struct Sample(BTreeMap<String, Node>);

    impl Sample {
        pub(crate) fn new(lines: &[&str]) -> Self {
            let mut nodes = BTreeMap::new();
            for line in lines {
                let (path, node) = if let Some((path, target)) = line.split_once(" -> ") {
                    (path, Node { kind: Kind::Symlink(target.to_owned()), ..Node::directory(0o777) })
                } else if let Some((path, content)) = line.split_once(" = ") {
                    (path, Node::file(0o644, content.len() as u64, format!("test:{content}")))
                } else {
                    (line.trim_end_matches('/'), Node::directory(0o755))
                };
                let mut up = parent(path);
                while !up.is_empty() {
                    nodes.entry(up.to_owned()).or_insert_with(|| Node::directory(0o755));
                    up = parent(up);
                }
                nodes.insert(path.to_owned(), node);
            }
            nodes.insert(String::new(), Node::directory(0o755));
            Self(nodes)
        }
    }

    impl Sample {
        pub(crate) fn set(&mut self, path: &str, node: Node) {
            self.0.insert(path.to_owned(), node);
        }
    }

    impl Tree for Sample {
        fn lookup(&self, path: &str) -> io::Result<Option<Node>> {
            Ok(self.0.get(path).cloned())
        }

        fn list(&self, path: &str) -> io::Result<Vec<(String, Node)>> {
            let inside = |(at, node): (&String, &Node)| {
                (parent(at) == path && !at.is_empty()).then(|| (base_name(at).to_owned(), node.clone()))
            };
            Ok(self.0.iter().filter_map(inside).collect())
        }

        fn object(&self, _: &str, node: &Node) -> io::Result<Arc<str>> {
            Ok(node.object.clone())
        }
    }

    #[test]
    fn links_stay_inside() {
        let tree = Sample::new(&[
            "etc/passwd = x",
            "up -> ../../../etc",
            "abs -> /etc",
            "loop -> loop",
            "a/b -> ../etc/passwd",
        ]);
        let at = |path: &str, follow| find(&tree, path, follow).unwrap().map(|(at, _)| at);
        assert_eq!(at("up/passwd", true).as_deref(), Some("etc/passwd"));
        assert_eq!(at("abs/passwd", true).as_deref(), Some("etc/passwd"));
        assert_eq!(at("a/b", true).as_deref(), Some("etc/passwd"));
        assert_eq!(at("a/b", false).as_deref(), Some("a/b"));
        assert_eq!(at("a/../../etc", true).as_deref(), Some("etc"));
        assert_eq!(at("none", true), None);
        assert_eq!(at("", true).as_deref(), Some(""));
        assert!(find(&tree, "loop", true).is_err());
    }
}
