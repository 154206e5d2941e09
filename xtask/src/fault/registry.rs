//! `cargo xtask fault registry`: the registry is killed at many points of mixed pushes, deletes, retention and collection.
//! What it acknowledged must be there, what it deleted must be gone, nothing may be torn, and nothing may be left over.

mod back;
mod book;
mod collector;
mod http;
mod place;
mod push;
mod records;
mod retained;
mod settle;
mod there;
mod verify;
mod work;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use book::Book;
use collector::Freed;
use http::Client;
use place::{Kind, Place};
use there::There;
use worker::{Shared, Times, Worker};

use crate::fault::plan::Random;

/// Clients that work at the same time, each with an image of its own.
const CLIENTS: u64 = 4;
/// The longest time that clients work before the server is killed.
const LONGEST: u64 = 220;
/// A named point that is not passed within this is given up, and the server killed where it is.
const PATIENCE: Duration = Duration::from_millis(700);
/// Points between two looks at every byte, and at what is left over.
const THOROUGH: u64 = 20;
/// Points between two lines that say how far it is.
const EVERY: u64 = 100;
/// How often the server's last words are printed.
const SHOWN: usize = 5;
/// Characters of a finding that are printed.
const LONGEST_TEXT: usize = 500;
/// How long clients go on after a full disk has room again.
const RECOVERED: Duration = Duration::from_millis(120);
/// The times that the registry goes by, as its file has them.
const TIMES: Times =
    Times { grace: Duration::from_secs(2), window: Duration::from_secs(2), uploads: Duration::from_secs(2) };
/// Longer than any of them.
const SETTLED: Duration = Duration::from_millis(2200);
/// The most room of a disk that is called full, in bytes.
const ROOM: u64 = 2 << 20;

/// Where the server may be told to die, and how often the point is passed at most before that.
const NAMED: [(&str, u64); 16] = [
    ("any", 400),
    ("before-commit", 60),
    ("after-commit", 60),
    ("before-blob-sync", 40),
    ("before-blob-name", 40),
    ("before-name-sync", 40),
    ("after-blob-sync", 40),
    ("after-upload-part", 20),
    ("before-unlink", 2),
    ("after-unlink", 2),
    ("before-removal", 2),
    ("after-removal", 2),
    ("before-blob-removal", 8),
    ("after-blob-aside", 8),
    ("before-retention", 2),
    ("after-retention", 2),
];

/// The same where the registry replicates.
const REPLICATED: [(&str, u64); 4] =
    [("before-replica", 12), ("after-replica", 12), ("before-dequeue", 12), ("after-replica-removal", 6)];
/// In one of so many points the registry that is replicated to is killed as well, until the next point.
const KILLED_THERE: u64 = 6;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// Something acknowledged is not there.
    Lost,
    /// Something is there whose deletion was acknowledged.
    Back,
    /// Something is there without what belongs to it, or with other bytes.
    Torn,
    /// Something is there that nobody needs, after its time.
    Leaked,
    /// A client was told something that it cannot make sense of.
    Answer,
}

/// One thing that is wrong.
struct Finding {
    wrong: Wrong,
    text: String,
}

/// What was found in all.
#[derive(Default)]
struct Tally {
    points: u64,
    /// How often the server died where it was told to, and how often it was told so, for each name.
    named: BTreeMap<&'static str, (u64, u64)>,
    lost: usize,
    back: usize,
    torn: usize,
    leaked: usize,
    answers: usize,
    /// How often the server's last words were printed.
    shown: usize,
    asked: u64,
    freed: Freed,
    /// Tags that were looked for at the registry that is replicated to, and how often that was killed.
    replicated: u64,
    killed_there: u64,
}

impl Tally {
    fn clean(&self) -> bool {
        self.lost + self.back + self.torn + self.leaked + self.answers == 0
    }

    fn line(&self) -> String {
        let Self { points, lost, back, torn, leaked, answers, asked, .. } = self;
        let named: u64 = self.named.values().map(|(died, _)| died).sum();
        format!(
            "{points} points ({named} named), {lost} lost, {back} back, {torn} torn, {leaked} left over, \
             {answers} wrong answers of {asked}"
        )
    }
}

struct Trial {
    seed: u64,
    kind: Kind,
    program: PathBuf,
    replicated: bool,
    random: Random,
    place: Place,
    books: Vec<Book>,
    tally: Tally,
}

