//! What the faults are tried on: a server with one site, asked all the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::{Asker, Options, Program, Site, World};
use serde_json::Value;
use tempfile::TempDir;

use super::plan::{Kind, Passes};
use crate::unsynced::Unsynced;

/// The pause between two questions to the site.
const ASK: Duration = Duration::from_millis(5);
/// How long events may take that follow the end of a run.
const AFTERWARDS: Duration = Duration::from_secs(20);
/// How long the site may take to be back after a power cut.
const COMING_BACK: Duration = Duration::from_secs(30);

pub(crate) struct Stand {
    pub(crate) world: World,
    pub(crate) site: Site,
    pub(crate) asker: Asker,
    /// Failures of the asker that were counted already.
    pub(crate) counted: usize,
    /// Answers that earlier askers got.
    pub(crate) asked: u64,
    /// Where the site answers.
    pub(crate) url: String,
    /// The page that is live.
    pub(crate) page: String,
    /// The last event before the push.
    pub(crate) seq: i64,
    /// The head of the GitOps branch before the push.
    pub(crate) deployed: String,
    /// Manifests and artifacts before the push.
    pub(crate) visible: Visible,
    dockerfile: String,
    changes: u64,
    /// What the data is on, if it forgets what was not synced. It goes after the server.
    pub(crate) disk: Option<Unsynced>,
    _place: TempDir,
}

/// What the records say is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visible {
    pub(crate) manifests: i64,
    pub(crate) artifacts: i64,
}

/// A commit that is ready to be pushed.
pub(crate) struct Change {
    pub(crate) kind: Kind,
    pub(crate) commit: String,
    /// The page that is to be live when its run has ended.
    pub(crate) page: String,
}

/// How the run of a change ends that nothing disturbs.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) kind: Kind,
    /// From the push to the end of the run.
    pub(crate) length: Duration,
    /// How many events there are of each name.
    pub(crate) events: BTreeMap<String, u64>,
    transactions: u64,
    effects: u64,
}

impl Stand {
    /// A site that is live; with its data on a disk that forgets, if asked for.
    pub(crate) fn start(unsynced: bool) -> Result<Self, String> {
        let place = TempDir::new().map_err(|error| format!("a temporary directory: {error}"))?;
        let data = place.path().join("disk");
        let disk = if unsynced { Some(Unsynced::mount(&data)?) } else { None };
        let options = Options { program: Program::Fault, data: Some(data), ..Options::default() };
        let world = World::start(options).ok_or("this needs a static busybox")?;
        let site = Site::new(&world, "site");
        // A broken rollout is waited for no longer than this.
        world.apply(&site.target_yaml().replace("timeoutSeconds: 20", "timeoutSeconds: 4"));
        site.write("page.txt", "page 0\n");
        let commit = site.commit("feat: the first page");
        site.push("main");
        let run = world.run_of(&site.repository, "target", &commit);
        let status = world.wait(run);
        if status["outcome"] != "succeeded" {
            return Err(format!("the first push did not go well: {}\n{}", status["cause"], world.server_log()));
        }
        let url = status["address"].as_str().ok_or("the site has no address")?.to_owned();
        let dockerfile = std::fs::read_to_string(site.dir().join("Dockerfile")).map_err(|error| error.to_string())?;
        let asker = ask(&url);
        let visible = Visible { manifests: 0, artifacts: 0 };
        let page = "page 0\n".to_owned();
        let deployed = String::new();
        let mut stand = Self {
            world,
            site,
            asker,
            counted: 0,
            asked: 0,
            url,
            page,
            seq: 0,
            deployed,
            visible,
            dockerfile,
            changes: 0,
            disk,
            _place: place,
        };
        stand.finished(&commit)?;
        stand.look()?;
        Ok(stand)
    }

    /// Cuts the power if the data is on a disk that forgets. The site is gone with it until [`Stand::back`].
    pub(crate) fn cut(&mut self) -> Result<(), String> {
        match &mut self.disk {
            Some(disk) => disk.cut(),
            None => Ok(()),
        }
    }

