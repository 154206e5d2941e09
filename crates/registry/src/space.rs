//! Room on the data disk: what frees it gets the reserve, and nothing is pushed while that is out.

use store::{BlobError, Reserve};

use crate::{Registry, RegistryError};

impl Registry {
    /// Says what is kept aside on the data disk. To be called once; without it nothing is.
    pub fn set_reserve(&self, reserve: Reserve) {
        if self.shared.reserve.set(reserve).is_err() {
            tracing::warn!("the registry was told twice of its reserve; the first counts");
        }
    }

    /// Lets whoever frees space begin on a full disk.
    pub(crate) fn give_way(&self) {
        if let Some(reserve) = self.shared.reserve.get() {
            reserve.give_way();
        }
    }

    /// Fails if nothing may be pushed, because the disk is so full that its reserve is in use.
    pub(crate) async fn refuse_full(&self) -> Result<(), RegistryError> {
        let Some(reserve) = self.shared.reserve.get().filter(|reserve| reserve.is_out()) else { return Ok(()) };
        if self.set_aside(reserve).await {
            return Ok(());
        }
        Err(BlobError::NoSpace { path: reserve.dir().to_owned() }.into())
    }

    /// Sets the reserve aside again, if it was used and there is room.
    pub(crate) async fn refill(&self) {
        if let Some(reserve) = self.shared.reserve.get().filter(|reserve| reserve.is_out()) {
            self.set_aside(reserve).await;
        }
    }

    async fn set_aside(&self, reserve: &Reserve) -> bool {
        let reserve = reserve.clone();
        match tokio::task::spawn_blocking(move || reserve.set_aside()).await {
            Ok(Ok(aside)) => aside,
            Ok(Err(error)) => {
                tracing::error!(%error, "the reserve of the data disk cannot be set aside");
                false
            }
            Err(_) => false,
        }
    }
}
