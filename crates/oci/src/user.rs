//! The user of an image, `name|uid[:group|gid]`, looked up in its own `/etc/passwd` and `/etc/group`.

use std::io;
use std::path::Path;

use crate::merged::Merged;

/// The longest `/etc/passwd` or `/etc/group` that is read.
const MAX_FILE: u64 = 4 << 20;

/// Who a program runs as, by the ids inside the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedUser {
    /// The user's number.
    pub uid: u32,
    /// The number of the first group.
    pub gid: u32,
    /// The numbers of the other groups.
    pub groups: Vec<u32>,
    /// The home directory; `/` if the image knows none.
    pub home: String,
    /// The login name, if the image knows one.
    pub name: Option<String>,
}

/// Why a user of an image is not known.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The text is not of the form.
    #[error("user {0:?} is not valid: expected name or number, and after a colon group or number")]
    Malformed(String),
    /// No such user.
    #[error("the image has no user {0:?} in its /etc/passwd")]
    NoUser(String),
    /// No such group.
    #[error("the image has no group {0:?} in its /etc/group")]
    NoGroup(String),
    /// The files could not be read.
    #[error("cannot read {file} of the image: {source}")]
    Read {
        /// The file.
        file: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Finds out who `user` is in an image. An empty text is root; a number needs no entry.
///
/// # Errors
/// When the text is malformed, or names somebody the image does not know.
pub fn resolve(image: &Merged, user: &str) -> Result<ResolvedUser, UserError> {
    let (wanted, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    if group == Some("") || (wanted.is_empty() && group.is_some()) || user.contains(['\n', '\0', '/']) {
        return Err(UserError::Malformed(user.chars().take(80).collect()));
    }
    let wanted = if wanted.is_empty() { "0" } else { wanted };
    let passwd = lines(image, "/etc/passwd")?;
    let number = wanted.parse::<u32>().ok();
    let entry = passwd.iter().find_map(|line| account(line).filter(|a| a.name == wanted || Some(a.uid) == number));
    let (uid, mut gid, home, name) = match (entry, number) {
        (Some(account), _) => (account.uid, account.gid, account.home.to_owned(), Some(account.name.to_owned())),
        (None, Some(uid)) => (uid, 0, String::new(), None),
        (None, None) => return Err(UserError::NoUser(wanted.to_owned())),
    };
    let groups_file = lines(image, "/etc/group")?;
    let mut groups = Vec::new();
    match group {
        Some(group) => gid = find_group(&groups_file, group)?,
        None => {
            let member = |line: &&String| name.as_deref().is_some_and(|name| is_member(line, name));
            groups =
                groups_file.iter().filter(member).filter_map(|line| group_id(line)).filter(|id| *id != gid).collect();
            groups.sort_unstable();
            groups.dedup();
            // More than the kernel takes would only make every start fail.
            groups.truncate(1024);
        }
    }
    let home = if home.starts_with('/') { home } else { "/".to_owned() };
    Ok(ResolvedUser { uid, gid, groups, home, name })
}

fn lines(image: &Merged, file: &'static str) -> Result<Vec<String>, UserError> {
    let content = image.read(Path::new(file), MAX_FILE).map_err(|source| UserError::Read { file, source })?;
    Ok(String::from_utf8_lossy(&content.unwrap_or_default()).lines().map(str::to_owned).collect())
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
}

fn group_id(line: &str) -> Option<u32> {
    line.split(':').nth(2)?.parse().ok()
}

fn is_member(line: &str, name: &str) -> bool {
    line.split(':').nth(3).is_some_and(|members| members.split(',').any(|member| member.trim() == name))
}

fn find_group(groups: &[String], wanted: &str) -> Result<u32, UserError> {
    let named = groups.iter().find(|line| line.split(':').next() == Some(wanted)).and_then(|line| group_id(line));
    named.or_else(|| wanted.parse().ok()).ok_or_else(|| UserError::NoGroup(wanted.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn image(passwd: &str, group: &str) -> (tempfile::TempDir, Merged) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        fs::write(dir.path().join("etc/group"), group).unwrap();
        let merged = Merged::new(vec![dir.path().to_owned()]);
        (dir, merged)
    }

    #[test]
    fn names_numbers_and_groups() {
        let (_dir, image) = image(
            "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/var/www:\n",
            "root:x:0:\nweb:x:34:\nlog:x:50:other,web\nssl:x:40:web\n",
        );
        let web = resolve(&image, "web").unwrap();
        assert_eq!((web.uid, web.gid, &web.groups[..], &web.home[..]), (33, 34, &[40, 50][..], "/var/www"));
        assert_eq!(resolve(&image, "33").unwrap().gid, 34);
        assert_eq!(resolve(&image, "web:log").unwrap().gid, 50);
        assert_eq!(resolve(&image, "").unwrap().home, "/root");
        let unknown = resolve(&image, "1234:99").unwrap();
        assert_eq!((unknown.uid, unknown.gid, unknown.home.as_str()), (1234, 99, "/"));
        assert!(matches!(resolve(&image, "nobody"), Err(UserError::NoUser(_))));
        assert!(matches!(resolve(&image, "web:none"), Err(UserError::NoGroup(_))));
        for bad in [":1", "web:", "a/b", "a\nb"] {
            assert!(matches!(resolve(&image, bad), Err(UserError::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_linked_passwd_never_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/passwd", dir.path().join("etc/passwd")).unwrap();
        let image = Merged::new(vec![dir.path().to_owned()]);
        assert!(resolve(&image, "root").is_err());
    }
}
