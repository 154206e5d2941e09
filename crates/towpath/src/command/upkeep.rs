//! `towpath registry gc|retention|freeze|thaw|verify|undo|quotas`.

use std::process::ExitCode;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::cli::registry::RegistryCommand;
use crate::cli::{Connection, Format};
use crate::client::Client;
use crate::error::Failure;
use crate::output;

pub(crate) async fn registry(command: RegistryCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        // These are dealt with before.
        RegistryCommand::Serve(_) | RegistryCommand::Keys(_) | RegistryCommand::Replication { .. } => {
            Ok(ExitCode::SUCCESS)
        }
        RegistryCommand::Gc { no_scrub, purge, connection } => {
            gc(&json!({ "scrub": !no_scrub, "purge": purge }), &connection, format).await
        }
        RegistryCommand::Retention { dry_run, image, connection } => {
            retention(dry_run, &image, &connection, format).await
        }
        RegistryCommand::Freeze { list: true, connection, .. } => freezes(&connection, format).await,
        RegistryCommand::Freeze { image, because, connection, .. } => {
            let body = json!({ "images": image, "because": because });
            let answer = Client::new(&connection)?.call(Method::POST, "/registry/freezes", &body).await?;
            if !output::machine(format, &answer)? {
                output::data(&format!("images {image} are frozen; `towpath registry thaw` ends that\n"));
            }
            Ok(ExitCode::SUCCESS)
        }
        RegistryCommand::Thaw { image, connection } => {
            let path = format!("/registry/freezes?images={}", query(&image));
            Client::new(&connection)?.send(Method::DELETE, &path, None).await?;
            output::note(&format!("images {image} are thawed"));
            Ok(ExitCode::SUCCESS)
        }
        RegistryCommand::Verify { image, quick, connection } => verify(&image, quick, &connection, format).await,
        RegistryCommand::Undo { image, tag, since, list, connection } => {
            undo(&image, tag, since, list, &connection, format).await
        }
        RegistryCommand::Quotas { connection } => quotas(&connection, format).await,
    }
}

