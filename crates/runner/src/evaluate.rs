//! Expressions, with the contexts of a running job.

use std::collections::BTreeMap;

use model::JobResult;
use workflow::{Contexts, Evaluator, Object, Setting, Status};

use crate::context;
use crate::hashfiles;
use crate::job::{Job, Scope};
use crate::place::Place;

/// Evaluates expressions for a step. Errors are texts for people.
pub struct Evaluate<'j> {
    contexts: Contexts,
    status: Status,
    place: &'j Place,
}

impl Job<'_> {
    /// How the job stands.
    pub fn status(&self, scope: &Scope) -> JobResult {
        match (self.cancelled, scope.failed || (scope.depth == 0 && self.cause.is_some())) {
            (true, _) => JobResult::Cancelled,
            (false, true) => JobResult::Failure,
            (false, false) => JobResult::Success,
        }
    }

    /// The `github` context of a step.
    pub fn github_of(&self, scope: &Scope, action: Option<&str>) -> Object {
        let mut github = self.github.clone();
        if let Some(action) = action {
            github.insert("action", action);
        }
        if let Some(path) = &scope.action_path {
            github.insert("action_path", path.as_str());
        }
        github
    }

    fn contexts(&self, scope: &Scope, env: &BTreeMap<String, String>) -> Contexts {
        let plan = &self.spec.plan;
        let mut variables = Object::case_sensitive();
        for (name, value) in env {
            variables.insert(name, value.as_str());
        }
        Contexts::new()
            .with("github", self.github_of(scope, None))
            .with("env", variables)
            .with("vars", self.spec.vars.clone())
            .with("secrets", self.secrets.clone())
            .with("job", Object::new().with("status", self.status(scope).name()))
            .with("steps", context::steps(&scope.steps))
            .with("runner", context::runner(self.debug))
            .with("needs", context::needs(self.spec))
            .with("matrix", plan.matrix.clone())
            .with("strategy", plan.strategy())
            .with("inputs", scope.inputs.clone())
    }
}

type Result<T> = std::result::Result<T, String>;

impl<'j> Evaluate<'j> {
    /// For a step of `scope` with the environment `env`.
    pub fn new(job: &'j Job<'_>, scope: &Scope, env: &BTreeMap<String, String>) -> Self {
        Self { contexts: job.contexts(scope, env), status: job.status(scope).into(), place: &job.place }
    }

    fn with<T>(
        &self,
        run: impl FnOnce(Evaluator<'_>) -> std::result::Result<T, workflow::ExpressionError>,
    ) -> Result<T> {
        let hash = |patterns: &[String]| {
            let workspace = self.place.workspace().map_err(|error| format!("the workspace cannot be read: {error}"))?;
            hashfiles::hash(&workspace, patterns)
        };
        run(Evaluator::new(&self.contexts, self.status).hash_files(&hash)).map_err(|error| error.to_string())
    }

    /// A text with its expressions expanded.
    pub fn text(&self, template: &str) -> Result<String> {
        self.with(|evaluator| evaluator.expand(template))
    }

    /// A mapping with its expressions expanded.
    pub fn map(&self, map: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        self.with(|evaluator| evaluator.expand_map(map))
    }

    /// Whether an `if:` is true.
    pub fn condition(&self, condition: Option<&str>) -> Result<bool> {
        self.with(|evaluator| evaluator.condition(condition))
    }

    /// A yes or no.
    pub fn flag(&self, setting: &Setting<bool>) -> Result<bool> {
        self.with(|evaluator| evaluator.flag(setting))
    }

    /// A number of minutes.
    pub fn minutes(&self, setting: &Setting<u64>) -> Result<u64> {
        self.with(|evaluator| evaluator.minutes(setting))
    }
}
