//! Composite actions of the repository: `uses: ./path`.

use std::collections::BTreeMap;

use model::JobResult;
use serde::Deserialize;
use workflow::{Object, Setting, Step};

use crate::evaluate::Evaluate;
use crate::job::{Job, Scope, StepEnd};
use crate::place::WORKSPACE;
use crate::step::Ready;

/// Actions may use actions, but not without end.
const MAX_DEPTH: usize = 10;

/// The largest `action.yml` that is read, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// `action.yml`, as far as it is needed. Keys that only a marketplace shows are passed over.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    inputs: BTreeMap<String, Input>,
    #[serde(default)]
    outputs: BTreeMap<String, Output>,
    runs: Runs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Input {
    default: Option<Scalar>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Output {
    value: String,
}

#[derive(Debug, Deserialize)]
struct Runs {
    using: String,
    #[serde(default)]
    steps: Vec<Inner>,
}

/// A step of a composite action.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Inner {
    id: Option<String>,
    name: Option<String>,
    #[serde(rename = "if")]
    condition: Option<Scalar>,
    run: Option<String>,
    uses: Option<String>,
    with: BTreeMap<String, Scalar>,
    env: BTreeMap<String, Scalar>,
    shell: Option<String>,
    working_directory: Option<String>,
    continue_on_error: Option<Scalar>,
}

/// A value that YAML may have read as something else than a text.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Null(()),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(text) => text.clone(),
            Self::Null(()) => String::new(),
        }
    }
}

fn texts(map: &BTreeMap<String, Scalar>) -> BTreeMap<String, String> {
    map.iter().map(|(name, value)| (name.clone(), value.text())).collect()
}

