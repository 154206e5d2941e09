//! Flags in front of an instruction's operands. None is ever ignored.

use super::text::{DockerfileError, Source, Text};
use super::words::first_raw_word;

/// `--name[=value]`.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    pub name: Text,
    pub value: Option<Text>,
    pub whole: Text,
}

/// The flags of one instruction, taken one by one; what is left over at the end is unknown.
pub(super) struct Flags<'a> {
    source: &'a Source,
    keyword: &'a str,
    known: &'static [&'static str],
    found: Vec<Flag>,
}

/// Splits the flags off `rest` and refuses those that are not in `known`.
pub(super) fn flags<'a>(
    source: &'a Source,
    keyword: &'a str,
    rest: &Text,
    escape: char,
    known: &'static [&'static str],
) -> Result<(Flags<'a>, Text), DockerfileError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((word, end)) = first_raw_word(rest, at, escape) {
        let bare = unquoted(&word, escape);
        let Some(body) = bare.as_str().strip_prefix("--") else { break };
        at = end;
        if body.is_empty() {
            break;
        }
        let equals = bare.as_str().find('=').unwrap_or(bare.as_str().len());
        let name = bare.slice(2..equals);
        let value = (equals < bare.as_str().len()).then(|| bare.slice(equals + 1..bare.as_str().len()));
        let flag = Flag { name, value, whole: word };
        if !known.contains(&flag.name.as_str()) {
            return Err(unknown(source, keyword, &flag, known));
        }
        found.push(flag);
    }
    let rest = rest.slice(at..rest.as_str().len()).trim();
    Ok((Flags { source, keyword, known, found }, rest))
}

fn unknown(source: &Source, keyword: &str, flag: &Flag, known: &[&str]) -> DockerfileError {
    let error = source.error(flag.whole.span(), format!("{keyword} has no flag --{}", flag.name.as_str()));
    if known.is_empty() {
        return error.hint(format!("{keyword} takes no flags"));
    }
    let list = known.iter().map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ");
    error.hint(format!("{keyword} takes {list}"))
}

impl Flags<'_> {
    /// The value of a flag that may be given once.
    pub fn one(&mut self, name: &str) -> Result<Option<Text>, DockerfileError> {
        let mut values = self.many(name)?;
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => {
                let message = format!("{} --{name} is given {} times", self.keyword, values.len());
                Err(self.source.error(values[1].span(), message))
            }
        }
    }

    /// The values of a flag that may be given often.
    pub fn many(&mut self, name: &str) -> Result<Vec<Text>, DockerfileError> {
        self.take(name).into_iter().map(|flag| self.value(flag)).collect()
    }

    /// A flag that is `--name`, `--name=true` or `--name=false`.
    pub fn switch(&mut self, name: &str) -> Result<Option<bool>, DockerfileError> {
        let mut last = None;
        for flag in self.take(name) {
            last = Some(match flag.value.as_ref().map(Text::as_str) {
                None | Some("true" | "1") => true,
                Some("false" | "0") => false,
                Some(other) => {
                    let message = format!("--{name}={other} is neither true nor false");
                    return Err(self.source.error(flag.whole.span(), message));
                }
            });
        }
        Ok(last)
    }

    fn take(&mut self, name: &str) -> Vec<Flag> {
        debug_assert!(self.known.contains(&name), "a flag that is read must be known");
        self.found.extract_if(.., |flag| flag.name.as_str() == name).collect()
    }

    fn value(&self, flag: Flag) -> Result<Text, DockerfileError> {
        match flag.value {
            Some(value) if !value.is_empty() => Ok(value),
            _ => {
                let message = format!("{} --{} needs a value", self.keyword, flag.name.as_str());
                Err(self.source.error(flag.whole.span(), message))
            }
        }
    }
}

/// The word without its quotes.
pub(super) fn unquoted(word: &Text, escape: char) -> Text {
    let mut text = word.slice(0..0);
    let mut quote = None;
    let mut escaped = false;
    for (index, c) in word.as_str().char_indices() {
        let keep = match quote {
            _ if escaped => {
                escaped = false;
                true
            }
            Some(open) if c == open => {
                quote = None;
                false
            }
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                false
            }
            _ if c == escape && quote != Some('\'') => {
                escaped = true;
                false
            }
            _ => true,
        };
        if keep {
            text.push(&word.as_str()[index..index + c.len_utf8()], word.span_at(index).start as usize);
        }
    }
    text
}
