//! Reads a YAML text into a tree of nodes that know where they stand.
//!
//! The reader never recurses, and bounds what aliases may blow a text up to.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::error::{Source, WorkflowError};
use crate::node::{Key, Kind, Node, Place, Scalar};
use crate::text::{clip, fold};

/// How large a workflow file may be, in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// How deep lists and mappings may stand in each other.
const MAX_DEPTH: usize = 64;
/// How many nodes a file may have once its aliases are written out.
const MAX_NODES: usize = 100_000;
/// How many bytes of text it may have then.
const MAX_TEXT: usize = 8 << 20;

/// Reads a text that holds one document.
pub(crate) fn read(source: &Source, text: &str) -> Result<Node, WorkflowError> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes: more than {MAX_BYTES} are not read", text.len());
        return Err(source.error(Place { line: 1, column: 1 }, message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::new(source);
    let mut parser = Parser::new_from_str(text);
    while let Some((event, span)) = next(&mut parser, source)? {
        if builder.take(event, span)? {
            break;
        }
    }
    builder.root.ok_or_else(|| source.error(Place { line: 1, column: 1 }, "the file is empty"))
}

type Next<'a> = Option<(Event<'a>, Span)>;

fn next<'a>(parser: &mut Parser<'a, StrInput<'a>>, source: &Source) -> Result<Next<'a>, WorkflowError> {
    match parser.next_event() {
        None => Ok(None),
        Some(Ok(found)) => Ok(Some(found)),
        Some(Err(error)) => {
            let at = place(*error.marker());
            if let Some(tab) = source.tab_indent(at.line) {
                return Err(source.error(tab, "a tab indents this line: YAML takes spaces only"));
            }
            Err(source.error(at, format!("this is not valid YAML: {}", error.info())).hint(HINT))
        }
    }
}

const HINT: &str = "check the indentation, and quote texts that hold `: `, ` #` or begin with one of * & ! | > @ % { [";

fn place(marker: Marker) -> Place {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

/// A list or mapping that is not closed yet.
struct Open {
    place: Place,
    anchor: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// The line of each key, whatever its case.
        known: HashMap<String, u32>,
        key: Option<Key>,
    },
}

/// What an anchor names, with its size written out.
struct Anchored {
    node: Node,
    size: Size,
}

#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text: usize,
}

impl Size {
    const fn add(&mut self, other: Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.text = self.text.saturating_add(other.text);
    }
}

