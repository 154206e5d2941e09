//! What `runs-on:` may ask for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a job sees as its file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum LabelRoot {
    /// The machine's own tools, read-only.
    Host {
        /// Further directories of the machine, read-only at the same path (a tool chain below `/opt`).
        #[serde(default)]
        also: Vec<PathBuf>,
    },
    /// Unpacked image layers, topmost first.
    Layers {
        /// Their directories.
        layers: Vec<PathBuf>,
    },
}

/// A name that `runs-on:` may give, and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The name, compared without regard to case.
    pub name: String,
    /// What the job sees.
    pub root: LabelRoot,
}

/// No runner has a label that a job asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no runner has the label {wanted:?}: known labels are {}", known.join(", "))]
pub struct UnknownLabel {
    /// What was asked for.
    pub wanted: String,
    /// The labels that there are.
    pub known: Vec<String>,
}

/// The labels of a server for which nothing else is configured: the names that workflows written for GitHub, Gitea and
/// Forgejo use for an ordinary Linux machine, all of them this machine.
pub fn default_labels() -> Vec<Label> {
    ["ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04", "linux", "self-hosted", "towpath"]
        .map(|name| Label { name: name.to_owned(), root: LabelRoot::Host { also: Vec::new() } })
        .to_vec()
}

/// The label that decides where a job with `runs_on` runs: the first, if there is a runner for every one of them.
///
/// # Errors
/// [`UnknownLabel`] for the first that no runner has, or if none is asked for.
pub fn select<'a>(labels: &'a [Label], runs_on: &[String]) -> Result<&'a Label, UnknownLabel> {
    let unknown = |wanted: &str| UnknownLabel {
        wanted: wanted.to_owned(),
        known: labels.iter().map(|label| label.name.clone()).collect(),
    };
    let mut first = None;
    for wanted in runs_on {
        let found =
            labels.iter().find(|label| label.name.eq_ignore_ascii_case(wanted)).ok_or_else(|| unknown(wanted))?;
        first.get_or_insert(found);
    }
    first.ok_or_else(|| unknown(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_must_be_known() {
        let labels = default_labels();
        let ask = |names: &[&str]| select(&labels, &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(ask(&["Ubuntu-Latest"]).map(|label| label.name.as_str()), Ok("ubuntu-latest"));
        assert_eq!(ask(&["self-hosted", "linux"]).map(|label| label.name.as_str()), Ok("self-hosted"));
        let error = ask(&["linux", "windows-latest"]).unwrap_err().to_string();
        assert!(error.contains("\"windows-latest\"") && error.contains("ubuntu-22.04, linux"), "{error}");
        assert!(ask(&[]).is_err());
    }
}
