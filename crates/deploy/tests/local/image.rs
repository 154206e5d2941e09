//! An image with this machine's perl and a web server in it, and a shop that hands it out.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use deploy::{ImageFuture, Images, ImagesError, RunnableImage};
use model::{Algorithm, PinnedImage, Timestamp};
use oci::tar::{LayerWriter, Meta};
use oci::{Descriptor, ImageConfig, Manifest, digest_of, media_type};

const SERVER: &[u8] = include_bytes!("server.pl");

/// The machine's perl and what it needs; nothing if it is not there.
pub fn perl_files() -> Option<&'static BTreeMap<String, PathBuf>> {
    static FILES: OnceLock<Option<BTreeMap<String, PathBuf>>> = OnceLock::new();
    FILES.get_or_init(find_perl).as_ref()
}

fn find_perl() -> Option<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::from([("usr/bin/perl".to_owned(), PathBuf::from("/usr/bin/perl"))]);
    let libraries = Command::new("ldd").arg("/usr/bin/perl").output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(libraries.stdout).ok()?;
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        files.insert(path.trim_start_matches('/').to_owned(), std::fs::canonicalize(path).ok()?);
    }
    let script = "print join \"\\n\", grep { -e \"$_/strict.pm\" && -e \"$_/IO/Socket/INET.pm\" } @INC";
    let inc = Command::new("/usr/bin/perl").args(["-e", script]).output().ok()?;
    let base = String::from_utf8(inc.stdout).ok()?.lines().last()?.to_owned();
    let mut directories = vec![PathBuf::from(base)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).ok()? {
            let path = entry.ok()?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.is_file() {
                files.insert(path.to_str()?.trim_start_matches('/').to_owned(), std::fs::canonicalize(&path).ok()?);
            }
        }
    }
    Some(files)
}

/// Images in a directory: a file for each blob.
pub struct Shop {
    dir: PathBuf,
}

impl Shop {
    pub fn open(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        Self { dir: dir.to_owned() }
    }

    fn put(&self, bytes: &[u8]) -> model::Digest {
        let digest = digest_of(Algorithm::Sha256, bytes);
        std::fs::write(self.dir.join(digest.hex()), bytes).unwrap();
        digest
    }

    /// Makes the image that runs the web server. Those with another `version` have another digest.
    pub fn perl_server(&self, version: &str) -> PinnedImage {
        let mut config = ImageConfig {
            architecture: oci::Platform::here().architecture,
            os: "linux".into(),
            ..ImageConfig::default()
        };
        config.config.entrypoint = Some(vec!["/usr/bin/perl".into(), "/server.pl".into()]);
        config.config.env = vec![format!("VERSION={version}")];
        let base = self.layer(perl_files().unwrap());
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), SERVER).unwrap();
        let script = self.layer(&BTreeMap::from([("server.pl".to_owned(), script.path().to_owned())]));
        self.image(&config, vec![base, script])
    }

    pub fn image(&self, config: &ImageConfig, layers: Vec<Descriptor>) -> PinnedImage {
        let mut config = config.clone();
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.digest).collect();
        let text = serde_json::to_vec(&config).unwrap();
        let config = Descriptor::new(media_type::OCI_CONFIG, self.put(&text), text.len() as u64);
        let manifest = serde_json::to_vec(&Manifest::image(config, layers)).unwrap();
        PinnedImage { name: "demo/site".parse().unwrap(), digest: self.put(&manifest) }
    }

    /// A layer of these files (path in the image → file here).
    pub fn layer(&self, files: &BTreeMap<String, PathBuf>) -> Descriptor {
        let mut tar = LayerWriter::new(Vec::new());
        let meta = Meta::root(0o755, Timestamp(0));
        let mut made = std::collections::BTreeSet::new();
        for (path, file) in files {
            let parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
            for parent in parents.into_iter().rev().filter(|parent| !parent.as_os_str().is_empty()) {
                if made.insert(parent.to_owned()) {
                    tar.directory(parent.to_str().unwrap().as_bytes(), &meta).unwrap();
                }
            }
            let content = std::fs::read(file).unwrap();
            tar.file(path.as_bytes(), &meta, content.len() as u64, &mut content.as_slice()).unwrap();
        }
        let bytes = tar.finish().unwrap();
        Descriptor::new(media_type::OCI_LAYER, self.put(&bytes), bytes.len() as u64)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, digest: &model::Digest) -> Result<T, ImagesError> {
        let bytes = std::fs::read(self.dir.join(digest.hex())).map_err(|error| ImagesError(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| ImagesError(error.to_string()))
    }
}

impl Images for Shop {
    fn image<'a>(&'a self, image: &'a PinnedImage) -> ImageFuture<'a> {
        Box::pin(async move {
            let manifest: Manifest = self.read(&image.digest)?;
            let config = self.read(&manifest.config.digest)?;
            Ok(RunnableImage { manifest, config })
        })
    }

    fn open_layer(&self, _: &PinnedImage, layer: &Descriptor) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(std::fs::File::open(self.dir.join(layer.digest.hex()))?))
    }
}
