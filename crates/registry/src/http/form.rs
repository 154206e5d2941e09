//! `name=value&…`, as in query strings and forms.

use percent_encoding::percent_decode_str;

/// The most fields that are looked at.
const MAX_FIELDS: usize = 200;

/// The fields of a query or form, in their order.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a text; what is not UTF-8 is replaced, so that it matches nothing.
    pub fn parse(text: &str) -> Self {
        let decoded = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        let fields = text.split('&').filter(|field| !field.is_empty()).take(MAX_FIELDS);
        Self(
            fields
                .map(|field| field.split_once('=').unwrap_or((field, "")))
                .map(|(k, v)| (decoded(k), decoded(v)))
                .collect(),
        )
    }

    /// The first field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All fields of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics_and_stays_small(text in ".*") {
            let form = Form::parse(&text);
            prop_assert!(form.0.len() <= MAX_FIELDS);
            let _ = form.all("scope").count();
        }
    }

    #[test]
    fn repeated_encoded_and_bare() {
        let form = Form::parse("scope=repository%3Aa%2Fb%3Apull&scope=x+y&&bare&service=s");
        assert_eq!(form.all("scope").collect::<Vec<_>>(), ["repository:a/b:pull", "x y"]);
        assert_eq!((form.get("bare"), form.get("service"), form.get("none")), (Some(""), Some("s"), None));
    }
}
