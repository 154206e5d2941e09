//! `strategy.matrix`: from lists of values to the jobs of their combinations.

use crate::expression::compare::equal;
use crate::object::Object;
use crate::text;
use crate::value::Value;

/// How many jobs a matrix may make.
pub(crate) const MAX_CELLS: usize = 256;
/// How many combinations may be looked at, times how many entries of `include` and `exclude`.
const MAX_WORK: usize = 1 << 20;

/// One combination.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    /// The `matrix` context.
    pub(crate) values: Object,
    /// The values that stand in the name of the job: without what `include` only added.
    pub(crate) label: Vec<String>,
}

/// What is wrong with a matrix, and with which of its keys.
#[derive(Debug, PartialEq)]
pub(crate) struct MatrixError {
    pub(crate) key: Option<String>,
    pub(crate) message: String,
}

fn error<T>(key: Option<&str>, message: impl Into<String>) -> Result<T, MatrixError> {
    Err(MatrixError { key: key.map(str::to_owned), message: message.into() })
}

/// The combinations of a matrix, in GitHub's order. May be none, if all are excluded.
pub(crate) fn cells(matrix: &Object) -> Result<Vec<Cell>, MatrixError> {
    let mut vectors: Vec<(&str, &[Value])> = Vec::new();
    for (key, value) in matrix.iter().filter(|(key, _)| !is_filter(key)) {
        match value {
            Value::Array(items) if items.is_empty() => {
                return error(Some(key), format!("`{}` of the matrix has no values", text::clip(key, 60)));
            }
            Value::Array(items) => vectors.push((key, items)),
            other => {
                let message =
                    format!("`{}` of the matrix must be a list, not {}", text::clip(key, 60), describe(other));
                return error(Some(key), message);
            }
        }
    }
    let include = entries(matrix, "include")?;
    let exclude = entries(matrix, "exclude")?;
    if vectors.is_empty() && include.is_empty() {
        return error(None, "the matrix is empty: it needs at least one list of values");
    }
    check_exclude(&vectors, &exclude)?;
    let product = product(&vectors, include.len() + exclude.len())?;
    Build { vectors, include, exclude }.cells(product)
}

fn is_filter(key: &str) -> bool {
    key == "include" || key == "exclude"
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        other => format!("`{}`", text::clip(&other.to_text(), 40)),
    }
}

fn entries<'a>(matrix: &'a Object, key: &str) -> Result<Vec<&'a Object>, MatrixError> {
    let items = match matrix.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return error(Some(key), format!("`{key}` must be a list of mappings, not {}", describe(other))),
    };
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::Object(object) if !object.is_empty() => found.push(object),
            Value::Object(_) => return error(Some(key), format!("an entry of `{key}` is empty")),
            other => {
                return error(Some(key), format!("an entry of `{key}` must be a mapping, not {}", describe(other)));
            }
        }
    }
    Ok(found)
}

fn check_exclude(vectors: &[(&str, &[Value])], exclude: &[&Object]) -> Result<(), MatrixError> {
    let known = |key: &str| vectors.iter().any(|(name, _)| text::equal(name, key));
    match exclude.iter().flat_map(|entry| entry.keys()).find(|key| !known(key)) {
        None => Ok(()),
        Some(key) => {
            let near = text::nearest(key, vectors.iter().map(|(name, _)| *name));
            let meant = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
            error(
                Some("exclude"),
                format!("`exclude` names `{}`, which is not in the matrix{meant}", text::clip(key, 60)),
            )
        }
    }
}

/// How many combinations there are before any is excluded.
fn product(vectors: &[(&str, &[Value])], filters: usize) -> Result<usize, MatrixError> {
    if vectors.is_empty() {
        return Ok(0);
    }
    let product = vectors.iter().try_fold(1_usize, |product, (_, items)| product.checked_mul(items.len()));
    match product {
        Some(product) if product.saturating_mul(filters.saturating_add(1)) <= MAX_WORK => Ok(product),
        _ => error(None, format!("the matrix has far more than {MAX_CELLS} combinations")),
    }
}

struct Build<'a> {
    vectors: Vec<(&'a str, &'a [Value])>,
    include: Vec<&'a Object>,
    exclude: Vec<&'a Object>,
}

impl Build<'_> {
    fn cells(&self, product: usize) -> Result<Vec<Cell>, MatrixError> {
        let mut cells: Vec<Cell> = Vec::new();
        let mut added = vec![false; self.include.len()];
        for number in 0..product {
            let values = self.combination(number, product);
            if self.exclude.iter().any(|entry| self.matches(entry, &values)) {
                continue;
            }
            let label = label(&values);
            let mut all = values.clone();
            for (entry, added) in self.include.iter().zip(&mut added) {
                // What an entry adds may be overwritten by a later one; what the lists say never is.
                if self.matches(entry, &values) {
                    *added = true;
                    for (key, value) in entry.iter().filter(|(key, _)| !self.is_vector(key)) {
                        all.insert(key, value.clone());
                    }
                }
            }
            push(&mut cells, Cell { values: all, label })?;
        }
        for (entry, _) in self.include.iter().zip(&added).filter(|(_, added)| !**added) {
            let (own, extra): (Vec<_>, Vec<_>) = entry.iter().partition(|(key, _)| self.is_vector(key));
            let values: Object = own.into_iter().chain(extra).map(|(key, value)| (key, value.clone())).collect();
            let label = label(&values);
            push(&mut cells, Cell { values, label })?;
        }
        Ok(cells)
    }

    fn is_vector(&self, key: &str) -> bool {
        self.vectors.iter().any(|(name, _)| text::equal(name, key))
    }

    fn combination(&self, number: usize, product: usize) -> Object {
        let mut values = Object::new();
        let mut block = product;
        for (name, items) in &self.vectors {
            block /= items.len();
            if let Some(value) = items.get((number / block) % items.len()) {
                values.insert(*name, value.clone());
            }
        }
        values
    }

    /// Whether an entry of `include` or `exclude` fits a combination: all that it says of the lists must hold.
    fn matches(&self, entry: &Object, values: &Object) -> bool {
        entry.iter().filter(|(key, _)| self.is_vector(key)).all(|(key, wanted)| fits(wanted, values.get(key)))
    }
}

fn push(cells: &mut Vec<Cell>, cell: Cell) -> Result<(), MatrixError> {
    if cells.len() >= MAX_CELLS {
        return error(None, format!("the matrix makes more than {MAX_CELLS} jobs"));
    }
    cells.push(cell);
    Ok(())
}

/// Whether a value has everything that is wanted of it; values are compared as `==` does.
fn fits(wanted: &Value, value: Option<&Value>) -> bool {
    match wanted {
        Value::Object(object) => {
            object.iter().all(|(key, wanted)| fits(wanted, value.and_then(|value| value.get(key))))
        }
        Value::Array(items) => {
            let found = value.and_then(Value::as_array).unwrap_or_default();
            items.iter().enumerate().all(|(at, wanted)| fits(wanted, found.get(at)))
        }
        wanted => equal(value.unwrap_or(&Value::Null), wanted, false),
    }
}

/// The texts, numbers and flags of a combination, for the name of its job.
fn label(values: &Object) -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Object(object) => object.values().for_each(|item| collect(item, found)),
            Value::Null => {}
            other => found.push(other.to_text()),
        }
    }
    let mut found = Vec::new();
    values.values().for_each(|value| collect(value, &mut found));
    found.retain(|text| !text.is_empty());
    found
}

#[cfg(test)]
mod tests;
