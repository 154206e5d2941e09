//! Commands in real sandboxes, on whatever tier this machine and user have.
#![allow(clippy::unwrap_used)]

mod inside;
mod isolation;
mod limits;
mod network;
mod overlay;
mod process;
mod supervisor;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox::{Exit, Mount, MountSource, Root, Running, SandboxError, Spec, Tier, id_map, probe};
use tokio::io::AsyncReadExt as _;

/// Whether commands can be isolated here; says so if not.
fn isolates() -> bool {
    match &probe().tier {
        Tier::Root | Tier::SingleId => true,
        Tier::None { reason } => {
            testkit::skipped(&format!("namespaces ({reason})"));
            false
        }
    }
}

/// A program on the machine's own tools, as the ordinary user inside.
fn host(argv: impl IntoIterator<Item = impl Into<String>>) -> Spec {
    let mut spec = Spec::new(Root::Host { also: Vec::new() }, argv);
    spec.user = id_map().ordinary();
    spec.limits.wall = Some(Duration::from_secs(60));
    spec
}

fn shell(script: &str) -> Spec {
    host(["/bin/sh", "-c", script])
}

/// This test binary as the program inside: it does what [`inside::act`] has under that name.
fn probe_program(action: &str) -> Spec {
    let mut spec = host(["/probe", inside::WORD, action]);
    spec.mounts.push(bind(&std::env::current_exe().unwrap(), "/probe", true));
    spec
}

fn bind(path: &Path, target: &str, read_only: bool) -> Mount {
    Mount { source: MountSource::Bind { path: path.to_owned(), read_only }, target: target.to_owned() }
}

/// A directory that a sandbox may write to as `user`, removed whatever is left in it.
struct Work(PathBuf);

impl Work {
    fn new(user: (u32, u32)) -> Self {
        let dir = tempfile::Builder::new().prefix("towpath-test-").tempdir().unwrap().keep();
        sandbox::give(&dir, user).unwrap();
        Self(dir)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = sandbox::remove_tree(&self.0);
    }
}

/// How a command ended and what it wrote.
struct Done {
    exit: Result<Exit, SandboxError>,
    out: String,
    err: String,
}

impl Done {
    /// What it wrote, if it succeeded.
    fn ok(self) -> String {
        assert_eq!(self.exit, Ok(Exit::Code(0)), "stdout {:?}, stderr {:?}", self.out, self.err);
        self.out
    }
}

async fn run(spec: Spec) -> Done {
    let running = match sandbox::spawn(spec) {
        Ok(running) => running,
        Err(error) => return Done { exit: Err(error), out: String::new(), err: String::new() },
    };
    finish(running).await
}

async fn finish(mut running: Running) -> Done {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (running.take_stdout(), running.take_stderr());
    let read_out = async {
        if let Some(mut stream) = stdout {
            stream.read_to_end(&mut out).await.unwrap();
        }
    };
    let read_err = async {
        if let Some(mut stream) = stderr {
            stream.read_to_end(&mut err).await.unwrap();
        }
    };
    let (exit, (), ()) = tokio::join!(running.wait(), read_out, read_err);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Done { exit, out: text(out), err: text(err) }
}
