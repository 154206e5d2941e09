//! `towpath registry serve` in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::{Daemon, Program, finish, program};
use tempfile::TempDir;

/// What precedes the address in what it says.
const SERVES: &str = "towpath serves http://";

/// Where it listens unless it is told: any port.
const ANYWHERE: &str = "127.0.0.1:0";

pub struct Alone {
    daemon: Option<Daemon>,
    host: String,
    token: Option<String>,
    dir: TempDir,
}

impl Alone {
    pub fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut alone = Self { daemon: None, host: String::new(), token: None, dir };
        let token = alone.serve(options);
        // Where everybody may do everything, clients come as they are.
        alone.token = Some(token).filter(|_| !options.contains(&"pull,push"));
        alone
    }

    /// One with a server's file, which says where it listens.
    pub fn configured(spec: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut alone = Self { daemon: None, host: String::new(), token: None, dir };
        let file = alone.path("towpath.yaml");
        std::fs::write(&file, format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n{spec}")).unwrap();
        alone.serve(&["--config", file.to_str().unwrap()]);
        alone
    }

    /// The same data, served anew.
    pub fn restart(&mut self, options: &[&str]) {
        self.daemon = None;
        self.serve(options);
    }

    /// Stops it.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Starts the program and waits until it serves; what it says of the administrator's token.
    fn serve(&mut self, options: &[&str]) -> String {
        let mut command = Command::new(program(Program::Debug));
        command.args(["registry", "serve", "--data"]).arg(self.path("data")).args(options);
        if !options.iter().any(|option| matches!(*option, "--listen" | "--config")) {
            command.args(["--listen", ANYWHERE]);
        }
        command.env_remove("TOWPATH_DATA");
        let log = self.path("log");
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let mut daemon = Daemon::start(command, &log);
        let serves = daemon.serves(|| said().contains(SERVES) && said().ends_with('\n'));
        let said = said();
        assert!(serves, "the registry ended: {said}");
        let address = said.split_once(SERVES).unwrap().1.split_whitespace().next().unwrap();
        self.host = address.to_owned();
        self.daemon = Some(daemon);
        said.lines().find(|line| line.starts_with("twp_")).unwrap_or_default().to_owned()
    }

    /// Host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The administrator's token, where one is needed.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// An image as clients write it.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.host)
    }

    /// The same for the containers family.
    pub fn url(&self, image: &str) -> String {
        format!("docker://{}/{image}", self.host)
    }

    /// An option with credentials, where they are needed.
    pub fn creds(&self, option: &str) -> Vec<String> {
        self.token.iter().flat_map(|token| [option.to_owned(), format!("admin:{token}")]).collect()
    }

    /// A place for files.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sends a request and answers the status.
    pub fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> u16 {
        self.ask(method, path, content_type, body).status().as_u16()
    }

    pub fn status(&self, method: &str, path: &str) -> u16 {
        self.send(method, path, "application/octet-stream", b"")
    }

    /// The digest that a tag points to.
    pub fn digest(&self, image: &str, tag: &str) -> String {
        let answer = self.ask("HEAD", &format!("/v2/{image}/manifests/{tag}"), "application/octet-stream", b"");
        answer.headers()["docker-content-digest"].to_str().unwrap().to_owned()
    }

    /// Pushes an image with this page.
    pub fn push_page(&self, image: &str, tag: &str, page: &str) {
        e2e::push_page(image, tag, page, |method, path, kind, bytes| self.send(method, path, kind, bytes));
    }

    pub fn push_base(&self, image: &str, tag: &str) {
        e2e::push_base(image, tag, |method, path, kind, bytes| self.send(method, path, kind, bytes));
    }

    /// A `towpath image` command of somebody who may use this registry.
    pub fn image(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(e2e::program(e2e::Program::Debug));
        command.arg("image").args(arguments).args(["--plain-http", &self.host]);
        command.env("REGISTRY_AUTH_FILE", self.path("none.json"));
        if let Some(token) = &self.token {
            command.args(["--user", "admin", "--password", "env:THE_TOKEN"]).env("THE_TOKEN", token);
        }
        done(&mut command)
    }

    pub fn ask(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> ureq::http::Response<ureq::Body> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.host));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(60))).build().into();
        agent.run(request.header("content-type", content_type).body(body).unwrap()).unwrap()
    }
}

/// Runs a command that must go well; what it printed.
pub fn done(command: &mut Command) -> String {
    let finished = finish(command);
    assert_eq!(finished.code, Some(0), "{command:?}: {}{}", finished.stdout, finished.stderr);
    finished.stdout.trim().to_owned()
}
