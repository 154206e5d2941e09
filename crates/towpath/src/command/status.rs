//! `towpath status`, and how a status looks.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::{Connection, Format};
use crate::client::Client;
use crate::error::Failure;
use crate::output;

pub(crate) async fn status(what: Option<String>, connection: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let client = Client::new(connection)?;
    let Some(what) = what else { return all(&client, format).await };
    let path = match what.parse::<i64>() {
        Ok(run) => format!("/runs/{run}"),
        Err(_) => format!("/targets/{what}/status"),
    };
    show(&client.get(&path).await?, format)
}

/// Prints one status.
pub(crate) fn show(status: &Value, format: Format) -> Result<ExitCode, Failure> {
    if !output::machine(format, status)? {
        output::data(&text(status));
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(client: &Client, format: Format) -> Result<ExitCode, Failure> {
    let targets = client.get("/targets").await?;
    let mut rows = Vec::new();
    let mut found = Vec::new();
    for target in targets["targets"].as_array().into_iter().flatten() {
        let name = output::cell(&target["name"]);
        let status = client.get(&format!("/targets/{name}/status")).await.unwrap_or_default();
        let outcome = if status["run"].is_null() { "no run yet".to_owned() } else { state(&status) };
        rows.push(vec![
            name,
            output::cell(&status["run"]),
            outcome,
            short(&output::cell(&status["status"]["sourceCommit"])),
            short(&output::cell(&status["status"]["runtimeTargetSha"])),
            output::cell(&status["address"]),
        ]);
        found.push(status);
    }
    if output::machine(format, &serde_json::json!({ "targets": found }))? {
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        output::note("no targets yet; apply one with `towpath apply -f FILE`");
    } else {
        output::data(&output::table(&["TARGET", "RUN", "STATE", "COMMIT", "LIVE", "ADDRESS"], &rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// A commit in eight digits; other texts as they are.
pub(crate) fn short(text: &str) -> String {
    let is_commit = text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_commit { text[..8].to_owned() } else { text.to_owned() }
}

/// `running`, or how it ended.
pub(crate) fn state(status: &Value) -> String {
    status["outcome"].as_str().unwrap_or("running").to_owned()
}

/// A status for people.
pub(crate) fn text(status: &Value) -> String {
    let mut text = String::new();
    let workflow = status["kind"] == "workflow";
    let name = if workflow { &status["name"] } else { &status["target"] };
    let kind = if workflow { "workflow" } else { "target" };
    let (run, number) = (output::cell(&status["run"]), output::cell(&status["number"]));
    let _ = writeln!(text, "run {run} ({kind} {} #{number}): {}", output::cell(name), state(status));
    cause(&mut text, &status["cause"]);
    if workflow {
        jobs(&mut text, status);
        return text;
    }
    stages(&mut text, status);
    for (field, value) in status["status"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "  {field:<18} {}", output::cell(value));
    }
    if let Some(address) = status["address"].as_str() {
        let _ = writeln!(text, "{address}");
    }
    text
}

fn cause(text: &mut String, cause: &Value) {
    if cause.is_null() {
        return;
    }
    let stage = cause["stage"].as_str().map(|stage| format!("{stage}: ")).unwrap_or_default();
    let _ = writeln!(text, "  {stage}{}", output::cell(&cause["message"]));
    for line in cause["place"].as_str().unwrap_or_default().lines() {
        let _ = writeln!(text, "    {line}");
    }
    let lines = cause["lastLines"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !lines.is_empty() {
        let _ = writeln!(text, "  last lines:");
    }
    for line in lines {
        let _ = writeln!(text, "    {}", output::cell(line));
    }
    if let Some(hint) = cause["hint"].as_str() {
        let _ = writeln!(text, "  hint: {hint}");
    }
}

fn stages(text: &mut String, status: &Value) {
    let row = |stage: &Value| {
        let number = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}"));
        let budget = stage["budgetSeconds"].as_u64().map_or_else(|| "-".to_owned(), |seconds| seconds.to_string());
        let cells = [&stage["stage"], &stage["id"], &stage["state"]].map(output::cell);
        let [name, id, state] = cells;
        vec![name, id, state, number(&stage["seconds"]), budget]
    };
    let rows: Vec<_> = status["stages"].as_array().into_iter().flatten().map(row).collect();
    text.push_str(&output::table(&["STAGE", "ID", "STATE", "SECONDS", "BUDGET"], &rows));
    for over in status["overBudget"].as_array().into_iter().flatten() {
        let (what, seconds) = (output::cell(&over["what"]), output::cell(&over["seconds"]));
        let _ = writeln!(text, "  over budget: {what} took {seconds} s of {} s", output::cell(&over["budgetSeconds"]));
    }
}

fn jobs(text: &mut String, status: &Value) {
    let row = |job: &Value| {
        let seconds = job["seconds"].as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}"));
        vec![output::cell(&job["job"]), output::cell(&job["name"]), output::cell(&job["result"]), seconds]
    };
    let rows: Vec<_> = status["jobs"].as_array().into_iter().flatten().map(row).collect();
    text.push_str(&output::table(&["JOB", "NAME", "RESULT", "SECONDS"], &rows));
    for job in status["jobs"].as_array().into_iter().flatten() {
        cause(text, &job["cause"]);
    }
}
