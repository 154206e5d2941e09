//! What no server can do without: a thread that takes the bytes of a blob from a connection, hashes and writes them, and
//! has them synced. The figures of a push mean little without it: what new memory and a write to the disk cost differs much
//! between machines, and on a virtual one between two moments.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::content::Content;
use super::work::Sizes;
use crate::processes::seconds;

/// How much is read at a time: more does not make it cheaper.
const PIECE: usize = 256 << 10;

/// The processor time of such a thread for a GB, with its file in `dir`.
pub(super) fn push(dir: &Path, sizes: &Sizes) -> Result<f64, String> {
    let mut blob = sizes.blob();
    let path = dir.join("floor");
    let taken = carry(&mut blob, &path).map_err(|error| format!("{}: {error}", path.display()));
    let _ = std::fs::remove_file(&path);
    Ok(taken? / sizes.gigabytes())
}

fn carry(blob: &mut Content, path: &Path) -> std::io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&mut server, path));
        let sent = blob.each(|piece| client.write_all(piece));
        drop(client);
        let received = receiver.join().map_err(|_| std::io::Error::other("the receiver panicked"))?;
        sent.and(received)
    })
}

fn receive(from: &mut TcpStream, path: &Path) -> std::io::Result<f64> {
    let before = ticks()?;
    let mut file = File::create(path)?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match from.read(&mut piece[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break;
        }
        file.write_all(&piece[..filled])?;
        hasher.update(&piece[..filled]);
    }
    std::hint::black_box(hasher.finalize());
    file.sync_all()?;
    Ok(seconds(ticks()? - before))
}

/// The processor time of this thread.
fn ticks() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/stat")?;
    let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    Ok(fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_carried() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floor");
        let mut blob = Content::new(3_000_001, 1);
        assert!(carry(&mut blob, &path).unwrap() >= 0.0);
        let carried = std::fs::read(&path).unwrap();
        assert_eq!(super::super::content::digest(&carried), blob.digest());
    }
}
