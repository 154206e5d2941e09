//! Stages: which there are, and which the target needs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::{Dockerfile, DockerfileError, Instruction, Located, Source, Span, Text};
use crate::error::BuildError;
use crate::scope::Scope;

/// A stage as written.
#[derive(Clone, Debug)]
pub(crate) struct StageSpec {
    /// Its name, in small letters.
    pub name: Option<String>,
    /// The image, expanded.
    pub image: String,
    /// The image, with arguments that only name the build left as they are.
    pub neutral_image: String,
    /// Where the image is written.
    pub image_text: Text,
    /// `--platform`, expanded.
    pub platform: Option<(String, Text)>,
    /// What follows it.
    pub instructions: Vec<Located>,
}

/// The stages of a Dockerfile.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    /// In the order of the file.
    pub stages: Vec<StageSpec>,
    /// The stage to build.
    pub target: usize,
}

/// The arguments declared before the first FROM, with their values, twice: for use and for identities.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    pub real: Scope,
    pub neutral: Scope,
    /// The names that are declared.
    pub declared: Vec<String>,
}

/// What gives an argument its value: its name and whether it has a default, which is expanded already.
pub(crate) type ArgValue<'a> = &'a dyn Fn(&str, Option<String>) -> (Option<String>, Option<String>);

impl Graph {
    /// Sorts the instructions into stages and finds the target.
    pub fn new(
        dockerfile: &Dockerfile,
        target: Option<&str>,
        platform: &BTreeMap<String, String>,
        value: ArgValue<'_>,
    ) -> Result<(Self, Globals), BuildError> {
        let source = &dockerfile.source;
        let mut globals = Globals::default();
        for (name, value) in platform {
            globals.real.set_arg(name, Some(value.clone()));
            globals.neutral.set_arg(name, Some(value.clone()));
        }
        let mut stages: Vec<StageSpec> = Vec::new();
        for located in &dockerfile.instructions {
            match (&located.instruction, stages.last_mut()) {
                (Instruction::From { platform, image, name }, _) => {
                    stages.push(globals.stage(dockerfile, platform.as_ref(), image, name.as_ref())?);
                }
                (_, Some(stage)) => stage.instructions.push(located.clone()),
                (Instruction::Arg(list), None) => globals.declare(dockerfile, list, value)?,
                (_, None) => {
                    let message = format!("{} stands before the first FROM", located.keyword);
                    return Err(source.error(located.span, message).hint("only ARG may").into());
                }
            }
        }
        if stages.is_empty() {
            let last = dockerfile.instructions.last().map_or(Span { start: 0, end: 0 }, |located| located.span);
            return Err(source.error(last, "there is no FROM").into());
        }
        let graph = Self { target: 0, stages };
        let target = graph.find_target(target)?;
        Ok((Self { target, ..graph }, globals))
    }

    fn find_target(&self, wanted: Option<&str>) -> Result<usize, BuildError> {
        let Some(wanted) = wanted else { return Ok(self.stages.len() - 1) };
        self.named(wanted, self.stages.len())
            .ok_or_else(|| BuildError::NoTarget { wanted: wanted.to_owned(), known: self.names() })
    }

    /// The names, or else numbers, of the stages.
    fn names(&self) -> Vec<String> {
        self.stages
            .iter()
            .enumerate()
            .map(|(index, stage)| stage.name.clone().unwrap_or_else(|| index.to_string()))
            .collect()
    }

    /// The stage before `below` that a name or number means. Of stages with one name, the last.
    pub fn named(&self, name: &str, below: usize) -> Option<usize> {
        let lower = name.to_ascii_lowercase();
        let by_name = (0..below).rev().find(|index| self.stages[*index].name.as_deref() == Some(lower.as_str()));
        by_name.or_else(|| name.parse::<usize>().ok().filter(|index| *index < below))
    }

    /// The stage that the FROM of stage `index` stands on.
    pub fn base(&self, index: usize) -> Option<usize> {
        // A number is an image's name here: FROM 0 was never allowed.
        let image = self.stages[index].image.to_ascii_lowercase();
        (0..index).rev().find(|earlier| self.stages[*earlier].name.as_deref() == Some(image.as_str()))
    }

