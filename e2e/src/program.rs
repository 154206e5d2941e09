//! The program under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// How the program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// As tests are.
    Debug,
    /// As users get it.
    Release,
    /// Optimised, with the points at which `cargo xtask fault` kills it.
    Fault,
}

/// The path of the program, built if it was not.
///
/// # Panics
/// When it cannot be built.
pub fn program(kind: Program) -> PathBuf {
    static DEBUG: OnceLock<PathBuf> = OnceLock::new();
    static RELEASE: OnceLock<PathBuf> = OnceLock::new();
    static FAULT: OnceLock<PathBuf> = OnceLock::new();
    match kind {
        Program::Debug => DEBUG.get_or_init(|| build(&["build", "-p", "towpath"], "debug")),
        Program::Release => RELEASE.get_or_init(|| build(&["build", "-p", "towpath", "--release"], "release")),
        Program::Fault => FAULT.get_or_init(|| {
            // In the directory of the release, so that only our own crates are built again, and kept under another name.
            let built = build(&["build", "-p", "towpath", "--release", "--features", "fault"], "release");
            let kept = built.with_file_name("towpath-fault");
            // The one that is there may be running.
            let copy = kept.with_extension(std::process::id().to_string());
            std::fs::copy(&built, &copy).unwrap();
            std::fs::rename(&copy, &kept).unwrap();
            kept
        }),
    }
    .clone()
}

fn build(arguments: &[&str], dir: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let status = Command::new(env!("CARGO")).current_dir(root).arg("--quiet").args(arguments).status().unwrap();
    assert!(status.success(), "the program cannot be built");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    target.join(dir).join("towpath")
}
