//! YAML with the byte range of every scalar.
//!
//! Nodes lie in one flat list and refer to each other by index: no recursion, so neither nesting nor aliases that refer
//! to themselves can exhaust the stack.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::{GitopsError, Place};

/// The largest file that is read, in bytes.
const MAX_BYTES: usize = 4 << 20;
/// The deepest nesting that is read.
const MAX_DEPTH: usize = 100;

pub(crate) type NodeId = usize;

/// One node of a file.
#[derive(Debug)]
pub(crate) struct Node {
    pub kind: Kind,
    /// The bytes of a scalar in the text, with its quotes; where it begins, for the others.
    pub at: Range<usize>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The document in the file, from 0.
    pub document: usize,
    /// The index of its (first) event.
    pub event: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar { value: String, style: ScalarStyle, tag: Option<String> },
    Sequence(Vec<NodeId>),
    Mapping(Vec<(NodeId, NodeId)>),
    Alias(Option<NodeId>),
}

/// What a scalar means by the YAML 1.2 core schema.
#[derive(Debug, PartialEq, Clone, Copy)]
pub(crate) enum Meaning {
    Null,
    Bool(bool),
    Integer(i64),
    Float,
    Text,
}

/// A file and its nodes.
#[derive(Debug)]
pub(crate) struct Tree<'t> {
    pub file: &'t str,
    pub text: &'t str,
    pub nodes: Vec<Node>,
    /// The top node of each document.
    pub roots: Vec<NodeId>,
    pub events: Vec<Event<'t>>,
}

impl<'t> Tree<'t> {
    /// Reads a file of one or more documents.
    pub fn parse(file: &'t str, text: &'t str) -> Result<Self, GitopsError> {
        if text.len() > MAX_BYTES {
            let what = format!("{} bytes are more than the {MAX_BYTES} that are read", text.len());
            return Err(GitopsError::TooLarge { file: file.to_owned(), what });
        }
        let mut builder = Builder::new(text);
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| GitopsError::Yaml {
                place: Place::new(file, text, error.marker().line(), error.marker().col() + 1),
                message: error.info().to_owned(),
            })?;
            builder.event(event, span);
            if builder.open.len() > MAX_DEPTH {
                let what = format!("it is nested deeper than {MAX_DEPTH} levels");
                return Err(GitopsError::TooLarge { file: file.to_owned(), what });
            }
        }
        let Builder { nodes, roots, events, .. } = builder;
        Ok(Self { file, text, nodes, roots, events })
    }

    /// The place of a node.
    pub fn place(&self, node: NodeId) -> Place {
        Place::new(self.file, self.text, self.nodes[node].line, self.nodes[node].column)
    }

    /// The node an alias stands for; any other node itself.
    pub fn follow(&self, node: NodeId) -> NodeId {
        match self.nodes[node].kind {
            Kind::Alias(Some(target)) => target,
            _ => node,
        }
    }

    /// The value of a scalar, through an alias.
    pub fn scalar(&self, node: NodeId) -> Option<&str> {
        match &self.nodes[self.follow(node)].kind {
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    /// What a scalar means; nothing for the other kinds.
    pub fn meaning(&self, node: NodeId) -> Option<Meaning> {
        match &self.nodes[self.follow(node)].kind {
            Kind::Scalar { value, style: ScalarStyle::Plain, tag: None } => Some(meaning(value)),
            Kind::Scalar { .. } => Some(Meaning::Text),
            _ => None,
        }
    }

    /// The value under `key` of a mapping, through aliases. The first, if the key is there twice.
    pub fn get(&self, node: NodeId, key: &str) -> Option<NodeId> {
        let Kind::Mapping(entries) = &self.nodes[self.follow(node)].kind else { return None };
        let (_, value) = entries.iter().find(|(name, _)| self.scalar(*name) == Some(key))?;
        Some(self.follow(*value))
    }
}

/// The meaning of a plain scalar.
pub(crate) fn meaning(value: &str) -> Meaning {
    match value {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "true" | "True" | "TRUE" => return Meaning::Bool(true),
        "false" | "False" | "FALSE" => return Meaning::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => return Meaning::Float,
        _ => {}
    }
    let radix = |prefix, radix| value.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok());
    if let Some(number) = value.parse::<i64>().ok().or_else(|| radix("0o", 8)).or_else(|| radix("0x", 16)) {
        return Meaning::Integer(number);
    }
    let numeric = value.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if numeric && value.parse::<f64>().is_ok() { Meaning::Float } else { Meaning::Text }
}

