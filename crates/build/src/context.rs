//! The files of a build: a commit of a repository of ours, or a directory.

mod commit;
mod directory;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use model::CommitId;
use tokio::runtime::Handle;

use crate::error::BuildError;
use crate::files::{Kind, Node, Tree, clean, parent};
use crate::ignore::IgnoreRules;
use commit::CommitReader;
use directory::DirectoryReader;

/// The most files a context may have.
const MOST_FILES: usize = 2_000_000;

/// The longest ignore file or Dockerfile that is read, in bytes.
const LONGEST_TEXT: u64 = 1 << 20;

/// Where the files of a build are.
#[derive(Clone, Debug)]
pub enum Context {
    /// Below `path` (empty for all) of a commit. Nothing is checked out.
    Commit {
        /// The repository.
        repository: git::Repository,
        /// The commit.
        commit: CommitId,
        /// A directory in it.
        path: String,
    },
    /// A directory on this machine. Links in it are never followed out of it.
    Directory(PathBuf),
}

/// A context with its ignore rules applied: what instructions may see.
pub(crate) struct ContextFiles {
    nodes: BTreeMap<String, Node>,
    /// The Dockerfile and the ignore files, which are read even if they are ignored.
    texts: BTreeMap<String, Node>,
    reader: Reader,
    /// What the ignore file was called, and its rules.
    ignore: Option<(String, IgnoreRules)>,
}

enum Reader {
    Commit(Box<CommitReader>),
    Directory(DirectoryReader),
}

impl ContextFiles {
    /// Looks through a context. Must be called from a thread that may block.
    pub fn open(context: &Context, dockerfile: &str, handle: &Handle) -> Result<Self, BuildError> {
        let dockerfile = clean(dockerfile);
        let candidates = [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()];
        match context {
            Context::Commit { repository, commit, path } => {
                let (reader, all) = CommitReader::open(repository.clone(), commit, &clean(path), handle)?;
                let own = |path: &&String| all.get(*path).map(|node| ((*path).clone(), node.clone()));
                let texts = candidates.iter().chain([&dockerfile]).filter_map(|path| own(&path)).collect();
                let mut files = Self { nodes: all, texts, reader: Reader::Commit(Box::new(reader)), ignore: None };
                files.ignore = files.read_rules(&candidates)?;
                if let Some((_, rules)) = &files.ignore {
                    // Directories come back with what is kept in them.
                    files.nodes.retain(|path, node| !node.is_directory() && !rules.ignores(path));
                }
                add_parents(&mut files.nodes);
                files.check_count()?;
                Ok(files)
            }
            Context::Directory(dir) => {
                let reader = DirectoryReader::open(dir)?;
                let (nodes, texts) = (BTreeMap::new(), BTreeMap::new());
                let mut files = Self { nodes, texts, reader: Reader::Directory(reader), ignore: None };
                files.ignore = files.read_rules(&candidates)?;
                let rules = files.ignore.as_ref().map(|(_, rules)| rules.clone()).unwrap_or_default();
                if let Reader::Directory(reader) = &files.reader {
                    files.nodes = reader.walk(&rules, MOST_FILES)?;
                }
                add_parents(&mut files.nodes);
                files.check_count()?;
                Ok(files)
            }
        }
    }

    fn check_count(&self) -> Result<(), BuildError> {
        if self.nodes.len() <= MOST_FILES {
            return Ok(());
        }
        let message = format!("it has more than {MOST_FILES} files");
        Err(BuildError::Unusable { path: "the build context".to_owned(), message })
    }

    fn read_rules(&self, candidates: &[String]) -> Result<Option<(String, IgnoreRules)>, BuildError> {
        for path in candidates {
            let Some(text) = self.read_text(path)? else { continue };
            let rules = IgnoreRules::parse(&text)
                .map_err(|error| BuildError::Unusable { path: path.clone(), message: error.to_string() })?;
            return Ok(Some((path.clone(), rules)));
        }
        Ok(None)
    }

    /// The text of a file, whether it is ignored or not; nothing if there is none.
    pub fn read_text(&self, path: &str) -> Result<Option<String>, BuildError> {
        let path = clean(path);
        let found = match &self.reader {
            Reader::Commit(reader) => match self.texts.get(&path) {
                Some(node) => Some(reader.read_text(&path, node, LONGEST_TEXT)?),
                None => None,
            },
            Reader::Directory(reader) => reader.read_text(&path, LONGEST_TEXT)?,
        };
        let Some(bytes) = found else { return Ok(None) };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| BuildError::Unusable { path, message: "it is not UTF-8 text".to_owned() })
    }

    /// The ignore file that leaves `path` out, if one does.
    pub fn ignored_by(&self, path: &str) -> Option<&str> {
        self.ignore.as_ref().filter(|(_, rules)| rules.ignores(path)).map(|(name, _)| name.as_str())
    }

    /// Gives the content of the regular file `path` to `read`.
    pub fn with_content<T>(&self, path: &str, read: &mut dyn FnMut(&mut dyn Read) -> T) -> io::Result<T> {
        match &self.reader {
            Reader::Commit(reader) => {
                let node = self.nodes.get(path).ok_or_else(|| missing(path))?;
                reader.with_blob(&node.object, read)
            }
            Reader::Directory(reader) => Ok(read(&mut reader.file(path)?)),
        }
    }
}

fn missing(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{path} is not in the build context"))
}

/// Adds the directories that files lie in.
fn add_parents(nodes: &mut BTreeMap<String, Node>) {
    let mut above = BTreeSet::new();
    for path in nodes.keys() {
        let mut up = parent(path);
        while !up.is_empty() && !above.contains(up) {
            above.insert(up.to_owned());
            up = parent(up);
        }
    }
    for path in above {
        nodes.entry(path).or_insert_with(|| Node::directory(0o755));
    }
}

impl Tree for ContextFiles {
    fn lookup(&self, path: &str) -> io::Result<Option<Node>> {
        Ok(if path.is_empty() { Some(Node::directory(0o755)) } else { self.nodes.get(path).cloned() })
    }

    fn list(&self, path: &str) -> io::Result<Vec<(String, Node)>> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let mut found = Vec::new();
        let mut from = prefix.clone();
        // From one child to the next, over all that lies in between.
        while let Some((at, node)) = self.nodes.range(from..).next() {
            let Some(rest) = at.strip_prefix(&prefix) else { break };
            match rest.split_once('/') {
                None => {
                    found.push((rest.to_owned(), node.clone()));
                    from = format!("{at}\0");
                }
                // Below a child that was met already: on to what sorts after all that lies in it ('0' follows '/').
                Some((name, _)) => from = format!("{prefix}{name}0"),
            }
        }
        Ok(found)
    }

    fn object(&self, path: &str, node: &Node) -> io::Result<Arc<str>> {
        match (&self.reader, &node.kind) {
            (Reader::Directory(reader), Kind::File(_)) => crate::view::hash_file(&mut reader.file(path)?),
            _ => Ok(node.object.clone()),
        }
    }
}
