//! The `.git` of a checkout. It borrows the objects of the repository on this machine, which the job can only read; so
//! it costs the same for any size and depth.

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use model::CommitId;

use crate::inside::Inside;
use crate::place::{OBJECTS, Place};
use crate::spec::JobSpec;

/// What the `.git` says.
pub struct Head<'a> {
    /// The commit.
    pub commit: &'a CommitId,
    /// The branch that is checked out; nothing for a detached head.
    pub branch: Option<&'a str>,
    /// History ends at the commit.
    pub shallow: bool,
    /// The token that `git push` and `git fetch` use.
    pub credentials: Option<&'a str>,
}

/// Writes `.git` in `dest`. Errors are texts for people.
pub async fn write(
    spec: &JobSpec,
    git: &git::Git,
    repository: &git::Repository,
    place: &Place,
    dest: &Inside,
    head: &Head<'_>,
) -> Result<(), String> {
    let owner = place.owner();
    let index = index(git, &spec.git_dir, &place.private("index"), head.commit).await?;
    let refs = packed_refs(repository, head).await?;
    let put = || -> std::io::Result<()> {
        let dir = dest.make_dir(".git", owner)?;
        for name in ["objects/pack", "refs/heads", "refs/tags", "info", "hooks"] {
            dir.make_dir(name, owner)?;
        }
        let info = dir.make_dir("objects/info", owner)?;
        info.write_new("alternates", format!("{OBJECTS}\n").as_bytes(), 0o644, owner)?;
        let line = match head.branch {
            Some(branch) => format!("ref: refs/heads/{branch}\n"),
            None => format!("{}\n", head.commit),
        };
        dir.write_new("HEAD", line.as_bytes(), 0o644, owner)?;
        dir.write_new("config", config(spec, head).as_bytes(), 0o600, owner)?;
        dir.write_new("packed-refs", refs.as_bytes(), 0o644, owner)?;
        dir.write_new("index", &index, 0o644, owner)?;
        if head.shallow {
            dir.write_new("shallow", format!("{}\n", head.commit).as_bytes(), 0o644, owner)?;
        }
        Ok(())
    };
    put().map_err(|error| format!(".git cannot be written: {error}"))
}

/// The index of a fresh checkout of `commit`; git writes it to `path` first.
async fn index(git: &git::Git, git_dir: &Path, path: &Path, commit: &CommitId) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the index cannot be made: {error}");
    sandbox::remove_tree(path).map_err(|error| failed(&error))?;
    let output = git
        .command(git_dir)
        .args(["-c", "core.fsync=none", "read-tree", commit.as_str()])
        .env("GIT_INDEX_FILE", path)
        .output()
        .await
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    tokio::fs::read(path).await.map_err(|error| failed(&error))
}

/// The branch that is checked out, as a local and a remote one; with all of history, all branches and tags as well.
async fn packed_refs(repository: &git::Repository, head: &Head<'_>) -> Result<String, String> {
    let mut refs = std::collections::BTreeMap::new();
    if !head.shallow {
        for (prefix, becomes) in [("refs/heads/", "refs/remotes/origin/"), ("refs/tags/", "refs/tags/")] {
            for (name, commit) in repository.refs(prefix).await.map_err(|error| error.to_string())? {
                if let Some(short) = name.as_str().strip_prefix(prefix) {
                    refs.insert(format!("{becomes}{short}"), commit.to_string());
                }
            }
        }
    }
    if let Some(branch) = head.branch {
        refs.insert(format!("refs/heads/{branch}"), head.commit.to_string());
        refs.insert(format!("refs/remotes/origin/{branch}"), head.commit.to_string());
    }
    Ok(refs.iter().map(|(name, commit)| format!("{commit} {name}\n")).collect())
}

fn config(spec: &JobSpec, head: &Head<'_>) -> String {
    let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let sha256 = head.commit.as_str().len() == 64;
    let mut text = format!("[core]\n\trepositoryformatversion = {}\n", u8::from(sha256));
    text.push_str("\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n[gc]\n\tauto = 0\n");
    if sha256 {
        text.push_str("[extensions]\n\tobjectFormat = sha256\n");
    }
    let url = quote(&format!("{}/{}.git", spec.server_url, spec.repository));
    let _ = write!(text, "[remote \"origin\"]\n\turl = \"{url}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n");
    if let Some(branch) = head.branch.map(quote) {
        let _ = write!(text, "[branch \"{branch}\"]\n\tremote = origin\n\tmerge = \"refs/heads/{branch}\"\n");
    }
    if let Some(token) = head.credentials {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
        let server = quote(&spec.server_url);
        let _ = write!(text, "[http \"{server}/\"]\n\textraheader = \"AUTHORIZATION: basic {basic}\"\n");
    }
    text
}
