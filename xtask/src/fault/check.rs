//! Whether a run ended as it would have.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::World;
use serde_json::Value;

use super::stand::{Change, Reference, Stand};
use crate::processes::{Tree, command_line};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Something that should be there is not, or is not as it should be.
    Lost,
    /// Something is there twice.
    Doubled,
    /// A number of the event log is missing.
    Gap,
    /// The site did not answer, or not well.
    Site,
}

/// One thing that is wrong.
pub(crate) struct Finding {
    pub(crate) wrong: Wrong,
    pub(crate) text: String,
}

pub(crate) fn lost(text: impl Into<String>) -> Finding {
    Finding { wrong: Wrong::Lost, text: text.into() }
}

fn doubled(text: impl Into<String>) -> Finding {
    Finding { wrong: Wrong::Doubled, text: text.into() }
}

/// Compares one count with what it should be.
fn counted(what: &str, seen: i64, expected: i64) -> Option<Finding> {
    let text = format!("{what}: {seen} instead of {expected}");
    match seen.cmp(&expected) {
        std::cmp::Ordering::Less => Some(lost(text)),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(doubled(text)),
    }
}

/// Everything that is wrong with the end of a change whose run has ended.
pub(crate) fn change(
    stand: &Stand,
    change: &Change,
    reference: &Reference,
    run: i64,
    status: &Value,
) -> Result<Vec<Finding>, String> {
    let kind = change.kind;
    let mut findings = Vec::new();
    if status["outcome"] != kind.outcome() {
        let cause = &status["cause"];
        findings.push(lost(format!("run {run} ended {}, not {}: {cause}", status["outcome"], kind.outcome())));
    }
    let events = stand.world.events_after(stand.seq);
    findings.extend(gaps(&events, stand.seq));
    findings.extend(deliveries(&events, &change.commit));
    findings.extend(event_counts(&events, reference));
    let visible = stand.visible()?;
    findings.extend(counted("visible manifests", visible.manifests - stand.visible.manifests, kind.images()));
    findings.extend(counted("artifacts", visible.artifacts - stand.visible.artifacts, kind.images()));
    findings.extend(image(stand, change, &events));
    findings.extend(commits(stand, change, run));
    findings.extend(snapshot(stand, change, status));
    match World::ask(&stand.url) {
        Some((200, body)) if body == change.page => {}
        other => findings.push(lost(format!("the site answers {other:?}, not {:?}", change.page))),
    }
    Ok(findings)
}

/// Whether the numbers after `before` follow each other.
pub(crate) fn gaps(events: &[Value], before: i64) -> Option<Finding> {
    let wrong = (before + 1..).zip(events).find(|(expected, event)| event["seq"] != *expected);
    let (expected, event) = wrong?;
    Some(Finding { wrong: Wrong::Gap, text: format!("the event after {} is {}", expected - 1, event["seq"]) })
}

/// One push is one delivery; our own commits and restarts make none.
fn deliveries(events: &[Value], commit: &str) -> Vec<Finding> {
    let created: Vec<&Value> = events.iter().filter(|it| it["event"] == "deliveryCreated").collect();
    let mine = created.iter().filter(|it| it["delivery"]["commit"] == commit).count();
    let mut findings: Vec<Finding> =
        counted("deliveries of the push", i64::try_from(mine).unwrap_or(-1), 1).into_iter().collect();
    for other in created.iter().filter(|it| it["delivery"]["commit"] != commit) {
        let delivery = &other["delivery"];
        findings.push(doubled(format!(
            "a delivery nobody asked for, of {} at {}",
            delivery["refName"], delivery["commit"]
        )));
    }
    findings
}

fn event_counts(events: &[Value], reference: &Reference) -> Vec<Finding> {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for event in events {
        *seen.entry(event["event"].as_str().unwrap_or_default()).or_insert(0) += 1;
    }
    let names = reference.events.keys().map(String::as_str).chain(seen.keys().copied());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    let compare = |name: &str| {
        let count = |counts: Option<&u64>| i64::try_from(counts.copied().unwrap_or(0)).unwrap_or(-1);
        counted(&format!("events {name}"), count(seen.get(name)), count(reference.events.get(name)))
    };
    names.into_iter().filter_map(compare).collect()
}

/// The image is in the registry under its commit's tag, as the event says.
fn image(stand: &Stand, change: &Change, events: &[Value]) -> Vec<Finding> {
    let built = events.iter().filter(|it| it["event"] == "imageBuilt");
    let mut findings = Vec::new();
    for event in built {
        let said =
            event["image"]["digest"].as_str().or_else(|| event["image"].as_str()?.split_once('@').map(|it| it.1));
        let Some(said) = said else {
            findings.push(lost(format!("the event says of the image only {}", event["image"])));
            continue;
        };
        let tag = &change.commit[..8];
        for reference in [tag, said] {
            let found = stand.world.manifest(&stand.site.repository, reference);
            if found.as_deref() != Some(said) {
                findings.push(lost(format!("the image {reference} is {found:?} in the registry, not {said}")));
            }
        }
    }
    findings
}

