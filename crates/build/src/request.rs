//! What is asked of the builder, and what the answer would depend on.

use std::collections::BTreeMap;
use std::fmt;

use model::{Digest, Timestamp};
use oci::Platform;

use crate::Context;

/// A build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The files that instructions may read.
    pub context: Context,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// The Dockerfile's text, if it is not in the context; `dockerfile` is then its name in messages.
    pub dockerfile_text: Option<String>,
    /// The stage to build: its name or number. Without one, the last.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Arguments that name this build (`SOURCE_COMMIT`, `BUILD_IDENTITY`, `VERSION`): usable where an `ARG` declares
    /// them, and no part of [`BuildInputs`].
    pub identity_free_args: BTreeMap<String, String>,
    /// Labels of the image, above those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// Secrets for `RUN --mount=type=secret`, by id.
    pub secrets: BTreeMap<String, BuildSecret>,
    /// No file of a layer that is made is younger than this, and the image was created then. Usually the commit's time.
    pub epoch: Timestamp,
    /// What the image is for.
    pub platform: Platform,
    /// Execute every step again.
    pub no_cache: bool,
}

impl BuildRequest {
    /// A build of `context` with its `Dockerfile`, for this machine's platform.
    pub fn new(context: Context, epoch: Timestamp) -> Self {
        Self {
            context,
            dockerfile: "Dockerfile".to_owned(),
            dockerfile_text: None,
            target: None,
            args: BTreeMap::new(),
            identity_free_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            secrets: BTreeMap::new(),
            epoch,
            platform: Platform::here(),
            no_cache: false,
        }
    }
}

/// A secret, which is in no layer, key, history or message.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BuildSecret {
    /// Changes when the value does. Part of the recipe; the value is not.
    pub version: String,
    /// The value.
    pub value: Vec<u8>,
}

impl fmt::Debug for BuildSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildSecret({:?}, {} bytes)", self.version, self.value.len())
    }
}

/// Everything an image would be made of: field by field what the `reuse` room's recipe has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInputs {
    /// What it is for, as `linux/amd64`.
    pub platform: String,
    /// The base images of the stages that are needed, in their order.
    pub base_images: Vec<BaseInput>,
    /// The expanded instructions of these stages, in their order.
    pub recipe: Vec<String>,
    /// The files of the context that they read, by path, each once.
    pub files: Vec<FileInput>,
    /// The given build arguments that an `ARG` declares.
    pub args: BTreeMap<String, String>,
    /// The secrets that are mounted: id and version.
    pub secrets: BTreeMap<String, String>,
    /// [`BUILDER_VERSION`](crate::BUILDER_VERSION).
    pub builder_version: String,
}

/// A base image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseInput {
    /// As the Dockerfile names it, expanded.
    pub reference: String,
    /// What it resolved to.
    pub digest: Digest,
}

/// A file of the context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileInput {
    /// Its path in the context.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// `file`, `symlink` or `directory`.
    pub kind: &'static str,
    /// `git:<object name>` or `sha256:<hex>`; for a directory, nothing.
    pub object: String,
}
