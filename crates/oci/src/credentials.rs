//! Credentials as other tools keep them: `auth.json` and docker's `config.json`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::ImageName;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::RegistryHost;
use crate::client::Auth;

/// The longest file or answer that is read, in bytes.
const MAX_LENGTH: u64 = 1 << 20;

/// Why credentials could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is there and cannot be used. What stands in it is not shown.
    #[error("the credentials in {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A credential helper does not help.
    #[error("docker-credential-{name}: {why}")]
    Helper {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a credential helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// Where credentials may be: `$REGISTRY_AUTH_FILE` alone, or else `$XDG_RUNTIME_DIR/containers/auth.json` and then
/// `config.json` in `$DOCKER_CONFIG` or `~/.docker`.
pub fn files() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(only) = variable("REGISTRY_AUTH_FILE") {
        return vec![only];
    }
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
    let podman = variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    podman.into_iter().chain(docker.map(|dir| dir.join("config.json"))).collect()
}

/// What `files` say for the repository `name` at `host`: the entry for the longest beginning of `host/name`, as podman
/// does. Nobody, if they say nothing.
///
/// # Errors
/// When a file that is there cannot be read, or a credential helper that it names fails.
pub fn find(files: &[PathBuf], host: &RegistryHost, name: Option<&ImageName>) -> Result<Auth, CredentialsError> {
    for path in files {
        let Some(file) = read(path)? else { continue };
        let bad = |why: &str| CredentialsError::File { path: path.clone(), why: why.to_owned() };
        for key in keys(host, name) {
            if let Some(helper) = file.cred_helpers.get(&key) {
                return ask(helper, &key);
            }
            if let Some(entry) = file.auths.get(&key).filter(|entry| !entry.is_empty()) {
                return entry.auth().ok_or_else(|| bad(&format!("the entry of {key} is not user:password in base64")));
            }
            // With a store, entries are empty and only say that it knows more.
            if let (Some(store), true) = (&file.creds_store, file.auths.contains_key(&key)) {
                return ask(store, &key);
            }
        }
    }
    Ok(Auth::Anonymous)
}

impl Entry {
    fn is_empty(&self) -> bool {
        [&self.auth, &self.identitytoken, &self.registrytoken]
            .iter()
            .all(|text| text.as_deref().is_none_or(str::is_empty))
    }

    fn auth(&self) -> Option<Auth> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty()).map(Zeroizing::new);
        if let Some(token) = given(&self.registrytoken) {
            return Some(Auth::Bearer(token));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Some(Auth::Refresh(token));
        }
        let both = Zeroizing::new(STANDARD.decode(given(&self.auth)?.as_bytes()).ok()?);
        let (user, password) = std::str::from_utf8(&both).ok()?.split_once(':')?;
        Some(Auth::Basic { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned().into() })
    }
}

fn read(path: &Path) -> Result<Option<File>, CredentialsError> {
    let bad = |why: String| CredentialsError::File { path: path.to_owned(), why };
    match std::fs::metadata(path) {
        Ok(found) if found.len() > MAX_LENGTH => Err(bad(format!("longer than {MAX_LENGTH} bytes"))),
        Ok(_) => {
            let text = std::fs::read(path).map(Zeroizing::new).map_err(|error| bad(error.to_string()))?;
            // A message of the reader could quote a secret.
            serde_json::from_slice(&text).map(Some).map_err(|error| bad(format!("not JSON, line {}", error.line())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// What an entry may be called, the longest first.
fn keys(host: &RegistryHost, name: Option<&ImageName>) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = name.map_or("", ImageName::as_str);
    while !path.is_empty() {
        keys.push(format!("{host}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    let names = if host.is_docker() { vec!["docker.io", "index.docker.io"] } else { vec![host.as_str()] };
    for name in names {
        keys.extend([
            name.to_owned(),
            format!("https://{name}"),
            format!("https://{name}/v1/"),
            format!("http://{name}"),
        ]);
    }
    keys
}

/// Docker's protocol: the server's name in, JSON out.
fn ask(name: &str, server: &str) -> Result<Auth, CredentialsError> {
    let bad = |why: String| CredentialsError::Helper { name: name.chars().take(60).collect(), why };
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(bad("is no name of a helper".to_owned()));
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| bad(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(server.as_bytes()).map_err(|error| bad(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| bad(error.to_string()))?;
    let text = Zeroizing::new(output.stdout);
    if !output.status.success() {
        // By the protocol it says so in these words, and that is no failure.
        if text.starts_with(b"credentials not found") {
            return Ok(Auth::Anonymous);
        }
        return Err(bad(format!("ended with {}", output.status)));
    }
    let helped: Helped = serde_json::from_slice(&text).map_err(|_| bad("its answer is not JSON".to_owned()))?;
    let secret = Zeroizing::new(helped.secret);
    // The user of an identity token is this word.
    Ok(if helped.username == "<token>" {
        Auth::Refresh(secret)
    } else {
        Auth::Basic { user: helped.username, password: secret }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str) -> Auth {
        Auth::Basic { user: user.to_owned(), password: "secret".to_owned().into() }
    }

    #[test]
    fn the_longest_beginning_wins_and_docker_has_many_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        let entry = |user: &str| format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{user}:secret")));
        let text = format!(
            r#"{{"auths":{{"ghcr.io":{},"ghcr.io/acme":{},"https://index.docker.io/v1/":{},"r.example":{{"identitytoken":"t"}},"e.example":{{}}}}}}"#,
            entry("all"),
            entry("acme"),
            entry("hub")
        );
        std::fs::write(&path, text).unwrap();
        let files = [dir.path().join("none.json"), path.clone()];
        let get = |host: &str, name: &str| find(&files, &host.parse().unwrap(), Some(&name.parse().unwrap())).unwrap();
        assert!(get("ghcr.io", "acme/site") == basic("acme"));
        assert!(get("ghcr.io", "other/site") == basic("all"));
        assert!(get("docker.io", "library/alpine") == basic("hub"));
        assert!(get("r.example", "x") == Auth::Refresh("t".to_owned().into()));
        assert!(get("e.example", "x") == Auth::Anonymous);
        std::fs::write(&path, r#"{"auths":{"ghcr.io":{"auth":"hunter2!"}}}"#).unwrap();
        let error = find(&files, &"ghcr.io".parse().unwrap(), None).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
