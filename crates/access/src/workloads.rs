//! Identities of workloads: a token that GitHub, GitLab, Kubernetes or another issuer gives a job or a service account,
//! taken for a robot that lives as long as the token.
//!
//! A rule says which claims a token must have and what it gets for them. Who fits becomes a robot
//! `workload+<issuer>+<digits>`, whose rights are looked up, listed and revoked as those of any other.

use std::collections::BTreeMap;

use model::{ImagePattern, Timestamp};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use store::{RecordsError, Tx};

use crate::issuer::{Issuer, IssuerConfig, named_issuer, texts};
use crate::secret::ROBOT_TOKEN;
use crate::{Access, AccessError, Principal, RobotAction, RobotPrincipal, Secret, now};

/// How long what a token gives lasts at most, in milliseconds, whatever the token says.
const LONGEST: i64 = 24 * 60 * 60 * 1000;

/// An issuer whose workloads may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadConfig {
    /// Who it is.
    pub issuer: IssuerConfig,
    /// Whom its tokens must be for: `aud`.
    pub audience: String,
    /// What a token gets: the first rule that it fits decides.
    pub rules: Vec<WorkloadRule>,
}

/// What tokens with these claims may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadRule {
    /// Claims by name, each with a pattern in which `*` stands for any text. All of them must fit.
    pub claims: BTreeMap<String, String>,
    /// Which images.
    pub images: Vec<ImagePattern>,
    /// What with them.
    pub actions: Vec<RobotAction>,
}

/// An issuer that is ready for use.
#[derive(Debug)]
pub(crate) struct Workloads {
    issuer: Issuer,
    audience: String,
    rules: Vec<WorkloadRule>,
}

impl Workloads {
    pub(crate) fn new(config: WorkloadConfig) -> Result<Self, String> {
        Ok(Self { issuer: Issuer::new(config.issuer)?, audience: config.audience, rules: config.rules })
    }
}

impl WorkloadRule {
    fn fits(&self, claims: &Map<String, Value>) -> bool {
        let fits = |(name, pattern): (&String, &String)| texts(claims, name).iter().any(|text| like(pattern, text));
        // A rule without a condition would be for everybody whom the issuer knows.
        !self.claims.is_empty() && self.claims.iter().all(fits)
    }
}

/// Whether a text is as a pattern in which `*` stands for any text.
fn like(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl Access {
    /// Whom a token of a workload is of.
    pub(crate) async fn by_workload(&self, token: &Secret) -> Result<Principal, AccessError> {
        let named = named_issuer(token.expose()).ok_or(AccessError::BadCredentials)?;
        let known: Vec<&Workloads> =
            self.identities.workloads.iter().filter(|it| it.issuer.config().issuer == named).collect();
        for workloads in known {
            match workloads.issuer.verify(token.expose(), &workloads.audience).await {
                Ok(claims) => return self.admit(workloads, &claims).await,
                Err(why) => tracing::info!(%why, "the token of a workload is not taken"),
            }
        }
        Err(AccessError::BadCredentials)
    }

    /// Makes, or keeps, the robot of a workload.
    async fn admit(&self, workloads: &Workloads, claims: &Map<String, Value>) -> Result<Principal, AccessError> {
        let Some(rule) = workloads.rules.iter().find(|rule| rule.fits(claims)) else {
            tracing::info!(issuer = workloads.issuer.config().name, "the token of a workload fits no rule");
            return Err(AccessError::BadCredentials);
        };
        let expires = claims.get("exp").and_then(Value::as_i64).unwrap_or(0).saturating_mul(1000);
        let expires = Timestamp(expires.min(now().0 + LONGEST));
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let words = |texts: Vec<String>| texts.join(" ");
        let images = words(rule.images.iter().map(ToString::to_string).collect());
        let mut actions = rule.actions.clone();
        actions.sort_unstable();
        let actions = words(actions.iter().map(ToString::to_string).collect());
        // What it gets is part of who it is: one token of a subject never changes what another one gave.
        let digest = Sha256::digest(serde_json::to_vec(&(subject, &images, &actions)).unwrap_or_default());
        let login = format!("workload+{}+{}", workloads.issuer.config().name, hex::encode(&digest[..8]));
        let known = (login.clone(), images, actions);
        let (found, asked) = (known.clone(), expires);
        let kept = self.records.read(move |tx| kept(tx, &found, asked)).await?;
        let id = match kept {
            Some(id) => id,
            None => self.change(move |tx| put(tx, &known, expires)).await?,
        };
        Ok(Principal::Robot(RobotPrincipal { id, login }))
    }
}

/// Login, patterns and actions, as they are stored.
type Stored = (String, String, String);

/// The robot, if it is there as it should be.
fn kept(tx: &mut Tx<'_>, (login, images, actions): &Stored, expires: Timestamp) -> Result<Option<i64>, RecordsError> {
    let sql = "SELECT id FROM robots WHERE login = $1 AND images = $2 AND actions = $3 AND expires >= $4";
    let row = tx.query_first(sql, &[login.into(), images.into(), actions.into(), expires.into()])?;
    row.map(|row| row.get(0)).transpose()
}

fn put(tx: &mut Tx<'_>, (login, images, actions): &Stored, expires: Timestamp) -> Result<i64, RecordsError> {
    let gone = "DELETE FROM robots WHERE expires <= $1 AND login LIKE 'workload+%'";
    tx.execute(gone, &[now().into()])?;
    let hash = Secret::generate(ROBOT_TOKEN).hash();
    let id = match tx.query_first("SELECT id FROM robots WHERE login = $1", &[login.into()])? {
        Some(row) => row.get(0)?,
        None => tx.next_id("robots")?,
    };
    // The row's own secret is known to nobody.
    let sql = "INSERT INTO robots (id, login, images, actions, lookup, hash, created, expires, used)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7)
               ON CONFLICT (id) DO UPDATE SET images = excluded.images, actions = excluded.actions,
                   expires = excluded.expires, used = excluded.used";
    let values = [
        id.into(),
        login.into(),
        images.into(),
        actions.into(),
        hash.lookup().into(),
        hash.bytes().into(),
        now().into(),
        expires.into(),
    ];
    tx.execute(sql, &values)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, yes, no) in [
            (
                "repo:acme/app:*",
                &["repo:acme/app:ref:refs/heads/main", "repo:acme/app:"][..],
                &["repo:acme/app2:x"][..],
            ),
            ("acme/app", &["acme/app"], &["acme/app2", "xacme/app", ""]),
            ("*", &["", "x"], &[]),
            ("a*b*c", &["abc", "aXbYc", "abbcc"], &["ab", "acb", "xabc"]),
            ("ab*ba", &["abba", "abxba"], &["aba", "ab"]),
        ] {
            assert!(yes.iter().all(|text| like(pattern, text)), "{pattern}: {yes:?}");
            assert!(!no.iter().any(|text| like(pattern, text)), "{pattern}: {no:?}");
        }
    }

    #[test]
    fn a_rule_without_a_condition_fits_nobody() {
        let rule = WorkloadRule { claims: BTreeMap::new(), images: Vec::new(), actions: Vec::new() };
        assert!(!rule.fits(&Map::new()));
    }
}
