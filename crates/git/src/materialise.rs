//! Writing the files of a commit into a directory.

mod writer;

use std::path::Path;
use std::process::Stdio;

use model::{CommitId, Timestamp};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;

use crate::listing::Listing;
use crate::{GitError, Mode, Repository, path, process};

/// How many lists of files may wait for the one who writes them.
const WAITING: usize = 4;

/// What to write, and how.
pub struct Materialise<'a> {
    /// The directory of the commit whose content is wanted; everything if it is empty.
    pub path: &'a str,
    /// The user and group ids that all files, directories and links get; nothing leaves them to the process.
    pub owner: Option<(u32, u32)>,
    /// When all files, directories and links were changed last.
    pub mtime: Timestamp,
    /// Whether a file is wanted, by its path from `path` on. A directory is made when a file in it is.
    pub keep: &'a (dyn Fn(&str) -> bool + Send + Sync),
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files, executable or not.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Directories, without the destination.
    pub directories: u64,
    /// Submodules, of which nothing is written.
    pub submodules: u64,
    /// The length of all files together, in bytes.
    pub bytes: u64,
}

/// A file to be written, with its path from the destination on.
struct Wanted {
    mode: Mode,
    path: Vec<u8>,
}

impl Repository {
    /// Writes the files of a directory of `commit` into the directory `dest`, which is made if it does not exist.
    ///
    /// Files get mode 0644 or 0755, directories 0755, whatever the umask. A file or link that is there already is
    /// replaced, other files are left alone. Nothing is written through a symbolic link, not even if another process puts
    /// one in the way. Memory does not grow with the size or number of files. The files are not synced.
    ///
    /// # Errors
    /// When the commit or its directory does not exist, when a path leads into `.git`, out of `dest` or more than 200
    /// directories deep, when there are more than a million files or 64 GiB, or when writing or git fails. What was
    /// written until then stays.
    pub async fn materialise(
        &self,
        commit: &CommitId,
        wanted: Materialise<'_>,
        dest: &Path,
    ) -> Result<Summary, GitError> {
        let Some(tree) = self.tree_id(commit, wanted.path).await? else {
            return Err(GitError::NoPath { commit: commit.clone(), path: path::clip(wanted.path) });
        };
        let listing = self.listing(&tree, None, false)?;
        let (reader, blobs) = std::io::pipe().map_err(|error| GitError::run("read blobs", error))?;
        // Larger pipes mean fewer switches between git and us; the default works too.
        let _ = rustix::pipe::fcntl_setpipe_size(&reader, 1 << 20);
        let (mut child, stdin) = self.cat_file(blobs)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let (dest, owner, mtime) = (dest.to_owned(), wanted.owner, wanted.mtime);
        let writing = tokio::task::spawn_blocking(move || writer::write(&dest, owner, mtime, reader, receiver));
        let asked = ask(listing, stdin, sender, wanted.keep).await;
        if asked.is_err() {
            // Ends the writer, which would wait for what was not asked for.
            let _ = child.start_kill();
        }
        let written = writing.await.map_err(|error| GitError::run("write files", std::io::Error::other(error)))?;
        if written.is_err() {
            let _ = child.start_kill();
        }
        let stderr = process::tail(child.stderr.take()).await;
        let status = child.wait().await.map_err(|error| GitError::run("read blobs", error))?;
        match (asked, written) {
            (Ok(submodules), Ok(summary)) if status.success() => Ok(Summary { submodules, ..summary }),
            (Ok(_), Ok(_)) => Err(GitError::failed("read blobs", process::message(status, &stderr))),
            (Err(Stopped::Error(error)), _) => Err(error),
            // Git broke off, and its own words are better than ours.
            (_, Err(GitError::Run { .. })) if !stderr.trim().is_empty() => {
                Err(GitError::failed("read blobs", process::message(status, &stderr)))
            }
            (_, Err(error)) => Err(error),
            (Err(Stopped::Ended), Ok(_)) => Err(GitError::failed("read blobs", process::message(status, &stderr))),
        }
    }

    fn cat_file(&self, stdout: std::io::PipeWriter) -> Result<(Child, ChildStdin), GitError> {
        let mut command = self.command();
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| GitError::run("read blobs", error))?;
        match child.stdin.take() {
            Some(stdin) => Ok((child, stdin)),
            None => Err(GitError::run("read blobs", std::io::ErrorKind::BrokenPipe.into())),
        }
    }
}

/// Why not everything was asked for.
enum Stopped {
    /// Something failed here.
    Error(GitError),
    /// The writer or git has ended, and knows why.
    Ended,
}

/// Asks git for all files that are wanted, in the order in which the writer is told of them. Returns how many submodules
/// were passed over.
async fn ask(
    mut listing: Listing,
    mut stdin: ChildStdin,
    sender: mpsc::Sender<Vec<Wanted>>,
    keep: &(dyn Fn(&str) -> bool + Send + Sync),
) -> Result<u64, Stopped> {
    let mut submodules = 0;
    while let Some(listed) = listing.next().await.map_err(Stopped::Error)? {
        let mut files = Vec::with_capacity(listed.len());
        let mut question = String::new();
        for file in listed {
            if file.mode == Mode::Gitlink {
                submodules += 1;
            } else if keep(&path::text(&file.path)) {
                if let Some(why) = path::forbidden(&file.path) {
                    let path = path::clip(&path::text(&file.path));
                    return Err(Stopped::Error(GitError::BadPath { path, why }));
                }
                question.push_str(&file.object);
                question.push('\n');
                files.push(Wanted { mode: file.mode, path: file.path });
            }
        }
        // The writer first: git answers no further than somebody reads.
        sender.send(files).await.map_err(|_| Stopped::Ended)?;
        stdin.write_all(question.as_bytes()).await.map_err(|_| Stopped::Ended)?;
    }
    Ok(submodules)
}
