//! From a workflow and contexts to the plans of its jobs.

use serde::{Deserialize, Serialize};

use crate::error::{Source, WorkflowError};
use crate::evaluator::Evaluator;
use crate::expression::parse::Expr;
use crate::expression::scope::Scope;
use crate::expression::template::Template;
use crate::late::{Header, Late};
use crate::matrix::{self, Cell};
use crate::node::{Node, Place};
use crate::object::{Contexts, Object};
use crate::plan::{Concurrency, Defaults, JobPlan};
use crate::read::job::Job;
use crate::resolve::{Budget, Resolver};
use crate::status::Status;
use crate::text::clip;
use crate::value::Value;
use crate::workflow::Workflow;

/// How long the name of a job may be, in characters; GitHub cuts it there too.
const MAX_NAME: usize = 100;

/// What a workflow says of a run as a whole, expanded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunPlan {
    /// Its `run-name:`; nothing if there is none or it is empty.
    pub name: Option<String>,
    /// Its `concurrency:`.
    pub concurrency: Option<Concurrency>,
}

/// What a workflow says of a run as a whole, in the contexts `github`, `inputs` and `vars`.
///
/// # Errors
/// When an expression cannot be evaluated or yields the wrong type.
pub fn plan_run(workflow: &Workflow, contexts: &Contexts) -> Result<RunPlan, WorkflowError> {
    let budget = Budget::new();
    let resolver = Resolver { source: &workflow.source, contexts, budget: &budget };
    let name = match &workflow.run_name {
        Some(node) => resolver.job_name(node)?.map(|name| clip(&name, 1000)),
        None => None,
    };
    let concurrency = workflow.concurrency.as_ref().map(|node| resolver.concurrency(node)).transpose()?;
    Ok(RunPlan { name, concurrency })
}

/// The jobs of a workflow, with every matrix written out, in the contexts `github`, `inputs` and `vars`.
///
/// A job whose matrix, name, labels or the like name the `needs` context comes as one plan with [`JobPlan::is_late`]; it is
/// for [`expand_matrix`], once those jobs have ended. A matrix all of whose combinations are excluded becomes one job whose
/// condition is `false`.
///
/// # Errors
/// When an expression cannot be evaluated or yields the wrong type, a matrix makes more than 256 jobs, or the plan as a
/// whole would be too large.
pub fn plan(workflow: &Workflow, contexts: &Contexts) -> Result<Vec<JobPlan>, WorkflowError> {
    let budget = Budget::new();
    let mut contexts = contexts.clone();
    let mut plans = Vec::new();
    for job in &workflow.jobs {
        let mut base = base(workflow, job);
        if names_needs(&job.header) {
            base.late = Some(late(workflow, job));
            fill_literals(&workflow.source, &job.header, &mut base, &budget);
            plans.push(base);
        } else {
            plans.extend(expand(&workflow.source, &job.header, base, &mut contexts, &budget)?);
        }
    }
    Ok(plans)
}

/// The jobs that a plan stands for, in the contexts `github`, `inputs`, `vars` and now `needs`.
///
/// A plan that is not late stands for itself alone.
///
/// # Errors
/// As [`plan()`].
pub fn expand_matrix(plan: &JobPlan, contexts: &Contexts) -> Result<Vec<JobPlan>, WorkflowError> {
    let Some(late) = &plan.late else { return Ok(vec![plan.clone()]) };
    let base = JobPlan { late: None, ..plan.clone() };
    expand(&late.source, &late.header, base, &mut contexts.clone(), &Budget::new())
}

/// Checks at reading what can be known then: everything of a job's head that holds no expression.
pub(crate) fn check(workflow: &Workflow) -> Result<(), WorkflowError> {
    let contexts = Contexts::new();
    let budget = Budget::new();
    let resolver = Resolver { source: &workflow.source, contexts: &contexts, budget: &budget };
    if let Some(node) = workflow.concurrency.as_ref().filter(|node| !has_expressions(node)) {
        resolver.concurrency(node)?;
    }
    for job in &workflow.jobs {
        let header = &job.header;
        let literal = |node: &Option<Node>| node.clone().filter(|node| !has_expressions(node));
        let known = Header {
            key: header.key.clone(),
            name: literal(&header.name),
            strategy: literal(&header.strategy),
            runs_on: literal(&header.runs_on),
            timeout: literal(&header.timeout),
            continue_on_error: literal(&header.continue_on_error),
            concurrency: literal(&header.concurrency),
            environment: literal(&header.environment),
            container: literal(&header.container),
            services: literal(&header.services),
        };
        let total = match &known.strategy {
            Some(node) => strategy(&resolver, node)?.cells.map_or(1, |cells| cells.len()),
            None => 1,
        };
        // The jobs of a matrix differ by expressions only, and those are left out here.
        let mut plan = JobPlan { total: u32::try_from(total).unwrap_or(u32::MAX), ..base(workflow, job) };
        fill(&resolver, &known, &mut plan, &[])?;
    }
    Ok(())
}

