//! Parser directives: `# syntax=`, `# escape=`, `# check=` above everything else.

use super::text::{DockerfileError, Source, Span};

/// What the directives say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directives {
    /// The escape and continuation character.
    pub escape: char,
}

/// Reads the directives at the top of `source`.
pub(super) fn directives(source: &Source) -> Result<Directives, DockerfileError> {
    let mut found = Directives { escape: '\\' };
    let mut seen = Vec::new();
    let mut offset = 0;
    for line in source.text().split_inclusive('\n') {
        let Some((name, value, at)) = directive(line) else { break };
        let place = Span { start: clamp(offset + at), end: clamp(offset + at + value.len()) };
        if seen.contains(&name) {
            return Err(source.error(place, format!("the directive {name} is given twice")));
        }
        match name.as_str() {
            "escape" => match value {
                "\\" => {}
                "`" => found.escape = '`',
                _ => return Err(source.error(place, format!("escape {value:?} is not possible: \\ or `"))),
            },
            "syntax" => syntax(source, value, place)?,
            // Chooses lint rules; there are no findings here that it could switch off or turn into errors.
            "check" => {}
            _ => break,
        }
        seen.push(name);
        offset += line.len();
    }
    Ok(found)
}

/// The name, value and value's offset of a line that has the form of a directive.
fn directive(line: &str) -> Option<(String, &str, usize)> {
    let rest = line.trim_start().strip_prefix('#')?;
    let (name, value) = rest.split_once('=')?;
    let name = name.trim();
    let word =
        name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    let value_at = line.len() - value.trim_start().len();
    word.then(|| (name.to_ascii_lowercase(), value.trim(), value_at))
}

/// Only the Dockerfile language itself is read, in any of its 1.x versions; no other front end is fetched and run.
fn syntax(source: &Source, value: &str, place: Span) -> Result<(), DockerfileError> {
    let name = value.strip_prefix("docker.io/").unwrap_or(value);
    let tag = match name.split_once('@').map_or(name, |(name, _)| name).split_once(':') {
        Some(("docker/dockerfile" | "docker/dockerfile-upstream", tag)) => tag,
        None if matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream") => "1",
        _ => "",
    };
    if tag == "1" || tag == "latest" || tag.starts_with("1.") || tag.starts_with("1-") {
        return Ok(());
    }
    Err(source
        .error(place, format!("the Dockerfile language {value:?} is not known"))
        .hint("only docker/dockerfile:1 and its 1.x versions are read; the reader is built in and nothing is fetched"))
}

fn clamp(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}