/// A value of a query: patterns have signs that mean something there.
fn query(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

async fn gc(asked: &Value, connection: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let answer = Client::new(connection)?.call(Method::POST, "/registry/gc", asked).await?;
    if !output::machine(format, &answer)? {
        let count = |field: &str| answer[field].as_u64().unwrap_or(0);
        output::data(&format!(
            "freed {} in {} blobs; {} were without a record, {} deleted tags and manifests are gone for good\n",
            size(count("bytes")),
            count("removed"),
            count("orphans"),
            count("forgotten"),
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in units {
        if bytes >> shift > 0 {
            let tenths = (bytes >> (shift - 10)) * 10 / 1024;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// Calls `each` with every line of an answer, and answers its summary.
async fn lines(mut response: Response, mut each: impl FnMut(&Value) -> Result<(), Failure>) -> Result<Value, Failure> {
    let broken = |why: String| Failure::failed(format!("the server's answer broke off: {why}"));
    let mut rest = Vec::new();
    let mut summary = None;
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(error.to_string()))? {
        rest.extend_from_slice(&chunk);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let whole: Vec<u8> = rest.drain(..=end).collect();
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Value = serde_json::from_slice(line).map_err(|error| broken(error.to_string()))?;
            match line.get("summary") {
                Some(last) => summary = Some(last.clone()),
                None => each(&line)?,
            }
        }
    }
    summary.ok_or_else(|| broken("it has no end; the server's log says why".to_owned()))
}

async fn retention(dry_run: bool, image: &str, connection: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let client = Client::new(connection)?;
    let response = match dry_run {
        true => client.send(Method::GET, &format!("/registry/retention?images={}", query(image)), None).await?,
        false => client.send(Method::POST, "/registry/retention", Some(&json!({ "images": image }))).await?,
    };
    let mut decisions = Vec::new();
    let summary = lines(response, |line| {
        if format == Format::Table {
            let verdict = if line["keep"] == true { "keep  " } else { "delete" };
            let (image, why) = (output::cell(&line["image"]), output::cell(&line["why"]));
            let what = match line["tag"].as_str() {
                Some(tag) => format!("{image}:{tag}"),
                None => format!("{image}@{}", output::cell(&line["digest"])),
            };
            output::data(&format!("{verdict}  {what}  {why}\n"));
        } else {
            decisions.push(line.clone());
        }
        Ok(())
    })
    .await?;
    if !output::machine(format, &json!({ "decisions": decisions, "summary": summary }))? {
        let count = |field: &str| output::cell(&summary[field]);
        output::note(&match dry_run {
            true => format!("{} stay and {} would go", count("kept"), count("planned")),
            false => format!(
                "{} stay and {} went; `towpath registry undo` brings them back",
                count("kept"),
                count("deleted")
            ),
        });
    }
    Ok(ExitCode::SUCCESS)
}

async fn freezes(connection: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let answer = Client::new(connection)?.get("/registry/freezes").await?;
    table(&answer, "freezes", &[("IMAGES", "images"), ("BY", "by"), ("SINCE", "since"), ("BECAUSE", "because")], format)
}

async fn quotas(connection: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let answer = Client::new(connection)?.get("/registry/quotas").await?;
    table(&answer, "quotas", &[("IMAGES", "images"), ("USED", "used"), ("LIMIT", "limit")], format)
}

/// A list of an answer, with a column for each field.
fn table(answer: &Value, list: &str, columns: &[(&str, &str)], format: Format) -> Result<ExitCode, Failure> {
    if !output::machine(format, answer)? {
        let row = |it: &Value| columns.iter().map(|(_, field)| output::cell(&it[*field])).collect();
        let rows: Vec<Vec<String>> = answer[list].as_array().into_iter().flatten().map(row).collect();
        let head: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
        output::data(&output::table(&head, &rows));
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(image: &str, quick: bool, connection: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let path = format!("/registry/verify?images={}&read={}", query(image), !quick);
    let response = Client::new(connection)?.send(Method::GET, &path, None).await?;
    let mut problems = Vec::new();
    let summary = lines(response, |line| {
        if let Some(so_far) = line.get("progress") {
            let bytes = size(so_far["bytes"].as_u64().unwrap_or(0));
            let (manifests, blobs) = (output::cell(&so_far["manifests"]), output::cell(&so_far["blobs"]));
            output::note(&format!("{manifests} manifests and {blobs} blobs so far, {bytes} read"));
        } else {
            let problem = &line["problem"];
            if format == Format::Table {
                let [kind, digest, images, detail] =
                    ["kind", "digest", "images", "detail"].map(|field| output::cell(&problem[field]));
                output::data(&format!("{kind}  {digest}  {detail}  (in {images})\n"));
            }
            problems.push(problem.clone());
        }
        Ok(())
    })
    .await?;
    if !output::machine(format, &json!({ "problems": problems, "summary": summary }))? {
        let count = |field: &str| output::cell(&summary[field]);
        output::note(&format!(
            "{} manifests, {} tags and {} blobs: {} problems",
            count("manifests"),
            count("tags"),
            count("blobs"),
            count("problems")
        ));
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn undo(
    image: &str,
    tag: Option<String>,
    since: Option<String>,
    list: bool,
    connection: &Connection,
    format: Format,
) -> Result<ExitCode, Failure> {
    let client = Client::new(connection)?;
    if list {
        let mut path = format!("/registry/deleted?images={}", query(image));
        for (name, value) in [("tags", &tag), ("since", &since)] {
            path.extend(value.iter().map(|value| format!("&{name}={}", query(value))));
        }
        let columns =
            [("IMAGE", "image"), ("TAG", "tag"), ("DIGEST", "digest"), ("DELETED", "deleted"), ("WHY", "why")];
        return table(&client.get(&path).await?, "deleted", &columns, format);
    }
    let body = json!({ "images": image, "tags": tag, "since": since });
    let answer = client.call(Method::POST, "/registry/undo", &body).await?;
    let undone = answer["undone"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused = undone.iter().filter(|it| it["restored"] != true).count();
    if !output::machine(format, &answer)? {
        for it in undone {
            let (image, digest) = (output::cell(&it["image"]), output::cell(&it["digest"]));
            let what = it["tag"].as_str().map_or(format!("{image}@{digest}"), |tag| format!("{image}:{tag}"));
            let became = it["refused"].as_str().map_or("is back".to_owned(), |why| format!("stays away: {why}"));
            output::data(&format!("{what} {became}\n"));
        }
        output::note(&format!("{} brought back, {refused} not", undone.len() - refused));
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
