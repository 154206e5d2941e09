//! What may be done with images without credentials.

use serde::{Deserialize, Serialize};

/// Something that may be done with every image without credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Pull, and list what there is.
    Pull,
    /// Push and delete. Nobody is asked who they are then.
    Push,
}

pub(super) fn check(allowed: &[Anonymous]) -> Result<(), String> {
    if allowed.contains(&Anonymous::Push) && !allowed.contains(&Anonymous::Pull) {
        return Err("spec.registry.anonymous: who may push may pull: write [pull, push]".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::parse_server;

    #[test]
    fn is_pull_or_both() {
        let parse = |list: &str| {
            let spec = format!("spec: {{registry: {{anonymous: {list}}}}}");
            parse_server("towpath.yaml", &format!("apiVersion: towpath.dev/v1alpha1\nkind: Towpath\n{spec}\n"))
        };
        for good in ["[]", "[pull]", "[pull, push]"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        assert!(parse("[push]").unwrap_err().message.contains("[pull, push]"));
        assert!(parse("[delete]").is_err());
    }
}
