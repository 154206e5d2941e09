//! What a migration has done, so that another run goes on from there.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use model::{Digest, Tag};
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// One line of JSON for each tag that is copied, after a first one that says from where and where to. A line that a
/// killed process left half written does not count.
pub(super) struct State {
    file: Mutex<File>,
    done: HashMap<(String, String), String>,
}

#[derive(PartialEq, Eq, Deserialize, Serialize)]
struct Head {
    from: String,
    to: String,
}

#[derive(Deserialize, Serialize)]
struct Line {
    repository: String,
    tag: String,
    digest: String,
}

impl State {
    pub(super) fn open(path: &Path, from: &str, to: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::usage(format!("the state in {}: {error}", path.display()));
        let head = Head { from: from.to_owned(), to: to.to_owned() };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut lines = text.lines();
        let first = lines.next();
        if first.is_some_and(|first| serde_json::from_str::<Head>(first).ok().as_ref() != Some(&head)) {
            let message = format!("{} is the state of another migration", path.display());
            return Err(Failure::usage(message).hint("name another file with --state, or remove it"));
        }
        let lines = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let done = lines.map(|line| ((line.repository, line.tag), line.digest)).collect();
        let mut file = File::options().create(true).append(true).open(path).map_err(failed)?;
        if first.is_none() {
            write(&mut file, &head).map_err(failed)?;
        } else if !text.ends_with('\n') {
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok(Self { file: Mutex::new(file), done })
    }

    /// Whether the tag was copied with this digest by an earlier run.
    pub(super) fn is_done(&self, repository: &str, tag: &Tag, digest: &Digest) -> bool {
        let found = self.done.get(&(repository.to_owned(), tag.to_string()));
        found.is_some_and(|found| *found == digest.to_string())
    }

    /// The tag is copied, with everything below it.
    pub(super) fn note(&self, repository: &str, tag: &Tag, digest: &Digest) -> Result<(), Failure> {
        let line = Line { repository: repository.to_owned(), tag: tag.to_string(), digest: digest.to_string() };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        write(&mut file, &line).map_err(|error| Failure::failed(format!("the state cannot be written: {error}")))
    }
}

/// A line in one piece.
fn write(file: &mut File, line: &impl Serialize) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (tag, digest) = ("v1".parse().unwrap(), Digest::sha256([1; 32]));
        State::open(&path, "a", "b").unwrap().note("x", &tag, &digest).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str(r#"{"repository":"y","ta"#);
        std::fs::write(&path, text).unwrap();
        State::open(&path, "a", "b").unwrap().note("z", &tag, &digest).unwrap();
        let state = State::open(&path, "a", "b").unwrap();
        assert!(state.is_done("x", &tag, &digest) && state.is_done("z", &tag, &digest));
        assert!(!state.is_done("x", &tag, &Digest::sha256([2; 32])) && !state.is_done("y", &tag, &digest));
        assert!(State::open(&path, "a", "c").is_err());
    }
}
