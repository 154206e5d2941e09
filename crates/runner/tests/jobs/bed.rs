//! A repository, and jobs of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git::{CommitRequest, Expected, Git, Repository};
use model::{CommitId, DeliveryId, JobId, JobResult, RefName, RepoId, RunId, SnapshotRef, Timestamp};
use runner::{JobReport, JobSpec, default_labels};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A repository with one commit on `main`.
pub struct Bed {
    pub dir: tempfile::TempDir,
    pub repository: Repository,
    pub commit: CommitId,
}

/// A job that has ended.
pub struct Ran {
    pub report: JobReport,
    /// The texts of the log.
    pub lines: Vec<String>,
    pub dir: PathBuf,
}

impl Bed {
    /// With these files; nothing, and a line that says why, if jobs cannot run here.
    pub async fn with(files: &[(&str, &str)]) -> Option<Self> {
        if let sandbox::Tier::None { reason } = &sandbox::probe().tier {
            testkit::skipped(&format!("namespaces ({reason})"));
            return None;
        }
        let git = match Git::discover() {
            Ok(git) => git,
            Err(error) => {
                testkit::skipped(&error.to_string());
                return None;
            }
        };
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::init(&git, &dir.path().join("repo.git"), "main").await.unwrap();
        let mut bed = Self { dir, repository, commit: "1".repeat(40).parse().unwrap() };
        bed.commit = bed.commit_on("main", None, files).await;
        Some(bed)
    }

    pub async fn new() -> Option<Self> {
        Self::with(&[("README", "hello\n")]).await
    }

    /// Commits `files` on top of `parent`, and makes the commit the head of `branch`.
    pub async fn commit_on(&self, branch: &str, parent: Option<CommitId>, files: &[(&str, &str)]) -> CommitId {
        let changes: BTreeMap<_, _> =
            files.iter().map(|(path, text)| ((*path).to_owned(), Some(text.as_bytes().to_vec()))).collect();
        let request = CommitRequest {
            parent,
            changes,
            message: "A commit".to_owned(),
            author_name: "Ann".to_owned(),
            author_email: "ann@example.org".to_owned(),
            when: Timestamp(1_700_000_000_000),
        };
        let commit = self.repository.commit_files(request).await.unwrap();
        let name = RefName::branch(branch).unwrap();
        self.repository.update_ref(&name, &commit, Expected::Any).await.unwrap();
        commit
    }

    /// A job with these steps, in the form of `workflow::Step`.
    pub fn spec(&self, steps: &Value) -> JobSpec {
        let plan = json!({
            "key": "build", "name": "build", "line": 3, "runsOn": ["ubuntu-latest"], "steps": steps,
        });
        JobSpec {
            job: JobId(7),
            run: RunId(70),
            number: 12,
            attempt: 1,
            repository: "demo/site".parse().unwrap(),
            repository_id: RepoId(5),
            commit: self.commit.clone(),
            ref_name: RefName::branch("main").unwrap(),
            snapshot: SnapshotRef::of(DeliveryId(9)),
            event_name: "push".to_owned(),
            event: json!({"ref": "refs/heads/main", "inputs": {"who": "world"}}),
            actor: "ann".to_owned(),
            server_url: "http://towpath.example:8080".to_owned(),
            workflow_path: ".github/workflows/ci.yml".to_owned(),
            workflow_name: "CI".to_owned(),
            plan: serde_json::from_value(plan).unwrap(),
            needs: BTreeMap::new(),
            git_dir: self.repository.dir().to_owned(),
            secrets: BTreeMap::new(),
            vars: BTreeMap::new(),
            labels: default_labels(),
            token: Some("twp_0123456789abcdefghij".to_owned()),
            limits: serde_json::from_value(json!({"cancelGraceMs": 500})).unwrap(),
            network: sandbox::Network::None,
        }
    }

    /// Runs a job to its end.
    pub async fn run(&self, spec: &JobSpec) -> Ran {
        self.run_with(spec, CancellationToken::new()).await
    }

    pub async fn run_with(&self, spec: &JobSpec, cancel: CancellationToken) -> Ran {
        let dir = self.dir.path().join("job");
        std::fs::create_dir_all(&dir).unwrap();
        let _ = std::fs::remove_file(dir.join("log"));
        let report = Box::pin(runner::run(spec, &dir, cancel)).await;
        Ran { lines: texts(&dir.join("log")), report, dir }
    }

    /// Runs a job with these steps.
    pub async fn steps(&self, steps: Value) -> Ran {
        self.run(&self.spec(&steps)).await
    }

    /// Runs a job with this script as its only step.
    pub async fn script(&self, script: &str) -> Ran {
        self.steps(json!([{ "run": script }])).await
    }
}

/// The lines of a log, without their time.
pub fn texts(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines()
        .map(|line| {
            let (time, text) = line.split_once(' ').unwrap();
            time.parse::<Timestamp>().unwrap();
            text.to_owned()
        })
        .collect()
}

impl Ran {
    /// Fails the test, with the log, unless the job succeeded.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.report.result, JobResult::Success, "{:#?}\n{}", self.report, self.lines.join("\n"));
        self
    }

    /// The message of the cause of a failure.
    #[track_caller]
    pub fn failure(&self) -> String {
        assert_eq!(self.report.result, JobResult::Failure, "{:#?}\n{}", self.report, self.lines.join("\n"));
        self.report.cause.clone().unwrap().message
    }

    /// Whether the log has this line.
    pub fn says(&self, line: &str) -> bool {
        self.lines.iter().any(|text| text == line)
    }

    /// Fails the test, with the log, unless it has this line.
    #[track_caller]
    pub fn must_say(&self, line: &str) {
        assert!(self.says(line), "{line:?} is not in\n{}", self.lines.join("\n"));
    }

    /// How each step ended.
    pub fn results(&self) -> Vec<&'static str> {
        self.report.steps.iter().map(|step| step.result.name()).collect()
    }
}
