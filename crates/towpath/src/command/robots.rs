//! `towpath robot …`, `towpath group …` and `towpath registry keys …`.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::json;

use crate::cli::Format;
use crate::cli::robots::{GroupCommand, KeysCommand, RobotCommand};
use crate::client::Client;
use crate::command::access::{DONE, list, make, remove};
use crate::error::Failure;
use crate::output;

pub(crate) async fn robot(command: RobotCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        RobotCommand::Ls { owner, connection } => {
            let path = owner.map_or("/robots".to_owned(), |owner| format!("/robots?owner={}", query(&owner)));
            let fields = ["id", "login", "images", "actions", "expires", "lastUsed"];
            list(&connection, &path, "robots", &fields, format).await
        }
        RobotCommand::Create { name, owner, images, actions, days, connection } => {
            let body = json!({
                "name": name, "owner": owner, "images": images, "actions": actions, "expiresInDays": days,
            });
            let answer = Client::new(&connection)?.call(Method::POST, "/robots", &body).await?;
            if !output::machine(format, &answer)? {
                let (id, login) = (output::cell(&answer["id"]), output::cell(&answer["login"]));
                output::note(&format!("robot {id} signs in as {login} with this token; it is not shown again:"));
                output::data(&format!("{}\n", output::cell(&answer["token"])));
            }
            DONE
        }
        RobotCommand::Rm { id, connection } => {
            remove(&connection, &format!("/robots/{id}"), &format!("robot {id} is removed")).await
        }
    }
}

pub(crate) async fn group(command: GroupCommand, format: Format) -> Result<ExitCode, Failure> {
    let groups = |org: &str| format!("/organisations/{org}/groups");
    match command {
        GroupCommand::Ls { org, connection } => {
            list(&connection, &groups(&org), "groups", &["name", "members", "grants"], format).await
        }
        GroupCommand::Create { org, group, connection } => {
            let done = format!("group {group} of {org} is made; give it a role with `towpath group grant`");
            make(&connection, (Method::POST, &groups(&org)), &json!({ "name": group }), format, &done).await
        }
        GroupCommand::Rm { org, group, connection } => {
            let path = format!("{}/{group}", groups(&org));
            remove(&connection, &path, &format!("group {group} of {org} is removed")).await
        }
        GroupCommand::Add { org, group, user, connection } => {
            let path = format!("{}/{group}/members/{user}", groups(&org));
            let done = format!("{user} is in the group {group} of {org}");
            make(&connection, (Method::PUT, &path), &json!({}), format, &done).await
        }
        GroupCommand::Remove { org, group, user, connection } => {
            let path = format!("{}/{group}/members/{user}", groups(&org));
            remove(&connection, &path, &format!("{user} is no longer in the group {group} of {org}")).await
        }
        GroupCommand::Grant { org, group, pattern, role, connection } => {
            let path = format!("{}/{group}/grants", groups(&org));
            let done = format!("group {group} has the role {role} on {pattern}");
            let body = json!({ "pattern": pattern, "role": role });
            make(&connection, (Method::PUT, &path), &body, format, &done).await
        }
        GroupCommand::Ungrant { org, group, pattern, connection } => {
            let path = format!("{}/{group}/grants?pattern={}", groups(&org), query(&pattern));
            remove(&connection, &path, &format!("group {group} has no role on {pattern} any more")).await
        }
    }
}

pub(crate) async fn keys(command: KeysCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        KeysCommand::Ls { connection } => {
            list(&connection, "/registry/keys", "keys", &["id", "created", "retired"], format).await
        }
        KeysCommand::Rotate { at_once, connection } => {
            let body = json!({ "atOnce": at_once });
            make(&connection, (Method::POST, "/registry/keys/rotate"), &body, format, "a new key signs tokens").await
        }
    }
}

/// A value of a query.
fn query(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/*".contains(byte);
    let piece = |byte: u8| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(piece).collect()
}
