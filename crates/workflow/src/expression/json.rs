//! `toJSON`, character for character as GitHub writes it.

use std::fmt::Write as _;

use crate::number;
use crate::value::Value;

/// The value as indented JSON; `None` if it would be longer than `limit` bytes or deeper than the limit.
pub(crate) fn write(value: &Value, limit: usize) -> Option<String> {
    let mut out = String::new();
    write_value(&mut out, value, 0, limit)?;
    (out.len() <= limit).then_some(out)
}

/// A value deeper than this is not written.
const MAX_DEPTH: usize = 200;

fn write_value(out: &mut String, value: &Value, level: usize, limit: usize) -> Option<()> {
    if out.len() > limit || level > MAX_DEPTH {
        return None;
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(value) => out.push_str(&number::format(*value)),
        Value::String(text) => write_string(out, text),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Object(object) if object.is_empty() => out.push_str("{}"),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                new_line(out, at > 0, level + 1);
                write_value(out, item, level + 1, limit)?;
            }
            new_line(out, false, level);
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            for (at, (key, value)) in object.iter().enumerate() {
                new_line(out, at > 0, level + 1);
                write_string(out, key);
                out.push_str(": ");
                write_value(out, value, level + 1, limit)?;
            }
            new_line(out, false, level);
            out.push('}');
        }
    }
    Some(())
}

fn new_line(out: &mut String, comma: bool, level: usize) {
    out.push_str(if comma { ",\n" } else { "\n" });
    out.extend(std::iter::repeat_n("  ", level));
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{0}'..='\u{1f}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}
