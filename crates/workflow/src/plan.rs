//! The plan of a job: what a runner needs to know of the workflow file.
//!
//! Texts of steps, `env` and `outputs` are kept as written, expressions and all: only the runner has the contexts to
//! expand them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::late::Late;
use crate::object::Object;

/// One job of a run: one cell of the matrix, if the job has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobPlan {
    /// Its key in the workflow file; the jobs of a matrix share one.
    pub key: String,
    /// Its name for people, with the matrix values.
    pub name: String,
    /// The line of its key in the workflow file, from 1.
    pub line: u32,
    /// The values of its cell: the `matrix` context. Empty without a matrix.
    #[serde(default)]
    pub matrix: Object,
    /// Its place among the jobs of its matrix, from 0: `strategy.job-index`.
    #[serde(default)]
    pub index: u32,
    /// How many jobs its matrix has: `strategy.job-total`.
    #[serde(default = "one")]
    pub total: u32,
    /// The keys of the jobs that must end before it.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Its `if:`, an expression with or without `${{ }}`. Nothing means `success()`.
    #[serde(default)]
    pub condition: Option<String>,
    /// The labels a runner must have. Empty only for a call of another workflow.
    #[serde(default)]
    pub runs_on: Vec<String>,
    /// The runner group it asks for.
    #[serde(default)]
    pub runner_group: Option<String>,
    /// `env:` of the workflow with that of the job on top. Expand with [`crate::Evaluator::expand_map`].
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What its `run:` steps do not say themselves.
    #[serde(default)]
    pub defaults: Defaults,
    /// Its steps, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Its outputs by name. Expand with [`crate::Evaluator::expand_map`].
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// After how many minutes it is cancelled.
    #[serde(default = "six_hours")]
    pub timeout_minutes: u64,
    /// Whether the run may succeed although this job fails.
    #[serde(default)]
    pub continue_on_error: bool,
    /// Whether the failure of one job of the matrix cancels the others.
    #[serde(default = "yes")]
    pub fail_fast: bool,
    /// How many jobs of the matrix may run at once; nothing means as many as there are runners.
    #[serde(default)]
    pub max_parallel: Option<u64>,
    /// The group of which only one job runs at a time.
    #[serde(default)]
    pub concurrency: Option<Concurrency>,
    /// The rights of the job's token: the job's own, else the workflow's; nothing if neither says.
    #[serde(default)]
    pub permissions: Option<Permissions>,
    /// The deployment environment it uses.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// The container its steps run in.
    #[serde(default)]
    pub container: Option<Container>,
    /// Containers that run beside it, by name.
    #[serde(default)]
    pub services: BTreeMap<String, Container>,
    /// The workflow that this job calls instead of having steps.
    #[serde(default)]
    pub call: Option<Call>,
    /// The image that is made of the runner's state when the job is done.
    #[serde(default)]
    pub snapshot: Option<RunnerSnapshot>,
    /// What can only be known when the jobs it needs have ended. Until [`crate::expand_matrix`] is called this plan
    /// stands for all the jobs of its matrix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Box<Late>>,
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

const fn six_hours() -> u64 {
    JobPlan::TIMEOUT_MINUTES
}

impl JobPlan {
    /// The time limit of a job that sets none, in minutes.
    pub const TIMEOUT_MINUTES: u64 = 360;

    /// Whether [`crate::expand_matrix`] must be called once the jobs it needs have ended.
    pub const fn is_late(&self) -> bool {
        self.late.is_some()
    }

    /// The `strategy` context of the job.
    pub fn strategy(&self) -> Object {
        Object::new()
            .with("fail-fast", self.fail_fast)
            .with("job-index", f64::from(self.index))
            .with("job-total", f64::from(self.total))
            .with("max-parallel", self.max_parallel.map_or(f64::from(self.total), float))
    }
}

#[allow(clippy::cast_precision_loss)]
const fn float(value: u64) -> f64 {
    value as f64
}

/// `defaults.run` of a job, over that of the workflow. Texts may hold expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    /// The shell of `run:` steps.
    #[serde(default)]
    pub shell: Option<String>,
    /// Their directory, below the workspace.
    #[serde(default)]
    pub working_directory: Option<String>,
}

