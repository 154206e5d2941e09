//! Flux's markers: `# {"$imagepolicy": "namespace:policy[:name|:tag|:digest]"}` behind a scalar.

/// Which part of the reference a marked scalar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The whole reference.
    Whole,
    /// Registry and repository.
    Name,
    /// The tag alone.
    Tag,
    /// The digest alone.
    Digest,
}

/// A marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// `namespace:policy`.
    pub policy: String,
    pub form: Form,
}

/// The marker in what follows a scalar on its line. What is not exactly a marker is none, as with Flux.
pub(crate) fn read(rest_of_line: &str) -> Option<Marker> {
    let (gap, comment) = rest_of_line.split_once('#')?;
    if gap.is_empty() || !gap.bytes().all(|b| b == b' ' || b == b'\t') {
        return None;
    }
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(comment.trim()).ok()?;
    let text = fields.get("$imagepolicy")?.as_str()?;
    let mut parts = text.split(':');
    let (namespace, policy) = (parts.next()?, parts.next()?);
    let form = match (parts.next(), parts.next()) {
        (None, _) => Form::Whole,
        (Some("name"), None) => Form::Name,
        (Some("tag"), None) => Form::Tag,
        (Some("digest"), None) => Form::Digest,
        _ => return None,
    };
    (!namespace.is_empty() && !policy.is_empty()).then(|| Marker { policy: format!("{namespace}:{policy}"), form })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers() {
        let read_form = |text| read(text).map(|marker| (marker.policy, marker.form));
        assert_eq!(read_form(r#" # {"$imagepolicy": "ns:site"}"#), Some(("ns:site".into(), Form::Whole)));
        assert_eq!(read_form("\t#{\"$imagepolicy\":\"ns:site:tag\"}\r"), Some(("ns:site".into(), Form::Tag)));
        for not in [
            "",
            "# {\"$imagepolicy\": \"ns:site\"}",
            " # note",
            r#" # {"$imagepolicy": "site"}"#,
            r#" # {"$imagepolicy": "ns:site:size"}"#,
            r#" # {"$imagepolicy": "ns:site:tag:x"}"#,
            r#" x # {"$imagepolicy": "ns:site"}"#,
            r#" # {"$imagepolicy": 1}"#,
        ] {
            assert_eq!(read(not), None, "{not}");
        }
    }
}
