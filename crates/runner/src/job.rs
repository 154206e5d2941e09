//! A job from its first line to its report.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use model::{Cause, JobResult, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use workflow::{Object, Step};

use crate::context::{self, StepState};
use crate::evaluate::Evaluate;
use crate::label;
use crate::log::JobLog;
use crate::mask::Masker;
use crate::place::{self, Place};
use crate::report::{Annotation, JobReport, StepReport};
use crate::shell::Tools;
use crate::spec::JobSpec;

/// The longest output of a job, in bytes: what the runner protocol carries.
const MAX_OUTPUT: usize = 1024 * 1024;

/// How a step ended, and why if not well.
#[derive(Debug)]
pub struct StepEnd {
    pub result: JobResult,
    pub cause: Option<Cause>,
}

impl StepEnd {
    pub fn success() -> Self {
        Self { result: JobResult::Success, cause: None }
    }

    pub fn failure(cause: Cause) -> Self {
        Self { result: JobResult::Failure, cause: Some(cause) }
    }
}

/// A list of steps that see each other: those of the job, or of a composite action.
pub struct Scope {
    pub steps: BTreeMap<String, StepState>,
    pub inputs: Object,
    /// Their environment before what `GITHUB_ENV` and the step itself add.
    pub env: BTreeMap<String, String>,
    /// In a composite action: its directory, as the job sees it.
    pub action_path: Option<String>,
    pub failed: bool,
    /// In a composite action: why it fails.
    pub cause: Option<Cause>,
    /// In how many composite actions these steps are.
    pub depth: usize,
}

/// A job that is running.
pub struct Job<'a> {
    pub spec: &'a JobSpec,
    pub place: Place,
    pub tools: Tools,
    pub log: JobLog,
    /// The constant part of the contexts.
    pub github: Object,
    pub secrets: BTreeMap<String, String>,
    pub debug: bool,
    /// What steps wrote to `GITHUB_ENV`.
    pub added: BTreeMap<String, String>,
    /// What steps wrote to `GITHUB_PATH`, the latest first.
    pub paths: Vec<String>,
    /// Whether the steps may read the objects of the repository.
    pub objects: bool,
    pub cancel: CancellationToken,
    pub cancelled: bool,
    /// The time limit of the job was reached; it counts as cancelled then.
    pub timed_out: bool,
    pub deadline: Instant,
    pub steps: Vec<StepReport>,
    pub annotations: Vec<Annotation>,
    /// Counts everything that was started, for the names of files.
    pub started: usize,
    pub cause: Option<Cause>,
}

/// The time.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The first line of a job's log.
pub fn first_line(spec: &JobSpec) -> String {
    format!(
        "Job {:?} of {}, run {} attempt {}, at commit {} ({})",
        spec.plan.name, spec.repository, spec.number, spec.attempt, spec.commit, spec.ref_name
    )
}

/// A masker of everything secret in `spec`.
pub fn masker(spec: &JobSpec) -> Masker {
    Masker::new(spec.secrets.values().chain(&spec.token).map(String::as_str))
}

/// Runs a job in the directory `dir`: writes `log` there, live, and `report.json` when it has ended.
///
/// When `cancel` is cancelled, the present step is asked to end; steps whose condition asks for it (`always()`) still
/// run. Never fails itself: what goes wrong is the cause in the report.
pub async fn run(spec: &JobSpec, dir: &Path, cancel: CancellationToken) -> JobReport {
    let started = now();
    let mut report = match JobLog::open(&dir.join("log"), spec.limits.log_bytes, masker(spec)) {
        Ok(log) => run_logged(spec, dir, cancel, log, started).await,
        Err(error) => JobReport::failed(Cause::new(format!("the job's log cannot be written: {error}")), started),
    };
    report.finished = now();
    if let Err(error) = report.write(dir) {
        tracing::error!(job = %spec.job, %error, "the job's report cannot be written");
    }
    report
}

async fn run_logged(
    spec: &JobSpec,
    dir: &Path,
    cancel: CancellationToken,
    mut log: JobLog,
    started: Timestamp,
) -> JobReport {
    if log.lines() == 0 {
        log.say(&first_line(spec));
    }
    let mut job = match Job::prepare(spec, dir, cancel, &mut log) {
        Ok(place) => place.into_job(spec, log),
        Err(cause) => {
            tell(&mut log, &cause);
            log.sync();
            return JobReport::failed(cause, started);
        }
    };
    let mut scope = job.scope();
    match job.job_environment() {
        Ok(env) => {
            scope.env = env;
            let plan = &spec.plan;
            job.run_steps(&mut scope, &plan.steps).await;
        }
        Err(cause) => job.fail(cause),
    }
    job.finish(scope, started)
}

