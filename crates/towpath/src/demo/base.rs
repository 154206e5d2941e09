//! The base image of the demo, made with no network: this machine's own shell, basic tools and perl, with the libraries
//! and modules that they need. Under the same paths as here, so that what is compiled into them stays true.

use std::path::{Path, PathBuf};
use std::process::Command;

use model::{Algorithm, Digest};
use oci::media_type::{OCI_CONFIG, OCI_LAYER_GZIP};
use oci::{Descriptor, History, ImageConfig, Manifest, Platform, RootFs, RuntimeConfig};

use super::elf::{Closure, Libraries};
use super::tree::{Layer, Tree};
use crate::error::Failure;

/// What the image holds. All of them are in every small Linux system; git needs perl.
const PROGRAMS: [&str; 34] = [
    "sh", "perl", "sed", "grep", "basename", "cat", "chmod", "cp", "cut", "date", "dirname", "echo", "env", "expr",
    "false", "head", "id", "ls", "mkdir", "mv", "pwd", "rm", "rmdir", "sleep", "sort", "tail", "tee", "test", "touch",
    "tr", "true", "uname", "uniq", "wc",
];
/// Where they are looked for.
const PLACES: [&str; 4] = ["/bin", "/usr/bin", "/sbin", "/usr/sbin"];
/// Prints the files of the modules that a server needs, and of their native halves.
const MODULES: &str = "use strict; use warnings; use IO::Socket::INET; use POSIX; use Errno; use Fcntl;
    print map { qq($_\\n) } values %INC, @DynaLoader::dl_shared_objects;";
/// Debian's perl without further packages; such a directory is whole by itself.
const PERL_BASE: &str = "perl-base";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
const RELEASE: &str = "NAME=\"Towpath demo base\"\nID=towpath-demo\n";

/// An image ready to be pushed.
pub(super) struct BaseImage {
    pub(super) layer: Layer,
    pub(super) config: Vec<u8>,
    pub(super) config_digest: Digest,
    pub(super) manifest: Vec<u8>,
}

/// Makes the image. Blocks for as long as some 15 MB take to compress.
///
/// # Errors
/// When a program is missing, or something that one needs.
pub(super) fn assemble() -> Result<BaseImage, Failure> {
    let broken = |why: String| Failure::failed(format!("the base image cannot be made: {why}"));
    let libraries = Libraries::of_this_machine();
    let mut closure = Closure::default();
    for name in PROGRAMS {
        let program = program(name)?;
        libraries.add(&program, &mut closure).map_err(broken)?;
    }
    let mut tree = Tree::default();
    for module in perl_files().map_err(broken)? {
        if module.extension().is_some_and(|extension| extension == "so") {
            libraries.add(&module, &mut closure).map_err(broken)?;
        } else {
            closure.files.insert(module);
        }
    }
    let whole = closure.files.iter().find_map(|file| file.ancestors().find(|dir| dir.ends_with(PERL_BASE)));
    let unreadable = |path: &Path, error: std::io::Error| broken(format!("{}: {error}", path.display()));
    if let Some(dir) = whole {
        tree.add_all(dir).map_err(|error| unreadable(dir, error))?;
    }
    for file in &closure.files {
        tree.add(file).map_err(|error| unreadable(file, error))?;
    }
    furnish(&mut tree);
    let layer = tree.layer().map_err(broken)?;
    describe(layer, &closure).map_err(|error| broken(error.to_string()))
}

/// The path of a program, which may be a symbolic link.
fn program(name: &str) -> Result<PathBuf, Failure> {
    let found = PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let message = format!("the program {name} is missing: it is neither in {} nor in {}", PLACES[0], PLACES[1]);
        Failure::failed(message).hint("the demo makes its base image of this machine's own shell, basic tools and perl")
    })
}

fn perl_files() -> Result<Vec<PathBuf>, String> {
    let perl = program("perl").map_err(|failure| failure.message)?;
    let output = Command::new(perl).env_clear().args(["-e", MODULES]).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        return Err(format!("perl does not have its own modules: {said}"));
    }
    let files = String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect::<Vec<_>>();
    Ok(files.into_iter().filter(|file| file.is_absolute()).collect())
}

