//! Moving images: between registries, layouts and archives, and a whole namespace at once.

#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::{Daemon, Program, free_port, installed, program};
use model::{Algorithm, Digest, Timestamp};
use oci::client::{Auth, BlobPush, BlobSource, Client, ClientOptions, Remote};
use oci::compress::GzipWriter;
use oci::media_type::{OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use oci::tar::{LayerWriter, Meta};
use oci::{Descriptor, ImageConfig, Index, Manifest, Platform, Reference, RootFs, digest_of};
use serde_json::Value;
use tempfile::TempDir;

/// `docker-registry` and Towpath's own registry, side by side.
struct Two {
    dir: TempDir,
    old: String,
    new: String,
    _daemons: [Daemon; 2],
}

impl Two {
    fn start() -> Option<Self> {
        if !installed("docker-registry") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:0', secret: x}}\n",
            dir.path().join("old").display()
        );
        std::fs::write(dir.path().join("old.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.path().join("old.yml"));
        let log = dir.path().join("old.log");
        let mut docker = Daemon::start(command, &log);
        let address = || -> Option<String> {
            let said = std::fs::read_to_string(&log).ok()?;
            Some(said.split_once("listening on ")?.1.split_once('"')?.0.to_owned())
        };
        assert!(docker.serves(|| address().is_some()), "{}", docker.said());
        let (port, _lock) = free_port();
        let new = format!("127.0.0.1:{port}");
        let mut command = Command::new(program(Program::Debug));
        command.args(["registry", "serve", "--anonymous", "pull,push", "--listen", &new, "--data"]);
        command.arg(dir.path().join("new"));
        let mut own = Daemon::start(command, &dir.path().join("new.log"));
        assert!(own.serves(|| std::net::TcpStream::connect(&new).is_ok()), "{}", own.said());
        Some(Self { old: address().unwrap(), new, dir, _daemons: [docker, own] })
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(Program::Debug));
        command.args(arguments).args(["--plain-http", &self.old, "--plain-http", &self.new]);
        command.current_dir(self.dir.path()).env("REGISTRY_AUTH_FILE", self.dir.path().join("auth.json"));
        command.stdin(Stdio::null());
        command
    }

    fn towpath(&self, arguments: &[&str]) -> String {
        said(&self.command(arguments).output().unwrap(), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.towpath(&[&["-o", "json"], arguments].concat())).unwrap()
    }

    fn remote(&self, host: &str, name: &str) -> Remote {
        let options = ClientOptions { plain_http: vec![host.to_owned()], ..ClientOptions::default() };
        let client = Client::new(options).unwrap();
        client.repository(host.parse().unwrap(), name.parse().unwrap(), Auth::Anonymous)
    }
}

fn said(output: &Output, arguments: &[&str]) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn skopeo(dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "--tmpdir"]).arg(dir).args(arguments);
    command.env("HOME", dir).env("XDG_RUNTIME_DIR", dir).env("REGISTRY_AUTH_FILE", dir.join("auth.json"));
    said(&command.output().unwrap(), arguments)
}

fn sha256(bytes: &[u8]) -> Digest {
    digest_of(Algorithm::Sha256, bytes)
}

async fn blob(remote: &Remote, media_type: &str, bytes: Vec<u8>) -> Descriptor {
    let descriptor = Descriptor::new(media_type, sha256(&bytes), bytes.len() as u64);
    let push = BlobPush::new(descriptor.digest, descriptor.size, BlobSource::bytes(bytes.into()));
    remote.push_blob(&push).await.unwrap();
    descriptor
}

/// An image with a layer for each of `contents`; its manifest is pushed by digest.
async fn image(remote: &Remote, platform: &str, contents: &[&[u8]]) -> (Descriptor, Manifest) {
    let platform: Platform = platform.parse().unwrap();
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for (at, content) in contents.iter().enumerate() {
        let mut gzip = GzipWriter::new(Vec::new());
        let mut tar = LayerWriter::new(&mut gzip);
        let meta = Meta::root(0o644, Timestamp(0));
        tar.file(format!("file-{at}").as_bytes(), &meta, content.len() as u64, &mut &content[..]).unwrap();
        tar.finish().unwrap();
        let done = gzip.finish().unwrap();
        diff_ids.push(done.diff_id);
        layers.push(blob(remote, OCI_LAYER_GZIP, done.inner).await);
    }
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        rootfs: RootFs { diff_ids, ..RootFs::default() },
        ..ImageConfig::default()
    };
    let config = blob(remote, OCI_CONFIG, serde_json::to_vec(&config).unwrap()).await;
    let manifest = Manifest::image(config, layers);
    let mut descriptor = manifest_at(remote, None, OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap()).await;
    descriptor.platform = Some(platform);
    (descriptor, manifest)
}

