//! The pull-through cache with real clients: each pulls an image that is not there yet, again while the upstreams are
//! down, and again when the tag has moved.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Daemon, installed};

use crate::alone::done;
use crate::mirror::{IMAGES, Mirror};
use crate::{contained, go};

fn skopeo(mirror: &Mirror, image: &str) -> Command {
    let (to, digest) = (mirror.path("copied"), mirror.path("digest"));
    let _ = std::fs::remove_dir_all(&to);
    let mut command = Command::new("skopeo");
    command.env("TMPDIR", mirror.path("")).args(["--insecure-policy", "--registries-conf"]).arg(mirror.registries());
    command.args(["copy", "--src-tls-verify=false", "--digestfile"]).arg(digest);
    command.arg(format!("docker://{image}")).arg(format!("dir:{}", to.display()));
    command
}

#[test]
fn skopeo_pulls_by_a_mirror() {
    let Some(mut mirror) = Mirror::start() else { return };
    mirror.pulled_by(|mirror| {
        let digests = IMAGES.map(|image| {
            done(&mut skopeo(mirror, image));
            std::fs::read_to_string(mirror.path("digest")).unwrap().trim().to_owned()
        });
        assert_eq!(digests[0], digests[1]);
        digests[0].clone()
    });
}

#[test]
fn podman_pulls_by_a_mirror() {
    if !installed("podman") {
        return;
    }
    let Some(mut mirror) = Mirror::start() else { return };
    mirror.pulled_by(|mirror| {
        let podman = |arguments: &[&str]| {
            let mut command = contained("podman", &mirror.path(""));
            command.env("CONTAINERS_REGISTRIES_CONF", mirror.registries());
            command.args(["--cgroup-manager", "cgroupfs", "--tmpdir"]).arg(mirror.path("tmp")).args(arguments);
            done(&mut command)
        };
        podman(&["rmi", "--all", "--force"]);
        let digests = IMAGES.map(|image| {
            podman(&["pull", "--quiet", image]);
            podman(&["image", "inspect", "--format", "{{.Digest}}", image])
        });
        assert_eq!(digests[0], digests[1]);
        digests[0].clone()
    });
}

#[test]
fn crane_pulls_by_the_prefix() {
    let Some(program) = go::crane() else { return };
    let Some(mut mirror) = Mirror::start() else { return };
    mirror.pulled_by(|mirror| {
        let digests = IMAGES.map(|image| {
            let name = mirror.cache.name(image);
            let crane = |arguments: &[&str]| {
                let mut command = Command::new(&program);
                done(command.env("DOCKER_CONFIG", mirror.path("crane")).args(arguments).arg("--insecure"))
            };
            crane(&["pull", &name, &mirror.path("image.tar").display().to_string()]);
            crane(&["digest", &name])
        });
        assert_eq!(digests[0], digests[1]);
        digests[0].clone()
    });
}

/// containerd with everything in a directory of its own, and the cache as the only mirror of both upstreams.
struct Containerd {
    dir: PathBuf,
    _daemon: Daemon,
}

impl Containerd {
    /// Starts it; nothing if it cannot run here, which is printed.
    fn start(mirror: &Mirror) -> Option<Self> {
        let dir = mirror.path("");
        let config = dir.join("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.aufs\"]\n[grpc]\n  address = \"{0}/socket\"\n[ttrpc]\n  address = \"{0}/ttrpc\"\n",
            dir.display()
        );
        std::fs::write(&config, text).unwrap();
        for image in IMAGES {
            // It asks the cache with `?ns=`, and would go on to the address of `server`.
            let dir = dir.join("certs.d").join(image.split('/').next().unwrap());
            std::fs::create_dir_all(&dir).unwrap();
            let text = format!(
                "server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
                mirror.cache.host()
            );
            std::fs::write(dir.join("hosts.toml"), text).unwrap();
        }
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config);
        let mut daemon = Daemon::start(command, &dir.join("containerd.log"));
        if !daemon.serves(|| ctr(&dir, &["version"]).output().unwrap().status.success()) {
            eprintln!("skipped: containerd does not run here: {}", daemon.said().lines().last().unwrap_or_default());
            return None;
        }
        Some(Self { dir, _daemon: daemon })
    }

    /// Pulls an image and answers its digest.
    fn pull(&self, image: &str) -> String {
        let hosts = self.dir.join("certs.d").display().to_string();
        done(&mut ctr(&self.dir, &["images", "pull", "--snapshotter", "native", "--hosts-dir", &hosts, image]));
        let list = done(&mut ctr(&self.dir, &["images", "ls", &format!("name=={image}")]));
        list.split_whitespace().find(|word| word.starts_with("sha256:")).expect(&list).to_owned()
    }

    /// Removes an image with all that no other has.
    fn forget(&self, image: &str) {
        done(&mut ctr(&self.dir, &["images", "rm", "--sync", image]));
    }
}