struct Builder<'a> {
    source: &'a Source,
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    size: Size,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Source) -> Self {
        Self { source, root: None, open: Vec::new(), anchors: HashMap::new(), size: Size::default() }
    }

    /// Takes an event; true at the end of the text.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<bool, WorkflowError> {
        let at = place(span.start);
        match event {
            Event::StreamEnd => return Ok(true),
            Event::DocumentStart(_) if self.root.is_some() => {
                return Err(self.source.error(at, "a second document begins here: a workflow file holds one"));
            }
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag, span)?,
            Event::SequenceStart(anchor, tag) => self.begin(at, anchor, tag, Items::List(Vec::new()))?,
            Event::MappingStart(anchor, tag) => {
                let items = Items::Map { entries: Vec::new(), known: HashMap::new(), key: None };
                self.begin(at, anchor, tag, items)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => self.alias(anchor, at)?,
        }
        Ok(false)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        span: Span,
    ) -> Result<(), WorkflowError> {
        let at = place(span.start);
        let plain = match tag.as_deref() {
            None => style == ScalarStyle::Plain,
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => false,
            Some(tag)
                if tag.is_yaml_core_schema() && ["int", "float", "bool", "null"].contains(&tag.suffix.as_str()) =>
            {
                true
            }
            Some(tag) => return Err(self.bad_tag(tag, at)),
        };
        let scalar = Scalar { text: text.to_owned(), plain };
        self.finish(Node { place: at, kind: Kind::Scalar(scalar) }, anchor, Size { nodes: 1, text: text.len() })
    }

    fn bad_tag(&self, tag: &Tag, at: Place) -> WorkflowError {
        self.source.error(at, format!("the tag `{}` has no meaning in a workflow file", clip(&tag.to_string(), 60)))
    }

    fn begin(
        &mut self,
        at: Place,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        items: Items,
    ) -> Result<(), WorkflowError> {
        let name = if matches!(items, Items::List(_)) { "seq" } else { "map" };
        if let Some(tag) = tag.as_deref().filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == name)) {
            return Err(self.bad_tag(tag, at));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(self
                .source
                .error(at, format!("lists and mappings stand deeper than {MAX_DEPTH} in each other")));
        }
        if matches!(self.open.last(), Some(Open { items: Items::Map { key: None, .. }, .. })) {
            return Err(self.source.error(at, "a key must be a text, not a list or mapping").hint(KEY_HINT));
        }
        self.open.push(Open { place: at, anchor, items });
        Ok(())
    }

    fn end(&mut self) -> Result<(), WorkflowError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let kind = match open.items {
            Items::List(items) => Kind::List(items),
            Items::Map { entries, .. } => Kind::Map(entries),
        };
        self.finish(Node { place: open.place, kind }, open.anchor, Size { nodes: 1, text: 0 })
    }

    fn alias(&mut self, anchor: usize, at: Place) -> Result<(), WorkflowError> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            return Err(self.source.error(at, "this alias stands inside of what it names"));
        };
        if self.open.len() + depth(&anchored.node) > MAX_DEPTH {
            return Err(self.source.error(at, format!("aliases make lists and mappings deeper than {MAX_DEPTH}")));
        }
        self.size.add(anchored.size);
        self.check_size(at)?;
        // The copy keeps the place of the anchor, where the text that matters stands.
        let node = anchored.node.clone();
        self.put(node)
    }

    fn grow(&mut self, size: Size, at: Place) -> Result<(), WorkflowError> {
        self.size.add(size);
        self.check_size(at)
    }

    fn check_size(&self, at: Place) -> Result<(), WorkflowError> {
        if self.size.nodes > MAX_NODES || self.size.text > MAX_TEXT {
            return Err(self.source.error(at, "with its aliases written out the file is too large"));
        }
        Ok(())
    }

    fn finish(&mut self, node: Node, anchor: usize, size: Size) -> Result<(), WorkflowError> {
        self.grow(size, node.place)?;
        if anchor > 0 {
            let size = measure(&node);
            self.anchors.insert(anchor, Anchored { node: node.clone(), size });
            // The copy that is kept for aliases counts too, or nested anchors could square the memory.
            self.grow(size, node.place)?;
        }
        self.put(node)
    }

    /// Puts a node where it belongs.
    fn put(&mut self, node: Node) -> Result<(), WorkflowError> {
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map { entries, known, key }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Kind::Scalar(scalar) = node.kind else {
                        return Err(self.source.error(node.place, "a key must be a text").hint(KEY_HINT));
                    };
                    let text = scalar.text;
                    if let Some(line) = known.insert(fold(&text), node.place.line) {
                        let message = format!("`{}` is there already, on line {line}", clip(&text, 60));
                        return Err(self.source.error(node.place, message));
                    }
                    *key = Some(Key { place: node.place, text });
                }
            },
        }
        Ok(())
    }
}

const KEY_HINT: &str = "quote what holds `${{ }}` or begins with { or [";

/// The nodes and text below a node, itself included.
fn measure(node: &Node) -> Size {
    let mut size = Size::default();
    let mut waiting = vec![node];
    while let Some(node) = waiting.pop() {
        size.nodes += 1;
        match &node.kind {
            Kind::Scalar(scalar) => size.text += scalar.text.len(),
            Kind::List(items) => waiting.extend(items),
            Kind::Map(entries) => {
                size.text += entries.iter().map(|(key, _)| key.text.len()).sum::<usize>();
                size.nodes += entries.len();
                waiting.extend(entries.iter().map(|(_, value)| value));
            }
        }
    }
    size
}

/// How many lists and mappings stand in each other. Never more than [`MAX_DEPTH`], since no deeper node is built.
fn depth(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar(_) => 0,
        Kind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
