//! User namespaces and their id maps.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use rustix::process::{Gid, Uid};

use crate::probe::{BASE, RANGE};
use crate::wire::{Failure, failed};

/// A map file is written with one call; it is never made.
fn write(path: &str, text: &str) -> Result<(), Failure> {
    let put = || -> io::Result<()> { OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes()) };
    put().map_err(failed(format!("write {:?} to {path}", text.trim_end())))
}

/// Makes the ordinary user `uid` the root of the user namespace this process has just entered.
pub(crate) fn map_self(uid: u32, gid: u32) -> Result<(), Failure> {
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {uid} 1\n"))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1\n"))
}

/// Gives the user namespace of `pid` ids that nothing else on the machine has.
pub(crate) fn map_range(pid: i32) -> Result<(), Failure> {
    write(&format!("/proc/{pid}/uid_map"), &format!("0 {BASE} {RANGE}\n"))?;
    write(&format!("/proc/{pid}/gid_map"), &format!("0 {BASE} {RANGE}\n"))
}

/// Gives the innermost user namespace of `pid` the ids of the one around it: all, or the only one under the given names.
pub(crate) fn map_inner(pid: i32, single: Option<(u32, u32)>) -> Result<(), Failure> {
    let (uids, gids) = match single {
        Some((uid, gid)) => (format!("{uid} 0 1\n"), format!("{gid} 0 1\n")),
        None => (format!("0 0 {RANGE}\n"), format!("0 0 {RANGE}\n")),
    };
    write(&format!("/proc/{pid}/uid_map"), &uids)?;
    write(&format!("/proc/{pid}/gid_map"), &gids)
}

/// Takes on ids of the current user namespace for good.
pub(crate) fn become_user(user: u32, group: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(groups) = groups {
        let groups: Vec<Gid> = groups.iter().map(|id| Gid::from_raw(*id)).collect();
        rustix::thread::set_thread_groups(&groups)?;
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    Ok(())
}
