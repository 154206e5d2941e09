//! Signing in through a provider of identities: OpenID Connect, authorization code with PKCE.
//!
//! Whoever comes back with a code that the provider answers for gets a token of ours that lasts for hours. Their groups
//! at the provider decide anew, each time, in which groups they are here; what a person gave them by hand stays.
//! Between the two requests nothing is kept here: state, nonce and verifier travel in a cookie that we signed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use model::{Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use store::{RecordsError, Tx};
use subtle::ConstantTimeEq;

use crate::accounts::{OwnerKind, find_owner, insert_owner};
use crate::issuer::{Issuer, IssuerConfig, JwtError, read, texts};
use crate::secret::TOKEN;
use crate::{Access, AccessError, Scope, Secret, groups, now, tokens};

/// How long a login may take, in milliseconds.
const PATIENCE: i64 = 10 * 60 * 1000;

/// The longest cookie, code or state, in bytes.
const LONGEST: usize = 4096;

/// A provider through which people sign in.
#[derive(Clone, Debug)]
pub struct LoginConfig {
    /// Who it is.
    pub issuer: IssuerConfig,
    /// What it calls us.
    pub client_id: String,
    /// Our secret with it, if we have one.
    pub client_secret: Option<Secret>,
    /// What we ask for, `openid` among it.
    pub scopes: Vec<String>,
    /// The claim that holds the user's name.
    pub username_claim: String,
    /// The claim that holds their groups.
    pub groups_claim: String,
    /// Which group at the provider is which here.
    pub groups: Vec<GroupMapping>,
    /// Whether somebody who was never here becomes a user.
    pub create_users: bool,
    /// How many hours a token lasts.
    pub hours: u32,
}

/// A group at the provider, and what it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMapping {
    /// Its name at the provider.
    pub claim: String,
    /// The organisation.
    pub organisation: String,
    /// The group.
    pub group: String,
}

/// Why somebody cannot sign in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// There is no such provider.
    #[error("there is no provider {0:?}")]
    NoProvider(String),
    /// The request is not the second half of a login that began here, or comes too late.
    #[error("this login did not begin here, or took more than ten minutes: begin again")]
    Stale,
    /// The provider refused, or what it says is not good.
    #[error("the provider did not confirm who you are")]
    Refused,
    /// The provider cannot be asked.
    #[error("the provider cannot be asked now")]
    Unreachable,
    /// They cannot be a user here ([`AccessError::Unlinked`], [`AccessError::BadName`]), or the records failed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// The first half of a login.
#[derive(Clone, Debug)]
pub struct LoginStart {
    /// Where the browser is sent.
    pub url: String,
    /// What it has to bring back, as a cookie.
    pub cookie: String,
}

/// Somebody who signed in.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// Their name here.
    pub user: String,
    /// Their token.
    pub token: Secret,
    /// Until when it is good.
    pub expires: Timestamp,
}

/// A provider that is ready for use.
#[derive(Debug)]
pub(crate) struct Provider {
    issuer: Issuer,
    config: LoginConfig,
}

impl Provider {
    pub(crate) fn new(config: LoginConfig) -> Result<Self, String> {
        Ok(Self { issuer: Issuer::new(config.issuer.clone())?, config })
    }

    fn name(&self) -> &str {
        &self.config.issuer.name
    }
}

/// What travels in the cookie.
#[derive(Serialize, Deserialize)]
struct Pending {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    expires: i64,
}

fn unreachable(error: &JwtError) -> LoginError {
    tracing::warn!(%error, "somebody cannot sign in");
    match error {
        JwtError::Unreachable { .. } => LoginError::Unreachable,
        _ => LoginError::Refused,
    }
}

impl Access {
    fn provider(&self, name: &str) -> Result<&Provider, LoginError> {
        let found = self.identities.providers.iter().find(|provider| provider.name() == name);
        found.ok_or_else(|| LoginError::NoProvider(name.chars().take(80).collect()))
    }

    /// The names of the providers through which people sign in.
    pub fn providers(&self) -> Vec<&str> {
        self.identities.providers.iter().map(Provider::name).collect()
    }