async fn manifest_at(remote: &Remote, tag: Option<&str>, media_type: &str, bytes: &[u8]) -> Descriptor {
    let digest = sha256(bytes);
    let reference = tag.map_or(Reference::Digest(digest), |tag| tag.parse().unwrap());
    remote.push_manifest(&reference, media_type, Bytes::copy_from_slice(bytes)).await.unwrap();
    Descriptor::new(media_type, digest, bytes.len() as u64)
}

/// An index of two platforms under `tag`, with a signature of the index and one of its first image.
async fn index(remote: &Remote, tag: &str) -> Digest {
    let mut children = Vec::new();
    for platform in ["linux/amd64", "linux/arm64"] {
        children.push(image(remote, platform, &[b"shared", platform.as_bytes()]).await.0);
    }
    let first = children[0].clone();
    let text = serde_json::to_vec(&Index::new(children)).unwrap();
    let index = manifest_at(remote, Some(tag), OCI_INDEX, &text).await;
    let empty = blob(remote, OCI_EMPTY, b"{}".to_vec()).await;
    for subject in [index.clone(), first] {
        let signature = Manifest {
            artifact_type: Some("application/x-signature".to_owned()),
            subject: Some(Descriptor::new(subject.media_type, subject.digest, subject.size)),
            ..Manifest::image(empty.clone(), vec![empty.clone()])
        };
        manifest_at(remote, None, OCI_MANIFEST, &serde_json::to_vec(&signature).unwrap()).await;
    }
    index.digest
}

/// Fills `acme/…` at the old registry; the tags by repository.
async fn fill(two: &Two) -> Vec<(String, String)> {
    let mut tags = Vec::new();
    for (name, count) in [("acme/app", 20), ("acme/tools/db", 3)] {
        let remote = two.remote(&two.old, name);
        for n in 0..count {
            let own = format!("{name} {n} ").repeat(20_000);
            let (_, manifest) = image(&remote, "linux/amd64", &[b"shared", own.as_bytes()]).await;
            let tag = format!("v{n}");
            manifest_at(&remote, Some(&tag), OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap()).await;
            tags.push((name.to_owned(), tag));
        }
        index(&remote, "multi").await;
        tags.push((name.to_owned(), "multi".to_owned()));
    }
    image(&two.remote(&two.old, "other/x"), "linux/amd64", &[b"x"]).await;
    tags
}

