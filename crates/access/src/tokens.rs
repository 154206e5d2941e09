//! Tokens: how users and jobs show who they are. Only their SHA-256 is stored.

use std::collections::BTreeSet;

use model::{JobId, RunId, Timestamp, TokenId, UserId};
use store::{RecordsError, Row, Tx};

use crate::principal::{join_scopes, split_scopes};
use crate::schema::fold;
use crate::secret::{JOB_TOKEN, TOKEN};
use crate::{Access, AccessError, Credentials, JobPrincipal, Principal, Scope, Secret, User, now};

/// User names that clients send beside a token when they know none.
const NO_USER: [&str; 5] = ["", "oauth2", "token", "x-access-token", "x-token-auth"];

/// A token, as it is listed. Its secret was shown once and is not known any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id.
    pub id: TokenId,
    /// What its user calls it.
    pub name: String,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    /// Since when.
    pub created: Timestamp,
    /// Until when, if not for ever.
    pub expires: Option<Timestamp>,
}

impl Access {
    /// Makes a token for a user. The secret, `twp_` and 40 base62 digits, is given out here and never again.
    ///
    /// # Errors
    /// [`AccessError::NoUser`], [`AccessError::BadTokenName`], [`AccessError::NoScope`].
    pub async fn create_token(
        &self,
        user: UserId,
        name: &str,
        scopes: &[Scope],
        expires: Option<Timestamp>,
    ) -> Result<(TokenId, Secret), AccessError> {
        if scopes.is_empty() {
            return Err(AccessError::NoScope);
        }
        if name.trim().is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
            return Err(AccessError::BadTokenName(name.chars().take(100).collect()));
        }
        let secret = Secret::generate(TOKEN);
        let (stored, name, scopes) = (secret.clone(), name.to_owned(), scopes.to_vec());
        let id = self.records.write(move |tx| {
            if tx.query_first("SELECT id FROM owners WHERE id = $1 AND kind = 'user'", &[user.0.into()])?.is_none() {
                return Err(AccessError::NoUser(user.to_string()).into());
            }
            let sql = "SELECT id FROM tokens WHERE holder = $1 AND name = $2";
            if tx.query_first(sql, &[user.0.into(), (&name).into()])?.is_some() {
                return Err(AccessError::BadTokenName(name).into());
            }
            insert(tx, user, &name, &scopes, expires, &stored)
        });
        Ok((id.await?, secret))
    }

    /// The tokens of a user, oldest first, expired ones too.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn list_tokens(&self, user: UserId) -> Result<Vec<TokenRecord>, AccessError> {
        let sql = "SELECT id, name, scopes, created, expires FROM tokens WHERE holder = $1 ORDER BY id";
        let rows = self.records.read(move |tx| tx.query(sql, &[user.0.into()])).await?;
        rows.iter().map(read_token).collect()
    }

    /// Ends a token of a user. The next request with it, or with a registry token made of it, is refused.
    ///
    /// # Errors
    /// [`AccessError::NoToken`] when the user has none of this id.
    pub async fn revoke_token(&self, user: UserId, token: TokenId) -> Result<(), AccessError> {
        let sql = "DELETE FROM tokens WHERE id = $1 AND holder = $2";
        match self.records.write(move |tx| tx.execute(sql, &[token.0.into(), user.0.into()])).await? {
            0 => Err(AccessError::NoToken(token.to_string())),
            _ => Ok(()),
        }
    }

    /// Makes the token of a job, good until `expires` or [`Access::end_job`]. A job that is started again gets a new one
    /// and its old one ends.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn create_job_token(&self, job: JobPrincipal, expires: Timestamp) -> Result<Secret, AccessError> {
        let secret = Secret::generate(JOB_TOKEN);
        let hash = secret.hash();
        let sql = "INSERT INTO job_tokens (job, run, repository, contents, packages, lookup, hash, expires)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                   ON CONFLICT (job) DO UPDATE SET run = excluded.run, repository = excluded.repository,
                       contents = excluded.contents, packages = excluded.packages,
                       lookup = excluded.lookup, hash = excluded.hash, expires = excluded.expires";
        let values = [
            job.job.0.into(),
            job.run.0.into(),
            job.repository.to_string().into(),
            job.contents.name().into(),
            job.packages.name().into(),
            hash.lookup().into(),
            hash.bytes().into(),
            expires.into(),
        ];
        self.records.write(move |tx| tx.execute(sql, &values)).await?;
        Ok(secret)
    }

    /// Ends the token of a job, and forgets those that expired.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn end_job(&self, job: JobId) -> Result<(), AccessError> {
        let sql = "DELETE FROM job_tokens WHERE job = $1 OR expires <= $2";
        Ok(self.records.write(move |tx| tx.execute(sql, &[job.0.into(), now().into()]).map(drop)).await?)
    }

    /// Who sent these credentials. No credentials are [`Principal::Anonymous`]; wrong ones never are.
    ///
    /// With a user's token, the user name must be theirs, or one that stands for none (`x-access-token`). With a job's
    /// token any name will do: workflows send whom the run is for.
    ///
    /// # Errors
    /// [`AccessError::BadCredentials`], or when the records fail.
    pub async fn authenticate(&self, credentials: &Credentials) -> Result<Principal, AccessError> {
        let (user, secret) = match credentials {
            Credentials::None => return Ok(Principal::Anonymous),
            Credentials::Basic { user, password } => (user.as_str(), password),
            Credentials::Bearer(secret) => ("", secret),
        };
        let hash = secret.hash();
        if secret.expose().starts_with(JOB_TOKEN) {
            let found = self.records.read(move |tx| find_job(tx, &hash)).await?;
            return found.map(Principal::Job).ok_or(AccessError::BadCredentials);
        }
        if !secret.expose().starts_with(TOKEN) {
            return Err(AccessError::BadCredentials);
        }
        let found = self.records.read(move |tx| find_user(tx, &hash)).await?.ok_or(AccessError::BadCredentials)?;
        if NO_USER.contains(&user) || fold(user) == fold(&found.name) {
            Ok(Principal::User(found))
        } else {
            Err(AccessError::BadCredentials)
        }
    }
}

