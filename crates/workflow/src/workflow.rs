//! A workflow file that was read and checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::error::{Source, WorkflowError};
use crate::expression::scope::Scope;
use crate::inputs::Input;
use crate::node::{Node, Place};
use crate::plan::{Defaults, Permissions};
use crate::planner;
use crate::read::Reader;
use crate::read::event_table;
use crate::read::job::Job;
use crate::text::{fold, nearest};
use crate::trigger::{CallSpec, On, Schedule};
use crate::yaml;

/// A workflow file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    pub(crate) source: Source,
    pub(crate) name: Option<String>,
    pub(crate) run_name: Option<Node>,
    pub(crate) on: On,
    pub(crate) permissions: Option<Permissions>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) defaults: Defaults,
    pub(crate) concurrency: Option<Node>,
    pub(crate) jobs: Vec<Job>,
}

/// The folders that may hold workflows; the first that holds any is the one.
const FOLDERS: [&str; 4] = [".towpath/workflows/", ".gitea/workflows/", ".forgejo/workflows/", ".github/workflows/"];
/// How many jobs a file may have.
const MAX_JOBS: usize = 1000;
const KEYS: [&str; 9] =
    ["name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs", "enable-email-notifications"];

/// The workflow files among the paths of a commit: all `*.yml` and `*.yaml` directly in the first of `.towpath/workflows`,
/// `.gitea/workflows`, `.forgejo/workflows` and `.github/workflows` that holds any, in the order of `paths`.
pub fn workflow_files<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: [Vec<&str>; 4] = Default::default();
    for path in paths {
        for (folder, files) in FOLDERS.iter().zip(&mut found) {
            let name = path.strip_prefix(folder).unwrap_or_default();
            let is_workflow = name.ends_with(".yml") || name.ends_with(".yaml");
            if is_workflow && !name.contains('/') {
                files.push(path);
            }
        }
    }
    found.into_iter().find(|files| !files.is_empty()).unwrap_or_default()
}

/// Reads a workflow file. `path` is for errors, and the name of a workflow that has none.
///
/// # Errors
/// The first mistake in the file, with its place: not YAML, an unknown key, a wrong type, an expression that cannot be
/// read or names what is not there, a job that needs an unknown job or itself.
pub fn parse(path: &str, text: &str) -> Result<Workflow, WorkflowError> {
    let source = Source::new(path, text.strip_prefix('\u{feff}').unwrap_or(text));
    let root = yaml::read(&source, text)?;
    let reader = Reader { source: &source };
    let mut workflow = reader.workflow(&root)?;
    workflow.source = source;
    planner::check(&workflow)?;
    Ok(workflow)
}

impl Workflow {
    /// The file in the repository.
    pub fn path(&self) -> &str {
        &self.source.path
    }

    /// Its `name:`, or else its path.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.source.path)
    }

    /// The events that may fire it.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.on.events.iter().map(|event| event.name.as_str())
    }

    /// When it runs by itself.
    pub fn schedules(&self) -> &[Schedule] {
        &self.on.schedules
    }

    /// What a person may give who starts it; nothing if no person can.
    pub fn dispatch(&self) -> Option<&[Input]> {
        self.on.has("workflow_dispatch").then_some(&self.on.dispatch)
    }

    /// What it takes and gives if other workflows can call it.
    pub const fn call(&self) -> Option<&CallSpec> {
        self.on.call.as_ref()
    }

    /// The names of the workflows whose runs fire it (`on.workflow_run.workflows`).
    pub fn follows(&self) -> &[String] {
        let event = self.on.events.iter().find(|event| event.name == "workflow_run");
        event.map_or(&[], |event| &event.workflows)
    }

    /// The keys of its jobs, in the order of the file.
    pub fn job_keys(&self) -> impl Iterator<Item = &str> {
        self.jobs.iter().map(|job| job.header.key.text.as_str())
    }
}

