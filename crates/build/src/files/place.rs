//! Where files go: the destination rules of COPY and ADD, on top of what the stage holds already.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use super::{Kind, MAX_LINKS, Node, Picked, Picks, Tree, base_name, join, parent};
use crate::mode::ModeChange;

/// Where a COPY or ADD puts what it picked.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// Relative to the root, cleaned.
    pub path: String,
    /// Whether it was written as a directory: with a slash at the end, or as `.`.
    pub directory: bool,
    /// `--chown`, as ids.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub mode: Option<ModeChange>,
}

/// The files of a layer, before it is written.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    /// By path; parents come before what is in them.
    pub entries: BTreeMap<String, Entry>,
    /// Archives that are unpacked into the layer after the entries.
    pub archives: Vec<Archive>,
}

/// A file of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Option<i64>,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug)]
pub(crate) enum EntryKind {
    Directory,
    File {
        size: u64,
        content: Content,
    },
    Symlink(String),
    /// Written when its archive is.
    Archived(Kind),
}

/// Where the content of a file comes from.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The file at this path of the tree that was picked from.
    Tree(String),
    /// This text.
    Inline(Arc<str>),
}

/// An archive, and what becomes of each of its entries.
#[derive(Debug)]
pub(crate) struct Archive {
    pub content: Content,
    /// One for each entry, in order: its path in the layer; nothing if it is left out.
    pub paths: Vec<Option<String>>,
    pub owner: Option<(u32, u32)>,
}

/// Why files cannot go where they should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// A file stands where a directory would have to be, or the reverse.
    #[error("{0}")]
    Conflict(String),
    /// Several files and a destination that is one file.
    #[error("several files cannot be copied to the one file /{0}")]
    Several(String),
    /// An archive holds what no layer may.
    #[error("the archive holds {path:?}, which is refused: {reason}")]
    Archive {
        /// The entry.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// The files below cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Entry {
    /// What it looks like from outside.
    pub fn node(&self) -> Node {
        let kind = match &self.kind {
            EntryKind::Directory => Kind::Directory,
            EntryKind::File { size, .. } => Kind::File(*size),
            EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
            EntryKind::Archived(kind) => kind.clone(),
        };
        Node { kind, mode: self.mode, uid: self.uid, gid: self.gid, mtime: self.mtime, object: Arc::default() }
    }
}

/// Places what was picked over `below`. `archives` has, for each pick, the entries of the archive that it is.
pub(crate) fn place(
    below: &dyn Tree,
    picks: &Picks,
    archives: &[Option<Vec<oci::tar::Entry>>],
    destination: &Destination,
) -> Result<Placement, PlaceError> {
    let mut placer = Placer { below, destination, out: Placement::default(), fresh: HashSet::new() };
    let files = picks.0.iter().filter(|picked| !picked.node.is_directory()).count();
    let into = destination.directory || placer.is_directory(&destination.path)?;
    if !into && picks.0.len() > 1 && files > 0 {
        return Err(PlaceError::Several(destination.path.clone()));
    }
    for (index, picked) in picks.0.iter().enumerate() {
        match archives.get(index).and_then(Option::as_ref) {
            Some(entries) => placer.archive(picked, entries)?,
            None => placer.picked(picked, into)?,
        }
    }
    if picks.0.is_empty() && destination.directory {
        placer.directory(&destination.path, None)?;
    }
    Ok(placer.out)
}

pub(super) struct Placer<'a> {
    below: &'a dyn Tree,
    pub(super) destination: &'a Destination,
    pub(super) out: Placement,
    /// Directories that nothing below has: what is in them needs no look.
    pub(super) fresh: HashSet<String>,
}

