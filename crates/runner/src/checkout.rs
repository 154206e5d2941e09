//! `actions/checkout`, from the repository on this machine: the files of the snapshot and a `.git` that knows them.

use std::collections::BTreeMap;

use model::{CommitId, RefName};

use crate::checkout_git::{self, Head};
use crate::evaluate::Evaluate;
use crate::inside::Inside;
use crate::job::{Job, Scope, now};
use crate::place::WORKSPACE;
use crate::sparse::Sparse;
use crate::step::Ready;

/// The inputs of the action in all its versions.
const INPUTS: [&str; 22] = [
    "repository",
    "ref",
    "token",
    "ssh-key",
    "ssh-known-hosts",
    "ssh-strict",
    "ssh-user",
    "persist-credentials",
    "path",
    "clean",
    "filter",
    "sparse-checkout",
    "sparse-checkout-cone-mode",
    "fetch-depth",
    "fetch-tags",
    "show-progress",
    "lfs",
    "submodules",
    "set-safe-directory",
    "github-server-url",
    "allow-unsafe-pr-checkout",
    "server-url",
];

/// What is asked of the action.
struct Wanted {
    /// The commit, and the branch that it is the head of.
    commit: CommitId,
    branch: Option<String>,
    /// Where, below the workspace.
    path: String,
    clean: bool,
    /// Only the last commit is to be known.
    shallow: bool,
    credentials: bool,
    submodules: bool,
    sparse: Sparse,
}

/// Checks out. Errors are texts for people.
pub async fn run(
    job: &mut Job<'_>,
    scope: &Scope,
    ready: &Ready<'_>,
    outputs: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let inputs = Evaluate::new(job, scope, &ready.env).map(&ready.step.with)?;
    let inputs: BTreeMap<_, _> = inputs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    for name in inputs.keys().filter(|name| !INPUTS.contains(&name.as_str())) {
        job.log.say(&format!("##[warning]Unexpected input {name:?} of actions/checkout."));
    }
    let git = git::Git::discover().map_err(|error| error.to_string())?;
    let repository = git::Repository::open(&git, &job.spec.git_dir).map_err(|error| error.to_string())?;
    let wanted = wanted(job, &repository, &inputs).await?;
    refuse_submodules(&wanted, &repository).await?;
    let dest = destination(job, &wanted)?;
    let summary = materialise(job, &repository, &wanted, &dest).await?;
    let head = Head {
        commit: &wanted.commit,
        branch: wanted.branch.as_deref(),
        shallow: wanted.shallow,
        credentials: job.spec.token.as_deref().filter(|_| wanted.credentials),
    };
    checkout_git::write(job.spec, &git, &repository, &job.place, &dest, &head).await?;
    job.objects = true;
    outputs.insert("commit".to_owned(), wanted.commit.to_string());
    outputs.insert(
        "ref".to_owned(),
        inputs.get("ref").filter(|text| !text.is_empty()).map_or_else(|| job.spec.ref_name.to_string(), Clone::clone),
    );
    let target = if wanted.path.is_empty() { WORKSPACE.to_owned() } else { format!("{WORKSPACE}/{}", wanted.path) };
    job.log.say(&format!("{summary} of {} at {} in {target}", job.spec.repository, wanted.commit));
    Ok(())
}

async fn wanted(
    job: &Job<'_>,
    repository: &git::Repository,
    inputs: &BTreeMap<String, String>,
) -> Result<Wanted, String> {
    let text = |name: &str| inputs.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let flag = |name: &str, default: bool| match text(name).map(str::to_ascii_lowercase).as_deref() {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(format!("{name} {other:?}: expected true or false")),
    };
    if let Some(other) = text("repository").filter(|name| !name.eq_ignore_ascii_case(&job.spec.repository.to_string()))
    {
        return Err(format!(
            "repository {other:?} cannot be checked out: this runner checks out only {}, the repository of the run",
            job.spec.repository
        ));
    }
    if flag("lfs", false)? {
        return Err("lfs: true is not supported by this runner yet".to_owned());
    }
    let submodules = match text("submodules") {
        Some(value) if value.eq_ignore_ascii_case("recursive") => true,
        _ => flag("submodules", false)?,
    };
    let depth = text("fetch-depth").unwrap_or("1");
    let depth: u64 = depth.parse().map_err(|_| format!("fetch-depth {depth:?}: expected a whole number"))?;
    let (commit, branch) = resolve(job, repository, text("ref")).await?;
    let sparse = match text("sparse-checkout") {
        None => Sparse::everything(),
        Some(_) if !flag("sparse-checkout-cone-mode", true)? => {
            return Err("sparse-checkout-cone-mode: false is not supported: list directories".to_owned());
        }
        Some(list) => Sparse::cone(list),
    };
    Ok(Wanted {
        commit,
        branch,
        path: relative(text("path").unwrap_or_default())?,
        clean: flag("clean", true)?,
        shallow: depth == 1,
        credentials: flag("persist-credentials", true)?,
        submodules,
        sparse,
    })
}

