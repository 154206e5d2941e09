//! Writing image references into manifests, byte for byte equal everywhere else.

use std::collections::{BTreeMap, BTreeSet};

use model::{ImageName, ImageRef};
use saphyr_parser::{Event, ScalarStyle};
use serde::{Deserialize, Serialize};

use crate::marker::{self, Form, Marker};
use crate::yaml::{Kind, Meaning, NodeId, Tree, meaning};
use crate::{GitopsError, Place};

/// An image that the manifests shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePin {
    /// The service it is for; named in errors.
    pub service: String,
    /// The repository. An `image:` with this repository is rewritten whatever its registry, tag or digest is.
    pub name: ImageName,
    /// The whole reference to write, under the name by which whoever deploys reaches the registry:
    /// `registry/name@sha256:…`, with or without a tag.
    pub reference: String,
    /// The Flux policies (`namespace:policy`) this image is the result of. Policies whose markers stand behind a scalar
    /// with this repository are found without it.
    pub policies: Vec<String>,
}

/// A scalar that holds what it should now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pinned {
    /// The service.
    pub service: String,
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What it held.
    pub old: String,
    /// What it holds; the same, if nothing had to be written.
    pub new: String,
}

/// What [`pin`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The new text of every file that differs from before, and of no other.
    pub files: BTreeMap<String, String>,
    /// Every scalar that was looked after, also those that were right already; by file and line.
    pub pinned: Vec<Pinned>,
}

/// Writes `images` into those of `files` (path → text) that are YAML by their name.
///
/// An `image:` scalar is rewritten if its repository is that of a pin. A scalar with a Flux marker follows its marker: it
/// is rewritten (whole, or the part the marker names) if the policy is known, and left alone otherwise. Flux's own image
/// resources, which hold a repository to scan, are left alone. Every changed file is read back before it is returned.
///
/// # Errors
/// When a reference is not one of its image, an image occurs in no file, a file that names an image is not YAML, a marker
/// asks for a tag or digest that the reference lacks, or a scalar cannot be edited in place.
pub fn pin(files: &BTreeMap<String, String>, images: &[ImagePin]) -> Result<Changes, GitopsError> {
    let pins = check(images)?;
    let mut trees = Vec::new();
    for (file, text) in files {
        let concerned = text.contains("$imagepolicy") || pins.iter().any(|pin| text.contains(pin.pin.name.as_str()));
        if is_yaml(file) && concerned {
            trees.push(Tree::parse(file, text)?);
        }
    }
    let sites: Vec<Vec<Site>> = trees.iter().map(sites).collect();
    let policies = policies(&pins, &trees, &sites);
    let mut changes = Changes::default();
    let mut found = BTreeSet::new();
    for (tree, sites) in trees.iter().zip(&sites) {
        let mut edits = Vec::new();
        for site in sites {
            let Some((index, form)) = site.wanted(tree, &pins, &policies) else { continue };
            let edit = Edit::new(tree, site.node, &pins[index], form)?;
            if form != Form::Name {
                found.insert(index);
            }
            changes.pinned.push(Pinned {
                service: pins[index].pin.service.clone(),
                file: tree.file.to_owned(),
                line: tree.nodes[site.node].line,
                old: tree.scalar(site.node).unwrap_or_default().to_owned(),
                new: edit.value.clone(),
            });
            edits.push(edit);
        }
        if let Some(text) = splice(tree, edits)? {
            changes.files.insert(tree.file.to_owned(), text);
        }
    }
    match (0..pins.len()).find(|index| !found.contains(index)) {
        Some(missing) => Err(nowhere(files, pins[missing].pin)),
        None => Ok(changes),
    }
}

/// A pin whose reference was checked.
struct Checked<'p> {
    pin: &'p ImagePin,
    reference: ImageRef,
}

fn check(images: &[ImagePin]) -> Result<Vec<Checked<'_>>, GitopsError> {
    let mut checked: Vec<Checked<'_>> = Vec::new();
    for pin in images {
        let bad =
            |why: String| GitopsError::Reference { image: pin.name.to_string(), reference: pin.reference.clone(), why };
        let reference: ImageRef = pin.reference.parse().map_err(|error: model::NameError| bad(error.to_string()))?;
        if reference.name != pin.name {
            return Err(bad(format!("it names {}", reference.name)));
        }
        if let Some(other) = checked.iter().find(|other| other.pin.name == pin.name) {
            if other.pin.reference == pin.reference {
                continue;
            }
            let (first, second) = (other.pin.service.clone(), pin.service.clone());
            return Err(GitopsError::Conflict { first, second, image: pin.name.to_string() });
        }
        checked.push(Checked { pin, reference });
    }
    Ok(checked)
}

