//! The tree that a YAML text is read into: every node knows where it stands, and scalars are kept as text until
//! somebody asks what they mean.

use serde::{Deserialize, Serialize};

use crate::number;
use crate::value::Value;

/// A place in the text: line and column, both from 1, the column in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// A node of the tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// A scalar as it stands in the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Whether it may be something else than a text: it is neither quoted nor tagged as one.
    pub(crate) plain: bool,
}

impl Scalar {
    /// The meaning of the scalar by the core schema of YAML 1.2.
    pub(crate) fn value(&self) -> Value {
        if !self.plain {
            return Value::String(self.text.clone());
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            text => core_number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
        }
    }
}

fn core_number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" if text.starts_with('-') => return Some(f64::NEG_INFINITY),
        ".inf" | ".Inf" | ".INF" => return Some(f64::INFINITY),
        _ => {}
    }
    match text {
        ".nan" | ".NaN" | ".NAN" => Some(f64::NAN),
        "Infinity" | "-Infinity" => None,
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
            Some(number::parse(text)).filter(|number| !number.is_nan())
        }
        _ => None,
    }
}

impl Node {
    /// The scalar, if this is one.
    pub(crate) const fn as_scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The text of a scalar that is a text and holds an expression.
    pub(crate) fn as_template(&self) -> Option<&str> {
        self.as_scalar().filter(|scalar| scalar.text.contains("${{")).map(|scalar| scalar.text.as_str())
    }

    /// Whether nothing is written there.
    pub(crate) fn is_null(&self) -> bool {
        self.as_scalar().is_some_and(|scalar| scalar.value() == Value::Null)
    }

    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(name, _)| name.text == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// What to call it in an error.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a mapping".to_owned(),
            Kind::Scalar(scalar) => match scalar.value() {
                Value::Null => "nothing".to_owned(),
                Value::Bool(value) => format!("`{value}`"),
                Value::Number(_) => format!("the number `{}`", crate::text::clip(&scalar.text, 40)),
                _ => format!("the text {:?}", crate::text::clip(&scalar.text, 40)),
            },
        }
    }

    /// The texts of every scalar and key below this node.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let mut found = Vec::new();
        let mut waiting = vec![self];
        while let Some(node) = waiting.pop() {
            match &node.kind {
                Kind::Scalar(scalar) => found.push(scalar.text.as_str()),
                Kind::List(items) => waiting.extend(items),
                Kind::Map(entries) => {
                    found.extend(entries.iter().map(|(key, _)| key.text.as_str()));
                    waiting.extend(entries.iter().map(|(_, value)| value));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Value {
        Scalar { text: text.to_owned(), plain: true }.value()
    }

    #[test]
    fn core_schema() {
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(plain(text), Value::Null, "{text}");
        }
        for (text, number) in [
            ("1", 1.0),
            ("-3", -3.0),
            ("+7", 7.0),
            ("3.10", 3.1),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("0x1F", 31.0),
            ("0o17", 15.0),
            ("08", 8.0),
        ] {
            assert_eq!(plain(text), Value::Number(number), "{text}");
        }
        assert_eq!(plain("-.inf"), Value::Number(f64::NEG_INFINITY));
        for text in [
            "yes",
            "no",
            "on",
            "off",
            "nUll",
            "1_000",
            "1.2.3",
            "Infinity",
            "-Infinity",
            "0b1",
            "2026-11-20",
            "-",
            "+",
            ".",
            " ",
        ] {
            assert_eq!(plain(text), Value::from(text), "{text}");
        }
        assert_eq!(Scalar { text: "true".to_owned(), plain: false }.value(), Value::from("true"));
    }
}