/// Writes a cause to the log.
fn tell(log: &mut JobLog, cause: &Cause) {
    log.say(&format!("##[error]{}", cause.message));
    if let Some(hint) = &cause.hint {
        log.say(hint);
    }
}

/// What is there before the log is moved into the job.
struct Prepared {
    place: Place,
    tools: Tools,
    cancel: CancellationToken,
}

impl Prepared {
    fn into_job(self, spec: &JobSpec, log: JobLog) -> Job<'_> {
        let secrets = spec.all_secrets();
        let on = |map: &BTreeMap<String, String>| map.get("ACTIONS_STEP_DEBUG").is_some_and(|value| value == "true");
        Job {
            spec,
            place: self.place,
            tools: self.tools,
            log,
            github: context::github(spec),
            debug: on(&secrets) || on(&spec.vars),
            secrets,
            added: BTreeMap::new(),
            paths: Vec::new(),
            objects: false,
            cancel: self.cancel,
            cancelled: false,
            timed_out: false,
            deadline: Instant::now() + minutes(spec.plan.timeout_minutes),
            steps: Vec::new(),
            annotations: Vec::new(),
            started: 0,
            cause: None,
        }
    }
}

/// A time limit in minutes; at most a year, so that no clock overflows.
pub fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes.min(525_600) * 60)
}

