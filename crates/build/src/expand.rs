//! Variables in words: quotes, escapes and `$name`, `${name…}` as the Dockerfile language has them. Pure.

mod glob;

use glob::{replace, strip_prefix, strip_suffix};

/// What a word is expanded with.
pub struct Expansion<'a> {
    /// The escape character.
    pub escape: char,
    /// The value of a variable; nothing if it is not set.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Whether quotes are kept: in here-documents they mean nothing.
    pub keep_quotes: bool,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpandError {
    /// The byte of the word at which it went wrong.
    pub index: usize,
    /// What is wrong.
    pub message: String,
}

impl Expansion<'_> {
    /// The word with its variables, quotes and escapes processed.
    ///
    /// # Errors
    /// When a brace or quote is never closed, a modifier is not known, or `?` asks for a variable that is not set.
    pub fn word(&self, word: &str) -> Result<String, ExpandError> {
        let mut reader = Reader { expansion: self, word, at: 0, depth: 0 };
        let text = reader.until(None)?;
        Ok(text)
    }
}

/// How deep `${a:-${b:-…}}` may nest.
const DEEPEST: usize = 32;

struct Reader<'a> {
    expansion: &'a Expansion<'a>,
    word: &'a str,
    at: usize,
    depth: usize,
}

type Expanded = Result<String, ExpandError>;

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.word[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn error(&self, index: usize, message: impl Into<String>) -> ExpandError {
        ExpandError { index, message: message.into() }
    }

    /// Reads up to one of `stops`, or to the end; the stop is not eaten.
    fn until(&mut self, stops: Option<&[char]>) -> Expanded {
        let mut out = String::new();
        let start = self.at;
        while let Some(c) = self.peek() {
            if stops.is_some_and(|stops| stops.contains(&c)) {
                return Ok(out);
            }
            match c {
                '\'' if !self.expansion.keep_quotes => self.single(&mut out)?,
                '"' if !self.expansion.keep_quotes => self.double(&mut out)?,
                '$' => out.push_str(&self.dollar()?),
                _ if c == self.expansion.escape => self.escaped(&mut out),
                _ => {
                    out.push(c);
                    self.next();
                }
            }
        }
        match stops {
            None => Ok(out),
            Some(_) => Err(self.error(start.saturating_sub(1), "a ${ is never closed with }")),
        }
    }

    fn escaped(&mut self, out: &mut String) {
        self.next();
        match self.next() {
            // In a here-document an escape only keeps a variable from being one.
            Some(c) if self.expansion.keep_quotes && c != '$' && c != self.expansion.escape => {
                out.push(self.expansion.escape);
                out.push(c);
            }
            Some(c) => out.push(c),
            None => out.push(self.expansion.escape),
        }
    }

    fn single(&mut self, out: &mut String) -> Result<(), ExpandError> {
        let start = self.at;
        self.next();
        while let Some(c) = self.next() {
            if c == '\'' {
                return Ok(());
            }
            out.push(c);
        }
        Err(self.error(start, "a ' is never closed"))
    }

    fn double(&mut self, out: &mut String) -> Result<(), ExpandError> {
        let start = self.at;
        self.next();
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.next();
                    return Ok(());
                }
                '$' => out.push_str(&self.dollar()?),
                _ if c == self.expansion.escape => {
                    self.next();
                    match self.next() {
                        Some(c) if c == '"' || c == '$' || c == self.expansion.escape => out.push(c),
                        Some(c) => {
                            out.push(self.expansion.escape);
                            out.push(c);
                        }
                        None => break,
                    }
                }
                _ => {
                    out.push(c);
                    self.next();
                }
            }
        }
        Err(self.error(start, "a \" is never closed"))
    }

    fn dollar(&mut self) -> Expanded {
        let start = self.at;
        self.next();
        if self.eat('{') {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(self.error(start, "variables are nested too deep"));
            }
            let value = self.braced(start);
            self.depth -= 1;
            return value;
        }
        match self.name() {
            Some(name) => Ok((self.expansion.lookup)(&name).unwrap_or_default()),
            // A lone dollar is itself.
            None => Ok("$".to_owned()),
        }
    }

    /// A variable's name, or a positional or special one, which is never set.
    fn name(&mut self) -> Option<String> {
        let rest = &self.word[self.at..];
        let first = rest.chars().next()?;
        let end = if first.is_ascii_alphabetic() || first == '_' {
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if first.is_ascii_digit() || matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            1
        } else {
            return None;
        };
        self.at += end;
        Some(rest[..end].to_owned())
    }

    fn braced(&mut self, start: usize) -> Expanded {
        let Some(name) = self.name() else {
            return Err(self.error(start, "there is no variable name after ${"));
        };
        let value = (self.expansion.lookup)(&name);
        let modifier_at = self.at;
        let Some(modifier) = self.next() else {
            return Err(self.error(start, "a ${ is never closed with }"));
        };
        match modifier {
            '}' => Ok(value.unwrap_or_default()),
            ':' => match self.next() {
                Some(kind @ ('-' | '+' | '?')) => {
                    let set = value.filter(|value| !value.is_empty());
                    self.default(kind, &name, set, start)
                }
                _ => Err(self.error(modifier_at, format!("a : in ${{{name}:…}} is followed by -, + or ?"))),
            },
            '-' | '+' | '?' => self.default(modifier, &name, value, start),
            '#' | '%' => {
                let longest = self.eat(modifier);
                let pattern = self.closed()?;
                let value = value.unwrap_or_default();
                Ok(if modifier == '#' {
                    strip_prefix(&value, &pattern, longest)
                } else {
                    strip_suffix(&value, &pattern, longest)
                })
            }
            '/' => {
                let all = self.eat('/');
                let pattern = self.until(Some(&['/', '}']))?;
                let replacement = if self.eat('/') { self.closed()? } else { self.closed().map(|_| String::new())? };
                Ok(replace(&value.unwrap_or_default(), &pattern, &replacement, all))
            }
            other => Err(self
                .error(modifier_at, format!("${{{name}{other}…}} is not a modifier: :- - :+ + :? ? # ## % %% / //"))),
        }
    }

    /// The word up to the closing brace, which is eaten.
    fn closed(&mut self) -> Expanded {
        let word = self.until(Some(&['}']))?;
        self.next();
        Ok(word)
    }

    fn default(&mut self, kind: char, name: &str, value: Option<String>, start: usize) -> Expanded {
        let word = self.closed()?;
        match (kind, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(self.error(start, format!("the variable {name} is not set"))),
            (_, None) => Err(self.error(start, format!("the variable {name} is not set: {word}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "name" => Some("value".to_owned()),
            "empty" => Some(String::new()),
            "path" => Some("a/b/c.tar.gz".to_owned()),
            "star" => Some("*".to_owned()),
            _ => None,
        }
    }

    fn expand(word: &str) -> Expanded {
        Expansion { escape: '\\', lookup: &lookup, keep_quotes: false }.word(word)
    }

    #[test]
    fn as_the_language_has_it() {
        for (word, expected) in [
            ("plain", "plain"),
            ("$name", "value"),
            ("${name}s", "values"),
            ("$names", ""),
            ("a${unset}b", "ab"),
            ("'$name'", "$name"),
            ("\"$name\"", "value"),
            (r"\$name", "$name"),
            (r#""\$name \n""#, r"$name \n"),
            (r"a\ b", "a b"),
            ("100$", "100$"),
            ("$%", "$%"),
            ("${unset:-default}", "default"),
            ("${empty:-default}", "default"),
            ("${empty-default}", ""),
            ("${unset-default}", "default"),
            ("${unset:-${name}}", "value"),
            ("${unset:-'a}b'}", "a}b"),
            ("${name:+yes}", "yes"),
            ("${empty:+yes}", ""),
            ("${empty+yes}", "yes"),
            ("${unset+yes}", ""),
            ("${name:?no}", "value"),
            ("${empty?no}", ""),
            ("${path#*/}", "b/c.tar.gz"),
            ("${path##*/}", "c.tar.gz"),
            ("${path%.*}", "a/b/c.tar"),
            ("${path%%.*}", "a/b/c"),
            ("${path#x}", "a/b/c.tar.gz"),
            ("${path%??}", "a/b/c.tar."),
            ("${path/a/x}", "x/b/c.tar.gz"),
            ("${path//[a]/x}", "a/b/c.tar.gz"),
            ("${path//./_}", "a/b/c_tar_gz"),
            ("${path/.*}", "a/b/c"),
            ("${name/%/x}", "value"),
            ("${name#\"v\"}", "alue"),
        ] {
            assert_eq!(expand(word).as_deref(), Ok(expected), "{word}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (word, index, message) in [
            ("ab${name", 2, "a ${ is never closed with }"),
            ("${name:-x", 7, "a ${ is never closed with }"),
            ("'x", 0, "a ' is never closed"),
            ("x\"y", 1, "a \" is never closed"),
            ("${}", 0, "there is no variable name after ${"),
            ("${name:x}", 6, "a : in ${name:…} is followed by -, + or ?"),
            ("${name^}", 6, "${name^…} is not a modifier: :- - :+ + :? ? # ## % %% / //"),
            ("x${unset:?say so}", 1, "the variable unset is not set: say so"),
            ("${empty:?}", 0, "the variable empty is not set"),
        ] {
            assert_eq!(expand(word), Err(ExpandError { index, message: message.to_owned() }), "{word}");
        }
    }

    #[test]
    fn quotes_mean_nothing_in_a_here_document() {
        let expansion = Expansion { escape: '\\', lookup: &lookup, keep_quotes: true };
        assert_eq!(expansion.word(r#"it's "$name" \$name \n"#).as_deref(), Ok(r#"it's "value" $name \n"#));
    }

    proptest! {
        #[test]
        fn never_panics(word in r#"[a-z${}:?#%/+'"\\* é-]{0,40}"#) {
            let _ = expand(&word);
        }

        #[test]
        fn a_word_without_signs_is_itself(word in "[a-zA-Z0-9/._=:-]*") {
            prop_assert_eq!(expand(&word), Ok(word));
        }
    }
}
