//! What expressions and scripts are told about the run: the contexts and the variables `GITHUB_*` and `RUNNER_*`.

use std::collections::BTreeMap;

use model::JobResult;
use workflow::{Object, Value};

use crate::place;
use crate::shell::DEFAULT_PATH;
use crate::spec::JobSpec;

/// What is known of a step that has ended.
#[derive(Clone, Debug)]
pub struct StepState {
    /// How it ended by itself.
    pub outcome: JobResult,
    /// How it ended with `continue-on-error` taken into account.
    pub conclusion: JobResult,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
}

/// The `steps` context.
pub fn steps(states: &BTreeMap<String, StepState>) -> Object {
    states
        .iter()
        .map(|(id, state)| {
            let step = Object::new()
                .with("outputs", state.outputs.clone())
                .with("outcome", state.outcome.name())
                .with("conclusion", state.conclusion.name());
            (id.as_str(), Value::Object(step))
        })
        .collect()
}

/// The `needs` context.
pub fn needs(spec: &JobSpec) -> Object {
    spec.needs
        .iter()
        .map(|(key, need)| {
            let object = Object::new().with("result", need.result.name()).with("outputs", need.outputs.clone());
            (key.as_str(), Value::Object(object))
        })
        .collect()
}

/// The `inputs` context of a workflow: what the event brings.
pub fn inputs(spec: &JobSpec) -> Object {
    match Value::from(spec.event.get("inputs").cloned().unwrap_or_default()) {
        Value::Object(inputs) => inputs,
        _ => Object::new(),
    }
}

/// The `runner` context.
pub fn runner(debug: bool) -> Object {
    let runner = Object::new()
        .with("name", "towpath")
        .with("os", "Linux")
        .with("arch", arch())
        .with("temp", place::TEMP)
        .with("tool_cache", place::TOOLS)
        .with("workspace", "/")
        .with("environment", "self-hosted");
    if debug { runner.with("debug", "1") } else { runner }
}

const fn arch() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "X64"
    } else if cfg!(target_arch = "aarch64") {
        "ARM64"
    } else if cfg!(target_arch = "arm") {
        "ARM"
    } else {
        std::env::consts::ARCH
    }
}

/// The `github` context, without what differs from step to step (`action`, `action_path`).
pub fn github(spec: &JobSpec) -> Object {
    let ref_type = if spec.ref_name.as_tag().is_some() { "tag" } else { "branch" };
    let repository = spec.repository.to_string();
    let text =
        |pointer: &str| spec.event.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let pull_request = spec.event_name.starts_with("pull_request");
    let of_pull_request = |pointer: &str| if pull_request { text(pointer) } else { String::new() };
    Object::new()
        .with("token", spec.token.clone().unwrap_or_default())
        .with("job", spec.plan.key.as_str())
        .with("ref", spec.ref_name.as_str())
        .with("sha", spec.commit.as_str())
        .with("repository", repository.as_str())
        .with("repository_owner", spec.repository.owner())
        .with("repository_id", spec.repository_id.to_string())
        .with("repositoryUrl", format!("{}/{repository}.git", spec.server_url))
        .with("run_id", spec.run.to_string())
        .with("run_number", spec.number.to_string())
        .with("run_attempt", spec.attempt.to_string())
        .with("retention_days", "90")
        .with("actor", spec.actor.as_str())
        .with("triggering_actor", spec.actor.as_str())
        .with("workflow", spec.workflow_name.as_str())
        .with("workflow_ref", format!("{repository}/{}@{}", spec.workflow_path, spec.ref_name))
        .with("workflow_sha", spec.commit.as_str())
        .with("head_ref", of_pull_request("/pull_request/head/ref"))
        .with("base_ref", of_pull_request("/pull_request/base/ref"))
        .with("event_name", spec.event_name.as_str())
        .with("event", Value::from(spec.event.clone()))
        .with("event_path", format!("{}/event.json", place::SCRIPTS))
        .with("server_url", spec.server_url.as_str())
        .with("api_url", format!("{}/api/v1", spec.server_url))
        .with("graphql_url", "")
        .with("ref_name", spec.ref_name.short())
        .with("ref_type", ref_type)
        .with("ref_protected", false)
        .with("workspace", place::WORKSPACE)
}

/// The entries of the `github` context that are also a variable `GITHUB_…`, as GitHub has it.
const VARIABLES: [&str; 27] = [
    "job",
    "ref",
    "sha",
    "repository",
    "repository_owner",
    "repository_id",
    "run_id",
    "run_number",
    "run_attempt",
    "retention_days",
    "actor",
    "triggering_actor",
    "workflow",
    "workflow_ref",
    "workflow_sha",
    "head_ref",
    "base_ref",
    "event_name",
    "event_path",
    "server_url",
    "api_url",
    "graphql_url",
    "ref_name",
    "ref_type",
    "ref_protected",
    "workspace",
    "action",
];

/// The command files of a step: the variable, and the file's name in its directory.
pub const COMMAND_FILES: [(&str, &str); 5] = [
    ("GITHUB_ENV", "env"),
    ("GITHUB_OUTPUT", "output"),
    ("GITHUB_PATH", "path"),
    ("GITHUB_STATE", "state"),
    ("GITHUB_STEP_SUMMARY", "summary"),
];

/// What every process of a job finds in its environment unless the workflow sets it.
pub fn base_environment() -> BTreeMap<String, String> {
    [("PATH", DEFAULT_PATH), ("HOME", place::HOME), ("LANG", "C.UTF-8"), ("CI", "true")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// The variables that the workflow cannot set.
pub fn fixed_environment(spec: &JobSpec, github: &Object, runner: &Object) -> BTreeMap<String, String> {
    let text = |object: &Object, key: &str| object.get(key).map(Value::to_text).unwrap_or_default();
    let mut env = BTreeMap::new();
    for key in VARIABLES {
        env.insert(format!("GITHUB_{}", key.to_ascii_uppercase()), text(github, key));
    }
    for key in ["action_path", "action_repository", "action_ref"] {
        if let Some(value) = github.get(key) {
            env.insert(format!("GITHUB_{}", key.to_ascii_uppercase()), value.to_text());
        }
    }
    for (key, value) in runner.iter() {
        env.insert(format!("RUNNER_{}", key.to_ascii_uppercase()), value.to_text());
    }
    for (variable, file) in COMMAND_FILES {
        env.insert(variable.to_owned(), format!("{}/{file}", place::FILES));
    }
    env.insert("GITHUB_ACTIONS".to_owned(), "true".to_owned());
    env.insert("TOWPATH".to_owned(), "true".to_owned());
    env.insert("TOWPATH_SNAPSHOT_REF".to_owned(), spec.snapshot.to_string());
    env
}

/// Why a step may not set a variable through `GITHUB_ENV`.
pub fn protected_variable(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    if upper == "NODE_OPTIONS" {
        Some("NODE_OPTIONS would change what later steps run")
    } else if upper.starts_with("GITHUB_") || upper.starts_with("RUNNER_") {
        Some("GITHUB_* and RUNNER_* belong to the runner")
    } else if name.contains(['\0', '=']) {
        Some("a variable's name cannot hold this")
    } else {
        None
    }
}
