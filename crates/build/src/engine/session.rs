//! One build: what it knows, and what its stages ask of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;

use model::ImageRef;
use store::BlobLease;
use tokio::sync::oneshot;

use super::{Ask, BuiltImage, Caller, Inner, StepCount};
use crate::base::{BaseImageError, ResolvedImage};
use crate::context::ContextFiles;
use crate::dockerfile::{Dockerfile, Source, Text, parse};
use crate::error::BuildError;
use crate::files::{Kind, Node, Pick, PickError, Picks, Placement, join, pick};
use crate::graph::{Globals, Graph};
use crate::ignore::IgnoreRules;
use crate::key::{Key, KeyHasher};
use crate::request::{BaseInput, BuildInputs, BuildRequest, FileInput};
use crate::scope::{PROXIES, platform_args};
use crate::stage::{From, Stage, evaluate, image_ref};

/// One build.
pub(crate) struct Session<'e> {
    pub builder: &'e Inner,
    pub request: &'e BuildRequest,
    pub context: &'e ContextFiles,
    pub dockerfile: Dockerfile,
    pub graph: Graph,
    pub inputs: Inputs,
    pub caller: &'e Caller,
    /// Nothing if only the inputs are asked for.
    pub lease: Option<&'e BlobLease>,
    globals: Globals,
    platform: BTreeMap<String, String>,
    stages: HashMap<usize, Arc<Stage>>,
    images: HashMap<String, Arc<ResolvedImage>>,
    pub placements: HashMap<Key, Arc<Placement>>,
    /// Steps that were made in this build.
    pub made: HashSet<Key>,
    /// Commands that were executed in this build.
    pub ran: HashSet<Key>,
    /// Lists of files of stages that were made in this build.
    pub picked: HashSet<Key>,
    /// Set when a list of files that was remembered turned out to be of an earlier execution.
    pub stale: bool,
    pub count: StepCount,
}

/// What the image is made of, as far as it is known.
#[derive(Default)]
pub(crate) struct Inputs {
    pub base_images: Vec<BaseInput>,
    pub recipe: Vec<String>,
    pub files: BTreeMap<String, FileInput>,
    pub secrets: BTreeMap<String, String>,
    declared: BTreeSet<String>,
}

/// Files that an instruction asks for.
pub(crate) struct PickRequest<'a> {
    pub sources: &'a [String],
    pub excludes: &'a [String],
    pub rules: &'a IgnoreRules,
    pub parents: bool,
}

impl<'e> Session<'e> {
    /// Reads the Dockerfile.
    pub fn new(
        builder: &'e Inner,
        request: &'e BuildRequest,
        context: &'e ContextFiles,
        lease: Option<&'e BlobLease>,
        caller: &'e Caller,
    ) -> Result<Self, BuildError> {
        let text = match &request.dockerfile_text {
            Some(text) => Some(text.clone()),
            None => context.read_text(&request.dockerfile)?,
        };
        let text = text.ok_or_else(|| BuildError::NoDockerfile(request.dockerfile.clone()))?;
        let dockerfile = parse(Source::new(&request.dockerfile, &text))?;
        let platform = platform_args(&request.platform);
        let value = |name: &str, default: Option<String>| given(request, name).unwrap_or((default.clone(), default));
        let (graph, globals) = Graph::new(&dockerfile, request.target.as_deref(), &platform, &value)?;
        let mut inputs = Inputs::default();
        inputs.declared.extend(globals.declared.iter().cloned());
        Ok(Self {
            builder,
            request,
            context,
            dockerfile,
            graph,
            inputs,
            caller,
            lease,
            globals,
            platform,
            stages: HashMap::new(),
            images: HashMap::new(),
            placements: HashMap::new(),
            made: HashSet::new(),
            ran: HashSet::new(),
            picked: HashSet::new(),
            stale: false,
            count: StepCount::default(),
        })
    }

