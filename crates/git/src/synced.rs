//! What of the object stores is on the disk already, so that a push pays for the directories it wrote to and not for all
//! that there are.
//!
//! Whatever adds or removes an entry of a directory changes the directory's times. One that has the times it had when it
//! was synced needs no second sync, if those times cannot stand for a later change too. The clock of a file system goes
//! in steps of some milliseconds, and may be another machine's; so a time counts only once the same file system has given
//! out one that is [`STEP`] later.

use std::collections::{HashSet, VecDeque};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::GitError;

/// Longer than any file system's clock that counts in parts of a second stands still, in nanoseconds.
const STEP: i128 = 100_000_000;

/// The object stores that are remembered: those that were synced last.
const STORES: usize = 64;

/// The directories of a store that are remembered: those of loose objects are 256.
const DIRS: usize = 512;

/// A directory as it was at some time. As its times change with its entries, one that is the same again has the same
/// entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    device: u64,
    inode: u64,
    /// In nanoseconds since 1970. Nobody can set it.
    changed: i128,
    /// In nanoseconds since 1970.
    modified: i128,
}

impl State {
    fn of(meta: &Metadata) -> Self {
        let nanos = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
        }
    }

    /// Whether a change that comes after `seen` was read gives the directory another state.
    fn is_settled(&self, seen: &Clock) -> bool {
        // A clock that counts in seconds repeats itself whenever it is set back a little.
        let fine = self.changed % 1_000_000_000 != 0;
        let latest = self.changed.max(self.modified);
        fine && self.device == seen.device && latest + STEP <= seen.given.min(seen.here)
    }
}

/// What the time is, as far as it is known.
struct Clock {
    /// The file system's.
    device: u64,
    /// The latest time that it gave out, in nanoseconds since 1970.
    given: i128,
    /// This machine's clock: where that is the file system's too, one that was set back shows.
    here: i128,
}

pub(crate) type States = Arc<HashSet<State>>;

/// The directories that this process synced, as they were then.
#[derive(Debug, Default)]
pub(crate) struct Synced(Mutex<VecDeque<(PathBuf, States)>>);

impl Synced {
    /// Brings the entries of `store` and of `below`, directories in it, onto the disk; those of `store` last. One of
    /// `below` may be gone.
    pub(crate) fn bring(&self, store: &Path, below: &[PathBuf]) -> Result<(), GitError> {
        self.bring_by(store, below, |_, dir| dir.sync_all())
    }

