//! Pushes.

use std::io;
use std::process::Stdio;

use bytes::Bytes;
use futures_util::Stream;
use git::{GitError, Repository};
use model::RepoId;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdout;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;

use crate::commands::{Commands, RefUpdate};
use crate::feed::{self, Fault, IDLE};
use crate::hosting::{Hosting, HostingError};
use crate::report::{Answer, refusal};
use crate::serve::{Body, ServeError, Service, finish, read_chunk};

type Client = Sender<io::Result<Bytes>>;

impl Hosting {
    /// The answer to `POST …/git-receive-pack`. `on_push` is called with what git moved before the client is told of
    /// it, and also if the client is gone by then; its lines are shown to the client as `remote: …`. It is not called
    /// when nothing moved. A ref that leads to no commit (a tag of a file) is left out.
    ///
    /// # Errors
    /// When git cannot be started.
    pub fn receive_pack<S, F, R>(
        &self,
        id: RepoId,
        protocol: Option<&str>,
        gzip: bool,
        mut body: S,
        on_push: F,
    ) -> Result<Body, ServeError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
        F: FnOnce(Vec<RefUpdate>) -> R + Send + 'static,
        R: Future<Output = Vec<String>> + Send,
    {
        let (mut child, stdin, stdout) = self.start(id, Service::ReceivePack, protocol)?;
        let (client, receiver) = mpsc::channel(4);
        let hosting = self.clone();
        // A task of its own: what git has begun is followed to its end, whatever becomes of the client.
        tokio::spawn(async move {
            let mut commands = Commands::default();
            let (fed, answer) =
                tokio::join!(feed::feed_push(stdin, gzip, &mut body, &mut commands), receive_answer(stdout, &client));
            // Not killed: git removes what it did not finish, as its input has ended.
            finish(&mut child).await;
            if let Err(Fault::Refused(error)) = fed {
                send(&client, refusal(commands.side_band(), &error.to_string())).await;
                let _ = feed::ignore(&mut body).await;
                return;
            }
            // A body that broke off may have been complete for git: its answer counts.
            let end = hosting.conclude(id, commands, answer, on_push).await;
            send(&client, end).await;
            drop(client);
            if let Err(Fault::Body(error)) = fed {
                tracing::debug!(repository = %id, %error, "a push broke off");
            }
            hosting.maintain_if_due(id).await;
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// Does what follows from git's report. Returns the end of the answer.
    async fn conclude<F, R>(&self, id: RepoId, commands: Commands, mut answer: Answer, on_push: F) -> Vec<u8>
    where
        F: FnOnce(Vec<RefUpdate>) -> R,
        R: Future<Output = Vec<String>>,
    {
        let side_band = commands.side_band();
        if commands.any() && !answer.complete() {
            return refusal(side_band, "git ended without a report: nothing is known to have been stored");
        }
        let updates = answer.accepted(commands.updates());
        if updates.is_empty() {
            return answer.end(side_band, &[]);
        }
        match self.settle(id, updates).await {
            Ok(updates) if updates.is_empty() => answer.end(side_band, &[]),
            Ok(updates) => answer.end(side_band, &on_push(updates).await),
            Err(error) => {
                tracing::error!(repository = %id, %error, "a push could not be brought onto the disk");
                refusal(side_band, "the push could not be brought onto the disk")
            }
        }
    }

    /// What git moved must be on the disk before anybody acts on it or is told that it is there.
    async fn settle(&self, id: RepoId, updates: Vec<RefUpdate>) -> Result<Vec<RefUpdate>, HostingError> {
        let repository = self.repository(id)?;
        let names: Vec<_> = updates.iter().map(|update| update.name.clone()).collect();
        repository.sync(&names).await?;
        Ok(follow_tags(&repository, updates).await?)
    }
}

async fn send(client: &Client, bytes: Vec<u8>) {
    if !bytes.is_empty() {
        // A client that is gone changes nothing about what git has done.
        let _ = tokio::time::timeout(IDLE, client.send(Ok(bytes.into()))).await;
    }
}

/// Passes the messages of git's answer on and reads its report.
async fn receive_answer(mut stdout: ChildStdout, client: &Client) -> Answer {
    let mut answer = Answer::default();
    while let Some(Ok(chunk)) = read_chunk(&mut stdout).await {
        match answer.feed(&chunk) {
            Ok(out) => send(client, out).await,
            Err(error) => {
                tracing::error!(%error, "git's answer to a push is not understood");
                break;
            }
        }
    }
    answer
}

/// Replaces annotated tags by the commits they lead to. Branches hold nothing but commits: git sees to that.
async fn follow_tags(repository: &Repository, updates: Vec<RefUpdate>) -> Result<Vec<RefUpdate>, GitError> {
    let follow = |update: &RefUpdate| update.name.as_branch().is_none();
    let ids = updates.iter().filter(|it| follow(it)).flat_map(|it| [&it.old, &it.new]).flatten();
    let input: String = ids.map(|id| format!("{id}^{{commit}}\n")).collect();
    if input.is_empty() {
        return Ok(updates);
    }
    let answer =
        look_up(repository, input).await.map_err(|source| GitError::Run { what: "follow tags".into(), source })?;
    let mut lines = answer.lines();
    let mut commit = || lines.next().and_then(|line| line.strip_suffix(" commit")?.parse().ok());
    let mut followed = Vec::with_capacity(updates.len());
    for update in updates {
        if !follow(&update) {
            followed.push(update);
            continue;
        }
        let deleted = update.new.is_none();
        let old = update.old.and_then(|_| commit());
        let new = update.new.and_then(|_| commit());
        if deleted || new.is_some() {
            followed.push(RefUpdate { name: update.name, old, new });
        }
    }
    Ok(followed)
}

async fn look_up(repository: &Repository, input: String) -> io::Result<String> {
    let mut command = repository.command();
    command.args(["cat-file", "--batch-check=%(objectname) %(objecttype)"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdin = child.stdin.take().ok_or_else(|| io::Error::other("no pipe"))?;
    let (written, output) =
        tokio::join!(async move { stdin.write_all(input.as_bytes()).await }, child.wait_with_output());
    written?;
    let output = output?;
    if !output.status.success() {
        return Err(io::Error::other(output.status.to_string()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