/// Everything below a digest is at the new registry, byte for byte.
async fn same(old: &Remote, new: &Remote, digest: Digest) {
    let mut ahead = vec![digest];
    while let Some(digest) = ahead.pop() {
        let reference = Reference::Digest(digest);
        let (left, right) = (
            old.manifest(&reference, Remote::ACCEPT).await.unwrap(),
            new.manifest(&reference, Remote::ACCEPT).await.unwrap(),
        );
        assert_eq!(left, right);
        let kind = left.parse().unwrap();
        for blob in kind.blobs() {
            assert_eq!(new.small_blob(&blob.digest, 100 << 20).await.unwrap().len() as u64, blob.size);
        }
        ahead.extend(kind.children().iter().map(|child| child.digest));
        let of = |found: Vec<Descriptor>| {
            let mut all: Vec<Digest> = found.iter().map(|entry| entry.digest).collect();
            all.sort();
            all
        };
        let referrers = of(old.referrers(&digest, None).await.unwrap());
        assert_eq!(of(new.referrers(&digest, None).await.unwrap()), referrers);
        ahead.extend(referrers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_moves_in_although_the_move_is_killed() {
    let Some(two) = Two::start() else { return };
    let tags = fill(&two).await;
    let (from, to) = (format!("{}/acme", two.old), format!("{}/home", two.new));
    let arguments = ["migrate", "images", &from, &to, "--parallel", "1"];
    let mut first = two.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let state = two.dir.path().join("towpath-migrate.state");
    let until = Instant::now() + Duration::from_secs(120);
    // The first line says what the state is of.
    while std::fs::read_to_string(&state).unwrap_or_default().lines().count() < 3 {
        if first.try_wait().unwrap().is_some() || Instant::now() > until {
            let mut said = String::new();
            first.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("nothing was copied: {said}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let summary = two.json(&arguments);
    assert_eq!(summary["tags"]["failed"], 0, "{summary}");
    assert!(summary["tags"]["unchanged"].as_u64().unwrap() >= 2, "{summary}");
    assert_eq!(summary["repositories"], 2);
    for (name, tag) in &tags {
        let (old, new) = (two.remote(&two.old, name), two.remote(&two.new, &name.replacen("acme", "home", 1)));
        let reference: Reference = tag.parse().unwrap();
        let wanted = old.head_manifest(&reference, Remote::ACCEPT).await.unwrap().unwrap().digest;
        let found = new.head_manifest(&reference, Remote::ACCEPT).await.unwrap().unwrap().digest;
        assert_eq!(found, wanted, "{name}:{tag}");
        same(&old, &new, wanted).await;
    }
    assert!(two.remote(&two.new, "home/x").all_tags(10).await.is_err());
    // What has not moved is not copied again; what has, is.
    let old = two.remote(&two.old, "acme/app");
    let (_, manifest) = image(&old, "linux/amd64", &[b"shared", b"newer"]).await;
    manifest_at(&old, Some("v1"), OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap()).await;
    let summary = two.json(&arguments);
    assert_eq!((&summary["tags"]["copied"], &summary["tags"]["unchanged"]), (&1.into(), &(tags.len() - 1).into()));
    // By a list, where there is no catalog; and the state is of one move alone.
    let other = format!("{}/listed", two.new);
    let listed = ["migrate", "images", &from, &other, "--repositories", "tools/db", "--state", "other.state"];
    assert_eq!(two.json(&listed)["tags"]["copied"], 4);
    let wrong = two.command(&["migrate", "images", &from, &other]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_through_layouts_and_archives_and_come_back() {
    let Some(two) = Two::start() else { return };
    if !installed("skopeo") {
        return;
    }
    let dir = two.dir.path();
    let old = two.remote(&two.old, "acme/site");
    let digest = index(&old, "v1").await;
    let at = |host: &str, rest: &str| format!("{host}/{rest}");
    let site = at(&two.old, "acme/site:v1");
    // Everything, into a layout that skopeo reads, and back from it.
    let layout = two.path("layout");
    two.towpath(&["image", "copy", "--all", "--referrers", &site, &format!("oci:{layout}:v1")]);
    let raw = skopeo(dir, &["inspect", "--raw", &format!("oci:{layout}:v1")]);
    assert_eq!(sha256(raw.as_bytes()), digest);
    let back = at(&two.new, "home/site:v1");
    let done = two.json(&["image", "copy", "--all", "--referrers", &format!("oci:{layout}:v1"), &back]);
    assert_eq!(done["digest"], digest.to_string());
    let new = two.remote(&two.new, "home/site");
    same(&old, &new, digest).await;
    assert_eq!(two.json(&["image", "referrers", &back]).as_array().unwrap().len(), 1);
    // Within one registry nothing is sent.
    let done = two.json(&["image", "copy", "--all", &back, &at(&two.new, "home/twin:v1")]);
    assert_eq!((&done["copied"]["blobsSent"], &done["copied"]["bytes"]), (&0.into(), &0.into()), "{done}");
    // An archive for docker, read by skopeo; an archive by skopeo, read by us.
    let (ours, theirs) = (two.path("ours.tar"), two.path("theirs.tar"));
    two.towpath(&["image", "save", &site, &ours, "--platform", "linux/amd64"]);
    skopeo(dir, &["copy", &format!("docker-archive:{ours}"), &format!("oci:{}:x", two.path("read"))]);
    skopeo(
        dir,
        &["copy", "--override-arch", "amd64", &format!("oci:{layout}:v1"), &format!("docker-archive:{theirs}:site:v1")],
    );
    for (file, name) in [(&ours, "home/ours"), (&theirs, "home/theirs")] {
        let to = at(&two.new, &format!("{name}:v1"));
        two.towpath(&["image", "load", file, &to]);
        let shown = two.json(&["image", "inspect", &to]);
        assert_eq!(shown["platform"], "linux/amd64", "{shown}");
        assert_eq!(shown["layers"].as_array().unwrap().len(), 2);
        skopeo(
            dir,
            &["copy", "--src-tls-verify=false", &format!("docker://{to}"), &format!("dir:{}", two.path("pulled"))],
        );
    }
    let archive = format!("oci-archive:{}:v1", two.path("all.tar"));
    two.towpath(&["image", "copy", "--all", &site, &archive]);
    assert_eq!(two.json(&["image", "inspect", &archive])["digest"], digest.to_string());
    assert!(two.towpath(&["image", "ls", &two.new]).contains("home/theirs"));
    assert_eq!(two.json(&["image", "ls", &at(&two.new, "home/site")])["tags"], serde_json::json!(["v1"]));
    two.towpath(&["image", "rm", &at(&two.new, "home/ours:v1")]);
    let gone = two.command(&["image", "inspect", &at(&two.new, "home/ours:v1")]).output().unwrap();
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn what_cannot_be_reached_or_read_has_its_exit_code() {
    let run = |arguments: &[&str]| {
        let output =
            Command::new(program(Program::Debug)).args(arguments).env("HOME", "/nonexistent").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let nobody = format!("127.0.0.1:{}", free_port().0);
    let (code, said) = run(&["image", "inspect", "--plain-http", &nobody, &format!("{nobody}/x")]);
    assert_eq!(code, Some(5), "{said}");
    let secret = ["image", "inspect", "ghcr.io/x/y", "--user", "ada", "--password", "hunter2"];
    let (code, said) = run(&secret);
    assert!(code == Some(2) && !said.contains("hunter2"), "{said}");
    assert_eq!(run(&["image", "copy", "oci::", "oci:x"]).0, Some(2));
}
