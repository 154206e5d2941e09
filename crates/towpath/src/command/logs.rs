//! `towpath logs`.

use std::process::ExitCode;

use reqwest::Method;

use crate::cli::Connection;
use crate::client::Client;
use crate::command::runs;
use crate::error::Failure;
use crate::output;

pub(crate) async fn logs(
    run: i64,
    part: Option<String>,
    follow: bool,
    connection: &Connection,
) -> Result<ExitCode, Failure> {
    let client = Client::new(connection)?;
    let part = part.map(|part| format!("&part={}", encode(&part))).unwrap_or_default();
    let mut response = client.send(Method::GET, &format!("/runs/{run}/logs?follow={follow}{part}"), None).await?;
    let broken = |error: reqwest::Error| Failure::failed(format!("the log broke off: {error}"));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        output::bytes(&chunk);
    }
    if follow { Ok(runs::outcome_code(&runs::wait_for(&client, run).await?)) } else { Ok(ExitCode::SUCCESS) }
}

/// A text as part of a query.
fn encode(text: &str) -> String {
    let byte =
        |b: u8| if b.is_ascii_alphanumeric() || b == b'-' { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(byte).collect()
}
