//! The distribution specification's own conformance programs: the test binary of version 1.1, which is built from the Go
//! module `e2e/conformance`, and the program that took its place, if it is at hand. Each is told to test everything.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::alone::Alone;
use crate::go;

/// Names further programs, separated by colons.
const PROGRAMS: &str = "OCI_CONFORMANCE";

/// Both are configured by variables and ignore each other's.
const SETTINGS: &[(&str, &str)] = &[
    ("OCI_TEST_PULL", "1"),
    ("OCI_TEST_PUSH", "1"),
    ("OCI_TEST_CONTENT_DISCOVERY", "1"),
    ("OCI_TEST_CONTENT_MANAGEMENT", "1"),
    ("OCI_HIDE_SKIPPED_WORKFLOWS", "0"),
    ("OCI_NAMESPACE", "first/repository"),
    ("OCI_CROSSMOUNT_NAMESPACE", "second/repository"),
    ("OCI_TLS", "disabled"),
    ("OCI_VERSION", "dev"),
    ("OCI_REPO1", "third/repository"),
    ("OCI_REPO2", "fourth/repository"),
    ("OCI_API_BLOBS_DIGEST_HEADER", "true"),
    ("OCI_API_BLOBS_UPLOAD_CANCEL", "true"),
    ("OCI_API_MANIFESTS_DIGEST_HEADER", "true"),
    ("OCI_API_MANIFESTS_TAG_PARAM", "true"),
    ("OCI_DATA_SHA512", "true"),
];

/// The programs that can be had.
pub fn programs() -> Vec<PathBuf> {
    let named = std::env::var_os(PROGRAMS).unwrap_or_default();
    let named = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
    go::conformance().into_iter().chain(named).collect()
}

/// Runs them against a registry; each must end well.
pub fn run(programs: &[PathBuf], alone: &Alone) {
    for program in programs {
        println!("{}: {}", program.display(), verdict(program, alone));
    }
}

/// The line that counts.
fn verdict(program: &Path, alone: &Alone) -> String {
    let results = alone.path("results");
    std::fs::create_dir_all(&results).unwrap();
    let mut command = Command::new(program);
    command.current_dir(&results).envs(SETTINGS.iter().copied()).env("OCI_REGISTRY", alone.host());
    command.env("OCI_ROOT_URL", format!("http://{}", alone.host())).env("OCI_REPORT_DIR", &results);
    command.env("OCI_RESULTS_DIR", &results);
    if let Some(token) = alone.token() {
        command.env("OCI_USERNAME", "admin").env("OCI_PASSWORD", token);
    } else {
        command.env("OCI_AUTOMATIC_CROSSMOUNT", "1");
    }
    // It says more than a pipe holds.
    let log = alone.path("conformance.log");
    let file = File::create(&log).unwrap();
    let status = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{}: {status}\n{said}", program.display());
    let counts = ["Passed", "Skip..", "Pass..", "FAIL..", "Total.."];
    let lines: Vec<_> = said.lines().filter(|line| counts.iter().any(|count| line.contains(count))).collect();
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(", ")
}
