//! What the demo does with a server: everything through git and the public API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::check;
use super::git::Git;
use super::load::{self, Load, Seen};
use super::registry::Registry;
use super::server::Server;
use super::site::{self, Change};
use super::{Clock, base};
use crate::cli::Connection;
use crate::client::Client;
use crate::error::Failure;

/// How long a pushed commit may take to have a run.
const RUN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a run may take.
const END_PATIENCE: Duration = Duration::from_secs(600);
/// How long a page may take to be seen whose run has ended well.
const CONTENT_PATIENCE: Duration = Duration::from_secs(10);

/// A change that was pushed, and what came of it.
pub(super) struct Run {
    pub(super) change: Change,
    /// The pushed commit.
    pub(super) commit: String,
    /// From the push to the end of the run, as this client saw it.
    pub(super) seconds: f64,
    /// From the push until the new page was seen.
    pub(super) content: Option<f64>,
    /// What those saw who kept asking.
    pub(super) seen: Seen,
    /// The status of the run at its end.
    pub(super) status: Value,
}

/// What runs: the commit that it says it is, and the digest of its image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) commit: String,
    pub(super) digest: String,
}

/// The story so far.
pub(super) struct Story {
    clock: Clock,
    client: Client,
    pub(super) registry: Registry,
    pub(super) git: Git,
    /// The work tree of the site.
    pub(super) work: PathBuf,
    manifests: PathBuf,
    /// Where the site answers, once it does.
    pub(super) address: Option<SocketAddr>,
    pub(super) live: Live,
    pub(super) runs: Vec<Run>,
}

impl Story {
    pub(super) fn new(clock: Clock, server: &Server, dir: &Path) -> Result<Self, Failure> {
        let connection = Connection { server: Some(server.url.clone()), ca: None, token: server.token.clone() };
        let home = dir.join("home");
        std::fs::create_dir_all(&home)?;
        Ok(Self {
            clock,
            client: Client::new(&connection)?,
            registry: Registry::new(&server.url, &server.token)?,
            git: Git::new(&home, &server.url, &server.token, site::REPOSITORY),
            work: dir.join("site"),
            manifests: dir.join("manifests"),
            address: None,
            live: Live::default(),
            runs: Vec::new(),
        })
    }

    /// Makes the organisation, the repository, the base image, the target and the GitOps branch.
    ///
    /// # Errors
    /// When the server refuses something, or this machine lacks something that the base image needs.
    pub(super) async fn prepare(&self, listen: Option<SocketAddr>) -> Result<(), Failure> {
        let owner = site::REPOSITORY.split('/').next().unwrap_or_default();
        self.client.call(Method::POST, "/organisations", &json!({ "name": owner })).await?;
        self.client.call(Method::POST, "/repositories", &json!({ "name": site::REPOSITORY })).await?;
        self.clock.say(&format!("the organisation {owner} and its repository {} are made", site::REPOSITORY));
        let image = tokio::task::spawn_blocking(base::assemble).await;
        let image = image.map_err(|error| Failure::failed(error.to_string()))??;
        let megabytes = image.layer.bytes.len().div_ceil(1 << 20);
        self.registry.push(site::BASE, "1", image).await?;
        self.clock.say(&format!(
            "the base image {}:1 is pushed: this machine's shell, tools and perl, {megabytes} MB",
            site::BASE
        ));
        self.client.post_text("/apply", site::target(listen)).await?;
        self.git.init(&self.manifests, "deploy").await?;
        self.git.commit(&self.manifests, &site::MANIFESTS, "Deploy the site").await?;
        self.git.push(&self.manifests, "deploy").await?;
        self.git.init(&self.work, "main").await?;
        self.clock.say(&format!("the target {} is applied, its manifests are on the branch deploy", site::TARGET));
        Ok(())
    }

    /// Commits and pushes a change, waits for the end of its run, and checks that all is as it should be.
    ///
    /// # Errors
    /// When anything is not.
    pub(super) async fn play(&mut self, change: Change) -> Result<(), Failure> {
        let files = change.files();
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let commit = self.git.commit(&self.work, &files, change.message()).await?;
        let head = self.deploy_head().await?;
        self.announce(change);
        let run = match self.address {
            None => self.first(change, commit).await?,
            Some(address) => self.under_load(change, commit, address).await?,
        };
        let named = |failure: Failure| Failure::failed(format!("the change {}: {failure}", change.name()));
        check::check(self, &run, &head).await.map_err(named)?;
        if run.change != Change::Broken && run.change != Change::Docs {
            let digest = run.status["status"]["imageDigest"].as_str().unwrap_or_default().to_owned();
            self.live = Live { commit: run.commit.clone(), digest };
        }
        self.tell(&run);
        self.runs.push(run);
        Ok(())
    }

