//! Bad input: a clear error, a stored cause, and nothing half done.

#![allow(clippy::unwrap_used)]

use e2e::{Options, Site, World, page};
use serde_json::{Value, json};

/// A site that runs, and how it was before something bad was pushed.
struct Before {
    good: Value,
    commit: String,
    head: String,
    tags: Vec<String>,
}

impl Before {
    fn new(world: &World, site: &Site) -> Self {
        site.push("main");
        let commit = site.git(&["rev-parse", "HEAD"]);
        let good = world.delivered(site, &commit);
        assert_eq!(good["outcome"], "succeeded", "{good:#}");
        Self { good, commit, head: site.deploy_head(), tags: world.tags(&site.repository) }
    }

    fn check_untouched(&self, world: &World, site: &Site) {
        assert_eq!(page(&self.good), "one\n");
        assert_eq!(site.deploy_head(), self.head);
        assert_eq!(world.tags(&site.repository), self.tags);
        let target = world.get(&format!("/targets/{}/status", site.target));
        assert_eq!(target["status"]["runtimeTargetSha"], json!(self.commit));
    }
}

/// A commit that cannot be delivered.
struct Bad {
    /// What is bad about it.
    what: &'static str,
    /// The file that is written, and its text; nothing to remove it.
    file: &'static str,
    text: Option<&'static str>,
    /// The stages in which it may be found out.
    stages: &'static [&'static str],
    /// What the message says.
    message: &'static [&'static str],
    /// The place, as far as its caret: file, line and the text above the caret.
    place: Option<(&'static str, &'static str)>,
    /// What is among the last lines.
    last: Option<&'static str>,
}

const WORKFLOW: &str = ".towpath/workflows/check.yaml";

const BAD: &[Bad] = &[
    Bad {
        what: "a workflow that is not YAML",
        file: WORKFLOW,
        text: Some("name: check\non:\n  push:\n    branches: [main\njobs:\n  test:\n    runs-on: ubuntu-latest\n"),
        stages: &["workflow"],
        message: &[".towpath/workflows/check.yaml:"],
        place: Some((".towpath/workflows/check.yaml:", "")),
        last: None,
    },
    Bad {
        what: "a workflow with an unknown key",
        file: WORKFLOW,
        text: Some("on: push\njobs:\n  test:\n    runs-om: linux\n    steps:\n      - run: 'true'\n"),
        stages: &["workflow"],
        message: &["runs-om"],
        place: Some((".towpath/workflows/check.yaml:4:", "    runs-om: linux")),
        last: None,
    },
    Bad {
        what: "a label that no runner has",
        file: WORKFLOW,
        text: Some("on: push\njobs:\n  test:\n    runs-on: windows-latest\n    steps:\n      - run: 'true'\n"),
        stages: &["workflow"],
        message: &["\"windows-latest\"", "ubuntu-latest", "self-hosted"],
        place: None,
        last: None,
    },
    Bad {
        what: "a job that fails",
        file: WORKFLOW,
        text: Some(
            "on: push\njobs:\n  test:\n    runs-on: linux\n    steps:\n      - run: echo that is not right; exit 9\n",
        ),
        stages: &["workflow"],
        message: &["9"],
        place: None,
        last: Some("that is not right"),
    },
    Bad {
        what: "an unknown instruction",
        file: "Dockerfile",
        text: Some("FROM demo/base:1\nRUNN echo hello\n"),
        stages: &["reuse", "build"],
        message: &["unknown instruction RUNN"],
        place: Some(("Dockerfile:2:1\n", "RUNN echo hello")),
        last: None,
    },
    Bad {
        what: "a file that is not in the context",
        file: "Dockerfile",
        text: Some("FROM demo/base:1\nCOPY page.txt /www/\nCOPY nothing.txt /www/\n"),
        stages: &["reuse", "build"],
        message: &["nothing.txt"],
        place: Some(("Dockerfile:3:", "COPY nothing.txt /www/")),
        last: None,
    },
    Bad {
        what: "no Dockerfile",
        file: "Dockerfile",
        text: None,
        stages: &["reuse", "build"],
        message: &["there is no Dockerfile"],
        place: None,
        last: None,
    },
    Bad {
        what: "a base image that does not exist",
        file: "Dockerfile",
        text: Some("FROM demo/nothing:7\n"),
        stages: &["reuse", "build"],
        message: &["demo/nothing:7"],
        place: Some(("Dockerfile:1:", "FROM demo/nothing:7")),
        last: None,
    },
    Bad {
        what: "a command of the build that fails",
        file: "Dockerfile",
        text: Some("FROM demo/base:1\nRUN echo so it ends; exit 7\n"),
        stages: &["build"],
        message: &["7"],
        place: Some(("Dockerfile:2:", "RUN echo so it ends; exit 7")),
        last: Some("so it ends"),
    },
];

