//! The steps of a job.

use std::collections::BTreeSet;

use super::{Fields, Reader};
use crate::error::WorkflowError;
use crate::expression::scope::Scope;
use crate::node::{Kind, Node};
use crate::plan::{Setting, Step};
use crate::text::{clip, fold};

type Read<T> = Result<T, WorkflowError>;

/// How many steps a job may have.
const MAX_STEPS: usize = 1000;

const RUN_KEYS: [&str; 9] =
    ["id", "name", "if", "run", "shell", "working-directory", "env", "continue-on-error", "timeout-minutes"];
const USES_KEYS: [&str; 8] = ["id", "name", "if", "uses", "with", "env", "continue-on-error", "timeout-minutes"];
const ALL_KEYS: [&str; 11] = [
    "id",
    "name",
    "if",
    "run",
    "uses",
    "with",
    "shell",
    "working-directory",
    "env",
    "continue-on-error",
    "timeout-minutes",
];
/// What GitHub has for steps that run beside each other.
const BESIDE: [&str; 5] = ["background", "wait", "wait-all", "cancel", "parallel"];

impl Reader<'_> {
    /// Reads `steps:` of a job.
    pub(crate) fn steps(&self, node: &Node, job: &str) -> Read<Vec<Step>> {
        let items = match &node.kind {
            Kind::List(items) => items.as_slice(),
            _ if node.is_null() => &[],
            _ => {
                return Err(self.error(node.place, format!("`steps` of {job} must be a list, not {}", node.describe())));
            }
        };
        if items.len() > MAX_STEPS {
            return Err(self.error(node.place, format!("{job} has {} steps: {MAX_STEPS} is the most", items.len())));
        }
        let mut ids = BTreeSet::new();
        let mut steps = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            let step = self.step(item, number + 1, job)?;
            if let Some(id) = &step.id
                && !ids.insert(fold(id))
            {
                let place = item.get("id").unwrap_or(item).place;
                return Err(self.error(place, format!("the step id `{id}` is taken already in {job}")));
            }
            steps.push(step);
        }
        Ok(steps)
    }

    fn step(&self, node: &Node, number: usize, job: &str) -> Read<Step> {
        let what = format!("step {number} of {job}");
        if let Kind::Map(entries) = &node.kind
            && let Some((key, _)) = entries.iter().find(|(key, _)| BESIDE.contains(&key.text.as_str()))
        {
            let message = format!("{what} uses `{}`: steps that run beside each other are not supported", key.text);
            return Err(self.error(key.place, message).hint("let the steps run one after the other"));
        }
        let fields = self.fields(node, &what, &ALL_KEYS)?;
        match (fields.entry("run"), fields.entry("uses")) {
            (Some(_), Some((key, _))) => return Err(self.error(key.place, format!("{what} has both `run` and `uses`"))),
            (None, None) => return Err(self.error(node.place, format!("{what} has neither `run` nor `uses`"))),
            (Some(_), None) => self.check_keys(&fields, &what, "run", &RUN_KEYS)?,
            (None, Some(_)) => self.check_keys(&fields, &what, "uses", &USES_KEYS)?,
        }
        self.step_fields(node, &fields, &what)
    }

    fn check_keys(&self, fields: &Fields<'_>, what: &str, kind: &str, known: &[&str]) -> Read<()> {
        match fields.entries.iter().find(|(key, _)| !known.contains(&key.text.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                Err(self.error(key.place, format!("{what} has `{kind}`, and with it there is no `{}`", key.text)))
            }
        }
    }

    fn step_fields(&self, node: &Node, fields: &Fields<'_>, what: &str) -> Read<Step> {
        let name = |key: &str| format!("`{key}` of {what}");
        let text = |key: &str| fields.get(key).map(|node| self.text(node, &name(key), &Scope::STEP)).transpose();
        let filled =
            |key: &str| fields.get(key).map(|node| self.filled(node, &name(key), Some(&Scope::STEP))).transpose();
        let map = |key: &str| fields.get(key).map(|node| self.text_map(node, &name(key), &Scope::STEP)).transpose();
        let mut step = Step { line: node.place.line, name: text("name")?, run: text("run")?, ..Step::default() };
        if let Some(node) = fields.get("id") {
            let id = self.literal(node, &name("id"))?;
            self.check_id(&id, node.place, "the step id")?;
            step.id = Some(id);
        }
        if let Some(node) = fields.get("uses") {
            let uses = self.filled(node, &name("uses"), None)?;
            self.check_uses(&uses, node, what)?;
            step.uses = Some(uses);
        }
        if let Some(node) = fields.get("if") {
            step.condition = self.condition(node, &name("if"), &Scope::STEP_IF)?;
        }
        step.shell = filled("shell")?;
        step.working_directory = filled("working-directory")?;
        step.with = map("with")?.unwrap_or_default();
        step.env = map("env")?.unwrap_or_default();
        if let Some(node) = fields.get("continue-on-error") {
            step.continue_on_error = self.flag(node, &name("continue-on-error"), Some(&Scope::STEP))?;
        }
        if let Some(node) = fields.get("timeout-minutes") {
            let minutes: Setting<u64> = self.whole(node, &name("timeout-minutes"), Some(&Scope::STEP))?;
            step.timeout_minutes = Some(minutes);
        }
        Ok(step)
    }

    /// An action is named as `owner/name[/path]@ref` or its address with `@ref`, `./path` or `docker://image`.
    fn check_uses(&self, uses: &str, node: &Node, what: &str) -> Read<()> {
        if uses.starts_with("./") || uses.strip_prefix("docker://").is_some_and(|image| !image.is_empty()) {
            return Ok(());
        }
        let shown = clip(uses, 80);
        let hint = "an action is `owner/name@ref`, `./path` or `docker://image`";
        let Some((action, reference)) = uses.rsplit_once('@') else {
            return Err(self
                .error(node.place, format!("{what} uses `{shown}` without saying which `@ref`"))
                .hint(hint));
        };
        let path = action.strip_prefix("https://").or_else(|| action.strip_prefix("http://")).unwrap_or(action);
        let parts: Vec<&str> = path.split('/').collect();
        if parts.len() < 2 || parts.iter().any(|part| part.is_empty()) || reference.is_empty() {
            return Err(self.error(node.place, format!("{what} uses `{shown}`, which names no action")).hint(hint));
        }
        Ok(())
    }
}
