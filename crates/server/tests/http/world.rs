//! A server in this process, with an organisation, its members and somebody who is none.

use std::process::Output;

use access::{Role, Scope};
use config::ServerSpec;
use model::{CommitId, Delivery, DeliveryId, Event, JobId, JobPlanned, RefName, RepoName, RunId, SnapshotRef};
use model::{Timestamp, Trigger, WorkflowPlanned};
use reqwest::{Client, Method};
use serde_json::Value;
use server::{Running, ServeOptions};
use tempfile::TempDir;

/// A token of the right form that is nobody's.
pub const GARBAGE: &str = "twp_0000000000000000000000000000000000000000";

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Fails unless it is a problem document with this status.
    pub fn is_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {self:?}");
        }
    }
}

/// A server and the tokens of those who use it.
pub struct World {
    pub running: Running,
    pub dir: TempDir,
    pub client: Client,
    /// Administrator of the server.
    pub admin: String,
    /// Members of the organisation `works`, by role.
    pub rae: String,
    pub wyn: String,
    pub max: String,
    /// Nobody's member; owns `eve/own`.
    pub eve: String,
}

pub fn spec() -> ServerSpec {
    let mut spec = ServerSpec::default();
    spec.listeners[0].address = ([127, 0, 0, 1], 0).into();
    spec.listeners[0].hosts = vec!["git.example".into(), "registry.example:8443".into()];
    spec
}

impl World {
    pub async fn start() -> Self {
        Self::with(spec()).await
    }

