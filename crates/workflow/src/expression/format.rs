//! `format`: `{0}` stands for an argument, `{{` and `}}` for braces.

use std::borrow::Cow;

use crate::text::clip;

/// A piece of a format text.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    Argument(usize),
}

/// Splits a format text. `count` is how many arguments there are.
pub(crate) fn pieces(format: &str, count: usize) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, tail) = rest.split_at(at);
        if tail.starts_with("{{") || tail.starts_with("}}") {
            found.push(Piece::Text(&rest[..=at]));
            rest = &tail[2..];
            continue;
        }
        found.push(Piece::Text(text));
        let inside = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
        let (number, after) = inside.ok_or_else(|| invalid(format))?;
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid(format));
        }
        let number: usize = number.parse::<u8>().map_err(|_| invalid(format))?.into();
        if number >= count {
            return Err(format!(
                "the format text '{}' names {{{number}}}, but there are {count} arguments",
                clip(format, 80)
            ));
        }
        found.push(Piece::Argument(number));
        rest = after;
    }
    found.push(Piece::Text(rest));
    Ok(found)
}

fn invalid(format: &str) -> String {
    let shown: Cow<'_, str> = clip(format, 80).into();
    format!("the format text '{shown}' is not valid: braces stand around a number, or are doubled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        use Piece::{Argument, Text};
        assert_eq!(pieces("a{0}b", 1), Ok(vec![Text("a"), Argument(0), Text("b")]));
        assert_eq!(pieces("{{0}}", 0), Ok(vec![Text("{"), Text("0}"), Text("")]));
        assert_eq!(pieces("{{{1}}}", 2), Ok(vec![Text("{"), Text(""), Argument(1), Text("}"), Text("")]));
        for bad in ["{", "}", "{}", "{x}", "{0", "{0}}", "{-1}", "{ 0}", "{256}", "{0:x}"] {
            assert!(pieces(bad, 300).is_err(), "{bad}");
        }
        assert!(pieces("{1}", 1).is_err_and(|message| message.contains("{1}")));
    }
}
