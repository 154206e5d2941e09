//! The git program behind smart HTTP: advertisements and fetches. Bodies stream.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use model::RepoId;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::feed::{self, IDLE};
use crate::hosting::Hosting;
use crate::pkt::Packet;

/// Which program a client talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Fetch and clone.
    UploadPack,
    /// Push.
    ReceivePack,
}

impl Service {
    /// The service of a `service=` parameter or of the last part of a path.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "git-upload-pack" => Some(Self::UploadPack),
            "git-receive-pack" => Some(Self::ReceivePack),
            _ => None,
        }
    }

    /// Its name, as clients write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    const fn command(self) -> &'static str {
        match self {
            Self::UploadPack => "upload-pack",
            Self::ReceivePack => "receive-pack",
        }
    }
}

/// Why git cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot be started.
    #[error("the git program cannot be started: {0}")]
    Start(io::Error),
    /// It failed before it said anything.
    #[error("git {command} failed: {message}")]
    Failed {
        /// The command.
        command: &'static str,
        /// Its last words.
        message: String,
    },
    /// The list of refs is too long.
    #[error("the repository's refs are more than {MOST_REFS} bytes: delete some, or fetch with protocol version 2")]
    TooManyRefs,
}

/// The body of an answer.
pub type Body = ReceiverStream<io::Result<Bytes>>;

/// Bytes of an advertisement: some 500,000 refs.
const MOST_REFS: u64 = 32 << 20;

/// How long a git process that has closed its output may take to end.
const ENDING: Duration = Duration::from_secs(30);

/// Receiving: objects are checked, refs of ours are out of reach, nothing runs on its own afterwards.
const RECEIVE: &[&str] = &[
    "-c",
    "receive.hideRefs=refs/towpath",
    "-c",
    "receive.advertisePushOptions=true",
    "-c",
    "receive.fsckObjects=true",
    "-c",
    "receive.denyDeleteCurrent=ignore",
    "-c",
    "receive.autogc=false",
    // One pack a push: written with two syncs, and its large files are sent to others as they are.
    "-c",
    "receive.unpackLimit=1",
    "-c",
    "receive.maxInputSize=8g",
    // Faults of old versions of git, harmless, and in many a history that nobody can change.
    "-c",
    "receive.fsck.zeroPaddedFilemode=ignore",
    "-c",
    "receive.fsck.missingSpaceBeforeDate=ignore",
    "-c",
    "receive.fsck.badTimezone=ignore",
];

/// Serving: partial clones, and any commit that a ref reaches.
const UPLOAD: &[&str] = &["-c", "uploadpack.allowFilter=true", "-c", "uploadpack.allowReachableSHA1InWant=true"];

/// Adds `no-thin` to the capabilities of a push.
///
/// A thin pack holds a changed large file as a difference from the one we have, and git resolves those in memory. A
/// client that is asked so sends the file whole, and whole files stream.
fn ask_for_whole_objects(refs: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Ok(Some((packet, length))) = crate::pkt::next(&refs[at..]) {
        if let Packet::Data(line) = packet
            && line.contains(&0)
        {
            let line = [line.trim_ascii_end(), b" no-thin\n"].concat();
            return [&refs[..at], &crate::pkt::line(&line), &refs[at + length..]].concat();
        }
        at += length;
    }
    refs
}

