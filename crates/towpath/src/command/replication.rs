//! `towpath registry replication`.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{Connection, Format};
use crate::client::Client;
use crate::error::Failure;
use crate::output;

pub(crate) async fn replication(
    again: Option<String>,
    connection: &Connection,
    format: Format,
) -> Result<ExitCode, Failure> {
    let client = Client::new(connection)?;
    if let Some(rule) = again {
        let valid = !rule.is_empty() && rule.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !valid {
            return Err(Failure::usage(format!("{rule:?} is not the name of a rule")));
        }
        let answer = client.call(Method::POST, &format!("/registry/replication/{rule}"), &json!({})).await?;
        if !output::machine(format, &answer)? {
            output::data(&format!("{} tags are queued for {rule}\n", output::cell(&answer["queued"])));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let answer = client.get("/registry/replication").await?;
    if !output::machine(format, &answer)? {
        let rows: Vec<Vec<String>> = answer["rules"].as_array().into_iter().flatten().map(row).collect();
        let head = ["RULE", "TO", "QUEUED", "LAG", "LAST SUCCESS", "LAST ERROR"];
        output::data(&output::table(&head, &rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(rule: &Value) -> Vec<String> {
    let text = |field: &str| output::cell(&rule[field]);
    let error = match (rule["lastError"].as_str(), rule["lastErrorAt"].as_str()) {
        (Some(error), Some(at)) => format!("{at} {}", error.replace(['\n', '\r'], " ")),
        _ => "-".to_owned(),
    };
    let lag = rule["lagSeconds"].as_i64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds}s"));
    vec![text("name"), text("destination"), text("queued"), lag, text("lastSuccess"), error]
}
