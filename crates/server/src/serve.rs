//! Starting and stopping the server. Everything is checked before a socket opens.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use config::ServerSpec;
use http::StatusCode;
use pipeline::{Basis, OpenError, Pipeline};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::bind::{bind, bind_metrics};
use crate::certify::Certifying;
use crate::core::Core;
use crate::edge::Edge;
use crate::listen::Bound;
use crate::origin::Origin;
use crate::outbound::OutboundError;
use crate::problem::Problem;
use crate::{api, git_http, metrics, outbound};
use registry::http::{RegistryHttp, TOKEN_PATH};

/// How long after the start nothing of the start is needed any more.
const SETTLED: Duration = Duration::from_millis(200);

/// How long the spans of the last requests may take to be sent.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// What to serve.
pub struct ServeOptions {
    /// The data directory.
    pub data: PathBuf,
    /// The checked configuration.
    pub spec: ServerSpec,
}

/// Why the server does not start. One line each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A listener's certificate cannot be used.
    #[error("spec.listeners[{listener}].tls: {reason}")]
    Tls {
        /// Its place in the configuration.
        listener: usize,
        /// Why.
        reason: String,
    },
    /// Spans cannot be sent.
    #[error("spec.traces: {0}")]
    Traces(String),
    /// The rooms.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What leaves the house.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// The first administrator.
    #[error("the first administrator cannot be made: {0}")]
    Administrator(#[from] access::AccessError),
}

/// A server that runs.
pub struct Running {
    /// Where it listens, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// The same as URLs that a client on this machine can use.
    pub urls: Vec<String>,
    /// Where the metrics are.
    pub metrics_address: Option<SocketAddr>,
    /// The first administrator's token, at the first start.
    pub admin_token: Option<String>,
    /// The rooms that are there in any case.
    pub basis: Basis,
    /// The pipeline; nothing where only the registry is served.
    pub pipeline: Option<Pipeline>,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    sending: Option<JoinHandle<()>>,
    replicating: JoinHandle<()>,
    exporting: Option<JoinHandle<()>>,
    certifying: JoinHandle<()>,
}

/// Binds, opens the rooms and serves.
///
/// # Errors
/// When an address is taken or a room cannot be opened. Nothing is left behind that was not there before, but for a
/// data directory that was empty.
pub async fn start(options: ServeOptions) -> Result<Running, StartError> {
    let bound = bind(&options.spec.listeners).await?;
    let bound_metrics = bind_metrics(options.spec.metrics.as_ref()).await?;
    let addresses: Vec<_> = bound.iter().map(|it| it.address).collect();
    let urls: Vec<_> = bound.iter().map(|it| it.url.clone()).collect();
    let url = urls.first().cloned().unwrap_or_default();
    let basis = Basis::open(&options.data, &options.spec).await?;
    let certifying = Certifying::open(&options.spec.listeners, &bound, &basis.records).await?;
    let pipeline = match options.spec.is_registry_only() {
        true => None,
        false => Some(Box::pin(pipeline::open(&basis, &options.spec, &url)).await?),
    };
    let (stop, stopped) = watch::channel(false);
    let core = Core::new(&basis, stopped.clone());
    let webhooks = options.spec.registry.as_ref().map_or(&[][..], |registry| &registry.webhooks);
    let sender = outbound::open(&core, webhooks)?;
    // Last, so that no token is made of which nobody hears.
    let admin_token = basis.access.bootstrap().await?;
    tokio::spawn(core.clone().keep_house());
    tokio::spawn(async {
        tokio::time::sleep(SETTLED).await;
        let _ = tokio::task::spawn_blocking(pipeline::memory::settle).await;
    });
    let sending = sender.map(|sender| tokio::spawn(outbound::run(core.clone(), sender)));
    let replicating = tokio::spawn({
        let core = core.clone();
        async move { core.replication.run(core.stopped()).await }
    });
    let routes = routes(core, pipeline.as_ref());
    let (mut edge, exporting) = Edge::new(&options.spec)?;
    edge.challenges.clone_from(&certifying.challenges);
    let certifying = tokio::spawn(until_stopped(certifying.run(), stopped.clone()));
    let edge = Arc::new(edge);
    let metrics_address = bound_metrics.as_ref().map(|it| it.address);
    let bound = bound.into_iter().map(|it| (it, routes.clone()));
    let page = metrics::routes(Arc::clone(&edge.metrics), basis.registry.clone(), basis.replication.clone());
    let serve = |(it, routes): (Bound, Router)| tokio::spawn(it.serve(routes, Arc::clone(&edge), stopped.clone()));
    let listeners = bound.chain(bound_metrics.map(|it| (it, page))).map(serve).collect();
    Ok(Running {
        addresses,
        urls,
        metrics_address,
        admin_token: admin_token.map(|token| token.expose().to_owned()),
        basis,
        pipeline,
        stop,
        listeners,
        sending,
        replicating,
        exporting,
        certifying,
    })
}

impl Running {
    /// Stops: no new requests, those under way end within seconds (a push is recorded, whoever waits or follows is let
    /// go), then effects stop where they are. Jobs and sites go on.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for listener in self.listeners {
            let _ = listener.await;
        }
        if let Some(exporting) = self.exporting {
            // It ends when the last request has, with the spans that are left; a receiver that is gone gets none.
            let _ = tokio::time::timeout(LAST_SPANS, exporting).await;
        }
        if let Err(error) = self.basis.registry.write_pulls().await {
            tracing::warn!(%error, "the last pulls could not be written");
        }
        if let Some(sending) = self.sending {
            let _ = sending.await;
        }
        let _ = self.replicating.await;
        let _ = self.certifying.await;
        if let Some(pipeline) = self.pipeline {
            pipeline.stop().await;
        }
        if let Some(presence) = self.basis.presence {
            presence.leave().await;
        }
    }

    /// Waits until another server has taken the records, which this one must not use any more then.
    pub async fn ousted(&self) {
        match &self.basis.presence {
            Some(presence) => presence.lost().await,
            None => std::future::pending().await,
        }
    }
}

/// Work that is left where it is when the server stops.
async fn until_stopped(work: impl Future<Output = ()>, mut stopped: watch::Receiver<bool>) {
    tokio::select! {
        () = work => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

fn routes(core: Core, pipeline: Option<&Pipeline>) -> Router {
    let registry = registry_http(&core);
    let mut api = api::core_routes().with_state(core.clone());
    let mut top = Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(|| async { "ok\n" }));
    if let Some(pipeline) = pipeline {
        let app = App { core, pipeline: pipeline.clone() };
        api = api.merge(api::pipeline_routes().with_state(app.clone()));
        top = top.merge(git_http::routes().with_state(app));
    }
    top.nest("/towpath/v1", api)
        .merge(registry::http::router(registry.clone()))
        .merge(registry::http::token_router(registry))
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
}

fn registry_http(core: &Core) -> RegistryHttp {
    let realm = Arc::new(|parts: &http::request::Parts| {
        let origin = parts.extensions.get::<Origin>().map(ToString::to_string).unwrap_or_default();
        format!("{origin}{TOKEN_PATH}")
    });
    RegistryHttp {
        registry: core.registry.clone(),
        access: core.access.clone(),
        service: "towpath".into(),
        realm,
        upstreams: core.upstreams.clone(),
    }
}
