//! `cargo xtask fault registry`: the registry is killed at many points of mixed pushes and deletes. What it acknowledged
//! must be there, what it deleted must be gone, and nothing may be torn.

mod book;
mod http;
mod place;
mod push;
mod records;
mod verify;
mod work;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use book::Book;
use http::Client;
use place::{Kind, Place};
use worker::{Shared, Worker};

use crate::fault::plan::Random;

/// Clients that work at the same time, each with an image of its own.
const CLIENTS: u64 = 4;
/// The longest time that clients work before the server is killed.
const LONGEST: u64 = 220;
/// A named point that is not passed within this is given up, and the server killed where it is.
const PATIENCE: Duration = Duration::from_millis(700);
/// Points between two looks at every byte.
const THOROUGH: u64 = 20;
/// Points between two lines that say how far it is.
const EVERY: u64 = 100;
/// How often the server's last words are printed.
const SHOWN: usize = 5;
/// Characters of a finding that are printed.
const LONGEST_TEXT: usize = 500;
/// How long clients go on after a full disk has room again.
const RECOVERED: Duration = Duration::from_millis(120);
/// How long the registry leaves a blob alone that no manifest refers to.
const GRACE: Duration = Duration::from_secs(24 * 3600);
/// The most room of a disk that is called full, in bytes.
const ROOM: u64 = 2 << 20;

/// Where the server may be told to die, and how often the point is passed at most before that.
const NAMED: [(&str, u64); 8] = [
    ("any", 400),
    ("before-commit", 60),
    ("after-commit", 60),
    ("before-blob-sync", 40),
    ("before-blob-name", 40),
    ("before-name-sync", 40),
    ("after-blob-sync", 40),
    ("after-upload-part", 20),
];

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// Something acknowledged is not there.
    Lost,
    /// Something is there whose deletion was acknowledged.
    Back,
    /// Something is there without what belongs to it, or with other bytes.
    Torn,
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
    /// Points at which the server died where it was told to.
    named: u64,
    lost: usize,
    back: usize,
    torn: usize,
    answers: usize,
    /// How often the server's last words were printed.
    shown: usize,
    asked: u64,
}

impl Tally {
    fn clean(&self) -> bool {
        self.lost + self.back + self.torn + self.answers == 0
    }

    fn line(&self) -> String {
        let Self { points, named, lost, back, torn, answers, asked, .. } = self;
        format!(
            "{points} points ({named} named), {lost} lost, {back} back, {torn} torn, {answers} wrong answers of {asked}"
        )
    }
}

struct Trial {
    seed: u64,
    kind: Kind,
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
    let (books, place, tally) = (books(), Place::new(kind)?, Tally::default());
    let mut trial = Trial { seed, kind, random: Random(seed), place, books, tally };
    println!("seed {seed}: {points} points, half of them at random times, half where the program is told to die");
    for _ in 0..points {
        trial.point()?;
    }
    trial.finish()?;
    println!("fault registry: {}", trial.tally.line());
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
        let fault = self.tally.points.is_multiple_of(2).then(|| {
            let (name, most) = NAMED[usize::try_from(self.random.below(NAMED.len() as u64)).unwrap_or(0)];
            format!("{name}:{}", 1 + self.random.below(most))
        });
        if !self.place.start(fault.as_deref())? {
            // It died on its way up, where nobody was told anything.
            self.tally.named += 1;
            self.place.start(None)?;
        }
        self.verify()?;
        if self.place.is_used_up() {
            (self.place, self.books) = (Place::new(self.kind)?, books());
            self.place.start(None)?;
        }
        self.tally.points += 1;
        match self.kind {
            Kind::Small => self.work_on_a_full_disk()?,
            Kind::Plain | Kind::Unsynced => {
                let delay = Duration::from_millis(2 + self.random.below(LONGEST));
                self.work(fault.is_some(), delay, false);
            }
        }
        self.place.cut()?;
        if self.tally.points.is_multiple_of(EVERY) {
            println!("{}", self.tally.line());
        }
        Ok(())
    }

    fn verify(&mut self) -> Result<(), String> {
        let all = self.tally.points.is_multiple_of(THOROUGH);
        self.each(false, |worker| worker.verify(all), wait);
        if self.place.alive() {
            let findings = records::check(&self.place.data())?;
            self.report(&findings);
        }
        Ok(())
    }

    /// Clients work until the server dies: where it was told to, or after `delay`.
    fn work(&mut self, told: bool, delay: Duration, full: bool) {
        let died = self.each(
            full,
            |worker| worker.work(|| true),
            |place, _| {
                let until = Instant::now() + if told { PATIENCE } else { delay };
                while place.alive() && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let died = !place.alive();
                place.end();
                died
            },
        );
        self.tally.named += u64::from(told && died);
    }

    /// Clients work on a full disk, and go on when there is room again, unless the server dies before.
    fn work_on_a_full_disk(&mut self) -> Result<(), String> {
        let ballast = self.place.fill(self.random.below(ROOM))?;
        let delay = Duration::from_millis(50 + self.random.below(LONGEST));
        if self.random.below(3) == 0 {
            self.work(false, delay, true);
            drop(ballast);
            return Ok(());
        }
        let until = Instant::now() + delay;
        self.each(true, |worker| worker.work(|| Instant::now() < until), wait);
        drop(ballast);
        self.work(false, RECOVERED, false);
        Ok(())
    }

    /// Lets every client do something at the same time, while `watch` looks after the server.
    fn each<T>(
        &mut self,
        full: bool,
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
            grace: GRACE,
        };
        let (address, token) = (self.place.address(), self.place.token.clone());
        let (place, shared, task) = (&mut self.place, &shared, &task);
        let mut workers = Vec::new();
        for book in std::mem::take(&mut self.books) {
            let (client, random) = (Client::new(address, &token), Random(self.random.below(u64::MAX)));
            workers.push(Worker { client, book, random, shared, findings: Vec::new() });
        }
        let (watched, workers) = std::thread::scope(|scope| {
            let work = |mut worker: Worker<'_>| {
                task(&mut worker);
                shared.running.fetch_sub(1, Ordering::AcqRel);
                (worker.book, worker.findings)
            };
            let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(move || work(worker))).collect();
            let watched = watch(place, shared);
            shared.dead.store(!place.alive(), Ordering::Release);
            (watched, threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>())
        });
        self.tally.asked += shared.asked.load(Ordering::Relaxed);
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
        self.tally.points = self.tally.points.next_multiple_of(THOROUGH);
        self.verify()?;
        Ok(())
    }
}

/// Waits until all clients are done, or the server is dead.
fn wait(place: &mut Place, shared: &Shared) {
    while shared.running.load(Ordering::Acquire) > 0 && place.alive() {
        std::thread::sleep(Duration::from_millis(1));
    }
}
