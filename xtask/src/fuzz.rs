//! Feeds the parsers what strangers might send, guided by what it reaches.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::option;

/// Seeds, a directory for each target.
const CORPUS: &str = "fuzz/corpus";

/// What is found on the way and worth keeping between runs; not committed.
const FOUND: &str = "target/fuzz";

/// `[--seconds N] [TARGET]`
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    let seconds: u64 = option(words, "--seconds", 60)?;
    let value = words.iter().position(|word| *word == "--seconds").map(|at| at + 1);
    let chosen = words.iter().enumerate().find(|(at, word)| Some(*at) != value && !word.starts_with("--"));
    let mut targets = targets()?;
    if let Some((_, chosen)) = chosen {
        targets.retain(|target| target == chosen);
        if targets.is_empty() {
            return Err(format!("there is no target {chosen} in {CORPUS}"));
        }
    }
    let program = build()?;
    for target in &targets {
        let runs = one(&program, target, seconds)?;
        println!("fuzz {target}: {runs} inputs in {seconds} s, nothing found");
    }
    Ok(())
}

/// Why it cannot be done here, if it cannot.
pub(crate) fn possible() -> Result<(), String> {
    let found = Command::new("c++").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) { Ok(()) } else { Err("there is no C++ compiler (c++)".into()) }
}

fn targets() -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(CORPUS).map_err(|error| format!("{CORPUS}: {error}"))?;
    let mut targets: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    targets.sort();
    Ok(targets)
}

fn build() -> Result<PathBuf, String> {
    let wrapper = std::fs::canonicalize("fuzz/instrumented").map_err(|error| format!("fuzz/instrumented: {error}"))?;
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "fuzz", "--features", "run", "--message-format", "json-render-diagnostics"])
        .env("RUSTC_WORKSPACE_WRAPPER", wrapper)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("the fuzzer: {error}"))?;
    if !output.status.success() {
        return Err("the fuzzer cannot be built".into());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let messages = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    program.ok_or_else(|| "the fuzzer was not built".into())
}

/// Runs a target; how many inputs were tried.
fn one(program: &Path, target: &str, seconds: u64) -> Result<u64, String> {
    let found = Path::new(FOUND).join(target);
    std::fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let output = Command::new(program)
        .env("FUZZ_TARGET", target)
        .arg(&found)
        .arg(Path::new(CORPUS).join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={FOUND}/{target}-"))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("fuzz {target}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = said.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        return Err(format!("fuzz {target}: {}; the input is {FOUND}/{target}-…\n{end}", output.status));
    }
    let count = |line: &str| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok();
    said.lines().find_map(count).ok_or_else(|| format!("fuzz {target}: it does not say how many inputs it tried"))
}
