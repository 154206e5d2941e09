//! What both servers are asked to do.

use std::time::Instant;

use super::client::{Body, Client};
use super::content::{self, Content};
use super::floor;
use super::report::Row;
use super::serve::{IMAGE, Server};

/// Requests are made over this many connections at a time.
const CONNECTIONS: u32 = 4;
const CONFIG: &str = "{}";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// How much of everything.
pub(super) struct Sizes {
    /// Bytes of the blob that is pushed and pulled.
    blob: u64,
    /// Requests for a manifest.
    requests: u32,
    /// Pushes of a tiny image.
    pushes: u32,
    /// Tags of one image.
    pub(super) tags: u64,
    /// Bytes of the largest upload.
    upload: u64,
}

impl Sizes {
    pub(super) const fn full() -> Self {
        Self { blob: 1_000_000_000, requests: 20_000, pushes: 200, tags: 1_000_000, upload: 10_000_000_000 }
    }

    pub(super) const fn quick() -> Self {
        Self { blob: 200_000_000, requests: 4_000, pushes: 40, tags: 100_000, upload: 1_000_000_000 }
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn gigabytes(&self) -> f64 {
        self.blob as f64 / 1e9
    }

    pub(super) fn blob(&self) -> Content {
        Content::new(self.blob, 1)
    }
}

/// The manifest of the image: the smallest there is.
pub(super) fn manifest() -> String {
    let config = content::digest(CONFIG.as_bytes());
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST_TYPE}\",\"config\":{{\"mediaType\":\
         \"application/vnd.oci.image.config.v1+json\",\"digest\":\"{config}\",\"size\":{}}},\"layers\":[]}}",
        CONFIG.len()
    )
}

fn with_layer(layer: &[u8]) -> String {
    let digest = content::digest(layer);
    let layer = format!(
        "\"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"{digest}\",\"size\":{}}}]",
        layer.len()
    );
    manifest().replace("\"layers\":[]", &layer)
}

/// Pushes a blob as clients do: is it there, begin, the bytes, done.
fn push_blob(client: &mut Client, digest: &str, body: Body<'_>) -> Result<(), String> {
    if client.ask("HEAD", &format!("/v2/{IMAGE}/blobs/{digest}"), Body::None)?.status == 200 {
        return Ok(());
    }
    let location = |answer: super::client::Answer| answer.location.ok_or("an upload has no location");
    let begun = client.expect(202, "POST", &format!("/v2/{IMAGE}/blobs/uploads/"), Body::None)?;
    let patched = client.expect(202, "PATCH", &location(begun)?, body)?;
    let last = location(patched)?;
    let and = if last.contains('?') { '&' } else { '?' };
    client.expect(201, "PUT", &format!("{last}{and}digest={digest}"), Body::None).map(drop)
}

fn push_manifest(client: &mut Client, tag: &str, manifest: &str) -> Result<(), String> {
    let body = Body::Bytes(MANIFEST_TYPE, manifest.as_bytes());
    client.expect(201, "PUT", &format!("/v2/{IMAGE}/manifests/{tag}"), body).map(drop)
}

/// One large blob, from the first byte until it is acknowledged.
pub(super) fn push(server: &Server, sizes: &Sizes, rows: &mut Vec<Row>) -> Result<(), String> {
    let mut blob = sizes.blob();
    let digest = blob.digest();
    let mut client = server.client()?;
    let floor = floor::push(server.dir(), sizes)?;
    let (began, before) = (Instant::now(), server.cpu()?);
    push_blob(&mut client, &digest, Body::Content(&mut blob))?;
    let cpu = (server.cpu()? - before) / sizes.gigabytes();
    let wall = began.elapsed().as_secs_f64() / sizes.gigabytes();
    let row = Row::new("push: processor time for a GB", "s", Some(1.0), cpu);
    rows.push(row.note(format!("a bare loop that receives, hashes, writes and syncs took {floor:.2} s just before")));
    rows.push(Row::new("push: time for a GB", "s", None, wall));
    Ok(())
}

