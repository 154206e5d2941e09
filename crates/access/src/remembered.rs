//! Rights that were looked up a moment ago, for clients that ask many things one after the other.
//!
//! A right is remembered until a transaction of this process writes anything but the registry's tables, so a token that is
//! revoked is refused at the next request; and for a second at most, because tokens expire without being written to.
//! Where other processes write as well, nothing is remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use store::{Records, Watch};

use crate::gate::Standing;
use crate::{Action, Principal, Resource};

/// How long a right is remembered.
const FOR: Duration = Duration::from_secs(1);

/// How many rights; when there are more, all are forgotten.
const MOST: usize = 4096;

fn concerns(table: &str) -> bool {
    !table.starts_with("registry_")
}

#[derive(Debug)]
pub(crate) struct Remembered {
    watch: Option<Watch>,
    known: Mutex<HashMap<(Principal, Action, Resource), Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    standing: Standing,
    asked: Asked,
}

/// When something was looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// The number of the watch, before.
    count: u64,
    at: Instant,
}

impl Remembered {
    pub(crate) fn new(records: &Records) -> Self {
        Self { watch: records.watch(concerns), known: Mutex::default() }
    }

    /// To be asked for before a look-up; nothing if its result is not to be remembered.
    pub(crate) fn ask(&self) -> Option<Asked> {
        Some(Asked { count: self.watch.as_ref()?.now(), at: Instant::now() })
    }

    /// What was found out before, if it still holds.
    pub(crate) fn get(&self, now: Option<Asked>, key: &(Principal, Action, Resource)) -> Option<Standing> {
        let now = now?;
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key)?;
        let holds = known.asked.count == now.count && now.at.saturating_duration_since(known.asked.at) < FOR;
        holds.then_some(known.standing)
    }

    pub(crate) fn put(&self, asked: Option<Asked>, key: (Principal, Action, Resource), standing: Standing) {
        let Some(asked) = asked else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, Known { standing, asked });
    }
}
