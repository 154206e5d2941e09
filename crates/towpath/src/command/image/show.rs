//! What there is, in words.

use model::Digest;
use oci::client::{FetchedManifest, Remote};
use oci::local::{LocalImages, name_of};
use oci::transfer::{Source, Wanted};
use oci::{Descriptor, ImageConfig, ManifestKind, Place, Platform, Reference};
use serde_json::{Value, json};

use super::{Registries, client_failure, local_failure, open, read_host};
use crate::cli::Format;
use crate::error::Failure;
use crate::output;

/// The most tags and repositories that are listed.
const MOST: usize = 1_000_000;

pub(crate) async fn inspect(
    registries: &Registries,
    place: &Place,
    platform: Option<&Platform>,
    raw: bool,
    format: Format,
) -> Result<(), Failure> {
    let (source, wanted) = open(registries, place)?;
    let mut manifest = fetch(&source, &wanted).await?;
    if let (Some(platform), ManifestKind::Index(index)) = (platform, parse(&manifest)?) {
        let child = index.select(platform).cloned();
        let child = child.ok_or_else(|| Failure::failed(format!("{place} has no image for {platform}")))?;
        manifest = fetch(&source, &Wanted::Entry(Box::new(child))).await?;
    }
    if raw {
        output::bytes(&manifest.bytes);
        return Ok(());
    }
    let shown = describe(&source, place, &manifest).await?;
    if !output::machine(format, &shown)? {
        let rows =
            shown.as_object().into_iter().flatten().flat_map(|(key, value)| lines(key, value)).collect::<Vec<_>>();
        output::data(&output::table(&["FIELD", "VALUE"], &rows));
    }
    Ok(())
}

async fn describe(source: &Source, place: &Place, manifest: &FetchedManifest) -> Result<Value, Failure> {
    let kind = parse(manifest)?;
    let mut shown = json!({
        "image": place.to_string(),
        "digest": manifest.digest.to_string(),
        "mediaType": manifest.media_type,
        "size": manifest.bytes.len(),
    });
    let mut say = |key: &str, value: Value| shown[key] = value;
    if let Some(subject) = kind.subject() {
        say("subject", subject.digest.to_string().into());
    }
    match &kind {
        ManifestKind::Index(index) => say("manifests", index.manifests.iter().map(entry).collect()),
        ManifestKind::Image(image) => {
            say("layers", image.layers.iter().map(entry).collect());
            if let Some(kind) = &image.artifact_type {
                say("artifactType", kind.clone().into());
            }
            if let Some(config) = config(source, &image.config).await? {
                say("platform", config.platform().to_string().into());
                say("created", config.created.clone().into());
                let runtime = serde_json::to_value(&config.config);
                say("config", runtime.map_err(|error| Failure::failed(error.to_string()))?);
            }
        }
    }
    Ok(shown)
}

/// The configuration, if it is an image's.
async fn config(source: &Source, blob: &Descriptor) -> Result<Option<ImageConfig>, Failure> {
    if !matches!(blob.media_type.as_str(), oci::media_type::OCI_CONFIG | oci::media_type::DOCKER_CONFIG) {
        return Ok(None);
    }
    let bytes = match source {
        Source::Remote(remote) => {
            remote.small_blob(&blob.digest, oci::image::MAX_CONFIG).await.map_err(client_failure)?
        }
        Source::Local(images) => images.small_blob(blob, oci::image::MAX_CONFIG).map_err(local_failure)?,
    };
    let config = serde_json::from_slice(&bytes);
    config.map(Some).map_err(|error| Failure::failed(format!("the configuration {}: {error}", blob.digest)))
}

pub(crate) async fn list(registries: &Registries, what: &str, format: Format) -> Result<(), Failure> {
    if let Some(host) = read_host(what) {
        let names = registries.source_registry(&host)?.all_repositories(MOST).await.map_err(client_failure)?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        return names_only("REPOSITORY", &json!(names), &names, format);
    }
    let local = |images: Result<LocalImages, _>| local_list(&images.map_err(local_failure)?, format);
    match super::read(what)? {
        Place::Registry { host, name, .. } => {
            let tags = registries.source(&host, &name)?.all_tags(MOST).await.map_err(client_failure)?;
            let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
            names_only("TAG", &json!({ "repository": format!("{host}/{name}"), "tags": tags }), &tags, format)
        }
        Place::Layout { dir, .. } => local(LocalImages::layout(&dir)),
        Place::OciArchive { file, .. } | Place::DockerArchive { file, .. } => local(LocalImages::archive(&file)),
    }
}

