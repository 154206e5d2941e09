//! Expands what of a job is expanded before a runner gets it.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::error::{Source, WorkflowError};
use crate::evaluator::{Evaluator, flag_of, whole_of};
use crate::expression::scope::Scope;
use crate::expression::template::{Part, Template, escape};
use crate::node::{Kind, Node, Place};
use crate::object::{Contexts, Object};
use crate::plan::{Concurrency, Container, Credentials, Environment, Queue, Setting};
use crate::status::Status;
use crate::text::clip;
use crate::value::Value;

/// How many bytes the expanded parts of a workflow may have, in all.
const MAX_BYTES: usize = 32 << 20;
/// How long labels and the names of groups and environments may be, in characters.
const MAX_NAME: usize = 400;

/// What the expanded parts may still grow by.
pub(crate) struct Budget(Cell<usize>);

impl Budget {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(MAX_BYTES))
    }

    /// Takes `bytes` off; false if so many are not left.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        match self.0.get().checked_sub(bytes) {
            Some(left) => {
                self.0.set(left);
                true
            }
            None => false,
        }
    }
}

/// Expands nodes in some contexts.
pub(crate) struct Resolver<'a> {
    pub(crate) source: &'a Source,
    pub(crate) contexts: &'a Contexts,
    pub(crate) budget: &'a Budget,
}

type Resolved<T> = Result<T, WorkflowError>;