    /// The same from another file.
    pub async fn with(spec: ServerSpec) -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let running = server::start(ServeOptions { data, spec }).await.unwrap();
        let admin = running.admin_token.clone().unwrap();
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let mut world = Self {
            running,
            dir,
            client,
            admin,
            rae: String::new(),
            wyn: String::new(),
            max: String::new(),
            eve: String::new(),
        };
        for name in ["rae", "wyn", "max", "eve"] {
            world.access().create_user(name, false).await.unwrap();
        }
        world.rae = world.token("rae", &[Scope::All], None).await;
        world.wyn = world.token("wyn", &[Scope::All], None).await;
        world.max = world.token("max", &[Scope::All], None).await;
        world.eve = world.token("eve", &[Scope::All], None).await;
        let admin = world.access().find_user("admin").await.unwrap().unwrap();
        world.access().create_organisation("works", admin.id).await.unwrap();
        for (name, role) in [("rae", Role::Read), ("wyn", Role::Write), ("max", Role::Admin)] {
            world.access().add_member("works", name, role).await.unwrap();
        }
        world.repository("works/engine", false).await;
        world.repository("eve/own", false).await;
        world
    }

    pub fn pipeline(&self) -> &pipeline::Pipeline {
        self.running.pipeline.as_ref().unwrap()
    }

    pub fn access(&self) -> &access::Access {
        &self.running.basis.access
    }

    /// A token of a user; `age` milliseconds ago it expired.
    pub async fn token(&self, user: &str, scopes: &[Scope], age: Option<i64>) -> String {
        let user = self.access().find_user(user).await.unwrap().unwrap();
        let expires = age.map(|age| Timestamp(Timestamp::from(std::time::SystemTime::now()).0 - age));
        let name = format!("token {:?}", std::time::Instant::now());
        self.access().create_token(user.id, &name, scopes, expires).await.unwrap().1.expose().to_owned()
    }

    pub async fn repository(&self, name: &str, public: bool) {
        self.pipeline().create_repository(&name.parse().unwrap(), "main", public).await.unwrap();
    }

    pub fn address(&self) -> String {
        self.running.addresses[0].to_string()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn request(&self, method: &str, path: &str, token: Option<&str>) -> reqwest::RequestBuilder {
        let method: Method = method.parse().unwrap();
        let request = self.client.request(method, format!("{}{path}", self.url()));
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Calls `/towpath/v1`.
    pub async fn api(&self, method: &str, path: &str, token: Option<&str>, body: Option<&str>) -> Answer {
        let mut request = self.request(method, &format!("/towpath/v1{path}"), token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        answer(request).await
    }

    /// Gets from `/towpath/v1` as the administrator.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.api("GET", path, Some(&self.admin), None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Applies records as the administrator.
    pub async fn apply(&self, yaml: &str) {
        let answer = self.api("POST", "/apply", Some(&self.admin), Some(yaml)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Runs git in a directory below this world's, with a token.
    pub async fn git(&self, dir: &str, token: &str, arguments: &[&str]) -> Output {
        let dir = self.dir.path().join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        let mut command = tokio::process::Command::new("git");
        command.current_dir(dir).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.dir.path()).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        let header = format!("http.extraHeader=Authorization: Bearer {token}");
        command.args(["-c", &header, "-c", "user.name=T", "-c", "user.email=t@example.org"]);
        command.args(["-c", "init.defaultBranch=main"]).args(arguments);
        command.output().await.unwrap()
    }

    /// The same, which must go well.
    pub async fn done(&self, dir: &str, token: &str, arguments: &[&str]) -> String {
        let output = self.git(dir, token, arguments).await;
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Pushes a commit with a workflow that no runner takes to `works/engine`; its workflow run and delivery, ended.
    pub async fn push(&self) -> (i64, i64) {
        let dir = self.dir.path().join("engine");
        std::fs::create_dir_all(dir.join(".towpath/workflows")).unwrap();
        let workflow = "on: [push]\njobs:\n  test:\n    runs-on: nowhere\n    steps:\n      - run: 'true'\n";
        std::fs::write(dir.join(".towpath/workflows/ci.yaml"), workflow).unwrap();
        self.done("engine", &self.wyn, &["init", "--quiet"]).await;
        self.done("engine", &self.wyn, &["add", "-A"]).await;
        self.done("engine", &self.wyn, &["commit", "--quiet", "-m", "first"]).await;
        let url = format!("{}/works/engine.git", self.url());
        self.done("engine", &self.wyn, &["push", "--quiet", &url, "HEAD:refs/heads/main"]).await;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let listed = self.get("/runs?repository=works/engine").await;
            let runs = listed["runs"].as_array().unwrap();
            let found = runs.iter().find(|run| run["kind"] == "workflow" && !run["outcome"].is_null());
            if let Some(run) = found.filter(|_| runs.iter().all(|run| !run["outcome"].is_null())) {
                return (run["run"].as_i64().unwrap(), run["delivery"].as_i64().unwrap());
            }
            assert!(std::time::Instant::now() < until, "the runs do not end: {listed:#}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Writes a run of `works/engine` into the log that nothing works on: it is under way until [`World::end_run`].
    pub async fn open_run(&self, run: i64, jobs: &[(i64, &str)]) {
        let name: RepoName = "works/engine".parse().unwrap();
        let repository = self.pipeline().rooms().hosting.find(&name).await.unwrap().unwrap().id;
        let id = DeliveryId(run);
        let commit: CommitId = "1".repeat(40).parse().unwrap();
        let delivery = Delivery {
            id,
            repository,
            repository_name: name,
            ref_name: RefName::branch("other").unwrap(),
            before: None,
            commit,
            snapshot: SnapshotRef::of(id),
            trigger: Trigger::Push,
            actor: "wyn".into(),
        };
        let job = |(job, name): &(i64, &str)| JobPlanned {
            job: JobId(*job),
            key: (*name).into(),
            name: (*name).into(),
            needs: Vec::new(),
            plan: Value::Null,
        };
        let planned = WorkflowPlanned {
            run: RunId(run),
            number: 1,
            attempt: 1,
            path: ".towpath/workflows/other.yaml".into(),
            name: "other".into(),
            jobs: jobs.iter().map(job).collect(),
            invalid: None,
        };
        let events =
            vec![(id, Event::DeliveryCreated { delivery }), (id, Event::WorkflowsPlanned { runs: vec![planned] })];
        self.pipeline().journal().append(Timestamp(1), events).await.unwrap();
    }

    pub async fn end_run(&self, run: i64) {
        let outcome = model::Outcome::Succeeded;
        let ended = Event::WorkflowRunFinished { run: RunId(run), outcome, cause: None };
        self.pipeline().journal().append(Timestamp(2), vec![(DeliveryId(run), ended)]).await.unwrap();
    }

    /// Adds to the log of a job.
    pub fn write_log(&self, job: i64, text: &str) {
        use std::io::Write;
        let path = self.pipeline().rooms().jobs.log_path(JobId(job));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

/// Sends a request and reads the answer to its end.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

/// Sends bytes as they stand and reads until the other side closes.
pub async fn raw(address: &str, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    // The server may refuse and close before it has everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
