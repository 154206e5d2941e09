//! What the demo prints at its end.

use serde_json::{Map, Value, json};

use super::story::{Run, Story};
use crate::output;

/// One object with everything, for programs.
pub(super) fn machine(story: &Story) -> Value {
    json!({ "url": story.url(), "runs": story.runs.iter().map(run).collect::<Vec<_>>() })
}

fn stages(run: &Run) -> impl Iterator<Item = &Value> {
    run.status["stages"].as_array().into_iter().flatten()
}

fn run(run: &Run) -> Value {
    let stage = |stage: &Value| {
        json!({
            "stage": stage["stage"], "id": stage["id"], "state": stage["state"],
            "seconds": stage["seconds"], "budget_seconds": stage["budgetSeconds"],
        })
    };
    json!({
        "change": run.change.name(),
        "run": run.status["run"],
        "outcome": run.status["outcome"],
        "cause": run.status["cause"],
        "seconds": rounded(run.seconds),
        "seconds_to_content": run.content.map(rounded),
        "requests": run.seen.requests,
        "dropped_requests": run.seen.dropped,
        "stages": stages(run).map(stage).collect::<Vec<_>>(),
        "status": run.status["status"],
    })
}

/// In milliseconds: more digits would say nothing.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Tables, for people; the last line is the address.
pub(super) fn people(story: &Story) -> String {
    let mut text = String::from("\n");
    text.push_str(&stage_table(&story.runs));
    for run in &story.runs {
        text.push('\n');
        text.push_str(&status(run));
    }
    text.push('\n');
    text.push_str(&story.url());
    text.push('\n');
    text
}

/// Seconds of each stage in each run, with the budget.
fn stage_table(runs: &[Run]) -> String {
    let names: Vec<String> = runs.iter().map(|run| run.change.name().to_uppercase()).collect();
    let mut head = vec!["STAGE", "ID"];
    head.extend(names.iter().map(String::as_str));
    head.push("BUDGET");
    let seconds = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2} s"));
    let mut rows = Vec::new();
    for (index, stage) in runs.first().into_iter().flat_map(stages).enumerate() {
        let mut row = vec![output::cell(&stage["stage"]), output::cell(&stage["id"])];
        row.extend(runs.iter().map(|run| seconds(&run.status["stages"][index]["seconds"])));
        row.push(stage["budgetSeconds"].as_u64().map_or_else(|| "-".to_owned(), |budget| format!("{budget} s")));
        rows.push(row);
    }
    let mut total = vec!["push to end".to_owned(), String::new()];
    total.extend(runs.iter().map(|run| format!("{:.2} s", run.seconds)));
    total.push("120 s".to_owned());
    rows.push(total);
    output::table(&head, &rows)
}

/// The status of a run: what applies, by field, and the names of what does not.
fn status(run: &Run) -> String {
    let number = output::cell(&run.status["run"]);
    let outcome = output::cell(&run.status["outcome"]);
    let mut text = format!("{}: run {number} {outcome} in {:.2} s\n", run.change.name(), run.seconds);
    if let Some(cause) = run.status["cause"].as_object() {
        text.push_str(&why(cause));
    }
    let mut idle = Vec::new();
    for (field, value) in run.status["status"].as_object().into_iter().flatten() {
        let shown = cell(value);
        match shown.strip_prefix("not_applicable: ") {
            Some(_) => idle.push(field.as_str()),
            None => text.push_str(&format!("  {field:<17} {shown}\n")),
        }
    }
    if !idle.is_empty() {
        text.push_str(&format!("  {:<17} {}\n", "not applicable", idle.join(", ")));
    }
    text
}

fn why(cause: &Map<String, Value>) -> String {
    let part = |key: &str| cause.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut text = format!("  {}: {}\n", part("stage"), part("message"));
    for line in cause.get("lastLines").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!("    | {}\n", output::cell(line)));
    }
    text
}

/// A value in one line: of an object, its fields.
fn cell(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let shown = |(name, value): (&String, &Value)| format!("{name} {}", cell(value));
            fields.iter().map(shown).collect::<Vec<_>>().join(", ")
        }
        other => output::cell(other),
    }
}
