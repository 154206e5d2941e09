//! Replication by the program: what is queued arrives, though the program is killed again and again in between.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::{Program, free_port, program};
use model::{Algorithm, Digest};
use oci::client::{Auth, BlobPush, BlobSource, Client, ClientOptions, Remote};
use oci::media_type::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use oci::{Descriptor, Manifest, Reference, digest_of};
use serde_json::Value;

/// `towpath registry serve`, killed without warning when it is dropped.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn start(dir: &Path, host: &str, options: &[&str]) -> Self {
        let log = dir.join("log");
        let out = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(program(Program::Debug));
        command.args(["registry", "serve", "--listen", host, "--data"]).arg(dir.join("data")).args(options);
        command.env_remove("TOWPATH_DATA").stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let mut server = Self { child: command.spawn().unwrap(), log };
        let begun = Instant::now();
        while std::net::TcpStream::connect(host).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(60), "{}", server.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The administrator's token, which it says once it serves.
    fn token(&self) -> String {
        let begun = Instant::now();
        loop {
            let said = self.said();
            let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(token) = whole.lines().find(|line| line.starts_with("twp_")) {
                return token.to_owned();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn remote(host: &str, name: &str, token: &str) -> Remote {
    let options = ClientOptions { plain_http: vec![host.to_owned()], ..ClientOptions::default() };
    let auth = Auth::Basic { user: "admin".to_owned(), password: token.to_owned().into() };
    Client::new(options).unwrap().repository(host.parse().unwrap(), name.parse().unwrap(), auth)
}

/// Pushes an image with a layer of its own of a megabyte.
async fn push(remote: &Remote, tag: &str) -> Digest {
    let push = async |content: Bytes| {
        let (digest, size) = (digest_of(Algorithm::Sha256, &content), content.len() as u64);
        remote.push_blob(&BlobPush::new(digest, size, BlobSource::bytes(content))).await.unwrap();
        (digest, size)
    };
    let config = push(format!("{{\"made\":\"{tag}\"}}").into()).await;
    let layer = push(tag.repeat((1 << 20) / tag.len()).into()).await;
    let (config, layer) =
        (Descriptor::new(OCI_CONFIG, config.0, config.1), Descriptor::new(OCI_LAYER, layer.0, layer.1));
    let bytes = serde_json::to_vec(&Manifest::image(config, vec![layer])).unwrap();
    remote.push_manifest(&tag.parse().unwrap(), OCI_MANIFEST, bytes.into()).await.unwrap()
}

fn towpath(host: &str, token: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program(Program::Debug));
    command.args(arguments).args(["--server", &format!("http://{host}")]).env("TOWPATH_TOKEN", token);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_though_the_program_is_killed_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let ((here, _one), (there, _two)) = (free_port(), free_port());
    let (here, there) = (format!("127.0.0.1:{here}"), format!("127.0.0.1:{there}"));
    for name in ["here", "there"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let destination = Server::start(&dir.path().join("there"), &there, &[]);
    let password = dir.path().join("password");
    std::fs::write(&password, destination.token()).unwrap();
    let config = dir.path().join("towpath.yaml");
    let text = format!(
        "apiVersion: towpath.dev/v1alpha1
kind: Towpath
spec:
  registry:
    replication:
      - name: offsite
        url: http://{there}
        insecurePlainHttp: true
        prefix: admin/mirror
        strip: admin
        images: ['admin/**']
        credentials: {{user: admin, password: 'file:{}'}}
",
        password.display()
    );
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let start = || Server::start(&dir.path().join("here"), &here, &["--config", &config]);
    let mut server = start();
    let token = server.token();
    let mut pushed = Vec::new();
    for round in 0..4 {
        for image in 0..4 {
            let (name, tag) = (format!("app{image}"), format!("v{round}"));
            let digest = push(&remote(&here, &format!("admin/{name}"), &token), &tag).await;
            pushed.push((name, tag, digest));
        }
        drop(server);
        server = start();
    }
    let state = || -> Value {
        serde_json::from_str(&towpath(&here, &token, &["registry", "replication", "-o", "json"])).unwrap()
    };
    let begun = Instant::now();
    while state()["rules"][0]["queued"] != 0 {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}\n{}", state(), server.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    for (name, tag, digest) in &pushed {
        let reference: Reference = tag.parse().unwrap();
        let mirror = remote(&there, &format!("admin/mirror/{name}"), &destination.token());
        let found = mirror.head_manifest(&reference, &[OCI_MANIFEST]).await.unwrap();
        assert_eq!(found.map(|it| it.digest), Some(*digest), "{name}:{tag}");
    }
    // A push that nothing is in the way of.
    let begun = Instant::now();
    let digest = push(&remote(&here, "admin/app0", &token), "last").await;
    let mirror = remote(&there, "admin/mirror/app0", &destination.token());
    while mirror.head_manifest(&"last".parse().unwrap(), &[OCI_MANIFEST]).await.unwrap().map(|it| it.digest)
        != Some(digest)
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", server.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("a push was there after {:?}", begun.elapsed());
    let shown = towpath(&here, &token, &["registry", "replication"]);
    assert!(shown.starts_with("RULE") && shown.contains(&format!("offsite  {there}/admin/mirror")), "{shown}");
    assert!(!server.said().contains("ERROR"), "{}", server.said());
}
