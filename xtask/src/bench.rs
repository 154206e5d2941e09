//! `cargo xtask bench path`: how long a push takes to be seen, and what it costs.

mod meter;
pub(crate) mod registry;
mod table;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use e2e::{Options, Program, Site, World};
use serde_json::Value;

use meter::Meter;
use table::Report;

/// How long any one push may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two questions for new content.
const ASK: Duration = Duration::from_millis(3);

/// Something of the event log, and when it was heard.
struct Heard {
    at: Instant,
    event: Value,
}

struct Bench {
    world: Arc<World>,
    site: Site,
    events: Receiver<Heard>,
    url: String,
}

/// What one push took, in milliseconds.
#[derive(Default)]
struct Push {
    first_line: Option<f64>,
    served: Option<f64>,
    ended: f64,
}

pub(crate) fn path(words: &[&str]) -> Result<(), String> {
    let pushes: u32 = crate::option(words, "--pushes", 30)?;
    let json = words.contains(&"--json");
    let options = Options { program: Program::Release, ..Options::default() };
    let world = World::start(options).ok_or("the benchmark needs a static busybox")?;
    let mut bench = Bench::new(world)?;
    let meter = Meter::start(bench.world.data());
    let mut report = Report { pushes, ..Report::default() };
    let before = meter.cpu();
    for number in 1..=pushes {
        let push = bench.page(&format!("page {number}"))?;
        report.page_first_line.add(push.first_line.ok_or("the job has no log")?);
        report.page_served.add(push.served.ok_or("the page was not served")?);
        report.page_ended.add(push.ended);
    }
    let between = meter.cpu();
    for number in 1..=pushes {
        let push = bench.docs(&format!("Text {number}.\n"))?;
        report.docs_first_line.add(push.first_line.ok_or("the job has no log")?);
        report.docs_ended.add(push.ended);
    }
    let after = meter.cpu();
    report.page_cpu = (between - before) / f64::from(pushes.max(1));
    report.docs_cpu = (after - between) / f64::from(pushes.max(1));
    let peak = meter.peak();
    (report.peak_rss, report.peak_pss, report.processes) = (peak.rss, peak.pss, peak.processes);
    println!("{}", if json { report.json() } else { report.text() });
    Ok(())
}

impl Bench {
    fn new(world: World) -> Result<Self, String> {
        let site = Site::new(&world, "site");
        let commit = site.git(&["rev-parse", "HEAD"]);
        let world = Arc::new(world);
        site.push("main");
        let run = world.run_of(&site.repository, "target", &commit);
        let status = world.wait(run);
        if status["outcome"] != "succeeded" {
            return Err(format!("the first push did not go well: {}", status["cause"]));
        }
        let url = status["address"].as_str().ok_or("the site has no address")?.to_owned();
        let last = world.events_after(0).iter().filter_map(|event| event["seq"].as_i64()).max().unwrap_or(0);
        let stream = world.stream(&format!("/events?after={last}&follow=true"));
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let heard = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let Some(event) = heard else { return };
                if sender.send(Heard { at: Instant::now(), event }).is_err() {
                    return;
                }
            }
        });
        Ok(Self { world, site, events, url })
    }

    fn page(&mut self, page: &str) -> Result<Push, String> {
        self.site.write("page.txt", format!("{page}\n"));
        self.site.commit(&format!("feat: {page}"));
        self.push(Some(format!("{page}\n")), "succeeded")
    }

    fn docs(&mut self, text: &str) -> Result<Push, String> {
        self.site.write("README.md", text);
        self.site.commit("docs: change");
        self.push(None, "reused")
    }

    /// Pushes, and waits until the run ended, its job's first line was read, and `content` was served.
    fn push(&mut self, content: Option<String>, outcome: &str) -> Result<Push, String> {
        let began = Instant::now();
        let mut command = self.site.push_command("main");
        let mut git =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|error| format!("git: {error}"))?;
        let served = content.map(|content| {
            let url = self.url.clone();
            std::thread::spawn(move || served(&url, &content))
        });
        let mut push = Push::default();
        let mut line = None;
        loop {
            let heard = match self.events.recv_timeout(PATIENCE) {
                Ok(heard) => heard,
                Err(RecvTimeoutError::Timeout) => return Err("a run does not end".into()),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("the event log ended\n{}", self.world.server_log()));
                }
            };
            let event = &heard.event;
            match event["event"].as_str() {
                Some("workflowsPlanned") => line = self.first_line(event),
                Some("targetRunFinished") if event["outcome"] != outcome => {
                    return Err(format!("a run ended {}, not {outcome}: {}", event["outcome"], event["cause"]));
                }
                Some("targetRunFinished") => push.ended = millis(heard.at - began),
                Some("deliveryFinished") => break,
                _ => {}
            }
        }
        let joined = |thread: Option<std::thread::JoinHandle<Option<Instant>>>| thread.and_then(|it| it.join().ok()?);
        push.first_line = joined(line).map(|at| millis(at - began));
        push.served = joined(served).map(|at| millis(at - began));
        let status = git.wait().map_err(|error| format!("git: {error}"))?;
        if status.success() { Ok(push) } else { Err(format!("git push: {status}")) }
    }

    /// When somebody who follows the log of the first job gets its first bytes.
    fn first_line(&self, planned: &Value) -> Option<std::thread::JoinHandle<Option<Instant>>> {
        let run = planned["runs"][0]["run"].as_i64()?;
        let job = planned["runs"][0]["jobs"][0]["job"].as_i64()?;
        let mut log = self.world.stream(&format!("/runs/{run}/logs?part={job}&follow=true"));
        Some(std::thread::spawn(move || {
            let count = log.read(&mut [0; 256]).ok()?;
            (count > 0).then(Instant::now)
        }))
    }
}

/// When the site answers `content`.
fn served(url: &str, content: &str) -> Option<Instant> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if World::ask(url).is_some_and(|(status, body)| status == 200 && body == content) {
            return Some(Instant::now());
        }
        std::thread::sleep(ASK);
    }
    None
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
