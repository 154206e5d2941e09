//! Push and pull by skopeo.

use std::path::Path;
use std::process::Stdio;

use model::Timestamp;
use oci::compress::GzipWriter;
use oci::tar::{LayerWriter, Meta};
use oci::{Descriptor, ImageConfig, Index, Manifest, Platform, RootFs, media_type};
use tokio::process::Command;

use crate::site::{Site, name, sha256};

fn has_skopeo() -> bool {
    let found = std::process::Command::new("skopeo").arg("--version").stdout(Stdio::null()).status();
    if found.is_err() {
        eprintln!("skipped: skopeo");
    }
    found.is_ok()
}

async fn skopeo(site: &Site, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "--tmpdir"])
        .arg(site.dir.path())
        .args(arguments)
        .env("HOME", site.dir.path())
        .env("XDG_RUNTIME_DIR", site.dir.path())
        .env("REGISTRY_AUTH_FILE", site.dir.path().join("auth.json"))
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .output()
        .await
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Writes blobs of an image layout.
struct Layout<'a>(&'a Path);

impl Layout<'_> {
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = sha256(bytes);
        let directory = self.0.join("blobs/sha256");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(digest.hex()), bytes).unwrap();
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    fn image(&self, platform: &Platform, layers: &[Vec<u8>]) -> Descriptor {
        let mut diff_ids = Vec::new();
        let mut descriptors = Vec::new();
        for content in layers {
            let mut gzip = GzipWriter::new(Vec::new());
            let mut writer = LayerWriter::new(&mut gzip);
            let size = content.len() as u64;
            writer.file(b"data", &Meta::root(0o644, Timestamp(0)), size, &mut &content[..]).unwrap();
            writer.finish().unwrap();
            let gzipped = gzip.finish().unwrap();
            diff_ids.push(gzipped.diff_id);
            descriptors.push(self.blob(media_type::OCI_LAYER_GZIP, &gzipped.inner));
        }
        let config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            rootfs: RootFs { diff_ids, ..RootFs::default() },
            ..ImageConfig::default()
        };
        let config = self.blob(media_type::OCI_CONFIG, &serde_json::to_vec(&config).unwrap());
        let manifest = serde_json::to_vec(&Manifest::image(config, descriptors)).unwrap();
        let mut descriptor = self.blob(media_type::OCI_MANIFEST, &manifest);
        descriptor.platform = Some(platform.clone());
        descriptor
    }

    fn finish(&self, root: Descriptor) {
        std::fs::write(self.0.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::fs::write(self.0.join("index.json"), serde_json::to_vec(&Index::new(vec![root])).unwrap()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn push_inspect_mount_and_pull() {
    if !has_skopeo() {
        return;
    }
    let site = Site::start().await;
    let layout = site.dir.path().join("image");
    let written = Layout(&layout);
    // More than one gzip member, and more than one chunk on the wire.
    let big: Vec<u8> = (0..5_000_000u64).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let image = written.image(&Platform::here(), &[big, b"small".to_vec()]);
    let digest = image.digest;
    written.finish(image);
    let credentials = format!("alice:{}", site.alice);
    let source = format!("oci:{}", layout.display());
    let at = |reference: &str| format!("docker://{}/alice/{reference}", site.host);
    let wrong = ["copy", "--dest-tls-verify=false", "--dest-creds", "alice:wrong", &source, &at("site:v1")];
    assert!(skopeo(&site, &wrong).await.is_err());
    let push = ["copy", "--dest-tls-verify=false", "--dest-creds", &credentials, &source, &at("site:v1")];
    skopeo(&site, &push).await.unwrap();
    let stored = site.registry.tags(&name("alice/site"), None, 10).await.unwrap().unwrap();
    assert_eq!(stored.entries, [("v1".parse().unwrap(), digest)]);
    assert!(site.registry.exists_with_children(&name("alice/site"), &digest).await.unwrap());
    // Again: everything is there already.
    skopeo(&site, &push).await.unwrap();
    let target = at("site:v1");
    let inspect = ["inspect", "--tls-verify=false", "--creds", &credentials, &target];
    let shown: serde_json::Value = serde_json::from_str(&skopeo(&site, &inspect).await.unwrap()).unwrap();
    assert_eq!((shown["Digest"].as_str(), shown["RepoTags"][0].as_str()), (Some(&*digest.to_string()), Some("v1")));
    // As docker's own kind of manifest.
    let docker = at("site:docker");
    let convert =
        ["copy", "--format", "v2s2", "--dest-tls-verify=false", "--dest-creds", &credentials, &source, &docker];
    skopeo(&site, &convert).await.unwrap();
    let kind = site.registry.manifest(&name("alice/site"), &"docker".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(kind.media_type, media_type::DOCKER_MANIFEST);
    // Into another image of the same registry, by mounts.
    let (from, to) = (at("site:v1"), at("open/copy:v2"));
    let tls = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let both = [&tls[..], &["--src-creds", &credentials, "--dest-creds", &credentials, &from, &to]].concat();
    skopeo(&site, &both).await.unwrap();
    // Public: nobody in particular may pull it, by digest too.
    for reference in ["open/copy:v2".to_owned(), format!("open/copy@{digest}")] {
        let pulled = site.dir.path().join("pulled");
        let to = format!("oci:{}", pulled.display());
        skopeo(&site, &["copy", "--src-tls-verify=false", &at(&reference), &to]).await.unwrap();
        for entry in std::fs::read_dir(layout.join("blobs/sha256")).unwrap() {
            let entry = entry.unwrap();
            let pulled = pulled.join("blobs/sha256").join(entry.file_name());
            assert!(std::fs::read(entry.path()).unwrap() == std::fs::read(pulled).unwrap());
        }
        std::fs::remove_dir_all(pulled).unwrap();
    }
    let hidden = ["inspect", "--tls-verify=false", &target];
    assert!(skopeo(&site, &hidden).await.is_err());
    let delete = ["delete", "--tls-verify=false", "--creds", &credentials, &target];
    skopeo(&site, &delete).await.unwrap();
    assert!(skopeo(&site, &inspect).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn push_and_pull_all_platforms() {
    if !has_skopeo() {
        return;
    }
    let site = Site::start().await;
    let layout = site.dir.path().join("image");
    let written = Layout(&layout);
    let children = ["linux/amd64", "linux/arm64/v8"]
        .map(|platform| written.image(&platform.parse().unwrap(), &[platform.as_bytes().to_vec()]));
    let index = serde_json::to_vec(&Index::new(children.to_vec())).unwrap();
    let root = written.blob(media_type::OCI_INDEX, &index);
    let digest = root.digest;
    written.finish(root);
    let credentials = format!("alice:{}", site.alice);
    let source = format!("oci:{}", layout.display());
    let target = format!("docker://{}/alice/multi:all", site.host);
    let push = ["copy", "--all", "--dest-tls-verify=false", "--dest-creds", &credentials, &source, &target];
    skopeo(&site, &push).await.unwrap();
    assert!(site.registry.exists_with_children(&name("alice/multi"), &digest).await.unwrap());
    let pulled = format!("oci:{}", site.dir.path().join("pulled").display());
    let pull = ["copy", "--all", "--src-tls-verify=false", "--src-creds", &credentials, &target, &pulled];
    skopeo(&site, &pull).await.unwrap();
    let raw = ["inspect", "--raw", "--tls-verify=false", "--creds", &credentials, &target];
    assert_eq!(skopeo(&site, &raw).await.unwrap().into_bytes(), index);
}
