//! The door to expressions for those who run jobs.

use std::collections::BTreeMap;

use crate::expression::ExpressionError;
use crate::expression::evaluate::{Environment, HashFiles, evaluate};
use crate::expression::parse::{Expr, parse};
use crate::expression::scope::Scope;
use crate::expression::template::{OPEN, Part, Template};
use crate::object::{Contexts, Object};
use crate::plan::Setting;
use crate::status::Status;
use crate::value::Value;

/// Evaluates expressions in some contexts.
#[derive(Clone, Copy)]
pub struct Evaluator<'a> {
    environment: Environment<'a>,
}

impl std::fmt::Debug for Evaluator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The contexts may hold secrets.
        f.debug_struct("Evaluator").field("status", &self.environment.status).finish_non_exhaustive()
    }
}

impl<'a> Evaluator<'a> {
    /// An evaluator without `hashFiles`.
    pub const fn new(contexts: &'a Contexts, status: Status) -> Self {
        Self { environment: Environment { contexts, status, hash_files: None } }
    }

    /// The same with `hashFiles`: from patterns to a digest in hexadecimal digits (empty if no file matches), or why
    /// that cannot be said.
    #[must_use]
    pub const fn hash_files(mut self, hash: &'a HashFiles<'a>) -> Self {
        self.environment.hash_files = Some(hash);
        self
    }

    /// Evaluates an expression that stands without `${{ }}`.
    ///
    /// # Errors
    /// When it cannot be read or evaluated.
    pub fn evaluate(&self, expression: &str) -> Result<Value, ExpressionError> {
        self.tree(&parse(expression, &Scope::ANY)?, expression)
    }

    fn tree(&self, expr: &Expr, source: &str) -> Result<Value, ExpressionError> {
        // The tree lives shorter than the contexts.
        let environment: Environment<'_> = self.environment;
        evaluate(expr, source, environment).map(std::borrow::Cow::into_owned)
    }

    /// The value of a text: that of its expression if the text is nothing else, or else the expanded text.
    ///
    /// # Errors
    /// When an expression cannot be read or evaluated.
    pub fn value(&self, text: &str) -> Result<Value, ExpressionError> {
        if !text.contains(OPEN) {
            return Ok(Value::from(text));
        }
        self.template(&Template::parse(text, &Scope::ANY)?)
    }

    pub(crate) fn template(&self, template: &Template) -> Result<Value, ExpressionError> {
        if let Some((expr, source)) = template.single() {
            return self.tree(expr, source);
        }
        let mut result = String::new();
        let mut occurrence = 0;
        for part in &template.parts {
            match part {
                Part::Text(text) => result.push_str(text),
                Part::Insert => return Err(ExpressionError::new("insert", 0, "`insert` can be a key only")),
                Part::Expr { expr, source } => {
                    let value = self.tree(expr, source).map_err(|error| ExpressionError { occurrence, ..error })?;
                    result.push_str(&value.to_text());
                    occurrence += 1;
                }
            }
            if result.len() > crate::expression::evaluate::MAX_BYTES {
                return Err(ExpressionError::new("", 0, "the expanded text is longer than 10 MiB"));
            }
        }
        Ok(Value::String(result))
    }

    /// A text with its expressions expanded.
    ///
    /// # Errors
    /// When an expression cannot be read or evaluated; when the text is a single expression that yields a list or mapping.
    pub fn expand(&self, text: &str) -> Result<String, ExpressionError> {
        match self.value(text)? {
            value @ (Value::Array(_) | Value::Object(_)) => {
                let message = format!("the expression yields {}, but a text is needed: toJSON() makes one", a(&value));
                Err(ExpressionError::new(text.trim(), 0, message))
            }
            Value::String(text) => Ok(text),
            value => Ok(value.to_text()),
        }
    }

