//! How much a client may ask. A client is the holder of credentials that were good before, and else an address; of IPv6
//! the network of 64 bits that one customer has.
//!
//! Everything is kept in tables of bounded size.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use access::Principal;
use config::RateLimits;
use http::StatusCode;

/// Parts of a table, so that threads seldom wait for each other.
const SHARDS: usize = 16;
/// Entries of a part.
const MOST_ENTRIES: usize = 4096;

/// What the registry's own short tokens look like in a header. They are signed: there is nothing to guess, and an expired
/// one is what an honest client shows.
const REGISTRY_TOKEN: &[u8] = b"Bearer twb_";

/// The limits of a server.
pub(crate) struct Limits {
    requests: Option<Buckets>,
    logins: Option<Buckets>,
    /// Whose credentials were good, by the hash of the header.
    holders: Table<u64>,
    hash: RandomState,
}

/// A request that was let in.
pub(crate) struct Pass {
    address: u64,
    /// The hash of its credentials.
    credentials: Option<u64>,
    /// Whether they were good before.
    known: bool,
    /// Whether they fail at the cost of the address.
    login: bool,
}

/// A request that was not, and the seconds after which it may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The client asks too often.
    Requests(u64),
    /// Too many logins from this address failed.
    Logins(u64),
}

impl Limits {
    pub(crate) fn new(limits: &RateLimits) -> Self {
        let requests = limits.requests_per_second.map(|rate| Buckets::new(f64::from(rate), f64::from(limits.burst())));
        let failed = f64::from(limits.failed_logins_per_minute);
        let logins = (failed > 0.0).then(|| Buckets::new(failed / 60.0, failed));
        Self { requests, logins, holders: Table::default(), hash: RandomState::new() }
    }

    /// Whether a request may be served. Nothing is asked of a client on this machine that shows no good credentials: behind
    /// its address stand all clients of a proxy that is not listed.
    ///
    /// `login` says that the body holds credentials.
    pub(crate) fn admit(
        &self,
        client: IpAddr,
        header: Option<&[u8]>,
        login: bool,
        now: Instant,
    ) -> Result<Pass, Refused> {
        let local = client.to_canonical().is_loopback();
        let address = self.hash.hash_one(network(client));
        let credentials = header.map(|header| self.hash.hash_one(header));
        let holder = credentials.and_then(|credentials| self.holders.get(credentials));
        let login = !local && (login || header.is_some_and(|header| !header.starts_with(REGISTRY_TOKEN)));
        if let (Some(requests), true) = (&self.requests, holder.is_some() || !local) {
            requests.take(holder.unwrap_or(address), now).map_err(Refused::Requests)?;
        }
        if let (Some(logins), true) = (&self.logins, login && holder.is_none()) {
            logins.look(address, now).map_err(Refused::Logins)?;
        }
        Ok(Pass { address, credentials, known: holder.is_some(), login })
    }

    /// Takes note of how a request ended, and whose it was.
    pub(crate) fn settle(&self, pass: &Pass, who: Option<&Principal>, status: StatusCode, now: Instant) {
        if status == StatusCode::UNAUTHORIZED {
            if let Some(credentials) = pass.credentials.filter(|_| pass.known) {
                self.holders.remove(credentials);
            }
            if let (Some(logins), true) = (&self.logins, pass.login) {
                // What goes below nothing is refused at the next request.
                let _ = logins.take(pass.address, now);
            }
            return;
        }
        let Some(credentials) = pass.credentials.filter(|_| !pass.known) else { return };
        if let Some(holder) = who.filter(|who| **who != Principal::Anonymous) {
            self.holders.put(credentials, self.hash.hash_one(holder.to_string()));
        }
    }
}

/// What stands for an address.
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

/// A table of bounded size, by hashes.
struct Table<T> {
    shards: [Mutex<HashMap<u64, T>>; SHARDS],
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { shards: Default::default() }
    }
}

impl<T: Copy> Table<T> {
    fn with<R>(&self, key: u64, act: impl FnOnce(&mut HashMap<u64, T>) -> R) -> R {
        let shard = &self.shards[key as usize % SHARDS];
        act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, key: u64) -> Option<T> {
        self.with(key, |entries| entries.get(&key).copied())
    }

    fn remove(&self, key: u64) {
        self.with(key, |entries| entries.remove(&key));
    }

    fn put(&self, key: u64, value: T) {
        self.with(key, |entries| insert(entries, key, value));
    }
}

/// A part that is full is emptied: whoever fills it has that many addresses, and to look for what could go would only make
/// their requests dearer.
fn insert<T>(entries: &mut HashMap<u64, T>, key: u64, value: T) {
    if entries.len() >= MOST_ENTRIES && !entries.contains_key(&key) {
        entries.clear();
    }
    entries.insert(key, value);
}

/// What one client still may, at a time.
#[derive(Clone, Copy)]
struct Bucket {
    level: f64,
    at: Instant,
}

/// A bucket for each client: full at first, and filled at a steady rate.
struct Buckets {
    per_second: f64,
    most: f64,
    table: Table<Bucket>,
}