/// The bytes of a scalar itself. The scanner's range begins at an anchor or tag before it and, behind a quoted scalar,
/// goes on to the next token.
fn written(text: &str, at: Range<usize>, style: ScalarStyle, described: bool) -> Range<usize> {
    let mut start = at.start;
    while described && text[start..at.end].starts_with(['&', '!']) {
        let rest = &text[start..at.end];
        let property = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let blank = rest[property..].find(|c: char| !c.is_whitespace()).unwrap_or(rest.len() - property);
        start += property + blank;
    }
    let raw = &text[start..at.end];
    let length = match style {
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => quoted_length(raw.as_bytes()),
        _ => raw.trim_end().len(),
    };
    start..start + length
}

/// The length of the quoted text that `raw` begins with, with both quotes.
fn quoted_length(raw: &[u8]) -> usize {
    let quote = raw.first().copied().unwrap_or_default();
    let mut at = 1;
    while at < raw.len() {
        match raw[at] {
            b'\\' if quote == b'"' => at += 1,
            b'\'' if quote == b'\'' && raw.get(at + 1) == Some(&b'\'') => at += 1,
            byte if byte == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    raw.len()
}

/// A collection whose end has not come yet.
struct Open {
    node: NodeId,
    /// The key that waits for its value, in a mapping.
    key: Option<NodeId>,
}

struct Builder<'t> {
    nodes: Vec<Node>,
    roots: Vec<NodeId>,
    events: Vec<Event<'t>>,
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    document: usize,
    /// The byte offset of each character, if there is any that takes more than one.
    offsets: Option<Vec<usize>>,
    text: &'t str,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Self {
        let offsets = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self {
            nodes: Vec::new(),
            roots: Vec::new(),
            events: Vec::new(),
            open: Vec::new(),
            anchors: HashMap::new(),
            document: 0,
            offsets,
            text,
        }
    }

    fn byte(&self, character: usize) -> usize {
        match &self.offsets {
            Some(offsets) => offsets.get(character).copied().unwrap_or(self.text.len()),
            None => character.min(self.text.len()),
        }
    }

    fn event(&mut self, event: Event<'t>, span: Span) {
        match &event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::DocumentEnd => self.document += 1,
            Event::Scalar(value, style, anchor, tag) => {
                let tag = tag.as_ref().map(|tag| tag.to_string());
                let described = *anchor != 0 || tag.is_some();
                let node = self.add(Kind::Scalar { value: value.to_string(), style: *style, tag }, span);
                let at = self.nodes[node].at.clone();
                self.nodes[node].at = written(self.text, at, *style, described);
                self.anchors.insert(*anchor, node);
                self.attach(node);
            }
            Event::Alias(anchor) => {
                let target = self.anchors.get(anchor).copied();
                let node = self.add(Kind::Alias(target), span);
                self.attach(node);
            }
            Event::SequenceStart(anchor, _) => self.begin(Kind::Sequence(Vec::new()), *anchor, span),
            Event::MappingStart(anchor, _) => self.begin(Kind::Mapping(Vec::new()), *anchor, span),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.attach(open.node);
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd => {}
        }
        self.events.push(event);
    }

    fn add(&mut self, kind: Kind, span: Span) -> NodeId {
        let start = self.byte(span.start.index());
        let at = start..self.byte(span.end.index()).max(start);
        self.nodes.push(Node {
            kind,
            at,
            line: span.start.line(),
            column: span.start.col() + 1,
            document: self.document,
            event: self.events.len(),
        });
        self.nodes.len() - 1
    }

    fn begin(&mut self, kind: Kind, anchor: usize, span: Span) {
        let node = self.add(kind, span);
        self.anchors.insert(anchor, node);
        self.open.push(Open { node, key: None });
    }

    fn attach(&mut self, child: NodeId) {
        let Some(parent) = self.open.last_mut() else {
            self.roots.push(child);
            return;
        };
        match &mut self.nodes[parent.node].kind {
            Kind::Sequence(items) => items.push(child),
            Kind::Mapping(entries) => match parent.key.take() {
                Some(key) => entries.push((key, child)),
                None => parent.key = Some(child),
            },
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice<'t>(tree: &Tree<'t>, key: &str) -> &'t str {
        let node = tree.get(tree.roots[0], key).unwrap();
        &tree.text[tree.nodes[node].at.clone()]
    }

    #[test]
    fn scalar_ranges_are_bytes_with_quotes() {
        let text =
            "ü: \"ö\"\na: plain text  # note\nb: 'single'   \nc: \"dou\\\"ble\" # x\nd: !!str tagged\ne: &x anchored\n";
        let tree = Tree::parse("f.yaml", text).unwrap();
        assert_eq!(slice(&tree, "ü"), "\"ö\"");
        assert_eq!(slice(&tree, "a"), "plain text");
        assert_eq!(slice(&tree, "b"), "'single'");
        assert_eq!(slice(&tree, "c"), "\"dou\\\"ble\"");
        assert_eq!(slice(&tree, "d"), "tagged");
        assert_eq!(slice(&tree, "e"), "anchored");
    }

    #[test]
    fn ranges_hold_with_crlf_flow_bom_and_several_documents() {
        let tree = Tree::parse("f.yaml", "a: one\r\nb: two\r\n").unwrap();
        assert_eq!((slice(&tree, "a"), slice(&tree, "b")), ("one", "two"));
        let tree = Tree::parse("f.yaml", "{a: x:1/y@z, b: \"q\"}").unwrap();
        assert_eq!((slice(&tree, "a"), slice(&tree, "b")), ("x:1/y@z", "\"q\""));
        let tree = Tree::parse("f.yaml", "\u{feff}a: one\n").unwrap();
        assert_eq!(slice(&tree, "a"), "one");
        let tree = Tree::parse("f.yaml", "a: one\n---\nb: two\n").unwrap();
        assert_eq!(tree.roots.len(), 2);
        let node = tree.get(tree.roots[1], "b").unwrap();
        assert_eq!((&tree.text[tree.nodes[node].at.clone()], tree.nodes[node].line), ("two", 3));
    }

    #[test]
    fn errors_name_the_place() {
        let error = Tree::parse("deploy.yaml", "a: [1,\nb: }\n").unwrap_err();
        assert!(error.to_string().starts_with("deploy.yaml:2:"), "{error}");
        assert!(error.place().unwrap().contains("2 | b: }"), "{:?}", error.place());
    }

    #[test]
    fn nesting_and_cycles_end() {
        let deep = "[".repeat(5000);
        assert!(Tree::parse("f", &deep).is_err());
        let deep: String = (0..5000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(matches!(Tree::parse("f", &deep), Err(GitopsError::TooLarge { .. })));
        let cyclic = Tree::parse("f", "a: &x [*x]\n").unwrap();
        assert!(cyclic.get(cyclic.roots[0], "a").is_some());
    }

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        for (text, expected) in [
            ("1", Meaning::Integer(1)),
            ("0x10", Meaning::Integer(16)),
            ("1.5", Meaning::Float),
            ("1e5", Meaning::Float),
            ("true", Meaning::Bool(true)),
            ("~", Meaning::Null),
            ("v1.0", Meaning::Text),
            ("1.2.3", Meaning::Text),
            ("yes", Meaning::Text),
            ("99999999999999999999", Meaning::Float),
            ("-", Meaning::Text),
        ] {
            assert_eq!(meaning(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[-a-c:{}\\[\\],&*!|>'\"%@# \n\té?]{0,60}") {
            let _ = Tree::parse("f", &text);
        }
    }
}
