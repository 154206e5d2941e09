//! Issuers of JSON web tokens that the configuration names, and their keys.
//!
//! A token is verified with a key of its issuer's own list and with nothing else: `jwk`, `jku` and `x5u` in its header are
//! not looked at, `none` and everything symmetric is no algorithm. Keys are fetched when they are first needed, again after
//! ten minutes, and for an id that is not known, at most every ten seconds.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

/// What a token may be signed with.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The longest token, in bytes.
const LONGEST: usize = 16 * 1024;

/// The longest answer of an issuer, in bytes.
const ANSWER: usize = 512 * 1024;

/// The most keys of an issuer that are looked at.
const MAX_KEYS: usize = 100;

/// How long an issuer may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// After which time keys are fetched again.
const FRESH: Duration = Duration::from_secs(600);

/// How often an unknown key or a failure may have them fetched again.
const AGAIN: Duration = Duration::from_secs(10);

/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 30;

/// Why a token of an issuer is not taken, for the log. A client is only told that its credentials are wrong.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// It is not a token, too long, or signed with what we do not take.
    #[error("the token is malformed, or its algorithm is not one that is taken")]
    Malformed,
    /// No key of the issuer's has this id.
    #[error("{0} has no key with the id of this token")]
    UnknownKey(String),
    /// The signature or a claim is wrong.
    #[error("the token is refused: {0}")]
    Refused(jsonwebtoken::errors::Error),
    /// The issuer cannot be asked.
    #[error("{url} cannot be read: {why}")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        why: String,
    },
}

/// An issuer, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What we call it.
    pub name: String,
    /// Its address, which its tokens carry as `iss`.
    pub issuer: String,
    /// Where its keys are; found by discovery if absent.
    pub jwks: Option<String>,
    /// Further roots to trust when it is asked, in PEM.
    pub roots: Vec<Vec<u8>>,
}

/// An issuer and what is known of it.
pub(crate) struct Issuer {
    config: IssuerConfig,
    http: reqwest::Client,
    keys: Mutex<Option<Keys>>,
}

struct Keys {
    known: Arc<Vec<(Option<String>, Jwk)>>,
    fetched: Instant,
    tried: Instant,
}

/// What an issuer says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Discovery {
    pub issuer: String,
    pub jwks_uri: String,
    #[serde(default)]
    pub authorization_endpoint: String,
    #[serde(default)]
    pub token_endpoint: String,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("name", &self.config.name).finish_non_exhaustive()
    }
}

/// Whether a text has the form of a JSON web token.
pub(crate) fn is_jwt(text: &str) -> bool {
    text.starts_with("ey") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The issuer that a token names, before anything of it is believed.
pub(crate) fn named_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        iss: String,
    }
    if token.len() > LONGEST {
        return None;
    }
    Some(jsonwebtoken::dangerous::insecure_decode::<Named>(token).ok()?.claims.iss)
}

