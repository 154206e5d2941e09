//! The keys that the registry's tokens are signed with.
//!
//! Each has an id, which its tokens name. The newest signs; one that was retired still verifies until every token it
//! signed has run out, so nobody is logged out by a rotation. Replicas read the keys again after ten seconds, and at once
//! when they meet an id they do not know.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit};
use model::Timestamp;
use rand::RngExt;
use rand::distr::Alphanumeric;
use sha2::Sha256;
use store::{Records, RecordsError, Tx};

use crate::{Access, AccessError, Secret, now};

/// How long a retired key still verifies, in milliseconds: three times as long as a token and the time in which a replica
/// may not have noticed.
const KEPT: i64 = 15 * 60 * 1000;

/// After which time the keys are read again.
const FRESH: Duration = Duration::from_secs(10);

/// How often an unknown id may have them read again at most.
const UNKNOWN: Duration = Duration::from_millis(200);

/// A key, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id, which tokens name.
    pub id: String,
    /// Since when it signs.
    pub created: Timestamp,
    /// Since when it only verifies.
    pub retired: Option<Timestamp>,
}

/// A key that is ready for use.
pub(crate) struct Key {
    record: KeyRecord,
    /// With the key taken in: half the work of a short token.
    mac: Hmac<Sha256>,
}

impl Key {
    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }

    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        self.mac.clone()
    }
}

/// The keys as they were read last, newest first.
pub(crate) struct Keys(RwLock<Arc<Read>>);

struct Read {
    keys: Vec<Arc<Key>>,
    at: Instant,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Reads the keys, making the first if there is none.
    pub(crate) async fn open(records: &Records) -> Result<Self, AccessError> {
        let keys = records.write(|tx| {
            if current(tx)?.is_none() {
                insert(tx)?;
            }
            read(tx)
        });
        Ok(Self(RwLock::new(Arc::new(Read { keys: keys.await?, at: Instant::now() }))))
    }

    fn now(&self) -> Arc<Read> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, keys: Vec<Arc<Key>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Read { keys, at: Instant::now() });
    }

    /// The key that signs.
    pub(crate) fn signing(&self) -> Arc<Key> {
        let read = self.now();
        Arc::clone(&read.keys[0])
    }

    /// The key of this id, if it still verifies.
    pub(crate) fn verifying(&self, id: &str) -> Option<Arc<Key>> {
        let read = self.now();
        let key = read.keys.iter().find(|key| key.record.id == id)?;
        key.record.retired.is_none_or(|retired| now().0 - retired.0 < KEPT).then(|| Arc::clone(key))
    }
}

impl Access {
    /// Makes a new signing key. The old ones verify for another fifteen minutes; with `at_once`, which is for keys that
    /// became known, every token they signed is refused from now on, here at once and by replicas within ten seconds, and
    /// clients ask for new ones. Returns the new key's id.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn rotate_keys(&self, at_once: bool) -> Result<String, AccessError> {
        let keys = self.records.write(move |tx| {
            let at = now();
            let gone = if at_once { at.0 } else { at.0 - KEPT };
            tx.execute("UPDATE signing_keys SET retired = $1 WHERE retired IS NULL", &[at.into()])?;
            tx.execute("DELETE FROM signing_keys WHERE retired <= $1", &[gone.into()])?;
            insert(tx)?;
            read(tx)
        });
        self.shared.keys.put(keys.await?);
        Ok(self.shared.keys.signing().id().to_owned())
    }

    /// The keys, the one that signs first.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn list_keys(&self) -> Result<Vec<KeyRecord>, AccessError> {
        let keys = self.records.read(read).await?;
        Ok(keys.iter().map(|key| key.record.clone()).collect())
    }

    /// Reads the keys again if they are old.
    ///
    /// # Errors
    /// When the records fail.
    pub async fn refresh_keys(&self) -> Result<(), AccessError> {
        self.read_keys(FRESH).await
    }

    /// Reads the keys again for an id that is not known, unless that was just done.
    pub(crate) async fn look_for_key(&self) -> Result<(), AccessError> {
        self.read_keys(UNKNOWN).await
    }

    async fn read_keys(&self, age: Duration) -> Result<(), AccessError> {
        if self.shared.keys.now().at.elapsed() < age {
            return Ok(());
        }
        let keys = self.records.read(read).await?;
        if !keys.is_empty() {
            self.shared.keys.put(keys);
        }
        Ok(())
    }
}

fn current(tx: &mut Tx<'_>) -> Result<Option<String>, RecordsError> {
    let row = tx.query_first("SELECT name FROM signing_keys WHERE retired IS NULL LIMIT 1", &[])?;
    row.map(|row| row.get(0)).transpose()
}

fn insert(tx: &mut Tx<'_>) -> Result<(), RecordsError> {
    let id: String = rand::rng().sample_iter(Alphanumeric).take(8).map(char::from).collect();
    let secret = Secret::generate("");
    let sql = "INSERT INTO signing_keys (name, secret, created) VALUES ($1, $2, $3)";
    tx.execute(sql, &[id.into(), secret.expose().into(), now().into()]).map(drop)
}

/// The key that signs first, then the retired ones, the last retired first.
fn read(tx: &mut Tx<'_>) -> Result<Vec<Arc<Key>>, RecordsError> {
    let sql = "SELECT name, secret, created, retired FROM signing_keys";
    let mut keys = Vec::new();
    for row in tx.query(sql, &[])? {
        let secret: Secret = row.get::<String>(1)?.into();
        let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("any length is a key");
        let record = KeyRecord { id: row.get(0)?, created: row.get(2)?, retired: row.get(3)? };
        keys.push(Arc::new(Key { record, mac }));
    }
    keys.sort_by_key(|key| std::cmp::Reverse(key.record.retired.map_or(i64::MAX, |retired| retired.0)));
    Ok(keys)
}