impl Inner {
    /// The same as a step of a job; `line` is that of the step which uses the action.
    fn step(&self, line: u32) -> Result<Step, String> {
        let named = self.name.as_deref().or(self.run.as_deref()).or(self.uses.as_deref()).unwrap_or_default();
        match (&self.run, &self.uses) {
            (Some(_), None) if self.shell.is_none() => {
                return Err(format!("its step {named:?} has no shell, which a composite action must say"));
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => return Err(format!("its step {named:?} needs either run or uses")),
        }
        let continue_on_error = match &self.continue_on_error {
            None => Setting::Is(false),
            Some(Scalar::Bool(value)) => Setting::Is(*value),
            Some(other) => Setting::Expression(other.text()),
        };
        Ok(Step {
            id: self.id.clone(),
            name: self.name.clone(),
            condition: self.condition.as_ref().map(Scalar::text),
            run: self.run.clone(),
            uses: self.uses.clone(),
            with: texts(&self.with),
            env: texts(&self.env),
            shell: self.shell.clone(),
            working_directory: self.working_directory.clone(),
            continue_on_error,
            line,
            ..Step::default()
        })
    }
}

/// Runs the action in the directory `path` of the workspace.
pub async fn run(
    job: &mut Job<'_>,
    scope: &Scope,
    ready: &Ready<'_>,
    path: &str,
    outputs: &mut BTreeMap<String, String>,
) -> StepEnd {
    match prepare(job, scope, ready, path) {
        Ok((manifest, steps, mut inner)) => {
            let cancelled_before = job.cancelled;
            for step in &steps {
                job.run_step(&mut inner, step).await;
            }
            if job.cancelled && !cancelled_before {
                return StepEnd { result: JobResult::Cancelled, cause: None };
            }
            finish(job, ready, &manifest, inner, outputs)
        }
        Err(message) => StepEnd::failure(job.of_step(ready, &message)),
    }
}

fn finish(
    job: &Job<'_>,
    ready: &Ready<'_>,
    manifest: &Manifest,
    mut inner: Scope,
    outputs: &mut BTreeMap<String, String>,
) -> StepEnd {
    let evaluate = Evaluate::new(job, &inner, &ready.env);
    for (name, output) in &manifest.outputs {
        match evaluate.text(&output.value) {
            Ok(value) => drop(outputs.insert(name.clone(), value)),
            Err(error) => return StepEnd::failure(job.of_step(ready, &format!("output {name:?}: {error}"))),
        }
    }
    match inner.cause.take() {
        Some(cause) => StepEnd::failure(cause),
        None if inner.failed => StepEnd::failure(job.of_step(ready, "a step of the action failed")),
        None => StepEnd::success(),
    }
}

fn prepare(
    job: &Job<'_>,
    scope: &Scope,
    ready: &Ready<'_>,
    path: &str,
) -> Result<(Manifest, Vec<Step>, Scope), String> {
    if scope.depth >= MAX_DEPTH {
        return Err(format!("actions use each other more than {MAX_DEPTH} levels deep"));
    }
    let manifest = manifest(job, path)?;
    let steps = manifest.runs.steps.iter().map(|inner| inner.step(ready.step.line)).collect::<Result<_, _>>()?;
    let evaluate = Evaluate::new(job, scope, &ready.env);
    let given = evaluate.map(&ready.step.with)?;
    let mut inputs = Object::new();
    for (name, input) in &manifest.inputs {
        let default = input.default.as_ref().map(Scalar::text).unwrap_or_default();
        inputs.insert(name.as_str(), evaluate.text(&default)?);
    }
    for (name, value) in given {
        inputs.insert(name, value);
    }
    let inner = Scope {
        steps: BTreeMap::new(),
        inputs,
        env: ready.env.clone(),
        action_path: Some(format!("{WORKSPACE}/{path}")),
        failed: false,
        cause: None,
        depth: scope.depth + 1,
    };
    Ok((manifest, steps, inner))
}

fn manifest(job: &Job<'_>, path: &str) -> Result<Manifest, String> {
    let workspace = job.place.workspace().map_err(|error| format!("the workspace cannot be read: {error}"))?;
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    for name in ["action.yml", "action.yaml"] {
        let file = format!("{prefix}{name}");
        let read = workspace.read(&file, MAX_BYTES).map_err(|error| format!("{file} cannot be read: {error}"))?;
        let Some((bytes, more)) = read else { continue };
        if more {
            return Err(format!("{file} is longer than {MAX_BYTES} bytes"));
        }
        return parse(&String::from_utf8_lossy(&bytes)).map_err(|error| format!("{file}: {error}"));
    }
    Err(format!(
        "there is no {prefix}action.yml or {prefix}action.yaml in the workspace; is there an actions/checkout before?"
    ))
}

fn parse(text: &str) -> Result<Manifest, String> {
    let manifest: Manifest = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    match manifest.runs.using.as_str() {
        "composite" => Ok(manifest),
        other => Err(format!("runs.using is {other:?}: this runner does composite actions only")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_action() {
        let text = "name: X\ndescription: y\ninputs:\n  who: {description: d, required: true, default: 3}\n  none:\n    \
                    description: d\noutputs:\n  o: {description: d, value: '${{ steps.a.outputs.o }}'}\nruns:\n  using: composite\n  steps:\n    \
                    - {id: a, run: 'echo', shell: sh, if: true, env: {A: 1.5, B: null}, continue-on-error: true}\n";
        let manifest = parse(text).unwrap();
        assert_eq!(manifest.inputs["who"].default.as_ref().unwrap().text(), "3");
        assert_eq!(manifest.outputs["o"].value, "${{ steps.a.outputs.o }}");
        let step = manifest.runs.steps[0].step(7).unwrap();
        assert_eq!((step.condition.as_deref(), step.line), (Some("true"), 7));
        assert_eq!((step.env["A"].as_str(), step.env["B"].as_str()), ("1.5", ""));
        assert_eq!(step.continue_on_error, Setting::Is(true));
    }

    #[test]
    fn what_is_refused() {
        assert!(parse("runs: {using: node20, main: x.js}").unwrap_err().contains("node20"));
        assert!(parse("runs: {using: composite, steps: [{runs: x}]}").is_err());
        assert!(parse("- x").is_err());
        let manifest = parse("runs: {using: composite, steps: [{run: x}, {shell: sh}]}").unwrap();
        assert!(manifest.runs.steps[0].step(1).unwrap_err().contains("shell"));
        assert!(manifest.runs.steps[1].step(1).unwrap_err().contains("either run or uses"));
    }
}
