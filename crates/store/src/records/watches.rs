//! Tells what was remembered of the records that it may have changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Counts the transactions that wrote to some of the tables. What was read while it stood at a number still holds while
/// it stands at that number: look at it before reading, and again before using what was read.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    concerns: fn(&str) -> bool,
    count: AtomicU64,
}

impl Watch {
    /// The number now. A writer that was told of the end of its transaction has moved it.
    pub fn now(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }
}

/// All watches of the records of this process.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<Vec<Weak<Watched>>>);

impl Watches {
    pub(crate) fn add(&self, concerns: fn(&str) -> bool) -> Watch {
        let watched = Arc::new(Watched { concerns, count: AtomicU64::new(0) });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|watched| watched.strong_count() > 0);
        all.push(Arc::downgrade(&watched));
        Watch(watched)
    }

    /// Moves those that a transaction concerns.
    pub(crate) fn tell(&self, written: &Written) {
        if matches!(written, Written::Tables(tables) if tables.is_empty()) {
            return;
        }
        for watched in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            let concerned = match written {
                Written::Anything => true,
                Written::Tables(tables) => tables.iter().any(|table| (watched.concerns)(table)),
            };
            if concerned {
                watched.count.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

/// What a transaction wrote to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Tables(Vec<String>),
    /// A statement was none of the plain ones.
    Anything,
}

impl Written {
    /// Counts a statement in.
    pub(crate) fn add(&mut self, sql: &str) {
        let Self::Tables(tables) = self else { return };
        match target(sql) {
            Target::Nothing => {}
            Target::Table(table) if tables.iter().any(|known| known.eq_ignore_ascii_case(table)) => {}
            Target::Table(table) => tables.push(table.to_ascii_lowercase()),
            Target::Anything => *self = Self::Anything,
        }
    }
}

enum Target<'s> {
    Nothing,
    Table(&'s str),
    Anything,
}

/// The table that a statement writes to. Rooms write plain statements; whatever else it is may write to anything.
fn target(sql: &str) -> Target<'_> {
    let mut words = sql.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let mut is = |wanted: &str| words.next().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
    let starts = |wanted: &str| {
        let head = sql.trim_start().get(..wanted.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(wanted))
    };
    let plain = if starts("SELECT") {
        return Target::Nothing;
    } else if starts("INSERT INTO ") {
        is("INSERT") && is("INTO")
    } else if starts("DELETE FROM ") {
        is("DELETE") && is("FROM")
    } else if starts("UPDATE ") {
        is("UPDATE")
    } else {
        false
    };
    match words.next() {
        Some(table) if plain && !sql.contains(';') => Target::Table(table),
        _ => Target::Anything,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_statements_name_their_table() {
        let mut written = Written::Tables(Vec::new());
        for sql in [
            "SELECT a FROM b",
            "INSERT INTO tags (a) VALUES ($1)\n ON CONFLICT (a) DO UPDATE SET a = excluded.a",
            "  UPDATE tags SET a = 1",
            "delete from Images WHERE a = 1",
        ] {
            written.add(sql);
        }
        assert_eq!(written, Written::Tables(vec!["tags".into(), "images".into()]));
        for sql in [
            "WITH x AS (SELECT 1) DELETE FROM tags",
            "CREATE TABLE x (a BIGINT)",
            "UPDATE a SET b = 1; UPDATE c SET d = 2",
            "INSERT OR REPLACE INTO tags VALUES (1)",
        ] {
            let mut written = Written::Tables(Vec::new());
            written.add(sql);
            assert_eq!(written, Written::Anything, "{sql}");
        }
    }

    #[test]
    fn only_the_watches_of_a_table_move() {
        let watches = Watches::default();
        let (tags, others) = (watches.add(|table| table == "tags"), watches.add(|table| table != "tags"));
        watches.tell(&Written::Tables(vec!["tags".into()]));
        assert_eq!((tags.now(), others.now()), (1, 0));
        watches.tell(&Written::Tables(Vec::new()));
        watches.tell(&Written::Anything);
        assert_eq!((tags.now(), others.now()), (2, 1));
    }
}
