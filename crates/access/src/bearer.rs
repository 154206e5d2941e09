//! Tokens of the registry: what `/v2` answers its challenge with, for minutes.
//!
//! `twb_`, the claims as JSON in base64url, a dot, and their HMAC-SHA256 in base64url. There is one algorithm and one key,
//! named nowhere in the token, so neither can be swapped.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use model::{Timestamp, TokenId, UserId};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use store::Records;

use crate::{Access, AccessError, JobPrincipal, Principal, Scope, Secret, User, now};

/// What a registry token begins with.
const BEARER: &str = "twb_";

/// The longest token that is looked at, in bytes.
const LONGEST: usize = 16 * 1024;

/// A scope of the registry's token protocol: `repository:demo/site:pull,push`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BearerScope {
    /// The kind of thing: `repository`, `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What was granted: `pull`, `push`, `delete`, `*`.
    pub actions: Vec<String>,
}

/// What a registry token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BearerClaims {
    /// Who it was given to. Ask [`Access::authorize`] for them at each request: what is here was true when it was given.
    pub principal: Principal,
    /// What it was asked for and granted.
    pub scopes: Vec<BearerScope>,
    /// Until when it is good.
    pub expires: Timestamp,
}

impl BearerClaims {
    /// Whether `action` on this thing was granted.
    pub fn grants(&self, kind: &str, name: &str, action: &str) -> bool {
        let covers = |granted: &String| granted == action || granted == "*";
        self.scopes.iter().any(|scope| scope.kind == kind && scope.name == name && scope.actions.iter().any(covers))
    }
}

/// Why a registry token is refused. To a client each is `invalid_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// It is not one of ours, or was changed.
    #[error("the registry token is not valid")]
    Invalid,
    /// It was made for another service.
    #[error("the registry token was made for another service")]
    OtherService,
    /// Its time is over.
    #[error("the registry token has expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    /// Milliseconds since the epoch.
    exp: i64,
    sub: Subject,
    access: Vec<BearerScope>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Subject {
    Anonymous,
    User { id: i64, name: String, admin: bool, token: i64, scopes: BTreeSet<Scope> },
    Job(JobPrincipal),
}

impl Access {
    /// Makes a registry token for `service`. `scopes` are those that were granted: ask [`Access::authorize`] first.
    pub fn issue_bearer(&self, principal: &Principal, scopes: &[BearerScope], service: &str, ttl: Duration) -> String {
        let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let claims = Claims {
            aud: service.to_owned(),
            exp: now().0.saturating_add(ttl),
            sub: principal.into(),
            access: scopes.to_vec(),
        };
        let json = serde_json::to_string(&claims).expect("a struct of texts, numbers and lists is always JSON");
        let payload = URL_SAFE_NO_PAD.encode(json);
        let mac = URL_SAFE_NO_PAD.encode(self.mac(&payload).finalize().into_bytes());
        format!("{BEARER}{payload}.{mac}")
    }

    /// Reads a registry token that was made for `service`.
    ///
    /// # Errors
    /// See [`BearerError`].
    pub fn verify_bearer(&self, token: &str, service: &str) -> Result<BearerClaims, BearerError> {
        let invalid = BearerError::Invalid;
        if token.len() > LONGEST {
            return Err(invalid);
        }
        let (payload, mac) = token.strip_prefix(BEARER).and_then(|token| token.split_once('.')).ok_or(invalid)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| invalid)?;
        // In constant time.
        self.mac(payload).verify_slice(&mac).map_err(|_| invalid)?;
        let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| invalid)?;
        let claims: Claims = serde_json::from_slice(&json).map_err(|_| invalid)?;
        if claims.aud != service {
            return Err(BearerError::OtherService);
        }
        if claims.exp <= now().0 {
            return Err(BearerError::Expired);
        }
        Ok(BearerClaims { principal: claims.sub.into(), scopes: claims.access, expires: Timestamp(claims.exp) })
    }

    fn mac(&self, payload: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose().as_bytes()).expect("any length is a key");
        mac.update(payload.as_bytes());
        mac
    }
}

/// The key that all replicas sign with, made at the first start.
pub(crate) async fn signing_key(records: &Records) -> Result<Secret, AccessError> {
    let new = Secret::generate("").expose().to_owned();
    let key = records.write(move |tx| {
        let sql = "INSERT INTO signing_keys (name, secret) VALUES ('bearer', $1) ON CONFLICT (name) DO NOTHING";
        tx.execute(sql, &[new.into()])?;
        tx.query("SELECT secret FROM signing_keys WHERE name = 'bearer'", &[])
    });
    let key: String = key.await?.first().ok_or(AccessError::BadCredentials)?.get(0)?;
    Ok(key.into())
}

impl From<&Principal> for Subject {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::Anonymous => Self::Anonymous,
            Principal::User(user) => Self::User {
                id: user.id.0,
                name: user.name.clone(),
                admin: user.admin,
                token: user.token.0,
                scopes: user.scopes.clone(),
            },
            Principal::Job(job) => Self::Job(job.clone()),
        }
    }
}

impl From<Subject> for Principal {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Anonymous => Self::Anonymous,
            Subject::User { id, name, admin, token, scopes } => {
                Self::User(User { id: UserId(id), name, admin, token: TokenId(token), scopes })
            }
            Subject::Job(job) => Self::Job(job),
        }
    }
}
