//! Comparison of texts as .NET's `OrdinalIgnoreCase` does it, which GitHub's expressions are defined by.

use std::cmp::Ordering;

/// The upper case of a character, where it is a single character (so `ß` stays as it is).
fn upper(c: char) -> char {
    let mut all = c.to_uppercase();
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// The text with every character in upper case.
pub(crate) fn fold(text: &str) -> String {
    text.chars().map(upper).collect()
}

/// Whether two texts are the same but for case.
pub(crate) fn equal(left: &str, right: &str) -> bool {
    compare(left, right) == Ordering::Equal
}

/// The order of two texts, without their case, by UTF-16 code units.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    fn units(text: &str) -> impl Iterator<Item = u16> {
        let mut buffer = [0_u16; 2];
        text.chars().flat_map(move |c| {
            let used = upper(c).encode_utf16(&mut buffer).len();
            buffer.into_iter().take(used)
        })
    }
    units(left).cmp(units(right))
}

/// The known name nearest to `wanted`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = clip(wanted, 64).to_lowercase();
    let allowed = wanted.chars().count().div_ceil(3).clamp(1, 4);
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&wanted, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// At most `limit` characters of a text, with an ellipsis if there are more.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_without_case() {
        assert!(equal("ÄbC", "äBc"));
        assert!(!equal("ß", "SS"));
        assert_eq!(compare("a", "B"), Ordering::Less);
        assert_eq!(compare("abc", "AB"), Ordering::Greater);
        // '_' sorts after every upper-case letter.
        assert_eq!(compare("_", "z"), Ordering::Greater);
    }

    #[test]
    fn finds_the_nearest_name() {
        assert_eq!(nearest("run-on", ["runs-on", "run", "needs"]), Some("runs-on"));
        assert_eq!(nearest("branchs", ["branches", "branches-ignore"]), Some("branches"));
        assert_eq!(nearest("banana", ["on", "jobs"]), None);
    }
}