fn has_expressions(node: &Node) -> bool {
    node.texts().iter().any(|text| text.contains("${{"))
}

fn names_needs(header: &Header) -> bool {
    let names = |text: &str| {
        let template = Template::parse(text, &Scope::ANY);
        template.is_ok_and(|template| template.expressions().any(|expr: &Expr| expr.names_context("needs")))
    };
    header.nodes().flat_map(Node::texts).any(|text| text.contains("${{") && names(text))
}

fn late(workflow: &Workflow, job: &Job) -> Box<Late> {
    let source = workflow.source.only(job.header.nodes());
    Box::new(Late { source, header: job.header.clone() })
}

/// What of a late job is known already: its name and labels, if they hold no expression.
fn fill_literals(source: &Source, header: &Header, plan: &mut JobPlan, budget: &Budget) {
    let contexts = Contexts::new();
    let resolver = Resolver { source, contexts: &contexts, budget };
    let literal = |node: &Option<Node>| node.clone().filter(|node| !has_expressions(node));
    if let Some(Ok(Some(name))) = literal(&header.name).map(|node| resolver.job_name(&node)) {
        plan.name = clip_name(&name);
    }
    if let Some(Ok((labels, group))) = literal(&header.runs_on).map(|node| resolver.runs_on(&node)) {
        plan.runs_on = labels;
        plan.runner_group = group;
    }
}

/// The plan of a job without what is expanded.
fn base(workflow: &Workflow, job: &Job) -> JobPlan {
    let mut env = workflow.env.clone();
    env.extend(job.env.iter().map(|(key, value)| (key.clone(), value.clone())));
    let defaults = Defaults {
        shell: job.defaults.shell.clone().or_else(|| workflow.defaults.shell.clone()),
        working_directory: job
            .defaults
            .working_directory
            .clone()
            .or_else(|| workflow.defaults.working_directory.clone()),
    };
    JobPlan {
        key: job.header.key.text.clone(),
        name: job.header.key.text.clone(),
        line: job.header.key.place.line,
        matrix: Object::new(),
        index: 0,
        total: 1,
        needs: job.needs.iter().map(|(name, _)| name.clone()).collect(),
        condition: job.condition.clone(),
        runs_on: Vec::new(),
        runner_group: None,
        env,
        defaults,
        steps: job.steps.clone(),
        outputs: job.outputs.clone(),
        timeout_minutes: JobPlan::TIMEOUT_MINUTES,
        continue_on_error: false,
        fail_fast: true,
        max_parallel: None,
        concurrency: None,
        permissions: job.permissions.clone().or_else(|| workflow.permissions.clone()),
        environment: None,
        container: None,
        services: std::collections::BTreeMap::new(),
        call: job.call.clone(),
        snapshot: job.snapshot.clone(),
        late: None,
    }
}

/// `strategy:`, expanded.
struct Strategy {
    fail_fast: bool,
    max_parallel: Option<u64>,
    /// Nothing without a matrix.
    cells: Option<Vec<Cell>>,
}

fn strategy(resolver: &Resolver<'_>, node: &Node) -> Result<Strategy, WorkflowError> {
    let value = resolver.value(node)?;
    let object = match &value {
        Value::Object(object) => object,
        Value::Null => return Ok(Strategy { fail_fast: true, max_parallel: None, cells: None }),
        _ => return Err(resolver.source.error(node.place, "`strategy` must be a mapping")),
    };
    let place = |key: &str| node.get(key).unwrap_or(node).place;
    let fail_fast = match object.get("fail-fast") {
        Some(value) => resolver.flag(value, place("fail-fast"), "`fail-fast`")?,
        None => true,
    };
    let max_parallel = match object.get("max-parallel") {
        Some(value) => Some(resolver.whole(value, place("max-parallel"), "`max-parallel`")?),
        None => None,
    };
    let cells = match object.get("matrix") {
        None => None,
        Some(Value::Object(matrix)) => {
            let node = node.get("matrix").unwrap_or(node);
            Some(matrix::cells(matrix).map_err(|error| {
                let inner = error.key.as_deref().and_then(|key| node.get(key));
                resolver.source.error(inner.unwrap_or(node).place, error.message)
            })?)
        }
        Some(_) => return Err(resolver.source.error(place("matrix"), "`matrix` must be a mapping of lists")),
    };
    Ok(Strategy { fail_fast, max_parallel, cells })
}