    /// Waits until the site is back after a power cut, and asks it from then on.
    pub(crate) fn back(&mut self) -> Result<(), String> {
        if self.disk.is_none() {
            return Ok(());
        }
        let until = Instant::now() + COMING_BACK;
        while World::ask(&self.url).is_none_or(|(status, _)| status != 200) {
            if Instant::now() > until {
                return Err(format!("the site is not back at {} after {} s", self.url, COMING_BACK.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let before = std::mem::replace(&mut self.asker, ask(&self.url));
        self.asked += before.finish().answered;
        self.counted = 0;
        Ok(())
    }

    /// Remembers how things are before a push.
    pub(crate) fn look(&mut self) -> Result<(), String> {
        self.seq = self
            .world
            .events_after(self.seq)
            .iter()
            .filter_map(|event| event["seq"].as_i64())
            .max()
            .unwrap_or(self.seq);
        self.deployed = self.site.remote_head("refs/heads/deploy").ok_or("there is no GitOps branch")?;
        self.visible = self.visible()?;
        Ok(())
    }

    /// Counts what the records hold.
    pub(crate) fn visible(&self) -> Result<Visible, String> {
        let path = self.world.data().join("towpath.db");
        let count = |table: &str| {
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            let records = rusqlite::Connection::open_with_flags(&path, flags)?;
            records.busy_timeout(Duration::from_secs(10))?;
            records.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
        };
        let broken = |error: rusqlite::Error| format!("{}: {error}", path.display());
        let manifests = count("registry_manifests").map_err(broken)?;
        Ok(Visible { manifests, artifacts: count("artifacts").map_err(broken)? })
    }

    /// Commits a change, the same whatever was pushed before.
    pub(crate) fn change(&mut self, kind: Kind) -> Change {
        self.changes += 1;
        let number = self.changes;
        let page = if kind == Kind::Page { format!("page {number}\n") } else { self.page.clone() };
        match kind {
            Kind::Page | Kind::Docs => {
                self.site.write("Dockerfile", &self.dockerfile);
                self.site.write("page.txt", &page);
            }
            Kind::Broken => {
                self.site.write("Dockerfile", self.dockerfile.replace("/out/health.json", "/out/elsewhere.json"));
                self.site.write("page.txt", format!("page {number} is broken\n"));
            }
        }
        if kind == Kind::Docs {
            self.site.write("README.md", format!("Text {number}.\n"));
        }
        let commit = self.site.commit(&format!("{}: {number}", kind.name()));
        Change { kind, commit, page }
    }

    /// Waits until the delivery of a commit has finished.
    pub(crate) fn finished(&self, commit: &str) -> Result<(), String> {
        let until = Instant::now() + AFTERWARDS;
        while Instant::now() < until {
            let events = self.world.events_after(self.seq);
            let created = events.iter().filter(|it| it["event"] == "deliveryCreated");
            let mine: Vec<&Value> = created.filter(|it| it["delivery"]["commit"] == commit).collect();
            let ids: Vec<&Value> = mine.iter().map(|it| &it["delivery"]["id"]).collect();
            let ended =
                |id: &&&Value| events.iter().any(|it| it["event"] == "deliveryFinished" && it["deliveryId"] == ***id);
            if !ids.is_empty() && ids.iter().filter(ended).count() == ids.len() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("the delivery of {commit} does not finish"))
    }

    /// Pushes a change of this kind while nothing disturbs.
    pub(crate) fn reference(&mut self, kind: Kind) -> Result<Reference, String> {
        self.look()?;
        let change = self.change(kind);
        let began = Instant::now();
        self.site.push("main");
        let run = self.world.run_of(&self.site.repository, "target", &change.commit);
        let status = self.world.wait(run);
        let length = began.elapsed();
        if status["outcome"] != kind.outcome() {
            let name = kind.name();
            return Err(format!("without faults, the change {name} ended {}: {}", status["outcome"], status["cause"]));
        }
        self.finished(&change.commit)?;
        self.page = change.page;
        let events = self.world.events_after(self.seq);
        let (mut counts, mut times) = (BTreeMap::new(), Vec::new());
        for event in &events {
            let name = event["event"].as_str().unwrap_or_default().to_owned();
            *counts.entry(name).or_insert(0) += 1;
            times.push(event["at"].to_string());
        }
        // What was written together has one time. Two transactions of one millisecond count as one, which loses a point.
        times.dedup();
        Ok(Reference { kind, length, effects: effects(&counts), events: counts, transactions: times.len() as u64 })
    }
}

/// Asks the site all the time.
fn ask(url: &str) -> Asker {
    Asker::start(url, ASK, |body| body.starts_with("page ") && body.ends_with('\n'))
}

/// How many effects led to these events.
fn effects(events: &BTreeMap<String, u64>) -> u64 {
    let count = |name: &str| events.get(name).copied().unwrap_or(0);
    let ends = ["snapshotPinned", "workflowsPlanned", "jobFinished", "reuseDecided", "gitopsCommitted", "closedOut"];
    let failed_rollout = count("gitopsReverted").max(count("rolledOut"));
    ends.into_iter().map(count).sum::<u64>() + count("imageBuilt").min(1) + failed_rollout + count("gitopsReverted")
}

impl Reference {
    /// The named points on its way.
    pub(crate) fn passes(&self) -> Vec<Passes> {
        let kind = self.kind;
        let pass = |name, count| Passes { kind, name, count };
        // Of these the log says nothing: what is not on the way is left out when that turns out.
        let (blobs, commits) = if kind == Kind::Docs { (1, 8) } else { (4, 14) };
        vec![
            pass("before-sync", self.transactions),
            pass("after-sync", self.transactions),
            pass("before-effect", self.effects),
            pass("after-effect", self.effects),
            pass("before-blob-sync", blobs),
            pass("after-blob-sync", blobs),
            pass("before-commit", commits),
            pass("after-commit", commits),
        ]
    }
}
