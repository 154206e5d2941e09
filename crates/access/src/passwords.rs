//! Passwords that were brought along from an htpasswd file. None is ever set here; people who come anew get tokens.
//!
//! A password stands for a token row of its own, made when it is imported: its scopes, its last use and its end are those
//! of that token. A bcrypt takes a tenth of a second by design, so it runs on few threads, and a success is remembered
//! for a while: as an HMAC under a key that only this process has, over name, password and stored hash, so that a changed
//! hash is a new question. An unknown user takes as long as a wrong password.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use model::{RepoName, UserId};
use sha2::Sha256;
use store::{RecordsError, Tx};
use tokio::sync::Semaphore;

use crate::accounts::{OwnerKind, find_owner, insert_owner};
use crate::schema::fold;
use crate::{Access, AccessError, Principal, Scope, Secret, User, now, tokens};

/// What the token row of a password is called.
const NAME: &str = "password from htpasswd";

/// How long a success is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The most successes that are remembered.
const MOST: usize = 10_000;

/// How many passwords are checked at the same time.
const AT_ONCE: usize = 2;

/// How long one waits for its turn at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest password that is looked at, in bytes.
const LONGEST: usize = 1024;

/// The highest cost of a hash that is imported: each step doubles the time, and this one takes a second.
const MAX_COST: u32 = 14;

/// The most users of one file.
const MAX_USERS: usize = 10_000;

/// What checking passwords needs.
pub(crate) struct Passwords {
    key: Secret,
    turns: Semaphore,
    seen: Mutex<HashMap<[u8; 32], Instant>>,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

impl Passwords {
    pub(crate) fn new() -> Self {
        Self { key: Secret::generate(""), turns: Semaphore::new(AT_ONCE), seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a success is remembered by. Each part comes after its length, so that none can lend to the next.
    fn mark(&self, user: i64, password: &str, hash: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose().as_bytes()).expect("any length is a key");
        mac.update(&user.to_be_bytes());
        for part in [password, hash] {
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    fn remembers(&self, mark: &[u8; 32]) -> bool {
        self.seen().get(mark).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, mark: [u8; 32]) {
        let mut seen = self.seen();
        if seen.len() >= MOST {
            seen.clear();
        }
        seen.insert(mark, Instant::now());
    }

    /// Compares in the time that the hash's cost sets.
    async fn verify(&self, password: &Secret, hash: String) -> Result<bool, AccessError> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| AccessError::Busy)?.map_err(|_| AccessError::Busy)?;
        let password = password.clone();
        let verified = tokio::task::spawn_blocking(move || bcrypt::verify(password.expose(), &hash));
        Ok(verified.await.map_err(|_| AccessError::Busy)?.unwrap_or(false))
    }
}

/// What became of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Users who are new.
    pub created: usize,
    /// Users who were there and sign in with this password now.
    pub updated: usize,
}

impl Access {
    /// Takes over the users of an htpasswd file whose passwords are bcrypt (`htpasswd -B`). They pull, push and delete
    /// images with them as before; for everything else they need a token. All of the file is taken over, or nothing.
    ///
    /// # Errors
    /// [`AccessError::Htpasswd`] names the line; [`AccessError::BadName`] when a name is reserved here; [`AccessError::Exists`] when a name is an organisation's.
    pub async fn import_htpasswd(&self, text: &str) -> Result<Imported, AccessError> {
        let entries = parse(text)?;
        for (name, _) in &entries {
            self.checked(name)?;
        }
        self.change(move |tx| {
            let mut done = Imported::default();
            for (name, hash) in entries {
                if import(tx, &name, &hash)? {
                    done.created += 1;
                } else {
                    done.updated += 1;
                }
            }
            Ok(done)
        })
        .await
    }

