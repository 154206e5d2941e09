//! RUN: a command in the sandbox, on the layers below it; what it changes is its layer.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use oci::merged::Merged;
use rustix::fs::{AtFlags, CWD, Gid, Uid};
use sandbox::{Exit, Mount, MountSource, Output, Root, Secret, Spec, Stdio};
use tokio::io::AsyncReadExt;

use crate::engine::{Ask, Caller, Session};
use crate::error::BuildError;
use crate::files::{Picks, base_name};
use crate::key::Key;
use crate::stage::{MountKind, RunAction, RunMount, SCRIPT, Sharing, Step};

/// How many lines of output an error shows.
const LAST_LINES: usize = 20;

/// The longest line of output that is kept whole, in bytes.
const LONGEST_LINE: usize = 16 << 10;

/// How long to wait before looking again whether a cache is free.
const RETRY: Duration = Duration::from_millis(50);

/// The `PATH` of a command whose image sets none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The mounts of a command, made ready.
#[derive(Default)]
pub(crate) struct Mounts {
    mounts: Vec<Mount>,
    variables: Vec<(String, String)>,
    /// Caches that not everybody may have at once: which, how, and the place of its mount.
    caches: Vec<(Key, Sharing, usize)>,
}

/// Makes the mounts of a command ready: files that are mounted are written, caches exist.
pub(crate) fn mounts(session: &mut Session<'_>, step: &Step, action: &RunAction) -> Result<Mounts, BuildError> {
    let mut ready = Mounts::default();
    for mount in &action.mounts {
        ready.add(session, step, mount)?;
    }
    if let Some(script) = &action.script {
        let content = Secret(script.clone().into_bytes());
        let source = MountSource::Secret { content, mode: 0o555, owner: (0, 0) };
        ready.mounts.push(Mount { source, target: SCRIPT.to_owned() });
    }
    ready.caches.sort_by_key(|(key, ..)| *key);
    ready.caches.dedup_by_key(|(key, ..)| *key);
    Ok(ready)
}

impl Mounts {
    fn add(&mut self, session: &mut Session<'_>, step: &Step, mount: &RunMount) -> Result<(), BuildError> {
        let source = match &mount.kind {
            MountKind::Tmpfs { bytes } => MountSource::Tmpfs { bytes: *bytes },
            MountKind::Secret { id, mode, owner } => {
                MountSource::Secret { content: Secret(secret(session, id)), mode: *mode, owner: *owner }
            }
            MountKind::SecretVariable { id } => {
                let value = String::from_utf8(secret(session, id)).map_err(|_| {
                    step.source.error(step.span, format!("secret {id:?} is not text: it cannot be a variable"))
                })?;
                self.variables.push((mount.target.clone(), value));
                return Ok(());
            }
            MountKind::Bind { key, picks, from } => {
                let tree = session.bound_tree(key, picks, from)?;
                MountSource::Bind { path: bound_path(&tree, picks), read_only: true }
            }
            MountKind::Cache { key, sharing, mode, owner, read_only } => {
                let path = session.builder.cache.mount(key);
                make_cache(session, &path, *mode, *owner)?;
                if *sharing != Sharing::Shared {
                    self.caches.push((*key, *sharing, self.mounts.len()));
                }
                MountSource::Bind { path, read_only: *read_only }
            }
        };
        self.mounts.push(Mount { source, target: mount.target.clone() });
        Ok(())
    }
}

fn secret(session: &Session<'_>, id: &str) -> Vec<u8> {
    session.request.secrets.get(id).map(|secret| secret.value.clone()).unwrap_or_default()
}

/// What of a bound tree is mounted: the tree for a directory, the file in it for a file.
fn bound_path(tree: &Path, picks: &Picks) -> PathBuf {
    match picks.0.first() {
        Some(picked) if !picked.node.is_directory() => tree.join(base_name(&picked.name)),
        _ => tree.to_owned(),
    }
}

