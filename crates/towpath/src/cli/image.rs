//! `towpath image …` and `towpath migrate …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Copy an image between registries, OCI layouts and archives
    ///
    /// A place is `[docker://]HOST/NAME[:TAG][@DIGEST]`, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]` or
    /// `docker-archive:FILE[:NAME]`. Blobs that are there already are not sent again.
    #[command(after_help = "Examples:
  towpath image copy --all ghcr.io/acme/site:v1 registry.lan/acme/site:v1
  towpath image copy --plain-http localhost:5000 localhost:5000/site:v1 oci:layout:v1
  towpath image copy --referrers --to-user ada --to-password env:TOKEN oci:layout:v1 ghcr.io/acme/site:v1")]
    Copy(CopyArgs),
    /// Show what an image is made of
    #[command(after_help = "Example:\n  towpath image inspect docker.io/library/alpine:3 --platform linux/arm64")]
    Inspect {
        /// The image
        image: String,
        /// Of an index, the image of this platform
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<oci::Platform>,
        /// The manifest, byte for byte
        #[arg(long)]
        raw: bool,
        #[command(flatten)]
        login: Login,
    },
    /// List the tags of a repository, the repositories of a registry, or the images of a layout or archive
    #[command(after_help = "Example:\n  towpath image ls registry.lan/acme/site\n  towpath image ls registry.lan")]
    Ls {
        /// HOST, HOST/NAME, oci:DIR or an archive
        what: String,
        #[command(flatten)]
        login: Login,
    },
    /// Remove images from a registry: a manifest by digest, or a tag where the registry can do that
    #[command(after_help = "Example:\n  towpath image rm registry.lan/acme/site:old")]
    Rm {
        /// The images
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        login: Login,
    },
    /// Write an image to a file that docker, podman and skopeo load
    #[command(after_help = "Example:\n  towpath image save registry.lan/acme/site:v1 site.tar")]
    Save {
        /// The image
        image: String,
        /// The file
        file: PathBuf,
        /// Of an index, the image of this platform; this machine's by default
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<oci::Platform>,
        #[command(flatten)]
        login: Login,
    },
    /// Push an image from a file that docker, podman or skopeo saved
    #[command(after_help = "Example:\n  towpath image load site.tar registry.lan/acme/site:v1")]
    Load {
        /// The file
        file: PathBuf,
        /// Where to
        image: String,
        /// Its name in the file, if there are several images in it
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        login: Login,
    },
    /// List what refers to an image: signatures, attestations, bills of material
    #[command(after_help = "Example:\n  towpath image referrers registry.lan/acme/site:v1")]
    Referrers {
        /// The image
        image: String,
        /// Only artifacts of this type
        #[arg(long, value_name = "TYPE")]
        artifact_type: Option<String>,
        #[command(flatten)]
        login: Login,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Copy all images of a namespace: tags, indexes with all platforms, and what refers to them
    ///
    /// What is done is noted in a file: run it again after it was interrupted, and it goes on from there. Tags that have
    /// not moved since are not copied again, so that a last run before the switch is short.
    #[command(after_help = "Examples:
  towpath migrate images ghcr.io/acme registry.lan/acme --from-user ada --from-password env:GHCR_TOKEN --repositories site,api
  towpath migrate images --plain-http old.lan:5000 old.lan:5000 registry.lan/acme")]
    Images(MigrateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// From where
    #[arg(value_name = "SRC")]
    pub(crate) from: String,
    /// Where to
    #[arg(value_name = "DST")]
    pub(crate) to: String,
    /// Of an index, all platforms; without it, that of this machine
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all: bool,
    /// Of an index, the image of this platform
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<oci::Platform>,
    /// With what refers to it: signatures, attestations, bills of material
    #[arg(long)]
    pub(crate) referrers: bool,
    #[command(flatten)]
    pub(crate) sides: Sides,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// A registry and the beginning of its repositories' names: HOST[/NAMESPACE]
    #[arg(value_name = "SRC")]
    pub(crate) from: String,
    /// What takes its place: HOST[/NAMESPACE]
    #[arg(value_name = "DST")]
    pub(crate) to: String,
    /// The repositories, as a file with one a line or a list with commas; the source's catalog by default
    #[arg(long, value_name = "FILE|LIST")]
    pub(crate) repositories: Option<String>,
    /// Where is noted what is done
    #[arg(long, value_name = "FILE", default_value = "towpath-migrate.state")]
    pub(crate) state: PathBuf,
    #[command(flatten)]
    pub(crate) sides: Sides,
}

/// Two registries, and who we are there.
#[derive(Debug, Args)]
pub(crate) struct Sides {
    /// Blobs that are on their way at the same time
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) parallel: u16,
    /// The user at the source
    #[arg(long, value_name = "NAME", requires = "from_password")]
    pub(crate) from_user: Option<String>,
    /// Where the password at the source is: env:NAME or file:/path
    #[arg(long, value_name = "REF", requires = "from_user")]
    pub(crate) from_password: Option<String>,
    /// The user at the destination
    #[arg(long, value_name = "NAME", requires = "to_password")]
    pub(crate) to_user: Option<String>,
    /// Where the password at the destination is: env:NAME or file:/path
    #[arg(long, value_name = "REF", requires = "to_user")]
    pub(crate) to_password: Option<String>,
    #[command(flatten)]
    pub(crate) wire: Wire,
}

/// One registry, and who we are there.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The user; by default what docker's and podman's files of credentials say
    #[arg(long, value_name = "NAME", requires = "password")]
    pub(crate) user: Option<String>,
    /// Where the password is: env:NAME or file:/path
    #[arg(long, value_name = "REF", requires = "user")]
    pub(crate) password: Option<String>,
    #[command(flatten)]
    pub(crate) wire: Wire,
}

/// How registries are reached.
#[derive(Debug, Args)]
pub(crate) struct Wire {
    /// A registry (HOST[:PORT]) that is spoken to without TLS
    #[arg(long, value_name = "HOST")]
    pub(crate) plain_http: Vec<String>,
    /// A file of certificates (PEM) that are trusted besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Vec<PathBuf>,
}
