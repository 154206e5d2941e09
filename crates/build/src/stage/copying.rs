//! COPY and ADD: what they read is found, and becomes part of the key.

use std::sync::Arc;

use super::evaluate::{Evaluator, image_ref};
use super::{Action, CopyAction, From, PickAgain, Stage};
use crate::dockerfile::{CopyInstruction, CopySource, Heredoc, Located, Text};
use crate::engine::PickRequest;
use crate::error::BuildError;
use crate::files::{Destination, Node, PickError, Picked, Picks, clean};
use crate::ignore::IgnoreRules;
use crate::key::Key;
use crate::mode::ModeChange;

/// Where `--from` leads.
pub(super) struct Origin {
    pub from: From,
    /// The key of the tree; nothing for the context, whose files have identities of their own.
    pub key: Option<Key>,
    /// What the tree is called in messages.
    pub called: String,
    /// What the recipe calls it.
    pub neutral: String,
}

impl Evaluator<'_, '_> {
    /// The tree that `--from` or `from=` names.
    pub(super) fn origin(&mut self, from: Option<&Text>) -> Result<Origin, BuildError> {
        let Some(text) = from else {
            let called = "the build context".to_owned();
            return Ok(Origin { from: From::Context, key: None, called, neutral: String::new() });
        };
        if let Some(stage) = self.session.graph.from(&self.source, self.index, text)? {
            let found = self.session.stage(stage)?;
            let called = format!("stage {}", text.as_str());
            let neutral = format!("--from=stage {stage} ");
            return Ok(Origin { from: From::Chain(found.chain.clone()), key: Some(found.key), called, neutral });
        }
        image_ref(&self.source, text, text.as_str())?;
        let image = self.session.base_image(self.index, (&self.source, text), text.as_str(), text.as_str())?;
        let stage = Stage::on_image(&image);
        let called = format!("image {}", text.as_str());
        let neutral = format!("--from={} ", text.as_str());
        Ok(Origin { from: From::Chain(stage.chain), key: Some(stage.key), called, neutral })
    }

    pub(super) fn copy(&mut self, located: &Located, copy: &CopyInstruction) -> Result<String, BuildError> {
        let origin = self.origin(copy.from.as_ref())?;
        let excludes = self.words(&copy.excludes)?;
        let rules = IgnoreRules::of_patterns(excludes.iter().map(String::as_str)).map_err(|error| {
            let place = copy.excludes.first().map_or(located.span, Text::span);
            self.source.error(place, error.to_string())
        })?;
        let (paths, texts) = self.paths(copy)?;
        let mut picks = Picks::default();
        if !paths.is_empty() {
            let request = PickRequest { sources: &paths, excludes: &excludes, rules: &rules, parents: copy.parents };
            let found = self.session.pick(&origin.from, origin.key.as_ref(), &request);
            picks =
                found.map_err(|(index, error)| self.pick_error(located, texts.get(index).copied(), &origin, error))?;
        }
        if matches!(origin.from, From::Context) {
            self.session.read_files(&picks);
        }
        for source in &copy.sources {
            if let CopySource::Inline(document, word) = source {
                picks.0.push(self.inline(document, word)?);
            }
        }
        let destination = self.destination(copy)?;
        let owner = copy.chown.as_ref().map(|text| self.word(text)).transpose()?;
        let mut hasher = self.next_key(if copy.add { "add" } else { "copy" });
        hasher.key(&picks.key()).field(&destination.path).number(u64::from(destination.directory));
        hasher.field(owner.as_deref().unwrap_or_default()).field(format!("{:?}", destination.mode));
        hasher.number(u64::from(copy.link)).number(u64::from(copy.parents)).field(format!("{:?}", copy.unpack));
        let key = hasher.finish();
        let neutral = self.copy_line(located, copy, &origin)?;
        let again = origin.key.map(|tree| PickAgain { tree, sources: paths, excludes, parents: copy.parents });
        let action = CopyAction {
            picks: Arc::new(picks),
            from: origin.from,
            again,
            destination,
            owner,
            link: copy.link,
            unpack: copy.add && copy.unpack != Some(false),
        };
        self.step(located, key, Action::Copy(action));
        Ok(neutral)
    }

    fn words(&self, texts: &[Text]) -> Result<Vec<String>, BuildError> {
        texts.iter().map(|text| self.word(text)).collect()
    }

