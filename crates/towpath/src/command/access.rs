//! `towpath user …`, `org …`, `repo …` and `target …`.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{Connection, Format, OrgCommand, RepoCommand, TargetCommand, UserCommand};
use crate::client::Client;
use crate::error::Failure;
use crate::output;

pub(crate) const DONE: Result<ExitCode, Failure> = Ok(ExitCode::SUCCESS);

/// Lists `key` of `path` with these fields as columns.
pub(crate) async fn list(
    connection: &Connection,
    path: &str,
    key: &str,
    fields: &[&str],
    format: Format,
) -> Result<ExitCode, Failure> {
    let answer = Client::new(connection)?.get(path).await?;
    if !output::machine(format, &answer)? {
        let row = |item: &Value| fields.iter().map(|field| output::cell(&item[*field])).collect();
        let rows: Vec<Vec<String>> = answer[key].as_array().into_iter().flatten().map(row).collect();
        let head: Vec<String> = fields.iter().map(|field| field.to_uppercase()).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        output::data(&output::table(&head, &rows));
    }
    DONE
}

/// Makes something and prints it, for people as `done`.
pub(crate) async fn make(
    connection: &Connection,
    (method, path): (Method, &str),
    body: &Value,
    format: Format,
    done: &str,
) -> Result<ExitCode, Failure> {
    let answer = Client::new(connection)?.call(method, path, body).await?;
    if answer.is_null() || !output::machine(format, &answer)? {
        output::note(done);
    }
    DONE
}

pub(crate) async fn remove(connection: &Connection, path: &str, done: &str) -> Result<ExitCode, Failure> {
    Client::new(connection)?.send(Method::DELETE, path, None).await?;
    output::note(done);
    DONE
}

pub(crate) async fn user(command: UserCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        UserCommand::Ls { connection } => {
            list(&connection, "/users", "users", &["id", "name", "admin", "created"], format).await
        }
        UserCommand::Create { name, admin, connection } => {
            let body = json!({ "name": name, "admin": admin });
            let done = format!("user {name} is made; give them a token with `towpath user token {name} NAME`");
            make(&connection, (Method::POST, "/users"), &body, format, &done).await
        }
        UserCommand::Rm { name, connection } => {
            remove(&connection, &format!("/users/{name}"), &format!("user {name} is removed")).await
        }
        UserCommand::ImportHtpasswd { file, connection } => {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", file.display())))?;
            let answer = Client::new(&connection)?.post_text("/users/import", text).await?;
            if !output::machine(format, &answer)? {
                let (new, known) = (output::cell(&answer["created"]), output::cell(&answer["updated"]));
                output::note(&format!("{new} users are new, {known} were there and have these passwords now"));
            }
            DONE
        }
        UserCommand::Token { user, name, scopes, days, connection } => {
            let scopes = (!scopes.is_empty()).then_some(scopes);
            let body = json!({ "name": name, "scopes": scopes, "expiresInDays": days });
            let path = format!("/users/{user}/tokens");
            let answer = Client::new(&connection)?.call(Method::POST, &path, &body).await?;
            if !output::machine(format, &answer)? {
                output::note(&format!("token {} of {user}; it is not shown again:", output::cell(&answer["id"])));
                output::data(&format!("{}\n", output::cell(&answer["token"])));
            }
            DONE
        }
        UserCommand::Tokens { user, connection } => {
            let fields = ["id", "name", "scopes", "created", "expires", "lastUsed"];
            list(&connection, &format!("/users/{user}/tokens"), "tokens", &fields, format).await
        }
        UserCommand::Revoke { user, id, connection } => {
            remove(&connection, &format!("/users/{user}/tokens/{id}"), &format!("token {id} is revoked")).await
        }
    }
}

pub(crate) async fn org(command: OrgCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        OrgCommand::Ls { connection } => {
            list(&connection, "/organisations", "organisations", &["id", "name", "created"], format).await
        }
        OrgCommand::Create { name, connection } => {
            let done = format!("organisation {name} is made");
            make(&connection, (Method::POST, "/organisations"), &json!({ "name": name }), format, &done).await
        }
        OrgCommand::Add { org, user, role, connection } => {
            let path = format!("/organisations/{org}/members/{user}");
            let done = format!("{user} has the role {role} in {org}");
            make(&connection, (Method::PUT, &path), &json!({ "role": role }), format, &done).await
        }
        OrgCommand::Remove { org, user, connection } => {
            let path = format!("/organisations/{org}/members/{user}");
            remove(&connection, &path, &format!("{user} is no longer a member of {org}")).await
        }
    }
}

pub(crate) async fn repo(command: RepoCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        RepoCommand::Ls { connection } => {
            let fields = ["id", "name", "defaultBranch", "visibility", "created"];
            list(&connection, "/repositories", "repositories", &fields, format).await
        }
        RepoCommand::Create { name, branch, public, connection } => {
            let visibility = if public { "public" } else { "private" };
            let body = json!({ "name": name, "defaultBranch": branch, "visibility": visibility });
            let client = Client::anonymous(&connection)?;
            let done = format!("repository {name} is made; push to {}/{name}.git", client.server());
            make(&connection, (Method::POST, "/repositories"), &body, format, &done).await
        }
        RepoCommand::Rename { name, to, connection } => {
            let done = format!("repository {name} is {to} now");
            let path = format!("/repositories/{name}");
            make(&connection, (Method::PATCH, &path), &json!({ "name": to }), format, &done).await
        }
        RepoCommand::Rm { name, connection } => {
            remove(&connection, &format!("/repositories/{name}"), &format!("repository {name} is removed")).await
        }
    }
}

pub(crate) async fn target(command: TargetCommand) -> Result<ExitCode, Failure> {
    match command {
        TargetCommand::Rm { name, connection } => {
            remove(&connection, &format!("/targets/{name}"), &format!("target {name} is removed")).await
        }
    }
}