/// The same blob back, three times.
pub(super) fn pull(server: &Server, sizes: &Sizes, rows: &mut Vec<Row>) -> Result<(), String> {
    let path = format!("/v2/{IMAGE}/blobs/{}", sizes.blob().digest());
    let mut client = server.client()?;
    let (began, before) = (Instant::now(), server.cpu()?);
    for _ in 0..3 {
        if client.drain(&path)? != sizes.blob {
            return Err(format!("{path} came back with another length"));
        }
    }
    let gigabytes = 3.0 * sizes.gigabytes();
    rows.push(Row::new("blob GET: processor time for a GB", "s", Some(0.25), (server.cpu()? - before) / gigabytes));
    let wall = began.elapsed().as_secs_f64() / gigabytes;
    rows.push(Row::no_worse("blob GET: time for a GB", "s", wall));
    Ok(())
}

/// Many clients that ask where a tag points to.
pub(super) fn manifests(server: &Server, sizes: &Sizes, rows: &mut Vec<Row>) -> Result<(), String> {
    let mut client = server.client()?;
    push_blob(&mut client, &content::digest(CONFIG.as_bytes()), Body::Bytes("", CONFIG.as_bytes()))?;
    push_manifest(&mut client, "latest", &manifest())?;
    let path = format!("/v2/{IMAGE}/manifests/latest");
    let clients = (0..CONNECTIONS).map(|_| server.client()).collect::<Result<Vec<_>, String>>()?;
    let (began, before) = (Instant::now(), server.cpu()?);
    let each = sizes.requests / CONNECTIONS;
    let path = path.as_str();
    std::thread::scope(|scope| {
        let ask = |mut client: Client| move || (0..each).try_for_each(|_| client.drain(path).map(drop));
        let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(ask(client))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a client panicked")?)
    })?;
    let requests = f64::from(each * CONNECTIONS);
    let cpu = (server.cpu()? - before) * 1e6 / requests;
    rows.push(Row::new("manifest GET by tag: processor time", "µs", Some(40.0), cpu));
    rows.push(Row::new(
        "manifest GET by tag: requests in a second",
        "/s",
        None,
        requests / began.elapsed().as_secs_f64(),
    ));
    Ok(())
}

/// Whole images that are new every time: a layer, a configuration that is there, a manifest under a tag.
pub(super) fn tiny(server: &Server, sizes: &Sizes, rows: &mut Vec<Row>) -> Result<(), String> {
    let mut client = server.client()?;
    let mut millis = Vec::new();
    let before = server.cpu()?;
    for number in 0..sizes.pushes {
        let layer = format!("layer {number}").into_bytes();
        let manifest = with_layer(&layer);
        let began = Instant::now();
        push_blob(&mut client, &content::digest(&layer), Body::Bytes("", &layer))?;
        push_blob(&mut client, &content::digest(CONFIG.as_bytes()), Body::Bytes("", CONFIG.as_bytes()))?;
        push_manifest(&mut client, &format!("tiny-{number}"), &manifest)?;
        millis.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let cpu = (server.cpu()? - before) * 1000.0 / f64::from(sizes.pushes);
    rows.push(Row::new("push of a tiny image, p50", "ms", Some(5.0), median(&mut millis)));
    rows.push(Row::new("push of a tiny image: processor time", "ms", None, cpu));
    Ok(())
}

/// The first page of many tags, and one from the middle.
pub(super) fn tags(server: &Server, count: u64, rows: &mut Vec<Row>) -> Result<(), String> {
    let mut client = server.client()?;
    let mut millis = Vec::new();
    for number in 0..50 {
        let last = format!("tag-{:07}", count / 50 * number);
        let began = Instant::now();
        client.expect(200, "GET", &format!("/v2/{IMAGE}/tags/list?n=100&last={last}"), Body::None)?;
        millis.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let goal = Row::new("tags?n=100, p50", "ms", Some(1.0), median(&mut millis));
    rows.push(goal.note(format!("{count} tags")));
    Ok(())
}

/// An upload much larger than the memory it may take.
pub(super) fn large_upload(server: &Server, sizes: &Sizes, rows: &mut Vec<Row>) -> Result<(), String> {
    let peak = |seed: u64, size: u64| -> Result<f64, String> {
        let mut blob = Content::new(size, seed);
        let digest = blob.digest();
        let mut client = server.client()?;
        server.reset_peak()?;
        push_blob(&mut client, &digest, Body::Content(&mut blob))?;
        server.peak()
    };
    let small = peak(2, sizes.upload / 10)?;
    let large = peak(3, sizes.upload)?;
    rows.push(Row::new("large upload: peak of the memory", "MB", Some(25.0), large));
    rows.push(Row::new("large upload: more than for a tenth of it", "MB", Some(2.0), (large - small).max(0.0)));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
