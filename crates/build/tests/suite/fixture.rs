//! A builder with everything it needs, and a base image made of busybox.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use build::{
    BaseImageError, BaseImages, BoxFuture, BuildError, BuildRequest, Builder, BuilderConfig, BuiltImage, Context,
    ResolvedImage,
};
use git::{Git, Repository};
use model::{Algorithm, CommitId, Digest, ImageRef, Timestamp};
use oci::compress::GzipWriter;
use oci::merged::Merged;
use oci::tar::{Entry, EntryKind, LayerWriter, Meta, TarReader};
use oci::{Descriptor, IdMap, ImageConfig, LayerStore, Manifest, Platform, RuntimeConfig};
use sandbox::Tier;
use store::{BlobLease, Blobs};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

pub const EPOCH: Timestamp = Timestamp(1_700_000_000_000);

pub struct Fixture {
    pub dir: TempDir,
    pub blobs: Blobs,
    pub layers: LayerStore,
    pub builder: Builder,
    pub repository: Repository,
    pub images: Images,
    pub lease: BlobLease,
    log: Mutex<Vec<String>>,
}

/// The images that a test knows, by the text that names them.
pub struct Images {
    known: Mutex<BTreeMap<String, ResolvedImage>>,
    blobs: Blobs,
}

impl BaseImages for Images {
    fn resolve<'a>(
        &'a self,
        image: &'a ImageRef,
        _: &'a Platform,
    ) -> BoxFuture<'a, Result<ResolvedImage, BaseImageError>> {
        Box::pin(async move {
            let known = self.known.lock().unwrap();
            known.get(&image.to_string()).cloned().ok_or_else(|| BaseImageError::NotFound(image.to_string()))
        })
    }

    fn fetch<'a>(
        &'a self,
        image: &'a ResolvedImage,
        layer: &'a Descriptor,
        _: &'a BlobLease,
    ) -> BoxFuture<'a, Result<(), BaseImageError>> {
        Box::pin(async move {
            match self.blobs.stat(&layer.digest).await {
                Ok(Some(_)) => Ok(()),
                _ => Err(BaseImageError::NotFound(image.reference.to_string())),
            }
        })
    }
}

pub fn ids() -> IdMap {
    match sandbox::probe().tier {
        Tier::Root => IdMap::shifted(sandbox::id_map().outside),
        _ => IdMap::single(),
    }
}

