//! What every route has at hand.

use access::{Access, AccessError, Action, Authorized, Credentials, Denied, Principal, Resource};
use axum::extract::{FromRequestParts, Request};
use http::request::Parts;
use model::RepoName;
use pipeline::Pipeline;
use source::HostedRepo;
use tokio::sync::watch;

use crate::edge::Asker;
use crate::problem::Problem;

/// The rooms that routes lead to.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) pipeline: Pipeline,
    /// Turns true when the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl App {
    pub(crate) fn access(&self) -> &Access {
        &self.pipeline.rooms().access
    }

    /// Asks the gate.
    pub(crate) async fn allow(
        &self,
        who: &Principal,
        action: Action,
        resource: Resource,
    ) -> Result<Authorized, Problem> {
        Ok(self.access().authorize(who, action, resource).await?)
    }

    /// Asks the gate for the repository that something belongs to. Whether there is such a thing, and whose it is, is
    /// told only to who may read that repository.
    pub(crate) async fn allow_part(
        &self,
        who: &Principal,
        action: Action,
        repository: Option<RepoName>,
        what: &str,
    ) -> Result<(), Problem> {
        let denied = match repository {
            Some(name) => self.access().authorize(who, action, Resource::Repository(name)).await.err(),
            None if *who == Principal::Anonymous => Some(Denied::Unauthenticated),
            None => Some(Denied::Hidden { resource: String::new() }),
        };
        match denied {
            None => Ok(()),
            Some(Denied::Hidden { .. }) => {
                Err(Problem::not_found(format!("there is no {what}, or you may not see it")))
            }
            Some(denied) => Err(denied.into()),
        }
    }

    /// Returns when the server stops.
    pub(crate) async fn stopped(&self) {
        // The sender is gone: stopped as well.
        let _ = self.stopping.clone().wait_for(|stop| *stop).await;
    }

    /// A repository that `who` may do `action` with.
    pub(crate) async fn repository(
        &self,
        who: &Principal,
        action: Action,
        name: &RepoName,
    ) -> Result<HostedRepo, Problem> {
        self.allow(who, action, Resource::Repository(name.clone())).await?;
        let found = self.pipeline.rooms().hosting.find(name).await?;
        found.ok_or_else(|| Problem::not_found("there is no such thing, or you may not see it"))
    }
}

/// Who asks: taken from the Authorization header, once for a request.
pub(crate) struct Who(pub(crate) Principal);

impl FromRequestParts<App> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let mut headers = parts.headers.get_all(http::header::AUTHORIZATION).iter();
        let header = match (headers.next(), headers.next()) {
            (_, Some(_)) => return Err(AccessError::BadHeader("sent more than once").into()),
            // What cannot be read is never taken for none.
            (Some(value), None) => Some(value.to_str().map_err(|_| AccessError::BadHeader("not text"))?),
            (None, None) => None,
        };
        let who = app.access().authenticate(&Credentials::from_header(header)?).await?;
        if let Some(asker) = parts.extensions.get::<Asker>() {
            asker.is(|| name_of(&who));
        }
        Ok(Self(who))
    }
}

impl Who {
    /// Refuses nobody in particular, before anything is read from them.
    pub(crate) fn known(&self) -> Result<(), Problem> {
        if self.0 == Principal::Anonymous { Err(Denied::Unauthenticated.into()) } else { Ok(()) }
    }
}

/// The name to record for who did something.
pub(crate) fn name_of(who: &Principal) -> String {
    who.to_string()
}

/// The body of a request as a stream of its data.
pub(crate) fn body_stream(
    request: Request,
) -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + Unpin + 'static {
    use futures_util::TryStreamExt;
    request.into_body().into_data_stream().map_err(std::io::Error::other)
}
