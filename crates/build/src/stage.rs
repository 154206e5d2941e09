//! A stage: its instructions carried out as far as they only change what is known of the image; those that change files
//! become steps, which are executed when somebody needs their files.

mod configure;
mod copying;
mod evaluate;
mod mounts;

use std::sync::Arc;

use oci::{History, RuntimeConfig};

use crate::base::ResolvedImage;
use crate::dockerfile::{Source, Span};
use crate::files::{Destination, Picks};
use crate::key::Key;
use crate::scope::Scope;

pub(crate) use evaluate::evaluate;
pub(crate) use evaluate::image_ref;
pub(crate) use mounts::{MountKind, RunMount, Sharing};

/// A stage, as far as it is known without executing anything.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Its layers, the lowest first.
    pub chain: Chain,
    /// How a container of it would run.
    pub config: RuntimeConfig,
    /// Fields of the configuration of its base image that are not `config`.
    pub author: Option<String>,
    /// What the base image's configuration says of its layers.
    pub base_history: Vec<History>,
    /// One for each instruction since.
    pub history: Vec<HistoryLine>,
    /// The variables at its end, for stages that stand on it.
    pub real: Scope,
    /// The same with the arguments that only name the build left as they are.
    pub neutral: Scope,
    /// The key of what its files are.
    pub key: Key,
}

/// The layers of a stage at a point.
pub(crate) type Chain = Vec<Arc<Layer>>;

/// A line of an image's history.
#[derive(Clone, Debug)]
pub(crate) struct HistoryLine {
    /// The instruction.
    pub text: String,
    /// The layer of the chain that it makes; which may turn out to be empty.
    pub layer: Option<usize>,
}

/// A layer that exists or can be made.
#[derive(Debug)]
pub(crate) enum Layer {
    /// A layer of a base image.
    Base {
        /// The image.
        image: Arc<ResolvedImage>,
        /// Its place in the image's manifest.
        index: usize,
    },
    /// What an instruction makes.
    Step(Box<Step>),
}

/// An instruction that changes files.
#[derive(Debug)]
pub(crate) struct Step {
    /// What its result depends on.
    pub key: Key,
    /// What it does.
    pub action: Action,
    /// The text that it stands in.
    pub source: Source,
    /// Where.
    pub span: Span,
    /// The instruction, for messages.
    pub shown: String,
}

/// What a [`Step`] does.
#[derive(Debug)]
pub(crate) enum Action {
    /// Puts files somewhere.
    Copy(CopyAction),
    /// Makes a directory, if it is not there.
    Directory(String),
    /// Runs a command.
    Run(RunAction),
}

/// COPY and ADD.
#[derive(Debug)]
pub(crate) struct CopyAction {
    /// The files.
    pub picks: Arc<Picks>,
    /// The tree they were picked from.
    pub from: From,
    /// How they were picked, if not from the context.
    pub again: Option<PickAgain>,
    /// Where they go; the owner is filled in from `owner`.
    pub destination: Destination,
    /// `--chown` as written; names are looked up in the stage.
    pub owner: Option<String>,
    /// `--link`: what lies below is not looked at.
    pub link: bool,
    /// Whether archives are unpacked.
    pub unpack: bool,
}

/// How files were picked from a stage or image.
#[derive(Debug)]
pub(crate) struct PickAgain {
    /// The key of the tree.
    pub tree: Key,
    pub sources: Vec<String>,
    pub excludes: Vec<String>,
    pub parents: bool,
}

/// The tree that files are picked from.
#[derive(Clone, Debug)]
pub(crate) enum From {
    /// The build context.
    Context,
    /// The files of a stage or image.
    Chain(Chain),
}

/// RUN.
#[derive(Debug)]
pub(crate) struct RunAction {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// A script that is put at [`SCRIPT`], if the command is one with an interpreter of its own.
    pub script: Option<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// More environment, which the result does not depend on.
    pub proxies: Vec<(String, String)>,
    /// The working directory.
    pub cwd: String,
    /// `USER`.
    pub user: String,
    /// `--mount`.
    pub mounts: Vec<RunMount>,
}

/// Where a script with an interpreter of its own is while it runs.
pub(crate) const SCRIPT: &str = "/.towpath-run";