    /// What the image would be made of.
    pub fn inputs(&mut self) -> Result<BuildInputs, BuildError> {
        self.target()?;
        let args = self.request.args.iter().filter(|(name, _)| self.inputs.declared.contains(*name));
        let args = args.filter(|(name, _)| !self.request.identity_free_args.contains_key(*name));
        let mut recipe = self.inputs.recipe.clone();
        recipe.extend(
            self.request
                .labels
                .iter()
                .filter(|(name, _)| !names_the_build(name))
                .map(|(k, v)| format!("LABEL {k}={v:?}")),
        );
        Ok(BuildInputs {
            platform: self.request.platform.to_string(),
            base_images: self.inputs.base_images.clone(),
            recipe,
            files: std::mem::take(&mut self.inputs.files).into_values().collect(),
            args: args.map(|(name, value)| (name.clone(), value.clone())).collect(),
            secrets: self.inputs.secrets.clone(),
            builder_version: crate::BUILDER_VERSION.to_owned(),
        })
    }

    /// Builds the image.
    pub fn build(&mut self) -> Result<BuiltImage, BuildError> {
        let target = self.target()?;
        let known = |name: &&String| self.inputs.declared.contains(*name) || PROXIES.contains(&name.as_str());
        let unused: Vec<String> = self.request.args.keys().filter(|name| !known(name)).cloned().collect();
        if !unused.is_empty() {
            self.log(format!("warning: no ARG declares the build arguments {}", unused.join(", ")));
        }
        self.assemble(&target)
    }

    /// Goes through the stages that the target is made of.
    fn target(&mut self) -> Result<Arc<Stage>, BuildError> {
        for index in self.graph.needed() {
            self.stage(index)?;
        }
        self.stage(self.graph.target)
    }

    /// A stage, gone through.
    pub fn stage(&mut self, index: usize) -> Result<Arc<Stage>, BuildError> {
        if let Some(stage) = self.stages.get(&index) {
            return Ok(Arc::clone(stage));
        }
        let stage = Arc::new(evaluate(self, index)?);
        self.stages.insert(index, Arc::clone(&stage));
        Ok(stage)
    }

    /// Ends the build if nobody waits for it any more.
    pub fn check_cancelled(&self) -> Result<(), BuildError> {
        if self.caller.cancel.is_cancelled() { Err(BuildError::Cancelled) } else { Ok(()) }
    }

    /// Writes a line of the log.
    pub fn log(&self, line: String) {
        // Nobody listening is no reason to fail: the build ends by its cancellation.
        let _ = self.caller.asks.blocking_send(Ask::Log(line));
    }

    /// Remembers that an ARG declares a name.
    pub fn declare(&mut self, name: &str) {
        self.inputs.declared.insert(name.to_owned());
    }

    /// The value of an argument, for use and for identities.
    pub fn arg_value(&self, name: &str, default: Option<String>) -> (Option<String>, Option<String>) {
        if let Some(value) = given(self.request, name) {
            return value;
        }
        if default.is_some() {
            return (default.clone(), default);
        }
        if name == "SOURCE_DATE_EPOCH" {
            let seconds = self.request.epoch.seconds().to_string();
            return (Some(seconds), Some(placeholder(name)));
        }
        if self.globals.declared.iter().any(|declared| declared == name) {
            return (self.globals.real.get(name), self.globals.neutral.get(name));
        }
        let value = self.platform.get(name).cloned();
        (value.clone(), value)
    }

