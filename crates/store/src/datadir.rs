//! The data directory: one format, one process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::Reserve;
use crate::records::Location;

/// The format of the data directory that this version reads and writes.
const FORMAT: u64 = 1;
const FORMAT_PREFIX: &str = "towpath-data ";

/// A data directory that this process holds until the value is dropped.
///
/// `format` is the text `towpath-data 1` and a newline; `lock` is held with `flock` and names the process that holds it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Keeps the lock: closing the file gives it up.
    _lock: File,
    reserve: Reserve,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("data directory {} is in use by {}", path.display(), holder(*.pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, if it has written its number already.
        pid: Option<u32>,
    },
    /// A later version wrote it.
    #[error("data directory {} has format {found}, this towpath knows formats up to {FORMAT}: a newer towpath wrote it", path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// It holds something else.
    #[error("{} is not a towpath data directory: {why}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// It cannot be written to.
    #[error("data directory {} cannot be written to: {error}", path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Its disk is full.
    #[error("no space left on the disk of data directory {}", path.display())]
    NoSpace {
        /// The directory.
        path: PathBuf,
    },
    /// Something else failed.
    #[error("cannot open data directory {}: {error}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another towpath".to_owned(), |pid| format!("another towpath (process {pid})"))
}

impl DataDir {
    /// Takes `path` as data directory, creating it (mode 0700) if it is not there.
    ///
    /// The format is read before anything is touched: a directory of a newer towpath, or one that holds other things, is
    /// left as it is.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataDirError> {
        let path = path.as_ref();
        let found = read_format(path)?;
        if found.is_none() {
            check_empty(path)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed(path, error))?;
        // Absolute, so that a change of the working directory moves nothing.
        let path = path.canonicalize().map_err(|error| failed(path, error))?;
        let (lock, reserve) = take_lock(&path)?;
        if read_format(&path)?.is_none() {
            sync_names(&path).map_err(|error| failed(&path, error))?;
            write_format(&path).map_err(|error| failed(&path, error))?;
        }
        check_writable(&path).map_err(|error| failed(&path, error))?;
        Ok(Self { path, _lock: lock, reserve })
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its records are if they are in SQLite.
    pub fn records(&self) -> Location {
        Location::Sqlite(self.path.join("towpath.db"))
    }

    /// What is kept aside on its disk.
    pub const fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// The directory of its blobs.
    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }
}

fn failed(path: &Path, error: io::Error) -> DataDirError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => DataDirError::Unwritable { path, error },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DataDirError::NoSpace { path },
        _ => DataDirError::Io { path, error },
    }
}

/// The format of a directory that has one, refusing those that this version does not know.
fn read_format(path: &Path) -> Result<Option<u64>, DataDirError> {
    let mut text = String::new();
    match File::open(path.join("format")).and_then(|file| file.take(64).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, error)),
    }
    let number = text.trim_end().strip_prefix(FORMAT_PREFIX).and_then(|number| number.parse::<u64>().ok());
    match number {
        Some(found) if found > FORMAT => Err(DataDirError::Newer { path: path.to_owned(), found }),
        Some(found) if found > 0 => Ok(Some(found)),
        _ => {
            let why = format!("its file \"format\" says {:?}, not \"{FORMAT_PREFIX}{FORMAT}\"", text.trim_end());
            Err(DataDirError::Foreign { path: path.to_owned(), why })
        }
    }
}

/// Without a format, only a directory that is new may be taken, or one whose first start was interrupted.
fn check_empty(path: &Path) -> Result<(), DataDirError> {
    let entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| failed(path, error))?.file_name();
        let ours = ["lock", "format.new", "probe", "lost+found"].iter().any(|ours| name == *ours);
        if !ours {
            let why = format!("it has no file \"format\" but holds {name:?}; give an empty or new directory");
            return Err(DataDirError::Foreign { path: path.to_owned(), why });
        }
    }
    Ok(())
}

/// Takes the lock, and room to work in if the disk is nearly full: only who has the lock may do that.
fn take_lock(path: &Path) -> Result<(File, Reserve), DataDirError> {
    let io = |error| failed(path, error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(path.join("lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let pid = (&lock).take(32).read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
            return Err(DataDirError::InUse { path: path.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    let reserve = Reserve::open(path);
    let write = |lock: &mut File| {
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())
    };
    write(&mut lock).map_err(io)?;
    Ok((lock, reserve))
}

/// Brings the name of a new directory, and of those above it that may be new, onto the disk.
fn sync_names(path: &Path) -> io::Result<()> {
    for above in path.ancestors().skip(1) {
        match File::open(above).and_then(|dir| dir.sync_all()) {
            Ok(()) => {}
            // A directory that we may not read, or that takes no sync, is not one of those that were just made.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_format(path: &Path) -> io::Result<()> {
    let new = path.join("format.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{FORMAT_PREFIX}{FORMAT}")?;
    file.sync_all()?;
    std::fs::rename(&new, path.join("format"))?;
    File::open(path)?.sync_all()
}

/// Creates and removes a file: the lock may be writable where the directory is not.
fn check_writable(path: &Path) -> io::Result<()> {
    let probe = path.join("probe");
    File::create(&probe).and_then(|mut file| file.write_all(b"towpath"))?;
    std::fs::remove_file(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            path.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn is_created_private_and_opens_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let data = DataDir::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_to_string(path.join("format")).unwrap(), "towpath-data 1\n");
        assert_eq!(names(&path), ["format", "lock"]);
        drop(data);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_second_instance_is_told_who_has_it() {
        let parent = tempfile::tempdir().unwrap();
        let _first = DataDir::open(parent.path()).unwrap();
        let error = DataDir::open(parent.path()).unwrap_err().to_string();
        let expected = format!(
            "data directory {} is in use by another towpath (process {})",
            parent.path().canonicalize().unwrap().display(),
            std::process::id()
        );
        assert_eq!(error, expected);
    }

    #[test]
    fn a_newer_format_is_refused_untouched() {
        let parent = tempfile::tempdir().unwrap();
        let format = parent.path().join("format");
        std::fs::write(&format, "towpath-data 2\n").unwrap();
        let before = format.metadata().unwrap().modified().unwrap();
        let error = DataDir::open(parent.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Newer { found: 2, .. }), "{error}");
        assert_eq!(names(parent.path()), ["format"]);
        assert_eq!(format.metadata().unwrap().modified().unwrap(), before);
    }

    #[test]
    fn a_directory_with_other_things_is_refused_untouched() {
        for (name, text) in [("holiday.jpg", ""), ("format", "something else")] {
            let parent = tempfile::tempdir().unwrap();
            std::fs::write(parent.path().join(name), text).unwrap();
            let error = DataDir::open(parent.path()).unwrap_err();
            assert!(matches!(error, DataDirError::Foreign { .. }), "{error}");
            assert_eq!(names(parent.path()), [name]);
        }
    }

    #[test]
    fn an_interrupted_first_start_is_taken_up() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("lock"), "1\n").unwrap();
        std::fs::write(parent.path().join("format.new"), "towp").unwrap();
        DataDir::open(parent.path()).unwrap();
    }

    #[test]
    fn an_unwritable_directory_is_one_clear_line() {
        if rustix::process::geteuid().is_root() {
            // Root writes where the mode forbids it, but not into a kernel file system.
            let error = DataDir::open("/proc/towpath").unwrap_err().to_string();
            assert!(error.contains("/proc/towpath") && !error.contains('\n'), "{error}");
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
        let error = DataDir::open(parent.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Unwritable { .. }), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}