impl Bad {
    fn check_cause(&self, cause: &Value) {
        let what = self.what;
        let message = cause["message"].as_str().unwrap_or_else(|| panic!("{what}: no cause is stored"));
        for part in self.message {
            assert!(message.contains(part), "{what}: {part:?} is not in {cause:#}");
        }
        assert_eq!(message.lines().count(), 1, "{what}: {cause:#}");
        if let Some((at, line)) = self.place {
            let place = cause["place"].as_str().unwrap_or_else(|| panic!("{what}: no place: {cause:#}"));
            assert!(place.starts_with(at) && place.contains(line), "{what}: {place}");
            let caret = place.lines().last().unwrap();
            assert!(caret.trim_start().starts_with('|') && caret.trim_end().ends_with('^'), "{what}: {place}");
        }
        if let Some(last) = self.last {
            assert!(cause["lastLines"].to_string().contains(last), "{what}: {cause:#}");
        }
    }

    /// The run's status, checked.
    fn push(&self, world: &World, site: &Site) -> Value {
        match self.text {
            Some(text) => site.write(self.file, text),
            None => std::fs::remove_file(site.dir().join(self.file)).unwrap(),
        }
        let commit = site.commit(self.what);
        site.push("main");
        let status = world.delivered(site, &commit);
        assert_eq!(status["outcome"], "failed", "{}: {status:#}", self.what);
        let stage = status["cause"]["stage"].as_str().unwrap_or_default();
        assert!(self.stages.contains(&stage), "{}: {status:#}", self.what);
        self.check_cause(&status["cause"]);
        if stage == "workflow" {
            // A run is made for the workflow too, and says the same.
            let run = world.run_of(&site.repository, "workflow", &commit);
            let workflow = world.wait(run);
            assert_eq!(workflow["outcome"], "failed", "{}: {workflow:#}", self.what);
            self.check_cause(&workflow["cause"]);
        }
        if self.what.contains("label") {
            let seconds = status["status"]["elapsedSeconds"].as_f64().unwrap();
            assert!(seconds < 5.0, "it fails at once, not after {seconds} s");
        }
        status
    }
}

#[test]
fn a_bad_commit_fails_with_its_place_and_leaves_the_site_alone() {
    let Some(mut world) = World::start(Options::default()) else { return };
    let site = Site::new(&world, "bad");
    let before = Before::new(&world, &site);
    let mut ended = Vec::new();
    for bad in BAD {
        ended.push((bad, bad.push(&world, &site)));
        before.check_untouched(&world, &site);
        site.git(&["reset", "--quiet", "--hard", &before.commit]);
    }
    // Causes are stored: another process tells them.
    world.kill();
    world.up();
    for (bad, status) in &ended {
        let again = world.get(&format!("/runs/{}", status["run"]));
        assert_eq!(again["cause"], status["cause"], "{}", bad.what);
        let shown = world.towpath(&["run", "show", &status["run"].to_string(), "--wait"]);
        assert_eq!(shown.code, Some(1), "{}", bad.what);
        for part in bad.message {
            assert!(shown.stdout.contains(part), "{}: {}", bad.what, shown.stdout);
        }
    }
    site.push("main");
    let run = world.delivered(&site, &before.commit);
    assert_eq!(run["outcome"], "reused", "nothing of the bad ones was left behind: {run:#}");
}

fn change_page(world: &World, site: &Site, text: &str) -> Value {
    let commit = site.change_page(text);
    world.delivered(site, &commit)
}

