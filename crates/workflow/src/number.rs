//! Numbers as text and back, as GitHub's expressions have them.

/// The text of a number with up to 15 significant digits (.NET's `G15` in the invariant culture).
pub(crate) fn format(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{:.14e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let digits = digits.trim_end_matches('0');
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}", place_point(digits, exponent))
}

fn place_point(digits: &str, exponent: i32) -> String {
    if !(-4..15).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{first}{point}{rest}E{sign}{:02}", exponent.abs());
    }
    match usize::try_from(exponent) {
        Err(_) => format!("0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
        Ok(whole) if digits.len() <= whole + 1 => format!("{digits}{}", "0".repeat(whole + 1 - digits.len())),
        Ok(whole) => format!("{}.{}", &digits[..=whole], &digits[whole + 1..]),
    }
}

/// The number that a text stands for, or `NaN`. Spaces around it are ignored; the empty text is zero.
pub(crate) fn parse(text: &str) -> f64 {
    let text = text.trim();
    if text.is_empty() {
        return 0.0;
    }
    if is_decimal(text) {
        return text.parse().unwrap_or(f64::NAN);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    match text {
        "Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        _ => f64::NAN,
    }
}

/// Hexadecimal and octal numbers are 32-bit two's complement.
#[allow(clippy::cast_possible_wrap)]
fn radix(digits: &str, radix: u32) -> f64 {
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return f64::NAN;
    }
    u32::from_str_radix(digits, radix).map_or(f64::NAN, |bits| f64::from(bits as i32))
}

/// `[+-] digits [. digits] [e [+-] digits]`, with a digit on at least one side of the point.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_fifteen_digits() {
        let table = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (3.10, "3.1"),
            (0.1 + 0.2, "0.3"),
            (100.0, "100"),
            (123_456_789_012_345.0, "123456789012345"),
            (1_234_567_890_123_456.0, "1.23456789012346E+15"),
            (1e15, "1E+15"),
            (1e14, "100000000000000"),
            (1e21, "1E+21"),
            (1e-5, "1E-05"),
            (0.0001, "0.0001"),
            (0.000_012, "1.2E-05"),
            (1.0 / 3.0, "0.333333333333333"),
            (1e300, "1E+300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (value, text) in table {
            assert_eq!(format(value), text, "{value:?}");
        }
    }

    #[test]
    fn reads_what_javascript_reads() {
        let table = [
            ("", 0.0),
            ("  ", 0.0),
            (" 12 ", 12.0),
            ("+1", 1.0),
            ("-.5", -0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E-2", 0.01),
            ("0xff", 255.0),
            ("0xffffffff", -1.0),
            ("0o17", 15.0),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e999", f64::INFINITY),
        ];
        for (text, value) in table {
            assert_eq!(parse(text), value, "{text:?}");
        }
        for text in [
            "a",
            "1a",
            ".",
            "-",
            "e5",
            "1e",
            "0x",
            "0x1ffffffff",
            "0xg",
            "0o8",
            "-0xff",
            "inf",
            "nan",
            "1,0",
            "infinity",
        ] {
            assert!(parse(text).is_nan(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*", value in any::<f64>()) {
            let _ = (parse(&text), format(value));
        }

        #[test]
        fn short_numbers_come_back(value in -1_000_000_i32..1_000_000) {
            let value = f64::from(value) / 1000.0;
            prop_assert_eq!(parse(&format(value)), value);
        }
    }
}