fn furnish(tree: &mut Tree) {
    tree.directory("etc", 0o755);
    tree.text("etc/passwd", PASSWD);
    tree.text("etc/group", GROUP);
    tree.text("etc/os-release", RELEASE);
    tree.directory("root", 0o700);
    tree.directory("tmp", 0o1777);
    tree.directory("usr", 0o755);
    tree.directory("var", 0o755);
    tree.directory("var/tmp", 0o1777);
}

fn describe(layer: Layer, closure: &Closure) -> Result<BaseImage, serde_json::Error> {
    let platform = Platform::here();
    let mut env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    if !closure.unusual.is_empty() {
        let dirs: Vec<_> = closure.unusual.iter().map(|dir| dir.display().to_string()).collect();
        env.push(format!("LD_LIBRARY_PATH={}", dirs.join(":")));
    }
    let created = Some("1970-01-01T00:00:00Z".to_owned());
    let created_by = Some("this machine's shell, basic tools and perl".to_owned());
    let config = ImageConfig {
        created: created.clone(),
        architecture: platform.architecture,
        os: platform.os,
        config: RuntimeConfig { env, cmd: Some(vec!["/bin/sh".to_owned()]), ..RuntimeConfig::default() },
        rootfs: RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() },
        history: vec![History { created, created_by, ..History::default() }],
        ..ImageConfig::default()
    };
    let config = serde_json::to_vec(&config)?;
    let config_digest = oci::digest_of(Algorithm::Sha256, &config);
    let described = Descriptor::new(OCI_CONFIG, config_digest, config.len() as u64);
    let layers = vec![Descriptor::new(OCI_LAYER_GZIP, layer.digest, layer.bytes.len() as u64)];
    let manifest = serde_json::to_vec(&Manifest::image(described, layers))?;
    Ok(BaseImage { layer, config, config_digest, manifest })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the demo's image does: the shell with its tools, and perl with sockets. There is no /dev.
    const TRIAL: &str = "set -eu; cd /tmp; mkdir d; echo one > d/f; cp d/f d/g; sed s/one/two/ d/g; ls -l d > out
        test -f d/g; rm -r d; date > out; env | sort | head -n 1 > out; id > out
        echo 'use IO::Socket::INET; use POSIX; $_ = qq(PERL \\x{e9}); print lc =~ /(\\w+)/, qq(\\n);' > t.pl; perl t.pl";

    #[test]
    fn its_programs_run_with_nothing_else() {
        let image = assemble().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let layer = flate2::read::MultiGzDecoder::new(&image.layer.bytes[..]);
        let mut archive = tar::Archive::new(layer);
        archive.set_preserve_mtime(false);
        archive.unpack(dir.path()).unwrap();
        let trial = |inside: &str| {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "chroot"]).arg(dir.path()).args(["/bin/sh", "-c", inside]);
            command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output()
        };
        let namespaces = Command::new("unshare").args(["--user", "--map-root-user", "true"]).status();
        if !namespaces.is_ok_and(|it| it.success()) {
            skipped("user namespaces");
            return;
        }
        let ran = trial(TRIAL).unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(said, "two\nperl\n");
    }

    #[allow(clippy::print_stderr)]
    fn skipped(missing: &str) {
        eprintln!("skipped: {missing}");
    }

    #[test]
    fn the_image_is_the_same_each_time_and_names_what_it_holds() {
        let (one, other) = (assemble().unwrap(), assemble().unwrap());
        assert_eq!(one.manifest, other.manifest);
        let parsed = oci::parse_manifest(&one.manifest, oci::media_type::OCI_MANIFEST).unwrap();
        let oci::ManifestKind::Image(manifest) = parsed else { panic!("an image") };
        assert_eq!(manifest.config.digest, one.config_digest);
        assert_eq!(manifest.layers[0].digest, one.layer.digest);
        let config: ImageConfig = serde_json::from_slice(&one.config).unwrap();
        assert_eq!(config.rootfs.diff_ids, [one.layer.diff_id]);
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = program("no-such-program").unwrap_err();
        assert!(failure.message.contains("the program no-such-program is missing"), "{failure}");
    }
}