#[test]
fn manifests_that_do_not_fit_are_named() {
    let Some(world) = World::start(Options::default()) else { return };
    let site = Site::new(&world, "manifests");
    let good = Before::new(&world, &site);

    site.manifests(&site.manifest().replace("demo/manifests:latest", "demo/other:2"));
    let head = site.deploy_head();
    let status = change_page(&world, &site, "two");
    assert_eq!((&status["outcome"], &status["cause"]["stage"]), (&json!("failed"), &json!("publish")), "{status:#}");
    let cause = status["cause"].to_string();
    assert!(cause.contains("no manifest uses the image demo/manifests of service web"), "{cause}");
    assert!(cause.contains("deploy/web.yaml") && cause.contains("demo/other"), "{cause}");
    assert_eq!((page(&good.good).as_str(), site.deploy_head()), ("one\n", head));

    let volume = "          volumeMounts: [{name: data, mountPath: /data}]\n      volumes: [{name: data, hostPath: {path: /}}]\n";
    site.manifests(&(site.manifest() + volume));
    let status = change_page(&world, &site, "three");
    assert_eq!((&status["outcome"], &status["cause"]["stage"]), (&json!("failed"), &json!("rollout")), "{status:#}");
    let cause = &status["cause"];
    assert!(cause["message"].as_str().unwrap().contains("volume"), "{cause:#}");
    assert!(cause["place"].as_str().unwrap().starts_with("deploy/web.yaml:"), "{cause:#}");
    assert_eq!(page(&good.good), "one\n");
    assert_eq!(site.pinned_manifest(), site.manifest() + volume, "the commit of the failed run is taken back");

    site.manifests(&site.manifest().replace("kind: Deployment", "kind: [Deployment"));
    let head = site.deploy_head();
    let status = change_page(&world, &site, "four");
    assert_eq!(status["outcome"], "failed", "{status:#}");
    let place = status["cause"]["place"].as_str().unwrap_or_default();
    assert!(place.starts_with("deploy/web.yaml:") && place.ends_with('^'), "{status:#}");
    assert_eq!((page(&good.good).as_str(), site.deploy_head()), ("one\n", head));

    // Manifests that fit again deliver the head that could not be delivered.
    let runs = world.runs(&site.repository).len();
    site.manifests(&site.manifest());
    let newest = world.runs(&site.repository);
    assert!(newest.len() > runs, "a push to the GitOps branch delivers the head once more");
    let target = newest.iter().find(|run| run["kind"] == "target").unwrap();
    let status = world.wait(target["run"].as_i64().unwrap());
    assert_eq!(status["outcome"], "succeeded", "{status:#}");
    assert_eq!(page(&status), "four\n");
}

#[test]
fn without_its_gitops_branch_a_target_fails_and_names_it() {
    let Some(world) = World::start(Options::default()) else { return };
    let site = Site::new(&world, "branchless");
    let good = Before::new(&world, &site);
    let url = format!("{}/{}.git", world.url(), site.repository);
    site.git(&["push", "--quiet", &url, ":refs/heads/deploy"]);
    let status = change_page(&world, &site, "two");
    assert_eq!((&status["outcome"], &status["cause"]["stage"]), (&json!("failed"), &json!("publish")), "{status:#}");
    let cause = status["cause"].to_string();
    assert!(cause.contains("GitOps branch") && cause.contains("deploy"), "{cause}");
    assert_eq!(site.remote_head("refs/heads/deploy"), None, "it is not made up");
    assert_eq!(page(&good.good), "one\n");
}

#[test]
fn records_that_contradict_themselves_are_refused_whole() {
    let Some(world) = World::start(Options::default()) else { return };
    world.call("POST", "/repositories", &json!({ "name": "demo/twice" }));
    let site = Site::over(&world, "twice");
    let target = site.target_yaml();
    let service = "    - name: web\n      image: demo/twice\n      build: {}\n";
    let twin = "    - name: other\n      image: demo/twice\n      build: {}\n";
    let bad = [
        (
            target.replace("build: {}", "build: {}\n      external: {system: jenkins}"),
            "two producers, `build` and `external`",
        ),
        (
            target.replace("build: {}", "build: {}\n      job: {workflow: w.yaml, job: image}"),
            "two producers, `build` and `job`",
        ),
        (target.replace(service, &format!("{service}{twin}")), "already has a producer"),
        (target.replace("      build: {}\n", ""), "has no producer"),
        (target.replace("branch: main", "brunch: main"), "did you mean `branch`?"),
        (target.replace("demo/twice\n  branch", "demo/none\n  branch"), "demo/none"),
    ];
    for (text, says) in bad {
        // What comes before it in the same text is not stored either.
        let text =
            format!("apiVersion: towpath.dev/v1alpha1\nkind: Organisation\nmetadata: {{name: early}}\n---\n{text}");
        let (status, answer) = world.try_apply(&text);
        assert!((400..500).contains(&status), "{says}: {status} {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(says), "{says}: {answer}");
        assert_eq!(world.get("/targets")["targets"], json!([]), "{says}");
        assert!(!world.get("/organisations").to_string().contains("early"), "{says}");
    }
    world.apply(&target);
    assert_eq!(world.get("/targets")["targets"].as_array().unwrap().len(), 1);
}
