//! Registries, and who we are there.

use std::path::PathBuf;
use std::time::Duration;

use model::ImageName;
use oci::RegistryHost;
use oci::client::{Auth, Client, ClientError, ClientOptions, Remote, RemoteRegistry};
use oci::credentials;

use crate::cli::image::{Login, Sides, Wire};
use crate::error::{Failure, Kind};

/// The registries of a command.
pub(crate) struct Registries {
    client: Client,
    files: Vec<PathBuf>,
    from: Option<Auth>,
    to: Option<Auth>,
}

impl Registries {
    /// The same user everywhere.
    pub(crate) fn one(login: &Login) -> Result<Self, Failure> {
        let auth = auth(login.user.as_ref(), login.password.as_ref())?;
        Self::new(&login.wire, auth.clone(), auth, None)
    }

    /// A user at the source and another at the destination; `patience` with registries that ask for it.
    pub(crate) fn two(sides: &Sides, patience: Option<Duration>) -> Result<Self, Failure> {
        let from = auth(sides.from_user.as_ref(), sides.from_password.as_ref())?;
        let to = auth(sides.to_user.as_ref(), sides.to_password.as_ref())?;
        Self::new(&sides.wire, from, to, patience)
    }

    fn new(wire: &Wire, from: Option<Auth>, to: Option<Auth>, patience: Option<Duration>) -> Result<Self, Failure> {
        let default = ClientOptions::default();
        let options = ClientOptions {
            extra_ca: wire.ca.clone(),
            plain_http: wire.plain_http.clone(),
            patience: patience.unwrap_or(default.patience),
            ..default
        };
        let client = Client::new(options).map_err(client_failure)?;
        Ok(Self { client, files: credentials::files(), from, to })
    }

    /// A repository that is read, or of which something is removed.
    pub(crate) fn source(&self, host: &RegistryHost, name: &ImageName) -> Result<Remote, Failure> {
        Ok(self.registry(host, Some(name), self.from.as_ref())?.repository(name.clone()))
    }

    /// A repository that is written to.
    pub(crate) fn destination(&self, host: &RegistryHost, name: &ImageName) -> Result<Remote, Failure> {
        Ok(self.registry(host, Some(name), self.to.as_ref())?.repository(name.clone()))
    }

    /// A registry that is read.
    pub(crate) fn source_registry(&self, host: &RegistryHost) -> Result<RemoteRegistry, Failure> {
        self.registry(host, None, self.from.as_ref())
    }

    fn registry(
        &self,
        host: &RegistryHost,
        name: Option<&ImageName>,
        given: Option<&Auth>,
    ) -> Result<RemoteRegistry, Failure> {
        let auth = match given {
            Some(auth) => auth.clone(),
            None => credentials::find(&self.files, host, name).map_err(|error| Failure::usage(error.to_string()))?,
        };
        Ok(self.client.registry(host.clone(), auth))
    }
}

fn auth(user: Option<&String>, password: Option<&String>) -> Result<Option<Auth>, Failure> {
    let (Some(user), Some(reference)) = (user, password) else { return Ok(None) };
    let usage = |error: config::SecretError| Failure::usage(error.to_string());
    let reference: config::SecretRef = reference.parse().map_err(usage)?;
    Ok(Some(Auth::Basic { user: user.clone(), password: reference.resolve().map_err(usage)? }))
}

/// `HOST` alone, which is a registry and no image.
pub(crate) fn read_host(text: &str) -> Option<RegistryHost> {
    let text = text.strip_prefix("docker://").unwrap_or(text);
    let looks = text.contains(['.', ':']) || text == "localhost";
    if looks { text.parse().ok() } else { None }
}

/// With the exit code of what went wrong.
pub(crate) fn client_failure(error: ClientError) -> Failure {
    let message = error.to_string();
    match error {
        ClientError::Unreachable { .. } => Failure::new(Kind::Unreachable, message)
            .hint("a registry without TLS is named with --plain-http HOST[:PORT]; another CA with --ca FILE"),
        ClientError::RateLimited { .. } => Failure::new(Kind::Unreachable, message),
        ClientError::Status { status, .. } if status >= 500 => Failure::new(Kind::Unreachable, message),
        _ if error.is_denied() => Failure::new(Kind::Refused, message).hint(
            "log in with docker or podman, or give --user (--from-user, --to-user) and a reference to the password",
        ),
        ClientError::Refused { .. } => Failure::new(Kind::Refused, message),
        ClientError::Options(_) => Failure::usage(message),
        _ => Failure::failed(message),
    }
}