    /// What `--from` in stage `index` means: an earlier stage, or else the name of an image.
    pub fn from(&self, source: &Source, index: usize, from: &Text) -> Result<Option<usize>, DockerfileError> {
        if let Some(stage) = self.named(from.as_str(), index) {
            return Ok(Some(stage));
        }
        let message = if from.as_str().contains('$') {
            "--from takes no variables: name a stage with FROM image AS name".to_owned()
        } else if self.named(from.as_str(), index + 1).is_some() {
            format!("stage {:?} cannot copy from itself", from.as_str())
        } else if self.named(from.as_str(), self.stages.len()).is_some() {
            format!("stage {:?} comes later: a stage is built from those above it", from.as_str())
        } else if from.as_str().bytes().all(|b| b.is_ascii_digit()) {
            format!("there is no stage {}: stages are counted from 0", from.as_str())
        } else {
            return Ok(None);
        };
        Err(source.error(from.span(), message).hint(self.hint(index)))
    }

    /// The stages that the target is made of, itself included, in order.
    pub fn needed(&self) -> Vec<usize> {
        let mut needed = BTreeSet::from([self.target]);
        // A stage only needs those above it, so that one pass downwards finds all.
        for index in (0..=self.target).rev() {
            if needed.contains(&index) {
                needed.extend(self.base(index));
                let names = self.stages[index].instructions.iter().flat_map(|located| origins(&located.instruction));
                needed.extend(names.filter_map(|name| self.named(name.as_str(), index)).collect::<Vec<_>>());
            }
        }
        needed.into_iter().collect()
    }

    /// The stages above `index`, for a message.
    pub fn hint(&self, index: usize) -> String {
        let above: Vec<String> = self.names().into_iter().take(index).collect();
        if above.is_empty() {
            "there is no stage above".to_owned()
        } else {
            format!("the stages above are {}", above.join(", "))
        }
    }
}

impl Globals {
    fn stage(
        &self,
        dockerfile: &Dockerfile,
        platform: Option<&Text>,
        image: &Text,
        name: Option<&Text>,
    ) -> Result<StageSpec, DockerfileError> {
        let expand = |scope: &Scope, text: &Text| scope.word(&dockerfile.source, dockerfile.escape, text);
        let spec = StageSpec {
            name: name.map(|name| name.as_str().to_ascii_lowercase()),
            image: expand(&self.real, image)?,
            neutral_image: expand(&self.neutral, image)?,
            image_text: image.clone(),
            platform: match platform {
                Some(text) => Some((expand(&self.real, text)?, text.clone())),
                None => None,
            },
            instructions: Vec::new(),
        };
        if spec.image.is_empty() { Err(empty_image(&dockerfile.source, image)) } else { Ok(spec) }
    }

    fn declare(
        &mut self,
        dockerfile: &Dockerfile,
        list: &[(Text, Option<Text>)],
        value: ArgValue<'_>,
    ) -> Result<(), DockerfileError> {
        for (name, default) in list {
            let expand = |scope: &Scope| {
                default.as_ref().map(|text| scope.word(&dockerfile.source, dockerfile.escape, text)).transpose()
            };
            let (real, neutral) = (expand(&self.real)?, expand(&self.neutral)?);
            self.real.set_arg(name.as_str(), value(name.as_str(), real).0);
            self.neutral.set_arg(name.as_str(), value(name.as_str(), neutral).1);
            self.declared.push(name.as_str().to_owned());
        }
        Ok(())
    }
}

/// The trees other than the context that an instruction reads from.
fn origins(instruction: &Instruction) -> Vec<&Text> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().collect(),
        Instruction::Run(run) => {
            let options = run.mounts.iter().flat_map(|mount| &mount.options);
            options.filter(|(key, _)| key.as_str() == "from").filter_map(|(_, value)| value.as_ref()).collect()
        }
        _ => Vec::new(),
    }
}

fn empty_image(source: &Source, image: &Text) -> DockerfileError {
    source
        .error(image.span(), format!("{} is empty: there is no image to begin with", image.as_str()))
        .hint("give the ARG a default before the first FROM, or pass it as a build argument")
}
