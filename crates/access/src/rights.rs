//! What the gate found out, kept until anything changes.
//!
//! Every change of accounts, tokens or rights counts a number in the records one up, in its own transaction. What was
//! found under a number is good as long as that is the number. A process that has its records to itself keeps the number
//! in memory and looks nothing up twice; one that shares them asks for the number each time, which is one short query.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use store::{RecordsError, Tx};

use crate::standing::Standing;
use crate::{Access, AccessError, Principal, Resource, now};

/// The sequence that counts changes.
const CHANGES: &str = "access changes";

/// The most answers that are kept; then all are forgotten.
const MOST: usize = 20_000;

/// What a principal's rights hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Anonymous,
    User { user: i64, token: i64 },
    Robot(i64),
    Job { job: i64, run: i64 },
}

impl From<&Principal> for Who {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::Anonymous => Self::Anonymous,
            Principal::User(user) => Self::User { user: user.id.0, token: user.token.0 },
            Principal::Robot(robot) => Self::Robot(robot.id()),
            Principal::Job(job) => Self::Job { job: job.job.0, run: job.run.0 },
        }
    }
}

/// Answers by who asked for what.
#[derive(Debug, Default)]
pub(crate) struct Rights(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The number of changes under which the answers were found.
    changes: i64,
    answers: HashMap<Who, HashMap<Resource, Standing>>,
    count: usize,
}

impl Known {
    fn answer(&self, who: Who, resource: &Resource) -> Option<Standing> {
        let standing = self.answers.get(&who)?.get(resource)?;
        standing.until.is_none_or(|until| until > now()).then_some(*standing)
    }

    fn forget(&mut self, changes: i64) {
        self.changes = changes;
        self.answers.clear();
        self.count = 0;
    }
}

impl Rights {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that is known, and the number of changes of this process.
    fn find(&self, who: Who, resource: &Resource) -> (i64, Option<Standing>) {
        let known = self.known();
        (known.changes, known.answer(who, resource))
    }

    /// The answer under the number of changes that a snapshot has. Another number makes all others forgotten.
    fn find_at(&self, changes: i64, who: Who, resource: &Resource) -> Option<Standing> {
        let mut known = self.known();
        if known.changes != changes {
            known.forget(changes);
        }
        known.answer(who, resource)
    }

    fn keep(&self, changes: i64, who: Who, resource: Resource, standing: Standing) {
        let mut known = self.known();
        if known.changes != changes {
            return;
        }
        if known.count >= MOST {
            known.forget(changes);
        }
        if known.answers.entry(who).or_default().insert(resource, standing).is_none() {
            known.count += 1;
        }
    }
}

impl Access {
    /// Changes accounts or rights. What was found out before counts no more when this returns.
    pub(crate) async fn change<T, F>(&self, f: F) -> Result<T, AccessError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, RecordsError> + Send + 'static,
        T: Send + 'static,
    {
        let access = self.clone();
        // On a task of its own: a caller that goes away while it is stored leaves nothing remembered that is not so.
        let done = tokio::spawn(async move {
            let stored = access.records.write(move |tx| {
                let value = f(tx)?;
                tx.next_id(CHANGES)?;
                Ok(value)
            });
            let stored = stored.await;
            // Of records that are shared, the number in them tells.
            if !access.records.is_shared() {
                let mut known = access.shared.rights.known();
                let next = known.changes.wrapping_add(1);
                known.forget(next);
            }
            stored
        });
        Ok(done.await.map_err(|_| RecordsError::Stopped("the server stops"))??)
    }

    /// What a principal may do with a resource; nothing if the principal is not one any more.
    pub(crate) async fn standing(
        &self,
        principal: &Principal,
        resource: &Resource,
    ) -> Result<Option<Standing>, RecordsError> {
        let who = Who::from(principal);
        let alone = if self.records.is_shared() {
            None
        } else {
            match self.shared.rights.find(who, resource) {
                (_, Some(found)) => return Ok(Some(found)),
                (changes, None) => Some(changes),
            }
        };
        let (access, asker, wanted) = (self.clone(), principal.clone(), resource.clone());
        let looked_up = self.records.read(move |tx| {
            let rights = &access.shared.rights;
            let changes = match alone {
                Some(changes) => changes,
                None => {
                    let changes = counted(tx)?;
                    if let Some(found) = rights.find_at(changes, who, &wanted) {
                        return Ok(Some(found));
                    }
                    changes
                }
            };
            let standing = crate::standing::look_up(tx, &asker, &wanted)?;
            if let Some(standing) = standing {
                rights.keep(changes, who, wanted, standing);
            }
            Ok(standing)
        });
        looked_up.await
    }
}

fn counted(tx: &mut Tx<'_>) -> Result<i64, RecordsError> {
    let row = tx.query_first("SELECT value FROM sequences WHERE name = $1", &[CHANGES.into()])?;
    row.map_or(Ok(0), |row| row.get(0))
}