impl Placer<'_> {
    pub(super) fn lookup(&self, path: &str) -> io::Result<Option<Node>> {
        if let Some(entry) = self.out.entries.get(path) {
            return Ok(Some(entry.node()));
        }
        if self.fresh.contains(parent(path)) { Ok(None) } else { self.below.lookup(path) }
    }

    pub(super) fn is_directory(&self, path: &str) -> io::Result<bool> {
        Ok(super::find(self.below, path, true)?.is_some_and(|(_, node)| node.is_directory()))
    }

    fn picked(&mut self, picked: &Picked, into: bool) -> Result<(), PlaceError> {
        // With --parents the name is a path, whose directories come along.
        for (path, node) in &picked.above {
            self.directory(&join(&self.destination.path, path), Some(node))?;
        }
        if picked.node.is_directory() {
            let path = match picked.above.is_empty() && !picked.name.contains('/') {
                true => self.destination.path.clone(),
                false => join(&self.destination.path, &picked.name),
            };
            let base = self.directory(&path, Some(&picked.node))?;
            for (relative, node) in &picked.inside {
                self.put(join(&base, relative), node, &join(&picked.path, relative), None)?;
            }
            return Ok(());
        }
        let path = if into || !picked.above.is_empty() {
            let directory = self.directory(&join(&self.destination.path, parent(&picked.name)), None)?;
            join(&directory, base_name(&picked.name))
        } else {
            self.file_destination(&self.destination.path.clone(), 0)?
        };
        self.put(path, &picked.node, &picked.path, picked.inline.as_deref())
    }

    /// The path of a file, with links followed as an `open` for writing follows them.
    fn file_destination(&mut self, path: &str, links: usize) -> Result<String, PlaceError> {
        let directory = self.directory(parent(path), None)?;
        let at = join(&directory, base_name(path));
        match self.lookup(&at)?.map(|node| node.kind) {
            Some(Kind::Symlink(target)) if links < MAX_LINKS => {
                let target = if target.starts_with('/') { target } else { join(&directory, &target) };
                self.file_destination(&super::clean(&target), links + 1)
            }
            _ => Ok(at),
        }
    }

    /// Makes the directory `path` and those above it, following links, and returns where it really is. A directory that
    /// is there already comes along as it is, so that the layer does not change it; a new one at the end is like `like`.
    pub(super) fn directory(&mut self, path: &str, like: Option<&Node>) -> Result<String, PlaceError> {
        let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut at = String::new();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at = parent(&at).to_owned();
                    continue;
                }
                _ => {}
            }
            let next = join(&at, &part);
            match self.lookup(&next)? {
                None => {
                    let last = ahead.iter().all(|part| part.is_empty());
                    self.new_directory(&next, like.filter(|_| last));
                    at = next;
                }
                Some(node) => match &node.kind {
                    Kind::Directory => {
                        self.keep(&next, &node);
                        at = next;
                    }
                    Kind::Symlink(target) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(io::Error::other(format!("/{path}: too many symbolic links")).into());
                        }
                        if target.starts_with('/') {
                            at.clear();
                        }
                        ahead.extend(target.split('/').rev().map(str::to_owned));
                    }
                    _ => return Err(PlaceError::Conflict(format!("/{next} is a file: nothing can be put below it"))),
                },
            }
        }
        Ok(at)
    }

    fn new_directory(&mut self, path: &str, like: Option<&Node>) {
        let (uid, gid) = self.destination.owner.unwrap_or_else(|| like.map_or((0, 0), |node| (node.uid, node.gid)));
        let mode = like.map_or(0o755, |node| self.mode(node));
        let mtime = like.and_then(|node| node.mtime);
        self.out.entries.insert(path.to_owned(), Entry { kind: EntryKind::Directory, mode, uid, gid, mtime });
        self.fresh.insert(path.to_owned());
    }

    fn keep(&mut self, path: &str, node: &Node) {
        let Node { mode, uid, gid, mtime, .. } = *node;
        let entry = || Entry { kind: EntryKind::Directory, mode, uid, gid, mtime };
        self.out.entries.entry(path.to_owned()).or_insert_with(entry);
    }

    fn mode(&self, node: &Node) -> u32 {
        match &self.destination.mode {
            Some(change) => change.apply(node.mode, node.is_directory()),
            None => node.mode,
        }
    }

    fn put(&mut self, path: String, node: &Node, from: &str, inline: Option<&str>) -> Result<(), PlaceError> {
        let there = self.lookup(&path)?.map(|there| there.is_directory());
        match (there, node.is_directory()) {
            (Some(false), true) => {
                return Err(PlaceError::Conflict(format!(
                    "/{path} is no directory: the directory {from} cannot be copied over it"
                )));
            }
            (Some(true), false) => {
                return Err(PlaceError::Conflict(format!(
                    "/{path} is a directory: the file {from} cannot be copied over it"
                )));
            }
            (None, true) => drop(self.fresh.insert(path.clone())),
            _ => {}
        }
        let kind = match &node.kind {
            Kind::Directory => EntryKind::Directory,
            Kind::Symlink(target) => EntryKind::Symlink(target.clone()),
            Kind::File(size) => {
                let content =
                    inline.map_or_else(|| Content::Tree(from.to_owned()), |text| Content::Inline(text.into()));
                EntryKind::File { size: *size, content }
            }
            Kind::Other => return Err(PlaceError::Conflict(format!("{from} cannot be copied: it is no file"))),
        };
        let mode = if matches!(kind, EntryKind::Symlink(_)) { node.mode } else { self.mode(node) };
        let (uid, gid) = self.destination.owner.unwrap_or((node.uid, node.gid));
        self.out.entries.insert(path, Entry { kind, mode, uid, gid, mtime: node.mtime });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Sample;
    use super::super::{Pick, pick};
    use super::*;
    use crate::ignore::IgnoreRules;

    fn placed(below: &[&str], from: &[&str], sources: &[&str], to: &str) -> Result<Vec<String>, String> {
        let (below, from) = (Sample::new(below), Sample::new(from));
        let sources: Vec<String> = sources.iter().map(|s| (*s).to_owned()).collect();
        let excludes = IgnoreRules::default();
        let picks = pick(&from, &Pick { sources: &sources, excludes: &excludes, parents: false }).unwrap();
        let directory = to.ends_with('/');
        let destination = Destination { path: super::super::clean(to), directory, owner: None, mode: None };
        let placement = place(&below, &picks, &[], &destination).map_err(|error| error.to_string())?;
        let line = |(path, entry): (&String, &Entry)| match &entry.kind {
            EntryKind::Directory => format!("{path}/"),
            EntryKind::File { content: Content::Tree(from), .. } => format!("{path}={from}"),
            other => format!("{path} {other:?}"),
        };
        Ok(placement.entries.iter().map(line).collect())
    }

    #[test]
    fn destinations_as_docker_has_them() {
        let files = ["a = 1", "b = 2", "d/x = 3", "d/e/y = 4"];
        let ok = |below: &[&str], sources: &[&str], to: &str| placed(below, &files, sources, to).unwrap();
        assert_eq!(ok(&[], &["a"], "/new"), ["new=a"]);
        assert_eq!(ok(&[], &["a"], "/new/"), ["new/", "new/a=a"]);
        assert_eq!(ok(&["new/"], &["a"], "/new"), ["new/", "new/a=a"]);
        assert_eq!(ok(&[], &["d"], "/new"), ["new/", "new/e/", "new/e/y=d/e/y", "new/x=d/x"]);
        assert_eq!(ok(&[], &["a", "b", "d"], "/n/"), ["n/", "n/a=a", "n/b=b", "n/e/", "n/e/y=d/e/y", "n/x=d/x"]);
        assert_eq!(ok(&[], &["a"], "/"), ["a=a"]);
        assert_eq!(ok(&["new = old"], &["a"], "/new"), ["new=a"]);
        assert_eq!(ok(&["usr/lib/", "lib -> usr/lib"], &["a"], "/lib/x"), ["usr/", "usr/lib/", "usr/lib/x=a"]);
        assert_eq!(
            ok(&["usr/lib/", "lib -> /usr/lib"], &["d"], "/lib/"),
            ["usr/", "usr/lib/", "usr/lib/e/", "usr/lib/e/y=d/e/y", "usr/lib/x=d/x"]
        );
        assert_eq!(ok(&["l -> t"], &["a"], "/l"), ["t=a"]);
        assert_eq!(ok(&["s/e -> /elsewhere"], &["d/e"], "/s/f"), ["s/", "s/f/", "s/f/y=d/e/y"]);
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let files = ["a = 1", "b = 2", "d/x = 3"];
        let error = |below: &[&str], sources: &[&str], to: &str| placed(below, &files, sources, to).unwrap_err();
        assert_eq!(error(&[], &["a", "b"], "/n"), "several files cannot be copied to the one file /n");
        assert_eq!(error(&["n = x"], &["a"], "/n/"), "/n is a file: nothing can be put below it");
        assert_eq!(error(&["n/x/"], &["d"], "/n"), "/n/x is a directory: the file d/x cannot be copied over it");
        assert_eq!(error(&["l -> l"], &["d"], "/l/y"), "l/y: too many symbolic links");
    }

    #[test]
    fn a_directory_that_is_there_keeps_what_it_is() {
        let mut below = Sample::new(&["tmp/"]);
        below.set("tmp", Node { uid: 7, ..Node::directory(0o1777) });
        let from = Sample::new(&["a = 1"]);
        let excludes = IgnoreRules::default();
        let picks = pick(&from, &Pick { sources: &["a".into()], excludes: &excludes, parents: false }).unwrap();
        let destination = Destination {
            path: "tmp/new/a".into(),
            directory: false,
            owner: Some((5, 6)),
            mode: ModeChange::parse("u+x"),
        };
        let placement = place(&below, &picks, &[], &destination).unwrap();
        let meta = |path: &str| placement.entries.get(path).map(|entry| (entry.mode, entry.uid, entry.gid)).unwrap();
        assert_eq!(meta("tmp"), (0o1777, 7, 0));
        assert_eq!(meta("tmp/new"), (0o755, 5, 6));
        assert_eq!(meta("tmp/new/a"), (0o744, 5, 6));
    }
}
