//! Splitting a logical line into words.

use super::text::Text;

/// The words between white space, with no regard to quotes: what COPY, EXPOSE and FROM use.
pub(super) fn plain_words(text: &Text) -> Vec<Text> {
    let mut words = Vec::new();
    let mut start = None;
    for (index, c) in text.as_str().char_indices().chain([(text.as_str().len(), ' ')]) {
        match (c.is_whitespace(), start) {
            (false, None) => start = Some(index),
            (true, Some(from)) => {
                words.push(text.slice(from..index));
                start = None;
            }
            _ => {}
        }
    }
    words
}

/// The words between white space that is not quoted or escaped; quotes and escapes stay in the words.
pub(super) fn raw_words(text: &Text, escape: char) -> Vec<Text> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some((word, end)) = first_raw_word(text, at, escape) {
        words.push(word);
        at = end;
    }
    words
}

/// The first such word at or after `from`, and the index after it.
pub(super) fn first_raw_word(text: &Text, from: usize, escape: char) -> Option<(Text, usize)> {
    let bytes = &text.as_str()[from..];
    let start = from + (bytes.len() - bytes.trim_start().len());
    let mut quote = None;
    let mut chars = text.as_str()[start..].char_indices();
    let mut end = text.as_str().len();
    while let Some((index, c)) = chars.next() {
        match quote {
            // Between single quotes nothing is escaped.
            Some('\'') if c == '\'' => quote = None,
            Some('\'') => {}
            _ if c == escape => {
                chars.next();
            }
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c.is_whitespace() => {
                end = start + index;
                break;
            }
            None => {}
        }
    }
    (start < end).then(|| (text.slice(start..end), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str) -> Text {
        let mut text = Text::at(0);
        text.push(line, 0);
        text
    }

    #[test]
    fn quotes_hold_a_word_together() {
        let words = |line: &str| raw_words(&text(line), '\\').iter().map(|w| w.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(words(r#"a="b c" d"#), [r#"a="b c""#, "d"]);
        assert_eq!(words(r"a=b\ c 'd e\' f"), [r"a=b\ c", r"'d e\'", "f"]);
        assert_eq!(words("  "), Vec::<String>::new());
        assert_eq!(words(r#""open ended"#), [r#""open ended"#]);
        assert_eq!(plain_words(&text(r#"a="b c""#)).len(), 2);
    }
}