    /// Who signs in with this name and password.
    pub(crate) async fn by_password(&self, name: &str, password: &Secret) -> Result<Principal, AccessError> {
        if name.is_empty() || password.expose().is_empty() || password.expose().len() > LONGEST {
            return Err(AccessError::BadCredentials);
        }
        let folded = fold(name);
        let found = self.records.read(move |tx| find(tx, &folded)).await?;
        let passwords = &self.shared.passwords;
        let (user, hash) = match found {
            Found::User(user, hash) => (user, hash),
            Found::None => return Err(AccessError::BadCredentials),
            // Somebody else's hash takes as long as their own would.
            Found::Nobody(hash) => {
                passwords.verify(password, hash).await?;
                return Err(AccessError::BadCredentials);
            }
        };
        let mark = passwords.mark(user.id.0, password.expose(), &hash);
        if !passwords.remembers(&mark) {
            if !passwords.verify(password, hash).await? {
                return Err(AccessError::BadCredentials);
            }
            passwords.remember(mark);
            self.note_use("tokens", user.token.0);
        }
        Ok(Principal::User(*user))
    }
}

fn parse(text: &str) -> Result<Vec<(String, String)>, AccessError> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why| AccessError::Htpasswd { line: number + 1, why };
        let (name, hash) = line.split_once(':').ok_or_else(|| wrong("is not NAME:HASH"))?;
        if !RepoName::valid_owner(name) {
            return Err(wrong("has a name that no user can have: letters, digits, . _ -, not a reserved name"));
        }
        let parts = hash.parse::<bcrypt::HashParts>();
        let cost = parts.map_err(|_| wrong("has no bcrypt hash; make one with `htpasswd -B`"))?.get_cost();
        if cost > MAX_COST {
            return Err(wrong("has a bcrypt hash with a cost above 14"));
        }
        if entries.iter().any(|(known, _)| fold(known) == fold(name)) {
            return Err(wrong("has a name that was there before"));
        }
        if entries.len() >= MAX_USERS {
            return Err(wrong("is one user too many: 10,000 at a time"));
        }
        entries.push((name.to_owned(), hash.to_owned()));
    }
    Ok(entries)
}

/// Whether the user is new.
fn import(tx: &mut Tx<'_>, name: &str, hash: &str) -> Result<bool, RecordsError> {
    let (id, created) = match find_owner(tx, name)? {
        Some((id, OwnerKind::User)) => (id, false),
        Some((_, OwnerKind::Organisation)) => return Err(AccessError::Exists(name.to_owned()).into()),
        None => (insert_owner(tx, name, OwnerKind::User, false)?, true),
    };
    // The row's own secret is known to nobody.
    tx.execute("DELETE FROM passwords WHERE holder = $1", &[id.into()])?;
    tx.execute("DELETE FROM tokens WHERE holder = $1 AND name = $2", &[id.into(), NAME.into()])?;
    let token = tokens::insert(tx, UserId(id), NAME, &[Scope::WritePackage], None, &Secret::generate(""))?;
    let sql = "INSERT INTO passwords (holder, token, hash, changed) VALUES ($1, $2, $3, $4)";
    tx.execute(sql, &[id.into(), token.0.into(), hash.into(), now().into()])?;
    Ok(created)
}

enum Found {
    User(Box<User>, String),
    /// Not this user, but there are others with passwords: the hash of one of them.
    Nobody(String),
    /// Nobody has a password.
    None,
}

fn find(tx: &mut Tx<'_>, folded: &str) -> Result<Found, RecordsError> {
    let sql = "SELECT passwords.hash, tokens.id, tokens.scopes, owners.id, owners.name, owners.admin
               FROM owners JOIN passwords ON passwords.holder = owners.id
               JOIN tokens ON tokens.id = passwords.token
               WHERE owners.folded = $1";
    if let Some(row) = tx.query_first(sql, &[folded.into()])? {
        return Ok(Found::User(Box::new(tokens::user(&row)?), row.get(0)?));
    }
    let other = tx.query_first("SELECT hash FROM passwords ORDER BY holder LIMIT 1", &[])?;
    other.map_or(Ok(Found::None), |row| Ok(Found::Nobody(row.get(0)?)))
}
