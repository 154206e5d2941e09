//! What the routes of the pipeline have at hand.

use std::ops::Deref;

use access::{Action, Denied, Principal, Resource};
use axum::extract::{FromRef, Request};
use model::RepoName;
use pipeline::Pipeline;
use source::HostedRepo;

use crate::core::Core;
use crate::problem::Problem;

/// The rooms that routes lead to.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) core: Core,
    pub(crate) pipeline: Pipeline,
}

impl Deref for App {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl FromRef<App> for Core {
    fn from_ref(app: &App) -> Self {
        app.core.clone()
    }
}

impl App {
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
            Some(name) => self.access.authorize(who, action, Resource::Repository(name)).await.err(),
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

/// The body of a request as a stream of its data.
pub(crate) fn body_stream(
    request: Request,
) -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + Unpin + 'static {
    use futures_util::TryStreamExt;
    request.into_body().into_data_stream().map_err(std::io::Error::other)
}
