//! One request, from the client's connection to the service's and back.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::answer::Answer;
use super::headers;
use super::route::{InFlight, Slot};
use crate::control;
use crate::health::chain;

/// How long a request waits for a service that takes no connection: it may be about to be started again.
const PATIENCE: Duration = Duration::from_secs(15);
/// The first and the longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// The most that is held of a request or answer on its way, in bytes.
pub(crate) const BUFFER: usize = 64 * 1024;

/// Answers a request with what the service says. Never fails: what goes wrong is a status with a reason.
pub(crate) async fn forward(
    slot: Arc<Slot>,
    client: IpAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    if !headers::forwards(request.method()) {
        return Ok(Answer::text(StatusCode::METHOD_NOT_ALLOWED, "this is a site, not a tunnel".to_owned()));
    }
    let upgrade = headers::wants_upgrade(request.version(), request.headers());
    let client_side = upgrade.then(|| hyper::upgrade::on(&mut request));
    to_origin_form(&mut request);
    headers::to_service(request.headers_mut(), client, upgrade);
    // Each side speaks its own version with the proxy.
    *request.version_mut() = Version::HTTP_11;

    let (stream, in_flight) = match connect(&slot).await {
        Ok(connected) => connected,
        Err(why) => {
            let text = format!("the service {} takes no connection: {why}", slot.service);
            let mut response = Answer::text(StatusCode::SERVICE_UNAVAILABLE, text);
            response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
            return Ok(response);
        }
    };
    let mut response = match send(stream, request).await {
        Ok(response) => response,
        // Some of the request may have arrived: to send it again could do twice what it asks for.
        Err(error) => {
            let text = format!("the service {} broke off: {}", slot.service, chain(&error));
            return Ok(Answer::text(StatusCode::BAD_GATEWAY, text));
        }
    };
    *response.version_mut() = Version::HTTP_11;
    let status = response.status();
    headers::to_client(response.headers_mut(), status);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(switch(response, client_side, in_flight));
    }
    Ok(response.map(|body| Answer::Service { body, _in_flight: in_flight }))
}

/// A connection to the service. As long as it takes none, not a byte was sent and it is safe to try again; each time the
/// instance that is current then.
async fn connect(slot: &Slot) -> Result<(TcpStream, InFlight), String> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = PAUSE.0;
    loop {
        let in_flight = slot.enter();
        let why = match control::connect(&in_flight.backend.dir, in_flight.backend.port).await {
            Ok(stream) => return Ok((stream, in_flight)),
            Err(error) => error.to_string(),
        };
        drop(in_flight);
        if Instant::now() + pause > deadline {
            return Err(why);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn send(stream: TcpStream, request: Request<Incoming>) -> Result<Response<Incoming>, hyper::Error> {
    // Without it, small writes wait for acknowledgements that the other side delays.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = chain(&error), "connection to a service ended");
        }
    });
    sender.send_request(request).await
}

/// Joins both connections after the service agreed to another protocol.
fn switch(
    mut response: Response<Incoming>,
    client_side: Option<hyper::upgrade::OnUpgrade>,
    in_flight: InFlight,
) -> Response<Answer> {
    let Some(client_side) = client_side else {
        return Answer::text(StatusCode::BAD_GATEWAY, "the service changed a protocol that nobody asked to".to_owned());
    };
    let service_side = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let (client, service) = match (client_side.await, service_side.await) {
            (Ok(client), Ok(service)) => (client, service),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(error = chain(&error), "upgrade did not come about");
                return;
            }
        };
        let (mut client, mut service) = (TokioIo::new(client), TokioIo::new(service));
        let _ = tokio::io::copy_bidirectional(&mut client, &mut service).await;
        drop(in_flight);
    });
    response.map(|_| Answer::Own(http_body_util::Full::default()))
}

/// The target as a server, rather than a proxy, is asked for it: the host goes from the target to its header (RFC 9112,
/// section 3.2.2).
fn to_origin_form(request: &mut Request<Incoming>) {
    let uri = request.uri();
    let Some(host) = uri.authority().and_then(|authority| authority.as_str().parse().ok()) else { return };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = path.parse::<Uri>() {
        *request.uri_mut() = uri;
        request.headers_mut().insert(http::header::HOST, host);
    }
}
