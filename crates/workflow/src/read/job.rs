//! The jobs of a workflow.

use std::collections::BTreeMap;

use super::{Fields, Reader};
use crate::error::WorkflowError;
use crate::expression::scope::Scope;
use crate::late::Header;
use crate::node::{Key, Kind, Node, Place};
use crate::plan::{Access, Call, CallSecrets, Defaults, Permissions, RunnerSnapshot, Step};
use crate::text::clip;

type Read<T> = Result<T, WorkflowError>;

/// A job as it stands in the file.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Job {
    pub(crate) header: Header,
    pub(crate) needs: Vec<(String, Place)>,
    pub(crate) condition: Option<String>,
    pub(crate) permissions: Option<Permissions>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) defaults: Defaults,
    pub(crate) steps: Vec<Step>,
    pub(crate) call: Option<Call>,
    pub(crate) snapshot: Option<RunnerSnapshot>,
}

const KEYS: [&str; 20] = [
    "name",
    "needs",
    "if",
    "runs-on",
    "steps",
    "env",
    "strategy",
    "outputs",
    "defaults",
    "permissions",
    "concurrency",
    "environment",
    "container",
    "services",
    "timeout-minutes",
    "cancel-timeout-minutes",
    "continue-on-error",
    "snapshot",
    "uses",
    "with",
];
const CALL_KEYS: [&str; 9] =
    ["name", "uses", "with", "secrets", "needs", "if", "permissions", "concurrency", "strategy"];
/// The rights of a token. Some may only be read, some only written.
const SCOPES: [&str; 20] = [
    "actions",
    "artifact-metadata",
    "attestations",
    "checks",
    "code-quality",
    "contents",
    "copilot-requests",
    "deployments",
    "discussions",
    "drives",
    "id-token",
    "issues",
    "models",
    "packages",
    "pages",
    "pull-requests",
    "repository-projects",
    "security-events",
    "statuses",
    "vulnerability-alerts",
];
const NO_READ: [&str; 2] = ["id-token", "copilot-requests"];
const NO_WRITE: [&str; 2] = ["models", "vulnerability-alerts"];

