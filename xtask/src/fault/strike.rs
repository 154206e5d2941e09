//! One point: a push, a death, a restart and the end.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::check::{self, Finding, lost};
use super::plan::{Death, Point};
use super::stand::{Change, Reference, Stand};

/// The variable that the program looks at.
const FAULT: &str = "TOWPATH_FAULT";
/// How long a run is waited for that was to be cut.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a push may hang on a server that is dead.
const HANGING: Duration = Duration::from_secs(30);
/// Points that are passed after the end of a run are passed within this.
const AFTERMATH: Duration = Duration::from_millis(300);
/// The pause between two questions whether the run ended.
const ASK: Duration = Duration::from_millis(25);

/// What came of it.
pub(crate) enum Struck {
    /// The server died, and this was wrong afterwards.
    Died(Vec<Finding>),
    /// The run came to its end without passing the point.
    Missed,
}

/// Lets the server die at `point`, and checks what comes of the push.
pub(crate) fn strike(stand: &mut Stand, point: &Point, reference: &Reference) -> Result<Struck, String> {
    if let Death::At { name, count } = &point.death {
        stand.world.kill();
        stand.world.set_env(FAULT, Some(&format!("{name}:{count}")));
        if !stand.world.try_up() {
            // It is passed when the server starts: nothing is pushed then.
            stand.world.kill();
            stand.world.set_env(FAULT, None);
            stand.world.up();
            return Ok(Struck::Missed);
        }
    }
    stand.look()?;
    let change = stand.change(point.kind);
    let mut git = stand.site.push_command("main").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let git = git.as_mut().map_err(|error| format!("git: {error}"))?;
    let died = match &point.death {
        Death::After(delay) => {
            std::thread::sleep(*delay);
            stand.world.kill();
            true
        }
        Death::At { .. } => dies(stand, &change),
    };
    if died {
        stand.cut()?;
    }
    let arrived = end_push(git)?;
    stand.world.kill();
    stand.world.set_env(FAULT, None);
    stand.world.up();
    stand.back()?;
    let findings = afterwards(stand, &change, reference, arrived)?;
    Ok(if died { Struck::Died(findings) } else { Struck::Missed })
}

/// Whether the server dies before all is over.
fn dies(stand: &mut Stand, change: &Change) -> bool {
    let until = Instant::now() + PATIENCE;
    let (mut over, mut asked) = (None, Instant::now());
    while Instant::now() < until && over.is_none_or(|at: Instant| at.elapsed() < AFTERMATH) {
        if !stand.world.alive() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
        if asked.elapsed() < ASK {
            continue;
        }
        asked = Instant::now();
        let path = format!("/runs?limit=10&repository={}", stand.site.repository);
        let Ok((200, answer)) = stand.world.try_api("GET", &path, None) else { continue };
        let runs = answer["runs"].as_array().cloned().unwrap_or_default();
        let ended = |run: &serde_json::Value| {
            run["kind"] == "target" && run["commit"] == change.commit.as_str() && !run["outcome"].is_null()
        };
        if over.is_none() && runs.iter().any(ended) {
            over = Some(Instant::now());
        }
    }
    !stand.world.alive()
}

/// Whether git was told that its push went well.
fn end_push(git: &mut Child) -> Result<bool, String> {
    let until = Instant::now() + HANGING;
    loop {
        if let Some(status) = git.try_wait().map_err(|error| format!("git: {error}"))? {
            return Ok(status.success());
        }
        if Instant::now() > until {
            git.kill().map_err(|error| format!("git: {error}"))?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Pushes again if the first push did not arrive, waits for the end, and checks it.
fn afterwards(
    stand: &mut Stand,
    change: &Change,
    reference: &Reference,
    arrived: bool,
) -> Result<Vec<Finding>, String> {
    let head = stand.site.remote_head("refs/heads/main");
    if head.as_deref() != Some(change.commit.as_str()) {
        if arrived {
            return Ok(vec![lost(format!("git was told that {} arrived, and main is at {head:?}", change.commit))]);
        }
        let output = stand.site.try_push(&["--force", "HEAD:refs/heads/main"]);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Ok(vec![lost(format!("the push cannot be repeated: {}", said.trim()))]);
        }
    }
    let run = stand.world.run_of(&stand.site.repository, "target", &change.commit);
    let status = stand.world.wait(run);
    stand.finished(&change.commit)?;
    let mut findings = check::change(stand, change, reference, run, &status)?;
    stand.page.clone_from(&change.page);
    findings.extend(check::site(stand));
    Ok(findings)
}