pub(crate) fn is_yaml(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.ends_with(".yaml") || name.ends_with(".yml") || name == "Kustomization"
}

/// A scalar that may hold an image.
struct Site {
    node: NodeId,
    marker: Option<Marker>,
}

impl Site {
    fn wanted(
        &self,
        tree: &Tree<'_>,
        pins: &[Checked<'_>],
        policies: &BTreeMap<String, usize>,
    ) -> Option<(usize, Form)> {
        match &self.marker {
            Some(marker) => policies.get(&marker.policy).map(|index| (*index, marker.form)),
            None => by_repository(tree.scalar(self.node)?, pins).map(|index| (index, Form::Whole)),
        }
    }
}

fn by_repository(value: &str, pins: &[Checked<'_>]) -> Option<usize> {
    let reference: ImageRef = value.parse().ok()?;
    pins.iter().position(|pin| pin.pin.name == reference.name)
}

/// Every scalar with a marker, and every scalar under a key `image`, in the order of the file.
fn sites(tree: &Tree<'_>) -> Vec<Site> {
    let marked = tree.text.contains("$imagepolicy");
    let mut found: BTreeMap<NodeId, Option<Marker>> = BTreeMap::new();
    for (id, node) in tree.nodes.iter().enumerate() {
        match &node.kind {
            Kind::Scalar { value, .. } if marked && !value.is_empty() => {
                let rest = tree.text[node.at.end..].lines().next().unwrap_or_default();
                if let Some(marker) = marker::read(rest) {
                    found.insert(id, Some(marker));
                }
            }
            Kind::Mapping(entries) if !scans_images(tree, node.document) => {
                let images = entries.iter().filter(|(key, _)| tree.scalar(*key) == Some("image"));
                for value in images.map(|(_, value)| tree.follow(*value)) {
                    if tree.scalar(value).is_some() {
                        found.entry(value).or_insert(None);
                    }
                }
            }
            _ => {}
        }
    }
    found.into_iter().map(|(node, marker)| Site { node, marker }).collect()
}

/// Whether the document is a resource of Flux's image API, whose `image:` is a repository to scan.
fn scans_images(tree: &Tree<'_>, document: usize) -> bool {
    let root = tree.roots.get(document).copied();
    let version = root.and_then(|root| tree.get(root, "apiVersion")).and_then(|node| tree.scalar(node));
    version.is_some_and(|version| version.starts_with("image.toolkit.fluxcd.io/"))
}

/// The policies whose image is known: those a pin names, and those whose marker stands behind a scalar with the
/// repository of a pin.
fn policies(pins: &[Checked<'_>], trees: &[Tree<'_>], sites: &[Vec<Site>]) -> BTreeMap<String, usize> {
    let mut known = BTreeMap::new();
    for (index, pin) in pins.iter().enumerate() {
        for policy in &pin.pin.policies {
            known.entry(policy.clone()).or_insert(index);
        }
    }
    for (tree, sites) in trees.iter().zip(sites) {
        for site in sites {
            let Some(Marker { policy, form: Form::Whole | Form::Name }) = &site.marker else { continue };
            if let Some(index) = tree.scalar(site.node).and_then(|value| by_repository(value, pins)) {
                known.entry(policy.clone()).or_insert(index);
            }
        }
    }
    known
}

/// A scalar's new value.
struct Edit {
    node: NodeId,
    value: String,
    /// As it is written, with quotes if it has any.
    written: String,
    style: ScalarStyle,
}

impl Edit {
    fn new(tree: &Tree<'_>, node: NodeId, pin: &Checked<'_>, form: Form) -> Result<Self, GitopsError> {
        let value = part(&pin.reference, form).ok_or_else(|| GitopsError::MissingPart {
            place: tree.place(node),
            part: if form == Form::Tag { "tag" } else { "digest" },
            reference: pin.pin.reference.clone(),
        })?;
        let not_plain = || GitopsError::NotPlain { place: tree.place(node), image: pin.pin.name.to_string() };
        let Kind::Scalar { value: old, style, .. } = &tree.nodes[node].kind else { return Err(not_plain()) };
        let raw = &tree.text[tree.nodes[node].at.clone()];
        let quoted = |quote: char| raw.len() >= 2 && raw.starts_with(quote) && raw.ends_with(quote);
        let (written, style) = match style {
            ScalarStyle::Plain if raw == old && plain(&value) => (value.clone(), *style),
            ScalarStyle::Plain if raw == old => (format!("\"{value}\""), ScalarStyle::DoubleQuoted),
            ScalarStyle::SingleQuoted if quoted('\'') && !raw.contains('\n') => (format!("'{value}'"), *style),
            ScalarStyle::DoubleQuoted if quoted('"') && !raw.contains('\n') => (format!("\"{value}\""), *style),
            _ => return Err(not_plain()),
        };
        Ok(Self { node, value, written, style })
    }
}

/// The part of a reference that a marker of this form stands for.
fn part(reference: &ImageRef, form: Form) -> Option<String> {
    match form {
        Form::Whole => Some(reference.to_string()),
        Form::Name => Some(ImageRef { tag: None, digest: None, ..reference.clone() }.to_string()),
        Form::Tag => reference.tag.as_ref().map(ToString::to_string),
        Form::Digest => reference.digest.as_ref().map(ToString::to_string),
    }
}

/// Whether a reference, tag or digest stays the same text without quotes: `1.0` would become a number.
fn plain(value: &str) -> bool {
    value.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !value.contains(['[', ']'])
        && meaning(value) == Meaning::Text
}

/// The text with the edits in it; nothing if they change nothing.
fn splice(tree: &Tree<'_>, mut edits: Vec<Edit>) -> Result<Option<String>, GitopsError> {
    edits.retain(|edit| tree.scalar(edit.node) != Some(&edit.value));
    if edits.is_empty() {
        return Ok(None);
    }
    edits.sort_by_key(|edit| tree.nodes[edit.node].at.start);
    let mut text = String::with_capacity(tree.text.len() + edits.len() * 128);
    let mut done = 0;
    for edit in &edits {
        let at = &tree.nodes[edit.node].at;
        text.push_str(&tree.text[done..at.start]);
        text.push_str(&edit.written);
        done = at.end;
    }
    text.push_str(&tree.text[done..]);
    if reads_back(tree, &edits, &text) {
        Ok(Some(text))
    } else {
        Err(GitopsError::Damaged { file: tree.file.to_owned() })
    }
}

/// Whether `text` has the events of `tree`, except for the values of the edited scalars.
fn reads_back(tree: &Tree<'_>, edits: &[Edit], text: &str) -> bool {
    let Ok(new) = Tree::parse(tree.file, text) else { return false };
    let edited: BTreeMap<usize, &Edit> = edits.iter().map(|edit| (tree.nodes[edit.node].event, edit)).collect();
    new.events.len() == tree.events.len()
        && new.events.iter().zip(&tree.events).enumerate().all(|(index, (new, old))| match edited.get(&index) {
            Some(edit) => {
                matches!((new, old), (Event::Scalar(value, style, anchor, tag), Event::Scalar(_, _, old_anchor, old_tag))
                    if *value == edit.value && *style == edit.style && anchor == old_anchor && tag == old_tag)
            }
            None => new == old,
        })
}

/// The error for an image that occurs nowhere, with what does occur.
fn nowhere(files: &BTreeMap<String, String>, pin: &ImagePin) -> GitopsError {
    let mut seen = Vec::new();
    let yaml = files.iter().filter(|(file, _)| is_yaml(file));
    for (file, text) in yaml.clone() {
        let Ok(tree) = Tree::parse(file, text) else { continue };
        for site in sites(&tree) {
            let value = tree.scalar(site.node).unwrap_or_default();
            let Place { file, line, .. } = tree.place(site.node);
            seen.push(format!("{} ({file}:{line})", value.chars().take(100).collect::<String>()));
        }
    }
    GitopsError::Nowhere {
        service: pin.service.clone(),
        image: pin.name.to_string(),
        files: yaml.map(|(file, _)| file.clone()).collect(),
        seen,
    }
}

#[cfg(test)]
mod tests;
