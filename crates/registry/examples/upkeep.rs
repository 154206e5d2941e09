//! Measures what the registry does beside its clients, on SQLite: `cargo run --release -p registry --example upkeep`.
//!
//! First a dry run of retention over 100,000 manifests: 1,000 images with 20 tags each, every tag an index of four. Then
//! pushes alone, and beside a collection of 20,000 blobs.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{Digest, ImagePattern, TagPattern, Timestamp};
use oci::{Descriptor, Manifest, media_type};
use registry::retention::plan::Rule;
use registry::{Policy, Registry};
use store::{Blobs, Location, Records, RecordsError, Tx};

const IMAGES: i64 = 1000;
const MANIFESTS: i64 = 100;
const LOOSE: usize = 20_000;
const PUSHES: usize = 500;

fn digest(image: i64, number: i64) -> Digest {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&image.to_le_bytes());
    hash[8..16].copy_from_slice(&number.to_le_bytes());
    Digest::sha256(hash)
}

fn fill(tx: &mut Tx<'_>) -> Result<(), RecordsError> {
    let image = tx.next_id("registry_images")?;
    let sql = "INSERT INTO registry_images (id, name, created) VALUES ($1, $2, 0)";
    tx.execute(sql, &[image.into(), format!("bench/image{image}").as_bytes().into()])?;
    for number in 0..MANIFESTS {
        let this = digest(image, number);
        let sql = "INSERT INTO registry_manifests (image, digest, media_type, size, pushed, content)
                   VALUES ($1, $2, 'application/vnd.oci.image.manifest.v1+json', 1000, $3, $4)";
        tx.execute(sql, &[image.into(), (&this).into(), number.into(), vec![b' '; 1000].into()])?;
        if number % 5 != 4 {
            continue;
        }
        for child in number - 4..number {
            let sql = "INSERT INTO registry_references (image, manifest, digest, kind) VALUES ($1, $2, $3, 'manifest')";
            tx.execute(sql, &[image.into(), (&this).into(), (&digest(image, child)).into()])?;
        }
        let sql = "INSERT INTO registry_tags (image, tag, digest, updated) VALUES ($1, $2, $3, $4)";
        let tag = format!("v{number}");
        tx.execute(sql, &[image.into(), tag.as_bytes().into(), (&this).into(), number.into()])?;
    }
    Ok(())
}

async fn plan(registry: &Registry, records: &Records) -> Result<(), Box<dyn Error>> {
    records.write(|tx| (0..IMAGES).try_for_each(|_| fill(tx))).await?;
    let rule = Rule {
        images: ImagePattern::all(),
        tags: TagPattern::all(),
        keep_newest: Some(10),
        keep_younger: None,
        keep_pulled_within: None,
        untagged_older_than: Some(0),
    };
    registry.configure(Policy { retention: vec![rule], ..Policy::default() }).await?;
    for _ in 0..3 {
        let begun = Instant::now();
        let done = registry.retain(&ImagePattern::all(), Timestamp(i64::MAX), false, None).await?;
        let (millis, total) = (begun.elapsed().as_millis(), done.kept + done.planned);
        println!("plan: {millis} ms for {total} tags and manifests, {} stay and {} would go", done.kept, done.planned);
    }
    Ok(())
}

/// Pushes an image of two small blobs.
async fn push(registry: &Registry, number: usize) -> Result<Duration, Box<dyn Error>> {
    let begun = Instant::now();
    let lease = registry.blobs().lease("a push");
    let mut stored = Vec::new();
    for content in [format!("{{\"number\":{number}}}"), format!("layer {number}")] {
        let blob = registry.blobs().put(&lease, Bytes::from(content)).await?;
        stored.push(Descriptor::new(media_type::OCI_LAYER, blob.digest(), blob.size()));
    }
    let layer = stored.split_off(1);
    let manifest = serde_json::to_vec(&Manifest::image(stored.remove(0), layer))?;
    let (image, tag) = ("bench/pushed".parse()?, format!("t{number}").parse()?);
    registry.commit(&lease, &image, manifest.into(), media_type::OCI_MANIFEST, &[tag]).await?;
    Ok(begun.elapsed())
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).map_or(0, Duration::as_micros);
    println!("push {what}: p50 {} µs, p99 {} µs over {} pushes", at(50), at(99), times.len());
}

async fn pushes(registry: &Registry, records: &Records) -> Result<(), Box<dyn Error>> {
    let mut alone = Vec::new();
    for number in 0..PUSHES {
        alone.push(push(registry, number).await?);
    }
    tell("alone", alone);
    let mut loose = Vec::new();
    {
        let lease = registry.blobs().lease("loose");
        for number in 0..LOOSE {
            loose.push(registry.blobs().put(&lease, Bytes::from(format!("loose {number}"))).await?.digest());
        }
    }
    let link = move |tx: &mut Tx<'_>| {
        let sql = "INSERT INTO registry_blobs (image, digest, size, linked) VALUES (1, $1, 10, 0)";
        loose.iter().try_for_each(|digest| tx.execute(sql, &[digest.into()]).map(drop))
    };
    records.write(link).await?;
    let collecting = registry.clone();
    let begun = Instant::now();
    let now = std::time::SystemTime::now().into();
    let mut collection = tokio::spawn(async move { collecting.collect(now, true).await });
    let (mut beside, mut number) = (Vec::new(), PUSHES);
    while !collection.is_finished() {
        beside.push(push(registry, number).await?);
        number += 1;
    }
    let collected = (&mut collection).await??;
    tell("beside a collection", beside);
    println!("collection: {} blobs removed in {} ms", collected.removed, begun.elapsed().as_millis());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()))?;
    let records = Records::open(Location::Sqlite(dir.path().join("towpath.db"))).await?;
    let blobs = Blobs::open(&dir.path().join("blobs")).await?;
    let registry = Registry::open(records.clone(), blobs).await?;
    plan(&registry, &records).await?;
    pushes(&registry, &records).await
}
