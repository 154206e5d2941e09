//! A repository with a site, and the work tree it is changed in.

use std::path::PathBuf;
use std::process::Output;

use serde_json::json;

use crate::{Git, World};

/// A site in a work tree.
pub struct Site {
    /// The repository.
    pub repository: String,
    /// The target, named like the repository.
    pub target: String,
    git: Git,
    dir: PathBuf,
    url: String,
}

const DOCKERFILE: &str = "FROM demo/base:1 AS page
ARG SOURCE_COMMIT
COPY page.txt /src/
RUN mkdir -p /out && cp /src/page.txt /out/index.html && printf '{\"commit\":\"%s\"}' \"$SOURCE_COMMIT\" > /out/health.json

FROM demo/base:1
COPY --from=page /out /www
EXPOSE 8080
CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]
";

const WORKFLOW: &str = "name: check
on:
  push:
    branches: [main]
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: test -s page.txt
";

impl Site {
    /// A repository `demo/NAME` with manifests, a target and the first page, committed and not yet pushed.
    pub fn new(world: &World, name: &str) -> Self {
        let repository = format!("demo/{name}");
        world.call("POST", "/repositories", &json!({ "name": repository }));
        let site = Self::over(world, name);
        site.manifests(&site.manifest());
        world.apply(&site.target_yaml());
        site.write("Dockerfile", DOCKERFILE);
        site.write(".towpath/workflows/check.yaml", WORKFLOW);
        site.write("page.txt", "one\n");
        site.write("README.md", "A site.\n");
        site.commit("feat: the first page");
        site
    }

    /// A work tree for a repository that exists, with nothing in it.
    pub fn over(world: &World, name: &str) -> Self {
        let dir = world.dir().join(format!("work-{name}"));
        std::fs::create_dir_all(&dir).unwrap();
        let repository = format!("demo/{name}");
        let url = format!("{}/{repository}.git", world.url());
        let site = Self { target: name.to_owned(), repository, git: world.git(), dir, url };
        site.git(&["init", "--quiet"]);
        site
    }

    /// The target, as YAML.
    pub fn target_yaml(&self) -> String {
        let (target, repository) = (&self.target, &self.repository);
        format!(
            "apiVersion: towpath.dev/v1alpha1
kind: Target
metadata: {{name: {target}}}
spec:
  repository: {repository}
  branch: main
  services:
    - name: web
      image: {repository}
      build: {{}}
      health: {{path: /health.json, identity: {{jsonPointer: /commit}}, timeoutSeconds: 20}}
  gitops: {{branch: deploy, path: deploy}}
"
        )
    }

    /// The Deployment.
    pub fn manifest(&self) -> String {
        let repository = &self.repository;
        format!(
            "# kept
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
        - name: web
          image: {repository}:latest # the one to pin
          ports:
            - containerPort: 8080
"
        )
    }

    /// Runs git in the work tree, which must succeed.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.git.run(&self.dir, arguments)
    }

    /// The work tree.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Writes a file of the work tree.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Pushes `text` as the manifest on the branch `deploy`, from a work tree of its own.
    pub fn manifests(&self, text: &str) {
        let dir = self.dir.with_extension("deploy");
        let fresh = !dir.exists();
        std::fs::create_dir_all(dir.join("deploy")).unwrap();
        if fresh {
            self.git.run(&dir, &["init", "--quiet", "--initial-branch=deploy"]);
        } else {
            self.git.run(&dir, &["pull", "--quiet", &self.url, "deploy"]);
        }
        std::fs::write(dir.join("deploy/web.yaml"), text).unwrap();
        self.git.run(&dir, &["add", "-A"]);
        self.git.run(&dir, &["commit", "--quiet", "--allow-empty", "-m", "manifests"]);
        self.git.run(&dir, &["push", "--quiet", &self.url, "deploy"]);
    }

    /// Commits everything; the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Pushes with these arguments after the address.
    pub fn try_push(&self, arguments: &[&str]) -> Output {
        let all: Vec<&str> = ["push", self.url.as_str()].into_iter().chain(arguments.iter().copied()).collect();
        self.git.try_run(&self.dir, &all)
    }

    /// A push of HEAD to a branch, not started yet.
    pub fn push_command(&self, branch: &str) -> std::process::Command {
        self.git.command(&self.dir, &["push", "--force", &self.url, &format!("HEAD:refs/heads/{branch}")])
    }

    /// The repository's address for git.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Pushes HEAD to a branch, which must go well.
    pub fn push(&self, branch: &str) {
        let output = self.try_push(&["--force", &format!("HEAD:refs/heads/{branch}")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Changes the page, commits and pushes it; the commit.
    pub fn change_page(&self, page: &str) -> String {
        self.write("page.txt", format!("{page}\n"));
        let commit = self.commit(&format!("feat: {page}"));
        self.push("main");
        commit
    }

    /// The head of a branch on the server.
    pub fn remote_head(&self, name: &str) -> Option<String> {
        let line = self.git(&["ls-remote", &self.url, name]);
        line.split_whitespace().next().map(str::to_owned)
    }

    /// A file of a ref on the server.
    pub fn remote_file(&self, name: &str, path: &str) -> String {
        self.git(&["fetch", "--quiet", &self.url, name]);
        self.git(&["show", &format!("FETCH_HEAD:{path}")])
    }
}
