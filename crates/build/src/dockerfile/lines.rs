//! Logical lines: comments taken out, continued lines joined, here-documents attached.

use super::directives::Directives;
use super::instruction::Heredoc;
use super::text::{DockerfileError, Source, Text};
use super::words::raw_words;

/// One instruction as written.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The first word.
    pub keyword: Text,
    /// What follows it.
    pub rest: Text,
    /// The here-documents that it opens, in order.
    pub heredocs: Vec<Heredoc>,
}

/// A physical line without its line feed, and where it begins.
type Physical<'a> = (usize, &'a str);

/// Splits `source` into its instructions.
pub(super) fn lines(source: &Source, directives: Directives) -> Result<Vec<Line>, DockerfileError> {
    let mut offset = 0;
    let mut physical: Vec<Physical<'_>> = Vec::new();
    for line in source.text().split_inclusive('\n') {
        let bare = line.strip_suffix('\n').unwrap_or(line);
        let bare = bare.strip_suffix('\r').unwrap_or(bare);
        // A byte order mark belongs to no instruction.
        let mark = if offset == 0 && bare.starts_with('\u{feff}') { 3 } else { 0 };
        physical.push((offset + mark, &bare[mark..]));
        offset += line.len();
    }
    let mut found = Vec::new();
    let mut next = 0;
    while next < physical.len() {
        let Some(logical) = logical(&physical, &mut next, directives.escape) else { continue };
        let (keyword, rest) = keyword(&logical);
        let heredocs = match keyword.as_str().to_ascii_uppercase().as_str() {
            "RUN" | "COPY" | "ADD" => heredocs(source, &rest, &physical, &mut next, directives.escape)?,
            "ONBUILD" => {
                if let Some((word, _)) = opened(&rest, directives.escape).first() {
                    return Err(source.error(word.span(), "ONBUILD cannot hold a here-document"));
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        found.push(Line { keyword, rest, heredocs });
    }
    Ok(found)
}

/// Makes a line of a trigger that a base image carries.
pub(super) fn trigger(source: &Source) -> Line {
    let mut text = Text::at(0);
    text.push(source.text(), 0);
    let (keyword, rest) = keyword(&text.trim());
    Line { keyword, rest, heredocs: Vec::new() }
}

/// Joins a line with those that continue it. Nothing if it is blank or a comment.
fn logical(physical: &[Physical<'_>], next: &mut usize, escape: char) -> Option<Text> {
    let (offset, line) = physical[*next];
    *next += 1;
    let start = line.len() - line.trim_start().len();
    if line[start..].is_empty() || line[start..].starts_with('#') {
        return None;
    }
    let mut text = Text::at(offset + start);
    let (part, mut continued) = continuation(&line[start..], escape);
    text.push(part, offset + start);
    while continued && *next < physical.len() {
        let (offset, line) = physical[*next];
        *next += 1;
        let bare = line.trim_start();
        // Blank lines and comments inside a continued instruction are skipped.
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let (part, more) = continuation(line, escape);
        text.push(part, offset);
        continued = more;
    }
    let text = text.trim();
    (!text.is_empty()).then_some(text)
}

/// The line without its continuation character, and whether it had one: an escape at the end, not itself escaped.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(part) if !part.ends_with(escape) => (part, true),
        _ => (line, false),
    }
}

fn keyword(line: &Text) -> (Text, Text) {
    let end = line.as_str().find(char::is_whitespace).unwrap_or(line.as_str().len());
    (line.slice(0..end), line.slice(end..line.as_str().len()).trim())
}

/// The words of `rest` that open a here-document, with its description.
fn opened(rest: &Text, escape: char) -> Vec<(Text, Heredoc)> {
    let bare = rest.as_str();
    if !bare.contains("<<") || bare.starts_with('[') && serde_json::from_str::<Vec<String>>(bare).is_ok() {
        return Vec::new();
    }
    let words = raw_words(rest, escape);
    words.into_iter().filter_map(|word| Heredoc::opened_by(word.as_str(), escape).map(|found| (word, found))).collect()
}

fn heredocs(
    source: &Source,
    rest: &Text,
    physical: &[Physical<'_>],
    next: &mut usize,
    escape: char,
) -> Result<Vec<Heredoc>, DockerfileError> {
    let mut found = Vec::new();
    for (word, mut document) in opened(rest, escape) {
        loop {
            let Some((_, line)) = physical.get(*next) else {
                let message = format!("the here-document {0} is never closed: no line is {0:?}", document.name);
                return Err(source
                    .error(word.span(), message)
                    .hint(format!("end it with a line that holds {} and nothing else", document.name)));
            };
            *next += 1;
            let bare = if document.strip_tabs { line.trim_start_matches('\t') } else { line };
            if bare == document.name {
                break;
            }
            document.content.push_str(line);
            document.content.push('\n');
        }
        found.push(document);
    }
    Ok(found)
}
