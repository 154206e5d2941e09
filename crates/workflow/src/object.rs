//! Mappings whose keys keep their order and are found in any case.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text;
use crate::value::Value;

/// A mapping. Keys keep the order in which they came, and are found whatever their case, as in GitHub's contexts.
///
/// Serialises as a JSON object in that order.
#[derive(Clone, Default)]
pub struct Object {
    entries: Vec<(String, Value)>,
    index: BTreeMap<String, usize>,
    exact: bool,
}

impl Object {
    /// An empty mapping.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty mapping whose keys are told apart by case: the `env` context, since environment variables are.
    pub fn case_sensitive() -> Self {
        Self { exact: true, ..Self::default() }
    }

    fn fold(&self, key: &str) -> String {
        if self.exact { key.to_owned() } else { text::fold(key) }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let at = *self.index.get(&self.fold(key))?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// The place of a key in [`Object::iter`].
    pub(crate) fn position(&self, key: &str) -> Option<usize> {
        self.index.get(&self.fold(key)).copied()
    }

    /// Takes the value of a key out of the mapping.
    pub(crate) fn into_value(mut self, key: &str) -> Option<Value> {
        let at = self.position(key)?;
        self.entries.get_mut(at).map(|(_, value)| std::mem::take(value))
    }

    /// Whether the key is there.
    pub fn contains_key(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// Sets the value of a key. A key that is there already keeps its place and spelling.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let key = key.into();
        let folded = self.fold(&key);
        match self.index.get(&folded).and_then(|at| self.entries.get_mut(*at)) {
            Some((_, old)) => *old = value.into(),
            None => {
                self.index.insert(folded, self.entries.len());
                self.entries.push((key, value.into()));
            }
        }
    }

    /// The same with one more key.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.insert(key, value);
        self
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys and values in their order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys in their order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.entries.iter().map(|(key, _)| key.as_str())
    }

    /// The values in their order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.entries.iter().map(|(_, value)| value)
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl IntoIterator for Object {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut object = Self::new();
        for (key, value) in entries {
            object.insert(key, value);
        }
        object
    }
}

impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Object(object) => Ok(object),
            other => Err(serde::de::Error::custom(format!("expected a mapping, found {}", other.kind()))),
        }
    }
}

/// The contexts that expressions may name: `github`, `env`, `matrix`, `needs` and the others.
///
/// A context that GitHub knows but that is not here is `null`; a name that GitHub does not know is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Contexts(pub Object);

impl Contexts {
    /// No contexts.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a context.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Sets a context.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name, value);
    }

    /// The same with one more context.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }
}

impl From<BTreeMap<String, Value>> for Contexts {
    fn from(map: BTreeMap<String, Value>) -> Self {
        Self(map.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_any_case() {
        let mut object = Object::new().with("Key", 1_i64).with("other", "x");
        assert_eq!(object.get("KEY"), Some(&Value::Number(1.0)));
        object.insert("kEy", 2_i64);
        assert_eq!(object.len(), 2);
        assert_eq!(object.keys().collect::<Vec<_>>(), ["Key", "other"]);
        assert_eq!(object.get("key"), Some(&Value::Number(2.0)));
    }

    #[test]
    fn environment_variables_are_told_apart_by_case() {
        let object = Object::case_sensitive().with("path", "a").with("PATH", "b");
        assert_eq!(object.len(), 2);
        assert_eq!(object.get("PATH"), Some(&Value::from("b")));
        assert_eq!(object.get("Path"), None);
    }
}
