//! Pushes that come close together, many at once, or large.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{MemoryWatch, Options, Site, World, page};
use serde_json::{Value, json};

/// What the whole process tree of a server may take, in bytes.
const MOST_MEMORY: u64 = 200 << 20;

fn start(name: &str) -> Option<(World, Site)> {
    let world = World::start(Options::default())?;
    let site = Site::new(&world, name);
    Some((world, site))
}

fn deliver(world: &World, site: &Site, outcome: &str) -> Value {
    site.push("main");
    let commit = site.git(&["rev-parse", "HEAD"]);
    let status = world.delivered_within(site, &commit, Duration::from_secs(400));
    assert_eq!(status["outcome"], outcome, "{status:#}");
    status
}

/// What the events say of the runs of one target.
fn effects(world: &World, runs: &[i64]) -> Value {
    let count = |event: &str| runs.iter().map(|run| world.count(event, *run)).sum::<usize>();
    json!({ "commits": count("gitopsCommitted"), "rollouts": count("rolledOut"), "closeouts": count("closedOut") })
}

#[test]
fn of_two_pushes_close_together_the_older_is_superseded() {
    let Some((world, site)) = start("twice") else { return };
    deliver(&world, &site, "succeeded");
    let before = site.git(&["rev-list", "--count", &fetched_deploy(&world, &site)]);
    site.write("page.txt", "two\n");
    let older = site.commit("feat: two");
    site.push("main");
    std::thread::sleep(Duration::from_millis(10));
    let newer = site.change_page("three");

    let (old, new) = (world.delivered(&site, &older), world.delivered(&site, &newer));
    assert_eq!((&old["outcome"], &new["outcome"]), (&json!("superseded"), &json!("succeeded")), "{old:#}\n{new:#}");
    assert!(old["cause"]["message"].as_str().unwrap().contains(&newer[..8]), "{old:#}");
    assert_eq!(page(&new), "three\n");
    let runs = [&old, &new].map(|status| status["run"].as_i64().unwrap());
    assert_eq!(effects(&world, &runs), json!({ "commits": 1, "rollouts": 1, "closeouts": 1 }));
    let after = site.git(&["rev-list", "--count", &fetched_deploy(&world, &site)]);
    assert_eq!(after.parse::<u32>().unwrap(), before.parse::<u32>().unwrap() + 1);
    // Nothing of the older one is left under way.
    let open = world.runs(&site.repository).into_iter().filter(|run| run["outcome"].is_null()).count();
    assert_eq!(open, 0);
}

fn fetched_deploy(world: &World, site: &Site) -> String {
    site.git(&["fetch", "--quiet", &url(world, site), "refs/heads/deploy"]);
    site.git(&["rev-parse", "FETCH_HEAD"])
}

fn url(world: &World, site: &Site) -> String {
    format!("{}/{}.git", world.url(), site.repository)
}

