//! `uses:` steps: which action is meant, and who does it.

use std::collections::BTreeMap;

use crate::checkout;
use crate::composite;
use crate::job::{Job, Scope, StepEnd};
use crate::step::Ready;

/// The actions that this runner does itself.
pub const KNOWN: [&str; 2] = ["actions/checkout", "./path of a composite action in the workspace"];

/// An action as `uses:` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uses {
    /// `./path`: a directory of the workspace.
    Local(String),
    /// `docker://image`
    Docker(String),
    /// `[https://host/]owner/name[/path][@ref]`
    Repository {
        /// `owner/name`, in lower case.
        name: String,
        /// The directory in it.
        path: Option<String>,
    },
    /// None of them.
    Unknown,
}

impl Uses {
    /// Reads the text of a `uses:`.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("./") {
            return Self::Local(path.trim_end_matches('/').to_owned());
        }
        if let Some(image) = text.strip_prefix("docker://") {
            return Self::Docker(image.to_owned());
        }
        let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let rest = match address {
            Some(address) => address.split_once('/').map_or("", |(_, rest)| rest),
            None => text,
        };
        let rest = rest.split_once('@').map_or(rest, |(rest, _)| rest);
        let mut parts = rest.trim_end_matches('/').splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(owner), Some(name), path) if !owner.is_empty() && !name.is_empty() => Self::Repository {
                name: format!("{owner}/{}", name.strip_suffix(".git").unwrap_or(name)).to_ascii_lowercase(),
                path: path.map(str::to_owned),
            },
            _ => Self::Unknown,
        }
    }
}

/// Runs the action of a step.
pub async fn run(
    job: &mut Job<'_>,
    scope: &mut Scope,
    ready: &Ready<'_>,
    uses: &str,
    outputs: &mut BTreeMap<String, String>,
) -> StepEnd {
    job.log.say(&format!("##[group]{}\n##[endgroup]", ready.title));
    match Uses::parse(uses) {
        Uses::Local(path) => Box::pin(composite::run(job, scope, ready, &path, outputs)).await,
        Uses::Repository { name, path: None } if name == "actions/checkout" => {
            match checkout::run(job, scope, ready, outputs).await {
                Ok(()) => StepEnd::success(),
                Err(message) => StepEnd::failure(job.of_step(ready, &message)),
            }
        }
        Uses::Docker(_) => refused(job, ready, uses, "a container action"),
        Uses::Repository { .. } => refused(job, ready, uses, "an action"),
        Uses::Unknown => StepEnd::failure(
            job.of_step(ready, &format!("uses {uses:?}: expected owner/name@ref, ./path or docker://image")),
        ),
    }
}

fn refused(job: &Job<'_>, ready: &Ready<'_>, uses: &str, what: &str) -> StepEnd {
    let message = format!("uses {uses:?}, {what} that this runner does not have; it has {}", KNOWN.join(" and "));
    let hint = "write what the action does as run: steps, or as a composite action in the repository";
    StepEnd::failure(job.of_step(ready, &message).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_an_action() {
        let repository =
            |name: &str, path: Option<&str>| Uses::Repository { name: name.to_owned(), path: path.map(str::to_owned) };
        for (text, expected) in [
            ("actions/checkout@v4", repository("actions/checkout", None)),
            ("Actions/Checkout", repository("actions/checkout", None)),
            ("https://github.com/actions/checkout@08c6903cd8c0", repository("actions/checkout", None)),
            ("https://gitea.example:3000/actions/checkout.git@v5", repository("actions/checkout", None)),
            ("github/codeql-action/init@v3", repository("github/codeql-action", Some("init"))),
            ("./", Uses::Local(String::new())),
            ("./.github/actions/x/", Uses::Local(".github/actions/x".to_owned())),
            ("docker://alpine:3", Uses::Docker("alpine:3".to_owned())),
            ("checkout", Uses::Unknown),
            ("https://github.com", Uses::Unknown),
            ("", Uses::Unknown),
        ] {
            assert_eq!(Uses::parse(text), expected, "{text}");
        }
    }
}
