//! The commands that look after a registry, and those that keep a login.

#![allow(clippy::unwrap_used)]

#[path = "registry/alone.rs"]
#[allow(dead_code)]
mod alone;

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use alone::Alone;
use e2e::{Program, program};
use model::{Algorithm, Digest};

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that keeps one `pr-*` tag of an image, and its configuration.
fn start() -> (Alone, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let text = "apiVersion: towpath.dev/v1alpha1
kind: Towpath
spec:
  registry:
    retention: [{images: 'admin/**', tags: 'pr-*', keepNewest: 1}]
    quotas: [{images: 'admin/**', bytes: 1GiB}]
    collection: {grace: 0s, undoWindow: 1h}
";
    std::fs::write(dir.path().join("towpath.yaml"), text).unwrap();
    let alone = Alone::start(&["--config", dir.path().join("towpath.yaml").to_str().unwrap()]);
    (alone, dir)
}

/// A command of the program, without what the environment says of servers.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program(Program::Debug));
    command.args(arguments).env_remove("TOWPATH_SERVER").env_remove("TOWPATH_TOKEN").env_remove("TOWPATH_CA");
    command
}

fn ended(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// As the administrator.
fn towpath(alone: &Alone, arguments: &[&str]) -> (i32, String, String) {
    let server = format!("http://{}", alone.host());
    ended(command(arguments).env("TOWPATH_SERVER", server).env("TOWPATH_TOKEN", alone.token().unwrap()))
}

/// The same, which must go well.
fn told(alone: &Alone, arguments: &[&str]) -> String {
    let (code, out, err) = towpath(alone, arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    out
}

/// Pushes an image with a layer that holds its tag; the status of the last answer.
fn push(alone: &Alone, image: &str, tag: &str) -> u16 {
    let blob = |content: &str| {
        let digest = oci::digest_of(Algorithm::Sha256, content.as_bytes());
        let path = format!("/v2/{image}/blobs/uploads/?digest={digest}");
        (alone.send("POST", &path, "application/octet-stream", content.as_bytes()), digest)
    };
    let (status, config) = blob("{}");
    let (_, layer) = blob(tag);
    if status != 201 {
        return status;
    }
    let part = |kind: &str, digest: Digest, size: usize| serde_json::json!({ "mediaType": kind, "digest": digest, "size": size });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": KIND,
        "config": part("application/vnd.oci.image.config.v1+json", config, 2),
        "layers": [part("application/vnd.oci.image.layer.v1.tar", layer, tag.len())],
    });
    alone.send("PUT", &format!("/v2/{image}/manifests/{tag}"), KIND, manifest.to_string().as_bytes())
}

fn has(alone: &Alone, image: &str, tag: &str) -> bool {
    alone.status("HEAD", &format!("/v2/{image}/manifests/{tag}")) == 200
}

fn file_with(dir: &Path, content: &str) -> Option<PathBuf> {
    std::fs::read_dir(dir).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return file_with(&path, content);
        }
        std::fs::read(&path).is_ok_and(|bytes| bytes == content.as_bytes()).then_some(path)
    })
}

#[test]
fn retention_says_why_and_what_it_took_comes_back() {
    let (alone, _dir) = start();
    for tag in ["pr-1", "pr-2", "main"] {
        assert_eq!(push(&alone, "admin/app", tag), 201);
    }
    let plan = told(&alone, &["registry", "retention", "--dry-run"]);
    assert!(plan.contains("delete  admin/app:pr-1  rule 1: number 2 of 2"), "{plan}");
    assert!(plan.contains("keep    admin/app:pr-2  ") && plan.contains("keep    admin/app:main  "), "{plan}");
    assert!(has(&alone, "admin/app", "pr-1"), "nothing was done");
    let other = told(&alone, &["registry", "retention", "--dry-run", "--image", "admin/other"]);
    assert_eq!(other, "");
    told(&alone, &["registry", "retention"]);
    assert!(!has(&alone, "admin/app", "pr-1") && has(&alone, "admin/app", "pr-2"));
    let list = told(&alone, &["registry", "undo", "--list"]);
    assert!(list.contains("pr-1") && list.contains("retention: rule 1"), "{list}");
    let undone = told(&alone, &["registry", "undo", "--image", "admin/app", "--tag", "pr-*"]);
    assert_eq!(undone, "admin/app:pr-1 is back\n");
    assert!(has(&alone, "admin/app", "pr-1"));
    let quotas = told(&alone, &["registry", "quotas", "-o", "json"]);
    let quotas: serde_json::Value = serde_json::from_str(&quotas).unwrap();
    assert_eq!(quotas["quotas"][0]["limit"], 1 << 30);
    assert!(quotas["quotas"][0]["used"].as_u64().unwrap() > 0);
}