    /// Begins a login through a provider, which sends the browser back to `redirect`.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn begin_login(&self, provider: &str, redirect: &str) -> Result<LoginStart, LoginError> {
        let provider = self.provider(provider)?;
        let found = provider.issuer.discover().await.map_err(|error| unreachable(&error))?;
        let random = || Secret::generate("").expose().to_owned();
        let pending = Pending {
            provider: provider.name().to_owned(),
            state: random(),
            nonce: random(),
            verifier: format!("{}{}", random(), random()),
            expires: now().0 + PATIENCE,
        };
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(pending.verifier.as_bytes()));
        let mut url = reqwest::Url::parse(&found.authorization_endpoint).map_err(|_| LoginError::Unreachable)?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &provider.config.client_id)
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", &provider.config.scopes.join(" "))
            .append_pair("state", &pending.state)
            .append_pair("nonce", &pending.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(LoginStart { url: url.into(), cookie: self.seal(&pending) })
    }

    /// Ends a login: asks the provider what `code` is worth, and gives who it is a token.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn finish_login(
        &self,
        provider: &str,
        redirect: &str,
        cookie: &str,
        (code, state): (&str, &str),
    ) -> Result<LoggedIn, LoginError> {
        let provider = self.provider(provider)?;
        if [cookie, code, state].iter().any(|text| text.is_empty() || text.len() > LONGEST) {
            return Err(LoginError::Stale);
        }
        self.refresh_keys().await?;
        let pending = self.unseal(cookie).ok_or(LoginError::Stale)?;
        let same = bool::from(pending.state.as_bytes().ct_eq(state.as_bytes()));
        if !same || pending.provider != provider.name() || pending.expires <= now().0 {
            return Err(LoginError::Stale);
        }
        let token = exchange(provider, redirect, code, &pending.verifier).await?;
        let claims = provider.issuer.verify(&token, &provider.config.client_id).await;
        let claims = claims.map_err(|error| unreachable(&error))?;
        let nonce = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
        if !bool::from(nonce.as_bytes().ct_eq(pending.nonce.as_bytes())) {
            return Err(LoginError::Refused);
        }
        self.sign_in(provider, &claims).await
    }

    async fn sign_in(&self, provider: &Provider, claims: &Map<String, Value>) -> Result<LoggedIn, LoginError> {
        let config = &provider.config;
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = claims.get(&config.username_claim).and_then(Value::as_str).unwrap_or_default().to_owned();
        let theirs = texts(claims, &config.groups_claim);
        let groups: Vec<_> = config.groups.iter().filter(|it| theirs.contains(&it.claim)).cloned().collect();
        let expires = Timestamp(now().0 + i64::from(config.hours) * 3_600_000);
        let secret = Secret::generate(TOKEN);
        let named = self.checked(&name);
        let (source, create, stored) = (provider.name().to_owned(), config.create_users, secret.clone());
        let entered = self.change(move |tx| {
            let (user, name) = match linked(tx, &source, &subject)? {
                Some(found) => found,
                None if create => enroll(tx, &source, &subject, named?)?,
                None => return Err(AccessError::Unlinked(name).into()),
            };
            enter_groups(tx, user, &source, &groups)?;
            let called = format!("login through {source}");
            let old = "DELETE FROM tokens WHERE holder = $1 AND name LIKE $2 AND expires <= $3";
            tx.execute(old, &[user.into(), format!("{called} %").into(), now().into()])?;
            let called = format!("{called} {}", tx.next_id("logins")?);
            tokens::insert(tx, UserId(user), &called, &[Scope::All], Some(expires), &stored)?;
            Ok(name)
        });
        Ok(LoggedIn { user: entered.await?, token: secret, expires })
    }

    /// Says that somebody at a provider is a user of ours.
    ///
    /// # Errors
    /// [`AccessError::NoUser`], [`AccessError::NoProvider`].
    pub async fn link_identity(&self, user: UserId, provider: &str, subject: &str) -> Result<(), AccessError> {
        if self.provider(provider).is_err() {
            return Err(AccessError::NoProvider(provider.chars().take(80).collect()));
        }
        let (provider, subject) = (provider.to_owned(), subject.to_owned());
        let sql = "INSERT INTO identities (provider, subject, holder) VALUES ($1, $2, $3)
                   ON CONFLICT (provider, subject) DO UPDATE SET holder = excluded.holder";
        self.change(move |tx| tx.execute(sql, &[provider.into(), subject.into(), user.0.into()]).map(drop)).await
    }

    fn seal(&self, pending: &Pending) -> String {
        let json = serde_json::to_vec(pending).expect("a struct of texts and numbers is always JSON");
        let key = self.shared.keys.signing();
        let text = format!("{}.{}", key.id(), URL_SAFE_NO_PAD.encode(json));
        // Its own kind of text: none of it is ever taken for a registry token.
        let mac = key.mac().chain_update("login:").chain_update(&text).finalize().into_bytes();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac))
    }

    fn unseal(&self, cookie: &str) -> Option<Pending> {
        let (text, mac) = cookie.rsplit_once('.')?;
        let (id, payload) = text.split_once('.')?;
        let key = self.shared.keys.verifying(id)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        key.mac().chain_update("login:").chain_update(text).verify_slice(&mac).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

/// The identity token for a code.
async fn exchange(provider: &Provider, redirect: &str, code: &str, verifier: &str) -> Result<String, LoginError> {
    #[derive(Deserialize)]
    struct Answer {
        id_token: String,
    }
    let found = provider.issuer.discover().await.map_err(|error| unreachable(&error))?;
    let config = &provider.config;
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", redirect),
        ("client_id", &config.client_id),
        ("code_verifier", verifier),
    ];
    form.extend(config.client_secret.as_ref().map(|secret| ("client_secret", secret.expose())));
    let request = provider.issuer.http().post(&found.token_endpoint).form(&form);
    let answer: Result<Answer, JwtError> = read(&found.token_endpoint, request).await;
    // A code that is not good is answered with an error as well: it is the same to who asks.
    Ok(answer.map_err(|error| unreachable(&error))?.id_token)
}