impl Reader<'_> {
    /// Reads a job.
    pub(crate) fn job(&self, key: &Key, node: &Node) -> Read<Job> {
        self.check_id(&key.text, key.place, "the job")?;
        let what = format!("the job `{}`", key.text);
        let mut known = KEYS.to_vec();
        known.push("secrets");
        let fields = self.fields(node, &what, &known)?;
        let call = self.call(&fields, &what)?;
        if call.is_none() {
            self.check_own(key, &fields, &what)?;
        }
        let header = self.header(key, &fields, &what)?;
        let map = |name: &str, scope: &Scope| match fields.get(name) {
            Some(node) => self.text_map(node, &format!("`{name}` of {what}"), scope),
            None => Ok(BTreeMap::new()),
        };
        Ok(Job {
            needs: fields.get("needs").map(|node| self.needs(node, &what)).transpose()?.unwrap_or_default(),
            condition: self.optional_condition(&fields, &what)?,
            permissions: fields.get("permissions").map(|node| self.permissions(node)).transpose()?,
            env: map("env", &Scope::JOB_ENV)?,
            outputs: map("outputs", &Scope::OUTPUTS)?,
            defaults: match fields.get("defaults") {
                Some(node) => self.defaults(node, &format!("`defaults` of {what}"), Some(&Scope::DEFAULTS))?,
                None => Defaults::default(),
            },
            steps: fields.get("steps").map(|node| self.steps(node, &what)).transpose()?.unwrap_or_default(),
            snapshot: fields.get("snapshot").map(|node| self.snapshot(node, &what)).transpose()?,
            header,
            call,
        })
    }

    fn optional_condition(&self, fields: &Fields<'_>, what: &str) -> Read<Option<String>> {
        match fields.get("if") {
            Some(node) => self.condition(node, &format!("`if` of {what}"), &Scope::JOB_IF),
            None => Ok(None),
        }
    }

    fn needs(&self, node: &Node, what: &str) -> Read<Vec<(String, Place)>> {
        if node.is_null() {
            return Ok(Vec::new());
        }
        self.texts(node, &format!("`needs` of {what}"))
    }

    /// A job with steps of its own.
    fn check_own(&self, key: &Key, fields: &Fields<'_>, what: &str) -> Read<()> {
        if let Some((key, _)) = fields.entry("with").or_else(|| fields.entry("secrets")) {
            let message = format!("{what} has `{}`, but calls no workflow with `uses`", key.text);
            return Err(self.error(key.place, message));
        }
        if fields.get("runs-on").is_none() {
            let error = self.error(key.place, format!("{what} has no `runs-on`"));
            return Err(error.hint("say with which label a runner takes it, as `runs-on: ubuntu-latest`"));
        }
        Ok(())
    }

    fn call(&self, fields: &Fields<'_>, what: &str) -> Read<Option<Call>> {
        let Some(node) = fields.get("uses") else { return Ok(None) };
        if let Some((key, _)) = fields.entries.iter().find(|(key, _)| !CALL_KEYS.contains(&key.text.as_str())) {
            let message = format!("{what} calls a workflow with `uses`, and with it there is no `{}`", key.text);
            return Err(self.error(key.place, message));
        }
        let uses = self.filled(node, &format!("`uses` of {what}"), None)?;
        let (file, valid) = match uses.rsplit_once('@') {
            _ if uses.starts_with("./") => (uses.as_str(), !uses.contains('@')),
            Some((file, reference)) => (file, !reference.is_empty() && file.split('/').count() >= 3),
            None => (uses.as_str(), false),
        };
        let file_name = [".yml", ".yaml"].iter().any(|end| file.ends_with(end));
        if !valid || !file_name || file.split('/').any(|part| part == "..") {
            let message = format!("{what} calls `{}`, which names no workflow file", clip(&uses, 80));
            let hint = "a workflow is `./.github/workflows/x.yml` or `owner/name/.github/workflows/x.yml@ref`";
            return Err(self.error(node.place, message).hint(hint));
        }
        let with = match fields.get("with") {
            Some(node) => self.text_map(node, &format!("`with` of {what}"), &Scope::JOB)?,
            None => BTreeMap::new(),
        };
        let secrets = match fields.get("secrets") {
            Some(node) if node.as_scalar().is_some_and(|scalar| scalar.text == "inherit") => CallSecrets::Inherit,
            Some(node) => CallSecrets::Named(self.text_map(node, &format!("`secrets` of {what}"), &Scope::JOB_ENV)?),
            None => CallSecrets::default(),
        };
        Ok(Some(Call { uses, with, secrets }))
    }

    /// The keys that are expanded before a runner gets the job: their shape and expressions are checked, and kept.
    fn header(&self, key: &Key, fields: &Fields<'_>, what: &str) -> Read<Header> {
        let checked = |name: &str, check: &dyn Fn(&Node, &str) -> Read<()>| match fields.get(name) {
            None => Ok(None),
            Some(node) => check(node, &format!("`{name}` of {what}")).map(|()| Some(node.clone())),
        };
        let text = |node: &Node, what: &str| self.text(node, what, &Scope::JOB).map(|_| ());
        if let Some(node) = fields.get("cancel-timeout-minutes") {
            self.whole(node, &format!("`cancel-timeout-minutes` of {what}"), Some(&Scope::JOB))?;
        }
        Ok(Header {
            key: key.clone(),
            name: checked("name", &text)?,
            strategy: checked("strategy", &|node, what| self.check_strategy(node, what))?,
            runs_on: checked("runs-on", &|node, what| self.check_runs_on(node, what))?,
            timeout: checked("timeout-minutes", &|node, what| self.whole(node, what, Some(&Scope::JOB)).map(|_| ()))?,
            continue_on_error: checked("continue-on-error", &|node, what| {
                self.flag(node, what, Some(&Scope::JOB)).map(|_| ())
            })?,
            concurrency: checked("concurrency", &|node, what| self.check_concurrency(node, what, &Scope::JOB))?,
            environment: checked("environment", &|node, what| self.check_environment(node, what))?,
            container: checked("container", &|node, what| self.check_container(node, what))?,
            services: checked("services", &|node, _| self.check_services(node))?,
        })
    }

    fn check_strategy(&self, node: &Node, what: &str) -> Read<()> {
        self.check_tree(node, &Scope::STRATEGY)?;
        if node.as_template().is_some() {
            return Ok(());
        }
        let fields = self.fields(node, what, &["matrix", "fail-fast", "max-parallel"])?;
        if let Some(node) = fields.get("fail-fast") {
            self.flag(node, "`fail-fast`", Some(&Scope::STRATEGY))?;
        }
        if let Some(node) = fields.get("max-parallel") {
            self.whole(node, "`max-parallel`", Some(&Scope::STRATEGY))?;
        }
        Ok(())
    }

    fn check_runs_on(&self, node: &Node, what: &str) -> Read<()> {
        self.check_tree(node, &Scope::JOB)?;
        if let Kind::Map(_) = &node.kind {
            let fields = self.fields(node, what, &["group", "labels"])?;
            if fields.entries.is_empty() {
                return Err(self.error(node.place, format!("{what} names neither a group nor labels")));
            }
        }
        Ok(())
    }

    /// Checks `concurrency:` of a workflow or job.
    pub(crate) fn check_concurrency(&self, node: &Node, what: &str, scope: &Scope) -> Read<()> {
        self.check_tree(node, scope)?;
        if let Kind::Map(_) = &node.kind {
            let fields = self.fields(node, what, &["group", "cancel-in-progress", "queue"])?;
            if fields.get("group").is_none() {
                return Err(self.error(node.place, format!("{what} has no `group`")));
            }
            if let Some(node) = fields.get("cancel-in-progress") {
                self.flag(node, "`cancel-in-progress`", Some(scope))?;
            }
        }
        Ok(())
    }

    fn check_environment(&self, node: &Node, what: &str) -> Read<()> {
        let Kind::Map(_) = &node.kind else { return self.check_tree(node, &Scope::JOB) };
        let fields = self.fields(node, what, &["name", "url", "deployment"])?;
        let Some(name) = fields.get("name") else {
            return Err(self.error(node.place, format!("{what} has no `name`")));
        };
        self.text(name, &format!("`name` of {what}"), &Scope::JOB)?;
        if let Some(node) = fields.get("url") {
            self.text(node, &format!("`url` of {what}"), &Scope::ENVIRONMENT_URL)?;
        }
        if let Some(node) = fields.get("deployment") {
            self.flag(node, "`deployment`", Some(&Scope::JOB))?;
        }
        Ok(())
    }

    /// Reads `defaults:`. That of a workflow cannot hold expressions.
    pub(crate) fn defaults(&self, node: &Node, what: &str, scope: Option<&Scope>) -> Read<Defaults> {
        let fields = self.fields(node, what, &["run"])?;
        let Some(run) = fields.get("run") else { return Ok(Defaults::default()) };
        let what = format!("`run` of {what}");
        let fields = self.fields(run, &what, &["shell", "working-directory"])?;
        let text =
            |key: &str| fields.get(key).map(|node| self.filled(node, &format!("`{key}` of {what}"), scope)).transpose();
        Ok(Defaults { shell: text("shell")?, working_directory: text("working-directory")? })
    }

    /// Reads `permissions:` of a workflow or job.
    pub(crate) fn permissions(&self, node: &Node) -> Read<Permissions> {
        if let Some(scalar) = node.as_scalar().filter(|_| !node.is_null()) {
            return match scalar.text.as_str() {
                "read-all" => Ok(Permissions::ReadAll),
                "write-all" => Ok(Permissions::WriteAll),
                other => {
                    let message = format!("`permissions` cannot be `{}`", clip(other, 40));
                    Err(self.error(node.place, message).hint("`read-all`, `write-all`, or a mapping of scopes"))
                }
            };
        }
        let fields = self.fields(node, "`permissions`", &SCOPES)?;
        let mut scopes = BTreeMap::new();
        for (key, node) in fields.entries {
            let level = self.literal(node, &format!("the permission `{}`", key.text))?;
            let access = match level.as_str() {
                "none" => Access::None,
                "read" if !NO_READ.contains(&key.text.as_str()) => Access::Read,
                "write" if !NO_WRITE.contains(&key.text.as_str()) => Access::Write,
                other => {
                    let levels = match key.text.as_str() {
                        scope if NO_READ.contains(&scope) => "write or none",
                        scope if NO_WRITE.contains(&scope) => "read or none",
                        _ => "read, write or none",
                    };
                    let message =
                        format!("the permission `{}` cannot be `{}`: it is {levels}", key.text, clip(other, 40));
                    return Err(self.error(node.place, message));
                }
            };
            scopes.insert(key.text.clone(), access);
        }
        Ok(Permissions::Scopes(scopes))
    }

    fn snapshot(&self, node: &Node, what: &str) -> Read<RunnerSnapshot> {
        let name = format!("`snapshot` of {what}");
        if node.as_scalar().is_some() {
            let image_name = self.filled(node, &name, None)?;
            return Ok(RunnerSnapshot { image_name, version: None, condition: None });
        }
        let fields = self.fields(node, &name, &["image-name", "version", "if"])?;
        let Some(image) = fields.get("image-name") else {
            return Err(self.error(node.place, format!("{name} has no `image-name`")));
        };
        Ok(RunnerSnapshot {
            image_name: self.filled(image, "`image-name`", None)?,
            version: fields.get("version").map(|node| self.filled(node, "`version`", None)).transpose()?,
            condition: match fields.get("if") {
                Some(node) => self.condition(node, &format!("`if` of {name}"), &Scope::SNAPSHOT_IF)?,
                None => None,
            },
        })
    }
}