fn make_cache(session: &Session<'_>, path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), BuildError> {
    let failed = |error| BuildError::io(format!("cannot make the cache {}", path.display()))(error);
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    let ids = session.builder.layers.ids();
    if let (Some(uid), Some(gid)) = (ids.outside(u64::from(owner.0)), ids.outside(u64::from(owner.1))) {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(error.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}

/// Runs the command of a step and returns the directory with what it changed.
pub(crate) fn run(
    session: &mut Session<'_>,
    step: &Step,
    action: &RunAction,
    lower: Vec<PathBuf>,
    mut mounts: Mounts,
) -> Result<PathBuf, BuildError> {
    let locks: Vec<Arc<Mutex<()>>> = mounts.caches.iter().map(|(key, ..)| session.builder.lock(key)).collect();
    let mut held = Vec::new();
    let mut private = Vec::new();
    for (lock, (_, sharing, place)) in locks.iter().zip(&mounts.caches) {
        loop {
            match lock.try_lock() {
                Ok(guard) => break held.push(guard),
                Err(TryLockError::Poisoned(poisoned)) => break held.push(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if *sharing == Sharing::Private => {
                    let work = session.builder.cache.work()?;
                    let path = work.path().join("cache");
                    make_cache(session, &path, 0o755, (0, 0))?;
                    mounts.mounts[*place].source = MountSource::Bind { path, read_only: false };
                    private.push(work);
                    break;
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(RETRY),
            }
            session.check_cancelled()?;
        }
    }
    let result = execute(session, step, action, lower, mounts.mounts, mounts.variables);
    drop(held);
    drop(locks);
    for (key, ..) in &mounts.caches {
        session.builder.unlock(key);
    }
    result
}

fn execute(
    session: &mut Session<'_>,
    step: &Step,
    action: &RunAction,
    mut lower: Vec<PathBuf>,
    mounts: Vec<Mount>,
    variables: Vec<(String, String)>,
) -> Result<PathBuf, BuildError> {
    session.log(step.shown.clone());
    let at = |message: String| step.source.error(step.span, message);
    let here = oci::Platform::here();
    if !here.serves(&session.request.platform) {
        let message =
            format!("commands for {} cannot be run on this machine, which is {here}", session.request.platform);
        return Err(at(message).into());
    }
    let work = session.builder.cache.work()?;
    if lower.is_empty() {
        // An overlay stands on something, if only on an empty directory.
        let empty = work.path().join("empty");
        make_cache(session, &empty, 0o755, (0, 0))?;
        lower.push(empty);
    }
    let user = oci::user::resolve(&Merged::new(lower.clone()), &action.user).map_err(|error| at(error.to_string()))?;
    if user.uid != 0 && session.builder.layers.ids().single {
        let who = &action.user;
        session.log(format!("warning: the builder has one id here: what {who} makes will belong to root in the image"));
    }
    let upper = work.path().join("upper");
    let root = Root::Layers { lower, upper: upper.clone(), work: work.path().join("work") };
    let mut spec = Spec::new(root, action.argv.clone());
    spec.mounts = mounts;
    spec.env = environment(action, variables, &user.home);
    spec.cwd.clone_from(&action.cwd);
    spec.user = (user.uid, user.gid);
    spec.groups = user.groups;
    spec.alias_user = true;
    spec.hostname = "build".to_owned();
    spec.limits = session.builder.limits.clone();
    spec.stderr = Stdio::Stdout;
    let mask = Mask::new(session, action);
    let mut tail = VecDeque::new();
    let ended = session.caller.handle.block_on(watch(spec, session.caller, &mask, &mut tail));
    match ended {
        Ok(Some(exit)) if exit.success() => session.builder.cache.keep_tree(&step.key, &upper),
        Ok(Some(exit)) => Err(failed(at(format!("the command failed: {exit}")), exit, tail)),
        Ok(None) => Err(BuildError::Cancelled),
        Err(error) => Err(not_run(at(error.to_string()), &error, tail)),
    }
}

fn environment(action: &RunAction, variables: Vec<(String, String)>, home: &str) -> Vec<(String, String)> {
    let mut env = action.proxies.clone();
    env.extend(action.env.iter().cloned());
    env.extend(variables);
    for (name, value) in [("PATH", PATH), ("HOME", home)] {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    env
}

/// Runs a command and passes its output on. Nothing if it was cancelled.
async fn watch(
    spec: Spec,
    caller: &Caller,
    mask: &Mask,
    tail: &mut VecDeque<String>,
) -> Result<Option<Exit>, sandbox::SandboxError> {
    let mut running = sandbox::spawn(spec)?;
    if let Some(output) = running.take_stdout() {
        tokio::select! {
            () = pass_on(output, caller, mask, tail) => {}
            () = caller.cancel.cancelled() => {
                running.kill();
                // What it was writing to is removed next.
                let _ = running.wait().await;
                return Ok(None);
            }
        }
    }
    tokio::select! {
        exit = running.wait() => exit.map(Some),
        () = caller.cancel.cancelled() => {
            running.kill();
            let _ = running.wait().await;
            Ok(None)
        }
    }
}

async fn pass_on(mut output: Output, caller: &Caller, mask: &Mask, tail: &mut VecDeque<String>) {
    let mut buffer = vec![0; 32 << 10];
    let mut line = Vec::new();
    loop {
        let read = output.read(&mut buffer).await.unwrap_or(0);
        let mut rest = &buffer[..read];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            say(&mut line, caller, mask, tail).await;
        }
        line.extend_from_slice(rest);
        if line.len() > LONGEST_LINE || (read == 0 && !line.is_empty()) {
            say(&mut line, caller, mask, tail).await;
        }
        if read == 0 {
            return;
        }
    }
}

async fn say(line: &mut Vec<u8>, caller: &Caller, mask: &Mask, tail: &mut VecDeque<String>) {
    let text = mask.apply(String::from_utf8_lossy(line).trim_end_matches('\r'));
    line.clear();
    if tail.len() == LAST_LINES {
        tail.pop_front();
    }
    tail.push_back(text.clone());
    let _ = caller.asks.send(Ask::Log(text)).await;
}

/// The secrets of a command, which its output must not show.
struct Mask(Vec<String>);

impl Mask {
    fn new(session: &Session<'_>, action: &RunAction) -> Self {
        let ids = action.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Secret { id, .. } | MountKind::SecretVariable { id } => Some(id),
            _ => None,
        });
        let texts = ids.filter_map(|id| String::from_utf8(secret(session, id)).ok());
        // Shorter lines would blot out half the output and be guessed anyway.
        let lines = texts.flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>());
        Self(lines.filter(|line| line.len() >= 4).collect())
    }

    fn apply(&self, line: &str) -> String {
        self.0.iter().fold(line.to_owned(), |line, secret| line.replace(secret.as_str(), "***"))
    }
}

/// What programs say when they cannot look up a name or reach a network.
const NO_NETWORK: [&str; 9] = [
    "temporary failure in name resolution",
    "temporary failure resolving",
    "name or service not known",
    "could not resolve",
    "bad address",
    "no such host",
    "network is unreachable",
    "unable to resolve",
    "getaddrinfo",
];

fn failed(error: crate::dockerfile::DockerfileError, exit: Exit, tail: VecDeque<String>) -> BuildError {
    let lost = |line: &String| {
        let line = line.to_lowercase();
        NO_NETWORK.iter().any(|phrase| line.contains(phrase))
    };
    let error = if tail.iter().any(lost) {
        error.hint("build steps have no network: take what they need from the base image or from the repository")
    } else if exit == Exit::Code(127) {
        error.hint("127 says that a program was not found: the image may lack it")
    } else {
        error
    };
    BuildError::Run { error: Box::new(error), last_lines: tail.into() }
}

fn not_run(
    error: crate::dockerfile::DockerfileError,
    why: &sandbox::SandboxError,
    tail: VecDeque<String>,
) -> BuildError {
    let error = match why {
        sandbox::SandboxError::NotFound(program) => error
            .hint(format!("the image has no {program}: RUN needs a base image with the program in it, or its shell")),
        _ => error,
    };
    BuildError::Run { error: Box::new(error), last_lines: tail.into() }
}