impl Reader<'_> {
    fn workflow(&self, root: &Node) -> Result<Workflow, WorkflowError> {
        let top = Place { line: 1, column: 1 };
        let fields = self.fields(root, "the workflow", &KEYS).map_err(|error| self.misplaced(root, error))?;
        let need =
            |name: &str| fields.get(name).ok_or_else(|| self.error(top, format!("the workflow has no `{name}`")));
        let on = self.on(need("on")?)?;
        let jobs = self.jobs(need("jobs")?)?;
        let text = |name: &str| fields.get(name).map(|node| self.literal(node, &format!("`{name}`"))).transpose();
        if let Some(node) = fields.get("run-name") {
            self.text(node, "`run-name`", &Scope::WORKFLOW)?;
        }
        if let Some(node) = fields.get("concurrency") {
            self.check_concurrency(node, "`concurrency`", &Scope::WORKFLOW)?;
        }
        Ok(Workflow {
            source: Source::default(),
            name: text("name")?.filter(|name| !name.trim().is_empty()),
            run_name: fields.get("run-name").cloned(),
            on,
            permissions: fields.get("permissions").map(|node| self.permissions(node)).transpose()?,
            env: match fields.get("env") {
                Some(node) => self.text_map(node, "`env`", &Scope::WORKFLOW_ENV)?,
                None => BTreeMap::new(),
            },
            defaults: match fields.get("defaults") {
                Some(node) => self.defaults(node, "`defaults`", None)?,
                None => Defaults::default(),
            },
            concurrency: fields.get("concurrency").cloned(),
            jobs,
        })
    }

    /// An event or job key at the top has lost its indentation.
    fn misplaced(&self, root: &Node, error: WorkflowError) -> WorkflowError {
        let crate::node::Kind::Map(entries) = &root.kind else { return error };
        let here = |place: Place| place.line == error.line && place.column == error.column;
        match entries.iter().find(|(key, _)| here(key.place)) {
            Some((key, _)) if event_table::find(&key.text).is_some() => {
                error.hint(format!("`{}` is an event: indent it below `on:`", key.text))
            }
            Some((key, _)) if ["runs-on", "steps", "needs", "strategy"].contains(&key.text.as_str()) => error.hint(
                format!("`{}` belongs to a job: indent it below the job's name, and that below `jobs:`", key.text),
            ),
            _ => error,
        }
    }

    fn jobs(&self, node: &Node) -> Result<Vec<Job>, WorkflowError> {
        let entries = self.map(node, "`jobs`")?;
        if entries.is_empty() {
            return Err(self.error(node.place, "`jobs` holds no job"));
        }
        if entries.len() > MAX_JOBS {
            return Err(
                self.error(node.place, format!("the workflow has {} jobs: {MAX_JOBS} is the most", entries.len()))
            );
        }
        let mut jobs = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            jobs.push(self.job(key, node)?);
        }
        self.resolve_needs(&mut jobs)?;
        Ok(jobs)
    }

    /// Finds the jobs that jobs need, and refuses circles.
    fn resolve_needs(&self, jobs: &mut [Job]) -> Result<(), WorkflowError> {
        let keys: Vec<String> = jobs.iter().map(|job| job.header.key.text.clone()).collect();
        let numbers: BTreeMap<String, usize> = keys.iter().enumerate().map(|(at, key)| (fold(key), at)).collect();
        let mut waits_for: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
        for (at, job) in jobs.iter_mut().enumerate() {
            let own = &job.header.key.text;
            for (name, place) in &mut job.needs {
                let Some(number) = numbers.get(&fold(name)) else {
                    let near = nearest(name, keys.iter().map(String::as_str));
                    let meant = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
                    let shown = crate::text::clip(name, 60);
                    return Err(
                        self.error(*place, format!("the job `{own}` needs `{shown}`, which does not exist{meant}"))
                    );
                };
                if *number == at {
                    return Err(self.error(*place, format!("the job `{own}` needs itself")));
                }
                // The spelling of the job itself is the one that counts.
                name.clone_from(&keys[*number]);
                waits_for[at].push(*number);
            }
            let mut seen = BTreeSet::new();
            job.needs.retain(|(name, _)| seen.insert(name.clone()));
        }
        match circle(&waits_for) {
            None => Ok(()),
            Some(circle) => {
                let names: Vec<&str> = circle.iter().map(|at| keys[*at].as_str()).collect();
                let (Some(first), Some(next)) = (circle.first(), names.get(1)) else { return Ok(()) };
                let need = jobs[*first].needs.iter().find(|(name, _)| name == next);
                let place = need.map_or(jobs[*first].header.key.place, |(_, place)| *place);
                let message = format!("jobs need each other in a circle: {}", names.join(" → "));
                Err(self.error(place, message))
            }
        }
    }
}

/// A circle among things that wait for each other, from a thing back to itself.
fn circle(waits_for: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut open: Vec<usize> = waits_for.iter().map(Vec::len).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); waits_for.len()];
    for (at, waits) in waits_for.iter().enumerate() {
        for other in waits {
            dependents[*other].push(at);
        }
    }
    let mut ready: VecDeque<usize> = (0..open.len()).filter(|at| open[*at] == 0).collect();
    while let Some(at) = ready.pop_front() {
        for dependent in &dependents[at] {
            open[*dependent] -= 1;
            if open[*dependent] == 0 {
                ready.push_back(*dependent);
            }
        }
    }
    // Whoever still waits has somebody to wait for who waits too: following them leads into a circle.
    let mut path = vec![(0..open.len()).find(|at| open[*at] > 0)?];
    loop {
        let last = *path.last()?;
        let next = *waits_for[last].iter().find(|other| open[**other] > 0)?;
        if let Some(start) = path.iter().position(|at| *at == next) {
            path.drain(..start);
            path.push(next);
            return Some(path);
        }
        path.push(next);
    }
}