    /// The base image that is written at `text` in stage `index`.
    pub fn base_image(
        &mut self,
        index: usize,
        (source, text): (&Source, &Text),
        image: &str,
        neutral: &str,
    ) -> Result<Arc<ResolvedImage>, BuildError> {
        if let Some(found) = self.images.get(image) {
            return Ok(Arc::clone(found));
        }
        let reference = image_ref(source, text, image)?;
        let found = self.resolve(reference).map_err(|error| {
            let placed = source.error(text.span(), error.to_string());
            match error {
                BaseImageError::NotFound(_) => {
                    placed.hint(format!("no stage is called that either: {}", self.graph.hint(index)))
                }
                _ => placed,
            }
        })?;
        if found.manifest.layers.len() != found.config.rootfs.diff_ids.len() {
            let message = format!(
                "image {image} is not whole: its configuration names another number of layers than its manifest"
            );
            return Err(source.error(text.span(), message).into());
        }
        let found = Arc::new(found);
        self.inputs.base_images.push(BaseInput { reference: neutral.to_owned(), digest: found.digest });
        self.images.insert(image.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    fn resolve(&self, image: ImageRef) -> Result<ResolvedImage, BaseImageError> {
        let name = image.to_string();
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Resolve { image: Box::new(image), platform: self.request.platform.clone(), answer };
        let gone = || BaseImageError::Unreadable { image: name.clone(), message: "the build was given up".to_owned() };
        self.caller.asks.blocking_send(ask).map_err(|_| gone())?;
        answered.blocking_recv().map_err(|_| gone())?
    }

    /// Finds files in the context or in a stage. What a stage holds is looked up in the cache first, so that a stage whose
    /// files are known already need not be executed.
    pub fn pick(
        &mut self,
        from: &From,
        tree: Option<&Key>,
        what: &PickRequest<'_>,
    ) -> Result<Picks, (usize, PickError)> {
        let request = Pick { sources: what.sources, excludes: what.rules, parents: what.parents };
        let From::Chain(chain) = from else { return pick(self.context, &request) };
        if self.lease.is_none() {
            // The files of a stage follow from the recipe, which is all that is asked for.
            return Ok(Picks::default());
        }
        let key = pick_key(tree, what);
        if !self.request.no_cache
            && let Some(found) = self.builder.cache.picks(&key)
        {
            return Ok(found);
        }
        let failed = |error: BuildError| (0, PickError::Io(io::Error::other(error)));
        let view = self.full_view(chain).map_err(failed)?;
        let found = pick(&view, &request)?;
        self.builder.cache.keep_picks(&key, &found).map_err(failed)?;
        self.picked.insert(key);
        Ok(found)
    }

    /// Adds files of the context to the inputs, if those are what is asked for.
    pub fn read_files(&mut self, picks: &Picks) {
        if self.lease.is_some() {
            return;
        }
        for picked in &picks.0 {
            self.read_file(picked.path.clone(), &picked.node);
            for (relative, node) in &picked.inside {
                self.read_file(join(&picked.path, relative), node);
            }
        }
    }

    fn read_file(&mut self, path: String, node: &Node) {
        let (kind, object) = match &node.kind {
            Kind::Directory => ("directory", String::new()),
            Kind::Symlink(target) => ("symlink", format!("target:{target}")),
            Kind::File(_) | Kind::Other => ("file", node.object.to_string()),
        };
        let input = FileInput { path: path.clone(), mode: node.mode, kind, object };
        self.inputs.files.insert(path, input);
    }
}

/// The key under which is kept what was picked from a stage.
pub(crate) fn pick_key(tree: Option<&Key>, what: &PickRequest<'_>) -> Key {
    let mut hasher = KeyHasher::new("pick");
    if let Some(tree) = tree {
        hasher.key(tree);
    }
    hasher.number(u64::from(what.parents)).number(what.sources.len() as u64);
    for text in what.sources.iter().chain(what.excludes) {
        hasher.field(text);
    }
    hasher.finish()
}

/// What the request gives an argument, for use and for identities.
fn given(request: &BuildRequest, name: &str) -> Option<(Option<String>, Option<String>)> {
    if let Some(value) = request.identity_free_args.get(name) {
        return Some((Some(value.clone()), Some(placeholder(name))));
    }
    request.args.get(name).map(|value| (Some(value.clone()), Some(value.clone())))
}

/// What stands in a recipe for an argument that only names the build.
fn placeholder(name: &str) -> String {
    format!("${{{name}}}")
}

/// Labels that say which build it was, not what it is.
fn names_the_build(label: &str) -> bool {
    let name = label.strip_prefix("org.opencontainers.image.");
    name.is_some_and(|name| matches!(name, "revision" | "source" | "version" | "created" | "url" | "ref.name"))
}