pub(crate) fn insert(
    tx: &mut Tx<'_>,
    user: UserId,
    name: &str,
    scopes: &[Scope],
    expires: Option<Timestamp>,
    secret: &Secret,
) -> Result<TokenId, RecordsError> {
    let id = tx.next_id("tokens")?;
    let hash = secret.hash();
    let sql = "INSERT INTO tokens (id, holder, name, lookup, hash, scopes, created, expires)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let values = [
        id.into(),
        user.0.into(),
        name.into(),
        hash.lookup().into(),
        hash.bytes().into(),
        join_scopes(scopes).into(),
        now().into(),
        expires.into(),
    ];
    tx.execute(sql, &values)?;
    Ok(TokenId(id))
}

fn find_user(tx: &mut Tx<'_>, hash: &crate::secret::Hash) -> Result<Option<User>, RecordsError> {
    let sql = "SELECT tokens.hash, tokens.id, tokens.scopes, owners.id, owners.name, owners.admin
               FROM tokens JOIN owners ON owners.id = tokens.holder
               WHERE tokens.lookup = $1 AND (tokens.expires IS NULL OR tokens.expires > $2)";
    for row in tx.query(sql, &[hash.lookup().into(), now().into()])? {
        if hash.is(&row.get::<Vec<u8>>(0)?) {
            return Ok(Some(User {
                id: UserId(row.get(3)?),
                name: row.get(4)?,
                admin: row.get(5)?,
                token: TokenId(row.get(1)?),
                scopes: split_scopes(&row.get::<String>(2)?)?,
            }));
        }
    }
    Ok(None)
}

fn find_job(tx: &mut Tx<'_>, hash: &crate::secret::Hash) -> Result<Option<JobPrincipal>, RecordsError> {
    let sql = "SELECT hash, job, run, repository, contents, packages FROM job_tokens
               WHERE lookup = $1 AND expires > $2";
    for row in tx.query(sql, &[hash.lookup().into(), now().into()])? {
        if hash.is(&row.get::<Vec<u8>>(0)?) {
            return Ok(Some(JobPrincipal {
                repository: row.parse(3)?,
                run: RunId(row.get(2)?),
                job: JobId(row.get(1)?),
                contents: row.parse(4)?,
                packages: row.parse(5)?,
            }));
        }
    }
    Ok(None)
}

fn read_token(row: &Row) -> Result<TokenRecord, AccessError> {
    Ok(TokenRecord {
        id: TokenId(row.get(0)?),
        name: row.get(1)?,
        scopes: split_scopes(&row.get::<String>(2)?)?,
        created: row.get(3)?,
        expires: row.get(4)?,
    })
}
