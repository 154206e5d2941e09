//! Go programs that tests speak with, each built from a small Go module of ours that pins it.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::installed;

/// Names what must not be skipped, separated by commas.
const REQUIRE: &str = "TOWPATH_REQUIRE";

/// crane; nothing if it cannot be built here, which is printed.
pub fn crane() -> Option<PathBuf> {
    built("crane", "crane", &["build"], "github.com/google/go-containerregistry/cmd/crane")
}

/// The conformance suite of the distribution specification, version 1.1; nothing if it cannot be built here, which is
/// printed.
///
/// # Panics
/// When it cannot be built and `TOWPATH_REQUIRE` names `conformance`.
pub fn conformance() -> Option<PathBuf> {
    let built =
        built("conformance", "conformance", &["test", "-c"], "github.com/opencontainers/distribution-spec/conformance");
    let is_fine = built.is_some() || !is_required("conformance");
    assert!(is_fine, "the conformance suite is required and cannot be built: Go 1.21 is needed");
    built
}

fn is_required(name: &str) -> bool {
    std::env::var(REQUIRE).is_ok_and(|all| all.split(',').any(|one| one == name))
}

/// The program that took the place of that suite, after version 1.1.1; nothing if it cannot be built here, which is printed:
/// it needs Go 1.24 and a module proxy that has it.
///
/// # Panics
/// When it cannot be built and `TOWPATH_REQUIRE` names `conformance-standalone`.
pub fn standalone() -> Option<PathBuf> {
    const NAME: &str = "conformance-standalone";
    let built = built(NAME, NAME, &["build"], "github.com/opencontainers/distribution-spec/conformance");
    assert!(built.is_some() || !is_required(NAME), "{NAME} is required and cannot be built: Go 1.24 is needed");
    built
}

/// Let's Encrypt's small authority for tests, and the server of names that it asks; nothing if they cannot be built here,
/// which is printed.
#[allow(dead_code)]
pub fn pebble() -> Option<(PathBuf, PathBuf)> {
    let package = "github.com/letsencrypt/pebble/v2/cmd/pebble";
    let authority = built("pebble", "pebble", &["build"], package)?;
    Some((authority, built("pebble", "challtestsrv", &["build"], &format!("{package}-challtestsrv"))?))
}

fn built(module: &str, name: &str, arguments: &[&str], package: &str) -> Option<PathBuf> {
    if !installed("go") {
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut command = Command::new("go");
    command.current_dir(root.join(module)).env("CGO_ENABLED", "0").args(arguments).args(["-mod=readonly", "-o"]);
    let output = command.arg(&built).arg(package).output().unwrap();
    if output.status.success() {
        return Some(built);
    }
    // Too old a compiler, or no module proxy.
    let why = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
    eprintln!("skipped: {name} cannot be built: {why}");
    None
}
