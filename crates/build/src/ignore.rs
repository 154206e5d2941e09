//! Ignore files (`.dockerignore`, `<Dockerfile>.dockerignore`): which files of a context a build may see. Pure.

use crate::pattern::{Language, Pattern, PatternError};

/// The rules of an ignore file.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    keeps: bool,
    text: String,
}

impl IgnoreRules {
    /// Reads an ignore file: a pattern on each line, `#` comments, `!` for exceptions; the last match wins.
    ///
    /// # Errors
    /// When a line is not a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut rules = Vec::new();
        for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keeps, body) = line.strip_prefix('!').map_or((false, line), |body| (true, body.trim()));
            let text = clean(body);
            if text.is_empty() {
                continue;
            }
            rules.push(Rule { pattern: Pattern::new(&text, Language::Ignore)?, keeps, text });
        }
        Ok(Self { rules })
    }

    /// Rules that ignore what matches one of `patterns`: the meaning of `--exclude`.
    ///
    /// # Errors
    /// When one of them is not a pattern.
    pub fn of_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        Self::parse(&patterns.into_iter().collect::<Vec<_>>().join("\n"))
    }

    /// Whether nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the file or directory at `path` (relative, with `/`) is ignored. A rule that matches a directory covers
    /// all below it.
    pub fn ignores(&self, path: &str) -> bool {
        let mut ignored = false;
        for rule in &self.rules {
            // A rule changes nothing if it says what already holds.
            if rule.keeps == ignored && (rule.pattern.matches(path) || parents(path).any(|up| rule.pattern.matches(up)))
            {
                ignored = !rule.keeps;
            }
        }
        ignored
    }

    /// Whether everything below the ignored directory `path` is ignored too, so that it need not be entered.
    pub fn prunes(&self, path: &str) -> bool {
        let inside = |rule: &&Rule| rule.keeps && may_reach(&rule.text, path);
        self.ignores(path) && !self.rules.iter().any(|rule| inside(&rule))
    }
}

/// The directories above `path`, the nearest first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(at, _)| &path[..at])
}

/// Whether a pattern might match something below `directory`: its literal beginning does not rule it out.
fn may_reach(pattern: &str, directory: &str) -> bool {
    let literal = &pattern[..pattern.find(['*', '?', '[', '\\']).unwrap_or(pattern.len())];
    let inside = format!("{directory}/");
    literal.starts_with(&inside) || inside.starts_with(literal)
}

/// The path without `.`, `..`, doubled and outer slashes, as Go's `filepath.Clean` leaves it.
fn clean(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ignored(rules: &str, path: &str) -> bool {
        IgnoreRules::parse(rules).unwrap().ignores(path)
    }

    #[test]
    fn the_last_match_wins_and_directories_cover_what_is_in_them() {
        for (rules, path, expected) in [
            ("a", "a", true),
            ("a", "a/b/c", true),
            ("a", "x/a", false),
            ("/a", "a/b", true),
            ("./a/", "a/b", true),
            ("*.log", "x.log", true),
            ("*.log", "d/x.log", false),
            ("**/*.log", "d/x.log", true),
            ("# a\n\n  a  ", "a", true),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "keep/x", false),
            ("*\n!keep", "other", true),
            ("a\n!a/b", "a/b", false),
            ("a\n!a/b", "a/c", true),
            ("!a\na", "a", true),
            ("a/*\n!a/b\na/b/c", "a/b/c", true),
            ("a/*\n!a/b\na/b/c", "a/b/d", false),
            (".", "a", false),
            ("\u{feff}a", "a", true),
            ("a/../b", "b", true),
        ] {
            assert_eq!(ignored(rules, path), expected, "{rules:?} on {path}");
        }
        assert!(IgnoreRules::parse("[").is_err());
    }

    #[test]
    fn a_directory_is_entered_only_if_something_in_it_is_kept() {
        let rules = IgnoreRules::parse("node_modules\ntarget\n!target/keep\n").unwrap();
        assert!(rules.prunes("node_modules"));
        assert!(!rules.prunes("target"));
        assert!(rules.prunes("target/debug"));
        assert!(!IgnoreRules::parse("*\n!**/x").unwrap().prunes("a"));
    }

    proptest! {
        /// Nothing kept lies below a pruned directory.
        #[test]
        fn pruning_loses_nothing(rules in "([!]?[ab*]{1,3}(/[ab*]{1,2}){0,2}\n){0,4}", path in "[ab](/[ab]){1,3}") {
            let rules = IgnoreRules::parse(&rules).unwrap();
            if let Some(pruned) = parents(&path).find(|up| rules.prunes(up)) {
                prop_assert!(rules.ignores(&path), "{pruned}");
            }
        }
    }
}
