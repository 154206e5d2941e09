//! The server's own ends, who may do what, and the commands against it.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::{Finished, Git, Options, Program, Site, World, finish, page, program};
use serde_json::{Value, json};

fn up(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program(Program::Debug));
    command.arg("up").arg("--data").arg(data).args(more);
    // The configuration of whoever runs the tests is not theirs.
    command.current_dir(data.parent().unwrap());
    command
}

/// What a failed start says: one line, and perhaps a hint.
fn one_line(finished: &Finished, code: i32) -> String {
    let Finished { stderr, stdout, .. } = finished;
    assert_eq!(finished.code, Some(code), "{stderr}");
    assert_eq!(stdout, "", "{stderr}");
    let mut lines = stderr.lines();
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("error: "), "{stderr}");
    assert!(lines.all(|line| line.starts_with("hint: ")), "one line, and hints: {stderr}");
    first["error: ".len()..].to_owned()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const FREE: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[test]
fn a_taken_port_ends_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = TcpListener::bind(taken).unwrap();
    let data = dir.path().join("data");
    let line = one_line(&finish(&mut up(&data, &["--listen", &taken.to_string()])), 1);
    assert_eq!(line, format!("cannot listen on {taken}: another program listens there already"));
    assert!(!data.exists(), "nothing was made");
    drop(holder);
}

#[test]
fn an_unwritable_directory_ends_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let locked = dir.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o555)).unwrap();
    // Where the tests run may be closed to others; here it is not.
    let here = dir.path().join("towpath");
    std::fs::copy(program(Program::Debug), &here).unwrap();
    for data in [locked.clone(), locked.join("data")] {
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "nobody", "--"]).arg(&here);
            command
        } else {
            Command::new(&here)
        };
        command.arg("up").arg("--data").arg(&data).args(FREE).current_dir(dir.path());
        let line = one_line(&finish(&mut command), 1);
        assert!(line.starts_with(&format!("data directory {} cannot be written to: ", data.display())), "{line}");
    }
    assert_eq!(names(&locked), [""; 0]);
}

#[test]
fn a_second_instance_ends_with_one_line_and_the_first_goes_on() {
    let Some(mut world) = World::start(Options::default()) else { return };
    let line = one_line(&finish(&mut up(world.data(), &FREE)), 1);
    assert!(line.contains("is in use by"), "{line}");
    assert!(line.contains(&format!("process {}", world.pid().unwrap())), "{line}");
    assert!(line.contains(&world.data().display().to_string()), "{line}");
    assert!(world.alive());
    assert!(world.get("/version")["version"].is_string());
}

#[test]
fn a_directory_that_is_not_ours_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let newer = dir.path().join("newer");
    std::fs::create_dir(&newer).unwrap();
    std::fs::write(newer.join("format"), "towpath-data 99\n").unwrap();
    let line = one_line(&finish(&mut up(&newer, &FREE)), 1);
    assert!(line.contains("has format 99") && line.contains("newer towpath"), "{line}");
    assert_eq!(names(&newer), ["format"]);
    assert_eq!(std::fs::read_to_string(newer.join("format")).unwrap(), "towpath-data 99\n");

    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("thesis.tex"), "").unwrap();
    let line = one_line(&finish(&mut up(&other, &FREE)), 1);
    assert!(line.contains("is not a towpath data directory") && line.contains("thesis.tex"), "{line}");
    assert_eq!(names(&other), ["thesis.tex"]);

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let line = one_line(&finish(&mut up(&file, &FREE)), 1);
    assert!(line.contains("file"), "{line}");
}

