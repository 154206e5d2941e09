//! Whether an event fires a workflow.

use std::collections::BTreeMap;

use model::{CommitId, RefName};
use serde::{Deserialize, Serialize};

use crate::glob::Patterns;
use crate::inputs::Input;
use crate::workflow::Workflow;

/// `on:` of a workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct On {
    pub(crate) events: Vec<OnEvent>,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) dispatch: Vec<Input>,
    pub(crate) call: Option<CallSpec>,
}

impl On {
    /// Whether an event is named.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.events.iter().any(|event| event.name == name)
    }
}

/// One event of `on:`, with its filters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OnEvent {
    pub(crate) name: String,
    /// Nothing means every type.
    pub(crate) types: Vec<String>,
    pub(crate) branches: Option<Filter>,
    pub(crate) tags: Option<Filter>,
    pub(crate) paths: Option<Filter>,
    pub(crate) workflows: Vec<String>,
}

/// Patterns that choose names, or leave them out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Filter {
    Choose(Patterns),
    Ignore(Patterns),
}

impl Filter {
    fn lets_through(&self, name: &str) -> bool {
        match self {
            Self::Choose(patterns) => patterns.choose(name),
            Self::Ignore(patterns) => !patterns.choose(name),
        }
    }
}

/// One entry of `on.schedule`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields: minute, hour, day of the month, month, day of the week (0 is Sunday).
    pub cron: String,
    /// The time zone by its IANA name; UTC if there is none.
    pub timezone: Option<String>,
}

/// What a workflow takes and gives that others call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallSpec {
    /// Its inputs.
    pub inputs: Vec<Input>,
    /// The secrets it knows.
    pub secrets: Vec<CallSecret>,
    /// Its outputs.
    pub outputs: Vec<CallOutput>,
}

/// A secret that a called workflow knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSecret {
    /// Its name.
    pub name: String,
    /// Whether the caller must pass it.
    pub required: bool,
}

/// An output of a called workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOutput {
    /// Its name.
    pub name: String,
    /// Its value; holds expressions on the `jobs` context.
    pub value: String,
}

/// Something that happened and may fire workflows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerEvent {
    /// Its name: `push`, `pull_request`, `schedule`, `workflow_dispatch`, …
    pub name: String,
    /// The activity type (`opened`), for events that have them.
    pub action: Option<String>,
    /// The ref that was pushed; for a pull request the branch it goes to.
    pub ref_name: RefName,
    /// Where the ref stood before; nothing if it is new.
    pub before: Option<CommitId>,
    /// The paths that changed; nothing if that is not known, and then every path filter lets it through.
    pub changed_paths: Option<Vec<String>>,
    /// The message of the head commit.
    pub commit_message: String,
    /// The inputs of a dispatch.
    pub inputs: BTreeMap<String, String>,
}

impl TriggerEvent {
    /// An event on a ref of which nothing else is known.
    pub fn new(name: impl Into<String>, ref_name: RefName) -> Self {
        Self {
            name: name.into(),
            action: None,
            ref_name,
            before: None,
            changed_paths: None,
            commit_message: String::new(),
            inputs: BTreeMap::new(),
        }
    }
}

/// What in a commit message keeps workflows from running.
const SKIPS: [&str; 5] = ["[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]"];

/// The words by which a commit message asks that no workflow runs, if it does.
///
/// GitHub's five marks in any case, and the trailer `skip-checks: true` at the end of the message.
pub fn skip_mark(message: &str) -> Option<&'static str> {
    let lower = message.to_ascii_lowercase();
    if let Some(mark) = SKIPS.into_iter().find(|mark| lower.contains(mark)) {
        return Some(mark);
    }
    let last = lower.trim_end().lines().next_back()?;
    let (key, value) = last.split_once(':')?;
    (lower.trim_end().lines().count() > 1 && key.trim_end() == "skip-checks" && value.trim() == "true")
        .then_some("skip-checks: true")
}

/// Whether an event fires a workflow; if not, why.
///
/// # Errors
/// The first reason that keeps it from firing, in words for the person whose push it was.
pub fn fires(workflow: &Workflow, event: &TriggerEvent) -> Result<(), String> {
    let name = event.name.as_str();
    let Some(on) = workflow.on.events.iter().find(|on| on.name == name) else {
        let known: Vec<&str> = workflow.on.events.iter().map(|on| on.name.as_str()).collect();
        return Err(format!("it runs on {}, not on {name}", known.join(", ")));
    };
    if matches!(name, "push" | "pull_request")
        && let Some(mark) = skip_mark(&event.commit_message)
    {
        return Err(format!("the commit message says `{mark}`"));
    }
    if let Some(action) = &event.action
        && !on.types.is_empty()
        && !on.types.contains(action)
    {
        return Err(format!("it runs on {name} of the types {}, not on {action}", on.types.join(", ")));
    }
    on.check_ref(&event.ref_name)?;
    // GitHub does not look at paths where a tag is pushed.
    if event.ref_name.as_tag().is_none() || name != "push" {
        on.check_paths(event.changed_paths.as_deref())?;
    }
    Ok(())
}

impl OnEvent {
    fn check_ref(&self, ref_name: &RefName) -> Result<(), String> {
        let (kind, name, filter, other) = match (ref_name.as_branch(), ref_name.as_tag()) {
            (Some(branch), _) => ("branch", branch, &self.branches, &self.tags),
            (_, Some(tag)) => ("tag", tag, &self.tags, &self.branches),
            _ if self.branches.is_none() && self.tags.is_none() => return Ok(()),
            _ => return Err(format!("{ref_name} is neither a branch nor a tag")),
        };
        match (filter, other) {
            (Some(filter), _) if filter.lets_through(name) => Ok(()),
            (Some(Filter::Choose(_)), _) => Err(format!("no pattern chooses the {kind} {name}")),
            (Some(Filter::Ignore(_)), _) => Err(format!("the {kind} {name} is ignored")),
            // Whoever filters branches only does not want tags, and the other way round.
            (None, Some(_)) if kind == "branch" => Err(format!("it filters tags only, and {name} is a branch")),
            (None, Some(_)) => Err(format!("it filters branches only, and {name} is a tag")),
            (None, None) => Ok(()),
        }
    }

    fn check_paths(&self, changed: Option<&[String]>) -> Result<(), String> {
        let (Some(filter), Some(changed)) = (&self.paths, changed) else { return Ok(()) };
        if changed.is_empty() {
            return Err("no file changed, and it filters paths".to_owned());
        }
        if changed.iter().any(|path| filter.lets_through(path)) {
            return Ok(());
        }
        Err(match filter {
            Filter::Choose(_) => format!("none of the {} changed files is in `paths`", changed.len()),
            Filter::Ignore(_) => format!("all {} changed files are in `paths-ignore`", changed.len()),
        })
    }
}
