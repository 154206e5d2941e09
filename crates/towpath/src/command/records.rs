//! `towpath apply` and `export`.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use reqwest::Method;

use crate::cli::{Connection, Format};
use crate::client::Client;
use crate::error::Failure;
use crate::output;

pub(crate) async fn apply(file: &Path, connection: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let shown = file.display().to_string();
    let text = if shown == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?
    };
    // Checked here as well, so that a place in an error is one of the user's own file.
    config::parse_records(&shown, &text).map_err(|error| Failure::usage(error.to_string()))?;
    let answer = Client::new(connection)?.post_text("/apply", text).await?;
    if output::machine(format, &answer)? {
        return Ok(ExitCode::SUCCESS);
    }
    for applied in answer["applied"].as_array().into_iter().flatten() {
        let change = if applied["changed"] == true { "applied" } else { "unchanged" };
        output::data(&format!("{} {} {change}\n", output::cell(&applied["kind"]), output::cell(&applied["name"])));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn export(connection: &Connection) -> Result<ExitCode, Failure> {
    let response = Client::new(connection)?.send(Method::GET, "/export", None).await?;
    let text = response.text().await.map_err(|error| Failure::failed(error.to_string()))?;
    output::data(&text);
    Ok(ExitCode::SUCCESS)
}
