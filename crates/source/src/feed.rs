//! The body of a request on its way into git.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

use crate::commands::{Commands, PushError};

/// How long a client may send or take nothing before it counts as gone.
pub(crate) const IDLE: Duration = Duration::from_secs(300);

/// Bytes of a fetch request: wants and haves, never a pack.
const MOST_FETCH_REQUEST: u64 = 64 << 20;

/// Bytes of a push that are still read, and thrown away, when it is refused: a client reads the answer when it has sent
/// its body.
const MOST_IGNORED: u64 = 1 << 30;

/// Why a push does not reach git whole.
pub(crate) enum Fault {
    /// It is refused; git does nothing.
    Refused(PushError),
    /// The client is gone, or its encoding is broken.
    Body(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Body(error)
    }
}

async fn next<S>(body: &mut S) -> io::Result<Option<Bytes>>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    match tokio::time::timeout(IDLE, body.next()).await {
        Ok(chunk) => chunk.transpose(),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing any more")),
    }
}

/// Writes to git; false when it has closed its input, which is its own affair and shows in its answer.
async fn write(stdin: &mut ChildStdin, bytes: &[u8]) -> io::Result<bool> {
    match stdin.write_all(bytes).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// Feeds a fetch request to git. Only an error ends this: the answer ends the exchange, not the request.
pub(crate) async fn feed_fetch<S>(mut stdin: ChildStdin, gzip: bool, mut body: S) -> io::Result<()>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut inflate = Inflate::new(gzip);
    let mut total = 0;
    while let Some(chunk) = next(&mut body).await? {
        for piece in chunk.chunks(PIECE) {
            let bytes = inflate.feed(piece)?;
            total += bytes.len() as u64;
            if total > MOST_FETCH_REQUEST {
                return Err(io::Error::other("the fetch request is too large"));
            }
            write(&mut stdin, &bytes).await?;
        }
    }
    drop(stdin);
    std::future::pending().await
}

/// Feeds a push to git, and reads its commands on the way.
pub(crate) async fn feed_push<S>(
    mut stdin: ChildStdin,
    gzip: bool,
    body: &mut S,
    commands: &mut Commands,
) -> Result<(), Fault>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut inflate = Inflate::new(gzip);
    while let Some(chunk) = next(body).await? {
        for piece in chunk.chunks(if gzip { PIECE } else { usize::MAX }) {
            let inflated;
            let bytes = match &mut inflate {
                Inflate::Plain => piece,
                gzip @ Inflate::Gzip(_) => {
                    inflated = gzip.feed(piece)?;
                    &inflated
                }
            };
            // First read, then passed on: of a push that is refused git never sees the end of the commands.
            commands.feed(bytes).map_err(Fault::Refused)?;
            if !write(&mut stdin, bytes).await? {
                drop(stdin);
                return Ok(ignore(body).await?);
            }
        }
    }
    Ok(())
}

/// Reads the rest of a body that nobody wants.
pub(crate) async fn ignore<S>(body: &mut S) -> io::Result<()>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut total = 0;
    while let Some(chunk) = next(body).await? {
        total += chunk.len() as u64;
        if total > MOST_IGNORED {
            return Err(io::Error::other("the client goes on sending a push that is refused"));
        }
    }
    Ok(())
}

/// How much is inflated at once, in bytes, which at most become a thousand times as many.
const PIECE: usize = 4 << 10;

/// Undoes `Content-Encoding: gzip` piece by piece.
enum Inflate {
    Plain,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Inflate {
    fn new(gzip: bool) -> Self {
        if gzip { Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))) } else { Self::Plain }
    }

    fn feed(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(piece.to_vec()),
            Self::Gzip(decoder) => {
                io::Write::write_all(decoder.as_mut(), piece)?;
                io::Write::flush(decoder.as_mut())?;
                Ok(std::mem::take(decoder.get_mut()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn gzip_arrives_in_any_pieces() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&text).unwrap();
        let packed = encoder.finish().unwrap();
        for size in [1, 1000, PIECE] {
            let mut inflate = Inflate::new(true);
            let read: Vec<u8> = packed.chunks(size).flat_map(|piece| inflate.feed(piece).unwrap()).collect();
            assert!(read == text);
        }
        assert!(Inflate::new(true).feed(b"this is not gzip at all").is_err());
    }
}