impl Issuer {
    pub(crate) fn new(config: IssuerConfig) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE);
        for pem in &config.roots {
            let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| error.to_string())?;
            builder = builder.tls_certs_merge(roots);
        }
        let http = builder.user_agent("towpath").build().map_err(|error| error.to_string())?;
        Ok(Self { config, http, keys: Mutex::default() })
    }

    pub(crate) fn config(&self) -> &IssuerConfig {
        &self.config
    }

    pub(crate) const fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The claims of a token that this issuer made for `audience`, and that is good now.
    pub(crate) async fn verify(&self, token: &str, audience: &str) -> Result<Map<String, Value>, JwtError> {
        if token.len() > LONGEST {
            return Err(JwtError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Malformed)?;
        // An extension that must be understood is not.
        if !ALGORITHMS.contains(&header.alg) || header.crit.is_some() {
            return Err(JwtError::Malformed);
        }
        let jwk = self.key(header.kid.as_deref()).await?;
        let key = DecodingKey::from_jwk(&jwk).map_err(JwtError::Refused)?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let read = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation);
        Ok(read.map_err(JwtError::Refused)?.claims)
    }

    /// The key of this id; the only one, for a token without an id.
    async fn key(&self, id: Option<&str>) -> Result<Jwk, JwtError> {
        // Held while they are fetched: one request for any number of tokens.
        let mut keys = self.keys.lock().await;
        if let Some(read) = keys.as_mut() {
            let found = pick(&read.known, id);
            let old = read.fetched.elapsed() > FRESH || found.is_none();
            if !old || read.tried.elapsed() < AGAIN {
                return found.ok_or_else(|| JwtError::UnknownKey(self.config.name.clone()));
            }
            read.tried = Instant::now();
        }
        match self.fetch().await {
            Ok(known) => {
                let now = Instant::now();
                let found = pick(&known, id);
                *keys = Some(Keys { known: Arc::new(known), fetched: now, tried: now });
                found.ok_or_else(|| JwtError::UnknownKey(self.config.name.clone()))
            }
            // An issuer that is away for a while does not sign its people out.
            Err(error) => keys.as_ref().and_then(|read| pick(&read.known, id)).ok_or(error),
        }
    }

    async fn fetch(&self) -> Result<Vec<(Option<String>, Jwk)>, JwtError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let url = match &self.config.jwks {
            Some(url) => url.clone(),
            None => self.discover().await?.jwks_uri,
        };
        let set: Set = self.get(&url).await?;
        // Keys of kinds that we do not know are no reason to take none.
        let known = set.keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let signs = |key: &Jwk| {
            use jsonwebtoken::jwk::AlgorithmParameters::{EllipticCurve, OctetKeyPair, RSA};
            matches!(key.algorithm, EllipticCurve(_) | RSA(_) | OctetKeyPair(_))
                && key.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature)
        };
        Ok(known.filter(signs).map(|key| (key.common.key_id.clone(), key)).collect())
    }

    /// What the issuer says of itself, which must be that it is who it is.
    pub(crate) async fn discover(&self) -> Result<Discovery, JwtError> {
        let url = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let found: Discovery = self.get(&url).await?;
        if found.issuer != self.config.issuer {
            let why = format!("it says that it is {:?}", found.issuer.chars().take(200).collect::<String>());
            return Err(JwtError::Unreachable { url, why });
        }
        Ok(found)
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, JwtError> {
        read(url, self.http.get(url)).await
    }
}

/// The key of this id; the only one, without an id.
fn pick(keys: &[(Option<String>, Jwk)], id: Option<&str>) -> Option<Jwk> {
    match (id, keys) {
        (None, [(_, only)]) => Some(only.clone()),
        (None, _) => None,
        (Some(id), keys) => keys.iter().find(|(known, _)| known.as_deref() == Some(id)).map(|(_, key)| key.clone()),
    }
}

/// Sends a request to an issuer and reads its answer in JSON.
pub(crate) async fn read<T: DeserializeOwned>(url: &str, request: reqwest::RequestBuilder) -> Result<T, JwtError> {
    let unreachable = |why: String| JwtError::Unreachable { url: url.to_owned(), why };
    let mut answer = request.send().await.map_err(|error| unreachable(error.without_url().to_string()))?;
    if !answer.status().is_success() {
        return Err(unreachable(format!("it answers {}", answer.status())));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(error.without_url().to_string()))? {
        if bytes.len() + chunk.len() > ANSWER {
            return Err(unreachable("its answer is too long".to_owned()));
        }
        bytes.extend_from_slice(&chunk);
    }
    // What is wrong with it is not said: it may hold tokens.
    serde_json::from_slice(&bytes).map_err(|_| unreachable("its answer is not what was asked for".to_owned()))
}

/// The texts of a claim: itself, or the members of a list.
pub(crate) fn texts(claims: &Map<String, Value>, name: &str) -> BTreeSet<String> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    // A claim of a claim: `kubernetes.io.namespace` has dots of its own, so the whole name is tried first.
    let found = claims
        .get(name)
        .or_else(|| name.split_once('/').and_then(|(outer, inner)| claims.get(outer)?.pointer(&format!("/{inner}"))));
    match found {
        Some(Value::Array(values)) => values.iter().take(1000).filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => BTreeSet::new(),
    }
}
