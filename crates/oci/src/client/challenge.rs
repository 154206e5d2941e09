//! `WWW-Authenticate`, by RFC 9110 section 11 and the registries' token specification.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The longest header line that is read, in bytes.
const MAX_LENGTH: usize = 8 << 10;

/// How a registry wants to know who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With a user and a password.
    Basic,
    /// With a token from elsewhere.
    Bearer {
        /// Where tokens are given.
        realm: String,
        /// Whom the token is for.
        service: Option<String>,
        /// What the token must be good for.
        scope: Option<String>,
        /// What was wrong with the token that was sent.
        error: Option<String>,
    },
}

impl Challenge {
    /// The best challenge of an answer: Bearer before Basic, others are passed over.
    pub(super) fn choose(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter().take(8).filter_map(|value| value.to_str().ok());
        let all: Vec<Self> = lines.flat_map(Self::parse).collect();
        all.iter().find(|challenge| matches!(challenge, Self::Bearer { .. })).or_else(|| all.first()).cloned()
    }

    /// The challenges of one header line that are understood.
    fn parse(line: &str) -> Vec<Self> {
        let mut found = Vec::new();
        if line.len() > MAX_LENGTH {
            return found;
        }
        let mut rest = line;
        while let Some((scheme, parameters, after)) = next(rest) {
            let get = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("basic") {
                found.push(Self::Basic);
            } else if let (true, Some(realm)) = (scheme.eq_ignore_ascii_case("bearer"), get("realm")) {
                found.push(Self::Bearer { realm, service: get("service"), scope: get("scope"), error: get("error") });
            }
            rest = after;
        }
        found
    }
}

type Parameters = Vec<(String, String)>;

/// The next scheme with its parameters, and what follows them.
fn next(text: &str) -> Option<(&str, Parameters, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let (scheme, mut rest) = token(text)?;
    let mut parameters = Vec::new();
    loop {
        let ahead = rest.trim_start_matches([' ', '\t', ',']);
        let Some((key, value)) = token(ahead) else { break };
        // A word without `=` is the next scheme.
        let Some(value) = value.trim_start_matches([' ', '\t']).strip_prefix('=') else { break };
        let (value, after) = value_of(value.trim_start_matches([' ', '\t']));
        parameters.push((key.to_owned(), value));
        rest = after;
    }
    Some((scheme, parameters, rest))
}

fn token(text: &str) -> Option<(&str, &str)> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&b);
    let end = text.bytes().position(|b| !legal(b)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A word or a quoted text, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>, error: Option<&str>) -> Challenge {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: text(service), scope: text(scope), error: text(error) }
    }

    #[test]
    fn what_registries_send() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull,push""#;
        let wanted = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:library/x:pull,push"),
            None,
        );
        assert_eq!(Challenge::parse(docker), [wanted]);
        assert_eq!(Challenge::parse(r#"Basic realm="Registry Realm""#), [Challenge::Basic]);
        let both = r#"Basic realm="a, b=\"c\"", bearer realm=https://r/t , error="invalid_token""#;
        assert_eq!(
            Challenge::parse(both),
            [Challenge::Basic, bearer("https://r/t", None, None, Some("invalid_token"))]
        );
        assert_eq!(Challenge::parse("Negotiate, Digest a=b"), []);
        assert_eq!(Challenge::parse(r#"Bearer service="x""#), []);
        assert_eq!(Challenge::parse(&format!("Basic x={}", "y".repeat(MAX_LENGTH))), []);
    }

    #[test]
    fn bearer_goes_first() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=\"https://r\"".parse().unwrap());
        assert_eq!(Challenge::choose(&headers), Some(bearer("https://r", None, None, None)));
    }

    proptest! {
        #[test]
        fn never_panics(line in "\\PC{0,200}") {
            let _ = Challenge::parse(&line);
        }

        #[test]
        fn never_panics_on_its_own_letters(line in "[A-Za-z=,\"\\\\ ]{0,60}") {
            let _ = Challenge::parse(&line);
        }
    }
}
