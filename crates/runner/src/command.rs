//! Workflow commands: what a step says to the runner on its output (`::error file=a.rs,line=3::message`).

/// A workflow command as it was written, with its escapes undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name in lower case.
    pub name: String,
    /// Its properties in order.
    pub properties: Vec<(String, String)>,
    /// What follows the second `::`.
    pub value: String,
}

impl Command {
    /// Reads `line`, in the form `::name key=value,…::value` or the older `##[name key=value;…]value`. Nothing if it
    /// is an ordinary line.
    pub fn parse(line: &str) -> Option<Self> {
        let trimmed = line.trim_start();
        if let Some(rest) = trimmed.strip_prefix("::") {
            let (head, value) = rest.split_once("::")?;
            return Self::build(head, value, ',', unescape_property, unescape_value);
        }
        let (head, value) = trimmed.strip_prefix("##[")?.split_once(']')?;
        Self::build(head, value, ';', unescape_old, unescape_old)
    }

    fn build(
        head: &str,
        value: &str,
        separator: char,
        property: fn(&str) -> String,
        unescape: fn(&str) -> String,
    ) -> Option<Self> {
        let (name, rest) = head.split_once(' ').unwrap_or((head, ""));
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || !name.bytes().all(word) {
            return None;
        }
        let properties = rest
            .split(separator)
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), property(value)))
            .collect();
        Some(Self { name: name.to_ascii_lowercase(), properties, value: unescape(value) })
    }

    /// The property `key`, if it is there and not empty.
    pub fn property(&self, key: &str) -> Option<&str> {
        let found = self.properties.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }
}

fn unescape_value(text: &str) -> String {
    text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
}

fn unescape_property(text: &str) -> String {
    text.replace("%0D", "\r").replace("%0A", "\n").replace("%3A", ":").replace("%2C", ",").replace("%25", "%")
}

fn unescape_old(text: &str) -> String {
    text.replace("%3B", ";").replace("%0D", "\r").replace("%0A", "\n").replace("%5D", "]").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_both_forms() {
        let command = Command::parse("  ::error file=src/a%2Cb.rs,line=3,title=A%3A b::went%0Awrong %250A").unwrap();
        assert_eq!(command.name, "error");
        assert_eq!(command.property("file"), Some("src/a,b.rs"));
        assert_eq!(command.property("TITLE"), Some("A: b"));
        assert_eq!(command.property("col"), None);
        assert_eq!(command.value, "went\nwrong %0A");
        let old = Command::parse("##[set-output name=x]a%3Bb").unwrap();
        assert_eq!((old.name.as_str(), old.property("name"), old.value.as_str()), ("set-output", Some("x"), "a;b"));
    }

    #[test]
    fn an_ordinary_line_is_none() {
        for line in ["", "::", "::error", ":: x::y", "a ::error::x", "std::vec::Vec", "::a/b::c", "##[x"] {
            assert_eq!(Command::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(line in ".*", tail in "[:#\\[\\]a-z,=;%0-9A-F ]*") {
            let _ = (Command::parse(&line), Command::parse(&format!("::{tail}")), Command::parse(&format!("##[{tail}")));
        }
    }
}
