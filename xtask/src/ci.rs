//! What has to pass before anything lands.

use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What the tests may not skip, separated by commas.
const REQUIRED: &str = "conformance";

/// What the test runs said.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
}

pub(crate) fn run() -> Result<(), String> {
    crate::tidy::run()?;
    step("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    let mut tally = Tally::default();
    tests(&["test", "--workspace", "--no-fail-fast"], &mut tally)?;
    tests(&["test", "-p", "store", "--features", "fault", "--test", "fault"], &mut tally)?;
    crate::fault::path(&["--points", "12", "--seed", "1"])?;
    tally.passed += 1;
    registry_faults(&mut tally)?;
    fuzz(&mut tally)?;
    step("the release build", &["build", "--release"])?;
    demo(&mut tally)?;
    for skipped in &tally.skipped {
        println!("{skipped}");
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped.len());
    if tally.failed > 0 { Err("tests failed".into()) } else { Ok(()) }
}

/// A sample of the registry's faults, where the disks that some of them need can be mounted.
fn registry_faults(tally: &mut Tally) -> Result<(), String> {
    let runs = [
        &["--points", "40"][..],
        &["--points", "10", "--full-disk"],
        &["--points", "20", "--unsynced"],
        &["--points", "20", "--replicated"],
    ];
    for run in runs {
        if let Err(why) = crate::fault::registry_has_disk(run) {
            tally.skipped.push(format!("skipped: fault registry {}: {why}", run.join(" ")));
            continue;
        }
        crate::fault::registry(&[run, &["--seed", "1"]].concat())?;
        tally.passed += 1;
    }
    Ok(())
}

/// Seconds of each fuzz target.
fn fuzz(tally: &mut Tally) -> Result<(), String> {
    if let Err(why) = crate::fuzz::possible() {
        tally.skipped.push(format!("skipped: fuzz: {why}"));
        return Ok(());
    }
    crate::fuzz::run(&["--seconds", "5"])?;
    tally.passed += 1;
    Ok(())
}

fn step(what: &str, arguments: &[&str]) -> Result<(), String> {
    let began = Instant::now();
    let status = Command::new(env!("CARGO")).args(arguments).status().map_err(|error| format!("{what}: {error}"))?;
    println!("{what}: {} in {:.0} s", if status.success() { "ok" } else { "failed" }, began.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("{what} failed")) }
}

/// Runs the tests, prints what failed, and counts.
fn tests(arguments: &[&str], tally: &mut Tally) -> Result<(), String> {
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--", "--show-output"])
        .env("TOWPATH_REQUIRE", REQUIRED)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the tests cannot be started: {error}"))?;
    let stdout = child.stdout.take().ok_or("the tests have no output")?;
    let (mut failing, mut results) = (false, 0);
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| error.to_string())?;
        if let Some(result) = line.strip_prefix("test result: ") {
            results += 1;
            failing = false;
            let number = |word: &str| {
                let part = result.split([';', '.']).find(|part| part.trim().ends_with(word));
                part.and_then(|part| part.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0)
            };
            tally.passed += number("passed");
            tally.failed += number("failed");
        }
        failing |= line == "failures:";
        if line.trim_start().starts_with("skipped: ") {
            tally.skipped.push(line.trim_start().to_owned());
        }
        if failing || line.ends_with("FAILED") {
            println!("{line}");
        }
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    println!("{}: {results} test programs in {:.0} s", arguments.join(" "), began.elapsed().as_secs_f64());
    if !status.success() && tally.failed == 0 {
        return Err("the tests did not run to their end".into());
    }
    Ok(())
}

/// The demo is the test of the whole: its end says whether the path holds. Where we are root it runs as an ordinary user
/// with nothing but a loopback of its own, as on a machine without a network.
fn demo(tally: &mut Tally) -> Result<(), String> {
    let began = Instant::now();
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (mut command, whom) =
        demo_command(place.path()).map_err(|error| format!("the demo cannot be set up: {error}"))?;
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("the demo cannot be started: {error}"))?;
    println!("demo {whom}: {} in {:.1} s", output.status, began.elapsed().as_secs_f64());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let ends: Vec<_> = report["runs"].as_array().into_iter().flatten().map(|run| run["outcome"].to_string()).collect();
    let expected = ["\"succeeded\"", "\"succeeded\"", "\"reused\"", "\"failed\""];
    if output.status.success() && ends == expected {
        tally.passed += 1;
    } else {
        println!("demo: the ends were {ends:?}");
        tally.failed += 1;
    }
    Ok(())
}

fn demo_command(place: &Path) -> io::Result<(Command, &'static str)> {
    const SCRIPT: &str =
        "ip link set lo up && exec runuser -u nobody -- env HOME=\"$1\" TMPDIR=\"$1\" \"$1/towpath\" demo -o json";
    let program = place.join("towpath");
    std::fs::copy("target/release/towpath", &program)?;
    if !rustix::process::geteuid().is_root() {
        let mut command = Command::new(program);
        command.args(["demo", "-o", "json"]);
        return Ok((command, "as this user"));
    }
    // Everybody's, as /tmp is.
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o1777))?;
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", SCRIPT, "sh"]).arg(place);
    Ok((command, "as an ordinary user without a network"))
}
