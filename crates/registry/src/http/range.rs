//! Ranges of bytes, asked for and sent.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything: there is no range, or one that need not be heeded.
    All,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that are not there.
    Nothing,
}

/// Reads a `Range` header (RFC 9110) for content of `size` bytes. More than one range at a time is answered with
/// everything, as the RFC allows; so is what cannot be read, but a range that ends before it begins is refused.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Wanted::All };
    let Some((first, last)) = spec.split_once('-') else { return Wanted::All };
    if spec.contains(',') {
        return Wanted::All;
    }
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(_), Some(_)) => return Wanted::Nothing,
        (Some(first), None) if last.trim().is_empty() => first..size,
        (None, Some(suffix)) if first.trim().is_empty() => size.saturating_sub(suffix)..size,
        _ => return Wanted::All,
    };
    if range.is_empty() { Wanted::Nothing } else { Wanted::Part(range) }
}

/// The `Content-Range` of a part of an upload: `first-last`, both counted. Clients that write `bytes first-last/*` are
/// understood.
pub(super) fn sent(header: &str) -> Option<Range<u64>> {
    let text = header.trim();
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches([' ', '=']));
    let text = text.split('/').next().unwrap_or_default();
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then(|| first..last.saturating_add(1))
}

/// Digits only: no sign.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_clients_ask_for() {
        for (header, found) in [
            (None, Wanted::All),
            (Some("bytes=0-4"), Wanted::Part(0..5)),
            (Some("bytes=5-"), Wanted::Part(5..10)),
            (Some("bytes=-3"), Wanted::Part(7..10)),
            (Some("bytes=-30"), Wanted::Part(0..10)),
            (Some("bytes=9-100"), Wanted::Part(9..10)),
            (Some("bytes=10-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=4-2"), Wanted::Nothing),
            (Some("bytes=0-1,3-4"), Wanted::All),
            (Some("bytes=x-"), Wanted::All),
            (Some("bytes=+1-2"), Wanted::All),
            (Some("items=0-1"), Wanted::All),
            (Some("bytes=0-18446744073709551615"), Wanted::Part(0..10)),
        ] {
            assert_eq!(wanted(header, 10), found, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
    }

    #[test]
    fn what_clients_send() {
        assert_eq!(sent("0-9"), Some(0..10));
        assert_eq!(sent("bytes 5-5/*"), Some(5..6));
        for bad in ["", "5", "9-5", "-5", "5-", "a-b", "0--1"] {
            assert_eq!(sent(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_leaves_the_content(header in "bytes=[0-9]{0,25}-[0-9]{0,25}", size in 0u64..1000) {
            if let Wanted::Part(range) = wanted(Some(&header), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn never_panics(header in ".*") {
            let _ = (wanted(Some(&header), 5), sent(&header));
        }
    }
}
