//! `towpath robot …`, `towpath group …` and `towpath registry keys …`.

use clap::Subcommand;

use crate::cli::Connection;

#[derive(Debug, Subcommand)]
pub(crate) enum RobotCommand {
    /// List robots with their last use: of one owner, or all
    #[command(after_help = "Example:\n  towpath robot ls --owner acme")]
    Ls {
        /// Of this user or organisation
        #[arg(long)]
        owner: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Make a robot; its token is shown once
    ///
    /// It signs in as OWNER+NAME, or robot+NAME without --owner, with the token as its password.
    #[command(after_help = "Examples:
  towpath robot create ci --owner acme --images 'acme/app,acme/app/**' --actions push --days 90
  docker login registry.example -u acme+ci --password-stdin < token")]
    Create {
        /// Its name: a-z 0-9 . _ -
        name: String,
        /// Whose images it reaches; without it, it is the server's, and reaches what its patterns match
        #[arg(long)]
        owner: Option<String>,
        /// Which images, by patterns: * stays within a component, ** spans them
        #[arg(long, required = true, value_delimiter = ',', value_name = "PATTERN")]
        images: Vec<String>,
        /// What with them: pull, push (and so pull), delete
        #[arg(long, required = true, value_delimiter = ',', value_name = "ACTION")]
        actions: Vec<String>,
        /// Days until it expires, at most 3650
        #[arg(long, default_value_t = 90)]
        days: u32,
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove a robot; its next request is refused
    #[command(after_help = "Example:\n  towpath robot rm 3")]
    Rm {
        /// Its id
        id: i64,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List the groups of an organisation
    #[command(after_help = "Example:\n  towpath group ls acme")]
    Ls {
        /// The organisation
        org: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Make a group
    #[command(after_help = "Example:\n  towpath group create acme builders")]
    Create {
        /// The organisation
        org: String,
        /// The group
        group: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove a group
    #[command(after_help = "Example:\n  towpath group rm acme builders")]
    Rm {
        /// The organisation
        org: String,
        /// The group
        group: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Put a user into a group
    #[command(after_help = "Example:\n  towpath group add acme builders ada")]
    Add {
        /// The organisation
        org: String,
        /// The group
        group: String,
        /// The user
        user: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Take a user out of a group
    #[command(after_help = "Example:\n  towpath group remove acme builders ada")]
    Remove {
        /// The organisation
        org: String,
        /// The group
        group: String,
        /// The user
        user: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Give a group a role on the repositories and images that a pattern matches
    #[command(after_help = "Example:\n  towpath group grant acme builders 'acme/app/**' write")]
    Grant {
        /// The organisation
        org: String,
        /// The group
        group: String,
        /// The pattern, which begins with the organisation's name
        pattern: String,
        /// read, write or admin
        role: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Take a role away again
    #[command(after_help = "Example:\n  towpath group ungrant acme builders 'acme/app/**'")]
    Ungrant {
        /// The organisation
        org: String,
        /// The group
        group: String,
        /// The pattern
        pattern: String,
        #[command(flatten)]
        connection: Connection,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// List the keys that registry tokens are signed with
    #[command(after_help = "Example:\n  towpath registry keys ls")]
    Ls {
        #[command(flatten)]
        connection: Connection,
    },
    /// Make a new key; tokens of the old one stay good until they run out
    #[command(after_help = "Example:\n  towpath registry keys rotate")]
    Rotate {
        /// The old key became known: refuse its tokens at once
        #[arg(long)]
        at_once: bool,
        #[command(flatten)]
        connection: Connection,
    },
}
