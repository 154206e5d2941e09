//! Lengths of time as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time in whole seconds, written as a number and one of `s`, `m`, `h`, `d` and `w`: `90s`, `5m`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// The text is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time: expected a number and s, m, h, d or w, such as 30s or 5m")]
pub struct SpanError(String);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// For the clock.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let bad = || SpanError(text.chars().take(40).collect());
        let unit = text.chars().last().ok_or_else(bad)?;
        let (_, seconds) = UNITS.iter().find(|(sign, _)| *sign == unit).ok_or_else(bad)?;
        let number = &text[..text.len() - 1];
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let number: u64 = number.parse().map_err(|_| bad())?;
        // A hundred years are for ever, and leave room for sums.
        let total = number.checked_mul(*seconds).filter(|total| *total <= 100 * 366 * 86_400).ok_or_else(bad)?;
        Ok(Self::seconds(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_secs();
        let fits = |(_, seconds): &&(char, u64)| total != 0 && total.is_multiple_of(*seconds);
        let (sign, seconds) = UNITS.iter().find(fits).copied().unwrap_or(('s', 1));
        write!(f, "{}{sign}", total / seconds)
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_written() {
        for text in ["0s", "45s", "5m", "90s", "2h", "30d", "4w"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("120s".parse::<Span>().unwrap().to_string(), "2m");
        for bad in ["", "s", "5", "-5s", "+5s", "5 m", "5x", "1.5h", "99999999999999999999s", "9999999999w", "5µ"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
