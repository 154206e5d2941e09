//! The distribution specification's own conformance programs: the test binary of version 1.1 and the program that took its
//! place, built from the Go modules `e2e/conformance` and `e2e/conformance-standalone`. Each is told to test everything.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
    ("OCI_AUTOMATIC_CROSSMOUNT", "1"),
    ("OCI_TLS", "disabled"),
    // A token that is kept is for one image, and so for no mount.
    ("OCI_CACHE_AUTH", "false"),
    ("OCI_VERSION", "dev"),
    ("OCI_REPO1", "third/repository"),
    ("OCI_REPO2", "fourth/repository"),
    ("OCI_API_BLOBS_DIGEST_HEADER", "true"),
    ("OCI_API_BLOBS_UPLOAD_CANCEL", "true"),
    ("OCI_API_MANIFESTS_DIGEST_HEADER", "true"),
    ("OCI_API_MANIFESTS_TAG_PARAM", "true"),
    ("OCI_DATA_SHA512", "true"),
];

/// What a suite cannot run in one go with the rest: setup of a registry that nobody may push to, what a mount that fails
/// is answered with when it does not fail, and the other one of two settings. With accounts, a mount that names no source
/// comes with a token that is for no other image.
const SKIPS: &[&str] = &[
    "Pull Setup Get tag name from environment",
    "Content Discovery Setup Populate registry with test tags (no push)",
    "Push Cross-Repository Blob Mount Cross-mounting of nonexistent blob should yield session id",
    "Push Cross-Repository Blob Mount Cross-mounting without from, and automatic content discovery disabled",
    "mount anonymous/blob-mount-anonymous",
];

/// The programs that can be had.
pub fn programs() -> Vec<PathBuf> {
    let named = std::env::var_os(PROGRAMS).unwrap_or_default();
    let named = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
    go::conformance().into_iter().chain(go::standalone()).chain(named).collect()
}

/// Runs them against a registry, with the administrator's token where one is needed; each must end well. What they say
/// goes to `dir`.
pub fn run(programs: &[PathBuf], host: &str, token: Option<&str>, dir: &Path) {
    for program in programs {
        println!("{}: {}", program.display(), verdict(program, host, token, dir));
    }
}

/// The line that counts.
fn verdict(program: &Path, host: &str, token: Option<&str>, dir: &Path) -> String {
    let results = dir.join("results");
    std::fs::create_dir_all(&results).unwrap();
    let mut command = Command::new(program);
    command.current_dir(&results).envs(SETTINGS.iter().copied()).env("OCI_REGISTRY", host);
    command.env("OCI_ROOT_URL", format!("http://{host}")).env("OCI_REPORT_DIR", &results);
    command.env("OCI_RESULTS_DIR", &results);
    if let Some(token) = token {
        command.env("OCI_USERNAME", "admin").env("OCI_PASSWORD", token);
    }
    // It says more than a pipe holds.
    let log = dir.join("conformance.log");
    let file = File::create(&log).unwrap();
    let status = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{}: {status}\n{said}", program.display());
    let report = std::fs::read_to_string(results.join("junit.xml")).unwrap();
    let skipped = skipped(&report);
    let surprising: Vec<_> = skipped.iter().filter(|name| !SKIPS.iter().any(|known| name.contains(known))).collect();
    assert!(surprising.is_empty(), "{} skipped {surprising:#?}", program.display());
    let counts = ["Passed", "Skip..", "Pass..", "FAIL..", "Total.."];
    let lines: Vec<_> = said.lines().filter(|line| counts.iter().any(|count| line.contains(count))).collect();
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(", ")
}

/// The names of the test cases that were skipped, of a report that has one tag a line.
fn skipped(report: &str) -> Vec<&str> {
    let cases = report.split("<testcase ").skip(1).filter(|case| case.contains("status=\"skipped\""));
    cases.filter_map(|case| case.split_once("name=\"")?.1.split('"').next()).collect()
}
