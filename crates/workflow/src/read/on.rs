//! `on:`: what fires a workflow.

use super::event_table::{EVENTS, EventKind, find};
use super::{Fields, Reader};
use crate::cron;
use crate::error::WorkflowError;
use crate::expression::scope::Scope;
use crate::glob::{Pattern, Patterns};
use crate::inputs::{Input, InputKind};
use crate::node::{Key, Kind, Node, Place};
use crate::text::{clip, nearest};
use crate::trigger::{CallOutput, CallSecret, CallSpec, Filter, On, OnEvent, Schedule};
use crate::value::Value;

type Read<T> = Result<T, WorkflowError>;

/// How many patterns one filter may have: every changed file is held against every one.
const MAX_PATTERNS: usize = 500;

impl Reader<'_> {
    /// Reads `on:`.
    pub(crate) fn on(&self, node: &Node) -> Read<On> {
        let mut on = On::default();
        match &node.kind {
            Kind::Scalar(_) => self.event(&mut on, &self.literal(node, "`on`")?, node.place, None)?,
            Kind::List(items) => {
                for item in items {
                    self.event(&mut on, &self.literal(item, "an event of `on`")?, item.place, None)?;
                }
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    self.event(&mut on, &key.text, key.place, Some(value))?;
                }
            }
        }
        if on.events.is_empty() {
            return Err(self.error(node.place, "`on` names no event: the workflow could never run"));
        }
        Ok(on)
    }

    fn event(&self, on: &mut On, name: &str, place: Place, node: Option<&Node>) -> Read<()> {
        let kind = find(name).ok_or_else(|| self.unknown_event(name, place))?;
        if on.events.iter().any(|event| event.name == name) {
            return Err(self.error(place, format!("`{name}` is named twice")));
        }
        let mut event = OnEvent { name: name.to_owned(), ..OnEvent::default() };
        let node = node.filter(|node| !node.is_null());
        match (name, node) {
            ("schedule", node) => on.schedules = self.schedules(node, place)?,
            ("workflow_dispatch", Some(node)) => on.dispatch = self.dispatch_inputs(node)?,
            ("workflow_call", Some(node)) => on.call = Some(self.call_spec(node)?),
            ("workflow_call", None) => on.call = Some(CallSpec::default()),
            (_, Some(node)) => self.filters(kind, &mut event, node)?,
            (_, None) => {}
        }
        if event.types.is_empty() && name != "repository_dispatch" {
            event.types = kind.default_types.iter().map(|name| (*name).to_owned()).collect();
        }
        on.events.push(event);
        Ok(())
    }

    fn unknown_event(&self, name: &str, place: Place) -> WorkflowError {
        let near = nearest(name, EVENTS.iter().map(|event| event.name));
        let meant = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        self.error(place, format!("there is no event `{}`{meant}", clip(name, 60)))
    }

    fn filters(&self, kind: &EventKind, event: &mut OnEvent, node: &Node) -> Read<()> {
        let what = format!("`on.{}`", kind.name);
        let free_types = kind.name == "repository_dispatch";
        let mut known = kind.filters.to_vec();
        if free_types || !kind.types.is_empty() {
            known.push("types");
        }
        let fields = self.fields(node, &what, &known)?;
        if let Some(node) = fields.get("types").filter(|node| !node.is_null()) {
            for (name, place) in self.texts(node, &format!("{what}.types"))? {
                if !free_types && !kind.types.contains(&name.as_str()) {
                    let near = nearest(&name, kind.types.iter().copied());
                    let meant = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
                    let message = format!("`{}` has no activity type `{}`{meant}", kind.name, clip(&name, 60));
                    return Err(self.error(place, message).hint(format!("types: {}", kind.types.join(", "))));
                }
                event.types.push(name);
            }
        }
        event.branches = self.filter(&fields, "branches", "branches-ignore")?;
        event.tags = self.filter(&fields, "tags", "tags-ignore")?;
        event.paths = self.filter(&fields, "paths", "paths-ignore")?;
        for name in ["names", "versions"] {
            if let Some(node) = fields.get(name) {
                self.patterns(node, name)?;
            }
        }
        if let Some(node) = fields.get("workflows") {
            event.workflows =
                self.texts(node, "`on.workflow_run.workflows`")?.into_iter().map(|(name, _)| name).collect();
        } else if kind.name == "workflow_run" {
            return Err(self.error(node.place, "`on.workflow_run` does not say which `workflows` it follows"));
        }
        Ok(())
    }

    /// A pair of filters of which only one may be there.
    fn filter(&self, fields: &Fields<'_>, choose: &str, ignore: &str) -> Read<Option<Filter>> {
        let choose_entry = fields.entry(choose).filter(|(_, node)| !node.is_null());
        let ignore_entry = fields.entry(ignore).filter(|(_, node)| !node.is_null());
        match (choose_entry, ignore_entry) {
            (None, None) => Ok(None),
            (Some((key, node)), None) => {
                let patterns = self.patterns(node, choose)?;
                if !patterns.0.is_empty() && patterns.0.iter().all(|pattern| pattern.negative) {
                    let message =
                        format!("`{choose}` only takes away: at least one pattern without `!` must come first");
                    return Err(self.error(key.place, message).hint(format!("`{ignore}` leaves out what it names")));
                }
                Ok(Some(Filter::Choose(patterns)))
            }
            (None, Some((_, node))) => Ok(Some(Filter::Ignore(self.patterns(node, ignore)?))),
            (Some(_), Some((key, _))) => {
                let message = format!("`{choose}` and `{ignore}` cannot both be there");
                Err(self.error(key.place, message).hint(format!("use `{choose}` with patterns that begin with `!`")))
            }
        }
    }

    fn patterns(&self, node: &Node, what: &str) -> Read<Patterns> {
        let texts = self.texts(node, &format!("a pattern of `{what}`"))?;
        if texts.len() > MAX_PATTERNS {
            let message = format!("`{what}` has {} patterns: {MAX_PATTERNS} is the most", texts.len());
            return Err(self.error(node.place, message));
        }
        let mut found = Vec::with_capacity(texts.len());
        for (text, place) in texts {
            let pattern = Pattern::parse(&text)
                .map_err(|why| self.error(place, format!("`{}` is not a filter pattern: {why}", clip(&text, 60))))?;
            found.push(pattern);
        }
        Ok(Patterns(found))
    }

    fn schedules(&self, node: Option<&Node>, place: Place) -> Read<Vec<Schedule>> {
        let Some(Node { kind: Kind::List(items), .. }) = node else {
            let message = "`on.schedule` must be a list of `cron` expressions";
            return Err(self.error(node.map_or(place, |node| node.place), message).hint("- cron: '30 5 * * 1-5'"));
        };
        let mut found = Vec::new();
        for item in items {
            let fields = self.fields(item, "an entry of `on.schedule`", &["cron", "timezone"])?;
            let Some(node) = fields.get("cron") else {
                return Err(self.error(item.place, "an entry of `on.schedule` has no `cron`"));
            };
            let expression = self.filled(node, "`cron`", None)?;
            cron::check(&expression).map_err(|why| {
                self.error(node.place, format!("`{}` is not a cron expression: {why}", clip(&expression, 60)))
            })?;
            let timezone = fields.get("timezone").map(|node| self.filled(node, "`timezone`", None)).transpose()?;
            found.push(Schedule { cron: expression, timezone });
        }
        if found.is_empty() {
            return Err(self.error(place, "`on.schedule` holds no `cron` expression"));
        }
        Ok(found)
    }

    fn dispatch_inputs(&self, node: &Node) -> Read<Vec<Input>> {
        let fields = self.fields(node, "`on.workflow_dispatch`", &["inputs"])?;
        let Some(node) = fields.get("inputs") else { return Ok(Vec::new()) };
        let known = ["description", "required", "default", "type", "options", "deprecationMessage"];
        let kinds = ["string", "boolean", "number", "choice", "environment"];
        self.map(node, "`inputs`")?.iter().map(|(key, node)| self.input(key, node, &known, &kinds)).collect()
    }

    fn input(&self, key: &Key, node: &Node, known: &[&str], kinds: &[&str]) -> Read<Input> {
        let what = format!("the input `{}`", clip(&key.text, 60));
        self.check_id(&key.text, key.place, "the input")?;
        let fields = self.fields(node, &what, known)?;
        let kind = match fields.get("type").filter(|node| !node.is_null()) {
            None if !kinds.contains(&"choice") => {
                return Err(self.error(key.place, format!("{what} has no `type`")).hint(kinds.join(", ")));
            }
            None => InputKind::Text,
            Some(node) => self.input_kind(node, &fields, &what, kinds)?,
        };
        let required = match fields.get("required") {
            Some(node) => self.flag(node, &format!("`required` of {what}"), None)?,
            None => crate::plan::Setting::Is(false),
        };
        let mut input = Input {
            name: key.text.clone(),
            kind,
            required: required == crate::plan::Setting::Is(true),
            default: None,
            description: fields.get("description").map(|node| self.literal(node, "`description`")).transpose()?,
        };
        if let Some(node) = fields.get("default").filter(|node| !node.is_null()) {
            input.default = Some(self.input_default(&input, node, &what)?);
        }
        Ok(input)
    }

    fn input_kind(&self, node: &Node, fields: &Fields<'_>, what: &str, kinds: &[&str]) -> Read<InputKind> {
        let name = self.literal(node, &format!("`type` of {what}"))?;
        if !kinds.contains(&name.as_str()) {
            let message = format!("{what} has the unknown type `{}`", clip(&name, 40));
            return Err(self.error(node.place, message).hint(format!("types: {}", kinds.join(", "))));
        }
        Ok(match name.as_str() {
            "boolean" => InputKind::Boolean,
            "number" => InputKind::Number,
            "environment" => InputKind::Environment,
            "choice" => {
                let options = match fields.get("options") {
                    Some(node) => self.texts(node, &format!("`options` of {what}"))?,
                    None => Vec::new(),
                };
                if options.is_empty() {
                    return Err(self.error(node.place, format!("{what} is a choice, but has no `options`")));
                }
                InputKind::Choice(options.into_iter().map(|(option, _)| option).collect())
            }
            _ => InputKind::Text,
        })
    }

    fn input_default(&self, input: &Input, node: &Node, what: &str) -> Read<Value> {
        let scalar = self.scalar(node, &format!("`default` of {what}"))?;
        if node.as_template().is_some() {
            self.check_template(node, &scalar.text, &Scope::WORKFLOW)?;
            return Ok(Value::from(scalar.text.as_str()));
        }
        input.accept(&scalar.value()).map_err(|why| self.error(node.place, format!("`default` of {what}: {why}")))
    }

    fn call_spec(&self, node: &Node) -> Read<CallSpec> {
        let fields = self.fields(node, "`on.workflow_call`", &["inputs", "secrets", "outputs"])?;
        let mut spec = CallSpec::default();
        if let Some(node) = fields.get("inputs") {
            let known = ["description", "required", "default", "type", "deprecationMessage"];
            for (key, node) in self.map(node, "`inputs`")? {
                spec.inputs.push(self.input(key, node, &known, &["string", "boolean", "number"])?);
            }
        }
        if let Some(node) = fields.get("secrets") {
            for (key, node) in self.map(node, "`secrets`")? {
                let what = format!("the secret `{}`", clip(&key.text, 60));
                let fields = self.fields(node, &what, &["description", "required"])?;
                let required = match fields.get("required") {
                    Some(node) => self.flag(node, &format!("`required` of {what}"), None)?,
                    None => crate::plan::Setting::Is(false),
                };
                let required = required == crate::plan::Setting::Is(true);
                spec.secrets.push(CallSecret { name: key.text.clone(), required });
            }
        }
        if let Some(node) = fields.get("outputs") {
            for (key, node) in self.map(node, "`outputs`")? {
                let what = format!("the output `{}`", clip(&key.text, 60));
                let fields = self.fields(node, &what, &["description", "value"])?;
                let Some(node) = fields.get("value") else {
                    return Err(self.error(key.place, format!("{what} has no `value`")));
                };
                let value = self.text(node, &what, &Scope::CALL_OUTPUTS)?;
                spec.outputs.push(CallOutput { name: key.text.clone(), value });
            }
        }
        Ok(spec)
    }
}
