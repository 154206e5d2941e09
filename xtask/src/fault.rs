//! `cargo xtask fault path`: the server is killed at many points on the way of a push. Every run must end as it would
//! have, nothing may be there twice, and the site must answer all the time.

mod check;
mod plan;
mod registry;
mod stand;
mod strike;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime};

pub(crate) use registry::{has_disk as registry_has_disk, registry};

use check::{Finding, Wrong, lost};
use plan::{Kind, Plan, Point};
use stand::{Reference, Stand};
use strike::Struck;

/// Points between two lines that say how far it is.
const EVERY: usize = 20;

/// Characters of a finding that are printed.
const LONGEST: usize = 600;

/// What was found in all.
#[derive(Default)]
struct Tally {
    points: usize,
    lost: usize,
    doubled: usize,
    gaps: usize,
    site: usize,
    asked: u64,
}

impl Tally {
    fn add(&mut self, findings: &[Finding]) {
        for finding in findings {
            match finding.wrong {
                Wrong::Lost => self.lost += 1,
                Wrong::Doubled => self.doubled += 1,
                Wrong::Gap => self.gaps += 1,
                Wrong::Site => self.site += 1,
            }
        }
    }

    fn clean(&self) -> bool {
        self.lost + self.doubled + self.gaps + self.site == 0
    }

    fn line(&self) -> String {
        let Self { points, lost, doubled, gaps, site, .. } = self;
        format!("{points} points, {lost} lost, {doubled} doubled, {gaps} gaps, {site} site failures")
    }
}

struct Trial {
    seed: u64,
    /// Whether the power is cut, not the server alone killed.
    unsynced: bool,
    stand: Option<Stand>,
    references: Vec<Reference>,
    tally: Tally,
}

pub(crate) fn path(words: &[&str]) -> Result<(), String> {
    let points: usize = crate::option(words, "--points", 200)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed: u64 = crate::option(words, "--seed", now.as_secs())?;
    let only = match words.iter().position(|word| *word == "--at") {
        None => None,
        Some(at) => Some(words.get(at + 1).ok_or("--at needs a value")?.parse::<Point>()?),
    };
    let began = Instant::now();
    let unsynced = words.contains(&"--unsynced");
    let mut trial = Trial { seed, unsynced, stand: None, references: Vec::new(), tally: Tally::default() };
    trial.refer()?;
    match only {
        Some(point) => trial.repeat(&point, points),
        None => trial.run(points),
    }?;
    trial.finish()?;
    println!("fault path: {}", trial.tally.line());
    println!("seed {seed}, {} answers of the site, {:.0} s", trial.tally.asked, began.elapsed().as_secs_f64());
    if trial.tally.clean() { Ok(()) } else { Err("fault path: not every run ended as it would have".into()) }
}

impl Trial {
    /// Lets each kind of change run without a fault.
    fn refer(&mut self) -> Result<(), String> {
        let stand = self.stand.insert(Stand::start(self.unsynced)?);
        for kind in Kind::ALL {
            let reference = stand.reference(kind)?;
            println!("{}: {} in {:.2} s without faults", kind.name(), kind.outcome(), reference.length.as_secs_f64());
            self.references.push(reference);
        }
        let findings = check::site(stand);
        self.report("without faults", &findings);
        Ok(())
    }

    fn run(&mut self, points: usize) -> Result<(), String> {
        let lengths = self.references.iter().map(|it| (it.kind, it.length)).collect();
        let passes: Vec<_> = self.references.iter().flat_map(Reference::passes).collect();
        let mut plan = Plan::new(self.seed, lengths, &passes);
        println!(
            "seed {}: {points} points, half of them at random times, half of the {} named ones",
            self.seed,
            plan.named()
        );
        while self.tally.points < points {
            let point = plan.next();
            if !self.strike(&point)? {
                plan.missed(&point);
            }
        }
        Ok(())
    }

    /// The same point again and again.
    fn repeat(&mut self, point: &Point, times: usize) -> Result<(), String> {
        while self.tally.points < times {
            if !self.strike(point)? {
                return Err(format!("{point} is not on the way"));
            }
        }
        Ok(())
    }

    /// Whether the server died at this point.
    fn strike(&mut self, point: &Point) -> Result<bool, String> {
        let reference = self.references.iter().find(|it| it.kind == point.kind).ok_or("no reference")?;
        let stand = match &mut self.stand {
            Some(stand) => stand,
            None => self.stand.insert(Stand::start(self.unsynced)?),
        };
        let struck = catch_unwind(AssertUnwindSafe(|| strike::strike(stand, point, reference)));
        let findings = match struck {
            Ok(Ok(Struck::Missed)) => return Ok(false),
            Ok(Ok(Struck::Died(findings))) => findings,
            Ok(Err(why)) => vec![lost(why)],
            Err(panic) => vec![lost(said(panic.as_ref()))],
        };
        self.tally.points += 1;
        self.report(&point.to_string(), &findings);
        // What is broken once would be found again at every later point.
        if findings.iter().any(|it| it.wrong != Wrong::Site) {
            self.drop_stand();
        }
        if self.tally.points.is_multiple_of(EVERY) {
            println!("{}", self.tally.line());
        }
        Ok(true)
    }

    fn report(&mut self, point: &str, findings: &[Finding]) {
        self.tally.add(findings);
        let number = self.tally.points;
        for finding in findings {
            let text: String = finding.text.chars().take(LONGEST).collect();
            println!("point {number}, {point}: {:?}: {text}", finding.wrong);
        }
        if !findings.is_empty() {
            let unsynced = if self.unsynced { " --unsynced" } else { "" };
            println!("  again: cargo xtask fault path --seed {}{unsynced} --points 1 --at {point}", self.seed);
        }
    }

    fn drop_stand(&mut self) {
        let Some(stand) = self.stand.take() else { return };
        self.tally.asked += stand.asked + stand.asker.finish().answered;
        for line in stand.world.last_words().lines() {
            println!("  server: {line}");
        }
        // Taking a broken server down may go wrong, too.
        let (world, disk) = (stand.world, stand.disk);
        let _ = catch_unwind(AssertUnwindSafe(move || drop(world)));
        drop(disk);
    }

    fn finish(&mut self) -> Result<(), String> {
        let Some(stand) = &mut self.stand else { return Ok(()) };
        let mut findings = check::end(stand)?;
        findings.extend(check::site(stand));
        self.report("the end", &findings);
        if let Some(stand) = self.stand.take() {
            self.tally.asked += stand.asked + stand.asker.finish().answered;
            drop(stand.world);
            drop(stand.disk);
        }
        Ok(())
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "a panic".to_owned())
}