    async fn first(&mut self, change: Change, commit: String) -> Result<Run, Failure> {
        let began = Instant::now();
        let status = self.deliver(&commit).await?;
        let seconds = began.elapsed().as_secs_f64();
        if let Some(address) = status["address"].as_str() {
            let parsed = address.trim_start_matches("http://").trim_end_matches('/').parse();
            let unknown =
                |_| Failure::failed(format!("the run says that the site is at {address:?}, which is no address"));
            self.address = Some(parsed.map_err(unknown)?);
            self.clock.say(&format!("the site is live at {}", self.url()));
        }
        let content = match self.address {
            Some(address) => {
                let load = Load::start(address, change.content());
                let seen = tokio::time::timeout(CONTENT_PATIENCE, load.seen()).await;
                load.finish().await;
                seen.ok().map(|at| at.duration_since(began).as_secs_f64())
            }
            None => None,
        };
        Ok(Run { change, commit, seconds, content, seen: Seen::default(), status })
    }

    async fn under_load(&self, change: Change, commit: String, address: SocketAddr) -> Result<Run, Failure> {
        let mut load = Load::start(address, change.content());
        let replaces = change == Change::Page;
        let began = Instant::now();
        let status = {
            let mut delivery = std::pin::pin!(self.deliver(&commit));
            let mut slow = std::pin::pin!(load.slow_until_seen());
            let mut asking = replaces;
            loop {
                tokio::select! {
                    status = &mut delivery => break status?,
                    () = &mut slow, if asking => asking = false,
                }
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        let seen = tokio::time::timeout(CONTENT_PATIENCE, load.seen()).await;
        let content = seen.ok().filter(|_| replaces).map(|at| at.duration_since(began).as_secs_f64());
        Ok(Run { change, commit, seconds, content, seen: load.finish().await, status })
    }

    /// Pushes, and waits for the end of the run that comes of it.
    async fn deliver(&self, commit: &str) -> Result<Value, Failure> {
        self.git.push(&self.work, "main").await?;
        let find = async {
            loop {
                if let Some(run) = self.run_of(commit).await? {
                    return Ok::<_, Failure>(run);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let none = |_| Failure::failed(format!("commit {commit} was pushed, but no run of the target has begun"));
        let run = tokio::time::timeout(RUN_PATIENCE, find).await.map_err(none)??;
        let end = async {
            loop {
                let status = self.client.get(&format!("/runs/{run}/wait?timeoutSeconds=60")).await?;
                if !status["outcome"].is_null() {
                    return Ok::<_, Failure>(status);
                }
            }
        };
        let late = |_| Failure::failed(format!("run {run} has not ended within {} s", END_PATIENCE.as_secs()));
        tokio::time::timeout(END_PATIENCE, end).await.map_err(late)?
    }

    /// The target run of a commit.
    async fn run_of(&self, commit: &str) -> Result<Option<i64>, Failure> {
        let runs = self.client.get(&format!("/runs?repository={}&limit=50", site::REPOSITORY)).await?;
        let wanted = |run: &&Value| run["kind"] == "target" && run["commit"] == commit;
        Ok(runs["runs"].as_array().into_iter().flatten().find(wanted).and_then(|run| run["run"].as_i64()))
    }

    /// The head of the GitOps branch on the server.
    pub(super) async fn deploy_head(&self) -> Result<String, Failure> {
        let listed = self.git.run(&self.work, &["ls-remote", "origin", "refs/heads/deploy"]).await?;
        Ok(listed.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// The manifest as it is at a commit of the GitOps branch.
    pub(super) async fn manifest_at(&self, commit: &str) -> Result<String, Failure> {
        self.git.fetch(&self.manifests, "refs/heads/deploy").await?;
        self.git.run(&self.manifests, &["show", &format!("{commit}:{}", site::MANIFEST)]).await
    }

    /// Takes the target away, and with it everything that it runs.
    ///
    /// # Errors
    /// When the server does not do it.
    pub(super) async fn take_down(&self) -> Result<(), Failure> {
        self.client.send(Method::DELETE, &format!("/targets/{}", site::TARGET), None).await.map(drop)
    }

    /// The address of the site for a browser.
    pub(super) fn url(&self) -> String {
        self.address.map(|address| format!("http://{address}/")).unwrap_or_default()
    }

    /// Says what takes seconds, before it does.
    fn announce(&self, change: Change) {
        let connections = load::CONNECTIONS;
        match change {
            Change::First | Change::Docs => {}
            Change::Page => self.clock.say(&format!(
                "page: another message goes out while {connections} connections keep asking, and slow requests take {} s",
                load::SLOW_SECONDS
            )),
            Change::Broken => self.clock.say(&format!(
                "broken: a version goes out that answers 503 on /health; it has {} s to become well",
                site::HEALTH_SECONDS
            )),
        }
    }

    fn tell(&self, run: &Run) {
        let number = &run.status["run"];
        let what = match run.change {
            Change::First => "the site is built, tested and delivered".to_owned(),
            Change::Page => {
                let Seen { requests, dropped, .. } = run.seen;
                let content = run.content.unwrap_or_default();
                format!("the new page took over after {content:.2} s; {requests} requests meanwhile, {dropped} dropped")
            }
            Change::Docs => "nothing had to be built, committed or rolled out".to_owned(),
            Change::Broken => "the broken version was refused and reverted, the good one serves on".to_owned(),
        };
        self.clock.say(&format!("{}: run {number} in {:.2} s: {what}", run.change.name(), run.seconds));
    }
}
