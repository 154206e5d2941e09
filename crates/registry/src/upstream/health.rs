//! How an upstream is: whether it answers, and how much more it lets us ask.
//!
//! After a few failures in a row nobody waits for it any more, but one request now and then that looks whether it is back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which an upstream counts as down.
const FAILURES: u32 = 3;

/// How long it is left alone then at first; this doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(15);

/// How long it is left alone at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// How long an upstream is left alone that says 429 and not for how long.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause that an upstream may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);

/// What it is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Something that is not here.
    Fetch,
    /// Whether what is here is still right. Stops before the last pulls that the upstream allows are used up.
    Revalidate,
}

/// Why it is not asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It is down.
    Down {
        /// What went wrong last.
        why: String,
        /// When it is tried again.
        again: Duration,
    },
    /// It said that we ask too often.
    Limited {
        /// When it may be asked again.
        again: Duration,
    },
    /// What it still allows is kept for what is not here.
    Reserved,
}

/// How many pulls an upstream allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// In all, within the window; nothing if it did not say.
    pub limit: Option<u64>,
    /// How many are left.
    pub remaining: u64,
    /// The window.
    pub window: Option<Duration>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    why: String,
    closed_until: Option<Instant>,
    limited_until: Option<Instant>,
    budget: Option<(Budget, Instant)>,
}

/// What is known of an upstream.
#[derive(Debug)]
pub(super) struct Health {
    state: Mutex<State>,
    /// Pulls that are kept for what is not here.
    reserve: u64,
}

impl Health {
    pub fn new(reserve: u64) -> Self {
        Self { state: Mutex::default(), reserve }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be asked now. Of a host that is down, one request after each pause may.
    pub fn admit(&self, purpose: Purpose, now: Instant) -> Result<(), Held> {
        let mut state = self.state();
        if let Some(again) = left(state.limited_until, now) {
            return Err(Held::Limited { again });
        }
        if let Some(again) = left(state.closed_until, now) {
            return Err(Held::Down { why: state.why.clone(), again });
        }
        if purpose == Purpose::Revalidate
            && let Some(budget) = state.budget(now)
            && budget.remaining <= self.reserve
        {
            return Err(Held::Reserved);
        }
        if state.failures >= FAILURES {
            // The others wait for what comes of this one.
            state.closed_until = Some(now + FIRST_PAUSE);
        }
        Ok(())
    }

    /// It answered, whatever it said.
    pub fn answered(&self) {
        let mut state = self.state();
        state.failures = 0;
        state.closed_until = None;
        state.why.clear();
    }

    /// It did not answer, or had trouble of its own.
    pub fn failed(&self, why: String, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.why = why;
        if let Some(more) = state.failures.checked_sub(FAILURES) {
            let pause = FIRST_PAUSE.saturating_mul(1 << more.min(10)).min(LONGEST_PAUSE);
            state.closed_until = Some(now + pause);
        }
    }

    /// It said that we ask too often.
    pub fn limited(&self, pause: Option<Duration>, now: Instant) -> Duration {
        let pause = pause.unwrap_or(UNKNOWN_PAUSE).clamp(Duration::from_secs(1), LONGEST_ASKED);
        let mut state = self.state();
        state.failures = 0;
        state.limited_until = Some(now + pause);
        pause
    }

    /// It said how many pulls it allows.
    pub fn counted(&self, budget: Budget, now: Instant) {
        self.state().budget = Some((budget, now));
    }

    /// Why a fetch would be held now, without taking a turn.
    pub fn held(&self, now: Instant) -> Option<Held> {
        let state = self.state();
        if let Some(again) = left(state.limited_until, now) {
            return Some(Held::Limited { again });
        }
        let again = left(state.closed_until, now)?;
        Some(Held::Down { why: state.why.clone(), again })
    }

    /// What it last said it allows, if that still holds.
    pub fn budget(&self, now: Instant) -> Option<Budget> {
        self.state().budget(now)
    }
}

impl State {
    fn budget(&self, now: Instant) -> Option<Budget> {
        let (budget, at) = self.budget?;
        let window = budget.window.unwrap_or(LONGEST_ASKED);
        (now.saturating_duration_since(at) < window).then_some(budget)
    }
}

fn left(until: Option<Instant>, now: Instant) -> Option<Duration> {
    until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_what_is_down_but_one() {
        let (health, start) = (Health::new(0), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..2 {
            health.failed("no route".into(), start);
            assert_eq!(health.admit(Purpose::Fetch, start), Ok(()));
        }
        health.failed("no route".into(), start);
        let down = Held::Down { why: "no route".into(), again: Duration::from_secs(15) };
        assert_eq!(health.admit(Purpose::Fetch, start), Err(down));
        assert_eq!(health.admit(Purpose::Fetch, at(15)), Ok(()), "one looks");
        assert!(health.admit(Purpose::Fetch, at(15)).is_err(), "and the others do not");
        health.failed("no route".into(), at(16));
        assert!(health.admit(Purpose::Fetch, at(45)).is_err(), "twice as long");
        assert_eq!(health.admit(Purpose::Fetch, at(46)), Ok(()));
        health.answered();
        assert_eq!(health.admit(Purpose::Fetch, at(46)), Ok(()));
        assert_eq!(health.admit(Purpose::Revalidate, at(46)), Ok(()));
        (0..60).for_each(|_| health.failed(String::new(), start));
        assert!(health.admit(Purpose::Fetch, at(300)).is_ok(), "never longer than five minutes");
    }

    #[test]
    fn a_limit_holds_for_as_long_as_was_said() {
        let (health, start) = (Health::new(0), Instant::now());
        assert_eq!(health.limited(Some(Duration::from_secs(5)), start), Duration::from_secs(5));
        assert_eq!(health.admit(Purpose::Fetch, start), Err(Held::Limited { again: Duration::from_secs(5) }));
        assert_eq!(health.admit(Purpose::Fetch, start + Duration::from_secs(5)), Ok(()));
        assert_eq!(health.limited(Some(Duration::MAX), start), LONGEST_ASKED);
        assert_eq!(health.limited(None, start), UNKNOWN_PAUSE);
    }

    #[test]
    fn the_last_pulls_are_kept_for_what_is_not_here() {
        let (health, start) = (Health::new(10), Instant::now());
        let budget = |remaining| Budget { limit: Some(100), remaining, window: Some(Duration::from_secs(60)) };
        health.counted(budget(11), start);
        assert_eq!(health.admit(Purpose::Revalidate, start), Ok(()));
        health.counted(budget(10), start);
        assert_eq!(health.admit(Purpose::Revalidate, start), Err(Held::Reserved));
        assert_eq!(health.admit(Purpose::Fetch, start), Ok(()));
        assert_eq!(health.admit(Purpose::Revalidate, start + Duration::from_secs(60)), Ok(()), "the window is over");
    }
}
