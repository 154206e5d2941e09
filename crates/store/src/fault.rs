//! Fault points: places at which a test cuts the power of this process.
//!
//! With the cargo feature `fault`, [`point`] counts how often each name is passed and kills the process with SIGKILL at
//! the count that the environment variable `TOWPATH_FAULT` names: `before-sync:3` is the third time `before-sync` is
//! passed, `any:40` the fortieth point of any name. Without the feature nothing is compiled in.

/// Before a transaction that appended events is committed.
pub const BEFORE_SYNC: &str = "before-sync";
/// After a transaction that appended events is durable, before its writer hears of it.
pub const AFTER_SYNC: &str = "after-sync";
/// Before any other transaction is committed.
pub const BEFORE_COMMIT: &str = "before-commit";
/// After any other transaction is durable.
pub const AFTER_COMMIT: &str = "after-commit";
/// Before a blob is synced and gets its name.
pub const BEFORE_BLOB_SYNC: &str = "before-blob-sync";
/// After the content of a blob is durable, before it gets its name.
pub const BEFORE_BLOB_NAME: &str = "before-blob-name";
/// After a blob has its name, before that is durable.
pub const BEFORE_NAME_SYNC: &str = "before-name-sync";
/// After a blob and its name are durable.
pub const AFTER_BLOB_SYNC: &str = "after-blob-sync";
/// After a part of an upload is written, before the client hears of it.
pub const AFTER_UPLOAD_PART: &str = "after-upload-part";
/// After a part of an upload is in the bucket, before the records say so.
pub const AFTER_UPLOAD_STAGED: &str = "after-upload-staged";
/// Before the file of a blob that no record names is removed.
pub const BEFORE_BLOB_REMOVAL: &str = "before-blob-removal";
/// After a blob that is being removed has lost its name, before its file is gone.
pub const AFTER_BLOB_ASIDE: &str = "after-blob-aside";
/// Before blobs that nothing refers to are taken away from their images.
pub const BEFORE_UNLINK: &str = "before-unlink";
/// After that is durable; their bytes are still there.
pub const AFTER_UNLINK: &str = "after-unlink";
/// After blobs were marked as being removed, before the first of them goes.
pub const BEFORE_REMOVAL: &str = "before-removal";
/// After they are gone, before the records say so.
pub const AFTER_REMOVAL: &str = "after-removal";
/// Before a batch of what retention takes away is deleted.
pub const BEFORE_RETENTION: &str = "before-retention";
/// After that is durable.
pub const AFTER_RETENTION: &str = "after-retention";

/// After it is noted what is about to be pushed to another registry, before anything is.
pub const BEFORE_REPLICA: &str = "before-replica";
/// After an image is at another registry with its tag, before the records say so.
pub const AFTER_REPLICA: &str = "after-replica";
/// After the records say so, before it leaves the queue.
pub const BEFORE_DEQUEUE: &str = "before-dequeue";
/// After a tag was taken away at another registry, before the records say so.
pub const AFTER_REPLICA_REMOVAL: &str = "after-replica-removal";

/// Passes the point `name`; does not return if `TOWPATH_FAULT` asks for a death here.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Passes the point `name`; does not return if `TOWPATH_FAULT` asks for a death here.
#[cfg(feature = "fault")]
pub fn point(name: &str) {
    use std::collections::HashMap;
    use std::sync::{Mutex, OnceLock, PoisonError};

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: OnceLock<Mutex<HashMap<String, u64>>> = OnceLock::new();

    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("TOWPATH_FAULT").ok()?;
        let (name, count) = text.rsplit_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    let Some((wanted, at)) = wanted else { return };
    if wanted != "any" && wanted != name {
        return;
    }
    let mut passed = PASSED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let count = passed.entry(wanted.clone()).or_insert(0);
    *count += 1;
    if *count == *at {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal may reach another thread a moment later; this one goes no further.
        loop {
            std::thread::park();
        }
    }
}