pub(crate) fn registry(words: &[&str]) -> Result<(), String> {
    let points: u64 = crate::option(words, "--points", 1000)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed: u64 = crate::option(words, "--seed", now.as_secs())?;
    let kind = kind(words)?;
    let began = Instant::now();
    let program = match words.iter().position(|word| *word == "--program") {
        Some(at) => words.get(at + 1).ok_or("--program needs a path")?.into(),
        None => e2e::program(e2e::Program::Fault),
    };
    let replicated = words.contains(&"--replicated");
    let (books, place, tally) = (books(), Place::new(kind, &program, replicated)?, Tally::default());
    let mut trial = Trial { seed, kind, program, replicated, random: Random(seed), place, books, tally };
    println!("seed {seed}: {points} points, half of them at random times, half where the program is told to die");
    for _ in 0..points {
        trial.point()?;
    }
    trial.finish()?;
    println!("fault registry: {}", trial.tally.line());
    println!("{}", trial.tally.freed.line());
    if replicated {
        let Tally { replicated, killed_there, .. } = trial.tally;
        println!("{replicated} tags found at the other registry, which was killed {killed_there} times");
    }
    let died = trial.tally.named.iter().map(|(name, (died, told))| format!("{name} {died} of {told}"));
    println!("died at {}", died.collect::<Vec<_>>().join(", "));
    println!("seed {seed}, {:.0} s", began.elapsed().as_secs_f64());
    if trial.tally.clean() { Ok(()) } else { Err("fault registry: not everything was as it should be".into()) }
}

fn kind(words: &[&str]) -> Result<Kind, String> {
    match (words.contains(&"--unsynced"), words.contains(&"--full-disk")) {
        (false, false) => Ok(Kind::Plain),
        (true, false) => Ok(Kind::Unsynced),
        (false, true) => Ok(Kind::Small),
        (true, true) => Err("--unsynced and --full-disk are two disks: give one of them".into()),
    }
}

/// Whether the disk that these words ask for can be mounted here.
pub(crate) fn has_disk(words: &[&str]) -> Result<(), String> {
    kind(words)?.probe()
}

/// Nothing is known of any image.
fn books() -> Vec<Book> {
    (0..CLIENTS).map(|number| Book::new(format!("fault/client-{number}"))).collect()
}

impl Trial {
    /// Starts the server, looks at what the last death left, lets clients work, and kills it.
    fn point(&mut self) -> Result<(), String> {
        let thorough = self.tally.points.is_multiple_of(THOROUGH);
        let fault = (!self.tally.points.is_multiple_of(2)).then(|| {
            let named = if self.replicated { [&NAMED[..], &REPLICATED].concat() } else { NAMED.to_vec() };
            let (name, most) = named[usize::try_from(self.random.below(named.len() as u64)).unwrap_or(0)];
            (name, format!("{name}:{}", 1 + self.random.below(most)))
        });
        let name = fault.as_ref().map(|(name, _)| *name);
        if let Some(name) = name {
            self.tally.named.entry(name).or_default().1 += 1;
        }
        if !self.place.start(fault.as_ref().map(|(_, fault)| fault.as_str()))? {
            // It died on its way up, where nobody was told anything.
            self.died(name);
            self.place.start(None)?;
        }
        self.verify(thorough)?;
        if self.place.is_used_up() {
            (self.place, self.books) = (Place::new(self.kind, &self.program, self.replicated)?, books());
            self.place.start(None)?;
        }
        self.tally.points += 1;
        match self.kind {
            Kind::Small => self.work_on_a_full_disk(name)?,
            Kind::Plain | Kind::Unsynced => {
                let delay = Duration::from_millis(2 + self.random.below(LONGEST));
                self.work(name, delay, false);
            }
        }
        self.place.cut()?;
        if self.place.was_started() {
            let findings = records::used(&self.place.data())?;
            self.report(&findings);
        }
        if self.tally.points.is_multiple_of(EVERY) {
            println!("{}", self.tally.line());
        }
        Ok(())
    }

    /// It died where it was told to.
    fn died(&mut self, name: Option<&'static str>) {
        if let Some(name) = name {
            self.tally.named.entry(name).or_default().0 += 1;
        }
    }

    fn verify(&mut self, all: bool) -> Result<(), String> {
        self.each(false, false, |worker| worker.verify(all), wait);
        if self.place.alive() {
            let findings = records::check(&self.place.data())?;
            self.report(&findings);
        }
        if all && self.place.alive() {
            self.verify_there();
        }
        if all && self.place.alive() {
            let mut client = Client::new(self.place.address(), &self.place.token);
            let (freed, findings) = settle::settle(&mut client, &self.place.data(), SETTLED)?;
            self.tally.freed.add(freed);
            self.report(&findings);
        }
        Ok(())
    }

    /// Waits until everything is replicated, and looks at it.
    fn verify_there(&mut self) {
        let Some(there) = &self.place.there else { return };
        let mut client = Client::new(self.place.address(), &self.place.token);
        let (tags, findings) = there.check(&mut client, &self.books);
        self.tally.replicated += tags;
        self.report(&findings);
    }