#[test]
fn a_bad_file_ends_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let head = "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n";
    let file = dir.path().join("server.yaml");
    let shown = file.display().to_string();
    // The text, how the line begins, and what is said below it.
    let cases = [
        (format!("{head}  listners: []\n"), format!("{shown}:4:3: "), "did you mean `listeners`?"),
        (format!("{head}  actions: {{parallelJobs: many}}\n"), format!("{shown}:4:"), "many"),
        (format!("{head}  listeners: [\n"), format!("{shown}:"), ""),
        (format!("{head}  listeners: []\n"), format!("{shown}: spec.listeners"), ""),
        ("kind: Towpath\n".to_owned(), format!("{shown}: apiVersion"), "towpath.dev/v1alpha1"),
        (format!("{head}---\n{head}"), format!("{shown}: holds 2 documents"), ""),
    ];
    let data = dir.path().join("data");
    for (text, begins, says) in cases {
        std::fs::write(&file, &text).unwrap();
        let finished = finish(&mut up(&data, &["--config", &shown]));
        assert_eq!(finished.code, Some(2), "{text}: {}", finished.stderr);
        let said = finished.stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{}", finished.stderr));
        assert!(said.starts_with(&begins), "{text}: {said}");
        assert!(said.contains(says), "{text}: {said}");
        // A place is shown with its line and a caret, and nothing else is said.
        let extra =
            said.lines().skip(1).filter(|line| !line.contains(" | ") && !line.trim_start().starts_with("hint: "));
        assert_eq!(extra.count(), 0, "{said}");
        assert!(!data.exists(), "everything is checked before anything is made");
    }
    let line = one_line(&finish(&mut up(&data, &["--config", "no-such.yaml"])), 2);
    assert!(line.contains("no-such.yaml"), "{line}");
}

/// Sends a request as it stands and returns the whole answer.
fn raw(address: &str, head: &str) -> String {
    raw_with(address, head, "")
}

fn raw_with(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    stream
        .write_all(format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_host_that_is_not_listed_is_misdirected() {
    let config = "apiVersion: towpath.dev/v1alpha1\nkind: Towpath\nspec:\n  listeners:\n    - {address: '127.0.0.1:$PORT', hosts: [git.example]}\n";
    let options = Options { config: Some(config.to_owned()), ..Options::default() };
    let Some(world) = World::start(options) else { return };
    let address = world.registry();
    let token = world.token();
    for path in ["/livez", "/towpath/v1/version", "/v2/", "/demo/base.git/info/refs?service=git-upload-pack"] {
        let ask = |host: &str| {
            raw(&address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}"))
        };
        for host in ["evil.example", "git.example.evil", "10.9.8.7", ""] {
            let answer = ask(host);
            assert_eq!(status_of(&answer), 421, "{path} of {host:?}: {answer}");
        }
        for host in [address.as_str(), "git.example", "git.example:443", &address.replace("127.0.0.1", "localhost")] {
            let answer = ask(host);
            assert!(![421, 401].contains(&status_of(&answer)), "{path} of {host}: {answer}");
        }
    }
    // Where to get a registry token follows from how the client came.
    let answer = raw(&address, "GET /v2/ HTTP/1.1\r\nHost: git.example");
    assert_eq!(status_of(&answer), 401);
    assert!(answer.contains("realm=\"http://git.example/"), "{answer}");
}

#[test]
fn users_organisations_tokens_and_repositories_are_made_by_command() {
    let Some(world) = World::start(Options::default()) else { return };
    world.told(&["user", "create", "ada"]);
    world.told(&["org", "create", "works"]);
    world.told(&["org", "add", "works", "ada", "--role", "write"]);
    world.told(&["repo", "create", "works/engine", "--branch", "trunk"]);
    let token = world.told(&["user", "token", "ada", "laptop", "--days", "30"]);
    let token = token.trim();
    assert!(token.starts_with("twp_") && token.len() == 44, "{token}");
    assert!(world.told(&["user", "ls"]).lines().any(|line| line.contains("ada")));
    assert!(world.told(&["org", "ls"]).contains("works"));
    let listed: Value = serde_json::from_str(&world.towpath_as(token, &["repo", "ls", "-o", "json"]).stdout).unwrap();
    let listed = listed["repositories"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "others' repositories are not there: {listed:?}");
    assert_eq!((&listed[0]["name"], &listed[0]["defaultBranch"]), (&json!("works/engine"), &json!("trunk")));

    // The token works in git too, until it is revoked.
    let git = Git::new(world.dir(), token);
    let url = format!("{}/works/engine.git", world.url());
    assert!(git.try_run(world.dir(), &["ls-remote", &url]).status.success());
    let tokens: Value = serde_json::from_str(&world.told(&["user", "tokens", "ada", "-o", "json"])).unwrap();
    assert!(!tokens.to_string().contains(token), "a token is shown once");
    let id = tokens["tokens"][0]["id"].to_string();
    world.told(&["user", "revoke", "ada", &id]);
    assert!(!git.try_run(world.dir(), &["ls-remote", &url]).status.success());
    assert_eq!(world.towpath_as(token, &["repo", "ls"]).code, Some(3));

    world.told(&["repo", "rename", "works/engine", "works/motor"]);
    assert!(world.told(&["repo", "ls"]).contains("works/motor"));
    world.told(&["repo", "rm", "works/motor"]);
    world.told(&["org", "remove", "works", "ada"]);
    world.told(&["user", "rm", "ada"]);
    assert!(!world.told(&["user", "ls"]).contains("ada"));
}

#[test]
fn commands_end_with_the_code_that_says_why() {
    let Some(world) = World::start(Options::default()) else { return };
    let of = |arguments: &[&str]| {
        let finished = world.towpath(arguments);
        assert!(finished.stderr.starts_with("error: "), "{arguments:?}: {}", finished.stderr);
        finished.code
    };
    assert_eq!(of(&["run", "show", "4711"]), Some(1));
    assert_eq!(of(&["status", "nowhere"]), Some(1));
    assert_eq!(of(&["repo", "create", "demo/a b"]), Some(2));
    assert_eq!(of(&["repo", "create", "v2/site"]), Some(2));
    assert_eq!(of(&["apply", "-f", "/no/such/file"]), Some(2));
    assert_eq!(of(&["run", "frobnicate"]), Some(2));
    assert_eq!(world.towpath_as("", &["repo", "create", "demo/x"]).code, Some(3));
    assert_eq!(world.towpath_as("twp_wrong", &["status"]).code, Some(3));
    // Nobody listens on the port of a listener that is gone.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(of(&["status", "--server", &format!("http://{gone}")]), Some(5));
}

/// All commands below `command`, found as a reader of the help finds them.
fn check_help(world: &World, command: &[&str]) -> usize {
    let help = world.told(&[command, &["--help"]].concat());
    let Some((_, below)) = help.split_once("\nCommands:\n") else {
        let has = |title: &str| help.contains(&format!("{title}:\n  towpath "));
        assert!(has("Example") || has("Examples"), "{command:?}: {help}");
        return 1;
    };
    let names = below.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ")?.split_whitespace().next()?;
        (!line.starts_with("   ") && name != "help").then_some(name)
    });
    names.map(|name| check_help(world, &[command, &[name]].concat())).sum()
}