fn linked(tx: &mut Tx<'_>, provider: &str, subject: &str) -> Result<Option<(i64, String)>, RecordsError> {
    let sql = "SELECT owners.id, owners.name FROM identities JOIN owners ON owners.id = identities.holder
               WHERE identities.provider = $1 AND identities.subject = $2";
    let row = tx.query_first(sql, &[provider.into(), subject.into()])?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// Makes a user of somebody who was never here. A name that is taken is not theirs to have.
fn enroll(tx: &mut Tx<'_>, provider: &str, subject: &str, name: String) -> Result<(i64, String), RecordsError> {
    if find_owner(tx, &name)?.is_some() {
        return Err(AccessError::Unlinked(name).into());
    }
    let id = insert_owner(tx, &name, OwnerKind::User, false)?;
    let sql = "INSERT INTO identities (provider, subject, holder) VALUES ($1, $2, $3)";
    tx.execute(sql, &[provider.into(), subject.into(), id.into()])?;
    Ok((id, name))
}

/// Puts a user into the groups that the provider names, and takes them out of those that it names no more.
fn enter_groups(tx: &mut Tx<'_>, user: i64, provider: &str, wanted: &[GroupMapping]) -> Result<(), RecordsError> {
    let sql = "DELETE FROM access_group_members WHERE member = $1 AND source = $2";
    tx.execute(sql, &[user.into(), provider.into()])?;
    for mapping in wanted {
        let found = match find_owner(tx, &mapping.organisation)? {
            Some((organisation, OwnerKind::Organisation)) => groups::find(tx, organisation, &mapping.group)?,
            _ => None,
        };
        match found {
            Some(group) => groups::insert_member(tx, group, user, provider)?,
            None => tracing::warn!(
                organisation = mapping.organisation,
                group = mapping.group,
                provider,
                "a group that a provider's group is mapped to does not exist"
            ),
        }
    }
    Ok(())
}
