//! The command line.

pub(crate) mod image;
pub(crate) mod registry;
pub(crate) mod robots;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use image::{ImageCommand, MigrateCommand};
use robots::{GroupCommand, RobotCommand};

/// One program from git push to a running site.
#[derive(Debug, Parser)]
#[command(name = "towpath", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// How results are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
}

/// Which server, as whom.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// The server's address [default: that of the last `towpath login`, else http://127.0.0.1:7080]
    #[arg(long, env = "TOWPATH_SERVER", global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// PEM file of the authorities that the server's certificate is verified by, instead of this machine's
    #[arg(long, env = "TOWPATH_CA", global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Your token; that of `towpath login` without it
    #[arg(
        long,
        env = "TOWPATH_TOKEN",
        hide_env_values = true,
        global = true,
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) token: String,
}

/// How to log in.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The server's address, in place of --server
    #[arg(value_name = "SERVER")]
    pub(crate) at: Option<String>,
    /// Read a token from standard input, instead of signing in with a browser
    #[arg(long)]
    pub(crate) token_stdin: bool,
    /// Through which of the server's providers to sign in, if there are several
    #[arg(long, value_name = "NAME", conflicts_with = "token_stdin")]
    pub(crate) provider: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole path on a sample site, on this machine
    ///
    /// Starts a server in a temporary directory, pushes a sample site to it with git, changes the site three times, and
    /// ends with its address, the stages and the status of each run.
    #[command(after_help = "Example:\n  towpath demo --keep")]
    Demo(DemoArgs),
    /// Serve everything that is configured; with no file, the embedded defaults
    #[command(after_help = "Example:\n  towpath up --data /var/lib/towpath --config towpath.yaml")]
    Up(UpArgs),
    /// The registry: serve it alone, look after it
    #[command(subcommand)]
    Registry(registry::RegistryCommand),
    /// Keep a token for a server, for all commands that are given none
    ///
    /// Without `--token-stdin`, the address of the server's provider of identities is shown; the page that it ends with shows
    /// the token. Tokens are kept in `$XDG_CONFIG_HOME/towpath/logins.json`, which only you can read. Commands that name no
    /// server go to the one of the last login.
    #[command(after_help = "Examples:
  towpath login https://towpath.example.org
  towpath login https://registry.lan:5000 --token-stdin < token")]
    Login(LoginArgs),
    /// Forget the token of a server; without one, that of the last login
    #[command(after_help = "Examples:\n  towpath logout\n  towpath logout https://towpath.example.org")]
    Logout {
        /// The server's address, in place of --server
        #[arg(value_name = "SERVER")]
        at: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Apply records: organisations, users, repositories, targets
    #[command(after_help = "Example:\n  towpath apply -f site.yaml")]
    Apply {
        /// The file; - for standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Print all records as YAML that `apply` takes back
    #[command(after_help = "Example:\n  towpath export > records.yaml")]
    Export {
        #[command(flatten)]
        connection: Connection,
    },
    /// Show the status of a target or run; of all targets with neither
    #[command(after_help = "Example:\n  towpath status site\n  towpath status 17 -o json")]
    Status {
        /// A target's name or a run's number
        #[arg(value_name = "TARGET|RUN")]
        what: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Print the log of a run, or of one of its stages or jobs
    #[command(after_help = "Example:\n  towpath logs 17\n  towpath logs 17 build\n  towpath logs 17 test -f")]
    Logs {
        /// The run
        run: i64,
        /// A stage, or a job by its name or key
        #[arg(value_name = "STAGE|JOB")]
        part: Option<String>,
        /// Go on until the run ends; the exit code is then the run's
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// List, show, cancel, retry and roll back runs
    #[command(subcommand)]
    Run(RunCommand),
    /// Users and their tokens
    #[command(subcommand)]
    User(UserCommand),
    /// Organisations and their members
    #[command(subcommand)]
    Org(OrgCommand),
    /// Groups within organisations, and their roles
    #[command(subcommand)]
    Group(GroupCommand),
    /// Robots: names for machines that pull and push images
    #[command(subcommand)]
    Robot(RobotCommand),
    /// Repositories
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Targets
    #[command(subcommand)]
    Target(TargetCommand),
    /// Secrets of a repository's jobs
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Copy, show, list, remove, save and load images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Move everything of a kind to another place
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  towpath completion bash > /etc/bash_completion.d/towpath")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep serving the site when the demo is done, until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// Where the server listens; a free port of the loopback address by default
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: std::net::SocketAddr,
    /// Where the site answers; a free port of the loopback address by default
    #[arg(long, value_name = "ADDR")]
    pub(crate) site: Option<std::net::SocketAddr>,
    /// Keep the server's data here instead of a temporary directory; it must be new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "TOWPATH_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// The server's file; `towpath.yaml` here if there is one, else the embedded defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Listen here instead of where the file says
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Log as lines of JSON
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// List the newest runs
    #[command(after_help = "Example:\n  towpath run ls --repo demo/site")]
    Ls {
        /// Only runs of this repository
        #[arg(long, value_name = "OWNER/NAME")]
        repo: Option<String>,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: i64,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show a run
    #[command(after_help = "Example:\n  towpath run show 17")]
    Show {
        /// The run
        run: i64,
        /// Wait until it has ended; the exit code is then the run's
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Cancel a run
    #[command(after_help = "Example:\n  towpath run cancel 17")]
    Cancel {
        /// The run
        run: i64,
        #[command(flatten)]
        connection: Connection,
    },
    /// Do a run again on the same snapshot
    #[command(after_help = "Example:\n  towpath run retry 17")]
    Retry {
        /// The run
        run: i64,
        #[command(flatten)]
        connection: Connection,
    },
    /// Bring the images of an earlier run of a target back
    #[command(after_help = "Example:\n  towpath run rollback site --to 12")]
    Rollback {
        /// The target
        target: String,
        /// The run; by default the last that succeeded before the live one
        #[arg(long, value_name = "RUN")]
        to: Option<i64>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Start the workflows and targets of a branch by hand
    #[command(after_help = "Example:\n  towpath run start demo/site main --input level=high")]
    Start {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        repo: String,
        /// The branch, or a full ref
        #[arg(value_name = "REF", default_value = "main")]
        ref_name: String,
        /// An input of `workflow_dispatch`
        #[arg(long = "input", value_name = "NAME=VALUE")]
        inputs: Vec<String>,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List the users
    #[command(after_help = "Example:\n  towpath user ls")]
    Ls {
        #[command(flatten)]
        connection: Connection,
    },
    /// Make a user
    #[command(after_help = "Example:\n  towpath user create ada")]
    Create {
        /// The login
        name: String,
        /// Administers the server
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove a user
    #[command(after_help = "Example:\n  towpath user rm ada")]
    Rm {
        /// The login
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Take over the users of an htpasswd file, with their passwords for pulling and pushing
    ///
    /// The hashes must be bcrypt, as `htpasswd -B` makes them. All of the file is taken over, or nothing.
    #[command(after_help = "Example:\n  towpath user import-htpasswd /etc/docker/registry/htpasswd")]
    ImportHtpasswd {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Make a token; it is shown once
    #[command(after_help = "Example:\n  towpath user token ada laptop --days 90")]
    Token {
        /// The user
        user: String,
        /// What to call it
        name: String,
        /// What it is good for; everything by default
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Days until it expires; never by default
        #[arg(long)]
        days: Option<u32>,
        #[command(flatten)]
        connection: Connection,
    },
    /// List a user's tokens
    #[command(after_help = "Example:\n  towpath user tokens ada")]
    Tokens {
        /// The user
        user: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Revoke a token
    #[command(after_help = "Example:\n  towpath user revoke ada 3")]
    Revoke {
        /// The user
        user: String,
        /// The token's id
        id: i64,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrgCommand {
    /// List the organisations
    #[command(after_help = "Example:\n  towpath org ls")]
    Ls {
        #[command(flatten)]
        connection: Connection,
    },
    /// Make an organisation
    #[command(after_help = "Example:\n  towpath org create demo")]
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Add a member, or change a member's role
    #[command(after_help = "Example:\n  towpath org add demo ada --role write")]
    Add {
        /// The organisation
        org: String,
        /// The user
        user: String,
        /// read, write or admin
        #[arg(long, default_value = "write")]
        role: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove a member
    #[command(after_help = "Example:\n  towpath org remove demo ada")]
    Remove {
        /// The organisation
        org: String,
        /// The user
        user: String,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// List the repositories that you may read
    #[command(after_help = "Example:\n  towpath repo ls")]
    Ls {
        #[command(flatten)]
        connection: Connection,
    },
    /// Make an empty repository
    #[command(after_help = "Example:\n  towpath repo create demo/site --public")]
    Create {
        /// `owner/name`; the owner is a user or organisation
        #[arg(value_name = "OWNER/NAME")]
        name: String,
        /// The branch that HEAD names
        #[arg(long, default_value = "main")]
        branch: String,
        /// Everybody may read it and pull its images
        #[arg(long)]
        public: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Rename a repository
    #[command(after_help = "Example:\n  towpath repo rename demo/site demo/web")]
    Rename {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        name: String,
        /// Its new name
        #[arg(value_name = "OWNER/NAME")]
        to: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove a repository with its git data
    #[command(after_help = "Example:\n  towpath repo rm demo/site")]
    Rm {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TargetCommand {
    /// Remove a target and stop what it runs
    #[command(after_help = "Example:\n  towpath target rm site")]
    Rm {
        /// The target
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// List the secrets of a repository: names and fingerprints
    #[command(after_help = "Example:\n  towpath secrets ls demo/site")]
    Ls {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        repo: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Set a secret; the value is read from standard input
    #[command(after_help = "Example:\n  towpath secrets set demo/site DEPLOY_KEY < key")]
    Set {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        repo: String,
        /// Its name
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove a secret
    #[command(after_help = "Example:\n  towpath secrets rm demo/site DEPLOY_KEY")]
    Rm {
        /// The repository
        #[arg(value_name = "OWNER/NAME")]
        repo: String,
        /// Its name
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
}
