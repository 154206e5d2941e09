//! Who asks, told to whoever began to serve a request before that was known.

use std::sync::{Arc, OnceLock};

use crate::Principal;

/// Who asks, as soon as it is known. Put into a request's extensions empty; whoever authenticates the request fills it, and
/// the log and the limits read it at the end. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Asker(Arc<OnceLock<Principal>>);

impl Asker {
    /// Says who it is. What was said first stays.
    pub fn is(&self, who: &Principal) {
        self.0.get_or_init(|| who.clone());
    }

    /// Who it is; nothing if nobody was asked, or the credentials were wrong.
    pub fn who(&self) -> Option<&Principal> {
        self.0.get()
    }
}