#[test]
fn every_command_has_help_with_an_example() {
    let Some(world) = World::start(Options::default()) else { return };
    let commands = check_help(&world, &[]);
    assert!(commands > 20, "only {commands} commands were found");
}

#[test]
fn nobody_reaches_what_is_not_theirs() {
    let Some(world) = World::start(Options::default()) else { return };
    let site = Site::new(&world, "own");
    site.push("main");
    let status = world.delivered(&site, &site.git(&["rev-parse", "HEAD"]));
    assert_eq!(status["outcome"], "succeeded", "{status:#}");
    let run = &status["run"];
    world.told(&["user", "create", "eve"]);
    let eve = world.told(&["user", "token", "eve", "any"]);
    let eve = eve.trim();

    let reads = [
        "/towpath/v1/repositories/demo/own".to_owned(),
        "/towpath/v1/repositories/demo/own/secrets".to_owned(),
        "/towpath/v1/runs?repository=demo/own".to_owned(),
        format!("/towpath/v1/runs/{run}"),
        format!("/towpath/v1/runs/{run}/logs"),
        "/towpath/v1/deliveries/1".to_owned(),
        "/towpath/v1/targets/own".to_owned(),
        "/towpath/v1/targets/own/status".to_owned(),
        "/towpath/v1/users/admin/tokens".to_owned(),
        "/towpath/v1/events".to_owned(),
        "/towpath/v1/outbox".to_owned(),
        "/towpath/v1/export".to_owned(),
        "/demo/own.git/info/refs?service=git-upload-pack".to_owned(),
        "/demo/own.git/info/refs?service=git-receive-pack".to_owned(),
        "/v2/demo/own/tags/list".to_owned(),
        "/v2/demo/own/manifests/latest".to_owned(),
    ];
    let ask = |method: &str, path: &str, token: &str| {
        let token = if token.is_empty() { String::new() } else { format!("\r\nAuthorization: Bearer {token}") };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}{token}", world.registry());
        raw_with(&world.registry(), &format!("{head}\r\nContent-Type: application/json"), "{}")
    };
    for path in &reads {
        let answer = ask("GET", path, eve);
        assert!([403, 404].contains(&status_of(&answer)), "{path}: {answer}");
        let answer = ask("GET", path, "");
        assert_eq!(status_of(&answer), 401, "{path}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("www-authenticate: "), "{path}: {answer}");
        assert_eq!(status_of(&ask("GET", path, "twp_0000000000000000000000000000000000000000")), 401, "{path}");
    }
    let writes = [
        ("POST", format!("/towpath/v1/runs/{run}/cancel")),
        ("POST", format!("/towpath/v1/runs/{run}/retry")),
        ("POST", "/towpath/v1/targets/own/rollback".to_owned()),
        ("DELETE", "/towpath/v1/targets/own".to_owned()),
        ("DELETE", "/towpath/v1/repositories/demo/own".to_owned()),
        ("POST", "/v2/demo/own/blobs/uploads/".to_owned()),
        ("DELETE", "/v2/demo/own/manifests/latest".to_owned()),
        ("POST", "/demo/own.git/git-receive-pack".to_owned()),
    ];
    for (method, path) in &writes {
        let answer = ask(method, path, eve);
        assert!([403, 404].contains(&status_of(&answer)), "{method} {path}: {answer}");
        assert_eq!(status_of(&ask(method, path, "")), 401, "{method} {path}");
    }
    assert_eq!(world.towpath_as(eve, &["user", "create", "mallory"]).code, Some(3));
    assert_eq!(world.towpath_as(eve, &["user", "token", "admin", "mine"]).code, Some(3));
    let listed: Value = serde_json::from_str(&world.towpath_as(eve, &["repo", "ls", "-o", "json"]).stdout).unwrap();
    assert_eq!(listed["repositories"], json!([]));

    // Who may read may not write.
    world.told(&["org", "add", "demo", "eve", "--role", "read"]);
    let git = Git::new(world.dir(), eve);
    let url = format!("{}/demo/own.git", world.url());
    git.run(site.dir(), &["fetch", "--quiet", &url, "main"]);
    let pushed = git.try_run(site.dir(), &["push", &url, "HEAD:refs/heads/eve"]);
    assert!(!pushed.status.success());
    assert_eq!(site.remote_head("refs/heads/eve"), None);
    assert_eq!(page(&status), "one\n");
    assert_eq!(world.get(&format!("/runs/{run}"))["outcome"], "succeeded");
}