impl Buckets {
    fn new(per_second: f64, most: f64) -> Self {
        Self { per_second, most: most.max(1.0), table: Table::default() }
    }

    fn level(&self, bucket: Option<&Bucket>, now: Instant) -> f64 {
        let Some(bucket) = bucket else { return self.most };
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.level + since * self.per_second).min(self.most)
    }

    /// Takes one out, or says in how many seconds there will be one.
    fn take(&self, key: u64, now: Instant) -> Result<(), u64> {
        self.table.with(key, |entries| {
            let level = self.level(entries.get(&key), now);
            if level < 1.0 {
                return Err(self.wait(level));
            }
            insert(entries, key, Bucket { level: level - 1.0, at: now });
            Ok(())
        })
    }

    /// The same, and leaves it in.
    fn look(&self, key: u64, now: Instant) -> Result<(), u64> {
        let level = self.table.with(key, |entries| self.level(entries.get(&key), now));
        if level < 1.0 { Err(self.wait(level)) } else { Ok(()) }
    }

    fn wait(&self, level: f64) -> u64 {
        // Rounded up, and small: a bucket is never far below one.
        ((1.0 - level) / self.per_second).ceil().max(1.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(rate: Option<u32>, burst: Option<u32>, logins: u32) -> Limits {
        Limits::new(&RateLimits { requests_per_second: rate, burst, failed_logins_per_minute: logins })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_gets_its_burst_and_then_its_rate() {
        let limits = limits(Some(2), Some(4), 0);
        let start = Instant::now();
        let asked =
            |client, after| limits.admit(address(client), None, false, start + Duration::from_millis(after)).err();
        for _ in 0..4 {
            assert_eq!(asked("192.0.2.1", 0), None);
        }
        assert_eq!(asked("192.0.2.1", 0), Some(Refused::Requests(1)));
        assert_eq!(asked("192.0.2.2", 0), None, "another client");
        assert_eq!(asked("192.0.2.1", 500), None);
        assert_eq!(asked("192.0.2.1", 500), Some(Refused::Requests(1)));
        for _ in 0..4 {
            assert_eq!(asked("192.0.2.1", 60_000), None);
        }
        assert!(asked("192.0.2.1", 60_000).is_some(), "no more than the burst is saved up");
        for n in 0..100 {
            assert_eq!(asked("127.0.0.1", 0), None, "{n}");
        }
    }

    #[test]
    fn a_network_of_one_customer_is_one_client() {
        let limits = limits(Some(1), Some(2), 0);
        let now = Instant::now();
        let asked = |client| limits.admit(address(client), None, false, now).is_ok();
        assert!(asked("2001:db8:0:1::1") && asked("2001:db8:0:1:ffff::2") && !asked("2001:db8:0:1::3"));
        assert!(asked("2001:db8:0:2::1"));
        assert!(asked("192.0.2.1") && asked("::ffff:192.0.2.1") && !asked("192.0.2.1"));
    }

    #[test]
    fn failed_logins_close_an_address_but_not_to_who_is_known() {
        let limits = limits(None, None, 3);
        let (client, start) = (address("192.0.2.1"), Instant::now());
        let job = Principal::Job(access::JobPrincipal {
            repository: "works/engine".parse().unwrap(),
            run: model::RunId(1),
            job: model::JobId(7),
            contents: access::Level::Read,
            packages: access::Level::Read,
        });
        let good = limits.admit(client, Some(b"Bearer good"), false, start).unwrap();
        limits.settle(&good, Some(&job), StatusCode::OK, start);
        for n in 0..3 {
            let pass = limits.admit(client, Some(format!("Bearer {n}").as_bytes()), false, start).unwrap();
            limits.settle(&pass, None, StatusCode::UNAUTHORIZED, start);
        }
        assert_eq!(limits.admit(client, Some(b"Bearer 9"), false, start).err(), Some(Refused::Logins(20)));
        assert!(limits.admit(client, None, false, start).is_ok(), "no login");
        assert!(limits.admit(client, None, true, start).is_err(), "one in the body");
        assert!(limits.admit(client, Some(b"Bearer twb_x"), false, start).is_ok(), "nothing to guess");
        assert!(limits.admit(address("192.0.2.2"), Some(b"Bearer 9"), false, start).is_ok(), "another address");
        let good = limits.admit(client, Some(b"Bearer good"), false, start).unwrap();
        limits.settle(&good, Some(&job), StatusCode::UNAUTHORIZED, start);
        assert!(limits.admit(client, Some(b"Bearer good"), false, start).is_err(), "revoked");
        assert!(limits.admit(client, Some(b"Bearer 9"), false, start + Duration::from_secs(21)).is_ok());
    }

    #[test]
    fn tables_are_bounded() {
        let limits = limits(Some(1), Some(1), 0);
        let now = Instant::now();
        for n in 0..200_000_u32 {
            assert!(limits.admit(IpAddr::V4((0x0b00_0000 + n).into()), None, false, now).is_ok());
        }
        let requests = limits.requests.as_ref().unwrap();
        let sizes = requests.table.shards.iter().map(|shard| shard.lock().unwrap().len());
        assert!(sizes.max().unwrap() <= MOST_ENTRIES);
    }
}