#[test]
fn of_twenty_branches_in_one_push_only_the_configured_ones_run() {
    let Some((world, site)) = start("many") else { return };
    site.edit(".towpath/workflows/check.yaml", "[main]", "[main, 'release/**', '!release/old']");
    let feature = "name: feature\non:\n  push:\n    branches: ['feature/*']\njobs:\n  look:\n    runs-on: linux\n    steps:\n      - run: 'true'\n";
    site.write(".towpath/workflows/feature.yaml", feature);
    let commit = site.commit("ci: two workflows");
    let mut branches =
        vec!["main", "release/1", "release/2/hotfix", "release/old", "feature/a", "feature/b", "feature/c/d"];
    let others: Vec<_> = (branches.len()..20).map(|number| format!("other-{number}")).collect();
    branches.extend(others.iter().map(String::as_str));
    assert_eq!(branches.len(), 20);
    let earlier = count(&world, "deliveryCreated");
    let specs: Vec<_> = branches.iter().map(|branch| format!("HEAD:refs/heads/{branch}")).collect();
    let output = site.try_push(&specs.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let status = world.delivered(&site, &commit);
    assert_eq!(status["outcome"], "succeeded", "{status:#}");
    // The other deliveries of the push may take longer than that of main.
    let until = Instant::now() + Duration::from_secs(60);
    let expected = [
        "target many main",
        "workflow check main",
        "workflow check release/1",
        "workflow check release/2/hotfix",
        "workflow feature feature/a",
        "workflow feature feature/b",
    ];
    let found = loop {
        let mut found: Vec<_> =
            world.runs(&site.repository).iter().filter(|run| run["outcome"] == "succeeded").map(named).collect();
        found.sort();
        if found == expected || Instant::now() > until {
            break found;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(found, expected);
    assert_eq!(world.runs(&site.repository).len(), expected.len(), "no other run was made");
    assert_eq!(count(&world, "deliveryCreated") - earlier, 20, "each branch has its snapshot");
    wait_until("nothing is left to do", || count(&world, "deliveryFinished") == earlier + 20);
}

fn count(world: &World, event: &str) -> usize {
    world.whole_log().iter().filter(|it| it["event"] == event).count()
}

fn named(run: &Value) -> String {
    let text = |key: &str| run[key].as_str().unwrap().trim_start_matches("refs/heads/").to_owned();
    format!("{} {} {}", text("kind"), text("name"), text("refName"))
}

#[test]
fn a_force_push_during_a_build_takes_over() {
    let Some((world, site)) = start("forced") else { return };
    let first = deliver(&world, &site, "succeeded");
    site.edit("Dockerfile", "RUN mkdir", "RUN sleep 2 && mkdir");
    site.write("page.txt", "two\n");
    let old = site.commit("feat: two");
    site.push("main");
    let run = world.run_of(&site.repository, "target", &old);
    world.until_stage(run, "build");

    site.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    site.write("page.txt", "three\n");
    let new = site.commit("feat: three");
    site.push("main");
    let (old, new) = (world.delivered(&site, &old), world.delivered(&site, &new));
    assert_eq!((&old["outcome"], &new["outcome"]), (&json!("superseded"), &json!("succeeded")), "{old:#}\n{new:#}");
    assert_eq!(page(&new), "three\n");
    assert_eq!(new["address"], first["address"]);
    let snapshot = old["status"]["snapshotRef"].as_str().unwrap();
    assert_eq!(site.remote_file(snapshot, "page.txt"), "two", "nothing else holds this commit any more");
    assert!(!world.tags(&site.repository).contains(&old["status"]["sourceCommit"].as_str().unwrap()[..8].to_owned()));
    let runs = [&old, &new].map(|status| status["run"].as_i64().unwrap());
    assert_eq!(effects(&world, &runs), json!({ "commits": 1, "rollouts": 1, "closeouts": 1 }));
}

/// Whether a process with exactly these arguments runs anywhere on the machine.
fn runs(arguments: &[&str]) -> bool {
    let wanted = arguments.join("\0") + "\0";
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
}

#[test]
fn a_deleted_branch_ends_its_runs_and_not_its_site() {
    let Some((world, site)) = start("gone") else { return };
    let first = deliver(&world, &site, "succeeded");
    // A number that no other process sleeps for.
    let sleep = format!("{}", 100_000 + std::process::id());
    site.edit(".towpath/workflows/check.yaml", "test -s page.txt", &format!("sleep {sleep}"));
    let commit = site.change_page("two");
    let target = world.run_of(&site.repository, "target", &commit);
    let workflow = world.run_of(&site.repository, "workflow", &commit);
    wait_until("the job sleeps", || runs(&["sleep", &sleep]));

    site.git(&["push", "--quiet", &url(&world, &site), ":refs/heads/main"]);
    for run in [target, workflow] {
        let status = world.wait(run);
        assert_eq!(status["outcome"], "cancelled", "{status:#}");
        assert!(status["cause"]["message"].as_str().unwrap().contains("main was deleted"), "{status:#}");
    }
    wait_until("the job has ended", || !runs(&["sleep", &sleep]));
    assert_eq!(page(&first), "one\n");
    let live = world.get("/targets/gone/status");
    assert_eq!(live["status"]["runtimeTargetSha"], first["status"]["sourceCommit"]);

    // The branch comes back, with a job that ends.
    site.edit(".towpath/workflows/check.yaml", &format!("sleep {sleep}"), "true");
    site.commit("ci: less patient");
    let status = deliver(&world, &site, "succeeded");
    assert_eq!(page(&status), "two\n");
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Delivers what is committed, then a change of the README alone; nothing is built a second time, and the memory stays
/// within its bound all the while.
fn deliver_large(world: &World, site: &Site) -> Value {
    let watch = MemoryWatch::start(world);
    let first = deliver(world, site, "succeeded");
    let tags = world.tags(&site.repository);
    site.write("README.md", "Large.\n");
    site.commit("docs: say so");
    let docs = deliver(world, site, "reused");
    check_peak(watch);
    assert_eq!(world.tags(&site.repository), tags);
    assert_eq!(docs["status"]["imageDigest"], first["status"]["imageDigest"]);
    assert_eq!(count(world, "imageBuilt"), 1);
    assert_eq!(page(&docs), "one\n");
    first
}

fn check_peak(watch: MemoryWatch) {
    let peak = watch.peak();
    eprintln!("peak {} MB: {:?}", peak.bytes >> 20, peak.processes);
    assert!(peak.bytes < MOST_MEMORY, "{} MB: {:?}", peak.bytes >> 20, peak.processes);
}

fn write_random(path: &Path, megabytes: u64) {
    let mut random = std::fs::File::open("/dev/urandom").unwrap().take(megabytes << 20);
    std::io::copy(&mut random, &mut std::fs::File::create(path).unwrap()).unwrap();
}

#[test]
fn a_large_binary_is_taken_within_little_memory_and_built_once() {
    const MEGABYTES: u64 = 300;
    let Some((world, site)) = start("large") else { return };
    // The client's own work is not what is looked at.
    site.git(&["config", "core.compression", "0"]);
    site.git(&["config", "core.bigFileThreshold", "1m"]);
    write_random(&site.dir().join("large.bin"), MEGABYTES);
    site.edit("Dockerfile", "EXPOSE", "COPY large.bin /www/\nEXPOSE");
    site.commit("feat: something large");
    let status = deliver_large(&world, &site);
    let digest = status["status"]["imageDigest"].as_str().unwrap();
    let (code, manifest) = world.pull(&format!("{}/manifests/{digest}", site.repository));
    assert_eq!(code, 200);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let largest = manifest["layers"].as_array().unwrap().iter().filter_map(|layer| layer["size"].as_u64()).max();
    assert!(largest.unwrap() > MEGABYTES << 20, "{manifest:#}");
}

#[test]
fn fifty_thousand_files_are_taken_within_little_memory_and_built_once() {
    const FILES: usize = 50_000;
    let Some((world, site)) = start("files") else { return };
    for directory in 0..FILES / 500 {
        let dir = site.dir().join(format!("files/{directory}"));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..500 {
            let mut file_out = std::fs::File::create(dir.join(format!("{file}.txt"))).unwrap();
            writeln!(file_out, "This is file {file} of directory {directory}.").unwrap();
        }
    }
    site.edit("Dockerfile", "EXPOSE", "COPY files /www/files\nEXPOSE");
    site.commit("feat: many files");
    let status = deliver_large(&world, &site);
    let address = status["address"].as_str().unwrap().trim_end_matches('/');
    let last = World::ask(&format!("{address}/files/99/499.txt"));
    assert_eq!(last, Some((200, "This is file 499 of directory 99.\n".to_owned())));

    // What the first build took is not added to by the next ones.
    let watch = MemoryWatch::start(&world);
    for round in 0..3 {
        site.write(&format!("files/7/{round}.txt"), "another text\n");
        site.commit("feat: one file of many");
        deliver(&world, &site, "succeeded");
    }
    check_peak(watch);
    assert_eq!(World::ask(&format!("{address}/files/7/2.txt")), Some((200, "another text\n".to_owned())));
}