#[test]
fn every_error_of_the_api_is_a_problem_document() {
    let Some(world) = World::start(Options::default()) else { return };
    let head = |method: &str, path: &str| {
        let (host, token) = (world.registry(), world.token());
        format!("{method} /towpath/v1{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}")
    };
    let json = "\r\nContent-Type: application/json";
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    let cases = [
        (404, head("GET", "/nothing/here"), ""),
        (405, head("PUT", "/version"), ""),
        (400, head("GET", "/runs/seventeen"), ""),
        (404, head("GET", "/runs/17"), ""),
        (400, head("GET", "/runs?limit=many"), ""),
        (400, head("GET", "/runs?repository=nobody"), ""),
        (400, head("POST", "/repositories") + json, "{\"name\":"),
        (422, head("POST", "/repositories") + json, "{\"name\":\"demo/x\",\"colour\":\"red\"}"),
        (415, head("POST", "/repositories"), "name=demo/x"),
        (409, head("POST", "/organisations") + json, "{\"name\":\"demo\"}"),
        (413, head("POST", "/repositories") + json, large.as_str()),
        (400, head("POST", "/apply"), "kind: [\n"),
    ];
    for (code, head, body) in cases {
        let answer = raw_with(&world.registry(), &head, body);
        let line = head.lines().next().unwrap();
        assert_eq!(status_of(&answer), code, "{line}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("content-type: application/problem+json"), "{line}: {answer}");
        let (_, document) = answer.split_once("\r\n\r\n").unwrap();
        let document: Value =
            serde_json::from_str(document).unwrap_or_else(|error| panic!("{line}: {error}: {answer}"));
        assert_eq!(document["status"], code, "{line}: {document}");
        assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}: {document}");
    }
}