impl Hosting {
    /// The answer to `GET …/info/refs?service=…`; `protocol` is the `Git-Protocol` header.
    ///
    /// # Errors
    /// When git cannot be started or fails.
    pub async fn advertise(&self, id: RepoId, service: Service, protocol: Option<&str>) -> Result<Bytes, ServeError> {
        let mut command = self.serve_command(id, service, protocol, &["--http-backend-info-refs"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(ServeError::Start)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (refs, message) = tokio::join!(limited(stdout, MOST_REFS), limited(stderr, 8 << 10));
        let (refs, message) = (refs.map_err(ServeError::Start)?, message.map_err(ServeError::Start)?);
        if refs.len() as u64 > MOST_REFS {
            terminate(&mut child).await;
            return Err(ServeError::TooManyRefs);
        }
        if !child.wait().await.map_err(ServeError::Start)?.success() {
            let message = String::from_utf8_lossy(&message).trim().to_owned();
            return Err(ServeError::Failed { command: service.command(), message });
        }
        let mut body = Vec::with_capacity(refs.len() + 40);
        // Version 2 leaves the service line out, as git's own http-backend does. Receiving knows no version 2.
        let version_2 =
            service == Service::UploadPack && protocol.is_some_and(|it| it.split(':').any(|v| v == "version=2"));
        if !version_2 {
            body.extend(crate::pkt::line(format!("# service={}\n", service.name()).as_bytes()));
            body.extend_from_slice(b"0000");
        }
        body.extend(if service == Service::ReceivePack { ask_for_whole_objects(refs) } else { refs });
        Ok(body.into())
    }

    /// The answer to `POST …/git-upload-pack`. A client that goes away takes its git with it.
    ///
    /// # Errors
    /// When git cannot be started.
    pub fn upload_pack<S>(&self, id: RepoId, protocol: Option<&str>, gzip: bool, body: S) -> Result<Body, ServeError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    {
        let (mut child, stdin, mut stdout) = self.start(id, Service::UploadPack, protocol)?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            let drain = async {
                while let Some(chunk) = read_chunk(&mut stdout).await {
                    if !matches!(tokio::time::timeout(IDLE, sender.send(chunk)).await, Ok(Ok(()))) {
                        return false;
                    }
                }
                true
            };
            // The answer may begin before the request has ended, and ends with the answer.
            let complete = tokio::select! {
                complete = drain => complete,
                () = sender.closed() => false,
                Err(error) = feed::feed_fetch(stdin, gzip, body) => {
                    let _ = tokio::time::timeout(IDLE, sender.send(Err(error))).await;
                    false
                }
            };
            drop(stdout);
            if complete { finish(&mut child).await } else { terminate(&mut child).await }
        });
        Ok(ReceiverStream::new(receiver))
    }

    fn serve_command(
        &self,
        id: RepoId,
        service: Service,
        protocol: Option<&str>,
        extra: &[&str],
    ) -> tokio::process::Command {
        let dir = self.directory(id);
        let mut command = self.git.command(&dir);
        command.args(if service == Service::UploadPack { UPLOAD } else { RECEIVE });
        command.arg(service.command()).arg("--stateless-rpc").args(extra).arg(".");
        if let Some(protocol) = protocol.filter(|it| it.len() <= 256) {
            command.env("GIT_PROTOCOL", protocol);
        }
        command.kill_on_drop(true);
        command
    }

    pub(crate) fn start(
        &self,
        id: RepoId,
        service: Service,
        protocol: Option<&str>,
    ) -> Result<(Child, ChildStdin, ChildStdout), ServeError> {
        let mut command = self.serve_command(id, service, protocol, &[]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(ServeError::Start)?;
        let missing = || ServeError::Start(io::Error::other("no pipe"));
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        Ok((child, stdin, stdout))
    }
}

pub(crate) async fn read_chunk(stdout: &mut ChildStdout) -> Option<io::Result<Bytes>> {
    let mut buffer = bytes::BytesMut::with_capacity(64 << 10);
    match stdout.read_buf(&mut buffer).await {
        Ok(0) => None,
        Ok(_) => Some(Ok(buffer.freeze())),
        Err(error) => Some(Err(error)),
    }
}

/// Reads a little more than `limit` bytes at most.
async fn limited(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(limit + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// Waits for a git process that has nothing more to say.
pub(crate) async fn finish(child: &mut Child) {
    if tokio::time::timeout(ENDING, child.wait()).await.is_err() {
        terminate(child).await;
    }
}

/// Ends a git process and those it has started. It may remove its temporary files first.
async fn terminate(child: &mut Child) {
    signal(child, Signal::TERM);
    if tokio::time::timeout(Duration::from_secs(2), child.wait()).await.is_err() {
        signal(child, Signal::KILL);
        let _ = child.wait().await;
    }
}

/// Signals the process group of a process that has not been waited for, so that its number is its own.
fn signal(child: &Child, signal: Signal) {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_asked_for_whole_objects() {
        let first =
            crate::pkt::line(b"1111111111111111111111111111111111111111 refs/heads/main\0report-status atomic\n");
        let second = crate::pkt::line(b"1111111111111111111111111111111111111111 refs/heads/next\n");
        let asked = ask_for_whole_objects([first, second.clone(), b"0000".to_vec()].concat());
        let text = String::from_utf8(asked).unwrap();
        assert!(text.contains("\0report-status atomic no-thin\n"), "{text:?}");
        assert!(text.ends_with(&format!("{}0000", String::from_utf8(second).unwrap())));
        let (packet, _) = crate::pkt::next(text.as_bytes()).unwrap().unwrap();
        assert!(matches!(packet, Packet::Data(line) if line.ends_with(b"no-thin\n")));
    }
}
