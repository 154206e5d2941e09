//! References to secrets. A configuration never holds a secret, only where it is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use zeroize::Zeroizing;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`: an environment variable of the server.
    Env(String),
    /// `file:/path`: a file; one trailing newline is taken off.
    File(PathBuf),
}

/// Why a reference is not valid or leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The scheme is not one that is read today.
    #[error("secret reference {0:?} is not valid: expected env:NAME or file:/path")]
    NotAReference(String),
    /// The variable is not set or not text.
    #[error("secret env:{0}: the environment variable is not set")]
    NoVariable(String),
    /// The file cannot be read.
    #[error("secret file:{}: {error}", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl SecretRef {
    /// Reads the secret.
    ///
    /// # Errors
    /// When the reference leads nowhere.
    pub fn resolve(&self) -> Result<Zeroizing<String>, SecretError> {
        match self {
            Self::Env(name) => {
                std::env::var(name).map(Zeroizing::new).map_err(|_| SecretError::NoVariable(name.clone()))
            }
            Self::File(path) => {
                let mut text =
                    std::fs::read_to_string(path).map_err(|error| SecretError::NoFile { path: path.clone(), error })?;
                if text.ends_with('\n') {
                    text.pop();
                }
                Ok(Zeroizing::new(text))
            }
        }
    }
}

impl FromStr for SecretRef {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.into())),
            // The text may be a secret that somebody put where its reference belongs: only its scheme is shown.
            Some((scheme, _)) => Err(SecretError::NotAReference(format!("{scheme}:…"))),
            None => Err(SecretError::NotAReference("…".to_owned())),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl serde::Serialize for SecretRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SecretRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_never_shows_what_may_be_a_secret() {
        let error = "hunter2".parse::<SecretRef>().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let error = "pass:hunter2".parse::<SecretRef>().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_file_loses_one_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "a\n\n").unwrap();
        let secret: SecretRef = format!("file:{}", path.display()).parse().unwrap();
        assert_eq!(*secret.resolve().unwrap(), "a\n");
    }
}
