//! One registry as one user: its address, tokens and manners.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::OnceCell;

use super::challenge::Challenge;
use super::exchange::{Ask, Attempts, transmit};
use super::token::Tokens;
use super::{Auth, Client, ClientError, PullQuota, Reach};
use crate::RegistryHost;
use crate::client::error::{code_and_message, retry_after};

/// How often an answer may send us elsewhere.
const MAX_REDIRECTS: usize = 5;
/// The longest body of an error that is read, in bytes.
const MAX_ERROR: usize = 64 << 10;
/// The longest `Location` that is followed, in bytes.
const MAX_LOCATION: usize = 8 << 10;

pub(super) struct Session {
    pub client: Client,
    pub host: RegistryHost,
    pub auth: Auth,
    /// How the registry wants to know who asks, once it has said so.
    pub challenge: Mutex<Option<Challenge>>,
    pub tokens: Tokens,
    reach: OnceCell<Reach>,
    /// What the registry last said of how many pulls it still allows.
    pub quota: Mutex<Option<PullQuota>>,
    /// Held while the fallback tag of referrers is read and written again.
    pub referrers: tokio::sync::Mutex<()>,
}

impl Session {
    pub fn new(client: Client, host: RegistryHost, auth: Auth) -> Self {
        Self {
            client,
            host,
            auth,
            challenge: Mutex::default(),
            tokens: Tokens::default(),
            reach: OnceCell::new(),
            quota: Mutex::default(),
            referrers: tokio::sync::Mutex::default(),
        }
    }

    /// The URL of `rest` below `/v2/`.
    pub fn url(&self, rest: &str) -> Result<Url, ClientError> {
        let plain = self.client.options().is_plain(self.host.as_str());
        let scheme = if plain { "http" } else { "https" };
        let text = format!("{scheme}://{}/v2/{rest}", self.host.endpoint());
        Url::parse(&text).map_err(|error| ClientError::Options(format!("{text}: {error}")))
    }

    /// Whether `url` is at the registry itself.
    pub fn is_own(&self, url: &Url) -> bool {
        self.url("").is_ok_and(|own| own.origin() == url.origin())
    }

    /// Where the registry may send us besides itself.
    async fn reach(&self) -> Result<Reach, ClientError> {
        if self.client.options().allow_private {
            return Ok(Reach::Loopback);
        }
        let found = self.reach.get_or_try_init(|| async {
            let url = self.url("")?;
            let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let addresses = tokio::net::lookup_host((host, 0)).await;
            let addresses: Vec<IpAddr> = addresses
                .map_err(|error| ClientError::unreachable(&self.host, error))?
                .map(|address| address.ip())
                .collect();
            Ok(Reach::from_registry(addresses))
        });
        found.await.copied()
    }

