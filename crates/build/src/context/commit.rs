//! A commit as context: files come from git's objects, nothing is checked out.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use git::{BlobBatch, GitError, Repository};
use model::CommitId;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::runtime::Handle;

use crate::error::{BuildError, chain};
use crate::files::{Kind, Node};

/// The longest target of a symbolic link, in bytes.
const LONGEST_LINK: u64 = 4096;

/// Reads objects of a repository.
pub(super) struct CommitReader {
    repository: Repository,
    handle: Handle,
    batch: Mutex<Option<BlobBatch>>,
}

impl CommitReader {
    /// The reader, and everything below `path` of the commit but its directories.
    pub fn open(
        repository: Repository,
        commit: &CommitId,
        path: &str,
        handle: &Handle,
    ) -> Result<(Self, BTreeMap<String, Node>), BuildError> {
        let entries = handle.block_on(repository.tree(commit, path))?;
        let reader = Self { repository, handle: handle.clone(), batch: Mutex::new(None) };
        let mut nodes = BTreeMap::new();
        for entry in entries {
            let object: Arc<str> = format!("git:{}", entry.object).into();
            let size = entry.size.unwrap_or(0);
            let node = match entry.mode {
                git::Mode::File => Node::file(0o644, size, object),
                git::Mode::Executable => Node::file(0o755, size, object),
                git::Mode::Symlink => {
                    let mut target = Vec::new();
                    let mut read =
                        |content: &mut dyn Read| content.take(LONGEST_LINK).read_to_end(&mut target).map(|_| ());
                    let read = reader.with_blob(&object, &mut read).and_then(|read| read);
                    read.map_err(BuildError::io(format!("cannot read the link {}", entry.path)))?;
                    let kind = Kind::Symlink(String::from_utf8_lossy(&target).into_owned());
                    Node { kind, mode: 0o777, object, ..Node::directory(0) }
                }
                // The files of a submodule are in another repository.
                git::Mode::Gitlink => continue,
            };
            // What is asked for may itself be a file; then nothing lies below it.
            let Some(relative) = below(&entry.path, path) else { continue };
            nodes.insert(relative.to_owned(), node);
        }
        Ok((reader, nodes))
    }

    /// The content of a small file of the commit.
    pub fn read_text(&self, path: &str, node: &Node, limit: u64) -> Result<Vec<u8>, BuildError> {
        let unusable = |message: &str| BuildError::Unusable { path: path.to_owned(), message: message.to_owned() };
        match node.kind {
            Kind::File(size) if size <= limit => {}
            Kind::File(_) => return Err(unusable(&format!("it has more than {limit} bytes"))),
            _ => return Err(unusable("it is not a regular file")),
        }
        let mut bytes = Vec::new();
        let mut read = |content: &mut dyn Read| content.read_to_end(&mut bytes).map(|_| ());
        let read = self.with_blob(&node.object, &mut read).and_then(|read| read);
        read.map_err(BuildError::io(format!("cannot read {path}")))?;
        Ok(bytes)
    }

    /// Gives the content of the blob `object` (`git:<name>`) to `read`. One at a time: they come from one git process.
    pub fn with_blob<T>(&self, object: &str, read: &mut dyn FnMut(&mut dyn Read) -> T) -> io::Result<T> {
        let name = object.strip_prefix("git:").unwrap_or(object);
        let mut batch = self.batch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let failed = |error: GitError| io::Error::other(chain(&error));
        let mut opened = match batch.take() {
            Some(batch) => batch,
            None => self.handle.block_on(self.repository.blobs()).map_err(failed)?,
        };
        let result = {
            let blob = self.handle.block_on(opened.read(name)).map_err(failed)?;
            read(&mut Blocking { inner: Box::pin(blob), handle: &self.handle })
        };
        // Not after an error: a process whose answer was not read to its end is of no use any more.
        *batch = Some(opened);
        Ok(result)
    }
}

/// `path` relative to the directory `directory` that it lies in.
fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    if directory.is_empty() { Some(path) } else { path.strip_prefix(directory)?.strip_prefix('/') }
}

/// Reads what is async from a thread that may block.
struct Blocking<'a> {
    inner: Pin<Box<dyn AsyncRead + Send + 'a>>,
    handle: &'a Handle,
}

impl Read for Blocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.handle.block_on(self.inner.read(buffer))
    }
}
