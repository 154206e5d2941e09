//! Kubernetes quantities: `128Mi`, `0.5`, `250m`, `1e3`.

/// A quantity in thousandths of its unit, rounded up; nothing if `text` is none or does not fit.
pub(crate) fn millis(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 9 || whole.len() > 18 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let thousandths = digits.checked_mul(factor(suffix)?)?;
    let result = thousandths.div_ceil(10u128.pow(u32::try_from(fraction.len()).ok()?));
    u64::try_from(result).ok()
}

/// A quantity in whole units, rounded up.
pub(crate) fn units(text: &str) -> Option<u64> {
    millis(text).map(|millis| millis.div_ceil(1000))
}

fn factor(suffix: &str) -> Option<u128> {
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        let exponent: u32 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
        return (exponent <= 15).then(|| 1000 * 10u128.pow(exponent));
    }
    Some(match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000 * 1000,
        "G" => 1000 * 1000 * 1000 * 1000,
        "T" => 1000 * 1000 * 1000 * 1000 * 1000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("128Mi", Some(128 << 20)),
            ("1Gi", Some(1 << 30)),
            ("0.5Gi", Some(1 << 29)),
            ("1e3", Some(1000)),
            ("500M", Some(500_000_000)),
            ("100m", Some(1)),
            ("1.5.2", None),
            ("", None),
            (".", None),
            ("-1", None),
            ("12 Mi", None),
            ("1e99", None),
            ("999999999999999999Ti", None),
        ] {
            assert_eq!(units(text), expected, "{text}");
        }
        assert_eq!(millis("250m"), Some(250));
        assert_eq!(millis("0.25"), Some(250));
        assert_eq!(millis("2"), Some(2000));
    }
}
