//! Evaluates the tree of an expression.
//!
//! Contexts can be large and expressions are many, so values are borrowed from the contexts as far as possible; and what
//! an expression may make of them is bounded, since its author may be a stranger.

use std::borrow::Cow;
use std::cell::Cell;

use super::ExpressionError;
use super::compare::{equal, holds};
use super::format::{Piece, pieces};
use super::functions::Function;
use super::json;
use super::parse::Expr;
use super::scope::canonical;
use crate::object::{Contexts, Object};
use crate::status::Status;
use crate::text::{self, clip};
use crate::value::Value;

/// How many bytes an expression may make, in all.
pub(crate) const MAX_BYTES: usize = 10 << 20;

/// Computes `hashFiles`: from patterns to a digest in hexadecimal digits, or the empty text if nothing matches.
pub(crate) type HashFiles<'a> = dyn Fn(&[String]) -> Result<String, String> + Send + Sync + 'a;

/// What expressions are evaluated with.
#[derive(Clone, Copy)]
pub(crate) struct Environment<'a> {
    pub(crate) contexts: &'a Contexts,
    pub(crate) status: Status,
    pub(crate) hash_files: Option<&'a HashFiles<'a>>,
}

/// Evaluates an expression; `source` is its text, for errors.
pub(crate) fn evaluate<'a>(
    expr: &'a Expr,
    source: &'a str,
    environment: Environment<'a>,
) -> Result<Cow<'a, Value>, ExpressionError> {
    let run = Run { source, environment, left: Cell::new(MAX_BYTES) };
    let result = run.eval(expr)?;
    run.whole(result)
}

/// The result of a part of an expression.
enum Part<'a> {
    One(Cow<'a, Value>),
    /// What a `*` left: properties of it are those of its items.
    Many(Vec<Cow<'a, Value>>),
}

impl<'a> Part<'a> {
    const fn own(value: Value) -> Self {
        Self::One(Cow::Owned(value))
    }

    /// The value, if it is no list or mapping.
    fn primitive(&self) -> Option<&Value> {
        match self {
            Self::One(value) if value.is_primitive() => Some(value),
            _ => None,
        }
    }

    /// The items, if it is a list.
    fn items(&self) -> Option<Vec<&Value>> {
        match self {
            Self::One(value) => value.as_array().map(|items| items.iter().collect()),
            Self::Many(items) => Some(items.iter().map(AsRef::as_ref).collect()),
        }
    }

    fn is_truthy(&self) -> bool {
        match self {
            Self::One(value) => value.is_truthy(),
            Self::Many(_) => true,
        }
    }

    /// Whether both are the same thing in memory, as GitHub compares lists and mappings.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(Cow::Borrowed(left)), Self::One(Cow::Borrowed(right))) => std::ptr::eq(*left, *right),
            _ => false,
        }
    }

    /// A look at it as a value. What a `*` left is a list, equal to nothing.
    fn look(&self) -> Cow<'_, Value> {
        match self {
            Self::One(value) => Cow::Borrowed(value.as_ref()),
            Self::Many(_) => Cow::Owned(Value::Array(Vec::new())),
        }
    }
}

struct Run<'a> {
    source: &'a str,
    environment: Environment<'a>,
    left: Cell<usize>,
}

impl<'a> Run<'a> {
    fn error(&self, position: usize, message: impl Into<String>) -> ExpressionError {
        ExpressionError::new(self.source, position, message)
    }

