//! `cargo xtask bench registry`: what the registry costs, beside Debian's `docker-registry`.
//!
//! Both serve from a directory of their own below the temporary directory, one after the other, and are asked the same by
//! one client in this process, which is not counted. Ours asks for a token and writes its access log; the peer, whose
//! passwords cost a bcrypt for each request, is asked without any. Only ours has a blob on the disk when it says so.

mod client;
mod content;
mod floor;
mod peer;
mod report;
mod serve;
mod upkeep;
mod work;

use std::path::PathBuf;

use report::{Report, Row};
use serve::{Kind, Server};
use work::Sizes;

/// Runs both and prints the table.
pub(crate) fn registry(words: &[&str]) -> Result<(), String> {
    let sizes = if words.contains(&"--quick") { Sizes::quick() } else { Sizes::full() };
    let program: PathBuf = match crate::option(words, "--program", PathBuf::new())? {
        path if path.as_os_str().is_empty() => e2e::program(e2e::Program::Release),
        path => path,
    };
    let (ours, peer) = if words.contains(&"--upkeep") {
        (upkeep::measure(&program)?, None)
    } else {
        let mut ours = measure(Kind::Ours(program.clone()), &sizes)?;
        ours.extend(upkeep::measure(&program)?);
        (ours, beside(&sizes)?)
    };
    let report = Report::of(&ours, peer.as_deref());
    println!("{}", if words.contains(&"--json") { report.json() } else { report.text() });
    Ok(())
}

/// The same of the peer, if there is one.
fn beside(sizes: &Sizes) -> Result<Option<Vec<Row>>, String> {
    let Some(program) = peer::find() else {
        eprintln!("skipped: docker-registry is not installed, so nothing stands beside our figures");
        return Ok(None);
    };
    measure(Kind::Peer(program), sizes).map(Some)
}

fn measure(kind: Kind, sizes: &Sizes) -> Result<Vec<Row>, String> {
    let place = tempfile::Builder::new().prefix("bench-registry-").tempdir().map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    let mut server = Server::start(kind, place.path())?;
    rows.push(Row::new("idle: memory", "MB", Some(10.0), server.idle()?));
    work::push(&server, sizes, &mut rows)?;
    work::pull(&server, sizes, &mut rows)?;
    work::manifests(&server, sizes, &mut rows)?;
    work::tiny(&server, sizes, &mut rows)?;
    server.stop();
    let tags = server.seed_tags(sizes)?;
    rows.push(Row::new("start until the first answer", "ms", Some(30.0), server.ready()?));
    work::tags(&server, tags, &mut rows)?;
    work::large_upload(&server, sizes, &mut rows)?;
    server.stop();
    Ok(rows)
}
