//! `hashFiles()`: one digest for the files of the workspace that patterns choose.

use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use sha2::{Digest as _, Sha256};

use crate::inside::Inside;
use crate::place::WORKSPACE;

/// A directory tree that is deeper than this is not searched.
const MAX_DEPTH: usize = 64;

/// The SHA-256 of the SHA-256 of each file of `workspace` that `patterns` choose, in the order of their paths, as
/// hexadecimal digits; empty if there is none. A pattern with `!` before it takes files away. Symbolic links are passed
/// over.
///
/// # Errors
/// When a pattern cannot be read or the workspace cannot be searched.
pub fn hash(workspace: &Inside, patterns: &[String]) -> Result<String, String> {
    let chosen = Patterns::read(patterns)?;
    let mut walk = Walk { chosen: &chosen, total: Sha256::new(), found: false };
    walk.directory(workspace, "", 0).map_err(|error| format!("the workspace cannot be searched: {error}"))?;
    Ok(if walk.found { hex::encode(walk.total.finalize()) } else { String::new() })
}

struct Patterns {
    /// In order, later ones decide: whether it takes away, and what it matches.
    rules: Vec<(bool, GlobSet)>,
}

impl Patterns {
    fn read(patterns: &[String]) -> Result<Self, String> {
        let mut rules = Vec::new();
        for pattern in patterns.iter().flat_map(|text| text.lines()).map(str::trim) {
            if pattern.is_empty() || pattern.starts_with('#') {
                continue;
            }
            let (away, glob) = match pattern.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, pattern),
            };
            let relative = glob.strip_prefix(WORKSPACE).unwrap_or(glob).trim_start_matches('/');
            let relative = relative.strip_prefix("./").unwrap_or(relative).trim_end_matches('/');
            let mut set = GlobSetBuilder::new();
            // A directory stands for all that is in it.
            for text in [relative.to_owned(), format!("{relative}/**")] {
                let glob = GlobBuilder::new(&text).literal_separator(true).build();
                set.add(glob.map_err(|error| format!("pattern {pattern:?}: {error}"))?);
            }
            rules.push((away, set.build().map_err(|error| format!("pattern {pattern:?}: {error}"))?));
        }
        Ok(Self { rules })
    }

    fn choose(&self, path: &str) -> bool {
        self.rules.iter().rev().find(|(_, set)| set.is_match(path)).is_some_and(|(away, _)| !away)
    }
}

struct Walk<'p> {
    chosen: &'p Patterns,
    total: Sha256,
    found: bool,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Inside, prefix: &str, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Ok(());
        }
        for name in dir.names()? {
            let Ok(name) = std::str::from_utf8(name.as_bytes()) else { continue };
            let path = format!("{prefix}{name}");
            let Ok(kind) = dir.kind(name) else { continue };
            if kind.is_dir() && path != ".git" {
                self.directory(&dir.dir(name)?, &format!("{path}/"), depth + 1)?;
            } else if kind.is_file() && self.chosen.choose(&path) {
                self.file(dir, name)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, dir: &Inside, name: &str) -> io::Result<()> {
        let Some(mut file) = dir.open_file(name)? else { return Ok(()) };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        self.total.update(hash.finalize());
        self.found = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dir: &std::path::Path, patterns: &[&str]) -> Result<String, String> {
        let patterns: Vec<_> = patterns.iter().map(|&text| text.to_owned()).collect();
        hash(&Inside::open(dir).unwrap(), &patterns)
    }

    fn expected(files: &[&[u8]]) -> String {
        let mut total = Sha256::new();
        files.iter().for_each(|bytes| total.update(Sha256::digest(bytes)));
        hex::encode(total.finalize())
    }

    #[test]
    fn patterns_choose() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for (path, text) in [("Cargo.lock", "1"), ("a/Cargo.lock", "2"), ("a/b/Cargo.lock", "3"), ("a/x.rs", "4")] {
            std::fs::write(dir.path().join(path), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("a/passwd.lock")).unwrap();
        let dir = dir.path();
        assert_eq!(of(dir, &["Cargo.lock"]).unwrap(), expected(&[b"1"]));
        assert_eq!(of(dir, &["**/Cargo.lock"]).unwrap(), expected(&[b"1", b"2", b"3"]));
        assert_eq!(of(dir, &["**/*.lock", "!a/b/**"]).unwrap(), expected(&[b"1", b"2"]));
        assert_eq!(of(dir, &["/workspace/a/b\n./a/x.rs"]).unwrap(), expected(&[b"3", b"4"]));
        assert_eq!(of(dir, &["none"]).unwrap(), "");
        assert!(of(dir, &["a[", "x"]).unwrap_err().contains("a["));
    }
}
