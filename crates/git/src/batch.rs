//! Reading many blobs through one git process.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf, Take};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::{GitError, Repository, process};

const WHAT: &str = "read a blob";

/// A running `git cat-file --batch`: hands out one blob after the other, in any order, without holding them in memory.
pub struct BlobBatch {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    repository: Repository,
    /// How much of the last blob, with the newline behind it, is still to come.
    unread: u64,
}

/// A blob that is being read: [`AsyncRead`] that ends with it. What is left unread is skipped.
pub struct Blob<'a> {
    content: Take<&'a mut BufReader<ChildStdout>>,
    unread: &'a mut u64,
    size: u64,
}

impl Repository {
    /// Starts a process that reads blobs.
    ///
    /// # Errors
    /// When git cannot be started.
    pub async fn blobs(&self) -> Result<BlobBatch, GitError> {
        let error = |error| GitError::run(WHAT, error);
        let mut command = self.command();
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(error)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(error(io::ErrorKind::BrokenPipe.into()));
        };
        let stdout = BufReader::with_capacity(64 << 10, stdout);
        Ok(BlobBatch { child, stdin, stdout, repository: self.clone(), unread: 0 })
    }
}

impl BlobBatch {
    /// The blob with the full name `object`.
    ///
    /// # Errors
    /// When there is no such object, it is not a blob, or git fails.
    pub async fn read(&mut self, object: &str) -> Result<Blob<'_>, GitError> {
        self.repository.object_name(object)?;
        let header = match self.ask(object).await {
            Ok(header) if header.ends_with('\n') => header,
            Ok(_) => return Err(self.ended(io::ErrorKind::UnexpectedEof.into()).await),
            Err(error) => return Err(self.ended(error).await),
        };
        let fields: Vec<&str> = header.split_ascii_whitespace().collect();
        let (kind, size) = match fields[..] {
            [name, ..] if name != object => return Err(GitError::answer(WHAT, header.as_bytes())),
            [_, "missing"] => return Err(GitError::NoObject { object: object.to_owned() }),
            [_, kind, size] => (kind, size.parse::<u64>().map_err(|_| GitError::answer(WHAT, header.as_bytes()))?),
            _ => return Err(GitError::answer(WHAT, header.as_bytes())),
        };
        self.unread = size.saturating_add(1);
        let found = match kind {
            "blob" => return Ok(Blob { content: (&mut self.stdout).take(size), unread: &mut self.unread, size }),
            "tree" => "a directory",
            "commit" => "a commit",
            _ => "a tag",
        };
        Err(GitError::WrongKind { path: object.to_owned(), found, wanted: "a file" })
    }

    /// The blob `object`, whole.
    ///
    /// # Errors
    /// As [`Self::read`], and when it is longer than `limit` bytes.
    pub async fn bytes(&mut self, object: &str, limit: u64) -> Result<Vec<u8>, GitError> {
        let mut blob = self.read(object).await?;
        if blob.size() > limit {
            return Err(GitError::TooLarge { what: format!("object {object}"), limit, unit: "bytes" });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size()).unwrap_or(0));
        blob.read_to_end(&mut bytes).await.map_err(|error| GitError::run(WHAT, error))?;
        Ok(bytes)
    }

    /// Skips what is left of the last blob, asks for the next one, and returns the line before it.
    async fn ask(&mut self, object: &str) -> io::Result<String> {
        while self.unread > 0 {
            let there = self.stdout.fill_buf().await?.len() as u64;
            if there == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let skipped = there.min(self.unread);
            self.stdout.consume(usize::try_from(skipped).unwrap_or(usize::MAX));
            self.unread -= skipped;
        }
        self.stdin.write_all(format!("{object}\n").as_bytes()).await?;
        self.stdin.flush().await?;
        let mut header = String::new();
        (&mut self.stdout).take(1024).read_line(&mut header).await?;
        Ok(header)
    }

    /// Why the process has ended.
    async fn ended(&mut self, error: io::Error) -> GitError {
        let stderr = process::tail(self.child.stderr.take()).await;
        if stderr.trim().is_empty() {
            return GitError::run(WHAT, error);
        }
        match self.child.wait().await {
            Ok(status) => GitError::failed(WHAT, process::message(status, &stderr)),
            Err(error) => GitError::run(WHAT, error),
        }
    }
}

impl Blob<'_> {
    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl AsyncRead for Blob<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = this.content.limit();
        let wanted = buf.remaining() > 0;
        ready!(Pin::new(&mut this.content).poll_read(cx, buf))?;
        let count = before - this.content.limit();
        *this.unread -= count;
        if count == 0 && before > 0 && wanted {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(()))
    }
}
