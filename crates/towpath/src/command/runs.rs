//! `towpath run …`.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::{Format, RunCommand};
use crate::client::Client;
use crate::command::status;
use crate::error::Failure;
use crate::output;

pub(crate) async fn run(command: RunCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        RunCommand::Ls { repo, limit, connection } => {
            let repository = repo.map(|repo| format!("&repository={repo}")).unwrap_or_default();
            let answer = Client::new(&connection)?.get(&format!("/runs?limit={limit}{repository}")).await?;
            list(&answer, format)
        }
        RunCommand::Show { run, wait, connection } => {
            let client = Client::new(&connection)?;
            if wait {
                let ended = wait_for(&client, run).await?;
                status::show(&ended, format)?;
                return Ok(outcome_code(&ended));
            }
            status::show(&client.get(&format!("/runs/{run}")).await?, format)
        }
        RunCommand::Cancel { run, connection } => {
            let answer =
                Client::new(&connection)?.call(Method::POST, &format!("/runs/{run}/cancel"), &json!({})).await?;
            if !output::machine(format, &answer)? {
                output::data(&format!("run {run} is cancelled\n"));
            }
            Ok(ExitCode::SUCCESS)
        }
        RunCommand::Retry { run, connection } => {
            let client = Client::new(&connection)?;
            list(&client.call(Method::POST, &format!("/runs/{run}/retry"), &json!({})).await?, format)
        }
        RunCommand::Rollback { target, to, connection } => {
            let body = json!({ "to": to });
            let client = Client::new(&connection)?;
            list(&client.call(Method::POST, &format!("/targets/{target}/rollback"), &body).await?, format)
        }
        RunCommand::Start { repo, ref_name, inputs, connection } => {
            let body = json!({ "ref": ref_name, "inputs": parse_inputs(&inputs)? });
            let client = Client::new(&connection)?;
            list(&client.call(Method::POST, &format!("/repositories/{repo}/dispatches"), &body).await?, format)
        }
    }
}

fn parse_inputs(inputs: &[String]) -> Result<Map<String, Value>, Failure> {
    let parse = |input: &String| match input.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), Value::from(value))),
        None => Err(Failure::usage(format!("input {input:?} is not NAME=VALUE"))),
    };
    inputs.iter().map(parse).collect()
}

fn list(answer: &Value, format: Format) -> Result<ExitCode, Failure> {
    if output::machine(format, answer)? {
        return Ok(ExitCode::SUCCESS);
    }
    let row = |run: &Value| {
        let ref_name = output::cell(&run["refName"]);
        let ref_name = ref_name.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/");
        vec![
            output::cell(&run["run"]),
            output::cell(&run["kind"]),
            output::cell(&run["name"]),
            ref_name.to_owned(),
            status::short(&output::cell(&run["commit"])),
            status::state(run),
            run["cause"].as_str().unwrap_or_default().to_owned(),
        ]
    };
    let rows: Vec<_> = answer["runs"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        output::note("no runs yet; one begins with a push");
    } else {
        output::data(&output::table(&["RUN", "KIND", "NAME", "REF", "COMMIT", "STATE", "CAUSE"], &rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until a run has ended.
pub(crate) async fn wait_for(client: &Client, run: i64) -> Result<Value, Failure> {
    loop {
        let status = client.get(&format!("/runs/{run}/wait?timeoutSeconds=60")).await?;
        if !status["outcome"].is_null() {
            return Ok(status);
        }
    }
}

/// The exit code that says how a run ended.
pub(crate) fn outcome_code(status: &Value) -> ExitCode {
    match status["outcome"].as_str() {
        Some("succeeded" | "reused" | "skipped") => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