fn ctr(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(dir.join("socket")).args(arguments);
    command
}

fn containerd_can_run() -> bool {
    ["containerd", "ctr"].iter().all(|program| installed(program)) && rustix::process::geteuid().is_root()
}

#[test]
fn containerd_pulls_by_a_mirror() {
    if !containerd_can_run() {
        return;
    }
    let Some(mut mirror) = Mirror::start() else { return };
    let Some(containerd) = Containerd::start(&mirror) else { return };
    mirror.pulled_by(|_| {
        let digests = IMAGES.map(|image| {
            let digest = containerd.pull(image);
            // What it has of one image it does not ask for again under another name.
            containerd.forget(image);
            digest
        });
        assert_eq!(digests[0], digests[1]);
        digests[0].clone()
    });
}

#[test]
fn containerd_that_has_an_image_under_another_name_only_looks_at_its_tag() {
    if !containerd_can_run() {
        return;
    }
    let Some(mut mirror) = Mirror::start() else { return };
    let Some(containerd) = Containerd::start(&mirror) else { return };
    mirror.pulled_by(|_| {
        // Of the second one the cache never has more than what the upstream said of its tag.
        let digests = IMAGES.map(|image| containerd.pull(image));
        assert_eq!(digests[0], digests[1]);
        digests[0].clone()
    });
}

#[test]
fn docker_pulls_by_a_mirror() {
    if !["docker", "dockerd"].iter().all(|program| installed(program)) || !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(mut mirror) = Mirror::start() else { return };
    let dir = mirror.path("dockerd");
    std::fs::create_dir_all(&dir).unwrap();
    let socket = format!("unix://{}", dir.join("socket").display());
    let docker = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.arg("--config").arg(&dir).args(["-H", &socket]).args(arguments);
        command
    };
    let mut daemon = Command::new("dockerd");
    daemon.args(["--iptables=false", "--bridge=none", "--storage-driver=vfs", "-H", &socket]);
    daemon.args(["--registry-mirror", &format!("http://{}", mirror.listener())]);
    for (option, name) in [("--pidfile", "pid"), ("--data-root", "data"), ("--exec-root", "exec")] {
        daemon.arg(option).arg(dir.join(name));
    }
    let mut daemon = Daemon::start(daemon, &mirror.path("dockerd.log"));
    if !daemon.serves(|| docker(&["info"]).output().unwrap().status.success()) {
        eprintln!("skipped: dockerd does not run here: {}", daemon.said().lines().last().unwrap_or_default());
        return;
    }
    mirror.pulled_by(|_| {
        let _ = docker(&["rmi", "--force", "web:1"]).output();
        done(&mut docker(&["pull", "--quiet", "web:1"]));
        let pulled = done(&mut docker(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", "web:1"]));
        pulled.split_once('@').unwrap().1.to_owned()
    });
}

/// Answers every request at `address` with 429 until the test ends.
fn refuse_all(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|stream| refuse(&stream));
        }
    });
}

fn refuse(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    stream.write_all(
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 120\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
}

#[test]
fn an_upstream_that_allows_no_more_pulls_stops_only_what_is_not_here() {
    let Some(mut mirror) = Mirror::start() else { return };
    let first = mirror.digest();
    done(&mut skopeo(&mirror, IMAGES[0]));
    mirror.stop_upstreams();
    refuse_all(&mirror.upstream());
    done(&mut skopeo(&mirror, IMAGES[0]));
    assert_eq!(std::fs::read_to_string(mirror.path("digest")).unwrap().trim(), first);
    let cold = mirror.cache.ask("GET", "/v2/docker.io/library/other/manifests/1", "application/octet-stream", b"");
    assert_eq!(cold.status(), 429);
    let again: u64 = cold.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=120).contains(&again), "{again}");
}
