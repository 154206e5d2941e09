//! `towpath registry …`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::robots::KeysCommand;

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Serve the registry alone
    ///
    /// Needs neither git nor a sandbox. Without `--anonymous`, users and their tokens decide who pulls and pushes, as with
    /// `towpath up`; the first start prints the administrator's token once.
    #[command(after_help = "Examples:
  towpath registry serve --listen 127.0.0.1:5000 --data /tmp/registry --anonymous pull,push
  towpath registry serve --listen 0.0.0.0:5000 --host registry.lan --data /var/lib/registry")]
    Serve(ServeArgs),
    /// The keys that the registry's tokens are signed with
    #[command(subcommand)]
    Keys(KeysCommand),
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Listen here; instead of where the file says, if there is one
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:5000",
        default_value_if("config", clap::builder::ArgPredicate::IsPresent, None)
    )]
    pub(crate) listen: Option<SocketAddr>,
    /// A further name under which clients reach it, as `name` or `name:port`
    #[arg(long = "host", value_name = "NAME")]
    pub(crate) hosts: Vec<String>,
    /// The data directory
    #[arg(long, value_name = "DIR", env = "TOWPATH_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// What may be done without credentials, with every image
    #[arg(long, value_enum, value_delimiter = ',', value_name = "RIGHTS")]
    pub(crate) anonymous: Vec<Anonymous>,
    /// A server's file, of which only what concerns the registry counts
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Log as lines of JSON
    #[arg(long)]
    pub(crate) log_json: bool,
}

/// What may be done without credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Anonymous {
    /// Pull and list
    Pull,
    /// Push and delete; only together with pull
    Push,
}
