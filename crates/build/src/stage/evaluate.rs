//! Going through a stage's instructions.

use std::sync::Arc;

use model::ImageRef;
use oci::Platform;

use super::{Action, Chain, HistoryLine, Layer, Stage, Step};
use crate::base::ResolvedImage;
use crate::dockerfile::{Instruction, Located, Source, Text, parse_trigger};
use crate::engine::Session;
use crate::error::BuildError;
use crate::files::clean;
use crate::graph::StageSpec;
use crate::key::{Key, KeyHasher};
use crate::scope::Scope;

/// A stage in the making.
pub(super) struct Evaluator<'s, 'e> {
    pub session: &'s mut Session<'e>,
    /// Which stage it is.
    pub index: usize,
    pub stage: Stage,
    /// The text that the instruction at hand stands in: the Dockerfile, or a trigger of the base image.
    pub source: Source,
    pub escape: char,
    /// Whether CMD was given in this stage.
    pub cmd_set: bool,
}

/// Goes through stage `index`, whose bases have been gone through.
pub(crate) fn evaluate(session: &mut Session<'_>, index: usize) -> Result<Stage, BuildError> {
    let spec = session.graph.stages[index].clone();
    let source = session.dockerfile.source.clone();
    let escape = session.dockerfile.escape;
    let (stage, triggers) = begin(session, index, &spec)?;
    session.inputs.recipe.push(from_line(session, index, &spec));
    let mut evaluator = Evaluator { session, index, stage, source, escape, cmd_set: false };
    for (place, text) in triggers.iter().enumerate() {
        let source = Source::new(&format!("ONBUILD {} of {}", place + 1, spec.image), text);
        let located = parse_trigger(&source)?;
        let dockerfile = std::mem::replace(&mut evaluator.source, source);
        evaluator.instruction(&located)?;
        evaluator.source = dockerfile;
    }
    for located in &spec.instructions {
        evaluator.instruction(located)?;
    }
    let mut stage = evaluator.stage;
    stage.config.env = stage.real.env().iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(stage)
}

/// The recipe's line of a FROM: a stage is named by its number, for its name says nothing about what it is.
fn from_line(session: &Session<'_>, index: usize, spec: &StageSpec) -> String {
    let platform = spec.platform.as_ref().map_or(String::new(), |(platform, _)| format!("--platform={platform} "));
    match session.graph.base(index) {
        Some(base) => format!("FROM {platform}stage {base}"),
        None => format!("FROM {platform}{}", spec.neutral_image),
    }
}

/// What a stage begins with, and the triggers of its base image.
fn begin(session: &mut Session<'_>, index: usize, spec: &StageSpec) -> Result<(Stage, Vec<String>), BuildError> {
    let source = session.dockerfile.source.clone();
    if let Some((platform, text)) = &spec.platform {
        let wanted: Platform =
            platform.parse().map_err(|error: model::NameError| source.error(text.span(), error.to_string()))?;
        if !session.request.platform.serves(&wanted) {
            let message =
                format!("--platform={wanted} is refused: this image is built for {}", session.request.platform);
            return Err(source.error(text.span(), message).hint("build for one platform at a time").into());
        }
    }
    if let Some(base) = session.graph.base(index) {
        let stage = session.stage(base)?;
        return Ok((Stage::on_stage(&stage), Vec::new()));
    }
    if spec.image == "scratch" {
        let mut hasher = KeyHasher::new("scratch");
        hasher.field(session.request.platform.to_string());
        return Ok((Stage::empty(hasher.finish()), Vec::new()));
    }
    let image = session.base_image(index, (&source, &spec.image_text), &spec.image, &spec.neutral_image)?;
    let mut stage = Stage::on_image(&image);
    let triggers = std::mem::take(&mut stage.config.on_build);
    Ok((stage, triggers))
}

impl Stage {
    /// Nothing at all.
    pub fn empty(key: Key) -> Self {
        Self {
            chain: Chain::new(),
            config: oci::RuntimeConfig::default(),
            author: None,
            base_history: Vec::new(),
            history: Vec::new(),
            real: Scope::default(),
            neutral: Scope::default(),
            key,
        }
    }

