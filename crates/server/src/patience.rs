//! Bodies of requests may be long, but not stand still for ever; and of what a handler does not want, some is still
//! read. A socket that is closed with bytes unread resets its connection, and the client loses the answer that says why.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep};

/// How long a handler waits for the next bytes of a body. A client may be compressing what comes next.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of an unwanted body that are read and thrown away, and how long that may take.
const MOST_UNWANTED: u64 = 16 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(5);

/// A body that ends with an error when its client sends nothing for too long.
pub(crate) struct Patient<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    /// Nothing once it is dropped.
    inner: Option<B>,
    /// Whether what the handler leaves is read to its end.
    lingers: bool,
    patience: Duration,
    /// Counts what was read.
    received: Arc<AtomicU64>,
    /// Set while bytes are waited for.
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Patient<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    /// The body of a request with this head. A client that waits for `100 Continue` sends nothing that is not wanted,
    /// and over HTTP/2 a stream can be reset alone.
    ///
    /// Bytes are added to `received` as they are read.
    pub(crate) fn new(inner: B, version: Version, headers: &HeaderMap, received: Arc<AtomicU64>) -> Self {
        let lingers = version < Version::HTTP_2 && !headers.contains_key(header::EXPECT);
        Self { inner: Some(inner), lingers, patience: PATIENCE, received, late: None }
    }
}

impl<B> Drop for Patient<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    fn drop(&mut self) {
        let unwanted = self.inner.take().filter(|inner| self.lingers && !inner.is_end_stream());
        if let (Some(inner), Ok(runtime)) = (unwanted, tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(UNWANTED_TIME, throw_away(inner)));
        }
    }
}

async fn throw_away(mut body: impl Body<Data = Bytes> + Unpin) {
    let mut left = MOST_UNWANTED;
    while let Some(Ok(frame)) = body.frame().await {
        let read = frame.data_ref().map_or(0, |data| data.len() as u64);
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}

impl<B> Body for Patient<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(context) {
            self.late = None;
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                self.received.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        let until = Instant::now() + self.patience;
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing more"))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    #[tokio::test]
    async fn a_body_that_stands_still_ends_with_an_error() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Frame<Bytes>>>(1);
        let inner = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let mut body = Patient::new(inner, Version::HTTP_11, &HeaderMap::new(), Arc::default());
        body.patience = Duration::from_millis(200);
        tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(60)).await;
                let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"x")))).await;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        // Slow is fine: the time starts anew with every byte.
        for _ in 0..5 {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
        }
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
