//! Tokens of the registry: what `/v2` answers its challenge with, for minutes.
//!
//! `twb_`, the id of a key, a dot, the claims as JSON in base64url, a dot, and the HMAC-SHA256 of the text between `twb_`
//! and the last dot. There is one algorithm, named nowhere in the token, and an id that is not one of our keys is nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use model::{Timestamp, TokenId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Access, AccessError, JobPrincipal, Principal, RobotPrincipal, Scope, User, now};

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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// It is not one of ours, or was changed.
    #[error("the registry token is not valid")]
    Invalid,
    /// Its key is not known here; another replica may have made it just now.
    #[error("the registry token was signed with a key that is not known")]
    UnknownKey,
    /// It was made for another service.
    #[error("the registry token was made for another service")]
    OtherService,
    /// Its time is over. What it said is here for an upload that takes longer than a token lasts.
    #[error("the registry token has expired")]
    Expired(Box<BearerClaims>),
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
    Robot(RobotPrincipal),
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
        let key = self.shared.keys.signing();
        let signed = format!("{}.{}", key.id(), URL_SAFE_NO_PAD.encode(json));
        let mac = URL_SAFE_NO_PAD.encode(key.mac().chain_update(&signed).finalize().into_bytes());
        format!("{BEARER}{signed}.{mac}")
    }

    /// Reads a registry token that was made for `service`, with the keys of now.
    ///
    /// # Errors
    /// See [`BearerError`]; [`AccessError::Records`] when the keys cannot be read.
    pub async fn read_bearer(
        &self,
        token: &str,
        service: &str,
    ) -> Result<Result<BearerClaims, BearerError>, AccessError> {
        self.refresh_keys().await?;
        match self.verify_bearer(token, service) {
            Err(BearerError::UnknownKey) => {
                self.look_for_key().await?;
                Ok(self.verify_bearer(token, service))
            }
            read => Ok(read),
        }
    }

    /// Reads a registry token that was made for `service`, with the keys that are known here.
    ///
    /// # Errors
    /// See [`BearerError`].
    pub fn verify_bearer(&self, token: &str, service: &str) -> Result<BearerClaims, BearerError> {
        let invalid = || BearerError::Invalid;
        if token.len() > LONGEST {
            return Err(invalid());
        }
        let (signed, mac) = token.strip_prefix(BEARER).and_then(|token| token.rsplit_once('.')).ok_or_else(invalid)?;
        let (id, payload) = signed.split_once('.').ok_or_else(invalid)?;
        let key = self.shared.keys.verifying(id).ok_or(BearerError::UnknownKey)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| invalid())?;
        // In constant time.
        key.mac().chain_update(signed).verify_slice(&mac).map_err(|_| invalid())?;
        let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| invalid())?;
        let claims: Claims = serde_json::from_slice(&json).map_err(|_| invalid())?;
        if claims.aud != service {
            return Err(BearerError::OtherService);
        }
        let (expires, over) = (Timestamp(claims.exp), claims.exp <= now().0);
        let claims = BearerClaims { principal: claims.sub.into(), scopes: claims.access, expires };
        if over { Err(BearerError::Expired(Box::new(claims))) } else { Ok(claims) }
    }
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
            Principal::Robot(robot) => Self::Robot(robot.clone()),
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
            Subject::Robot(robot) => Self::Robot(robot),
            Subject::Job(job) => Self::Job(job),
        }
    }
}
