//! `towpath secrets …`.

use std::io::Read;
use std::process::ExitCode;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{Format, SecretsCommand};
use crate::client::Client;
use crate::error::Failure;
use crate::output;

pub(crate) async fn secrets(command: SecretsCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        SecretsCommand::Ls { repo, connection } => {
            let answer = Client::new(&connection)?.get(&format!("/repositories/{repo}/secrets")).await?;
            if !output::machine(format, &answer)? {
                let row = |it: &Value| {
                    vec![output::cell(&it["name"]), output::cell(&it["fingerprint"]), output::cell(&it["changed"])]
                };
                let rows: Vec<_> = answer["secrets"].as_array().into_iter().flatten().map(row).collect();
                output::data(&output::table(&["NAME", "FINGERPRINT", "CHANGED"], &rows));
            }
        }
        SecretsCommand::Set { repo, name, connection } => {
            let mut value = String::new();
            std::io::stdin().read_to_string(&mut value)?;
            if value.ends_with('\n') {
                value.pop();
            }
            let path = format!("/repositories/{repo}/secrets/{name}");
            let answer = Client::new(&connection)?.call(Method::PUT, &path, &json!({ "value": value })).await?;
            if !output::machine(format, &answer)? {
                output::data(&format!("{} is set, fingerprint {}\n", name, output::cell(&answer["fingerprint"])));
            }
        }
        SecretsCommand::Rm { repo, name, connection } => {
            let path = format!("/repositories/{repo}/secrets/{name}");
            Client::new(&connection)?.send(Method::DELETE, &path, None).await?;
            output::note(&format!("{name} is removed"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
