//! What is on disk about a supervisor: whether it lives, and how it ended.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use model::Timestamp;
use nix::fcntl::FcntlArg;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{EXIT, LOCK, SOCKET, SuperviseError};
use crate::exit::Exit;

/// How a supervised workload ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    /// How.
    pub exit: Exit,
    /// When.
    pub at: Timestamp,
    /// Whatever else the supervisor has to say.
    #[serde(default)]
    pub detail: serde_json::Value,
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the lock of a directory for as long as the file stays open.
pub(super) fn take_lock(dir: &Path) -> Result<File, SuperviseError> {
    let path = dir.join(LOCK);
    let what = || format!("lock {}", path.display());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(super::io(what()))?;
    let mut file = File::from(file);
    // A lock of the open file, so that no other descriptor of this process can lose it.
    match nix::fcntl::fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => {}
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
            return Err(SuperviseError::AlreadyRunning(dir.display().to_string()));
        }
        Err(error) => return Err(super::io(what())(error)),
    }
    let note = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    note.map_err(super::io(what()))?;
    Ok(file)
}

/// Whether a supervisor lives in `dir`. Only looks, so that it disturbs none that is just starting.
pub fn alive(dir: &Path) -> bool {
    let Ok(file) = rustix::fs::open(dir.join(LOCK), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let mut lock = whole_file(libc::F_RDLCK);
    debug_assert!(file.as_raw_fd() >= 0);
    nix::fcntl::fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
}

/// How the supervisor in `dir` ended; nothing if it did not, or could not say.
pub fn exit(dir: &Path) -> Option<ExitRecord> {
    serde_json::from_slice(&std::fs::read(dir.join(EXIT)).ok()?).ok()
}

/// Forgets an earlier end, so that [`start`](super::start) starts anew.
///
/// # Errors
/// When a supervisor lives there, or the record cannot be removed.
pub fn reset(dir: &Path) -> Result<(), SuperviseError> {
    if alive(dir) {
        return Err(SuperviseError::AlreadyRunning(dir.display().to_string()));
    }
    for name in [EXIT, SOCKET] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(super::io(format!("remove {}", dir.join(name).display()))(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes the record so that it is there whole or not at all, also after a power cut.
pub(super) fn write(dir: &Path, record: &ExitRecord) -> Result<(), SuperviseError> {
    let path = dir.join(EXIT);
    let put = || -> io::Result<()> {
        let temporary = dir.join(format!("{EXIT}.new"));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    put().map_err(super::io(format!("write {}", path.display())))
}