/// The commits that this change made on the GitOps branch.
fn commits(stand: &Stand, change: &Change, run: i64) -> Vec<Finding> {
    let site = &stand.site;
    site.git(&["fetch", "--quiet", site.url(), "deploy"]);
    let range = format!("{}..FETCH_HEAD", stand.deployed);
    let count = |trailer: &str| {
        let format = format!("--format=%(trailers:key={trailer},valueonly,separator=%x2C)");
        let text = site.git(&["log", &format, &range]);
        let mine = text.lines().filter(|line| *line == run.to_string()).count();
        i64::try_from(mine).unwrap_or(-1)
    };
    let reverts = i64::from(change.kind == super::plan::Kind::Broken);
    let all: i64 = site.git(&["rev-list", "--count", &range]).parse().unwrap_or(-1);
    let images = change.kind.images();
    let findings = [
        counted("GitOps commits of the run", count("Towpath-Run"), images),
        counted("GitOps commits that take the run back", count("Towpath-Revert"), reverts),
        counted("GitOps commits", all, images + reverts),
    ];
    findings.into_iter().flatten().collect()
}

/// The snapshot can be fetched, and is the commit.
fn snapshot(stand: &Stand, change: &Change, status: &Value) -> Option<Finding> {
    let Some(name) = status["status"]["snapshotRef"].as_str() else {
        return Some(lost(format!("the status says of the snapshot {}", status["status"]["snapshotRef"])));
    };
    let output = stand.world.git().try_run(stand.site.dir(), &["fetch", "--quiet", stand.site.url(), name]);
    if !output.status.success() {
        return Some(lost(format!("{name} cannot be fetched: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let head = stand.site.git(&["rev-parse", "FETCH_HEAD"]);
    (head != change.commit).then(|| lost(format!("{name} is {head}, not {}", change.commit)))
}

/// What the site failed to answer since this was asked last.
pub(crate) fn site(stand: &mut Stand) -> Vec<Finding> {
    let seen = stand.asker.seen();
    let new = seen.failures[stand.counted..].iter();
    let findings = new.map(|text| Finding { wrong: Wrong::Site, text: text.clone() }).collect();
    stand.counted = seen.failures.len();
    findings
}

/// Whether the repositories are whole.
pub(crate) fn repositories(stand: &Stand) -> Result<Vec<Finding>, String> {
    let dir = stand.world.data().join("git");
    let mut findings = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.extension().is_none_or(|extension| extension != "git") {
            continue;
        }
        let output = stand.world.git().try_run(&path, &["fsck", "--full", "--no-dangling", "--no-progress"]);
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !output.status.success() || !said.is_empty() {
            findings.push(lost(format!("git fsck {}: {} {said}", path.display(), output.status)));
        }
    }
    Ok(findings)
}

/// When all is over: a log without a gap, whole repositories, and no supervisor too many or too few.
pub(crate) fn end(stand: &Stand) -> Result<Vec<Finding>, String> {
    let mut findings: Vec<Finding> = gaps(&stand.world.events_after(0), 0).into_iter().collect();
    findings.extend(repositories(stand)?);
    // What gave way may take its time to end.
    let until = Instant::now() + Duration::from_secs(60);
    let expected = [("__workload site", 1), ("__workload service", 1), ("__workload job", 0)];
    loop {
        let lines: Vec<String> = Tree::new(stand.world.data()).look().iter().map(|it| command_line(it.pid)).collect();
        let count = |what: &str| i64::try_from(lines.iter().filter(|line| line.contains(what)).count()).unwrap_or(-1);
        let wrong: Vec<_> =
            expected.into_iter().filter_map(|(what, number)| counted(what, count(what), number)).collect();
        if wrong.is_empty() || Instant::now() > until {
            findings.extend(wrong);
            return Ok(findings);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_gap_is_found() {
        let events = |seqs: &[i64]| seqs.iter().map(|seq| json!({ "seq": seq })).collect::<Vec<_>>();
        assert!(gaps(&events(&[4, 5, 6]), 3).is_none());
        assert!(gaps(&events(&[5, 6]), 3).is_some());
        assert!(gaps(&events(&[4, 6]), 3).is_some());
        assert!(gaps(&[], 3).is_none());
    }

    #[test]
    fn deliveries_are_counted() {
        let created = |commit: &str| json!({ "event": "deliveryCreated", "delivery": { "commit": commit } });
        assert!(deliveries(&[created("a")], "a").is_empty());
        let wrong = |events: &[Value]| deliveries(events, "a").first().map(|finding| finding.wrong);
        assert_eq!(wrong(&[]), Some(Wrong::Lost));
        assert_eq!(wrong(&[created("a"), created("a")]), Some(Wrong::Doubled));
        assert_eq!(wrong(&[created("a"), created("b")]), Some(Wrong::Doubled));
    }
}
