//! The registry alone, with real clients: once open to everybody, once with accounts. Each pushes, pulls and runs what it
//! can, and those that delete do.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "registry/alone.rs"]
mod alone;
#[path = "registry/bases.rs"]
mod bases;
#[path = "registry/go.rs"]
mod go;
#[path = "registry/mirror.rs"]
mod mirror;
#[path = "registry/official.rs"]
mod official;
#[path = "registry/through.rs"]
mod through;

use std::path::Path;
use std::process::Command;

use alone::{Alone, done};
use e2e::{Daemon, installed};

/// Runs a test with a registry that is open to everybody, and with one that is not.
fn both(test: impl Fn(&Alone)) {
    if e2e::busybox().is_none() {
        eprintln!("skipped: there is no static /bin/busybox (Debian's busybox-static)");
        return;
    }
    for options in [&["--anonymous", "pull,push"][..], &[]] {
        let alone = Alone::start(options);
        alone.push_base("demo/base", "1");
        test(&alone);
    }
}

#[test]
fn is_ready_without_anything_and_keeps_what_it_has() {
    let mut alone = Alone::start(&["--anonymous", "pull,push"]);
    assert_eq!(alone.status("GET", "/v2/"), 200);
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let path = format!("/v2/alpine/blobs/uploads/?digest={empty}");
    assert_eq!(alone.send("POST", &path, "application/octet-stream", b"{}"), 201);
    alone.restart(&["--anonymous", "pull"]);
    assert_eq!(alone.status("GET", "/v2/"), 401);
    assert_eq!(alone.status("GET", &format!("/v2/alpine/blobs/{empty}")), 200);
    assert_eq!(alone.send("POST", &path, "application/octet-stream", b"{}"), 401);
}

#[test]
fn who_may_push_may_pull() {
    let mut command = Command::new(e2e::program(e2e::Program::Debug));
    let dir = tempfile::tempdir().unwrap();
    command.args(["registry", "serve", "--anonymous", "push", "--data"]).arg(dir.path().join("data"));
    let finished = e2e::finish(&mut command);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("--anonymous pull,push"), "{}", finished.stderr);
    assert!(!dir.path().join("data").exists());
}

#[test]
fn skopeo_pushes_pulls_and_deletes() {
    if !installed("skopeo") {
        return;
    }
    both(|alone| {
        let (base, copy) = (alone.url("demo/base:1"), alone.url("demo/skopeo:1"));
        let layout = format!("oci:{}", alone.path("layout").display());
        let skopeo = |arguments: &[&str]| {
            let mut command = Command::new("skopeo");
            command.env("TMPDIR", alone.path("")).args(arguments);
            command
        };
        let (source, target) = (alone.creds("--src-creds"), alone.creds("--dest-creds"));
        done(skopeo(&["copy", "--src-tls-verify=false"]).args(source).args([&base, &layout]));
        done(skopeo(&["copy", "--dest-tls-verify=false"]).args(target).args([&layout, &copy]));
        let digest = done(
            skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
                .args(alone.creds("--creds"))
                .arg(&copy),
        );
        assert_eq!(digest, alone.digest("demo/skopeo", "1"));
        done(skopeo(&["delete", "--tls-verify=false"]).args(alone.creds("--creds")).arg(&copy));
        assert_eq!(alone.status("GET", "/v2/demo/skopeo/manifests/1"), 404);
    });
}

/// A tool of the containers family with its storage in a directory of its own.
fn contained(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("TMPDIR", dir).args(["--storage-driver", "vfs"]);
    command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
    command
}

#[test]
fn podman_pushes_and_pulls() {
    if !installed("podman") {
        return;
    }
    both(|alone| {
        let (base, copy) = (alone.name("demo/base:1"), alone.name("demo/podman:1"));
        let podman = |subcommand: &str| {
            let mut command = contained("podman", &alone.path(""));
            command.args(["--cgroup-manager", "cgroupfs", "--tmpdir"]).arg(alone.path("tmp")).arg(subcommand);
            command
        };
        done(podman("pull").arg("--tls-verify=false").args(alone.creds("--creds")).arg(&base));
        done(podman("tag").args([&base, &copy]));
        done(podman("push").arg("--tls-verify=false").args(alone.creds("--creds")).arg(&copy));
        done(podman("rmi").arg("--all").arg("--force"));
        done(podman("pull").arg("--tls-verify=false").args(alone.creds("--creds")).arg(&copy));
        let digest = done(podman("image").args(["inspect", "--format", "{{.Digest}}", &copy]));
        assert_eq!(digest, alone.digest("demo/podman", "1"));
        let (ours, theirs) = archives(alone);
        done(podman("rmi").arg("--all").arg("--force"));
        done(podman("load").args(["--input", &ours]));
        done(podman("save").args(["--output", &theirs, &base]));
        alone.image(&["load", &theirs, &alone.name("demo/podman:2")]);
        assert_eq!(config(alone, "demo/podman:2"), config(alone, "demo/base:1"));
    });
}

