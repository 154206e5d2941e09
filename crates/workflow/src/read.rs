//! Checks the tree of a workflow file against GitHub's schema, and takes what it says.

pub(crate) mod container;
pub(crate) mod event_table;
pub(crate) mod job;
pub(crate) mod on;
pub(crate) mod step;

use std::collections::BTreeMap;

use crate::error::{Source, WorkflowError};
use crate::evaluator::{flag_of, whole_of};
use crate::expression::parse::parse;
use crate::expression::scope::Scope;
use crate::expression::template::{OPEN, Part, Template};
use crate::node::{Key, Kind, Node, Place, Scalar};
use crate::plan::Setting;
use crate::text::{clip, nearest};

/// How long an `if` or other text of a step may be, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// Reads nodes, and says what is wrong with them in the words of the file.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a Source,
}

/// The entries of a mapping whose keys were checked.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// The value of a key that is there, even if nothing is written after it.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }

    /// The same with the key.
    pub(crate) fn entry(&self, name: &str) -> Option<(&'a Key, &'a Node)> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(key, node)| (key, node))
    }
}

type Read<T> = Result<T, WorkflowError>;

impl<'a> Reader<'a> {
    pub(crate) fn error(&self, place: Place, message: impl Into<String>) -> WorkflowError {
        self.source.error(place, message)
    }

    fn wrong_type<T>(&self, node: &Node, what: &str, expected: &str) -> Read<T> {
        Err(self.error(node.place, format!("{what} must be {expected}, not {}", node.describe())))
    }