    fn charge(&self, bytes: usize) -> Result<(), ExpressionError> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(self.error(0, format!("the expression makes more than {} MiB", MAX_BYTES >> 20))),
        }
    }

    fn eval(&self, expr: &'a Expr) -> Result<Part<'a>, ExpressionError> {
        match expr {
            Expr::Literal(value) => Ok(Part::One(Cow::Borrowed(value))),
            Expr::Context(name) => Ok(self.context(name)),
            Expr::Index(of, by) => self.index(of, by),
            Expr::Filter(of) => self.filter(of),
            Expr::Not(inner) => Ok(Part::own(Value::Bool(!self.eval(inner)?.is_truthy()))),
            Expr::And(items) => self.first(items, |part| !part.is_truthy()),
            Expr::Or(items) => self.first(items, Part::is_truthy),
            Expr::Compare(comparison, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                let same = left.is_same(&right);
                Ok(Part::own(Value::Bool(holds(*comparison, &left.look(), &right.look(), same))))
            }
            Expr::Call(function, arguments, at) => self.call(*function, arguments, *at),
        }
    }

    /// The first of some values that decides, or the last of them.
    fn first(&self, items: &'a [Expr], decides: fn(&Part<'a>) -> bool) -> Result<Part<'a>, ExpressionError> {
        let mut last = Part::own(Value::Null);
        for item in items {
            last = self.eval(item)?;
            if decides(&last) {
                break;
            }
        }
        Ok(last)
    }

    fn context(&self, name: &str) -> Part<'a> {
        let contexts = self.environment.contexts;
        let found = contexts.get(name).or_else(|| contexts.get(canonical(name)));
        found.map_or(Part::own(Value::Null), |value| Part::One(Cow::Borrowed(value)))
    }

    fn index(&self, of: &'a Expr, by: &'a Expr) -> Result<Part<'a>, ExpressionError> {
        let of = self.eval(of)?;
        let by = self.eval(by)?;
        let by = by.primitive();
        match of {
            Part::One(value) => Ok(Part::One(take(value, by).unwrap_or(Cow::Owned(Value::Null)))),
            Part::Many(items) => {
                let found: Vec<_> = items.into_iter().filter_map(|item| take(item, by)).collect();
                self.charge(found.len() * size_of::<Value>())?;
                Ok(Part::Many(found))
            }
        }
    }

    fn filter(&self, of: &'a Expr) -> Result<Part<'a>, ExpressionError> {
        let found = match self.eval(of)? {
            Part::One(value) => children(value),
            Part::Many(items) => items.into_iter().flat_map(children).collect(),
        };
        self.charge(found.len() * size_of::<Value>())?;
        Ok(Part::Many(found))
    }

    fn whole(&self, part: Part<'a>) -> Result<Cow<'a, Value>, ExpressionError> {
        match part {
            Part::One(value) => Ok(value),
            Part::Many(items) => {
                for item in &items {
                    self.charge(weight(item))?;
                }
                Ok(Cow::Owned(Value::Array(items.into_iter().map(Cow::into_owned).collect())))
            }
        }
    }

    fn text(&self, part: &Part<'_>) -> Result<String, ExpressionError> {
        let text = match part {
            Part::One(value) => value.to_text(),
            Part::Many(_) => "Array".to_owned(),
        };
        self.charge(text.len())?;
        Ok(text)
    }

    fn call(&self, function: Function, arguments: &'a [Expr], at: usize) -> Result<Part<'a>, ExpressionError> {
        let status = self.environment.status;
        let argument = |number: usize| match arguments.get(number) {
            Some(expr) => self.eval(expr),
            None => Ok(Part::own(Value::Null)),
        };
        let value = match function {
            Function::Success => Value::Bool(status.success),
            Function::Failure => Value::Bool(status.failure),
            Function::Cancelled => Value::Bool(status.cancelled),
            Function::Always => Value::Bool(true),
            Function::Contains => Value::Bool(self.contains(&argument(0)?, &argument(1)?)?),
            Function::StartsWith => self.affix(&argument(0)?, &argument(1)?, |text, affix| text.starts_with(affix))?,
            Function::EndsWith => self.affix(&argument(0)?, &argument(1)?, |text, affix| text.ends_with(affix))?,
            Function::Format => self.format(arguments, at)?,
            Function::Join => self.join(&argument(0)?, arguments.get(1))?,
            Function::ToJson => self.write_json(argument(0)?)?,
            Function::FromJson => self.parse_json(&argument(0)?, at)?,
            Function::HashFiles => self.hash_files(arguments, at)?,
            Function::Case => return self.case(arguments, at),
        };
        Ok(Part::own(value))
    }

    fn contains(&self, within: &Part<'a>, wanted: &Part<'a>) -> Result<bool, ExpressionError> {
        if let Some(items) = within.items() {
            let look = wanted.look();
            return Ok(items.into_iter().any(|item| {
                let same = matches!(wanted, Part::One(Cow::Borrowed(value)) if std::ptr::eq(*value, item));
                equal(item, &look, same)
            }));
        }
        let (Some(_), Some(_)) = (within.primitive(), wanted.primitive()) else { return Ok(false) };
        let (within, wanted) = (self.text(within)?, self.text(wanted)?);
        Ok(text::fold(&within).contains(&text::fold(&wanted)))
    }

    fn affix(&self, text: &Part<'_>, affix: &Part<'_>, test: fn(&str, &str) -> bool) -> Result<Value, ExpressionError> {
        let (Some(_), Some(_)) = (text.primitive(), affix.primitive()) else { return Ok(Value::Bool(false)) };
        let (text, affix) = (self.text(text)?, self.text(affix)?);
        Ok(Value::Bool(test(&text::fold(&text), &text::fold(&affix))))
    }

    fn format(&self, arguments: &'a [Expr], at: usize) -> Result<Value, ExpressionError> {
        let Some((format, rest)) = arguments.split_first() else { return Ok(Value::Null) };
        let format = self.text(&self.eval(format)?)?;
        let pieces = pieces(&format, rest.len()).map_err(|message| self.error(at, message))?;
        let mut texts: Vec<Option<String>> = vec![None; rest.len()];
        let mut result = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => result.push_str(text),
                Piece::Argument(number) => {
                    if let (Some(slot @ None), Some(expr)) = (texts.get_mut(number), rest.get(number)) {
                        *slot = Some(self.text(&self.eval(expr)?)?);
                    }
                    let text = texts.get(number).and_then(Option::as_deref).unwrap_or_default();
                    self.charge(text.len())?;
                    result.push_str(text);
                }
            }
        }
        Ok(Value::String(result))
    }

    fn join(&self, items: &Part<'a>, separator: Option<&'a Expr>) -> Result<Value, ExpressionError> {
        let Some(list) = items.items() else {
            return Ok(Value::String(if items.primitive().is_some() { self.text(items)? } else { String::new() }));
        };
        let separator = match separator.map(|expr| self.eval(expr)).transpose()? {
            Some(separator) if separator.primitive().is_some() => self.text(&separator)?,
            _ => ",".to_owned(),
        };
        let mut result = String::new();
        for (number, item) in list.into_iter().enumerate() {
            let item = item.to_text();
            self.charge(item.len() + separator.len())?;
            if number > 0 {
                result.push_str(&separator);
            }
            result.push_str(&item);
        }
        Ok(Value::String(result))
    }

    fn write_json(&self, part: Part<'a>) -> Result<Value, ExpressionError> {
        let value = self.whole(part)?;
        let Some(text) = json::write(&value, self.left.get()) else {
            self.left.set(0);
            return self.charge(1).map(|()| Value::Null);
        };
        self.charge(text.len())?;
        Ok(Value::String(text))
    }

    fn parse_json(&self, part: &Part<'a>, at: usize) -> Result<Value, ExpressionError> {
        let text = self.text(part)?;
        // A value takes several times the memory of its text.
        self.charge(text.len().saturating_mul(5))?;
        if text.trim().is_empty() {
            return Err(self.error(at, "fromJSON was given an empty text: what it reads was not set"));
        }
        serde_json::from_str(&text)
            .map_err(|error| self.error(at, format!("fromJSON cannot read {:?}: {error}", clip(&text, 80))))
    }

    fn hash_files(&self, arguments: &'a [Expr], at: usize) -> Result<Value, ExpressionError> {
        let mut patterns = Vec::with_capacity(arguments.len());
        for argument in arguments {
            patterns.push(self.text(&self.eval(argument)?)?);
        }
        match self.environment.hash_files {
            Some(hash) => hash(&patterns).map(Value::String).map_err(|message| self.error(at, message)),
            None => Err(self.error(at, "hashFiles has no files to look at here")),
        }
    }

    fn case(&self, arguments: &'a [Expr], at: usize) -> Result<Part<'a>, ExpressionError> {
        let mut rest = arguments;
        while let [condition, value, tail @ ..] = rest {
            match self.eval(condition)? {
                Part::One(found) if *found == Value::Bool(true) => return self.eval(value),
                Part::One(found) if *found == Value::Bool(false) => rest = tail,
                _ => return Err(self.error(at, "a condition of `case` is neither true nor false")),
            }
        }
        rest.first().map_or(Ok(Part::own(Value::Null)), |last| self.eval(last))
    }
}

/// The property or item of a value, if it has it.
fn take<'a>(value: Cow<'a, Value>, by: Option<&Value>) -> Option<Cow<'a, Value>> {
    let by = by?;
    match value {
        Cow::Borrowed(Value::Object(object)) => object.get(&by.to_text()).map(Cow::Borrowed),
        Cow::Borrowed(Value::Array(items)) => items.get(position(by)?).map(Cow::Borrowed),
        Cow::Owned(Value::Object(object)) => object.into_value(&by.to_text()).map(Cow::Owned),
        Cow::Owned(Value::Array(mut items)) => {
            let at = position(by)?;
            (at < items.len()).then(|| Cow::Owned(items.swap_remove(at)))
        }
        _ => None,
    }
}

/// The number of an item, rounded down.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn position(by: &Value) -> Option<usize> {
    let number = by.to_number().floor();
    (0.0..=f64::from(i32::MAX)).contains(&number).then_some(number as usize)
}

fn children(value: Cow<'_, Value>) -> Vec<Cow<'_, Value>> {
    match value {
        Cow::Borrowed(Value::Object(object)) => object.values().map(Cow::Borrowed).collect(),
        Cow::Borrowed(Value::Array(items)) => items.iter().map(Cow::Borrowed).collect(),
        Cow::Owned(Value::Object(object)) => Object::into_iter(object).map(|(_, value)| Cow::Owned(value)).collect(),
        Cow::Owned(Value::Array(items)) => items.into_iter().map(Cow::Owned).collect(),
        _ => Vec::new(),
    }
}

/// About how many bytes a copy of a value takes.
fn weight(value: &Value) -> usize {
    let below = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(object) => object.iter().map(|(key, value)| key.len() * 2 + 64 + weight(value)).sum(),
        _ => 0,
    };
    size_of::<Value>() + below
}
