//! The connection to an authority.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::{AcmeError, Options};

/// How long an authority may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer, in bytes.
const LONGEST: usize = 1 << 20;

/// Asks authorities over HTTP.
#[derive(Clone)]
pub(crate) struct Http(reqwest::Client);

impl Http {
    pub(crate) fn new(options: &Options) -> Result<Self, AcmeError> {
        let failed = |why: String| AcmeError::Client { directory: options.directory.clone(), why };
        let mut builder = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .https_only(true)
            .user_agent(concat!("towpath/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &options.ca {
            let shown = path.display();
            let text = std::fs::read(path).map_err(|error| failed(format!("{shown}: {error}")))?;
            let found = reqwest::Certificate::from_pem_bundle(&text);
            let found = found.map_err(|error| failed(format!("{shown}: {error}")))?;
            if found.is_empty() {
                return Err(failed(format!("{shown}: holds no certificate in PEM")));
            }
            builder = builder.tls_certs_merge(found);
        }
        Ok(Self(builder.build().map_err(|error| failed(chain(&error)))?))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let request = client.request(head.method, head.uri.to_string()).headers(head.headers).body(body);
            let failed = |error: reqwest::Error| Error::Other(chain(&error.without_url()).into());
            let mut answer = request.send().await.map_err(failed)?;
            let (mut parts, ()) = http::Response::new(()).into_parts();
            parts.status = answer.status();
            parts.headers = answer.headers().clone();
            let mut bytes = BytesMut::new();
            while let Some(chunk) = answer.chunk().await.map_err(failed)? {
                if bytes.len() + chunk.len() > LONGEST {
                    return Err(Error::Other("the answer is longer than 1 MiB".into()));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(BytesResponse { parts, body: Box::new(bytes.freeze()) })
        })
    }
}

/// An error with what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text.replace(['\n', '\r'], " ")
}
