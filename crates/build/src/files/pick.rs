//! Which files an instruction reads: sources and patterns with docker's meaning.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Kind, Node, Tree, base_name, clean, find, join, parent};
use crate::ignore::IgnoreRules;
use crate::key::{Key, KeyHasher};
use crate::pattern::{Language, Pattern, PatternError, is_pattern, unescaped};

/// How deep `**` descends, and how deep a copied directory may be.
const DEEPEST: usize = 256;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Pick<'a> {
    /// Paths and patterns, expanded.
    pub sources: &'a [String],
    /// `--exclude`.
    pub excludes: &'a IgnoreRules,
    /// `--parents`.
    pub parents: bool,
}

/// The files that were found, in order of the sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Picks(pub Vec<Picked>);

/// What one source, or one match of a pattern, stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Picked {
    /// Where it lies in its tree, without links on the way.
    pub path: String,
    /// The name it gets in a directory that it is copied into; with `--parents`, the path.
    pub name: String,
    /// The directories above `name` that come with it: `--parents` alone has them. Paths relative to the destination.
    pub above: Vec<(String, Node)>,
    /// What it is, links followed.
    pub node: Node,
    /// What lies in it, if it is a directory: relative paths, parents before children.
    pub inside: Vec<(String, Node)>,
    /// The content, where it was written in the Dockerfile.
    pub inline: Option<String>,
}

/// Why files cannot be picked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PickError {
    /// A source does not exist, or no file matches it.
    #[error("{0}")]
    Missing(String),
    /// A source is not a pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A pipe, socket or device.
    #[error("{0} is neither a file nor a directory nor a link")]
    Special(String),
    /// A tree that goes down without end.
    #[error("{0} lies deeper than 256 directories")]
    Deep(String),
    /// The tree cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Finds what the sources stand for. The index of the source is given with an error.
pub(crate) fn pick(tree: &dyn Tree, what: &Pick<'_>) -> Result<Picks, (usize, PickError)> {
    let mut picks = Vec::new();
    for (index, source) in what.sources.iter().enumerate() {
        one(tree, source, what, &mut picks).map_err(|error| (index, error))?;
    }
    if picks.is_empty() && !what.sources.is_empty() {
        return Err((0, PickError::Missing(what.sources.join(" "))));
    }
    Ok(Picks(picks))
}

fn one(tree: &dyn Tree, source: &str, what: &Pick<'_>, picks: &mut Vec<Picked>) -> Result<(), PickError> {
    // `/./` says which of the parents come along.
    let (pivot, rest) = match source.split_once("/./").filter(|_| what.parents) {
        Some((pivot, rest)) => (clean(pivot), rest),
        None => (String::new(), source),
    };
    let full = clean(&join(&pivot, rest));
    let plain = !is_pattern(&full);
    let found = if plain { vec![full.clone()] } else { matches(tree, &full, what.parents)? };
    for path in found {
        let Some((at, node)) = find(tree, &path, true)? else {
            // A match that is a link to nothing is no more there than a missing file.
            if plain {
                return Err(PickError::Missing(path));
            }
            continue;
        };
        let name = match what.parents {
            true => path.strip_prefix(&pivot).unwrap_or(&path).trim_start_matches('/').to_owned(),
            false => base_name(&path).to_owned(),
        };
        if what.excludes.ignores(if node.is_directory() { "" } else { base_name(&path) }) {
            continue;
        }
        let mut picked = Picked { path: at, name, above: Vec::new(), node, inside: Vec::new(), inline: None };
        if what.parents {
            picked.above = above(tree, &pivot, &picked.name)?;
        }
        fill(tree, &mut picked, what.excludes)?;
        picks.push(picked);
    }
    Ok(())
}