impl Resolver<'_> {
    fn error<T>(&self, place: Place, message: impl Into<String>) -> Resolved<T> {
        Err(self.source.error(place, message))
    }

    fn charge(&self, bytes: usize, place: Place) -> Resolved<()> {
        if self.budget.take(bytes) {
            return Ok(());
        }
        self.error(place, format!("the jobs of the workflow take more than {} MiB when expanded", MAX_BYTES >> 20))
    }

    /// The value of a text with expressions.
    fn template(&self, text: &str, place: Place) -> Resolved<Value> {
        let located = |error| self.source.expression_error(place, &error, false);
        let template = Template::parse(text, &Scope::ANY).map_err(located)?;
        let value = Evaluator::new(self.contexts, Status::SUCCESS).template(&template).map_err(located)?;
        self.charge(weight(&value), place)?;
        Ok(value)
    }

    /// The value of a whole tree.
    pub(crate) fn value(&self, node: &Node) -> Resolved<Value> {
        match &node.kind {
            Kind::Scalar(scalar) => match node.as_template() {
                Some(text) => self.template(text, node.place),
                None => {
                    self.charge(scalar.text.len() + size_of::<Value>(), node.place)?;
                    Ok(scalar.value())
                }
            },
            Kind::List(items) => Ok(Value::Array(items.iter().map(|item| self.value(item)).collect::<Resolved<_>>()?)),
            Kind::Map(entries) => {
                let mut object = Object::new();
                for (key, value) in entries {
                    let value = self.value(value)?;
                    match self.key(&key.text, key.place)? {
                        Some(key) => object.insert(key, value),
                        None => match value {
                            Value::Object(inserted) => {
                                inserted.into_iter().for_each(|(key, value)| object.insert(key, value));
                            }
                            other => {
                                return self
                                    .error(key.place, format!("`insert` needs a mapping, not {}", shape(&other)));
                            }
                        },
                    }
                }
                Ok(Value::Object(object))
            }
        }
    }

    /// A key with its expressions expanded; nothing for `${{ insert }}`.
    fn key(&self, text: &str, place: Place) -> Resolved<Option<String>> {
        if !text.contains("${{") {
            return Ok(Some(text.to_owned()));
        }
        let template =
            Template::parse(text, &Scope::ANY).map_err(|error| self.source.expression_error(place, &error, false))?;
        if template.parts == [Part::Insert] {
            return Ok(None);
        }
        self.template(text, place).map(|value| Some(value.to_text()))
    }

    /// A text; a list or mapping is none.
    fn text(&self, value: &Value, place: Place, what: &str) -> Resolved<String> {
        match value.is_primitive() {
            true => Ok(value.to_text()),
            false => self.error(place, format!("{what} must be a text, not {}", shape(value))),
        }
    }

    /// A text that names something.
    fn name(&self, value: &Value, place: Place, what: &str) -> Resolved<String> {
        let text = self.text(value, place, what)?;
        if text.trim().is_empty() {
            return self.error(place, format!("{what} is empty"));
        }
        if text.chars().count() > MAX_NAME {
            return self.error(place, format!("{what} is longer than {MAX_NAME} characters: `{}`", clip(&text, 40)));
        }
        Ok(text)
    }

    /// The name of a job; nothing if it is empty.
    pub(crate) fn job_name(&self, node: &Node) -> Resolved<Option<String>> {
        let name = self.text(&self.value(node)?, node.place, "the name of the job")?;
        Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty()))
    }

    /// The labels and the group of `runs-on`.
    pub(crate) fn runs_on(&self, node: &Node) -> Resolved<(Vec<String>, Option<String>)> {
        let value = self.value(node)?;
        let (labels, group) = match &value {
            Value::Object(object) if object.get("labels").or(object.get("group")).is_none() => {
                return self.error(node.place, "`runs-on` names neither a group nor labels");
            }
            Value::Object(object) => (object.get("labels").cloned().unwrap_or_default(), object.get("group")),
            other => (other.clone(), None),
        };
        let group = group.map(|group| self.name(group, node.place, "the group of `runs-on`")).transpose()?;
        let labels = match labels {
            Value::Null if group.is_some() => Vec::new(),
            Value::Array(items) => items,
            other => vec![other],
        };
        let labels: Vec<String> =
            labels.iter().map(|label| self.name(label, node.place, "a label of `runs-on`")).collect::<Resolved<_>>()?;
        if labels.is_empty() && group.is_none() {
            return self.error(node.place, "`runs-on` names no label");
        }
        Ok((labels, group))
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, value: &Value, place: Place, what: &str) -> Resolved<bool> {
        flag_of(value).or_else(|why| self.error(place, format!("{what}: {why}")))
    }

    /// A whole number from 1.
    pub(crate) fn whole(&self, value: &Value, place: Place, what: &str) -> Resolved<u64> {
        whole_of(value).or_else(|why| self.error(place, format!("{what}: {why}")))
    }

    /// `concurrency:`.
    pub(crate) fn concurrency(&self, node: &Node) -> Resolved<Concurrency> {
        let value = self.value(node)?;
        let place = |key: &str| node.get(key).unwrap_or(node).place;
        let group = match &value {
            Value::Object(object) => object.get("group").unwrap_or(&Value::Null),
            other => other,
        };
        let cancel = match value.get("cancel-in-progress") {
            Some(cancel) => self.flag(cancel, place("cancel-in-progress"), "`cancel-in-progress`")?,
            None => false,
        };
        let queue = match value.get("queue").map(Value::to_text).as_deref() {
            None | Some("single") => Queue::Single,
            Some("max") => Queue::Max,
            Some(other) => {
                let message = format!("`queue` of `concurrency` is `single` or `max`, not `{}`", clip(other, 40));
                return self.error(place("queue"), message);
            }
        };
        Ok(Concurrency {
            group: self.name(group, place("group"), "the group of `concurrency`")?,
            cancel_in_progress: cancel,
            queue,
        })
    }

    /// `environment:`; nothing if its name is empty.
    pub(crate) fn environment(&self, node: &Node) -> Resolved<Option<Environment>> {
        let what = "the name of the environment";
        // Its address is for the runner to expand, when the steps have run.
        let (name, name_place, url, deployment) = match &node.kind {
            Kind::Map(_) => {
                let name = node.get("name").unwrap_or(node);
                let url = node.get("url").and_then(Node::as_scalar).map(|scalar| scalar.value().to_text());
                let deployment = node.get("deployment").map(|node| (self.value(node), node.place));
                (self.value(name)?, name.place, url, deployment)
            }
            _ => match self.value(node)? {
                Value::Object(object) => {
                    let url = object.get("url").map(|url| escape(&url.to_text()));
                    let deployment = object.get("deployment").map(|value| (Ok(value.clone()), node.place));
                    (object.get("name").cloned().unwrap_or_default(), node.place, url, deployment)
                }
                other => (other, node.place, None, None),
            },
        };
        let name = match self.text(&name, name_place, what)? {
            name if name.trim().is_empty() => return Ok(None),
            name => self.name(&Value::String(name), name_place, what)?,
        };
        let deployment = match deployment {
            Some((value, place)) => self.flag(&value?, place, "`deployment`")?,
            None => true,
        };
        let url = url.filter(|url| !url.is_empty());
        Ok(Some(Environment { name, url, deployment: Setting::Is(deployment) }))
    }

    /// `container:` of a job, or one of its services; nothing if no image is named.
    pub(crate) fn container(&self, node: &Node) -> Resolved<Option<Container>> {
        match &node.kind {
            Kind::Map(entries) => {
                let mut container = Container::default();
                for (key, node) in entries {
                    self.container_key(&mut container, &key.text, node)?;
                }
                self.charge(entries.iter().map(|(_, node)| text_weight(node)).sum(), node.place)?;
                Ok(Some(container))
            }
            _ => self.container_of(&self.value(node)?, node.place),
        }
    }

    fn container_key(&self, container: &mut Container, key: &str, node: &Node) -> Resolved<()> {
        let text = || node.as_scalar().map(|scalar| scalar.value().to_text());
        match key {
            "image" => container.image = text().unwrap_or_default(),
            "options" => container.options = text(),
            "command" => container.command = text(),
            "entrypoint" => container.entrypoint = text(),
            "ports" => container.ports = self.texts(node)?,
            "volumes" => container.volumes = self.texts(node)?,
            "env" => container.env = raw_map(node),
            "credentials" => {
                let mut map = raw_map(node);
                let mut part = |key: &str| map.remove(key).unwrap_or_default();
                container.credentials = Some(Credentials { username: part("username"), password: part("password") });
            }
            _ => {}
        }
        Ok(())
    }

    /// A list whose texts the runner expands; only a list that is an expression itself is expanded here.
    fn texts(&self, node: &Node) -> Resolved<Vec<String>> {
        match &node.kind {
            Kind::List(items) => {
                let texts = items.iter().filter_map(Node::as_scalar).map(|scalar| scalar.value().to_text());
                Ok(texts.collect())
            }
            _ => self.literal_texts(&self.value(node)?, node.place),
        }
    }

    fn literal_texts(&self, value: &Value, place: Place) -> Resolved<Vec<String>> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => items
                .iter()
                .map(|item| self.text(item, place, "an entry of the list").map(|text| escape(&text)))
                .collect(),
            other => self.error(place, format!("expected a list, found {}", shape(other))),
        }
    }

    /// A container that an expression yields. Nothing of it is expanded again.
    fn container_of(&self, value: &Value, place: Place) -> Resolved<Option<Container>> {
        let object = match value {
            Value::Null => return Ok(None),
            Value::Object(object) => object,
            Value::String(image) if image.trim().is_empty() => return Ok(None),
            other => {
                let image = escape(&self.text(other, place, "the container")?);
                return Ok(Some(Container { image, ..Container::default() }));
            }
        };
        let text = |value: &Value, what: &str| self.text(value, place, what).map(|text| escape(&text));
        let mut container = Container::default();
        for (key, value) in object.iter() {
            match key {
                "image" => container.image = text(value, "the image")?,
                "options" => container.options = Some(text(value, "`options`")?),
                "command" => container.command = Some(text(value, "`command`")?),
                "entrypoint" => container.entrypoint = Some(text(value, "`entrypoint`")?),
                "ports" => container.ports = self.literal_texts(value, place)?,
                "volumes" => container.volumes = self.literal_texts(value, place)?,
                "env" => {
                    for (name, value) in value.as_object().map(Object::iter).into_iter().flatten() {
                        container.env.insert(escape(name), text(value, "`env`")?);
                    }
                }
                "credentials" => {
                    let part = |key: &str| text(value.get(key).unwrap_or(&Value::Null), key);
                    container.credentials =
                        Some(Credentials { username: part("username")?, password: part("password")? });
                }
                other => return self.error(place, format!("a container has no key `{}`", clip(other, 60))),
            }
        }
        Ok(Some(container).filter(|container| !container.image.trim().is_empty()))
    }

    /// `services:`.
    pub(crate) fn services(&self, node: &Node) -> Resolved<BTreeMap<String, Container>> {
        let mut found = BTreeMap::new();
        match &node.kind {
            Kind::Map(entries) => {
                for (key, node) in entries {
                    if let Some(container) = self.container(node)? {
                        found.insert(key.text.clone(), container);
                    }
                }
            }
            _ => match self.value(node)? {
                Value::Null => {}
                Value::Object(object) => {
                    for (name, value) in object.iter() {
                        if let Some(container) = self.container_of(value, node.place)? {
                            found.insert(name.to_owned(), container);
                        }
                    }
                }
                other => return self.error(node.place, format!("`services` must be a mapping, not {}", shape(&other))),
            },
        }
        Ok(found)
    }
}

/// A mapping of texts as written.
fn raw_map(node: &Node) -> BTreeMap<String, String> {
    match &node.kind {
        Kind::Map(entries) => {
            let texts =
                entries.iter().filter_map(|(key, node)| Some((key.text.clone(), node.as_scalar()?.value().to_text())));
            texts.collect()
        }
        _ => node.as_template().map(|text| ("${{ insert }}".to_owned(), text.to_owned())).into_iter().collect(),
    }
}

fn text_weight(node: &Node) -> usize {
    node.texts().iter().map(|text| text.len()).sum()
}

/// About how many bytes a value takes.
fn weight(value: &Value) -> usize {
    let below: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(object) => object.iter().map(|(key, value)| key.len() * 2 + weight(value)).sum(),
        _ => 0,
    };
    size_of::<Value>() + below
}

fn shape(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
        other => format!("`{}`", clip(&other.to_text(), 40)),
    }
}
