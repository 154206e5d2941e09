//! What is to be run, and in what.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A command, the root it sees, and what it may use.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The file system it sees.
    pub root: Root,
    /// What is mounted on top, in this order. Targets below `/proc` and `/dev` are covered by the sandbox's own.
    pub mounts: Vec<Mount>,
    /// The program (looked up in the `PATH` of `env` unless it has a slash) and its arguments.
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The working directory inside; it must exist there.
    pub cwd: String,
    /// User and group id inside. In the single-id tier only 0 and the server's own ids exist; anything else is refused,
    /// unless `alias_user` is set.
    pub user: (u32, u32),
    /// Further group ids inside; ignored in the single-id tier, which has none.
    pub groups: Vec<u32>,
    /// In the single-id tier, run under the asked ids although every file of the root then belongs to them too. What
    /// the image separates by user is not separated there.
    pub alias_user: bool,
    /// The host name inside.
    pub hostname: String,
    /// What it can reach.
    pub network: Network,
    /// What it may use up.
    pub limits: Limits,
    /// What its root may do.
    pub privileges: Privileges,
    /// Where its input comes from.
    #[serde(skip)]
    pub stdin: Stdio,
    /// Where its output goes.
    #[serde(skip)]
    pub stdout: Stdio,
    /// Where its error output goes.
    #[serde(skip)]
    pub stderr: Stdio,
}

impl Spec {
    /// A command with nothing but its root: container user 0, working directory `/`, no network, no input, both outputs piped.
    pub fn new(root: Root, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let privileges = match root {
            Root::Host { .. } => Privileges::None,
            Root::Layers { .. } => Privileges::Container,
        };
        Self {
            root,
            mounts: Vec::new(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())],
            cwd: "/".to_owned(),
            user: (0, 0),
            groups: Vec::new(),
            alias_user: false,
            hostname: "towpath".to_owned(),
            network: Network::None,
            limits: Limits::default(),
            privileges,
            stdin: Stdio::Null,
            stdout: Stdio::Piped,
            stderr: Stdio::Piped,
        }
    }
}

/// The `PATH` of a [`Spec::new`].
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file system a command sees.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Root {
    /// The machine's own tools, read-only: `/usr`, `/bin`, `/sbin`, `/lib*` and the few files of `/etc` that programs
    /// need to run. Nothing of `/home`, `/root`, `/var` or `/opt`; `/tmp`, `/var/tmp` and `/run` are empty and private.
    Host {
        /// Further directories of the machine, read-only at the same path (a tool chain below `/opt`).
        also: Vec<PathBuf>,
    },
    /// An overlay of unpacked image layers.
    Layers {
        /// The layers in overlay form (whiteouts as 0:0 character devices, `user.overlay.opaque`), topmost first.
        lower: Vec<PathBuf>,
        /// Takes every change. Made if missing; its owner is set to the container's root.
        upper: PathBuf,
        /// On the same file system as `upper`, for the kernel's use. Made if missing; remove it with
        /// [`remove_tree`](crate::remove_tree), because what is left in it is unreadable.
        work: PathBuf,
    },
}

/// Something mounted over the root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// What.
    pub source: MountSource,
    /// Where: an absolute path inside. Missing directories are made.
    pub target: String,
}

/// What a [`Mount`] shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the machine. The last part of the path must not be a symbolic link.
    Bind {
        /// An absolute path.
        path: PathBuf,
        /// Whether it may not be written.
        read_only: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Its size limit in bytes.
        bytes: u64,
    },
    /// A file in memory that is on no disk and in no layer.
    Secret {
        /// What is in it.
        content: Secret,
        /// Permission bits.
        mode: u32,
        /// The container user and group it belongs to.
        owner: (u32, u32),
    },
}

/// Bytes that are not printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// What a command can reach. Every mode has a network namespace of its own with a loopback interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Nothing outside.
    #[default]
    None,
    /// Nothing outside; [`Running::connect`](crate::Running::connect) hands out connections to these ports.
    Published {
        /// TCP ports inside.
        ports: Vec<u16>,
    },
    /// HTTP and HTTPS through a proxy on the loopback interface, to these names alone. `HTTP_PROXY` and its kin are set
    /// in the environment unless they are there.
    Egress {
        /// `host`, `host:port` or `*.domain[:port]`; without a port, 80 and 443. A name that resolves to a loopback,
        /// link-local or private address is refused, unless it is listed as that address.
        allow: Vec<String>,
        /// TCP ports inside that [`Running::connect`](crate::Running::connect) hands out.
        ports: Vec<u16>,
    },
    /// The machine's network through `pasta` or `slirp4netns`; refused by name where neither is installed.
    User {
        /// TCP ports inside that [`Running::connect`](crate::Running::connect) hands out.
        ports: Vec<u16>,
    },
}

impl Network {
    /// The ports that may be connected to from outside.
    pub fn ports(&self) -> &[u16] {
        match self {
            Self::None => &[],
            Self::Published { ports } | Self::Egress { ports, .. } | Self::User { ports } => ports,
        }
    }
}

/// What a command may use up. What this machine cannot hold it to is in [`Probe::unenforced`](crate::Probe::unenforced).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of all its processes together, in bytes. Where no cgroup can be made, each process alone is held to it.
    pub memory: Option<u64>,
    /// Processes and threads at once.
    pub pids: Option<u64>,
    /// Processor time per second of wall-clock time, in thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// The largest file it may write, in bytes.
    pub file_size: Option<u64>,
    /// Open files per process.
    pub open_files: Option<u64>,
    /// Wall-clock time after which everything in the sandbox is killed.
    pub wall: Option<Duration>,
    /// Bytes of piped output (both streams together) after which everything in the sandbox is killed.
    pub output: Option<u64>,
    /// Refuse to start when one of the limits above cannot be enforced here.
    pub strict: bool,
}

impl Default for Limits {
    /// 2,048 processes, 65,536 open files, no other limit.
    fn default() -> Self {
        Self {
            memory: None,
            pids: Some(2048),
            cpu_millis: None,
            file_size: None,
            open_files: Some(65_536),
            wall: None,
            output: None,
            strict: false,
        }
    }
}

/// What user 0 inside may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Privileges {
    /// No capability at all.
    None,
    /// Over what belongs to the sandbox alone, the capabilities that package installation needs: CHOWN, DAC_OVERRIDE,
    /// FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, SETFCAP, NET_BIND_SERVICE, SYS_CHROOT. None for other users.
    Container,
}

/// Where a standard stream leads.
#[derive(Debug, Default)]
pub enum Stdio {
    /// `/dev/null`.
    #[default]
    Null,
    /// A pipe whose other end [`Running`](crate::Running) has.
    Piped,
    /// This open file.
    Fd(OwnedFd),
    /// For the error output alone: the same place as the output, so that the order of the two is kept.
    Stdout,
}
