//! crane, built from the Go module `e2e/crane`, which pins it.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::installed;

/// The built program; nothing if it cannot be built here, which is printed.
pub fn program() -> Option<PathBuf> {
    if !installed("go") {
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crane");
    let mut command = Command::new("go");
    command.current_dir(root.join("crane")).env("CGO_ENABLED", "0").args(["build", "-mod=readonly", "-o"]);
    let output = command.arg(&built).arg("github.com/google/go-containerregistry/cmd/crane").output().unwrap();
    if output.status.success() {
        return Some(built);
    }
    // Too old a compiler, or no module proxy.
    let why = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
    eprintln!("skipped: crane cannot be built: {why}");
    None
}