#[test]
fn buildah_pulls_changes_and_pushes() {
    if !installed("buildah") {
        return;
    }
    both(|alone| {
        let (base, copy) = (alone.name("demo/base:1"), alone.url("demo/buildah:1"));
        let buildah = |subcommand: &str| {
            let mut command = contained("buildah", &alone.path(""));
            command.arg(subcommand);
            command
        };
        let container = done(buildah("from").arg("--tls-verify=false").args(alone.creds("--creds")).arg(&base));
        done(buildah("config").args(["--label", "by=buildah", &container]));
        let image = done(buildah("commit").args(["--quiet", &container]));
        done(buildah("push").arg("--tls-verify=false").args(alone.creds("--creds")).args([&image, &copy]));
        done(buildah("rmi").args(["--all", "--force"]));
        done(buildah("pull").arg("--tls-verify=false").args(alone.creds("--creds")).arg(&copy));
        let label = done(
            buildah("inspect").args(["--format", "{{.OCIv1.Config.Labels.by}}"]).arg(alone.name("demo/buildah:1")),
        );
        assert_eq!(label, "buildah");
    });
}

#[test]
fn docker_pushes_pulls_and_runs() {
    if !["docker", "dockerd"].iter().all(|program| installed(program)) || !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}", dir.path().join("socket").display());
    let client = |config: &Path| {
        let mut command = Command::new("docker");
        command.arg("--config").arg(config).arg("-H").arg(&socket);
        command
    };
    let mut daemon = Command::new("dockerd");
    daemon.args(["--iptables=false", "--bridge=none", "--storage-driver=vfs", "-H", &socket]);
    for (option, name) in [("--pidfile", "pid"), ("--data-root", "data"), ("--exec-root", "exec")] {
        daemon.arg(option).arg(dir.path().join(name));
    }
    let mut daemon = Daemon::start(daemon, &dir.path().join("dockerd.log"));
    if !daemon.serves(|| client(dir.path()).arg("info").output().unwrap().status.success()) {
        eprintln!("skipped: dockerd does not run here: {}", daemon.said().lines().last().unwrap_or_default());
        return;
    }
    both(|alone| {
        let (base, copy) = (alone.name("demo/base:1"), alone.name("demo/docker:1"));
        let docker = |arguments: &[&str]| {
            let mut command = client(&alone.path("docker"));
            command.args(arguments);
            command
        };
        if let Some(token) = alone.token() {
            done(&mut docker(&["login", "--username", "admin", "--password", token, alone.host()]));
        }
        done(&mut docker(&["pull", &base]));
        done(&mut docker(&["tag", &base, &copy]));
        done(&mut docker(&["push", &copy]));
        done(&mut docker(&["rmi", "--force", &base, &copy]));
        done(&mut docker(&["pull", &copy]));
        let pulled = done(&mut docker(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", &copy]));
        assert_eq!(pulled.split_once('@').unwrap().1, alone.digest("demo/docker", "1"));
        assert_eq!(done(&mut docker(&["run", "--rm", "--network", "none", &copy, "echo", "it runs"])), "it runs");
        done(&mut docker(&["rmi", "--force", &copy]));
        let (ours, theirs) = archives(alone);
        done(&mut docker(&["load", "--input", &ours]));
        assert_eq!(done(&mut docker(&["run", "--rm", "--network", "none", &base, "echo", "loaded"])), "loaded");
        done(&mut docker(&["save", "--output", &theirs, &base]));
        done(&mut docker(&["rmi", "--force", &base]));
        alone.image(&["load", &theirs, &copy]);
        assert_eq!(config(alone, "demo/docker:1"), config(alone, "demo/base:1"));
        done(&mut docker(&["pull", &copy]));
        done(&mut docker(&["rmi", "--force", &copy]));
    });
}

/// The base image, saved for other programs, and where they save theirs.
fn archives(alone: &Alone) -> (String, String) {
    let [ours, theirs] = ["ours.tar", "theirs.tar"].map(|name| alone.path(name).display().to_string());
    alone.image(&["save", &alone.name("demo/base:1"), &ours]);
    (ours, theirs)
}

/// The digest of an image's configuration, by which other programs know it.
fn config(alone: &Alone, image: &str) -> String {
    let manifest = alone.image(&["inspect", "--raw", &alone.name(image)]);
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn crane_copies_lists_and_deletes() {
    let Some(program) = go::crane() else { return };
    both(|alone| {
        let (base, copy) = (alone.name("demo/base:1"), alone.name("demo/crane:1"));
        let crane = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command.env("DOCKER_CONFIG", alone.path("crane")).args(arguments).arg("--insecure");
            command
        };
        if let Some(token) = alone.token() {
            done(&mut crane(&["auth", "login", alone.host(), "-u", "admin", "-p", token]));
        }
        // A copy within one registry mounts.
        done(&mut crane(&["copy", &base, &copy]));
        assert_eq!(done(&mut crane(&["digest", &copy])), alone.digest("demo/base", "1"));
        let image = alone.path("image.tar").display().to_string();
        done(&mut crane(&["pull", &copy, &image]));
        done(&mut crane(&["push", &image, &alone.name("demo/crane:2")]));
        assert_eq!(done(&mut crane(&["ls", &alone.name("demo/crane")])), "1\n2");
        assert_eq!(done(&mut crane(&["catalog", alone.host()])), "demo/base\ndemo/crane");
        for tag in ["1", "2"] {
            done(&mut crane(&["delete", &alone.name(&format!("demo/crane:{tag}"))]));
            assert_eq!(alone.status("GET", &format!("/v2/demo/crane/manifests/{tag}")), 404);
        }
    });
}

#[test]
fn the_official_suites_pass() {
    let programs = official::programs();
    for options in [&["--anonymous", "pull,push"][..], &[]] {
        let alone = Alone::start(options);
        official::run(&programs, alone.host(), alone.token(), &alone.path(""));
    }
}