/// One step of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The name under which later steps find its outputs.
    #[serde(default)]
    pub id: Option<String>,
    /// Its name for people; may hold expressions. See [`Step::title`].
    #[serde(default)]
    pub name: Option<String>,
    /// Its `if:`, an expression with or without `${{ }}`. Nothing means `success()`.
    #[serde(default)]
    pub condition: Option<String>,
    /// The script it runs. Exactly one of `run` and `uses` is there.
    #[serde(default)]
    pub run: Option<String>,
    /// The action it uses: `owner/name[/path]@ref`, `./path` or `docker://image`.
    #[serde(default)]
    pub uses: Option<String>,
    /// The inputs of the action. Expand with [`crate::Evaluator::expand_map`].
    #[serde(default)]
    pub with: BTreeMap<String, String>,
    /// Its environment. Expand with [`crate::Evaluator::expand_map`].
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its shell; may hold expressions.
    #[serde(default)]
    pub shell: Option<String>,
    /// Its directory, below the workspace; may hold expressions.
    #[serde(default)]
    pub working_directory: Option<String>,
    /// Whether the job goes on as if it had succeeded. Resolve with [`crate::Evaluator::flag`].
    #[serde(default)]
    pub continue_on_error: Setting<bool>,
    /// After how many minutes it is killed. Resolve with [`crate::Evaluator::minutes`].
    #[serde(default)]
    pub timeout_minutes: Option<Setting<u64>>,
    /// The line it begins on in the workflow file, from 1.
    #[serde(default)]
    pub line: u32,
}

impl Step {
    /// What to call the step where it has no name: `Run` and the first line of its script, or the action.
    ///
    /// May hold expressions.
    pub fn title(&self) -> String {
        if let Some(name) = self.name.as_deref().filter(|name| !name.trim().is_empty()) {
            return name.to_owned();
        }
        let what = self.uses.as_deref().or(self.run.as_deref()).unwrap_or_default();
        format!("Run {}", what.trim().lines().next().unwrap_or_default().trim_end())
    }
}

/// A value that is either known or an expression that yields it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Setting<T> {
    /// The value.
    Is(T),
    /// A text with `${{ }}`.
    Expression(String),
}

impl<T: Default> Default for Setting<T> {
    fn default() -> Self {
        Self::Is(T::default())
    }
}

/// `concurrency:` of a workflow or job, expanded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// The name of the group; compared without case.
    pub group: String,
    /// Whether a newer one ends the one that runs.
    pub cancel_in_progress: bool,
    /// What happens to those that wait already when one more comes.
    #[serde(default)]
    pub queue: Queue,
}

/// How many may wait in a concurrency group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Queue {
    /// One: a newer one takes the place of the one that waits.
    #[default]
    Single,
    /// All of them, in order.
    Max,
}

/// `permissions:` of a job's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permissions {
    /// Every scope may be read.
    ReadAll,
    /// Every scope may be read and written.
    WriteAll,
    /// These scopes, and no others. `{}` means none.
    Scopes(BTreeMap<String, Access>),
}

impl Permissions {
    /// What the token may do in a scope (`contents`, `packages`, …).
    pub fn access(&self, scope: &str) -> Access {
        match self {
            Self::ReadAll => Access::Read,
            Self::WriteAll => Access::Write,
            Self::Scopes(scopes) => scopes.get(scope).copied().unwrap_or(Access::None),
        }
    }
}

/// What a token may do in one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Nothing.
    None,
    /// Read.
    Read,
    /// Read and write.
    Write,
}

/// `environment:` of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Its name, expanded.
    pub name: String,
    /// The address shown for the deployment. May hold expressions on what the steps put out.
    #[serde(default)]
    pub url: Option<String>,
    /// Whether using it makes a deployment record; may be an expression.
    #[serde(default = "deployment")]
    pub deployment: Setting<bool>,
}

const fn deployment() -> Setting<bool> {
    Setting::Is(true)
}

/// `container:` of a job, or one of its `services:`. Every text may hold expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The image. An expression that yields the empty text means no container.
    pub image: String,
    /// The account to pull the image with.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Ports, as `container`, `host:container` or either with `/udp`.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Volumes, as `name:path` or `path`.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Options of `docker create`.
    #[serde(default)]
    pub options: Option<String>,
    /// The command in place of the image's (services only).
    #[serde(default)]
    pub command: Option<String>,
    /// The entry point in place of the image's (services only).
    #[serde(default)]
    pub entrypoint: Option<String>,
}

/// The account to pull an image with. Both texts may hold expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password, which is nearly always `${{ secrets.… }}`.
    pub password: String,
}

/// The call of another workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// `./.github/workflows/x.yml` of the same commit, or `owner/repository/path@ref`.
    pub uses: String,
    /// Its inputs. Expand with [`crate::Evaluator::value_map`]: they keep their types.
    #[serde(default)]
    pub with: BTreeMap<String, String>,
    /// The secrets it gets.
    #[serde(default)]
    pub secrets: CallSecrets,
}

/// The secrets that a called workflow gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallSecrets {
    /// All that the caller has.
    Inherit,
    /// These; the texts may hold expressions.
    Named(BTreeMap<String, String>),
}

impl Default for CallSecrets {
    fn default() -> Self {
        Self::Named(BTreeMap::new())
    }
}

/// `snapshot:` of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunnerSnapshot {
    /// The name of the image.
    pub image_name: String,
    /// Its version, `1.*` if not given.
    #[serde(default)]
    pub version: Option<String>,
    /// Its `if:`.
    #[serde(default)]
    pub condition: Option<String>,
}
