//! Shell patterns in `${name#pattern}` and its kin.

/// Whether a shell pattern (`*`, `?`, `\c`) matches the whole text. Linear in the pattern times the text.
fn glob(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let (step, fits) = match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some('?') => (1, true),
            Some('\\') if p + 1 < pattern.len() => (2, pattern[p + 1] == text[t]),
            Some(c) => (1, *c == text[t]),
            None => (0, false),
        };
        if fits {
            p += step;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            // Let the last star take one more.
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// `value` without the shortest or longest beginning that matches `pattern`.
pub(super) fn strip_prefix(value: &str, pattern: &str, longest: bool) -> String {
    let (value, pattern) = (chars(value), chars(pattern));
    let mut ends: Vec<usize> = (0..=value.len()).collect();
    if longest {
        ends.reverse();
    }
    let end = ends.into_iter().find(|end| glob(&pattern, &value[..*end])).unwrap_or(0);
    value[end..].iter().collect()
}

/// `value` without the shortest or longest end that matches `pattern`.
pub(super) fn strip_suffix(value: &str, pattern: &str, longest: bool) -> String {
    let (value, pattern) = (chars(value), chars(pattern));
    let mut starts: Vec<usize> = (0..=value.len()).collect();
    if !longest {
        starts.reverse();
    }
    let start = starts.into_iter().find(|start| glob(&pattern, &value[*start..])).unwrap_or(value.len());
    value[..start].iter().collect()
}

/// `value` with the first match of `pattern`, or all, replaced; each match as long as it can be.
pub(super) fn replace(value: &str, pattern: &str, replacement: &str, all: bool) -> String {
    let (value, pattern) = (chars(value), chars(pattern));
    let mut out = String::new();
    let mut at = 0;
    let mut done = pattern.is_empty();
    while at < value.len() {
        let end = (at + 1..=value.len()).rev().find(|end| !done && glob(&pattern, &value[at..*end]));
        match end {
            Some(end) => {
                out.push_str(replacement);
                at = end;
                done = !all;
            }
            None => {
                out.push(value[at]);
                at += 1;
            }
        }
    }
    out
}
