//! Comparison of values of any types.

use std::cmp::Ordering;

use super::parse::Comparison;
use crate::text;
use crate::value::Value;

/// Whether a comparison of two values holds. Lists and mappings are equal only to themselves, so `same` says whether
/// both values are one and the same.
pub(crate) fn holds(comparison: Comparison, left: &Value, right: &Value, same: bool) -> bool {
    match comparison {
        Comparison::Equal => equal(left, right, same),
        Comparison::NotEqual => !equal(left, right, same),
        Comparison::Less => order(left, right) == Some(Ordering::Less),
        Comparison::LessOrEqual => equal(left, right, same) || order(left, right) == Some(Ordering::Less),
        Comparison::Greater => order(left, right) == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => equal(left, right, same) || order(left, right) == Some(Ordering::Greater),
    }
}

/// `==`: values of different types are compared as numbers, texts without regard to case.
pub(crate) fn equal(left: &Value, right: &Value, same: bool) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::String(left), Value::String(right)) => text::equal(left, right),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => same,
        _ => left.to_number() == right.to_number(),
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Null, Value::Null) => None,
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::String(left), Value::String(right)) => Some(text::compare(left, right)),
        _ => left.to_number().partial_cmp(&right.to_number()),
    }
}
