//! What every route has at hand, with and without a pipeline.

use access::{Access, AccessError, Action, Asker, Authorized, Credentials, Principal, Resource};
use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use pipeline::Basis;
use registry::Registry;
use registry::replication::Replication;
use registry::upstream::Upstreams;
use store::Records;
use tokio::sync::watch;

use crate::problem::Problem;

/// The rooms of routes that need no pipeline: accounts, tokens, the registry and its management.
#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) access: Access,
    pub(crate) registry: Registry,
    pub(crate) upstreams: Upstreams,
    pub(crate) replication: Replication,
    pub(crate) records: Records,
    /// Turns true when the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Core {
    pub(crate) fn new(basis: &Basis, stopping: watch::Receiver<bool>) -> Self {
        Self {
            access: basis.access.clone(),
            registry: basis.registry.clone(),
            upstreams: basis.upstreams.clone(),
            replication: basis.replication.clone(),
            records: basis.records.clone(),
            stopping,
        }
    }

    /// Asks the gate.
    pub(crate) async fn allow(
        &self,
        who: &Principal,
        action: Action,
        resource: Resource,
    ) -> Result<Authorized, Problem> {
        Ok(self.access.authorize(who, action, resource).await?)
    }

    /// Returns when the server stops.
    pub(crate) async fn stopped(&self) {
        // The sender is gone: stopped as well.
        let _ = self.stopping.clone().wait_for(|stop| *stop).await;
    }

    /// Looks after the registry until the server stops.
    pub(crate) async fn keep_house(self) {
        self.registry.keep_house(self.stopped()).await;
    }
}

/// Who asks: taken from the Authorization header, once for a request.
pub(crate) struct Who(pub(crate) Principal);

impl<S> FromRequestParts<S> for Who
where
    Core: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let mut headers = parts.headers.get_all(http::header::AUTHORIZATION).iter();
        let header = match (headers.next(), headers.next()) {
            (_, Some(_)) => return Err(AccessError::BadHeader("sent more than once").into()),
            // What cannot be read is never taken for none.
            (Some(value), None) => Some(value.to_str().map_err(|_| AccessError::BadHeader("not text"))?),
            (None, None) => None,
        };
        let who = Core::from_ref(state).access.authenticate(&Credentials::from_header(header)?).await?;
        if let Some(asker) = parts.extensions.get::<Asker>() {
            asker.is(&who);
        }
        Ok(Self(who))
    }
}

impl Who {
    /// Refuses nobody in particular, before anything is read from them.
    pub(crate) fn known(&self) -> Result<(), Problem> {
        if self.0 == Principal::Anonymous { Err(access::Denied::Unauthenticated.into()) } else { Ok(()) }
    }
}

/// The name to record for who did something.
pub(crate) fn name_of(who: &Principal) -> String {
    who.to_string()
}
