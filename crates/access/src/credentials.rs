//! What a client sends to say who it is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{AccessError, Secret};

/// The longest header that is looked at, in bytes.
const LONGEST: usize = 16 * 1024;

/// What a client sent. Secrets do not print.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nothing.
    None,
    /// A user name and, as its password, a token: what git and container clients can send.
    Basic {
        /// The user name.
        user: String,
        /// The token.
        password: Secret,
    },
    /// A token alone.
    Bearer(Secret),
}

impl Credentials {
    /// Reads the value of an `Authorization` header: `Basic`, `Bearer`, or `token` as Gitea's clients send it.
    ///
    /// # Errors
    /// [`AccessError::BadHeader`] when it is something else. Never taken for no credentials.
    pub fn from_header(header: Option<&str>) -> Result<Self, AccessError> {
        let Some(header) = header else { return Ok(Self::None) };
        if header.len() > LONGEST {
            return Err(AccessError::BadHeader("too long"));
        }
        let (scheme, value) =
            header.trim().split_once(' ').ok_or(AccessError::BadHeader("not a scheme and a value"))?;
        let value = value.trim();
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Self::from_basic(value),
            "bearer" | "token" if !value.is_empty() => Ok(Self::Bearer(value.into())),
            _ => Err(AccessError::BadHeader("neither Basic nor Bearer")),
        }
    }

    fn from_basic(value: &str) -> Result<Self, AccessError> {
        let bad = || AccessError::BadHeader("not user:password in base64");
        let text = String::from_utf8(STANDARD.decode(value).map_err(|_| bad())?).map_err(|_| bad())?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        Ok(Self::Basic { user: user.to_owned(), password: password.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_clients_send() {
        assert!(matches!(Credentials::from_header(None).unwrap(), Credentials::None));
        let basic = Credentials::from_header(Some("Basic YWxpY2U6dHdwX2E6Yg==")).unwrap();
        assert!(
            matches!(&basic, Credentials::Basic { user, password } if user == "alice" && password.expose() == "twp_a:b")
        );
        assert!(!format!("{basic:?}").contains("twp_"));
        for header in ["Bearer twp_x", "bearer  twp_x ", "token twp_x"] {
            let bearer = Credentials::from_header(Some(header)).unwrap();
            assert!(matches!(&bearer, Credentials::Bearer(secret) if secret.expose() == "twp_x"), "{header}");
        }
    }

    #[test]
    fn what_it_cannot_read_is_not_anonymous() {
        for header in ["", "Basic", "Basic !!!", "Basic YWxpY2U=", "Digest x", "Bearer ", "Basic /////w=="] {
            assert!(matches!(Credentials::from_header(Some(header)), Err(AccessError::BadHeader(_))), "{header:?}");
        }
        let long = format!("Bearer {}", "x".repeat(LONGEST));
        assert!(Credentials::from_header(Some(&long)).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(header in ".*") {
            let _ = Credentials::from_header(Some(&header));
        }
    }
}
