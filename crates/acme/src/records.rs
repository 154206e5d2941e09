//! The tables.

use model::Timestamp;
use store::{RecordsError, Tx};

use crate::{Challenge, Issued, now};

/// Numbered steps; a released one is never changed.
pub(crate) const STEPS: &[&str] = &["
CREATE TABLE acme_accounts (
    directory TEXT NOT NULL PRIMARY KEY,
    credentials TEXT NOT NULL,
    contact TEXT NOT NULL
);
CREATE TABLE acme_certificates (
    name TEXT NOT NULL PRIMARY KEY,
    chain TEXT NOT NULL,
    private_key TEXT NOT NULL,
    issued BIGINT NOT NULL
);
CREATE TABLE acme_challenges (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    answer TEXT NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE TABLE acme_failures (
    name TEXT NOT NULL PRIMARY KEY,
    failures BIGINT NOT NULL,
    until BIGINT NOT NULL
);
"];

/// How long an answer may be asked for.
const ANSWER_MS: i64 = 3_600_000;

/// The credentials of the account at an authority, and whom it may write to.
pub(crate) fn account(tx: &mut Tx<'_>, directory: &str) -> Result<Option<(String, String)>, RecordsError> {
    let sql = "SELECT credentials, contact FROM acme_accounts WHERE directory = $1";
    tx.query_first(sql, &[directory.into()])?.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

pub(crate) fn put_account(
    tx: &mut Tx<'_>,
    directory: &str,
    credentials: &str,
    contact: &str,
) -> Result<(), RecordsError> {
    let sql = "INSERT INTO acme_accounts (directory, credentials, contact) VALUES ($1, $2, $3)
               ON CONFLICT (directory) DO UPDATE SET credentials = excluded.credentials, contact = excluded.contact";
    tx.execute(sql, &[directory.into(), credentials.into(), contact.into()]).map(drop)
}

pub(crate) fn forget_account(tx: &mut Tx<'_>, directory: &str) -> Result<(), RecordsError> {
    tx.execute("DELETE FROM acme_accounts WHERE directory = $1", &[directory.into()]).map(drop)
}

pub(crate) fn certificate(tx: &mut Tx<'_>, name: &str) -> Result<Option<Issued>, RecordsError> {
    let sql = "SELECT chain, private_key FROM acme_certificates WHERE name = $1";
    tx.query_first(sql, &[name.into()])?.map(|row| Ok(Issued { chain: row.get(0)?, key: row.get(1)? })).transpose()
}

pub(crate) fn put_certificate(tx: &mut Tx<'_>, name: &str, issued: &Issued) -> Result<(), RecordsError> {
    let sql = "INSERT INTO acme_certificates (name, chain, private_key, issued) VALUES ($1, $2, $3, $4)
               ON CONFLICT (name) DO UPDATE SET chain = excluded.chain, private_key = excluded.private_key,
               issued = excluded.issued";
    tx.execute(sql, &[name.into(), (&issued.chain).into(), (&issued.key).into(), now().into()])?;
    tx.execute("DELETE FROM acme_failures WHERE name = $1", &[name.into()]).map(drop)
}

/// How often ordering has failed in a row, and until when it rests.
pub(crate) fn failures(tx: &mut Tx<'_>, name: &str) -> Result<(i64, Timestamp), RecordsError> {
    let sql = "SELECT failures, until FROM acme_failures WHERE name = $1";
    match tx.query_first(sql, &[name.into()])? {
        Some(row) => Ok((row.get(0)?, row.get(1)?)),
        None => Ok((0, Timestamp(0))),
    }
}

pub(crate) fn put_failures(
    tx: &mut Tx<'_>,
    name: &str,
    (failures, until): (i64, Timestamp),
) -> Result<(), RecordsError> {
    let sql = "INSERT INTO acme_failures (name, failures, until) VALUES ($1, $2, $3)
               ON CONFLICT (name) DO UPDATE SET failures = excluded.failures, until = excluded.until";
    tx.execute(sql, &[name.into(), failures.into(), until.into()]).map(drop)
}

/// What is answered to a question of the authority: by token over HTTP, by name over TLS.
pub(crate) fn answer(tx: &mut Tx<'_>, kind: Challenge, name: &str) -> Result<Option<String>, RecordsError> {
    let sql = "SELECT answer FROM acme_challenges WHERE kind = $1 AND name = $2 AND until > $3";
    let row = tx.query_first(sql, &[kind.name().into(), name.into(), now().into()])?;
    row.map(|row| row.get(0)).transpose()
}

pub(crate) fn put_answer(tx: &mut Tx<'_>, kind: Challenge, name: &str, answer: &str) -> Result<(), RecordsError> {
    tx.execute("DELETE FROM acme_challenges WHERE until <= $1", &[now().into()])?;
    let until = now().0.saturating_add(ANSWER_MS);
    let sql = "INSERT INTO acme_challenges (kind, name, answer, until) VALUES ($1, $2, $3, $4)
               ON CONFLICT (kind, name) DO UPDATE SET answer = excluded.answer, until = excluded.until";
    tx.execute(sql, &[kind.name().into(), name.into(), answer.into(), until.into()]).map(drop)
}

pub(crate) fn forget_answer(tx: &mut Tx<'_>, kind: Challenge, name: &str) -> Result<(), RecordsError> {
    let sql = "DELETE FROM acme_challenges WHERE kind = $1 AND name = $2";
    tx.execute(sql, &[kind.name().into(), name.into()]).map(drop)
}
