//! Records that `towpath apply` puts into a server: organisations, users, repositories and targets.

use model::RepoName;
use serde::{Deserialize, Serialize};

use crate::document::documents;
use crate::{ConfigError, Metadata, Target};

/// A record of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Record {
    /// An organisation.
    Organisation(Organisation),
    /// A user.
    User(User),
    /// A repository.
    Repository(Repository),
    /// A target.
    Target(Box<Target>),
}

impl Record {
    /// The kind, as its document says.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Organisation(_) => "Organisation",
            Self::User(_) => "User",
            Self::Repository(_) => "Repository",
            Self::Target(_) => "Target",
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Self::Organisation(it) => &it.metadata.name,
            Self::User(it) => &it.metadata.name,
            Self::Repository(it) => &it.metadata.name,
            Self::Target(it) => &it.metadata.name,
        }
    }
}

/// A `kind: Organisation` document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Organisation {
    /// [`crate::API_VERSION`].
    pub api_version: String,
    /// `Organisation`.
    pub kind: String,
    /// Its name: the owner of its repositories.
    pub metadata: Metadata,
}

/// A `kind: User` document. Tokens are made by command, never applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// [`crate::API_VERSION`].
    pub api_version: String,
    /// `User`.
    pub kind: String,
    /// The login.
    pub metadata: Metadata,
    /// Rights.
    #[serde(default)]
    pub spec: UserSpec,
}

/// Rights of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserSpec {
    /// Whether the user administers the server.
    pub admin: bool,
}

/// A `kind: Repository` document; its name is `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repository {
    /// [`crate::API_VERSION`].
    pub api_version: String,
    /// `Repository`.
    pub kind: String,
    /// `owner/name`.
    pub metadata: Metadata,
    /// What it is.
    #[serde(default)]
    pub spec: RepositorySpec,
}

/// What a repository is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RepositorySpec {
    /// The branch that HEAD names.
    pub default_branch: String,
    /// Who may read it and its images.
    pub visibility: Visibility,
}

impl Default for RepositorySpec {
    fn default() -> Self {
        Self { default_branch: "main".into(), visibility: Visibility::Private }
    }
}

/// Who may read a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Visibility {
    /// Those who have a right on it.
    Private,
    /// Everybody.
    Public,
}

/// Reads and checks all documents of `text`; `file` is its name in errors. Nothing is returned unless all are valid.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse_records(file: &str, text: &str) -> Result<Vec<Record>, ConfigError> {
    let mut records = Vec::new();
    for document in documents(file, text)? {
        let record = match document.kind.as_str() {
            "Organisation" => Record::Organisation(document.read()?),
            "User" => Record::User(document.read()?),
            "Repository" => Record::Repository(document.read()?),
            "Target" => Record::Target(document.read()?),
            "Towpath" => {
                let error = document.error("kind Towpath is the server's own file");
                return Err(error.hint("start the server with `towpath up --config FILE`"));
            }
            other => {
                let error = document.error(format!("kind {other:?} is not known"));
                return Err(error.hint("known are Organisation, User, Repository and Target"));
            }
        };
        check(&record).map_err(|message| document.error(format!("{} {}: {message}", record.kind(), record.name())))?;
        records.push(record);
    }
    Ok(records)
}

fn check(record: &Record) -> Result<(), String> {
    match record {
        Record::Organisation(Organisation { metadata, .. }) | Record::User(User { metadata, .. }) => {
            // The first administrator has a reserved name: nothing else can be called so, and nothing belongs to it.
            let first = matches!(record, Record::User(_)) && metadata.name == "admin";
            if first || RepoName::valid_owner(&metadata.name) {
                return Ok(());
            }
            Err("metadata.name: not letters, digits, . _ and -, or a reserved name".into())
        }
        Record::Repository(repository) => {
            let branch = &repository.spec.default_branch;
            model::RefName::branch(branch).map_err(|e| format!("spec.defaultBranch: {e}"))?;
            repository.metadata.name.parse::<RepoName>().map(|_| ()).map_err(|e| format!("metadata.name: {e}"))
        }
        Record::Target(target) => {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            let name = &target.metadata.name;
            if name.is_empty() || name.len() > 63 || !name.bytes().all(legal) {
                return Err("metadata.name: not 1 to 63 lower-case letters, digits and dashes".into());
            }
            target.spec.check()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "apiVersion: towpath.dev/v1alpha1
kind: Target
metadata: {name: site}
spec:
  repository: demo/site
  branch: main
  services:
    - name: web
      image: demo/site
      build: {}
      health: {path: /health, identity: {header: X-Build}}
  gitops: {branch: deploy}
";

    fn error(text: &str) -> String {
        parse_records("t.yaml", text).unwrap_err().to_string()
    }

    #[test]
    fn reads_several_documents() {
        let text = format!(
            "apiVersion: towpath.dev/v1alpha1\nkind: Organisation\nmetadata: {{name: demo}}\n---\n{TARGET}---\n# end\n"
        );
        let records = parse_records("t.yaml", &text).unwrap();
        assert_eq!(records.iter().map(Record::kind).collect::<Vec<_>>(), ["Organisation", "Target"]);
        let Record::Target(target) = &records[1] else { panic!("a target") };
        assert_eq!(target.spec.services[0].health.identity, crate::HealthIdentity::Header("X-Build".into()));
        assert_eq!(parse_records("t.yaml", &crate::to_yaml(&records).unwrap()).unwrap(), records);
    }

    #[test]
    fn an_unknown_key_has_its_place_and_neighbour() {
        let text = format!("---\n{}", TARGET.replace("branch: main", "brnch: main"));
        let error = error(&text);
        assert!(error.starts_with("t.yaml:7:3: unknown key `brnch`\n 7 |   brnch: main\n"), "{error}");
        assert!(error.contains("did you mean `branch`?"), "{error}");
    }

    #[test]
    fn two_producers_are_refused() {
        let text = TARGET.replace("build: {}", "build: {}\n      external: {system: jenkins}");
        assert!(error(&text).contains("the image demo/site has two producers, `build` and `external`: keep one"));
        assert!(error(&TARGET.replace("      build: {}\n", "")).contains("has no producer"));
    }

    #[test]
    fn refuses_what_cannot_work() {
        assert!(error(&TARGET.replace("{branch: deploy}", "{branch: main}")).contains("delivered itself"));
        assert!(
            error(&TARGET.replace("{branch: deploy}", "{branch: d, path: ../x}")).contains("inside the repository")
        );
        assert!(error(&TARGET.replace("demo/site", "v2/site")).contains("v2/site"));
        assert!(error(&TARGET.replace("v1alpha1", "v9")).contains("apiVersion \"towpath.dev/v9\" is not known"));
    }
}
