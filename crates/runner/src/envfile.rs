//! The text of the files behind `GITHUB_ENV`, `GITHUB_OUTPUT` and `GITHUB_STATE`.

/// Why such a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvFileError {
    /// A line is neither `NAME=value` nor `NAME<<DELIMITER`.
    #[error("line {line}: {text:?} is neither NAME=value nor NAME<<DELIMITER")]
    Format {
        /// The line, from 1.
        line: usize,
        /// Its first characters.
        text: String,
    },
    /// The name before `=` or `<<`, or the delimiter, is empty.
    #[error("line {line}: a name and, after <<, a delimiter must not be empty")]
    Empty {
        /// The line, from 1.
        line: usize,
    },
    /// The text ends before the delimiter.
    #[error("line {line}: the delimiter {delimiter:?} of {name} does not come again")]
    Unclosed {
        /// The line on which the value begins, from 1.
        line: usize,
        /// The name.
        name: String,
        /// What should have ended the value.
        delimiter: String,
    },
}

/// Reads the names and values in `text`, in order, by the rules of GitHub's runner.
///
/// # Errors
/// At the first line that follows none of the two forms; nothing of the file counts then.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, EnvFileError> {
    let mut lines = text.split_inclusive('\n').enumerate();
    let mut pairs = Vec::new();
    while let Some((index, raw)) = lines.next() {
        let (line, text) = (index + 1, chomp(raw));
        if text.is_empty() {
            continue;
        }
        let (equals, heredoc) = (text.find('='), text.find("<<"));
        let heredoc_first = heredoc.is_some_and(|here| equals.is_none_or(|equals| here < equals));
        if heredoc_first {
            let (name, delimiter) = text.split_once("<<").unwrap_or_default();
            if name.is_empty() || delimiter.is_empty() {
                return Err(EnvFileError::Empty { line });
            }
            let value = heredoc_value(&mut lines, delimiter).ok_or_else(|| EnvFileError::Unclosed {
                line,
                name: clip(name),
                delimiter: clip(delimiter),
            })?;
            pairs.push((name.to_owned(), value));
        } else if let Some((name, value)) = text.split_once('=') {
            if name.is_empty() {
                return Err(EnvFileError::Empty { line });
            }
            pairs.push((name.to_owned(), value.to_owned()));
        } else {
            return Err(EnvFileError::Format { line, text: clip(text) });
        }
    }
    Ok(pairs)
}

fn heredoc_value<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>, delimiter: &str) -> Option<String> {
    let mut value = String::new();
    for (_, raw) in lines {
        if chomp(raw) == delimiter {
            let end = chomp(&value).len();
            value.truncate(end);
            return Some(value);
        }
        value.push_str(raw);
    }
    None
}

fn chomp(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

fn clip(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    #[test]
    fn both_forms() {
        let text = "A=1\n\nB<<END\none\n\ntwo=<<\nEND\r\nC=x=<<y\nD<<E\nE\nlast=z";
        let expected = [("A", "1"), ("B", "one\n\ntwo=<<"), ("C", "x=<<y"), ("D", ""), ("last", "z")];
        assert_eq!(pairs(text), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(parse("A=1\nnonsense"), Err(EnvFileError::Format { line: 2, text: "nonsense".to_owned() }));
        assert_eq!(parse("=1"), Err(EnvFileError::Empty { line: 1 }));
        assert_eq!(parse("A<<"), Err(EnvFileError::Empty { line: 1 }));
        assert!(matches!(parse("A<<E\nx\n"), Err(EnvFileError::Unclosed { line: 1, .. })));
    }

    proptest! {
        #[test]
        fn a_value_comes_back(value in "[^\r]*") {
            prop_assume!(!value.lines().any(|line| line == "EOT-9"));
            let text = format!("NAME<<EOT-9\n{value}\nEOT-9\n");
            prop_assert_eq!(pairs(&text), vec![("NAME".to_owned(), value)]);
        }

        #[test]
        fn never_panics(text in "(?s).*", lines in "[A=<\n\r]*") {
            let _ = (parse(&text), parse(&lines));
        }
    }
}