    /// The connections for `url`, if we may go there.
    pub async fn way(&self, url: &Url) -> Result<reqwest::Client, ClientError> {
        let refused = |why: &str| {
            let mut url = url.clone();
            url.set_query(None);
            let url = url.to_string().chars().take(200).collect();
            ClientError::Refused { host: self.host.to_string(), url, why: why.to_owned() }
        };
        let tls = match url.scheme() {
            "https" => true,
            "http" if self.is_own(url) || self.client.options().is_plain(&authority(url)) => false,
            "http" => return Err(refused("it is plain http")),
            _ => return Err(refused("it is not http")),
        };
        if self.is_own(url) {
            return self.client.wire(Reach::Anywhere, tls);
        }
        let reach = self.reach().await?;
        if !reach.allows_host(url.host_str().unwrap_or_default()) {
            return Err(refused("it is an internal address, and the registry is not"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("it holds credentials"));
        }
        self.client.wire(reach, tls)
    }

    /// Asks until there is an answer that is worth judging: waits when the registry wants to be left alone, repeats when
    /// it has trouble, gets a token when it asks for one, follows where it sends us.
    pub async fn send(&self, ask: &Ask) -> Result<Response, ClientError> {
        let mut attempts = Attempts::new(self.client.options());
        loop {
            self.client.wait(self.host.as_str()).await;
            let error = match self.once(ask).await {
                Ok(response) if is_trouble(response.status()) => self.failure(&ask.what(), response).await,
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if !ask.repeats {
                return Err(error);
            }
            self.pause(&mut attempts, error).await?;
        }
    }

    /// Waits before a repetition.
    ///
    /// # Errors
    /// With `error`, when repeating does not help or was done often enough.
    pub async fn pause(&self, attempts: &mut Attempts, error: ClientError) -> Result<(), ClientError> {
        let pause = attempts.next(&error).ok_or(error)?;
        match pause {
            Pause::Asked(pause) => self.client.leave_alone(self.host.as_str(), pause),
            Pause::Ours(pause) => tokio::time::sleep(pause).await,
        }
        Ok(())
    }

    /// One attempt; two if the registry asks who we are.
    async fn once(&self, ask: &Ask) -> Result<Response, ClientError> {
        let mut asked = false;
        loop {
            let authorization = self.authorization(&ask.scopes).await?;
            let response = self.follow(ask, authorization.as_ref()).await?;
            self.count(&response);
            if response.status() != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            let challenge = Challenge::choose(response.headers());
            if asked || !self.learn(challenge, &ask.scopes) {
                return Err(self.failure(&ask.what(), response).await);
            }
            asked = true;
        }
    }

    /// Takes in how many pulls are left. Where a redirect leads does not count.
    fn count(&self, response: &Response) {
        if self.is_own(response.url())
            && let Some(quota) = PullQuota::of(response.headers())
        {
            *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = Some(quota);
        }
    }

    async fn follow(&self, ask: &Ask, authorization: Option<&HeaderValue>) -> Result<Response, ClientError> {
        let mut url = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let way = self.way(&url).await?;
            let mut request = way.request(ask.method.clone(), url.clone()).headers(ask.headers.clone());
            // Whoever we are sent to is not whom the credentials are for.
            if let Some(authorization) = authorization.filter(|_| self.is_own(&url)) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let host = url.host_str().unwrap_or_default().to_owned();
            let response = transmit(&host, self.client.options().read_timeout, request, &ask.body).await?;
            if !ask.follows() || !is_redirect(response.status()) {
                return Ok(response);
            }
            url = self.location(&url, &response)?;
        }
        Err(ClientError::protocol(&self.host, format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Where `response`, the answer of `from`, sends us.
    pub fn location(&self, from: &Url, response: &Response) -> Result<Url, ClientError> {
        let bad = |why: &str| ClientError::protocol(&self.host, format!("a Location {why}"));
        let value = response.headers().get(LOCATION).ok_or_else(|| bad("is missing"))?;
        let text = value.to_str().map_err(|_| bad("is not text"))?;
        if text.len() > MAX_LOCATION {
            return Err(bad("is too long"));
        }
        from.join(text).map_err(|error| bad(&format!("is not a URL: {error}")))
    }

    /// What an answer means that is not the one hoped for.
    pub async fn failure(&self, what: &str, response: Response) -> ClientError {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let timeout = self.client.options().read_timeout.min(Duration::from_secs(10));
        let body = tokio::time::timeout(timeout, beginning(response, MAX_ERROR)).await.unwrap_or_default();
        let (code, message) = code_and_message(&body);
        let host = self.host.to_string();
        let said = |message: String, otherwise: &str| if message.is_empty() { otherwise.to_owned() } else { message };
        match status.as_u16() {
            404 => ClientError::NotFound { host, what: what.to_owned() },
            401 => {
                let otherwise =
                    if self.auth == Auth::Anonymous { "it asks for credentials" } else { "wrong credentials" };
                ClientError::Unauthorized { host, message: said(message, otherwise) }
            }
            429 => ClientError::RateLimited { host, retry_after },
            503 if retry_after.is_some() => ClientError::RateLimited { host, retry_after },
            status => ClientError::Status { host, what: what.to_owned(), status, code, message, retry_after },
        }
    }
}

/// How to wait before a repetition.
pub(super) enum Pause {
    /// The registry said for how long, which holds for everybody.
    Asked(Duration),
    /// It broke off or has trouble.
    Ours(Duration),
}

/// `host[:port]` of a URL.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// At most `most` bytes of a body; of one that breaks off, what came.
async fn beginning(mut response: Response, most: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        let left = most - body.len();
        body.extend_from_slice(&bytes[..bytes.len().min(left)]);
        if bytes.len() >= left {
            break;
        }
    }
    body
}

fn is_trouble(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
