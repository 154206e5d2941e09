//! A proxy that cuts connections in the middle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct Cutter {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Cutter {
    /// Passes on to `to`; each of the first `times` connections is cut when `after` bytes have come back.
    pub async fn start(to: SocketAddr, after: usize, times: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let cut = count.fetch_add(1, Ordering::SeqCst) < times;
                tokio::spawn(pass(socket, to, if cut { after } else { usize::MAX }));
            }
        });
        Self { address, connections }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, to: SocketAddr, mut left: usize) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let wanted = left.min(buffer.len());
        match from_server.read(&mut buffer[..wanted]).await {
            Ok(read) if read > 0 && to_client.write_all(&buffer[..read]).await.is_ok() => left -= read,
            _ => break,
        }
    }
    up.abort();
}
