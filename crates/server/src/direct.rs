//! A connection without TLS, on which the system sends pieces of files itself (`sendfile`): their bytes are not copied into
//! this process and out of it again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use store::{Outlet, Piece};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// The most bytes of a file that are sent at once. The system makes a packet of them, of at most 64 KiB. On one machine, a
/// receiver is woken for each packet that finds it waiting, which costs more than to send the packet: of all sizes this is the
/// one with which receivers wait least, as they get each packet whole and soon.
const PIECE: usize = 48 << 10;

/// The connection. What is written to it leaves in the order of the writes, wherever it comes from.
pub(crate) struct Direct {
    stream: TcpStream,
    outlet: Outlet,
}

impl Direct {
    /// With the outlet for what is to be sent on it.
    pub(crate) fn new(stream: TcpStream) -> (Self, Outlet) {
        let outlet = Outlet::default();
        (Self { stream, outlet: outlet.clone() }, outlet)
    }

    fn poll_send(&self, context: &mut Context<'_>, piece: &Piece, length: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_io(Interest::WRITABLE, || send(&self.stream, piece, length)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

fn send(stream: &TcpStream, piece: &Piece, length: usize) -> io::Result<usize> {
    let mut at = piece.at();
    match rustix::fs::sendfile(stream, piece.file(), Some(&mut at), length.min(PIECE))? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file that is being sent has become shorter")),
        sent => Ok(sent),
    }
}

/// Whether a file system does not let its files be sent so; they can be written then.
fn is_unable(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}

impl AsyncRead for Direct {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(piece) = self.outlet.find(bytes) {
            match ready!(self.poll_send(context, &piece, bytes.len())) {
                Err(error) if is_unable(&error) => {}
                sent => return Poll::Ready(sent),
            }
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(first) = slices.iter().position(|slice| !slice.is_empty()) else { return Poll::Ready(Ok(0)) };
        let of_file = |slice: &IoSlice<'_>| self.outlet.find(slice).is_some();
        let before = slices[first..].iter().take_while(|slice| !of_file(slice)).count();
        match before {
            0 => self.poll_write(context, &slices[first]),
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, &slices[first..first + before]),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use store::Blobs;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A connection, and its other end.
    async fn connected() -> (Direct, Outlet, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (direct, outlet) = Direct::new(accepted.unwrap().0);
        (direct, outlet, client.unwrap())
    }

    /// The first chunk of a blob that is offered to an outlet, and the blob's file.
    async fn offered(dir: &std::path::Path, content: &[u8], outlet: &Outlet) -> (bytes::Bytes, std::path::PathBuf) {
        let blobs = Blobs::open(dir).await.unwrap();
        let stored = blobs.put(&blobs.lease("test"), content.to_vec().into()).await.unwrap();
        let mut reader = blobs.read(&stored.digest()).await.unwrap().unwrap();
        reader.send_through(outlet.clone());
        (reader.chunk().await.unwrap().unwrap(), blobs.local_path(&stored.digest()).unwrap())
    }

    #[tokio::test]
    async fn pieces_of_files_and_other_bytes_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let (mut direct, outlet, mut client) = connected().await;
        let content: Vec<u8> = (0..900_000_u32).map(|at| (at % 249) as u8).collect();
        let (chunk, _) = offered(dir.path(), &content, &outlet).await;
        let expected = [b"head", &content[..], b"between", &content[5..400_000], b"tail"].concat();
        let receiving = tokio::spawn(async move {
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.map(|_| received)
        });
        let parts = [b"head", &chunk[..], b"between", &chunk[5..400_000], b"", b"tail"];
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let sent = direct.write_vectored(rest).await.unwrap();
            IoSlice::advance_slices(&mut rest, sent);
        }
        direct.shutdown().await.unwrap();
        assert!(receiving.await.unwrap().unwrap() == expected);
    }

    #[tokio::test]
    async fn the_system_sends_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (mut direct, outlet, _client) = connected().await;
        let (chunk, path) = offered(dir.path(), &[7; 100_000], &outlet).await;
        assert_eq!(direct.write(&chunk).await.unwrap(), PIECE, "one piece at a time");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
        // From the mapping it would be another error.
        assert_eq!(direct.write(&chunk).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let reason = direct.write(&chunk).await.unwrap_err().to_string();
        assert!(reason.contains("has become shorter"), "{reason}");
        assert_eq!(direct.write(b"still there").await.unwrap(), 11);
    }
}
