//! Tokens: got at the realm that the registry names, kept until shortly before they expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::challenge::Challenge;
use super::exchange::{Body, transmit, whole_body};
use super::session::Session;
use super::{Auth, ClientError};

/// The longest answer of a realm, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// The longest token that is sent back, in bytes: what servers take in a header line.
const MAX_TOKEN: usize = 64 << 10;
/// How long a token is good if nobody says, by the specification.
const DEFAULT_LIFE: u64 = 60;
/// The longest a token is kept, in seconds, whatever was said.
const LONGEST_LIFE: u64 = 12 * 3600;
/// The most tokens of a registry that are kept.
const MAX_KEPT: usize = 4096;

/// A token and when it is to be forgotten.
struct Kept {
    header: HeaderValue,
    until: Instant,
}

type Slot = Arc<tokio::sync::Mutex<Option<Kept>>>;

/// The tokens of a registry by what they are good for.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<String, Slot>>);

impl Tokens {
    fn slot(&self, scopes: &[String]) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_KEPT {
            slots.clear();
        }
        slots.entry(scopes.join(" ")).or_default().clone()
    }

    fn forget(&self, scopes: &[String]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&scopes.join(" "));
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Session {
    /// What to send along, as far as the registry has said what it wants.
    pub(super) async fn authorization(&self, scopes: &[String]) -> Result<Option<HeaderValue>, ClientError> {
        if let Auth::Bearer(token) = &self.auth {
            return self.bearer(token).map(Some);
        }
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => self.basic(),
            Some(Challenge::Bearer { realm, service, .. }) => {
                let slot = self.tokens.slot(scopes);
                let mut kept = slot.lock().await;
                if let Some(kept) = kept.as_ref().filter(|kept| kept.until > Instant::now()) {
                    return Ok(Some(kept.header.clone()));
                }
                let fresh = self.fetch_token(&realm, service.as_deref(), scopes).await?;
                let header = fresh.header.clone();
                *kept = Some(fresh);
                Ok(Some(header))
            }
        }
    }

    /// Takes in what a 401 said. Whether it is worth asking again.
    pub(super) fn learn(&self, challenge: Option<Challenge>, scopes: &[String]) -> bool {
        let Some(challenge) = challenge else { return false };
        let answerable = match (&challenge, &self.auth) {
            (_, Auth::Bearer(_)) | (Challenge::Basic, Auth::Anonymous | Auth::Refresh(_)) => false,
            (Challenge::Bearer { .. }, _) | (Challenge::Basic, Auth::Basic { .. }) => true,
        };
        self.tokens.forget(scopes);
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge);
        answerable
    }

    fn bearer(&self, token: &str) -> Result<HeaderValue, ClientError> {
        if token.len() > MAX_TOKEN {
            return Err(ClientError::protocol(&self.host, format!("a token is longer than {MAX_TOKEN} bytes")));
        }
        let line = Zeroizing::new(format!("Bearer {token}"));
        secret(&line).ok_or_else(|| ClientError::protocol(&self.host, "a token cannot be sent in a header"))
    }

    fn basic(&self) -> Result<Option<HeaderValue>, ClientError> {
        let Auth::Basic { user, password } = &self.auth else { return Ok(None) };
        let both = Zeroizing::new(format!("{user}:{}", password.as_str()));
        let line = Zeroizing::new(format!("Basic {}", STANDARD.encode(both.as_bytes())));
        Ok(secret(&line))
    }

    async fn fetch_token(&self, realm: &str, service: Option<&str>, scopes: &[String]) -> Result<Kept, ClientError> {
        let bad = |error: &dyn std::fmt::Display| ClientError::protocol(&self.host, format!("its realm: {error}"));
        let mut url = self.url("")?.join(realm).map_err(|error| bad(&error))?;
        let way = self.way(&url).await?;
        let mut fields: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
        let (request, body) = if let Auth::Refresh(token) = &self.auth {
            let scope = scopes.join(" ");
            fields.extend([("grant_type", "refresh_token"), ("client_id", "towpath")]);
            fields.extend([("refresh_token", token.as_str()), ("scope", scope.as_str())]);
            let form = form(&fields);
            let request = way.request(Method::POST, url.clone());
            (request.header(CONTENT_TYPE, "application/x-www-form-urlencoded"), Body::Bytes(form.into()))
        } else {
            fields.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            if let Auth::Basic { user, .. } = &self.auth {
                fields.push(("account", user));
            }
            url.query_pairs_mut().extend_pairs(fields);
            let request = way.request(Method::GET, url.clone());
            let credentials = self.basic()?;
            (credentials.into_iter().fold(request, |request, value| request.header(AUTHORIZATION, value)), Body::None)
        };
        let asked = Instant::now();
        let patience = self.client.options().read_timeout;
        let host = url.host_str().unwrap_or_default();
        let response = transmit(host, patience, request, &body).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let text = Zeroizing::new(whole_body(host, patience, response, MAX_ANSWER).await?.to_vec());
        // What the reader says could quote the token.
        let answer: Answer = serde_json::from_slice(&text).map_err(|_| bad(&"the answer is not a token's JSON"))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = Zeroizing::new(token.ok_or_else(|| bad(&"the answer holds no token"))?);
        // Counted from the question by our own clock: the realm's may be wrong.
        let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
        let until = asked + Duration::from_secs(life).mul_f64(0.8);
        Ok(Kept { header: self.bearer(&token)?, until })
    }

    /// A realm that gives no token.
    async fn refusal(&self, response: reqwest::Response) -> ClientError {
        let status = response.status().as_u16();
        match self.failure("a token", response).await {
            ClientError::Status { host, message, .. } if matches!(status, 400 | 403) => {
                let message = if message.is_empty() { "its realm gives no token".to_owned() } else { message };
                ClientError::Unauthorized { host, message }
            }
            other => other,
        }
    }
}

/// A form's body. Its secrets are taken out of memory with the request.
fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut url = Url::parse("form:").ok();
    let query = url.as_mut().map(|url| {
        url.query_pairs_mut().extend_pairs(fields);
        url.query().unwrap_or_default().to_owned()
    });
    query.unwrap_or_default().into_bytes()
}

/// A header that is not shown.
fn secret(line: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(line).ok()?;
    value.set_sensitive(true);
    Some(value)
}