    /// The layers and configuration of an image.
    pub fn on_image(image: &Arc<ResolvedImage>) -> Self {
        let mut stage = Self::empty(image_key(image));
        let layer = |index| Arc::new(Layer::Base { image: Arc::clone(image), index });
        stage.chain = (0..image.manifest.layers.len()).map(layer).collect();
        stage.config = image.config.config.clone();
        stage.author = image.config.author.clone();
        stage.base_history = image.config.history.clone();
        for entry in &stage.config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            stage.real.set_env(name, value.to_owned());
            stage.neutral.set_env(name, value.to_owned());
        }
        stage
    }

    /// What an earlier stage ended with; its arguments end with it.
    pub fn on_stage(other: &Self) -> Self {
        let mut stage = other.clone();
        stage.real.clear_args();
        stage.neutral.clear_args();
        stage
    }
}

/// The key of an image's files and configuration.
pub(crate) fn image_key(image: &ResolvedImage) -> Key {
    let mut hasher = KeyHasher::new("image");
    hasher.field(image.manifest.config.digest.to_string());
    hasher.finish()
}

impl Evaluator<'_, '_> {
    fn instruction(&mut self, located: &Located) -> Result<(), BuildError> {
        self.session.check_cancelled()?;
        let lines = self.stage.history.len();
        let layers = self.stage.chain.len();
        let neutral = match &located.instruction {
            Instruction::Copy(copy) => self.copy(located, copy)?,
            Instruction::Run(run) => self.run(located, run)?,
            Instruction::Workdir(path) => self.workdir(located, path)?,
            other => self.configure(located, other)?,
        };
        self.session.inputs.recipe.push(neutral);
        if self.stage.history.len() == lines {
            let layer = (self.stage.chain.len() > layers).then_some(layers);
            self.stage.history.push(HistoryLine { text: located.written.clone(), layer });
        }
        Ok(())
    }

    /// A word as the build uses it.
    pub fn word(&self, text: &Text) -> Result<String, BuildError> {
        Ok(self.stage.real.word(&self.source, self.escape, text)?)
    }

    /// A word as the recipe has it.
    pub fn neutral(&self, text: &Text) -> Result<String, BuildError> {
        Ok(self.stage.neutral.word(&self.source, self.escape, text)?)
    }

    /// Adds a step.
    pub fn step(&mut self, located: &Located, key: Key, action: Action) {
        self.stage.key = key;
        let shown = located.written.clone();
        let step = Step { key, action, source: self.source.clone(), span: located.span, shown };
        self.stage.chain.push(Arc::new(Layer::Step(Box::new(step))));
    }

    /// A key that goes on from the stage's.
    pub fn next_key(&self, kind: &str) -> KeyHasher {
        let mut hasher = KeyHasher::new(kind);
        hasher.key(&self.stage.key);
        hasher
    }

    /// The working directory; `/` unless something else was said.
    pub fn cwd(&self) -> String {
        let set = clean(&self.stage.config.working_dir);
        format!("/{set}")
    }

    fn workdir(&mut self, located: &Located, path: &Text) -> Result<String, BuildError> {
        let real = self.word(path)?;
        if real.is_empty() {
            return Err(self.source.error(path.span(), "WORKDIR needs a path").into());
        }
        let absolute = match real.starts_with('/') {
            true => format!("/{}", clean(&real)),
            false => format!("/{}", clean(&format!("{}/{real}", self.cwd()))),
        };
        self.stage.config.working_dir.clone_from(&absolute);
        if absolute != "/" {
            let mut hasher = self.next_key("directory");
            hasher.field(&absolute);
            let key = hasher.finish();
            self.step(located, key, Action::Directory(clean(&absolute)));
        }
        Ok(format!("WORKDIR {}", self.neutral(path)?))
    }
}

/// Reads the name of an image.
pub(crate) fn image_ref(source: &Source, text: &Text, image: &str) -> Result<ImageRef, BuildError> {
    image.parse().map_err(|error: model::NameError| source.error(text.span(), error.to_string()).into())
}