/// The `path` input, below the workspace.
fn relative(path: &str) -> Result<String, String> {
    let below = path.strip_prefix(WORKSPACE).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    if path.starts_with('/') && below == path {
        return Err(format!("path {path:?} is not below the workspace, {WORKSPACE}"));
    }
    let parts: Vec<_> = below.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.iter().any(|part| *part == ".." || part.contains('\0')) {
        return Err(format!("path {path:?} is not below the workspace, {WORKSPACE}"));
    }
    if parts.iter().any(|part| part.eq_ignore_ascii_case(".git")) {
        return Err(format!("path {path:?} lies in a .git directory"));
    }
    Ok(parts.join("/"))
}

/// The commit that `wanted` names, and its branch. The ref of the run means its snapshot, wherever the ref is by now.
async fn resolve(
    job: &Job<'_>,
    repository: &git::Repository,
    wanted: Option<&str>,
) -> Result<(CommitId, Option<String>), String> {
    let spec = job.spec;
    let own = wanted.is_none_or(|name| {
        [spec.ref_name.as_str(), spec.ref_name.short(), spec.commit.as_str(), spec.snapshot.as_str()].contains(&name)
    });
    let Some(name) = wanted.filter(|_| !own) else {
        let branch = spec.ref_name.as_branch().filter(|_| wanted != Some(spec.commit.as_str()));
        return Ok((spec.commit.clone(), branch.map(str::to_owned)));
    };
    let find = async |name: String| repository.resolve(&name).await.map_err(|error| error.to_string());
    if let Some(branch) = RefName::branch(name.strip_prefix("refs/heads/").unwrap_or(name)).ok()
        && let Some(commit) = find(branch.to_string()).await?
    {
        return Ok((commit, branch.as_branch().map(str::to_owned)));
    }
    match find(name.to_owned()).await? {
        Some(commit) => Ok((commit, None)),
        None => Err(format!("ref {name:?} is no branch, tag or commit of {}", spec.repository)),
    }
}

async fn refuse_submodules(wanted: &Wanted, repository: &git::Repository) -> Result<(), String> {
    if !wanted.submodules {
        return Ok(());
    }
    match repository.read_file(&wanted.commit, ".gitmodules", 1024 * 1024).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err("submodules are not supported by this runner yet, and the commit has some".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The directory to check out to, empty if it is to be.
fn destination(job: &Job<'_>, wanted: &Wanted) -> Result<Inside, String> {
    let at = |error: std::io::Error| format!("path {:?}: {error}", wanted.path);
    let workspace = job.place.workspace().map_err(at)?;
    let dest = workspace.make_dir(&wanted.path, job.place.owner()).map_err(at)?;
    if wanted.clean {
        dest.clear().map_err(at)?;
    } else {
        // What this action writes itself must not meet what a step made there.
        sandbox::remove_tree(&dest.path().join(".git")).map_err(at)?;
    }
    Ok(dest)
}

async fn materialise(
    job: &Job<'_>,
    repository: &git::Repository,
    wanted: &Wanted,
    dest: &Inside,
) -> Result<String, String> {
    let keep = |path: &str| wanted.sparse.keeps(path);
    let how = git::Materialise {
        path: "",
        owner: job.place.owner(),
        // A build tool must never take a file for older than what was made from its predecessor.
        mtime: now(),
        keep: &keep,
    };
    let summary =
        repository.materialise(&wanted.commit, how, &dest.path().join(".")).await.map_err(|error| error.to_string())?;
    Ok(format!("{} files", summary.files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_stays_below_the_workspace() {
        for (path, expected) in [("", ""), (".", ""), ("a//b/", "a/b"), ("/workspace/x", "x"), ("./..x", "..x")] {
            assert_eq!(relative(path).as_deref(), Ok(expected), "{path}");
        }
        for bad in ["..", "a/../b", "/etc", "/workspaces", ".git/hooks", "x/.GIT"] {
            assert!(relative(bad).is_err(), "{bad}");
        }
    }
}
