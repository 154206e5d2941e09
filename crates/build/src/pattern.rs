//! File name patterns with the meaning of Go's `filepath.Match`, which COPY uses, and of ignore files, which add `**`.

use regex::Regex;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern(Matcher);

#[derive(Clone, Debug)]
enum Matcher {
    /// Nothing but literal characters.
    Exactly(String),
    Regex(Regex),
}

/// Which language a pattern is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `*` and `?` never match a `/`; there is no `**`.
    Match,
    /// As above, and `**` matches any number of directories.
    Ignore,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A `[` without a `]`, an empty class, a range that goes down, or a `\` at the end.
    #[error("{0:?} is not a file name pattern")]
    Malformed(String),
    /// It is too large to be matched in bounded memory.
    #[error("the file name pattern {0:?} is too long")]
    TooLong(String),
}

impl Pattern {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn new(pattern: &str, language: Language) -> Result<Self, PatternError> {
        if !is_pattern(pattern) {
            return Ok(Self(Matcher::Exactly(pattern.to_owned())));
        }
        let malformed = || PatternError::Malformed(pattern.to_owned());
        let mut out = String::from("^(?s:");
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '*' if language == Language::Ignore && rest.peek() == Some(&'*') => {
                    rest.next();
                    let slash = rest.next_if_eq(&'/').is_some();
                    match rest.peek() {
                        None if !slash => out.push_str(".*"),
                        _ => out.push_str("(?:.*/)?"),
                    }
                }
                '*' => out.push_str("[^/]*"),
                '?' => out.push_str("[^/]"),
                '[' => class(&mut rest, &mut out).ok_or_else(malformed)?,
                '\\' => literal(rest.next().ok_or_else(malformed)?, &mut out),
                c => literal(c, &mut out),
            }
        }
        out.push_str(")$");
        let compiled = regex::RegexBuilder::new(&out).size_limit(1 << 18).build();
        compiled.map(Matcher::Regex).map(Self).map_err(|_| PatternError::TooLong(pattern.chars().take(80).collect()))
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &str) -> bool {
        match &self.0 {
            Matcher::Exactly(text) => text == path,
            Matcher::Regex(regex) => regex.is_match(path),
        }
    }
}

/// Whether `text` holds anything but literal characters.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// A literal pattern's text: the escapes taken out.
pub fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.push(if c == '\\' { rest.next().unwrap_or('\\') } else { c });
    }
    out
}

fn literal(c: char, out: &mut String) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// `[abc]`, `[a-z]`, `[^…]`, with `\` before any character: always one character that is not `/`.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) -> Option<()> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            break;
        }
        let low = class_char(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { class_char(rest)? } else { low };
        if low > high {
            return None;
        }
        ranges.push((low, high));
    }
    let escaped = |c: char| format!("\\x{{{:x}}}", u32::from(c));
    let body: String = ranges.iter().map(|(low, high)| format!("{}-{}", escaped(*low), escaped(*high))).collect();
    out.push_str(&if negated { format!("[^/{body}]") } else { format!("[{body}&&[^/]]") });
    Some(())
}

fn class_char(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The table of Go's own test of `filepath.Match`.
    #[test]
    fn the_table_of_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*/b", "a/c/b", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^b-d]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a[^a]b", "a☺b", Some(true)),
            ("a???b", "a☺b", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("*[a-ζ]", "A", Some(false)),
            ("a?b", "a/b", Some(false)),
            ("a*b", "a/b", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-]", "-", Some(true)),
            ("[x\\-]", "x", Some(true)),
            ("[x\\-]", "z", Some(false)),
            ("[\\-x]", "x", Some(true)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[-x]", "x", None),
            ("\\", "a", None),
            ("[a-b-c]", "a", None),
            ("[", "a", None),
            ("[^", "a", None),
            ("[^bc", "a", None),
            ("*x", "xxx", Some(true)),
            ("a[", "ab", None),
            ("[&&]", "&", Some(true)),
        ] {
            let found = Pattern::new(pattern, Language::Match).ok().map(|compiled| compiled.matches(name));
            assert_eq!(found, expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn two_stars_cross_directories_in_ignore_files() {
        for (pattern, name, expected) in [
            ("**", "a/b", true),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("**/x", "a/xx", false),
            ("a/**", "a/b/c", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("**/*.go", "a/b.go", true),
            ("**foo", "foo", true),
            ("**foo", "a/foo", true),
            ("**foo", "afoo", false),
            ("a**b", "a/b", true),
            ("a**b", "axb", false),
        ] {
            let compiled = Pattern::new(pattern, Language::Ignore).unwrap();
            assert_eq!(compiled.matches(name), expected, "{pattern} on {name}");
        }
        assert!(!Pattern::new("**/x", Language::Match).unwrap().matches("a/b/x"));
    }

    proptest! {
        #[test]
        fn never_panics(pattern in r"[a-c*?\[\]^\\/!-]{0,20}", name in "[a-c/]{0,8}") {
            for language in [Language::Match, Language::Ignore] {
                let _ = Pattern::new(&pattern, language).map(|compiled| compiled.matches(&name));
            }
        }
    }
}
