//! Tokens: how users and jobs show who they are. Only their SHA-256 is stored.

use std::collections::BTreeSet;

use model::{JobId, RunId, Timestamp, TokenId, UserId};
use store::{RecordsError, Row, Tx};

use crate::principal::{join_scopes, split_scopes};
use crate::schema::fold;
use crate::secret::{JOB_TOKEN, ROBOT_TOKEN, TOKEN};
use crate::{Access, AccessError, Credentials, JobPrincipal, Principal, Scope, Secret, User, now, robots};

/// How exactly the last use of a token is known, in milliseconds.
pub(crate) const USE_EVERY: i64 = 60_000;

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
    /// When it was last signed in with, to the minute.
    pub used: Option<Timestamp>,
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
        let id = self.change(move |tx| {
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
        let sql = "SELECT id, name, scopes, created, expires, used FROM tokens WHERE holder = $1 ORDER BY id";
        let rows = self.records.read(move |tx| tx.query(sql, &[user.0.into()])).await?;
        rows.iter().map(read_token).collect()
    }

    /// Ends a token of a user. The next request with it, or with a registry token made of it, is refused.
    ///
    /// # Errors
    /// [`AccessError::NoToken`] when the user has none of this id.
    pub async fn revoke_token(&self, user: UserId, token: TokenId) -> Result<(), AccessError> {
        let revoked = self.change(move |tx| {
            tx.execute("DELETE FROM passwords WHERE token = $1 AND holder = $2", &[token.0.into(), user.0.into()])?;
            tx.execute("DELETE FROM tokens WHERE id = $1 AND holder = $2", &[token.0.into(), user.0.into()])
        });
        match revoked.await? {
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
        self.change(move |tx| tx.execute(sql, &values)).await?;
        Ok(secret)
    }

    /// Ends the token of a job, and forgets those that expired.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn end_job(&self, job: JobId) -> Result<(), AccessError> {
        let sql = "DELETE FROM job_tokens WHERE job = $1 OR expires <= $2";
        self.change(move |tx| tx.execute(sql, &[job.0.into(), now().into()]).map(drop)).await
    }

    /// The jobs that have a token which is good.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn jobs_with_tokens(&self) -> Result<Vec<JobId>, AccessError> {
        let sql = "SELECT job FROM job_tokens WHERE expires > $1 ORDER BY job";
        let rows = self.records.read(move |tx| tx.query(sql, &[now().into()])).await?;
        Ok(rows.iter().map(|row| row.get(0).map(JobId)).collect::<Result<_, _>>()?)
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
        let bad = || AccessError::BadCredentials;
        if secret.expose().starts_with(ROBOT_TOKEN) {
            let found = self.records.read(move |tx| robots::find(tx, &hash)).await?;
            let (robot, note) = found.ok_or_else(bad)?;
            let named = NO_USER.contains(&user) || fold(user) == robot.login;
            if note && named {
                self.note_use("robots", robot.id);
            }
            return if named { Ok(Principal::Robot(robot)) } else { Err(bad()) };
        }
        if crate::issuer::is_jwt(secret.expose()) {
            return Box::pin(self.by_workload(secret)).await;
        }
        if !secret.expose().starts_with(TOKEN) {
            return match credentials {
                Credentials::Basic { user, password } => self.by_password(user, password).await,
                _ => Err(bad()),
            };
        }
        let (found, note) = self.records.read(move |tx| find_user(tx, &hash)).await?.ok_or_else(bad)?;
        let named = NO_USER.contains(&user) || fold(user) == fold(&found.name);
        if note && named {
            self.note_use("tokens", found.token.0);
        }
        if named { Ok(Principal::User(found)) } else { Err(bad()) }
    }

    /// Writes down that a token was used, at some time soon. No right hangs on it.
    pub(crate) fn note_use(&self, table: &'static str, id: i64) {
        let (records, at) = (self.records.clone(), now());
        tokio::spawn(async move {
            let sql = format!("UPDATE {table} SET used = $2 WHERE id = $1 AND (used IS NULL OR used < $3)");
            let values = [id.into(), at.into(), (at.0 - USE_EVERY).into()];
            if let Err(error) = records.write(move |tx| tx.execute(&sql, &values)).await {
                tracing::warn!(%error, "the last use of a token could not be recorded");
            }
        });
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

/// The user whose token this is, and whether its use has to be noted.
/// The user of a row that holds, after its first column, the token's id and scopes, and the user's id, name and whether
/// they administer the server.
pub(crate) fn user(row: &Row) -> Result<User, RecordsError> {
    Ok(User {
        id: UserId(row.get(3)?),
        name: row.get(4)?,
        admin: row.get(5)?,
        token: TokenId(row.get(1)?),
        scopes: split_scopes(&row.get::<String>(2)?)?,
    })
}

fn find_user(tx: &mut Tx<'_>, hash: &crate::secret::Hash) -> Result<Option<(User, bool)>, RecordsError> {
    let sql = "SELECT tokens.hash, tokens.id, tokens.scopes, owners.id, owners.name, owners.admin, tokens.used
               FROM tokens JOIN owners ON owners.id = tokens.holder
               WHERE tokens.lookup = $1 AND (tokens.expires IS NULL OR tokens.expires > $2)";
    for row in tx.query(sql, &[hash.lookup().into(), now().into()])? {
        if hash.is(&row.get::<Vec<u8>>(0)?) {
            let used: Option<Timestamp> = row.get(6)?;
            return Ok(Some((user(&row)?, used.is_none_or(|used| now().0 - used.0 > USE_EVERY))));
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
        used: row.get(5)?,
    })
}