#[test]
fn records_apply_once_and_export_as_they_were_applied() {
    let Some(world) = World::start(Options::default()) else { return };
    let document = |kind: &str, rest: &str| format!("apiVersion: towpath.dev/v1alpha1\nkind: {kind}\n{rest}---\n");
    let site = Site::over(&world, "twice");
    let text = [
        document("Organisation", "metadata: {name: works}\n"),
        document("User", "metadata: {name: ada}\nspec: {admin: true}\n"),
        document("Repository", "metadata: {name: works/engine}\nspec: {visibility: public}\n"),
        document("Repository", "metadata: {name: demo/twice}\nspec: {defaultBranch: trunk}\n"),
        site.target_yaml(),
    ]
    .concat();
    let file = world.dir().join("records.yaml");
    std::fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    let ends = |told: &str, end: &str| told.lines().count() == 5 && told.lines().all(|line| line.ends_with(end));
    let told = world.told(&["apply", "-f", file]);
    assert!(ends(&told, " applied"), "{told}");
    let told = world.told(&["apply", "-f", file]);
    assert!(ends(&told, " unchanged"), "{told}");

    let exported = world.told(&["export"]);
    let again = world.dir().join("exported.yaml");
    std::fs::write(&again, &exported).unwrap();
    let told = world.told(&["apply", "-f", again.to_str().unwrap()]);
    assert!(told.lines().all(|line| line.ends_with(" unchanged")), "{told}");
    assert_eq!(world.told(&["export"]), exported);
    assert!(!exported.contains("twp_"), "no secret is exported");

    // Another server becomes the same by it.
    let Some(other) = World::start(Options::default()) else { return };
    other.apply(&exported);
    assert_eq!(other.told(&["export"]), exported);

    std::fs::write(file, text.replace("admin: true", "admin: false")).unwrap();
    let told = world.told(&["apply", "-f", file]);
    assert_eq!(told.matches(" applied").count(), 1, "{told}");
    let bad = world.dir().join("bad.yaml");
    std::fs::write(&bad, text.replace("gitops:", "gitopps:")).unwrap();
    let finished = world.towpath(&["apply", "-f", bad.to_str().unwrap()]);
    assert_eq!(finished.code, Some(2));
    assert!(
        finished.stderr.contains("bad.yaml:") && finished.stderr.contains("did you mean `gitops`?"),
        "{}",
        finished.stderr
    );
}

/// Kills the server in a stage of a run and starts it again; the site answers all the while.
fn kill_in(world: &mut World, run: i64, stage: &str, live: &Value) {
    world.until_stage(run, stage);
    world.kill();
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        assert_eq!(page(live), "one\n");
    }
    world.up();
    assert_eq!(page(live), "one\n");
}

#[test]
fn a_killed_server_goes_on_where_it_was() {
    let Some(mut world) = World::start(Options::default()) else { return };
    let site = Site::new(&world, "killed");
    site.push("main");
    let first = world.delivered(&site, &site.git(&["rev-parse", "HEAD"]));
    assert_eq!(first["outcome"], "succeeded", "{first:#}");

    site.edit(".towpath/workflows/check.yaml", "test -s page.txt", "echo begun; sleep 3; echo ended");
    site.edit("Dockerfile", "RUN mkdir", "RUN sleep 3 && mkdir");
    let commit = site.change_page("two");
    let run = world.run_of(&site.repository, "target", &commit);
    let head = site.deploy_head();
    kill_in(&mut world, run, "workflow", &first);
    kill_in(&mut world, run, "build", &first);
    let status = world.wait(run);
    assert_eq!(status["outcome"], "succeeded", "{status:#}");
    assert_eq!(page(&status), "two\n");
    assert_eq!(status["address"], first["address"]);
    for event in ["imageBuilt", "gitopsCommitted", "rolledOut", "closedOut", "targetRunFinished"] {
        assert_eq!(world.count(event, run), 1, "{event}");
    }
    site.git(&["fetch", "--quiet", &format!("{}/{}.git", world.url(), site.repository), "refs/heads/deploy"]);
    assert_eq!(site.git(&["rev-list", &format!("{head}..FETCH_HEAD")]).lines().count(), 1);
    // The job was under its own supervisor and has not noticed.
    let (_, log) = world.api("GET", &format!("/runs/{run}/logs?part=workflow"), None);
    let log = log.as_str().unwrap();
    let said = |word: &str| log.lines().filter(|line| line.ends_with(&format!("Z {word}"))).count();
    assert_eq!((said("begun"), said("ended")), (1, 1), "{log}");
    let events = world.whole_log();
    let gap = events.iter().zip(1..).find(|(event, seq)| event["seq"] != *seq);
    assert!(gap.is_none(), "the log has a gap: {gap:?}");
}