impl Fixture {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs")).await.unwrap();
        let layers = LayerStore::open(&dir.path().join("layers"), ids()).unwrap();
        let repository =
            Repository::init(&Git::discover().unwrap(), &dir.path().join("repository.git"), "main").await.unwrap();
        let builder = builder(dir.path(), &blobs, &layers);
        let lease = blobs.lease("test");
        let images = Images { known: Mutex::default(), blobs: blobs.clone() };
        Self { dir, blobs, layers, builder, repository, images, lease, log: Mutex::default() }
    }

    /// The same with an image `busybox`; nothing if there is no busybox here, or nothing can be run in a sandbox.
    pub async fn with_busybox() -> Option<Self> {
        let Some(busybox) =
            ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| is_static(path))
        else {
            testkit::skipped("a static busybox (package busybox-static)");
            return None;
        };
        if let Tier::None { reason } = &sandbox::probe().tier {
            testkit::skipped(&format!("a sandbox: {reason}"));
            return None;
        }
        let fixture = Self::new().await;
        fixture.add_busybox(busybox).await;
        Some(fixture)
    }

    async fn add_busybox(&self, busybox: &Path) {
        let mut writer = LayerWriter::new(GzipWriter::new(Vec::new()));
        let meta = |mode| Meta::root(mode, EPOCH);
        writer.directory(b"bin", &meta(0o755)).unwrap();
        let size = busybox.metadata().unwrap().len();
        writer.file(b"bin/busybox", &meta(0o755), size, &mut File::open(busybox).unwrap()).unwrap();
        for name in [
            "cat", "chmod", "chown", "cp", "echo", "env", "id", "ls", "mkdir", "mv", "nslookup", "pwd", "rm", "seq",
            "sh", "sleep", "stat", "test", "touch", "wget",
        ] {
            writer.symlink(format!("bin/{name}").as_bytes(), b"busybox", &meta(0o777)).unwrap();
        }
        writer.directory(b"etc", &meta(0o755)).unwrap();
        let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n";
        writer.file(b"etc/passwd", &meta(0o644), passwd.len() as u64, &mut &passwd[..]).unwrap();
        let group = b"root:x:0:\napp:x:1001:\nstaff:x:50:app\n";
        writer.file(b"etc/group", &meta(0o644), group.len() as u64, &mut &group[..]).unwrap();
        writer.directory(b"opt", &meta(0o755)).unwrap();
        writer.file(b"opt/old", &meta(0o644), 4, &mut &b"old\n"[..]).unwrap();
        writer.directory(b"tmp", &meta(0o1777)).unwrap();
        writer.symlink(b"www", b"srv/www", &meta(0o777)).unwrap();
        writer.directory(b"srv", &meta(0o755)).unwrap();
        writer.directory(b"srv/www", &meta(0o755)).unwrap();
        let gzipped = writer.finish().unwrap().finish().unwrap();
        let config =
            RuntimeConfig { env: vec!["PATH=/bin".to_owned()], cmd: Some(vec!["sh".to_owned()]), ..Default::default() };
        self.add_image("busybox", gzipped.inner, gzipped.diff_id, config).await;
    }

    /// Makes an image of one layer known under `name`.
    pub async fn add_image(&self, name: &str, layer: Vec<u8>, diff_id: Digest, config: RuntimeConfig) {
        let stored = self.blobs.put(&self.lease, layer.into()).await.unwrap();
        let layer = Descriptor::new(oci::media_type::OCI_LAYER_GZIP, stored.digest(), stored.size());
        let mut config = ImageConfig {
            architecture: Platform::here().architecture,
            os: "linux".into(),
            config,
            ..Default::default()
        };
        config.rootfs.diff_ids = vec![diff_id];
        config.history = vec![oci::History { created_by: Some(format!("made for {name}")), ..Default::default() }];
        let bytes = serde_json::to_vec(&config).unwrap();
        let stored = self.blobs.put(&self.lease, bytes.into()).await.unwrap();
        let described = Descriptor::new(oci::media_type::OCI_CONFIG, stored.digest(), stored.size());
        let manifest = Manifest::image(described, vec![layer]);
        let digest = oci::digest_of(Algorithm::Sha256, &serde_json::to_vec(&manifest).unwrap());
        let reference: ImageRef = name.parse().unwrap();
        let image = ResolvedImage { reference, digest, manifest, config };
        self.images.known.lock().unwrap().insert(name.to_owned(), image);
    }

    /// Makes what was built known under `name`.
    pub fn publish(&self, name: &str, built: &Built<'_>) {
        let manifest: Manifest = serde_json::from_slice(&built.image.manifest).unwrap();
        let image = ResolvedImage {
            reference: name.parse().unwrap(),
            digest: built.image.digest,
            manifest,
            config: built.config.clone(),
        };
        self.images.known.lock().unwrap().insert(name.to_owned(), image);
    }

    /// A builder on the same directories, as after a restart.
    pub fn restarted(&mut self) {
        self.builder = builder(self.dir.path(), &self.blobs, &self.layers);
    }

    /// A commit with these files and nothing else. A path may begin with a mode: `100755 bin/x`, `120000 link`.
    pub async fn commit(&self, files: &[(&str, &str)]) -> CommitId {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(path, content)| (*path, content.as_bytes())).collect();
        self.commit_bytes(&files).await
    }

    pub async fn commit_bytes(&self, files: &[(&str, &[u8])]) -> CommitId {
        let mut command = self.repository.command();
        command.args(["fast-import", "--quiet", "--force"]).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let seconds = EPOCH.seconds();
        let mut head =
            format!("commit refs/heads/main\ncommitter T <t@localhost> {seconds} +0000\ndata 0\ndeleteall\n")
                .into_bytes();
        for (path, content) in files {
            let modes = ["100755", "120000"];
            let (mode, path) =
                path.split_once(' ').filter(|(mode, _)| modes.contains(mode)).unwrap_or(("100644", path));
            head.extend_from_slice(format!("M {mode} inline {path}\ndata {}\n", content.len()).as_bytes());
            head.extend_from_slice(content);
            head.push(b'\n');
            if head.len() > 1 << 20 {
                stdin.write_all(&head).await.unwrap();
                head.clear();
            }
        }
        stdin.write_all(&head).await.unwrap();
        drop(stdin);
        assert!(child.wait().await.unwrap().success());
        self.repository.resolve("refs/heads/main").await.unwrap().unwrap()
    }

    /// A request to build a commit with these files.
    pub async fn request(&self, files: &[(&str, &str)]) -> BuildRequest {
        let commit = self.commit(files).await;
        BuildRequest::new(Context::Commit { repository: self.repository.clone(), commit, path: String::new() }, EPOCH)
    }

    pub async fn build(&self, request: &BuildRequest) -> Result<Built<'_>, BuildError> {
        self.log.lock().unwrap().clear();
        let mut log = |line: &str| self.log.lock().unwrap().push(line.to_owned());
        let cancel = CancellationToken::new();
        let image = self.builder.build(request, &self.images, &self.lease, &mut log, &cancel).await?;
        let config = self.blobs.bytes(&image.config_digest, 1 << 20).await.unwrap().unwrap();
        let config = serde_json::from_slice(&config).unwrap();
        Ok(Built { fixture: self, image, config, log: self.log() })
    }

    /// Builds a commit with these files, which must go well.
    pub async fn built(&self, files: &[(&str, &str)]) -> Built<'_> {
        let request = self.request(files).await;
        match self.build(&request).await {
            Ok(built) => built,
            Err(error) => panic!("{:#?}\n{}", error.cause(), self.log().join("\n")),
        }
    }

    /// The message, place, hint and output of a build that must fail.
    pub async fn fails(&self, files: &[(&str, &str)]) -> String {
        let request = self.request(files).await;
        self.fails_as(&request).await
    }

    pub async fn fails_as(&self, request: &BuildRequest) -> String {
        let Err(error) = self.build(request).await else { panic!("it was built: {request:?}") };
        let cause = error.cause();
        let mut shown = cause.message;
        for part in [cause.place, cause.hint.map(|hint| format!("hint: {hint}"))].into_iter().flatten() {
            shown.push('\n');
            shown.push_str(&part);
        }
        for line in cause.last_lines {
            shown.push_str("\n> ");
            shown.push_str(&line);
        }
        shown
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Nothing that a build was writing is left.
    pub fn assert_tidy(&self) {
        let left: Vec<PathBuf> =
            self.dir.path().join("build/tmp").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn builder(dir: &Path, blobs: &Blobs, layers: &LayerStore) -> Builder {
    let config = BuilderConfig {
        dir: dir.join("build"),
        blobs: blobs.clone(),
        layers: layers.clone(),
        limits: sandbox::Limits::default(),
    };
    Builder::new(config).unwrap()
}

/// Whether a program needs no other file to run: it names no interpreter.
fn is_static(path: &Path) -> bool {
    std::fs::read(path)
        .is_ok_and(|bytes| !bytes.windows(12).any(|part| part == b"/ld-linux-x8" || part == b"/ld-linux-aa"))
}

/// An image that was built.
pub struct Built<'f> {
    fixture: &'f Fixture,
    pub image: BuiltImage,
    pub config: ImageConfig,
    pub log: Vec<String>,
}

impl Built<'_> {
    /// The entries of layer `index`, counted from the last if it is negative.
    pub fn entries(&self, index: isize) -> Vec<Entry> {
        let count = isize::try_from(self.image.layers.len()).unwrap();
        let index = if index < 0 { count + index } else { index };
        let layer = &self.image.layers[usize::try_from(index).unwrap()];
        let file = File::open(self.fixture.blobs.local_path(&layer.digest).unwrap()).unwrap();
        let decoder = oci::decompress::Decoder::new(std::io::BufReader::new(file)).unwrap();
        let mut reader = TarReader::new(decoder);
        std::iter::from_fn(|| reader.next_entry().unwrap()).collect()
    }

    /// The same as lines: path, mode, owner and time relative to the epoch.
    pub fn lines(&self, index: isize) -> Vec<String> {
        let line = |entry: Entry| {
            let path = String::from_utf8(entry.path).unwrap();
            let link = match entry.kind {
                EntryKind::Symlink | EntryKind::HardLink => format!(" -> {}", String::from_utf8(entry.link).unwrap()),
                _ => String::new(),
            };
            format!("{path}{link} {:o} {}:{}", entry.mode, entry.uid, entry.gid)
        };
        self.entries(index).into_iter().map(line).collect()
    }

    /// The paths of layer `index`.
    pub fn paths(&self, index: isize) -> Vec<String> {
        self.entries(index).into_iter().map(|entry| String::from_utf8(entry.path).unwrap()).collect()
    }

    /// Writes the image as an OCI layout, for other programs.
    pub fn layout(&self, dir: &Path) {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let manifest = Descriptor::new(self.image.media_type, self.image.digest, self.image.manifest.len() as u64);
        for digest in self.image.layers.iter().map(|layer| layer.digest).chain([self.image.config_digest]) {
            std::fs::copy(self.fixture.blobs.local_path(&digest).unwrap(), blobs.join(digest.hex())).unwrap();
        }
        std::fs::write(blobs.join(self.image.digest.hex()), &self.image.manifest).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = serde_json::to_vec(&oci::Index::new(vec![manifest])).unwrap();
        std::fs::write(dir.join("index.json"), index).unwrap();
    }

    /// The files of the image.
    pub fn merged(&self) -> Merged {
        let unpack = |layer: &Descriptor| {
            let path = self.fixture.blobs.local_path(&layer.digest).unwrap();
            let open = || Ok(Box::new(File::open(path)?) as Box<dyn Read>);
            self.fixture.layers.ensure(layer, None, open).unwrap()
        };
        Merged::new(self.image.layers.iter().rev().map(unpack).collect())
    }

    /// The text of a file of the image.
    pub fn text(&self, path: &str) -> Option<String> {
        self.merged().read(Path::new(path), 1 << 20).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    /// Whether `line` was said.
    pub fn said(&self, line: &str) -> bool {
        self.log.iter().any(|said| said.contains(line))
    }
}
