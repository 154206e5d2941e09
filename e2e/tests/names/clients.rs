//! The clients, each on a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use e2e::{Daemon, Machine};

/// What a client printed, if it went well; else what it said.
fn outcome(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

pub struct Skopeo<'a> {
    machine: &'a Machine,
    credentials: String,
}

impl<'a> Skopeo<'a> {
    pub fn new(machine: &'a Machine, token: &str) -> Self {
        Self { machine, credentials: format!("admin:{token}") }
    }

    /// Copies with credentials for whichever side is a registry.
    pub fn copy(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.machine.command("skopeo");
        command.arg("copy");
        let [.., source, destination] = arguments else { panic!("{arguments:?}") };
        for (side, option) in [(source, "--src-creds"), (destination, "--dest-creds")] {
            if side.starts_with("docker://") {
                command.arg(option).arg(&self.credentials);
            }
        }
        outcome(&command.args(arguments).output().unwrap())
    }

    /// The digest of an image.
    pub fn digest(&self, image: &str) -> String {
        let mut command = self.machine.command("skopeo");
        command.args(["inspect", "--format", "{{.Digest}}", "--creds", &self.credentials, image]);
        outcome(&command.output().unwrap()).unwrap()
    }
}

pub struct Podman<'a> {
    machine: &'a Machine,
    dir: PathBuf,
    credentials: String,
}

impl<'a> Podman<'a> {
    pub fn new(machine: &'a Machine, dir: PathBuf, token: &str) -> Self {
        fs::create_dir_all(dir.join("tmp")).unwrap();
        Self { machine, dir, credentials: format!("admin:{token}") }
    }

    fn command(&self) -> Command {
        let mut command = self.machine.command("podman");
        command.env("TMPDIR", self.dir.join("tmp")).args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        for (option, dir) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.dir.join(dir));
        }
        command
    }

    pub fn run(&self, subcommand: &[&str], arguments: &[&str]) {
        let mut command = self.command();
        command.args(subcommand);
        if subcommand[0] != "tag" {
            command.args(["--creds", &self.credentials]);
        }
        let done = outcome(&command.args(arguments).output().unwrap());
        assert!(done.is_ok(), "podman {subcommand:?} {arguments:?}: {done:?}");
    }

    /// The digest of an image that was pulled.
    pub fn digest(&self, image: &str) -> String {
        let output = self.command().args(["image", "inspect", "--format", "{{.Digest}}", image]).output().unwrap();
        outcome(&output).unwrap()
    }
}

/// A daemon of its own with its client.
pub struct Docker<'a> {
    machine: &'a Machine,
    dir: PathBuf,
    _daemon: Daemon,
}

impl<'a> Docker<'a> {
    /// Nothing if the machine that runs the tests lets no such daemon run, which is printed.
    pub fn start(machine: &'a Machine, dir: &Path, options: &[&str]) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let mut command = machine.command("dockerd");
        command.args(["--iptables=false", "--bridge=none", "--storage-driver=vfs"]).args(options);
        command.arg("-H").arg(socket(dir)).arg("--pidfile").arg(dir.join("pid"));
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        let mut daemon = Daemon::start(command, &dir.join("dockerd.log"));
        let asked = || client(machine, dir).arg("info").stdout(Stdio::null()).output().unwrap();
        if !daemon.serves(|| asked().status.success()) {
            eprintln!("skipped: dockerd does not run here: {}", daemon.said().lines().last().unwrap_or_default());
            return None;
        }
        Some(Self { machine, dir: dir.to_owned(), _daemon: daemon })
    }

    pub fn login(&self, registry: &str, token: &str) {
        let mut command = client(self.machine, &self.dir);
        command.args(["login", "--username", "admin", "--password", token, registry]);
        let done = outcome(&command.output().unwrap());
        assert!(done.is_ok(), "docker login {registry}: {done:?}");
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        let done = outcome(&client(self.machine, &self.dir).args(arguments).output().unwrap());
        done.unwrap_or_else(|error| panic!("docker {arguments:?}: {error}"))
    }

    /// The digest that an image was pulled by.
    pub fn digest(&self, image: &str) -> String {
        let pulled = self.run(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", image]);
        pulled.split_once('@').unwrap().1.to_owned()
    }
}

fn client(machine: &Machine, dir: &Path) -> Command {
    let mut command = machine.command("docker");
    command.arg("--config").arg(dir.join("config")).arg("-H").arg(socket(dir));
    command
}

fn socket(dir: &Path) -> String {
    format!("unix://{}", dir.join("socket").display())
}
