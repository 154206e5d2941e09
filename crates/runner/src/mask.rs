//! Hides secrets in text: as they are, line by line, and in the encodings that programs print them in.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::encodings;

/// What a secret is shown as.
pub const MASK: &str = "***";

/// A secret's lines shorter than this (`{`, `}`) are not hidden on their own: they would hide most of a log.
const SHORTEST_LINE: usize = 3;

/// The secrets of a job in every form in which they are hidden.
#[derive(Default)]
pub struct Masker {
    patterns: BTreeSet<Vec<u8>>,
    automaton: Option<AhoCorasick>,
    longest: usize,
}

impl Masker {
    /// A masker of `secrets`.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut masker = Self::default();
        for secret in secrets {
            masker.insert(secret);
        }
        masker.rebuild();
        masker
    }

    /// Hides `secret` from now on. A value of nothing but white space is ignored.
    pub fn add(&mut self, secret: &str) {
        self.insert(secret);
        self.rebuild();
    }

    fn insert(&mut self, secret: &str) {
        if secret.trim().is_empty() {
            return;
        }
        self.patterns.extend(encodings::forms(secret));
        let trimmed = secret.trim();
        if trimmed != secret {
            self.patterns.extend(encodings::forms(trimmed));
        }
        for line in secret.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE) {
            self.patterns.extend(encodings::forms(line));
        }
    }

    fn rebuild(&mut self) {
        self.longest = self.patterns.iter().map(Vec::len).max().unwrap_or(0);
        // Building fails only beyond the automaton's size limits, which is gigabytes of patterns; nothing may be
        // printed then, which `ranges` sees to.
        self.automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&self.patterns).ok();
    }

    /// Where secrets are in `bytes`: in order, and with those that overlap or touch made one.
    fn ranges(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        if self.patterns.is_empty() {
            return Vec::new();
        }
        let Some(automaton) = &self.automaton else { return std::iter::once(0..bytes.len()).collect() };
        let mut found: Vec<_> = automaton.find_overlapping_iter(bytes).map(|m| m.range()).collect();
        found.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(found.len());
        for range in found {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }

    /// Whether `text` holds a secret.
    pub fn finds(&self, text: &str) -> bool {
        !self.ranges(text.as_bytes()).is_empty()
    }

    /// `text` with its secrets hidden.
    pub fn hide(&self, text: &str) -> String {
        let mut stream = MaskStream::default();
        let mut out = Vec::with_capacity(text.len());
        stream.push(self, text.as_bytes(), &mut out);
        stream.finish(self, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Hides secrets in bytes that come in pieces: one that spans pieces is hidden too.
#[derive(Default)]
pub struct MaskStream {
    pending: Vec<u8>,
    /// If the last that was written is a [`MASK`]: how many of the first pending bytes it stands for as well.
    hidden: Option<usize>,
}

impl MaskStream {
    /// Takes `bytes` and appends to `out` what is certain by now. Fewer bytes than the longest secret stay behind.
    pub fn push(&mut self, masker: &Masker, bytes: &[u8], out: &mut Vec<u8>) {
        self.pending.extend_from_slice(bytes);
        // Every secret that begins before this point lies wholly in what is pending.
        let safe = self.pending.len().saturating_sub(masker.longest.saturating_sub(1));
        self.write(masker, safe, out);
    }

    /// Appends what stayed behind.
    pub fn finish(&mut self, masker: &Masker, out: &mut Vec<u8>) {
        self.write(masker, self.pending.len(), out);
        self.hidden = None;
    }

    fn write(&mut self, masker: &Masker, safe: usize, out: &mut Vec<u8>) {
        if safe == 0 {
            return;
        }
        let mut at = self.hidden.unwrap_or(0);
        for range in masker.ranges(&self.pending) {
            if range.start >= safe {
                break;
            }
            if self.hidden.is_none_or(|hidden| range.start > hidden) {
                out.extend_from_slice(&self.pending[at.min(range.start)..range.start]);
                out.extend_from_slice(MASK.as_bytes());
                self.hidden = Some(range.end);
            }
            at = at.max(range.end);
        }
        if at < safe {
            out.extend_from_slice(&self.pending[at..safe]);
            self.hidden = None;
        } else {
            self.hidden = self.hidden.map(|_| at - safe);
        }
        self.pending.drain(..safe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use proptest::prelude::*;

    fn hide(secrets: &[&str], text: &str) -> String {
        Masker::new(secrets.iter().copied()).hide(text)
    }

    #[test]
    fn one_secret_inside_another_leaves_no_tail() {
        assert_eq!(hide(&["abc123", "abc123TAIL"], "x abc123TAIL y"), "x *** y");
        assert_eq!(hide(&["abc123TAIL", "abc123"], "x abc123TAIL y"), "x *** y");
        assert_eq!(hide(&["abcd", "cdef"], "-abcdef-"), "-***-");
    }

    #[test]
    fn lines_of_a_secret() {
        let key = "-----BEGIN KEY-----\nMIIEow\n{\n-----END KEY-----\n";
        assert_eq!(hide(&[key], "line MIIEow {"), "line *** {");
    }

    #[test]
    fn encodings_of_a_secret() {
        let secret = "p\"a ss/wörd<9>";
        let engine = base64::engine::general_purpose::STANDARD;
        for pad in ["", "x", "xy", "user:"] {
            let text = engine.encode(format!("{pad}{secret}"));
            let shown = hide(&[secret], &text);
            assert!(shown.contains(MASK), "{pad:?}: {text} → {shown}");
            assert!(shown.len() < pad.len() * 2 + 12, "{pad:?}: {text} → {shown}");
        }
        for text in [
            "p%22a%20ss%2Fw%C3%B6rd%3C9%3E",
            "p%22a+ss%2Fw%C3%B6rd%3C9%3E",
            "p%22a%20ss%2fw%c3%b6rd%3c9%3e",
            "p\\\"a ss/wörd<9>",
            "p\\\"a ss\\/wörd<9>",
            "p\\\"a ss/w\\u00f6rd<9>",
            "p\\\"a ss/wörd\\u003c9\\u003e",
        ] {
            assert_eq!(hide(&[secret], text), MASK, "{text}");
        }
    }

    #[test]
    fn nothing_to_hide() {
        assert_eq!(hide(&["", "  \n"], "a  b"), "a  b");
        assert_eq!(hide(&[], "a"), "a");
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(text in "[ab]{0,60}", secrets in prop::collection::vec("[ab]{2,7}", 1..4), size in 1_usize..9) {
            let masker = Masker::new(secrets.iter().map(String::as_str));
            let mut stream = MaskStream::default();
            let mut out = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                stream.push(&masker, chunk, &mut out);
            }
            stream.finish(&masker, &mut out);
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(&out, &masker.hide(&text));
            for secret in &secrets {
                prop_assert!(!out.contains(secret.as_str()));
            }
        }
    }
}
