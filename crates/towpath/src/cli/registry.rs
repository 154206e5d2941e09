//! `towpath registry …`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::Connection;
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
    /// Free what nothing needs: what was deleted for good, and content that no image has
    ///
    /// Runs while clients push and pull. The server does it by itself as `spec.registry.collection` says.
    #[command(after_help = "Examples:\n  towpath registry gc\n  towpath registry gc --purge")]
    Gc {
        /// Do not look for content without a record, which reads the names of everything that is stored
        #[arg(long)]
        no_scrub: bool,
        /// Forget at once all that was deleted: it cannot be brought back any more
        #[arg(long)]
        purge: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Apply the rules of `spec.registry.retention` now, or show what they would do
    #[command(after_help = "Examples:
  towpath registry retention --dry-run
  towpath registry retention --dry-run --image 'demo/**' -o json")]
    Retention {
        /// Explain each keep and delete, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Only these images
        #[arg(long, value_name = "PATTERN", default_value = "**")]
        image: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Refuse all changes of images until they are thawed; reading goes on
    #[command(after_help = "Examples:
  towpath registry freeze --because 'moving to another disk'
  towpath registry freeze --image 'demo/**' --because audit
  towpath registry freeze --list")]
    Freeze {
        /// Only these images
        #[arg(long, value_name = "PATTERN", default_value = "**")]
        image: String,
        /// Why; whoever is refused is told
        #[arg(long, value_name = "TEXT", default_value = "")]
        because: String,
        /// Show what is frozen
        #[arg(long, conflicts_with_all = ["image", "because"])]
        list: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Allow changes again
    #[command(after_help = "Example:\n  towpath registry thaw --image 'demo/**'")]
    Thaw {
        /// The pattern by which they were frozen
        #[arg(long, value_name = "PATTERN", default_value = "**")]
        image: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Look whether everything that is recorded is there and is what it says; the exit code is 1 if not
    #[command(after_help = "Examples:
  towpath registry verify
  towpath registry verify --image 'demo/*' --quick")]
    Verify {
        /// Only these images
        #[arg(long, value_name = "PATTERN", default_value = "**")]
        image: String,
        /// Look for blobs and at their lengths, and do not read them
        #[arg(long)]
        quick: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Bring deleted tags and manifests back
    #[command(after_help = "Examples:
  towpath registry undo --list
  towpath registry undo --image demo/site --tag 'v*'
  towpath registry undo --since 2026-11-21T10:00:00Z")]
    Undo {
        /// Only these images
        #[arg(long, value_name = "PATTERN", default_value = "**")]
        image: String,
        /// Only these tags, with what they point to
        #[arg(long, value_name = "PATTERN")]
        tag: Option<String>,
        /// Only what was deleted at that time (RFC 3339) or later
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Show what can be brought back
        #[arg(long)]
        list: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show how the rules of `spec.registry.replication` stand, or push everything of one again
    #[command(after_help = "Examples:
  towpath registry replication
  towpath registry replication -o json
  towpath registry replication --again offsite")]
    Replication {
        /// Look at everything that this rule is about once more, and push what is not there
        #[arg(long, value_name = "RULE")]
        again: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show what is used of each quota
    #[command(after_help = "Example:\n  towpath registry quotas")]
    Quotas {
        #[command(flatten)]
        connection: Connection,
    },
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
