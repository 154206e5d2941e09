//! Where the server is to die.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What a push changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The page: everything is done.
    Page,
    /// The README: nothing is to be built.
    Docs,
    /// The health check: the rollout fails and is taken back.
    Broken,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Page, Self::Docs, Self::Broken];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Docs => "docs",
            Self::Broken => "broken",
        }
    }

    /// How its run ends.
    pub(crate) const fn outcome(self) -> &'static str {
        match self {
            Self::Page => "succeeded",
            Self::Docs => "reused",
            Self::Broken => "failed",
        }
    }

    /// Images that become visible.
    pub(crate) const fn images(self) -> i64 {
        match self {
            Self::Page | Self::Broken => 1,
            Self::Docs => 0,
        }
    }
}

/// When the server dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// This long after the push began.
    After(Duration),
    /// When it passes the fault point `name` for the `count`-th time since its start.
    At { name: String, count: u64 },
}

/// A push during which the server dies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) kind: Kind,
    pub(crate) death: Death,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.death {
            Death::After(delay) => write!(f, "{}:{}ms", self.kind.name(), delay.as_millis()),
            Death::At { name, count } => write!(f, "{}:{name}:{count}", self.kind.name()),
        }
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no point: page:after-sync:7 and docs:120ms are some");
        let (kind, death) = text.split_once(':').ok_or_else(wrong)?;
        let kind = Kind::ALL.into_iter().find(|it| it.name() == kind).ok_or_else(wrong)?;
        let death = match death.rsplit_once(':') {
            Some((name, count)) => Death::At { name: name.to_owned(), count: count.parse().map_err(|_| wrong())? },
            None => {
                let millis = death.strip_suffix("ms").and_then(|number| number.parse().ok());
                Death::After(Duration::from_millis(millis.ok_or_else(wrong)?))
            }
        };
        Ok(Self { kind, death })
    }
}

/// How often a run that nothing disturbs passes the points of one name.
#[derive(Clone, Debug)]
pub(crate) struct Passes {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
    pub(crate) count: u64,
}

/// Chooses points: in turn at a random time, and at the next of all named points in a random order.
pub(crate) struct Plan {
    random: Random,
    /// How long the run of each kind takes.
    lengths: Vec<(Kind, Duration)>,
    named: Vec<Point>,
    next: usize,
    turn: usize,
}

impl Plan {
    pub(crate) fn new(seed: u64, lengths: Vec<(Kind, Duration)>, passes: &[Passes]) -> Self {
        let mut random = Random(seed);
        let each = |it: &Passes| {
            let (kind, name) = (it.kind, it.name);
            (1..=it.count).map(move |count| Point { kind, death: Death::At { name: name.to_owned(), count } })
        };
        let mut named: Vec<Point> = passes.iter().flat_map(each).collect();
        for index in (1..named.len()).rev() {
            let other = random.below(index as u64 + 1);
            named.swap(index, usize::try_from(other).unwrap_or(0));
        }
        Self { random, lengths, named, next: 0, turn: 0 }
    }

    /// How many named points there are.
    pub(crate) fn named(&self) -> usize {
        self.named.len()
    }

    pub(crate) fn next(&mut self) -> Point {
        self.turn += 1;
        if self.turn.is_multiple_of(2) && !self.named.is_empty() {
            self.next += 1;
            return self.named[(self.next - 1) % self.named.len()].clone();
        }
        let (kind, length) = self.lengths[(self.turn / 2) % self.lengths.len()];
        let most = u64::try_from(length.as_millis()).unwrap_or(1000) * 11 / 10 + 1;
        Point { kind, death: Death::After(Duration::from_millis(self.random.below(most))) }
    }

    /// A named point turned out not to be on the way: it is not chosen again, and another one is next.
    pub(crate) fn missed(&mut self, point: &Point) {
        self.named.retain(|it| it != point);
        self.next = self.next.saturating_sub(1);
        self.turn -= 1;
    }
}

/// SplitMix64: the same numbers for a seed for ever.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % most.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seed: u64) -> Plan {
        let lengths = Kind::ALL.map(|kind| (kind, Duration::from_millis(1000)));
        let passes = [
            Passes { kind: Kind::Page, name: "before-sync", count: 3 },
            Passes { kind: Kind::Docs, name: "after-effect", count: 2 },
        ];
        Plan::new(seed, lengths.to_vec(), &passes)
    }

    #[test]
    fn a_point_is_read_as_it_is_written() {
        for text in ["page:after-sync:7", "docs:120ms", "broken:before-blob-sync:1"] {
            assert_eq!(text.parse::<Point>().expect(text).to_string(), text);
        }
        for text in ["page", "other:1ms", "page:x", "page:after-sync:x"] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_points_and_all_named_ones_in_turn() {
        let texts = |seed| {
            let mut plan = plan(seed);
            (0..12).map(|_| plan.next().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(texts(7), texts(7));
        assert_ne!(texts(7), texts(8));
        let mut named: Vec<_> = texts(7).into_iter().filter(|text| !text.ends_with("ms")).take(5).collect();
        named.sort();
        let all = ["docs:after-effect:1", "docs:after-effect:2"].into_iter();
        let all: Vec<_> = all.chain(["page:before-sync:1", "page:before-sync:2", "page:before-sync:3"]).collect();
        assert_eq!(named, all);
    }

    #[test]
    fn a_missed_point_is_not_chosen_again() {
        let mut plan = plan(1);
        plan.next();
        let missed = plan.next();
        plan.missed(&missed);
        let rest: Vec<_> = (0..20).map(|_| plan.next()).collect();
        assert!(!rest.contains(&missed) && plan.named() == 4);
        assert!(matches!(rest[0].death, Death::At { .. }));
    }
}
