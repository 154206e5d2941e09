//! Leases: which replica does what. A replica that dies loses its leases when they expire, not its work.
//!
//! The tables are made by [`log::install`](crate::log::install).

use model::Timestamp;

use crate::records::{RecordsError, Tx};

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who has, or had, it.
    pub holder: String,
    /// Until when. Who comes after that may take it.
    pub until: Timestamp,
}

/// Takes the lease `name` for `ttl_ms` milliseconds. Returns false if another holder has it. A holder that takes it again
/// has it for longer.
///
/// # Errors
/// As [`Tx::execute`].
pub fn acquire(tx: &mut Tx<'_>, name: &str, holder: &str, now: Timestamp, ttl_ms: i64) -> Result<bool, RecordsError> {
    let until = now.0.saturating_add(ttl_ms.max(0));
    let sql = "INSERT INTO leases (name, holder, until) VALUES ($1, $2, $3)
               ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
               WHERE leases.holder = excluded.holder OR leases.until <= $4";
    let changed = tx.execute(sql, &[name.into(), holder.into(), until.into(), now.into()])?;
    Ok(changed > 0)
}

/// Keeps the lease `name` for `ttl_ms` milliseconds from now. Returns false if it expired or another has it: the holder
/// must stop what it does under it.
///
/// # Errors
/// As [`Tx::execute`].
pub fn renew(tx: &mut Tx<'_>, name: &str, holder: &str, now: Timestamp, ttl_ms: i64) -> Result<bool, RecordsError> {
    let until = now.0.saturating_add(ttl_ms.max(0));
    let sql = "UPDATE leases SET until = $3 WHERE name = $1 AND holder = $2 AND until > $4";
    let changed = tx.execute(sql, &[name.into(), holder.into(), until.into(), now.into()])?;
    Ok(changed > 0)
}

/// Gives the lease `name` back. Nothing happens if another has it.
///
/// # Errors
/// As [`Tx::execute`].
pub fn release(tx: &mut Tx<'_>, name: &str, holder: &str) -> Result<(), RecordsError> {
    tx.execute("DELETE FROM leases WHERE name = $1 AND holder = $2", &[name.into(), holder.into()]).map(drop)
}

/// The leases whose names begin with `start`, with their names; some may have expired.
///
/// # Errors
/// As [`Tx::query`].
pub fn beginning_with(tx: &mut Tx<'_>, start: &str) -> Result<Vec<(String, Lease)>, RecordsError> {
    let rows = tx.query("SELECT name, holder, until FROM leases ORDER BY name", &[])?;
    let lease = |row: &crate::Row| Ok((row.get(0)?, Lease { holder: row.get(1)?, until: row.get(2)? }));
    let all: Vec<(String, Lease)> = rows.iter().map(lease).collect::<Result<_, RecordsError>>()?;
    Ok(all.into_iter().filter(|(name, _)| name.starts_with(start)).collect())
}

/// The lease `name`, if somebody took it and has not given it back; it may have expired.
///
/// # Errors
/// As [`Tx::query`].
pub fn holder(tx: &mut Tx<'_>, name: &str) -> Result<Option<Lease>, RecordsError> {
    let row = tx.query_first("SELECT holder, until FROM leases WHERE name = $1", &[name.into()])?;
    row.map(|row| Ok(Lease { holder: row.get(0)?, until: row.get(1)? })).transpose()
}
