//! A directory on a disk that loses at a power cut whatever was not synced.

mod content;
mod disk;
mod serve;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use crate::processes::Tree;
use disk::Disk;
use serve::Shared;

/// How long processes may take to die.
const DYING: Duration = Duration::from_secs(10);

/// A mounted disk in memory.
pub(crate) struct Unsynced {
    dir: PathBuf,
    disk: Shared,
    session: Option<BackgroundSession>,
}

impl Unsynced {
    /// Mounts an empty one at `dir`, which is made.
    pub(crate) fn mount(dir: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let disk = Shared::new(Disk::new(owner));
        let session = Some(mount(dir, &disk)?);
        Ok(Self { dir: dir.to_owned(), disk, session })
    }

    /// Cuts the power: everything that runs on the disk dies, and what was not synced is gone. Then the power is back.
    pub(crate) fn cut(&mut self) -> Result<(), String> {
        let left = self.disk.cut();
        kill_all(&self.dir)?;
        self.unmount();
        self.disk = Shared::new(left);
        self.session = Some(mount(&self.dir, &self.disk)?);
        Ok(())
    }

    fn unmount(&mut self) {
        // What still holds it keeps a disk without power.
        let _ = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
        drop(self.session.take());
    }
}

impl Drop for Unsynced {
    fn drop(&mut self) {
        let _ = kill_all(&self.dir);
        self.unmount();
    }
}

fn mount(dir: &Path, disk: &Shared) -> Result<BackgroundSession, String> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("unsynced".into()),
        MountOption::DefaultPermissions,
        MountOption::Dev,
        MountOption::Suid,
        MountOption::Exec,
    ];
    // Sandboxes have users of their own.
    config.acl = SessionACL::All;
    config.n_threads = Some(2);
    fuser::spawn_mount(disk.clone(), dir, &config).map_err(|error| {
        let hint = "it needs /dev/fuse and root, or `unshare -Urm`";
        format!("the disk that forgets cannot be mounted at {}: {error}; {hint}", dir.display())
    })
}

/// Kills what was started from `dir` or has something of it open.
fn kill_all(dir: &Path) -> Result<(), String> {
    let until = Instant::now() + DYING;
    loop {
        let mut pids: HashSet<u32> = Tree::new(dir).look().iter().map(|it| it.pid).collect();
        pids.extend(holders(dir));
        pids.remove(&std::process::id());
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(format!("the processes {pids:?} do not die"));
        }
        for pid in pids {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have died by itself.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes that work in `dir`.
fn holders(dir: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let works_there = |path: &PathBuf| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    let number = |path: PathBuf| path.file_name()?.to_str()?.parse().ok();
    entries.map(|entry| entry.path()).filter(works_there).filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use e2e::{Options, Site, World};

    /// The body that the site answers with, when it is back.
    fn answer(url: &str) -> Option<String> {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            match World::ask(url) {
                Some((200, body)) => return Some(body),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        None
    }

    /// Everything that leads to a running site has a name on the disk: the data directory that was made for it, the
    /// directories of the site and its service, the job's.
    #[test]
    fn a_site_and_its_logs_are_back_after_a_power_cut() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let mount = place.path().join("disk");
        let mut disk = match Unsynced::mount(&mount) {
            Ok(disk) => disk,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let options = Options { data: Some(mount.join("made/for/it")), ..Options::default() };
        let Some(mut world) = World::start(options) else { return };
        let site = Site::new(&world, "site");
        for page in ["one", "two"] {
            let commit = site.change_page(page);
            let status = world.delivered(&site, &commit);
            assert_eq!(status["outcome"], "succeeded", "{status:#}");
            let checked = world.run_of(&site.repository, "workflow", &commit);
            let logs = world.get(&format!("/runs/{checked}/logs"));
            disk.cut().expect("a cut");
            world.kill();
            world.up();
            let url = status["address"].as_str().expect("an address");
            assert_eq!(answer(url), Some(format!("{page}\n")), "{}", world.server_log());
            assert_eq!(world.get(&format!("/runs/{checked}/logs")), logs);
        }
        drop(world);
    }
}
