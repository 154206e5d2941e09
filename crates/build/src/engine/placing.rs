//! Where the files of COPY, ADD and WORKDIR go, before anything is written.

use std::sync::Arc;

use super::session::pick_key;
use super::{PickRequest, Session};
use crate::error::BuildError;
use crate::files::{Content, Destination, Kind, Node, Pick, Picked, Picks, Placement, Tree, find, pick, place};
use crate::ignore::IgnoreRules;
use crate::layer::Contents;
use crate::stage::{Action, CopyAction, From, Layer, Step};
use crate::view::{Nothing, View};

impl Session<'_> {
    /// Where files of a step go.
    pub(super) fn placement(&mut self, chain: &[Arc<Layer>], index: usize) -> Result<Arc<Placement>, BuildError> {
        let Layer::Step(step) = chain[index].as_ref() else { return Ok(Arc::default()) };
        if let Some(found) = self.placements.get(&step.key) {
            return Ok(Arc::clone(found));
        }
        let below = &chain[..index];
        let placement = match &step.action {
            Action::Directory(path) => self.place_directory(step, below, path)?,
            Action::Copy(action) => self.place_copy(step, below, action)?,
            Action::Run(_) => Placement::default(),
        };
        let placement = Arc::new(placement);
        self.placements.insert(step.key, Arc::clone(&placement));
        Ok(placement)
    }

    fn place_directory(&mut self, step: &Step, below: &[Arc<Layer>], path: &str) -> Result<Placement, BuildError> {
        let view = self.view(below)?;
        let failed = |error: String| BuildError::from(step.source.error(step.span, error));
        let found = find(&view, path, true).map_err(|error| failed(error.to_string()))?;
        if found.is_some_and(|(_, node)| node.is_directory()) {
            return Ok(Placement::default());
        }
        let destination = Destination { path: path.to_owned(), directory: true, owner: None, mode: None };
        place(&view, &Picks::default(), &[], &destination).map_err(|error| failed(error.to_string()))
    }

    fn place_copy(&mut self, step: &Step, below: &[Arc<Layer>], action: &CopyAction) -> Result<Placement, BuildError> {
        let failed = |error: String| BuildError::from(step.source.error(step.span, error));
        let mut destination = action.destination.clone();
        if let Some(owner) = &action.owner {
            destination.owner = Some(match numeric_owner(owner) {
                Some(owner) => owner,
                None => {
                    let view = self.full_view(below)?;
                    let found = oci::user::resolve(view.merged(), owner);
                    let found = found.map_err(|error| failed(format!("--chown={owner}: {error}")))?;
                    (found.uid, found.gid)
                }
            });
        }
        let mut archives = Vec::new();
        if action.unpack {
            let from = self.contents_view(step)?;
            for picked in &action.picks.0 {
                archives.push(
                    archive(&self.contents(from.as_ref()), picked)
                        .map_err(|error| failed(format!("{}: {error}", picked.path)))?,
                );
            }
        }
        let view: Box<dyn Tree> = if action.link { Box::new(Nothing) } else { Box::new(self.view(below)?) };
        place(view.as_ref(), &action.picks, &archives, &destination).map_err(|error| failed(error.to_string()))
    }

    /// The files that a COPY reads from, if they are those of a stage or image.
    pub(super) fn contents_view(&mut self, step: &Step) -> Result<Option<View>, BuildError> {
        let Action::Copy(CopyAction { from: From::Chain(chain), again, picks, .. }) = &step.action else {
            return Ok(None);
        };
        let view = self.full_view(chain)?;
        let ran = |layer: &Arc<Layer>| matches!(layer.as_ref(), Layer::Step(step) if self.ran.contains(&step.key));
        if let Some(again) = again
            && chain.iter().any(ran)
        {
            let rules = IgnoreRules::of_patterns(again.excludes.iter().map(String::as_str)).unwrap_or_default();
            let what = PickRequest {
                sources: &again.sources,
                excludes: &again.excludes,
                rules: &rules,
                parents: again.parents,
            };
            let key = pick_key(Some(&again.tree), &what);
            if !self.picked.contains(&key) {
                let request = Pick { sources: what.sources, excludes: what.rules, parents: what.parents };
                let found = pick(&view, &request);
                let found = found.map_err(|(_, error)| step.source.error(step.span, error.to_string()))?;
                self.builder.cache.keep_picks(&key, &found)?;
                self.picked.insert(key);
                if found.key() != picks.key() {
                    self.stale = true;
                    return Err(BuildError::Broken("a command made other files than it did before".to_owned()));
                }
            }
        }
        Ok(Some(view))
    }
}

/// The entries of the archive that a picked file is; nothing if it is none.
fn archive(contents: &Contents<'_>, picked: &Picked) -> std::io::Result<Option<Vec<oci::tar::Entry>>> {
    match &picked.node {
        Node { kind: Kind::File(size), .. } if *size > 0 && picked.inline.is_none() => {
            contents.archive(&Content::Tree(picked.path.clone()))
        }
        _ => Ok(None),
    }
}

/// An owner that needs no look into the image: `uid:gid`, or `uid`, which is the group's number too.
fn numeric_owner(text: &str) -> Option<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    Some((user.parse().ok()?, group.parse().ok()?))
}