    /// A mapping with any keys. Nothing written counts as an empty mapping.
    pub(crate) fn map<'n>(&self, node: &'n Node, what: &str) -> Read<&'n [(Key, Node)]> {
        match &node.kind {
            Kind::Map(entries) => Ok(entries),
            _ if node.is_null() => Ok(&[]),
            _ => self.wrong_type(node, what, "a mapping"),
        }
    }

    /// A mapping with known keys only.
    pub(crate) fn fields<'n>(&self, node: &'n Node, what: &str, known: &[&str]) -> Read<Fields<'n>> {
        let entries = self.map(node, what)?;
        match entries.iter().find(|(key, _)| !known.contains(&key.text.as_str())) {
            Some((key, _)) => Err(self.unknown(key, what, known)),
            None => Ok(Fields { entries }),
        }
    }

    pub(crate) fn unknown(&self, key: &Key, what: &str, known: &[&str]) -> WorkflowError {
        let near = nearest(&key.text, known.iter().copied());
        let meant = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        let error = self.error(key.place, format!("{what} has no key `{}`{meant}", clip(&key.text, 60)));
        match (near, key.text.as_str()) {
            (_, "<<") => error.hint("YAML merge keys are not part of the workflow syntax: write the keys out"),
            (Some(_), _) => error,
            (None, _) => error.hint(format!("known keys: {}", known.join(", "))),
        }
    }

    /// A scalar.
    pub(crate) fn scalar<'n>(&self, node: &'n Node, what: &str) -> Read<&'n Scalar> {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.text.len() > MAX_TEXT => {
                Err(self.error(node.place, format!("{what} is longer than {MAX_TEXT} bytes")))
            }
            Kind::Scalar(scalar) => Ok(scalar),
            _ => self.wrong_type(node, what, "a text"),
        }
    }

    /// A text in which no expression may stand.
    pub(crate) fn literal(&self, node: &Node, what: &str) -> Read<String> {
        let text = self.scalar(node, what)?.value().to_text();
        match text.find(OPEN) {
            None => Ok(text),
            Some(_) => Err(self.error(node.place, format!("{what} cannot hold an expression"))),
        }
    }

    /// A text whose expressions may name what `scope` allows. As on GitHub a number loses its trailing zeros.
    pub(crate) fn text(&self, node: &Node, what: &str, scope: &Scope) -> Read<String> {
        let scalar = self.scalar(node, what)?;
        self.check_template(node, &scalar.text, scope)?;
        Ok(scalar.value().to_text())
    }

    /// A text that is not empty.
    pub(crate) fn filled(&self, node: &Node, what: &str, scope: Option<&Scope>) -> Read<String> {
        let text = match scope {
            Some(scope) => self.text(node, what, scope)?,
            None => self.literal(node, what)?,
        };
        if text.trim().is_empty() {
            return Err(self.error(node.place, format!("{what} is empty")));
        }
        Ok(text)
    }

    /// Reads the expressions of a text; returns the template.
    pub(crate) fn check_template(&self, node: &Node, text: &str, scope: &Scope) -> Read<Template> {
        let template =
            Template::parse(text, scope).map_err(|error| self.source.expression_error(node.place, &error, false))?;
        if template.parts.contains(&Part::Insert) {
            return Err(self.error(node.place, "`${{ insert }}` can be a key only"));
        }
        Ok(template)
    }

    /// Reads an `if:`, with or without `${{ }}`.
    pub(crate) fn condition(&self, node: &Node, what: &str, scope: &Scope) -> Read<Option<String>> {
        let text = self.scalar(node, what)?.value().to_text();
        if text.trim().is_empty() {
            return Ok(None);
        }
        if text.contains(OPEN) {
            self.check_template(node, &text, scope)?;
        } else {
            parse(&text, scope).map_err(|error| self.source.expression_error(node.place, &error, true))?;
        }
        Ok(Some(text))
    }

    /// A list of texts, or one text.
    pub(crate) fn texts(&self, node: &Node, what: &str) -> Read<Vec<(String, Place)>> {
        match &node.kind {
            Kind::List(items) => items.iter().map(|item| Ok((self.filled(item, what, None)?, item.place))).collect(),
            Kind::Scalar(_) => Ok(vec![(self.filled(node, what, None)?, node.place)]),
            Kind::Map(_) => self.wrong_type(node, what, "a text or a list of texts"),
        }
    }

    /// `true` or `false`, or an expression if `scope` is given.
    pub(crate) fn flag(&self, node: &Node, what: &str, scope: Option<&Scope>) -> Read<Setting<bool>> {
        self.setting(node, what, scope, |scalar| {
            flag_of(&scalar.value()).map_err(|message| format!("{what}: {message}"))
        })
    }

    /// A whole number from 1, or an expression if `scope` is given.
    pub(crate) fn whole(&self, node: &Node, what: &str, scope: Option<&Scope>) -> Read<Setting<u64>> {
        self.setting(node, what, scope, |scalar| {
            whole_of(&scalar.value()).map_err(|message| format!("{what}: {message}"))
        })
    }

    fn setting<T>(
        &self,
        node: &Node,
        what: &str,
        scope: Option<&Scope>,
        read: impl Fn(&Scalar) -> Result<T, String>,
    ) -> Read<Setting<T>> {
        let scalar = self.scalar(node, what)?;
        match scope {
            Some(scope) if scalar.text.contains(OPEN) => {
                self.check_template(node, &scalar.text, scope)?;
                Ok(Setting::Expression(scalar.text.clone()))
            }
            _ => read(scalar).map(Setting::Is).map_err(|message| self.error(node.place, message)),
        }
    }

    /// A mapping of texts (`env`, `with`, `outputs`), or an expression that yields one.
    pub(crate) fn text_map(&self, node: &Node, what: &str, scope: &Scope) -> Read<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        if let Some(text) = node.as_template() {
            if self.check_template(node, text, scope)?.single().is_none() {
                return self.wrong_type(node, what, "a mapping");
            }
            found.insert("${{ insert }}".to_owned(), text.to_owned());
            return Ok(found);
        }
        for (key, value) in self.map(node, what)? {
            let name = format!("`{}` of {what}", clip(&key.text, 60));
            if key.text.is_empty() {
                return Err(self.error(key.place, format!("a key of {what} is empty")));
            }
            Template::parse(&key.text, scope)
                .map_err(|error| self.source.expression_error(key.place, &error, false))?;
            found.insert(key.text.clone(), self.text(value, &name, scope)?);
        }
        Ok(found)
    }

    /// Checks every expression below a node.
    pub(crate) fn check_tree(&self, node: &Node, scope: &Scope) -> Read<()> {
        let mut waiting = vec![node];
        while let Some(node) = waiting.pop() {
            match &node.kind {
                Kind::Scalar(scalar) => {
                    self.check_template(node, &scalar.text, scope)?;
                }
                Kind::List(items) => waiting.extend(items.iter().rev()),
                Kind::Map(entries) => {
                    for (key, _) in entries {
                        Template::parse(&key.text, scope)
                            .map_err(|error| self.source.expression_error(key.place, &error, false))?;
                    }
                    waiting.extend(entries.iter().rev().map(|(_, value)| value));
                }
            }
        }
        Ok(())
    }

    /// A name of a job or step: letters, digits, `_`, `-`, beginning with a letter or `_`, fewer than 100 characters.
    pub(crate) fn check_id(&self, id: &str, place: Place, what: &str) -> Read<()> {
        let valid = crate::expression::token::is_word(id) && id.len() < 100;
        if !valid {
            let message = format!("{what} `{}` is not valid", clip(id, 60));
            let hint = "letters, digits, `_` and `-`, beginning with a letter or `_`, fewer than 100 characters";
            return Err(self.error(place, message).hint(hint));
        }
        if id.starts_with("__") {
            return Err(self.error(place, format!("{what} `{id}` begins with `__`, which is reserved")));
        }
        Ok(())
    }
}
