//! GitHub's filter patterns for branches, tags and paths.
//!
//! `*` is anything without `/`, `**` is anything, `?` and `+` repeat what stands before them, `[…]` is one character of a
//! set, `\` takes the meaning from the character after it, and `!` in front negates. A pattern matches the whole name.

use serde::{Deserialize, Serialize};

/// How long a pattern may be, in characters.
const MAX_LENGTH: usize = 500;

/// A list of patterns, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Patterns(pub(crate) Vec<Pattern>);

/// One pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pattern {
    pub(crate) negative: bool,
    atoms: Vec<Atom>,
}

/// A piece of a pattern and how often it may come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Atom {
    kind: AtomKind,
    optional: bool,
    repeated: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum AtomKind {
    Char(char),
    /// Any of these ranges.
    Set(Vec<(char, char)>),
    /// Any character but `/`.
    InName,
    /// Any character.
    Any,
    /// `**/`: directories, or none.
    Directories,
}

impl AtomKind {
    fn accepts(&self, c: char) -> bool {
        match self {
            Self::Char(wanted) => *wanted == c,
            Self::Set(ranges) => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)),
            Self::InName => c != '/',
            Self::Any | Self::Directories => true,
        }
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Why it is none: an unclosed or empty set, a range that is no range, a `\` at the end.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (negative, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        let chars: Vec<char> = rest.chars().collect();
        if chars.len() > MAX_LENGTH {
            return Err(format!("it is longer than {MAX_LENGTH} characters"));
        }
        let mut atoms: Vec<Atom> = Vec::new();
        let mut at = 0;
        while let Some(c) = chars.get(at) {
            at += 1;
            match c {
                '?' if !atoms.is_empty() => repeat(&mut atoms, |atom| atom.optional = true),
                '+' if !atoms.is_empty() => repeat(&mut atoms, |atom| atom.repeated = true),
                '*' => at += star(&mut atoms, &chars, at),
                '[' => at += set(&mut atoms, &chars[at..])?,
                '\\' => {
                    let escaped = chars.get(at).ok_or("a `\\` at the end of the pattern has nothing to escape")?;
                    atoms.push(once(AtomKind::Char(*escaped)));
                    at += 1;
                }
                c => atoms.push(once(AtomKind::Char(*c))),
            }
        }
        Ok(Self { negative, atoms })
    }

    /// Whether the pattern matches the whole of a name; its `!` is not looked at.
    pub(crate) fn matches(&self, name: &str) -> bool {
        if !self.ends_fit(name) {
            return false;
        }
        // Where in the pattern one can be after each character: no pattern takes longer than its length times the name's.
        let mut states = vec![false; self.atoms.len() + 1];
        states[0] = true;
        self.skip(&mut states, true);
        let mut next = vec![false; states.len()];
        for c in name.chars() {
            next.fill(false);
            for (at, atom) in self.atoms.iter().enumerate() {
                if states[at] && atom.kind.accepts(c) {
                    match atom.kind {
                        AtomKind::Directories => {
                            next[at] = true;
                            next[at + 1] |= c == '/';
                        }
                        _ => {
                            next[at + 1] = true;
                            next[at] |= atom.repeated;
                        }
                    }
                }
            }
            self.skip(&mut next, c == '/');
            std::mem::swap(&mut states, &mut next);
            if !states.contains(&true) {
                return false;
            }
        }
        states.last() == Some(&true)
    }

    /// Whether the plain characters at both ends of the pattern are those of the name. Most names end here.
    fn ends_fit(&self, name: &str) -> bool {
        fn plain<'a>(atoms: impl Iterator<Item = &'a Atom>) -> impl Iterator<Item = char> {
            atoms.map_while(|atom| match atom.kind {
                AtomKind::Char(c) if !atom.optional && !atom.repeated => Some(c),
                _ => None,
            })
        }
        fn fits(mut wanted: impl Iterator<Item = char>, mut found: impl Iterator<Item = char>) -> bool {
            wanted.all(|c| found.next() == Some(c))
        }
        fits(plain(self.atoms.iter()), name.chars()) && fits(plain(self.atoms.iter().rev()), name.chars().rev())
    }

    /// Goes on over what may be left out. `**/` may be left out where a name begins.
    fn skip(&self, states: &mut [bool], name_begins: bool) {
        for (at, atom) in self.atoms.iter().enumerate() {
            let optional = match atom.kind {
                AtomKind::Directories => name_begins,
                _ => atom.optional,
            };
            if states[at] && optional {
                states[at + 1] = true;
            }
        }
    }
}

const fn once(kind: AtomKind) -> Atom {
    Atom { kind, optional: false, repeated: false }
}

fn repeat(atoms: &mut [Atom], change: fn(&mut Atom)) {
    if let Some(last) = atoms.last_mut() {
        change(last);
    }
}

/// Reads what follows a `*`; returns how many more characters were read.
fn star(atoms: &mut Vec<Atom>, chars: &[char], at: usize) -> usize {
    if chars.get(at) != Some(&'*') {
        atoms.push(Atom { kind: AtomKind::InName, optional: true, repeated: true });
        return 0;
    }
    let begins = at == 1 || at.checked_sub(2).and_then(|before| chars.get(before)) == Some(&'/');
    if begins && chars.get(at + 1) == Some(&'/') {
        atoms.push(once(AtomKind::Directories));
        return 2;
    }
    atoms.push(Atom { kind: AtomKind::Any, optional: true, repeated: true });
    1
}

/// Reads a set after its `[`; returns how many characters were read.
fn set(atoms: &mut Vec<Atom>, rest: &[char]) -> Result<usize, String> {
    let end = rest.iter().position(|c| *c == ']').ok_or("a `[` is not closed")?;
    let mut inside = &rest[..end];
    if inside.is_empty() {
        return Err("`[]` holds no character".to_owned());
    }
    let mut ranges = Vec::new();
    while let Some((low, tail)) = inside.split_first() {
        match tail {
            ['-', high, after @ ..] => {
                let same_kind = |test: fn(&char) -> bool| test(low) && test(high);
                let known = same_kind(char::is_ascii_digit)
                    || same_kind(char::is_ascii_lowercase)
                    || same_kind(char::is_ascii_uppercase);
                if !known || low > high {
                    return Err(format!("`{low}-{high}` is no range: only a-z, A-Z and 0-9 and parts of them are"));
                }
                ranges.push((*low, *high));
                inside = after;
            }
            _ => {
                ranges.push((*low, *low));
                inside = tail;
            }
        }
    }
    atoms.push(once(AtomKind::Set(ranges)));
    Ok(end + 1)
}

impl Patterns {
    /// Whether a name is chosen: the last pattern that matches it decides.
    pub(crate) fn choose(&self, name: &str) -> bool {
        self.0.iter().rev().find(|pattern| pattern.matches(name)).is_some_and(|pattern| !pattern.negative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patterns(texts: &[&str]) -> Patterns {
        Patterns(texts.iter().map(|text| Pattern::parse(text).unwrap()).collect())
    }

    /// The tables of GitHub's documentation, and what they imply.
    #[test]
    fn documented_patterns() {
        let table: &[(&[&str], &[&str], &[&str])] = &[
            (&["feature/*"], &["feature/my-branch", "feature/your-branch"], &["feature/a/b", "feature", "xfeature/a"]),
            (
                &["feature/**"],
                &["feature/beta-a/my-branch", "feature/your-branch", "feature/mona/the/octocat"],
                &["feature"],
            ),
            (&["main"], &["main"], &["main2", "amain", "Main", "x/main"]),
            (&["releases/mona-the-octocat"], &["releases/mona-the-octocat"], &[]),
            (&["*"], &["main", "releases"], &["all/the/branches"]),
            (&["**"], &["all/the/branches", "every/tag", "main"], &[]),
            (&["*feature"], &["mona-feature", "feature", "ver-10-feature"], &["feature-x", "a/feature"]),
            (&["v2*"], &["v2", "v2.0", "v2.9"], &["v1", "v2/x"]),
            (&["v[12].[0-9]+.[0-9]+"], &["v1.10.1", "v2.0.0"], &["v3.0.0", "v1.x.0", "v1.0", "v12.0.0"]),
            (&["*.jsx?"], &["page.js", "page.jsx"], &["page.jsxx", "a/page.js"]),
            (&["*.js"], &["app.js", "index.js"], &["src/app.js"]),
            (&["**.js"], &["index.js", "js/index.js", "src/js/app.js"], &["index.jsx"]),
            (&["docs/*"], &["docs/README.md", "docs/file.txt"], &["docs/a/b.md"]),
            (&["docs/**"], &["docs/README.md", "docs/mona/octocat.txt"], &["doc/README.md"]),
            (
                &["docs/**/*.md"],
                &["docs/README.md", "docs/mona/hello-world.md", "docs/a/markdown/file.md"],
                &["docs.md"],
            ),
            (&["**/docs/**"], &["docs/hello.md", "dir/docs/my-file.txt", "space/docs/plan/space.doc"], &["mydocs/a"]),
            (&["**/README.md"], &["README.md", "js/README.md"], &["xREADME.md"]),
            (&["**/*src/**"], &["a/src/app.js", "my-src/code/js/app.js"], &["a/b.js"]),
            (&["**/*-post.md"], &["my-post.md", "path/their-post.md"], &["post.md"]),
            (&["**/migrate-*.sql"], &["migrate-10909.sql", "db/migrate-v1.0.sql", "db/sept/migrate-v1.sql"], &[]),
            (&["*.md", "!README.md"], &["hello.md"], &["README.md", "docs/hello.md"]),
            (&["*.md", "!README.md", "README*"], &["hello.md", "README.md", "README.doc"], &[]),
            (&["Octoc?t"], &["Octoct", "Octot"], &["Octocat"]),
            (&["[CB]at"], &["Cat", "Bat"], &["Rat", "cat"]),
            (&["[1-2]00"], &["100", "200"], &["300"]),
            (&["[0-9a-z]"], &["7", "g"], &["G", "10"]),
            (&["a/**/b"], &["a/b", "a/x/b", "a/x/y/b"], &["axb", "a/xb"]),
            (&["a**/b"], &["a/b", "ax/b", "a/x/b"], &["ab"]),
            (&["fix\\+me\\*"], &["fix+me*"], &["fixxme"]),
            (&["+x", "?y"], &["+x", "?y"], &["x", "y"]),
            (&["a!b"], &["a!b"], &[]),
            (&["a+?"], &["", "a", "aaa"], &["b"]),
        ];
        for (texts, hits, misses) in table {
            let patterns = patterns(texts);
            for hit in *hits {
                assert!(patterns.choose(hit), "{texts:?} must match {hit}");
            }
            for miss in *misses {
                assert!(!patterns.choose(miss), "{texts:?} must not match {miss}");
            }
        }
    }

    #[test]
    fn order_of_negations_decides() {
        let list = patterns(&["releases/**", "!releases/**-alpha", "releases/10-alpha"]);
        assert!(list.choose("releases/10") && list.choose("releases/10-alpha"));
        assert!(!list.choose("releases/11-alpha") && !list.choose("main"));
    }

    #[test]
    fn what_is_no_pattern() {
        for text in ["", "!", "[ab", "[]", "[z-a]", "[a-Z]", "[!-/]", "a\\", &"a".repeat(501)] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_pattern_is_slow() {
        let pattern = Pattern::parse(&"*a".repeat(50)).unwrap();
        assert!(pattern.matches(&"a".repeat(5000)));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(5000))));
        assert!(!Pattern::parse(&"a?".repeat(200)).unwrap().matches(&"b".repeat(5000)));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[!*?+\\[\\]a-c/\\\\-]{0,20}", name in "[abc/]{0,20}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.matches(&name);
            }
        }

        #[test]
        fn a_name_matches_itself(name in "[a-zA-Z0-9._/-]{1,40}") {
            prop_assert!(Pattern::parse(&name).unwrap().matches(&name));
        }
    }
}
