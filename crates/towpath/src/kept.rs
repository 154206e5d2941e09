//! The tokens that `towpath login` keeps: one for each server, in a file that only its owner reads.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// What is kept.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kept {
    /// The server of the last login; commands go there if they name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// By address.
    pub(crate) servers: BTreeMap<String, Login>,
}

/// Whom we are at a server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) token: String,
}

impl std::fmt::Debug for Login {
    /// Never the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// `$XDG_CONFIG_HOME/towpath/logins.json`, or below `~/.config`. Nothing where neither is known.
pub(crate) fn path() -> Option<PathBuf> {
    let dir = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")))?;
    Some(config.join("towpath/logins.json"))
}

/// An address as it is kept.
pub(crate) fn address(server: &str) -> String {
    server.trim_end_matches('/').to_ascii_lowercase()
}

/// What the file at `path` holds; nothing if it is not there.
pub(crate) fn read(path: &Path) -> Result<Kept, Failure> {
    let bad = |why: String| Failure::usage(format!("{}: {why}", path.display()));
    let data = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::default()),
        data => data.map_err(|error| bad(error.to_string()))?,
    };
    if data.len() > LONGEST {
        return Err(bad(format!("longer than {LONGEST} bytes")));
    }
    if data.permissions().mode() & 0o077 != 0 {
        return Err(bad("others may read these tokens".to_owned()).hint("chmod it to 600, and log in again"));
    }
    let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    // A message of the reader could quote a token.
    serde_json::from_slice(&text).map_err(|error| bad(format!("cannot be read, line {}", error.line())))
}

/// Replaces the file at once and for good.
pub(crate) fn write(path: &Path, kept: &Kept) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let dir = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    let text = serde_json::to_vec_pretty(kept).map_err(|error| failed(error.into()))?;
    let written = || {
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    written().map_err(|error| {
        let _ = std::fs::remove_file(&aside);
        failed(error)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_kept_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("towpath/logins.json");
        assert_eq!(read(&path).unwrap(), Kept::default());
        let login = Login { user: "ada".to_owned(), token: "twp_hunter2".to_owned() };
        let address = address("HTTPS://Registry.LAN/");
        let kept = Kept { server: Some(address.clone()), servers: [(address, login)].into() };
        write(&path, &kept).unwrap();
        assert_eq!(read(&path).unwrap(), kept);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(!format!("{kept:?}").contains("hunter2"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().message.contains("others may read"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "{\"servers\": \"twp_hunter2\"}").unwrap();
        assert!(!read(&path).unwrap_err().message.contains("hunter2"));
    }
}
