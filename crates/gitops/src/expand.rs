//! References to environment variables in manifests.

/// Replaces `$(NAME)` by what `lookup` has for it, as Kubernetes does in `command`, `args` and `env`: a name that is not
/// known stays as it is written, and `$$(NAME)` is a literal `$(NAME)`.
pub fn expand_references(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inside| inside.split_once(')')) {
            match lookup(name) {
                Some(value) => result.push_str(&value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::expand_references;

    #[test]
    fn as_kubernetes_expands() {
        let lookup = |name: &str| (name == "PORT").then(|| "8080".to_owned());
        for (text, expected) in [
            ("--port=$(PORT)", "--port=8080"),
            ("$(PORT)$(PORT)", "80808080"),
            ("$(NOPE) $PORT ${PORT}", "$(NOPE) $PORT ${PORT}"),
            ("$$(PORT) $$", "$(PORT) $"),
            ("$(PORT", "$(PORT"),
            ("ends in $", "ends in $"),
        ] {
            assert_eq!(expand_references(text, lookup), expected, "{text}");
        }
    }
}