fn names_only(head: &str, value: &Value, names: &[String], format: Format) -> Result<(), Failure> {
    if !output::machine(format, value)? {
        let rows: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
        output::data(&output::table(&[head], &rows));
    }
    Ok(())
}

fn local_list(images: &LocalImages, format: Format) -> Result<(), Failure> {
    let all: Vec<Value> = images
        .entries()
        .iter()
        .map(|image| {
            let mut shown = entry(image);
            shown["name"] = name_of(image).into();
            shown
        })
        .collect();
    table(&["name", "digest", "mediaType", "size"], &all, format)
}

pub(crate) async fn referrers(
    registries: &Registries,
    place: &Place,
    artifact_type: Option<&str>,
    format: Format,
) -> Result<(), Failure> {
    let (source, wanted) = open(registries, place)?;
    let digest: Digest = match (&source, &wanted) {
        (_, Wanted::Reference(Reference::Digest(digest))) => *digest,
        (_, Wanted::Entry(entry)) => entry.digest,
        (_, Wanted::Reference(_)) => fetch(&source, &wanted).await?.digest,
    };
    let mut found = match &source {
        Source::Remote(remote) => remote.referrers(&digest, artifact_type).await.map_err(client_failure)?,
        Source::Local(images) => images.referrers(&digest),
    };
    found.retain(|entry| artifact_type.is_none_or(|wanted| entry.artifact_type.as_deref() == Some(wanted)));
    let all: Vec<Value> = found.iter().map(entry).collect();
    table(&["artifactType", "digest", "mediaType", "size"], &all, format)
}

fn table(columns: &[&str], rows: &[Value], format: Format) -> Result<(), Failure> {
    if !output::machine(format, &json!(rows))? {
        let heads: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let cells = |row: &Value| columns.iter().map(|column| output::cell(&row[*column])).collect();
        output::data(&output::table(&heads, &rows.iter().map(cells).collect::<Vec<_>>()));
    }
    Ok(())
}

async fn fetch(source: &Source, wanted: &Wanted) -> Result<FetchedManifest, Failure> {
    let reference = match wanted {
        Wanted::Reference(reference) => reference.clone(),
        Wanted::Entry(entry) => Reference::Digest(entry.digest),
    };
    match source {
        Source::Remote(remote) => remote.manifest(&reference, Remote::ACCEPT).await.map_err(client_failure),
        Source::Local(images) => {
            let entry = match wanted {
                Wanted::Entry(entry) => (**entry).clone(),
                Wanted::Reference(reference) => images.find(Some(&reference.to_string())).map_err(local_failure)?,
            };
            images.manifest(&entry.digest, &entry.media_type).map_err(local_failure)
        }
    }
}

fn parse(manifest: &FetchedManifest) -> Result<ManifestKind, Failure> {
    manifest.parse().map_err(|error| Failure::failed(error.to_string()))
}

fn entry(entry: &Descriptor) -> Value {
    let mut shown = json!({ "digest": entry.digest.to_string(), "mediaType": entry.media_type, "size": entry.size });
    if let Some(platform) = &entry.platform {
        shown["platform"] = platform.to_string().into();
    }
    if let Some(kind) = &entry.artifact_type {
        shown["artifactType"] = kind.clone().into();
    }
    shown
}

/// A field for people: lists with an entry a line.
fn lines(key: &str, value: &Value) -> Vec<Vec<String>> {
    let text = |value: &Value| match value {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("{key}={}", output::cell(value))).collect::<Vec<_>>().join(" ")
        }
        other => output::cell(other),
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            let named = |(at, item)| vec![if at == 0 { key.to_owned() } else { String::new() }, text(item)];
            items.iter().enumerate().map(named).collect()
        }
        other => vec![vec![key.to_owned(), text(other)]],
    }
}