    /// Clients work, and somebody collects, until the server dies: where it was told to, or after `delay`.
    fn work(&mut self, told: Option<&'static str>, delay: Duration, full: bool) {
        let kills_there = self.place.there.is_some() && self.random.below(KILLED_THERE) == 0;
        self.tally.killed_there += u64::from(kills_there);
        let died = self.each(
            full,
            true,
            |worker| worker.work(|| true),
            |place, _| {
                let began = Instant::now();
                let until = began + if told.is_some() { PATIENCE } else { delay };
                while place.alive() && Instant::now() < until {
                    if kills_there && began.elapsed() > delay / 2 {
                        place.there.iter_mut().for_each(There::end);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                let died = !place.alive();
                place.end();
                died
            },
        );
        if died {
            self.died(told);
        }
    }

    /// Clients work on a full disk, perhaps over a death and a start, and go on when there is room again.
    fn work_on_a_full_disk(&mut self, told: Option<&'static str>) -> Result<(), String> {
        let room = if self.random.below(2) == 0 { 0 } else { self.random.below(ROOM) };
        let ballast = self.place.fill(room)?;
        let delay = Duration::from_millis(50 + self.random.below(LONGEST));
        match self.random.below(3) {
            0 => {
                self.work(told, delay, true);
                // An administrator cannot make room before it serves.
                if let Err(why) = self.place.start(None) {
                    self.report(&[Finding { wrong: Wrong::Answer, text: format!("on a full disk: {why}") }]);
                    drop(ballast);
                    return Ok(());
                }
                self.work(None, delay, true);
                drop(ballast);
            }
            1 => {
                self.work(told, delay, true);
                drop(ballast);
            }
            _ => {
                let until = Instant::now() + delay;
                self.each(true, true, |worker| worker.work(|| Instant::now() < until), wait);
                if !self.place.alive() {
                    self.died(told);
                }
                drop(ballast);
                self.work(None, RECOVERED, false);
            }
        }
        Ok(())
    }

    /// Lets every client do something at the same time, beside one who collects if `collects`, while `watch` looks after
    /// the server.
    fn each<T>(
        &mut self,
        full: bool,
        collects: bool,
        task: impl Fn(&mut Worker<'_>) + Sync,
        watch: impl FnOnce(&mut Place, &Shared) -> T,
    ) -> T {
        let shared = Shared {
            dead: AtomicBool::new(false),
            full: AtomicBool::new(full),
            asked: AtomicU64::new(0),
            running: AtomicU64::new(CLIENTS),
            images: self.books.iter().map(|book| book.image.clone()).collect(),
            power_cut: self.kind == Kind::Unsynced,
            times: TIMES,
        };
        let (address, token) = (self.place.address(), self.place.token.clone());
        let (place, shared, task) = (&mut self.place, &shared, &task);
        let mut workers = Vec::new();
        for book in std::mem::take(&mut self.books) {
            let (client, random) = (Client::new(address, &token), Random(self.random.below(u64::MAX)));
            workers.push(Worker { client, book, random, shared, findings: Vec::new() });
        }
        let random = Random(self.random.below(u64::MAX));
        let (watched, workers, collected) = std::thread::scope(|scope| {
            let work = |mut worker: Worker<'_>| {
                task(&mut worker);
                shared.running.fetch_sub(1, Ordering::AcqRel);
                (worker.book, worker.findings)
            };
            let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(move || work(worker))).collect();
            let collector = || collector::collect(address, &token, random, shared);
            let collector = collects.then(|| scope.spawn(collector));
            let watched = watch(place, shared);
            shared.dead.store(!place.alive(), Ordering::Release);
            let workers = threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>();
            (watched, workers, collector.and_then(|collector| collector.join().ok()))
        });
        self.tally.asked += shared.asked.load(Ordering::Relaxed);
        if let Some((freed, findings)) = collected {
            self.tally.freed.add(freed);
            self.report(&findings);
        }
        for (book, findings) in workers {
            self.books.push(book);
            self.report(&findings);
        }
        watched
    }

    fn report(&mut self, findings: &[Finding]) {
        let Trial { tally, seed, .. } = self;
        for Finding { wrong, text } in findings {
            *match wrong {
                Wrong::Lost => &mut tally.lost,
                Wrong::Back => &mut tally.back,
                Wrong::Torn => &mut tally.torn,
                Wrong::Leaked => &mut tally.leaked,
                Wrong::Answer => &mut tally.answers,
            } += 1;
            let text: String = text.chars().take(LONGEST_TEXT).collect();
            println!("seed {seed}, point {}: {wrong:?}: {text}", tally.points);
        }
        if !findings.is_empty() && tally.shown < SHOWN {
            tally.shown += 1;
            println!("  server: {}", self.place.last_words().replace('\n', "\n  server: "));
        }
    }

    /// The last look, at everything.
    fn finish(&mut self) -> Result<(), String> {
        self.place.start(None)?;
        self.verify(true)
    }
}

/// Waits until all clients are done, or the server is dead.
fn wait(place: &mut Place, shared: &Shared) {
    while shared.running.load(Ordering::Acquire) > 0 && place.alive() {
        std::thread::sleep(Duration::from_millis(1));
    }
}