    fn bring_by(
        &self,
        store: &Path,
        below: &[PathBuf],
        mut sync: impl FnMut(&Path, &File) -> io::Result<()>,
    ) -> Result<(), GitError> {
        let itself = store.metadata().map_err(|error| GitError::io(store, error))?;
        let mut dirs = Vec::with_capacity(below.len() + 1);
        for dir in below {
            match dir.metadata() {
                Ok(meta) => dirs.push((dir.as_path(), State::of(&meta))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(GitError::io(dir, error)),
            }
        }
        dirs.push((store, State::of(&itself)));
        let clock = clock(itself.dev(), &dirs);
        let known = self.known(store);
        let mut synced = HashSet::with_capacity(dirs.len().min(DIRS));
        for (dir, seen) in dirs {
            let state = if known.contains(&seen) { Some(seen) } else { sync_one(dir, &mut sync)? };
            if let Some(state) = state.filter(|state| synced.len() < DIRS && state.is_settled(&clock)) {
                synced.insert(state);
            }
        }
        self.remember(store, synced);
        Ok(())
    }

    fn stores(&self) -> MutexGuard<'_, VecDeque<(PathBuf, States)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a store.
    pub(crate) fn known(&self, store: &Path) -> States {
        self.stores().iter().find(|(path, _)| path == store).map(|(_, states)| Arc::clone(states)).unwrap_or_default()
    }

    /// What another thread found out about the same store meanwhile is as true, and may be forgotten.
    fn remember(&self, store: &Path, synced: HashSet<State>) {
        let mut stores = self.stores();
        stores.retain(|(path, _)| path != store);
        stores.push_back((store.to_owned(), Arc::new(synced)));
        if stores.len() > STORES {
            stores.pop_front();
        }
    }
}

/// The time before anything is synced. A change that comes later is given no earlier time.
fn clock(device: u64, dirs: &[(&Path, State)]) -> Clock {
    let given = dirs.iter().filter(|(_, state)| state.device == device).map(|(_, state)| state.changed).max();
    let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Clock { device, given: given.unwrap_or_default(), here: i128::try_from(here.as_nanos()).unwrap_or_default() }
}

/// Syncs a directory. Returns what it was just before; nothing if it is gone.
fn sync_one(dir: &Path, sync: &mut impl FnMut(&Path, &File) -> io::Result<()>) -> Result<Option<State>, GitError> {
    let synced = File::open(dir).and_then(|file| {
        // Before the sync: what is added meanwhile may be missing on the disk, and has to show the next time.
        let state = State::of(&file.metadata()?);
        sync(dir, &file).map(|()| state)
    });
    match synced {
        Ok(state) => Ok(Some(state)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(GitError::io(dir, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A store with the directories `aa`, `bb` and `pack`.
    struct Store {
        dir: tempfile::TempDir,
        synced: Synced,
    }

    impl Store {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["aa", "bb", "pack"] {
                std::fs::create_dir(dir.path().join(name)).unwrap();
            }
            Self { dir, synced: Synced::default() }
        }

        fn write(&self, name: &str) {
            std::fs::write(self.dir.path().join(name), "").unwrap();
        }

        /// Lets the file system's clock go on, and changes the store itself so that this shows.
        fn wait(&self) {
            std::thread::sleep(Duration::from_millis(150));
            self.write("later");
            std::fs::remove_file(self.dir.path().join("later")).unwrap();
        }

        /// Brings all of it onto the disk. Returns what was synced, `.` for the store itself.
        fn bring(&self) -> Vec<String> {
            self.bring_by(|_, _| Ok(())).unwrap()
        }

        fn bring_by(&self, mut sync: impl FnMut(&str, &File) -> io::Result<()>) -> Result<Vec<String>, GitError> {
            let store = self.dir.path();
            let mut below: Vec<PathBuf> = store.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            let mut synced = Vec::new();
            self.synced.bring_by(store, &below, |dir, file| {
                let name = if dir == store { "." } else { dir.file_name().unwrap().to_str().unwrap() };
                synced.push(name.to_owned());
                sync(name, file)
            })?;
            Ok(synced)
        }
    }

    #[test]
    fn only_what_changed_is_synced_again() {
        let store = Store::new();
        store.wait();
        assert_eq!(store.bring(), ["aa", "bb", "pack", "."]);
        assert_eq!(store.bring(), ["."], "the store itself changed just before it was synced");
        store.wait();
        store.write("bb/object");
        assert_eq!(store.bring(), ["bb", "."]);
        std::fs::create_dir(store.dir.path().join("cc")).unwrap();
        std::fs::rename(store.dir.path().join("bb/object"), store.dir.path().join("aa/object")).unwrap();
        assert_eq!(store.bring(), ["aa", "bb", "cc", "."]);
        store.wait();
        store.bring();
        std::fs::remove_dir(store.dir.path().join("cc")).unwrap();
        std::fs::create_dir(store.dir.path().join("cc")).unwrap();
        assert_eq!(store.bring(), ["cc", "."], "a new directory under an old name");
    }

    #[test]
    fn a_directory_that_has_just_changed_is_not_relied_on() {
        let store = Store::new();
        store.wait();
        store.write("bb/object");
        for _ in 0..3 {
            let synced = store.bring();
            assert!(synced.contains(&"bb".to_owned()), "its time may stand for a later change: {synced:?}");
        }
        store.wait();
        assert!(store.bring().contains(&"bb".to_owned()), "once more, now that its time is settled");
        assert!(!store.bring().contains(&"bb".to_owned()));
    }

    #[test]
    fn what_is_written_during_a_sync_is_synced_the_next_time() {
        let store = Store::new();
        store.wait();
        let during = |name: &str, _: &File| {
            if name == "aa" {
                store.write("aa/meanwhile");
            }
            Ok(())
        };
        store.bring_by(during).unwrap();
        assert_eq!(store.bring(), ["aa", "."]);
    }

    #[test]
    fn a_sync_that_failed_is_made_again() {
        let store = Store::new();
        store.wait();
        let failing = |name: &str, _: &File| if name == "bb" { Err(io::Error::other("worn out")) } else { Ok(()) };
        let error = store.bring_by(failing).unwrap_err();
        assert!(error.to_string().contains("bb") && error.to_string().contains("worn out"), "{error}");
        assert!(store.bring().contains(&"bb".to_owned()));
    }

    #[test]
    fn a_directory_that_goes_away_is_left_out_and_a_store_that_is_gone_is_an_error() {
        let store = Store::new();
        let below = [store.dir.path().join("no such"), store.dir.path().join("aa")];
        let mut synced = 0;
        store
            .synced
            .bring_by(store.dir.path(), &below, |_, _| {
                synced += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(synced, 2);
        let gone = store.dir.path().join("gone");
        let error = store.synced.bring(&gone, &[]).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }

    #[test]
    fn a_time_counts_once_a_later_one_was_given_out() {
        let state = |changed, modified| State { device: 1, inode: 2, changed, modified };
        let clock = |given, here| Clock { device: 1, given, here };
        let then = 1_700_000_000_123_456_789;
        let later = then + STEP;
        assert!(state(then, then).is_settled(&clock(later, later)));
        assert!(!state(then, then).is_settled(&clock(later - 1, later)), "the file system's clock may stand still");
        assert!(!state(then, then).is_settled(&clock(later, later - 1)), "this machine's clock was set back");
        assert!(!state(then, then + 1).is_settled(&clock(later, later)));
        assert!(!state(then, then).is_settled(&Clock { device: 2, ..clock(later, later) }), "another's clock");
        let whole = 1_700_000_000_000_000_000;
        assert!(!state(whole, whole).is_settled(&clock(whole + 10 * STEP, whole + 10 * STEP)), "whole seconds");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let store = Store::new();
        let (first, none) = (store.dir.path(), |_: &Path, _: &File| Ok(()));
        let below: Vec<PathBuf> = (0..DIRS + 10).map(|number| first.join(format!("bb/{number}"))).collect();
        below.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        store.wait();
        store.synced.bring_by(first, &below, none).unwrap();
        assert_eq!(store.synced.known(first).len(), DIRS);
        for dir in &below[..STORES] {
            store.synced.bring_by(dir, &[], none).unwrap();
        }
        assert_eq!(store.synced.stores().len(), STORES);
        assert!(store.synced.known(first).is_empty(), "the one that was not used for longest is forgotten first");
    }
}