#[test]
fn a_freeze_refuses_until_it_is_thawed() {
    let (alone, _dir) = start();
    assert_eq!(push(&alone, "admin/app", "v1"), 201);
    told(&alone, &["registry", "freeze", "--image", "admin/**", "--because", "an audit"]);
    let list = told(&alone, &["registry", "freeze", "--list"]);
    assert!(list.contains("admin/**") && list.contains("an audit"), "{list}");
    assert_eq!(push(&alone, "admin/app", "v2"), 403);
    let (code, _, said) = towpath(&alone, &["registry", "thaw"]);
    assert!(code == 1 && said.contains("nothing was frozen by the pattern **"), "{code}: {said}");
    told(&alone, &["registry", "thaw", "--image", "admin/**"]);
    assert_eq!(push(&alone, "admin/app", "v2"), 201);
    // With everything frozen nothing is collected.
    told(&alone, &["registry", "freeze"]);
    let (code, _, said) = towpath(&alone, &["registry", "gc"]);
    assert!(code == 1 && said.contains("hint: thaw it"), "{code}: {said}");
    told(&alone, &["registry", "thaw"]);
    let freed = told(&alone, &["registry", "gc"]);
    assert!(freed.starts_with("freed 0 B in 0 blobs"), "{freed}");
    let (code, _, said) = ended(
        command(&["registry", "gc", "--server", &format!("http://{}", alone.host())]).env("TOWPATH_TOKEN", "twp_wrong"),
    );
    assert!(code == 3 && said.starts_with("error: "), "{code}: {said}");
}

#[test]
fn verify_finds_what_is_missing() {
    let (alone, _dir) = start();
    assert_eq!(push(&alone, "admin/app", "v1"), 201);
    let (code, out, said) = towpath(&alone, &["registry", "verify"]);
    assert!(code == 0 && out.is_empty() && said.contains("1 tags and 2 blobs: 0 problems"), "{code}: {out}{said}");
    let layer = file_with(&alone.path("data").join("blobs"), "v1").unwrap();
    std::fs::remove_file(layer).unwrap();
    let digest = oci::digest_of(Algorithm::Sha256, b"v1");
    let (code, out, _) = towpath(&alone, &["registry", "verify", "--quick"]);
    assert!(code == 1 && out.contains(&digest.to_string()) && out.contains("missing"), "{code}: {out}");
    assert!(out.contains("(in admin/app)"), "{out}");
}

#[test]
fn a_login_is_kept_and_forgotten() {
    let (alone, dir) = start();
    let server = format!("http://{}", alone.host());
    let token = dir.path().join("token");
    let login = |text: &str| {
        std::fs::write(&token, text).unwrap();
        let mut command = command(&["login", &server, "--token-stdin"]);
        ended(command.env("XDG_CONFIG_HOME", dir.path()).stdin(File::open(&token).unwrap()))
    };
    let run = |arguments: &[&str]| ended(command(arguments).env("XDG_CONFIG_HOME", dir.path()));
    let kept = dir.path().join("towpath/logins.json");
    let (code, _, said) = login("twp_wrong\n");
    assert!(code == 3 && !kept.exists(), "{code}: {said}");
    assert_eq!(login("").0, 2);
    let (code, out, said) = login(&format!("{}\n", alone.token().unwrap()));
    assert_eq!((code, out), (0, format!("logged in to {server} as admin\n")), "{said}");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // No command names the server or the token any more; one that does is believed.
    let (code, out, said) = run(&["user", "ls"]);
    assert!(code == 0 && out.contains("admin"), "{code}: {out}{said}");
    assert_eq!(run(&["user", "ls", "--token", "twp_wrong"]).0, 3);
    assert_eq!(run(&["user", "ls", "--server", "http://127.0.0.1:1"]).0, 5);
    let (code, out, _) = run(&["logout"]);
    assert_eq!((code, out), (0, format!("logged out of {server}\n")));
    assert!(!std::fs::read_to_string(&kept).unwrap().contains("twp_"));
    assert_eq!(run(&["user", "ls", "--server", &server]).0, 3);
    assert_eq!(run(&["logout"]).0, 1);
    // Without a provider there is nothing to open in a browser.
    let (code, _, said) = run(&["login", &server]);
    assert!(code == 2 && said.contains("lets nobody sign in with a browser"), "{code}: {said}");
}
