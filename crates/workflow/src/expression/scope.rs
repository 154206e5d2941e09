//! Which contexts and functions may be named where.

use super::functions::Function;
use crate::text;

/// Every context that GitHub knows, and what Gitea and Forgejo call `github`.
const CONTEXTS: [&str; 15] = [
    "github", "env", "vars", "job", "jobs", "steps", "runner", "secrets", "strategy", "matrix", "needs", "inputs",
    "gitea", "forgejo", "forge",
];

/// What may be named in an expression at some place of a workflow file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// The contexts; nothing means every one that exists.
    contexts: Option<&'static [&'static str]>,
    status: bool,
    hash_files: bool,
}

const fn contexts(contexts: &'static [&'static str]) -> Scope {
    Scope { contexts: Some(contexts), status: false, hash_files: false }
}

impl Scope {
    /// Everything.
    pub(crate) const ANY: Self = Self { contexts: None, status: true, hash_files: true };
    /// `run-name`, `concurrency` of the workflow, defaults of a called workflow's inputs.
    pub(crate) const WORKFLOW: Self = contexts(&["github", "inputs", "vars"]);
    /// `env` of the workflow.
    pub(crate) const WORKFLOW_ENV: Self = contexts(&["github", "inputs", "vars", "secrets"]);
    /// Outputs of a called workflow.
    pub(crate) const CALL_OUTPUTS: Self = contexts(&["github", "inputs", "vars", "jobs"]);
    /// `if` of a job.
    pub(crate) const JOB_IF: Self =
        Self { contexts: Some(&["github", "inputs", "vars", "needs"]), status: true, hash_files: false };
    /// `strategy` of a job.
    pub(crate) const STRATEGY: Self = contexts(&["github", "inputs", "vars", "needs"]);
    /// What of a job is expanded before a runner gets it.
    pub(crate) const JOB: Self = contexts(&["github", "inputs", "vars", "needs", "strategy", "matrix"]);
    /// `env` of a job, `secrets` of a call.
    pub(crate) const JOB_ENV: Self = contexts(&["github", "inputs", "vars", "needs", "strategy", "matrix", "secrets"]);
    /// `defaults.run` of a job.
    pub(crate) const DEFAULTS: Self = contexts(&["github", "inputs", "vars", "needs", "strategy", "matrix", "env"]);
    /// Credentials of a container.
    pub(crate) const CREDENTIALS: Self =
        contexts(&["github", "inputs", "vars", "needs", "strategy", "matrix", "secrets", "env"]);
    /// `if` of a runner snapshot.
    pub(crate) const SNAPSHOT_IF: Self = Self {
        contexts: Some(&["github", "inputs", "vars", "needs", "strategy", "matrix"]),
        status: true,
        hash_files: false,
    };
    /// Outputs of a job, `env` of a container.
    pub(crate) const OUTPUTS: Self = contexts(&[
        "github", "inputs", "vars", "needs", "strategy", "matrix", "secrets", "steps", "job", "runner", "env",
    ]);
    /// The address of an environment.
    pub(crate) const ENVIRONMENT_URL: Self =
        contexts(&["github", "inputs", "vars", "needs", "strategy", "matrix", "steps", "job", "runner", "env"]);
    /// Everything of a step but its `if`.
    pub(crate) const STEP: Self = Self { hash_files: true, ..Self::OUTPUTS };
    /// `if` of a step.
    pub(crate) const STEP_IF: Self = Self { status: true, hash_files: true, ..Self::ENVIRONMENT_URL };

    pub(crate) fn check_context(&self, name: &str) -> Result<(), String> {
        if !CONTEXTS.iter().any(|known| text::equal(known, name)) {
            let meant = text::nearest(name, CONTEXTS).map(|near| format!(": did you mean `{near}`?"));
            return Err(format!("there is no context `{}`{}", text::clip(name, 40), meant.unwrap_or_default()));
        }
        let Some(allowed) = self.contexts else { return Ok(()) };
        let canonical = canonical(name);
        if allowed.iter().any(|known| text::equal(known, canonical)) {
            return Ok(());
        }
        Err(format!("the context `{name}` cannot be used here: only {} can", allowed.join(", ")))
    }

    pub(crate) fn check_function(&self, function: Function) -> Result<(), String> {
        if function.is_status() && !self.status {
            return Err(format!("`{}()` can be used in `if:` only", function.name()));
        }
        if function == Function::HashFiles && !self.hash_files {
            return Err("`hashFiles()` can be used in steps only: nothing is checked out before".to_owned());
        }
        Ok(())
    }
}

/// What GitHub calls a context that Gitea and Forgejo have a name of their own for.
pub(crate) fn canonical(name: &str) -> &str {
    if ["gitea", "forgejo", "forge"].iter().any(|other| text::equal(other, name)) { "github" } else { name }
}
