//! The reading end of a command's output.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

use crate::running::Link;

/// How much output a command may still write; shared by both streams.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
    spent: AtomicBool,
}

impl Budget {
    pub(crate) fn new(bytes: Option<u64>) -> Self {
        Self { left: AtomicU64::new(bytes.unwrap_or(u64::MAX)), spent: AtomicBool::new(false) }
    }

    /// Whether the command was killed for its output.
    pub(crate) fn spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    /// Takes `bytes` off; false when there were not that many left.
    fn take(&self, bytes: u64) -> bool {
        let taken = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes));
        if taken.is_err() {
            self.spent.store(true, Ordering::Release);
        }
        taken.is_ok()
    }
}

/// What a command writes, as it writes it. Ends when every process that could write is gone, or when
/// [`Limits::output`](crate::Limits::output) is reached: then the sandbox is killed.
#[derive(Debug)]
pub struct Output {
    pipe: pipe::Receiver,
    budget: Arc<Budget>,
    link: Weak<Link>,
}

impl Output {
    pub(crate) fn new(end: OwnedFd, budget: Arc<Budget>, link: Weak<Link>) -> io::Result<Self> {
        Ok(Self { pipe: pipe::Receiver::from_owned_fd(end)?, budget, link })
    }
}

impl AsyncRead for Output {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.budget.spent() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.pipe).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 && !self.budget.take(read as u64) {
            buf.set_filled(before);
            if let Some(link) = self.link.upgrade() {
                link.kill();
            }
        }
        polled
    }
}
