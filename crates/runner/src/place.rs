//! Where a job's files are: in the job's directory on the machine, and where the job sees them.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use sandbox::{Mount, MountSource, Root};

use crate::inside::{Inside, Owner};
use crate::label::LabelRoot;

/// `GITHUB_WORKSPACE`, as the job sees it.
pub const WORKSPACE: &str = "/workspace";
/// The job's home directory.
pub const HOME: &str = "/home/runner";
/// `RUNNER_TEMP`.
pub const TEMP: &str = "/runner/temp";
/// `RUNNER_TOOL_CACHE`.
pub const TOOLS: &str = "/runner/tools";
/// The scripts of the steps and the event, which the job can read only.
pub const SCRIPTS: &str = "/runner/scripts";
/// The files behind `GITHUB_ENV` and its kin: another directory for each step.
pub const FILES: &str = "/runner/files";
/// The objects of the repository, which the job can read only.
pub const OBJECTS: &str = "/runner/objects";

/// What the job can write to, by its name in the job's directory, and where it sees it.
const WRITABLE: [(&str, &str); 5] =
    [("workspace", WORKSPACE), ("home", HOME), ("temp", TEMP), ("tools", TOOLS), ("tmp", "/tmp")];

/// Further directories of the job that are made anew at its start and removed at its end.
const PRIVATE: [&str; 5] = ["scripts", "files", "upper", "work", "index"];

/// The directory of a job.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    root: LabelRoot,
}

impl Place {
    /// Makes the job's directories in `dir`, empty: what an interrupted attempt left is removed.
    ///
    /// # Errors
    /// When one cannot be made or removed.
    pub fn prepare(dir: &Path, root: &LabelRoot) -> io::Result<Self> {
        let place = Self { dir: dir.to_owned(), root: root.clone() };
        remove(dir)?;
        for (name, _) in WRITABLE {
            let path = dir.join(name);
            fs::create_dir(&path)?;
            let mode = if name == "tmp" { 0o1777 } else { 0o755 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            if let Some((uid, gid)) = place.owner() {
                chown(&path, Some(uid), Some(gid))?;
            }
        }
        for name in ["scripts", "files"] {
            fs::create_dir(dir.join(name))?;
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755))?;
        }
        Ok(place)
    }

    /// The user and group that the job's commands run as. On the machine's own root nobody needs to be its user 0; an
    /// image expects it.
    pub fn user(&self) -> (u32, u32) {
        match self.root {
            LabelRoot::Host { .. } => sandbox::id_map().ordinary(),
            LabelRoot::Layers { .. } => (0, 0),
        }
    }

    /// To whom on the machine files belong that the job may change; nothing if it is ourselves.
    pub fn owner(&self) -> Option<Owner> {
        let map = sandbox::id_map();
        let (user, group) = self.user();
        if map.count == 1 { None } else { Some((map.user(user)?, map.group(group)?)) }
    }

    /// The job's workspace.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn workspace(&self) -> io::Result<Inside> {
        Inside::open(&self.dir.join("workspace"))
    }

    /// Writes a file that the job can read only. Returns where it sees it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn script(&self, name: &str, bytes: &[u8]) -> io::Result<String> {
        Inside::open(&self.dir.join("scripts"))?.write_new(name, bytes, 0o755, None)?;
        Ok(format!("{SCRIPTS}/{name}"))
    }

    /// Makes the directory for the files of step `number`, with `names` in it, empty.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn files(&self, number: usize, names: &[&str]) -> io::Result<Inside> {
        let files = Inside::open(&self.dir.join("files"))?.make_dir(&number.to_string(), self.owner())?;
        for name in names {
            files.write_new(name, b"", 0o644, self.owner())?;
        }
        Ok(files)
    }

    /// What step `number` sees on top of its root; `git_dir` if it may read the objects of the repository.
    pub fn mounts(&self, number: usize, git_dir: Option<&Path>) -> Vec<Mount> {
        let bind = |path: PathBuf, target: &str, read_only| Mount {
            source: MountSource::Bind { path, read_only },
            target: target.to_owned(),
        };
        let mut mounts: Vec<_> =
            WRITABLE.iter().map(|(name, target)| bind(self.dir.join(name), target, false)).collect();
        mounts.push(bind(self.dir.join("scripts"), SCRIPTS, true));
        mounts.push(bind(self.dir.join("files").join(number.to_string()), FILES, false));
        if let Some(git_dir) = git_dir {
            mounts.push(bind(git_dir.join("objects"), OBJECTS, true));
        }
        mounts
    }

    /// A file of the job's directory that the job does not see.
    pub fn private(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Adds to the job's `summary.md`, unless that has `limit` bytes already.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_summary(&self, text: &str, limit: u64) -> io::Result<()> {
        use std::io::Write as _;
        let mut file = fs::File::options().append(true).create(true).open(self.dir.join("summary.md"))?;
        if file.metadata()?.len() < limit {
            writeln!(file, "{text}")?;
        }
        Ok(())
    }

    /// What the job sees as its file system. Changes to layers last as long as the job.
    pub fn root(&self) -> Root {
        match &self.root {
            LabelRoot::Host { also } => Root::Host { also: also.clone() },
            LabelRoot::Layers { layers } => {
                Root::Layers { lower: layers.clone(), upper: self.dir.join("upper"), work: self.dir.join("work") }
            }
        }
    }
}

/// Removes everything of the job in `dir` but its specification, log and report. Says whether there was something.
///
/// # Errors
/// When something cannot be removed.
pub fn remove(dir: &Path) -> io::Result<bool> {
    let mut found = false;
    for name in WRITABLE.iter().map(|(name, _)| name).chain(&PRIVATE) {
        let path = dir.join(name);
        found |= path.symlink_metadata().is_ok();
        sandbox::remove_tree(&path)?;
    }
    Ok(found)
}