    /// A mapping (`env`, `with`, `outputs`) with its keys and values expanded; of a `${{ insert }}` key the entries.
    ///
    /// # Errors
    /// As [`Evaluator::expand`]; when what is to be inserted is no mapping.
    pub fn expand_map(&self, map: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ExpressionError> {
        let mut result = BTreeMap::new();
        for (key, value) in self.value_map(map)? {
            if !value.is_primitive() {
                let message = format!("`{key}` is {}, but a text is needed: toJSON() makes one", a(&value));
                return Err(ExpressionError::new(map.get(&key).map_or("", String::as_str), 0, message));
            }
            result.insert(key, value.to_text());
        }
        Ok(result)
    }

    /// The same, but values that are a single expression keep their type.
    ///
    /// # Errors
    /// As [`Evaluator::expand_map`].
    pub fn value_map(&self, map: &BTreeMap<String, String>) -> Result<Object, ExpressionError> {
        let mut result = Object::case_sensitive();
        // What is inserted gives way to what is written.
        for (_, text) in map.iter().filter(|(key, _)| is_insert(key)) {
            match self.value(text)? {
                Value::Object(object) => object.into_iter().for_each(|(key, value)| result.insert(key, value)),
                Value::Null => {}
                other => {
                    let message = format!("a mapping is needed, but the expression yields {}", a(&other));
                    return Err(ExpressionError::new(text.trim(), 0, message));
                }
            }
        }
        for (key, text) in map.iter().filter(|(key, _)| !is_insert(key)) {
            result.insert(self.expand(key)?, self.value(text)?);
        }
        Ok(result)
    }

    /// Whether an `if:` is true. Without one, or one without a status function, `success()` must be true as well.
    ///
    /// # Errors
    /// When it cannot be read or evaluated.
    pub fn condition(&self, condition: Option<&str>) -> Result<bool, ExpressionError> {
        let condition = condition.unwrap_or_default();
        let status = self.environment.status;
        if condition.trim().is_empty() {
            return Ok(status.success);
        }
        if !condition.contains(OPEN) {
            let expr = parse(condition, &Scope::ANY)?;
            return Ok((expr.asks_status() || status.success) && self.tree(&expr, condition)?.is_truthy());
        }
        let template = Template::parse(condition, &Scope::ANY)?;
        let asked = template.expressions().any(Expr::asks_status);
        Ok((asked || status.success) && self.template(&template)?.is_truthy())
    }

    /// A yes or no that may be an expression.
    ///
    /// # Errors
    /// When it yields something else than `true` or `false`.
    pub fn flag(&self, setting: &Setting<bool>) -> Result<bool, ExpressionError> {
        let text = match setting {
            Setting::Is(value) => return Ok(*value),
            Setting::Expression(text) => text,
        };
        flag_of(&self.value(text)?).map_err(|message| ExpressionError::new(text.trim(), 0, message))
    }

    /// A number of minutes that may be an expression.
    ///
    /// # Errors
    /// When it yields something else than a whole number from 1.
    pub fn minutes(&self, setting: &Setting<u64>) -> Result<u64, ExpressionError> {
        let text = match setting {
            Setting::Is(value) => return Ok(*value),
            Setting::Expression(text) => text,
        };
        whole_of(&self.value(text)?).map_err(|message| ExpressionError::new(text.trim(), 0, message))
    }
}

fn is_insert(key: &str) -> bool {
    key.trim().strip_prefix(OPEN).and_then(|key| key.strip_suffix("}}")).is_some_and(|key| key.trim() == "insert")
}

/// The type of a value with its article.
fn a(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// Yes or no.
pub(crate) fn flag_of(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        Value::Array(_) | Value::Object(_) | Value::Null => Err(format!("expected true or false, found {}", a(value))),
        other => Err(format!("expected true or false, found `{}`", crate::text::clip(&other.to_text(), 40))),
    }
}

/// A whole number from 1 to 2^32 - 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn whole_of(value: &Value) -> Result<u64, String> {
    let number = match value {
        Value::Number(number) => *number,
        Value::String(text) if !text.trim().is_empty() => value.to_number(),
        _ => return Err(format!("expected a whole number from 1, found {}", a(value))),
    };
    if number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&number) {
        Ok(number as u64)
    } else {
        Err(format!("expected a whole number from 1, found `{}`", crate::text::clip(&value.to_text(), 40)))
    }
}

/// A text with its expressions expanded, without `hashFiles`. See [`Evaluator::expand`].
///
/// # Errors
/// As [`Evaluator::expand`].
pub fn expand(template: &str, contexts: &Contexts, status: Status) -> Result<String, ExpressionError> {
    Evaluator::new(contexts, status).expand(template)
}

/// Whether an `if:` is true, without `hashFiles`. See [`Evaluator::condition`].
///
/// # Errors
/// As [`Evaluator::condition`].
pub fn condition(expression: Option<&str>, contexts: &Contexts, status: Status) -> Result<bool, ExpressionError> {
    Evaluator::new(contexts, status).condition(expression)
}