/// The jobs of one key. Sets the contexts `strategy` and `matrix`.
fn expand(
    source: &Source,
    header: &Header,
    mut base: JobPlan,
    contexts: &mut Contexts,
    budget: &Budget,
) -> Result<Vec<JobPlan>, WorkflowError> {
    let mut cells = None;
    if let Some(node) = &header.strategy {
        let strategy = strategy(&Resolver { source, contexts, budget }, node)?;
        base.fail_fast = strategy.fail_fast;
        base.max_parallel = strategy.max_parallel;
        cells = strategy.cells;
    }
    if cells.as_ref().is_some_and(Vec::is_empty) {
        return Ok(vec![JobPlan { condition: Some("false".to_owned()), ..base }]);
    }
    let has_matrix = cells.is_some();
    let cells = cells.unwrap_or_else(|| vec![Cell { values: Object::new(), label: Vec::new() }]);
    base.total = u32::try_from(cells.len()).unwrap_or(u32::MAX);
    // The plans are kept and sent: what they take together is bounded.
    let size = serde_json::to_string(&base).map_or(0, |text| text.len());
    if !budget.take(size.saturating_mul(cells.len())) {
        return Err(source.error(header.key.place, "the jobs of the workflow are too large together"));
    }
    let mut plans = Vec::with_capacity(cells.len());
    for (cell, index) in cells.into_iter().zip(0..) {
        let mut plan = JobPlan { index, matrix: cell.values, ..base.clone() };
        contexts.set("strategy", plan.strategy());
        contexts.set("matrix", if has_matrix { Value::Object(plan.matrix.clone()) } else { Value::Null });
        fill(&Resolver { source, contexts, budget }, header, &mut plan, &cell.label)?;
        plans.push(plan);
    }
    Ok(plans)
}

/// Expands the head of a job into its plan.
fn fill(resolver: &Resolver<'_>, header: &Header, plan: &mut JobPlan, label: &[String]) -> Result<(), WorkflowError> {
    plan.name = name(resolver, header, label)?;
    if let Some(node) = &header.runs_on {
        (plan.runs_on, plan.runner_group) = resolver.runs_on(node)?;
    }
    if let Some(node) = &header.timeout {
        plan.timeout_minutes = resolver.whole(&resolver.value(node)?, node.place, "`timeout-minutes`")?;
    }
    if let Some(node) = &header.continue_on_error {
        plan.continue_on_error = resolver.flag(&resolver.value(node)?, node.place, "`continue-on-error`")?;
    }
    plan.concurrency = header.concurrency.as_ref().map(|node| resolver.concurrency(node)).transpose()?;
    if let Some(node) = &header.environment {
        plan.environment = resolver.environment(node)?;
    }
    if let Some(node) = &header.container {
        plan.container = resolver.container(node)?;
    }
    if let Some(node) = &header.services {
        plan.services = resolver.services(node)?;
    }
    Ok(())
}

/// The name of a job: as written, with the values of its combination unless it names them itself.
fn name(resolver: &Resolver<'_>, header: &Header, label: &[String]) -> Result<String, WorkflowError> {
    let written = match &header.name {
        Some(node) => resolver.job_name(node)?,
        None => None,
    };
    let own = header.name.as_ref().is_some_and(has_expressions) && written.is_some();
    let name = written.unwrap_or_else(|| header.key.text.clone());
    if own || label.is_empty() {
        return Ok(clip_name(&name));
    }
    Ok(clip_name(&format!("{name} ({})", label.join(", "))))
}

fn clip_name(name: &str) -> String {
    if name.chars().count() <= MAX_NAME {
        return name.to_owned();
    }
    let kept: String = name.chars().take(MAX_NAME - 3).collect();
    format!("{kept}...")
}

/// The outputs that a called workflow gives its caller, in contexts with `jobs`: of each job by its key, `result` and
/// `outputs`.
///
/// # Errors
/// When an expression cannot be evaluated.
pub fn call_outputs(workflow: &Workflow, contexts: &Contexts) -> Result<Object, WorkflowError> {
    let mut found = Object::new();
    for output in workflow.call().map_or(&[][..], |spec| &spec.outputs) {
        let value = Evaluator::new(contexts, Status::SUCCESS).expand(&output.value).map_err(|error| {
            let message = format!("the output `{}`: {error}", clip(&output.name, 60));
            workflow.source.error(Place { line: 1, column: 1 }, message)
        })?;
        found.insert(output.name.clone(), value);
    }
    Ok(found)
}