impl<'a> Job<'a> {
    /// Checks that the job can run here, and makes its directories.
    fn prepare(spec: &JobSpec, dir: &Path, cancel: CancellationToken, log: &mut JobLog) -> Result<Prepared, Cause> {
        refuse(spec)?;
        let label = label::select(&spec.labels, &spec.plan.runs_on).map_err(|error| {
            Cause::new(error.to_string()).hint("change runs-on of the job, or configure a runner label of that name")
        })?;
        let disk = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| Cause::new(format!("{what}: {error}"))
        };
        if place::remove(dir).map_err(disk("what an interrupted attempt left cannot be removed"))? {
            log.say("The job was interrupted; it runs again from its first step.");
        }
        let place = Place::prepare(dir, &label.root).map_err(disk("the job's directories cannot be made"))?;
        let event = serde_json::to_vec(&spec.event).unwrap_or_default();
        place.script("event.json", &event).map_err(disk("the event cannot be written"))?;
        let tools = match &label.root {
            label::LabelRoot::Host { .. } => Tools::of_machine(),
            label::LabelRoot::Layers { layers } => Tools::of_layers(layers),
        };
        Ok(Prepared { place, tools, cancel })
    }

    fn scope(&self) -> Scope {
        Scope {
            steps: BTreeMap::new(),
            inputs: context::inputs(self.spec),
            env: BTreeMap::new(),
            action_path: None,
            failed: false,
            cause: None,
            depth: 0,
        }
    }

    fn job_environment(&mut self) -> Result<BTreeMap<String, String>, Cause> {
        let scope = self.scope();
        let evaluate = Evaluate::new(self, &scope, &BTreeMap::new());
        evaluate
            .map(&self.spec.plan.env)
            .map_err(|error| self.in_workflow(format!("env: {error}"), self.spec.plan.line))
    }

    /// A cause with its place in the workflow file.
    pub fn in_workflow(&self, message: impl Into<String>, line: u32) -> Cause {
        Cause::new(message).in_place(format!("{}:{line}", self.spec.workflow_path))
    }

    /// Notes why the job fails; the first reason counts.
    pub fn fail(&mut self, mut cause: Cause) {
        cause.message = self.log.masker().hide(&cause.message);
        tell(&mut self.log, &cause);
        self.cause.get_or_insert(cause);
    }

    /// Runs the job's own steps.
    async fn run_steps(&mut self, scope: &mut Scope, steps: &[Step]) {
        for step in steps {
            self.watch();
            let (from, began) = (self.log.lines(), now());
            self.log.clear_tail();
            let index = self.steps.len();
            self.steps.push(StepReport {
                name: self.log.masker().hide(&step.title()),
                result: JobResult::Skipped,
                outcome: JobResult::Skipped,
                started: began,
                finished: began,
                log_from: from,
                log_to: from,
            });
            let state = self.run_step(scope, step).await;
            let to = self.log.lines();
            if let Some(report) = self.steps.get_mut(index) {
                (report.result, report.outcome) = (state.conclusion, state.outcome);
                (report.finished, report.log_to) = (now(), to);
            }
        }
    }

    /// Sees whether the job was cancelled or has used up its time since the last look.
    pub fn watch(&mut self) {
        if self.cancelled {
            return;
        }
        let over = Instant::now() >= self.deadline;
        if !over && !self.cancel.is_cancelled() {
            return;
        }
        if !self.cancel.is_cancelled() {
            self.timed_out = true;
            let limit = self.spec.plan.timeout_minutes;
            let message = format!("the job ran longer than its limit of {limit} minutes");
            self.fail(self.in_workflow(message, self.spec.plan.line).hint("raise timeout-minutes of the job"));
        } else {
            self.log.say("##[warning]The job was cancelled.");
        }
        self.cancelled = true;
        // What runs now was asked for by its condition; it is not cancelled again, but neither may it take for ever.
        self.cancel = CancellationToken::new();
        self.deadline = Instant::now() + Duration::from_millis(self.spec.limits.after_cancel_ms);
    }

    fn finish(mut self, scope: Scope, started: Timestamp) -> JobReport {
        self.watch();
        let outputs = self.outputs(&scope);
        if let Some(error) = self.log.error() {
            let message = format!("the job's log cannot be written: {error}");
            self.cause.get_or_insert(Cause::new(message));
        }
        let result = match (self.cancelled && !self.timed_out, &self.cause) {
            (true, _) => JobResult::Cancelled,
            (false, Some(_)) => JobResult::Failure,
            (false, None) => JobResult::Success,
        };
        let cause = match result {
            JobResult::Success => None,
            JobResult::Cancelled => self.cause.take().or_else(|| Some(Cause::new("the job was cancelled"))),
            _ => self.cause.take(),
        };
        self.log.say(&format!("Job ended: {}", result.name()));
        self.log.sync();
        JobReport { result, outputs, cause, steps: self.steps, annotations: self.annotations, started, finished: now() }
    }

    /// The job's outputs. One that holds a secret is left out: other jobs and people would see it.
    fn outputs(&mut self, scope: &Scope) -> BTreeMap<String, String> {
        let mut outputs = BTreeMap::new();
        for (name, template) in &self.spec.plan.outputs {
            let value = Evaluate::new(self, scope, &scope.env).text(template);
            match value {
                Ok(value) if self.log.masker().finds(&value) => {
                    self.log.say(&format!("##[warning]Output {name:?} is left out: it holds a secret."));
                }
                Ok(value) if value.len() > MAX_OUTPUT => {
                    self.log.say(&format!("##[warning]Output {name:?} is left out: it is longer than 1 MiB."));
                }
                Ok(value) => drop(outputs.insert(name.clone(), value)),
                Err(error) => self.fail(self.in_workflow(format!("output {name:?}: {error}"), self.spec.plan.line)),
            }
        }
        outputs
    }
}

/// Refuses by name what this runner does not do.
fn refuse(spec: &JobSpec) -> Result<(), Cause> {
    let plan = &spec.plan;
    let refused = |what: &str, hint: &str| {
        let place = format!("{}:{}", spec.workflow_path, plan.line);
        Err(Cause::new(format!("job {:?} {what}, which this runner does not do yet", plan.key))
            .in_place(place)
            .hint(hint))
    };
    if plan.container.as_ref().is_some_and(|container| !container.image.trim().is_empty()) {
        return refused("asks for a container", "remove container: the job then uses the tools of the machine");
    }
    if let Some(name) = plan.services.keys().next() {
        return refused(&format!("asks for the service {name:?}"), "start what the job needs in a step");
    }
    if let Some(call) = &plan.call {
        return refused(&format!("calls the workflow {:?}", call.uses), "copy the called jobs into this workflow");
    }
    if plan.snapshot.is_some() {
        return refused("asks for a snapshot of the runner", "remove snapshot: from the job");
    }
    Ok(())
}