/// The paths that match a pattern, one component after the other: no component matches a `/`.
fn matches(tree: &dyn Tree, pattern: &str, deep: bool) -> Result<Vec<String>, PickError> {
    let mut found = vec![String::new()];
    for component in pattern.split('/') {
        let mut next = Vec::new();
        for at in &found {
            if deep && component == "**" {
                descend(tree, at, 0, &mut next)?;
            } else if is_pattern(component) {
                let compiled = Pattern::new(component, Language::Match)?;
                let Some((real, _)) = find(tree, at, true)?.filter(|(_, node)| node.is_directory()) else { continue };
                let names = tree.list(&real)?;
                next.extend(names.iter().filter(|(name, _)| compiled.matches(name)).map(|(name, _)| join(at, name)));
            } else {
                let path = join(at, &unescaped(component));
                if find(tree, &path, false)?.is_some() {
                    next.push(path);
                }
            }
        }
        found = next;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// `**`: the directory itself and all directories below it.
fn descend(tree: &dyn Tree, at: &str, depth: usize, found: &mut Vec<String>) -> Result<(), PickError> {
    if depth > DEEPEST {
        return Err(PickError::Deep(at.to_owned()));
    }
    found.push(at.to_owned());
    for (name, node) in tree.list(at)? {
        if node.is_directory() {
            descend(tree, &join(at, &name), depth + 1, found)?;
        }
    }
    Ok(())
}

fn above(tree: &dyn Tree, pivot: &str, name: &str) -> Result<Vec<(String, Node)>, PickError> {
    let mut found = Vec::new();
    let mut at = parent(name);
    while !at.is_empty() {
        let node = find(tree, &join(pivot, at), true)?.map_or_else(|| Node::directory(0o755), |(_, node)| node);
        found.push((at.to_owned(), node));
        at = parent(at);
    }
    found.reverse();
    Ok(found)
}

/// Adds what lies in a directory, and the identity of each file.
fn fill(tree: &dyn Tree, picked: &mut Picked, excludes: &IgnoreRules) -> Result<(), PickError> {
    match picked.node.kind {
        Kind::File(_) => picked.node.object = tree.object(&picked.path, &picked.node)?,
        Kind::Directory => {
            let mut inside = Vec::new();
            walk(tree, &picked.path, "", excludes, 0, &mut inside)?;
            picked.inside = inside;
        }
        Kind::Symlink(_) | Kind::Other => return Err(PickError::Special(picked.path.clone())),
    }
    Ok(())
}

fn walk(
    tree: &dyn Tree,
    root: &str,
    at: &str,
    excludes: &IgnoreRules,
    depth: usize,
    found: &mut Vec<(String, Node)>,
) -> Result<(), PickError> {
    if depth > DEEPEST {
        return Err(PickError::Deep(join(root, at)));
    }
    for (name, mut node) in tree.list(&join(root, at))? {
        let relative = join(at, &name);
        let ignored = excludes.ignores(&relative);
        if node.is_directory() {
            let before = found.len();
            if !ignored {
                found.push((relative.clone(), node));
            } else if excludes.prunes(&relative) {
                continue;
            }
            let start = found.len();
            walk(tree, root, &relative, excludes, depth + 1, found)?;
            // An excluded directory comes along if something in it does.
            if ignored && found.len() > start {
                found.insert(before, (relative, Node::directory(0o755)));
            }
        } else if !ignored {
            let path = join(root, &relative);
            match node.kind {
                Kind::File(_) => node.object = tree.object(&path, &node)?,
                Kind::Other => return Err(PickError::Special(path)),
                Kind::Symlink(_) | Kind::Directory => {}
            }
            found.push((relative, node));
        }
    }
    Ok(())
}

impl Picks {
    /// The identity of what was picked: names, kinds, modes, owners and contents, not times.
    pub fn key(&self) -> Key {
        let mut hasher = KeyHasher::new("files");
        for picked in &self.0 {
            hasher.field("source").field(&picked.name);
            node(&mut hasher, "", &picked.node);
            for (path, inside) in picked.above.iter().chain(&picked.inside) {
                node(&mut hasher, path, inside);
            }
        }
        hasher.finish()
    }
}

fn node(hasher: &mut KeyHasher, path: &str, node: &Node) {
    hasher.field(path).number(u64::from(node.mode)).number(u64::from(node.uid)).number(u64::from(node.gid));
    match &node.kind {
        Kind::Directory => hasher.field("directory"),
        Kind::File(size) => hasher.field("file").number(*size).field(node.object.as_bytes()),
        Kind::Symlink(target) => hasher.field("symlink").field(target),
        Kind::Other => hasher.field("other"),
    };
}

#[cfg(test)]
mod tests {
    use super::super::tests::Sample;
    use super::*;

    fn picked(tree: &Sample, sources: &[&str], excludes: &[&str], parents: bool) -> Result<Vec<String>, String> {
        let sources: Vec<String> = sources.iter().map(|s| (*s).to_owned()).collect();
        let excludes = IgnoreRules::of_patterns(excludes.iter().copied()).unwrap();
        let picks = pick(tree, &Pick { sources: &sources, excludes: &excludes, parents })
            .map_err(|(index, e)| format!("{index}: {e}"))?;
        let line = |p: &Picked| {
            let above: String = p.above.iter().map(|(path, _)| format!("{path}/ ")).collect();
            let inside: String = p.inside.iter().map(|(path, _)| format!(" {path}")).collect();
            format!("{above}{}={}{inside}", p.name, p.path)
        };
        Ok(picks.0.iter().map(line).collect())
    }

    #[test]
    fn sources_and_patterns() {
        let tree = Sample::new(&[
            "a.txt = 1",
            "b.txt = 2",
            "c.md = 3",
            "d/x = 4",
            "d/e/y = 5",
            "l -> d/x",
            "dl -> d",
            "gone -> no",
            "f[1] = x",
        ]);
        let ok = |sources: &[&str]| picked(&tree, sources, &[], false).unwrap();
        assert_eq!(ok(&["*.txt"]), ["a.txt=a.txt", "b.txt=b.txt"]);
        assert_eq!(ok(&["/a.txt", "./d/../c.md"]), ["a.txt=a.txt", "c.md=c.md"]);
        assert_eq!(ok(&["d"]), ["d=d e e/y x"]);
        assert_eq!(ok(&["d/*"]), ["e=d/e y", "x=d/x"]);
        assert_eq!(ok(&["*/x"]), ["x=d/x", "x=d/x"]);
        assert_eq!(ok(&["l"]), ["l=d/x"]);
        assert_eq!(ok(&["dl"]), ["dl=d e e/y x"]);
        assert_eq!(ok(&["gon?", "a.txt"]), ["a.txt=a.txt"]);
        assert_eq!(ok(&[r"f\[1\]"]), ["f[1]=f[1]"]);
        assert_eq!(ok(&["../../a.txt"]), ["a.txt=a.txt"]);
        assert_eq!(ok(&["c*", "nothing*"]), ["c.md=c.md"]);
        assert_eq!(picked(&tree, &["a.txt", "none"], &[], false), Err("1: none".into()));
        assert_eq!(picked(&tree, &["none*"], &[], false), Err("0: none*".into()));
        assert!(picked(&tree, &["["], &[], false).unwrap_err().contains("not a file name pattern"));
        assert_eq!(picked(&tree, &["gone"], &[], false), Err("0: gone".into()));
    }

    #[test]
    fn excludes_are_relative_to_the_source() {
        let tree = Sample::new(&["s/a.txt = 1", "s/b.md = 2", "s/t/c.txt = 3", "s/t/d.md = 4"]);
        let with = |sources: &[&str], excludes: &[&str]| picked(&tree, sources, excludes, false).unwrap();
        assert_eq!(with(&["s"], &["*.txt"]), ["s=s b.md t t/c.txt t/d.md"]);
        assert_eq!(with(&["s"], &["**/*.txt"]), ["s=s b.md t t/d.md"]);
        assert_eq!(with(&["s"], &["t"]), ["s=s a.txt b.md"]);
        assert_eq!(with(&["s"], &["t", "!t/c.txt"]), ["s=s a.txt b.md t t/c.txt"]);
        assert_eq!(with(&["s/*"], &["*.md"]), ["a.txt=s/a.txt", "t=s/t c.txt"]);
    }

    #[test]
    fn parents_come_along_below_the_pivot() {
        let tree = Sample::new(&["a/b/c.txt = 1", "a/d.txt = 2"]);
        let with = |source: &str| picked(&tree, &[source], &[], true).unwrap();
        assert_eq!(with("a/b/c.txt"), ["a/ a/b/ a/b/c.txt=a/b/c.txt"]);
        assert_eq!(with("a/./b/c.txt"), ["b/ b/c.txt=a/b/c.txt"]);
        assert_eq!(with("**/*.txt"), ["a/ a/b/ a/b/c.txt=a/b/c.txt", "a/ a/d.txt=a/d.txt"]);
    }

    #[test]
    fn the_key_knows_names_modes_and_contents() {
        let tree = |file: &str| Sample::new(&[file, "d/y = 2"]);
        let key = |tree: &Sample, source: &str| {
            let sources = [source.to_owned()];
            pick(tree, &Pick { sources: &sources, excludes: &IgnoreRules::default(), parents: false }).unwrap().key()
        };
        let first = key(&tree("d/x = 1"), "d");
        assert_eq!(first, key(&tree("d/x = 1"), "d"));
        for other in ["d/x = 2", "d/z = 1", "d/x -> 1", "d/x/"] {
            assert_ne!(first, key(&tree(other), "d"), "{other}");
        }
    }
}
