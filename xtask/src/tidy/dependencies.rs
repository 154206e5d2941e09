//! Which room may stand on which, and what no room may stand on.

use std::process::Command;

use serde_json::Value;

/// Every room with the rooms it may import. The order is that of the path; nobody imports what stands below.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("store", &["model"]),
    ("access", &["model", "store"]),
    ("config", &["model"]),
    ("git", &["model"]),
    ("oci", &["model"]),
    ("sandbox", &["model"]),
    ("source", &["model", "store", "git"]),
    ("workflow", &["model"]),
    ("runner", &["model", "workflow", "sandbox", "git"]),
    ("reuse", &["model"]),
    ("build", &["model", "store", "git", "oci", "sandbox"]),
    ("registry", &["model", "store", "access", "oci"]),
    ("webhook", &["model", "store"]),
    ("acme", &["model", "store"]),
    ("gitops", &["model"]),
    ("deploy", &["model", "oci", "sandbox", "gitops"]),
    ("evidence", &["model"]),
    (
        "pipeline",
        &[
            "model", "store", "access", "config", "git", "oci", "sandbox", "source", "workflow", "runner", "reuse",
            "build", "registry", "gitops", "deploy", "evidence",
        ],
    ),
    (
        "server",
        &["model", "store", "access", "config", "git", "source", "registry", "webhook", "acme", "pipeline", "evidence"],
    ),
    ("towpath", &["model", "store", "config", "oci", "sandbox", "runner", "deploy", "server", "pipeline"]),
    ("testkit", &["sandbox"]),
    ("e2e", &[]),
    ("fuzz", &["model", "access", "oci", "source", "registry"]),
    ("xtask", &["e2e"]),
];

/// Rooms without I/O, and what would bring some.
const PURE: &[&str] = &["model", "workflow", "reuse", "gitops", "evidence"];
const IMPURE: &[&str] = &["tokio", "hyper", "axum", "reqwest", "rustix", "nix", "rusqlite", "postgres", "tempfile"];

/// One crypto provider at most, and none of these.
const BANNED: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls", "serde_yaml"];

pub(crate) fn check() -> Result<Vec<String>, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let mut findings = Vec::new();
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    for package in &packages {
        room(package, &names, &mut findings);
    }
    let lock = std::fs::read_to_string("Cargo.lock").map_err(|error| format!("Cargo.lock: {error}"))?;
    let lock: toml::Value = toml::from_str(&lock).map_err(|error| format!("Cargo.lock: {error}"))?;
    let locked = lock.get("package").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    for name in locked.iter().filter_map(|package| package.get("name")?.as_str()) {
        if BANNED.contains(&name) && is_built(name)? {
            findings.push(format!("the dependency {name} is banned; see `cargo tree --workspace -i {name}`"));
        }
    }
    Ok(findings)
}

/// Whether a locked package is a part of what is built. The lock also lists what only an optional part of a dependency
/// would bring that nothing asks for.
fn is_built(name: &str) -> Result<bool, String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--edges", "normal,build,dev", "--prefix", "none", "--invert", name])
        .output()
        .map_err(|error| format!("cargo tree: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Nothing is an answer as well: the package is locked and not in the tree.
    if !output.status.success() && !said.contains("did not match any packages") {
        return Err(format!("cargo tree --invert {name}: {}", said.trim()));
    }
    Ok(!output.stdout.is_empty())
}

fn room(package: &Value, names: &[&str], findings: &mut Vec<String>) {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| *room == name) else {
        findings.push(format!("the crate {name} is not in the table of rooms"));
        return;
    };
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let needed = dependency["name"].as_str().unwrap_or_default();
        if dependency["kind"] == "dev" {
            continue;
        }
        if names.contains(&needed) && !allowed.contains(&needed) {
            findings.push(format!("{name} may not import {needed}"));
        }
        if PURE.contains(&name) && IMPURE.contains(&needed) {
            findings.push(format!("{name} is pure and may not import {needed}"));
        }
    }
}