    /// The sources that are paths, expanded, and where they are written.
    fn paths<'c>(&self, copy: &'c CopyInstruction) -> Result<(Vec<String>, Vec<&'c Text>), BuildError> {
        let mut paths = Vec::new();
        let mut texts = Vec::new();
        for source in &copy.sources {
            let CopySource::Path(text) = source else { continue };
            let path = self.word(text)?;
            let address = path.contains("://") || path.starts_with("git@");
            if copy.add && address {
                let message = format!("ADD {path} is refused: nothing is fetched from an address");
                let hint = "keep the file in the repository, or fetch it in a job before the build";
                return Err(self.source.error(text.span(), message).hint(hint).into());
            }
            if path.is_empty() {
                return Err(self.source.error(text.span(), format!("{} is empty", text.as_str())).into());
            }
            paths.push(path);
            texts.push(text);
        }
        Ok((paths, texts))
    }

    fn pick_error(&self, located: &Located, text: Option<&Text>, origin: &Origin, error: PickError) -> BuildError {
        let place = text.map_or(located.span, Text::span);
        let at = |message: String| self.source.error(place, message);
        match error {
            PickError::Missing(path) if !matches!(origin.from, From::Context) => {
                at(format!("{} has no /{path}", origin.called)).into()
            }
            PickError::Missing(path) => match self.session.context.ignored_by(&path) {
                Some(file) => at(format!("{path} is left out of the build context by {file}"))
                    .hint(format!("add !{path} to {file} to let it in"))
                    .into(),
                None => at(format!("there is no {path} in the build context")).into(),
            },
            PickError::Io(error) => match error.downcast::<BuildError>() {
                // What went wrong while the stage was executed has a place of its own.
                Ok(error) => error,
                Err(error) => at(error.to_string()).into(),
            },
            other => at(other.to_string()).into(),
        }
    }

    fn inline(&self, document: &Heredoc, word: &Text) -> Result<Picked, BuildError> {
        let text = match document.expand {
            true => self.stage.real.document(&self.source, self.escape, word, &document.text())?,
            false => document.text(),
        };
        let object = format!("inline:{text}");
        Ok(Picked {
            path: document.name.clone(),
            name: document.name.clone(),
            above: Vec::new(),
            node: Node::file(0o644, text.len() as u64, object),
            inside: Vec::new(),
            inline: Some(text),
        })
    }

    fn destination(&self, copy: &CopyInstruction) -> Result<Destination, BuildError> {
        let text = self.word(&copy.destination)?;
        let error = |message: String| self.source.error(copy.destination.span(), message);
        if text.is_empty() {
            return Err(error("the destination is empty".to_owned()).into());
        }
        let directory =
            text.ends_with('/') || matches!(text.as_str(), "." | "..") || text.ends_with("/.") || text.ends_with("/..");
        if copy.sources.len() > 1 && !directory {
            let message = format!("{text} is not written as a directory, and there are several sources");
            return Err(error(message).hint(format!("write {text}/")).into());
        }
        let path = if text.starts_with('/') { clean(&text) } else { clean(&format!("{}/{text}", self.cwd())) };
        let mode = match &copy.chmod {
            None => None,
            Some(text) => {
                let value = self.word(text)?;
                Some(ModeChange::parse(&value).ok_or_else(|| {
                    let message = format!("--chmod={value} is not a mode");
                    self.source.error(text.span(), message).hint("write it as 0755 or u=rwX,go=rX")
                })?)
            }
        };
        Ok(Destination { path, directory: directory || copy.parents, owner: None, mode })
    }

    /// The instruction's line of the recipe.
    fn copy_line(&self, located: &Located, copy: &CopyInstruction, origin: &Origin) -> Result<String, BuildError> {
        let mut line = format!("{} {}", located.keyword, origin.neutral);
        for (name, value) in [("chown", &copy.chown), ("chmod", &copy.chmod)] {
            if let Some(text) = value {
                line.push_str(&format!("--{name}={} ", self.neutral(text)?));
            }
        }
        for (name, set) in [("link", copy.link), ("parents", copy.parents), ("unpack", copy.unpack == Some(true))] {
            if set {
                line.push_str(&format!("--{name} "));
            }
        }
        if copy.unpack == Some(false) {
            line.push_str("--unpack=false ");
        }
        for exclude in &copy.excludes {
            line.push_str(&format!("--exclude={} ", self.neutral(exclude)?));
        }
        for source in &copy.sources {
            match source {
                CopySource::Path(text) => line.push_str(&format!("{} ", self.neutral(text)?)),
                CopySource::Inline(document, word) => {
                    let text = match document.expand {
                        true => self.stage.neutral.document(&self.source, self.escape, word, &document.text())?,
                        false => document.text(),
                    };
                    line.push_str(&format!("<<{}={text:?} ", document.name));
                }
            }
        }
        line.push_str(&self.neutral(&copy.destination)?);
        Ok(line)
    }
}
