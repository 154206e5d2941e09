//! `towpath image`.

mod bar;
mod place;
mod show;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use oci::local::{LayoutWriter, LocalError, LocalImages};
use oci::transfer::{Progress, Shared, Sink, Source, Transfer, TransferError, Wanted, What};
use oci::{Place, Platform, Reference};
use serde_json::json;

pub(crate) use bar::Bar;
pub(crate) use place::{Registries, client_failure, read_host};

use crate::cli::Format;
use crate::cli::image::{CopyArgs, ImageCommand};
use crate::error::Failure;
use crate::output;

/// The tag of an image that names none.
const LATEST: &str = "latest";

pub(crate) async fn image(command: ImageCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        ImageCommand::Copy(args) => copy(args, format).await?,
        ImageCommand::Inspect { image, platform, raw, login } => {
            show::inspect(&Registries::one(&login)?, &read(&image)?, platform.as_ref(), raw, format).await?;
        }
        ImageCommand::Ls { what, login } => show::list(&Registries::one(&login)?, &what, format).await?,
        ImageCommand::Rm { images, login } => {
            let registries = Registries::one(&login)?;
            for image in &images {
                remove(&registries, &read(image)?).await?;
            }
        }
        ImageCommand::Save { image, file, platform, login } => {
            let from = read(&image)?;
            let to = Place::DockerArchive { file, name: full_name(&from) };
            let what = What { platform: Some(platform.unwrap_or_else(Platform::here)), referrers: false };
            transfer(&Registries::one(&login)?, &from, &to, what, 6, format).await?;
        }
        ImageCommand::Load { file, image, name, login } => {
            let from = Place::DockerArchive { file, name };
            let what = What { platform: None, referrers: false };
            transfer(&Registries::one(&login)?, &from, &read(&image)?, what, 6, format).await?;
        }
        ImageCommand::Referrers { image, artifact_type, login } => {
            show::referrers(&Registries::one(&login)?, &read(&image)?, artifact_type.as_deref(), format).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn copy(args: CopyArgs, format: Format) -> Result<(), Failure> {
    let platform = if args.all { None } else { Some(args.platform.unwrap_or_else(Platform::here)) };
    let what = What { platform, referrers: args.referrers };
    let registries = Registries::two(&args.sides, None)?;
    transfer(&registries, &read(&args.from)?, &read(&args.to)?, what, args.sides.parallel, format).await
}

/// Copies one image, and says what was done.
async fn transfer(
    registries: &Registries,
    from: &Place,
    to: &Place,
    what: What,
    parallel: u16,
    format: Format,
) -> Result<(), Failure> {
    let (source, wanted) = open(registries, from)?;
    let shared = Arc::new(Shared::new(usize::from(parallel)));
    let bar = Bar::start(shared.clone());
    let sink = Opened::new(registries, to)?;
    let work = Transfer::new(source, sink.sink.clone(), what, shared.clone());
    let (tag, name) = names(from, to)?;
    let digest = work.copy(&wanted, tag.as_ref(), name.as_deref()).await.map_err(transfer_failure)?;
    sink.finish().await?;
    bar.finish();
    let done = json!({ "from": from.to_string(), "to": to.to_string(), "digest": digest.to_string(),
        "copied": counts(&shared.progress) });
    if !output::machine(format, &done)? {
        output::data(&format!("{digest}\n"));
    }
    Ok(())
}

/// What was done, in numbers.
pub(crate) fn counts(progress: &Progress) -> serde_json::Value {
    use std::sync::atomic::Ordering::Relaxed;
    json!({
        "manifests": progress.manifests.load(Relaxed),
        "blobsSent": progress.sent.load(Relaxed),
        "blobsMounted": progress.mounted.load(Relaxed),
        "blobsThere": progress.there.load(Relaxed),
        "bytes": progress.bytes.load(Relaxed),
    })
}

/// A sink, and for an archive the layout that it is packed from.
struct Opened {
    sink: Sink,
    pack: Option<(tempfile::TempDir, std::path::PathBuf, bool)>,
}

impl Opened {
    fn new(registries: &Registries, to: &Place) -> Result<Self, Failure> {
        let layout = |dir: &Path| LayoutWriter::open(dir).map(|layout| Sink::Layout(Arc::new(layout)));
        let (file, docker) = match to {
            Place::Registry { host, name, .. } => {
                let remote = registries.destination(host, name)?;
                return Ok(Self { sink: Sink::Remote(remote), pack: None });
            }
            Place::Layout { dir, .. } => {
                return Ok(Self { sink: layout(dir).map_err(local_failure)?, pack: None });
            }
            Place::OciArchive { file, .. } => (file, false),
            Place::DockerArchive { file, .. } => (file, true),
        };
        // Beside the file, where there is room for it.
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let dir = tempfile::Builder::new()
            .prefix(".towpath-image-")
            .tempdir_in(parent)
            .map_err(|error| Failure::failed(format!("{} cannot be written to: {error}", parent.display())))?;
        let sink = layout(dir.path()).map_err(local_failure)?;
        Ok(Self { sink, pack: Some((dir, file.clone(), docker)) })
    }

    async fn finish(self) -> Result<(), Failure> {
        let Some((dir, file, docker)) = self.pack else { return Ok(()) };
        let packed = tokio::task::spawn_blocking(move || oci::local::pack(dir.path(), &file, docker)).await;
        packed.map_err(|error| Failure::failed(error.to_string()))?.map_err(local_failure)
    }
}

/// The tag and the name under which a copy stands.
fn names(from: &Place, to: &Place) -> Result<(Option<model::Tag>, Option<String>), Failure> {
    match to {
        Place::Registry { reference: Some(Reference::Tag(tag)), .. } => Ok((Some(tag.clone()), None)),
        Place::Registry { reference: Some(Reference::Digest(_)), .. } => {
            Err(Failure::usage("the destination has a digest; it follows from what is copied")
                .hint("name a tag, or none"))
        }
        Place::Registry { reference: None, .. } => match from {
            // What is copied by digest has no tag, and gets none.
            Place::Registry { reference: Some(Reference::Digest(_)), .. } => Ok((None, None)),
            Place::Registry { reference: Some(Reference::Tag(tag)), .. } => Ok((Some(tag.clone()), None)),
            _ => Ok((LATEST.parse().ok(), None)),
        },
        Place::Layout { name, .. } | Place::OciArchive { name, .. } | Place::DockerArchive { name, .. } => {
            let tag = || match from {
                Place::Registry { reference: Some(Reference::Tag(tag)), .. } => Some(tag.to_string()),
                _ => None,
            };
            let docker = matches!(to, Place::DockerArchive { .. });
            Ok((None, name.clone().or_else(|| if docker { full_name(from) } else { tag() })))
        }
    }
}

/// How docker calls an image of a registry.
fn full_name(place: &Place) -> Option<String> {
    match place {
        Place::Registry { host, name, reference: None } => Some(format!("{host}/{name}:{LATEST}")),
        Place::Registry { host, name, reference: Some(Reference::Tag(tag)) } => Some(format!("{host}/{name}:{tag}")),
        _ => None,
    }
}

/// Opens where an image is, and what it is called there.
pub(crate) fn open(registries: &Registries, place: &Place) -> Result<(Source, Wanted), Failure> {
    let local = |images: Result<LocalImages, LocalError>, name: &Option<String>| {
        let images = images.map_err(local_failure)?;
        let entry = images.find(name.as_deref()).map_err(local_failure)?;
        Ok((Source::Local(Arc::new(images)), Wanted::Entry(Box::new(entry))))
    };
    match place {
        Place::Registry { host, name, reference } => {
            let reference = reference.clone().map_or_else(|| LATEST.parse(), Ok);
            let reference = reference.map_err(|error| Failure::usage(error.to_string()))?;
            Ok((Source::Remote(registries.source(host, name)?), Wanted::Reference(reference)))
        }
        Place::Layout { dir, name } => local(LocalImages::layout(dir), name),
        Place::OciArchive { file, name } | Place::DockerArchive { file, name } => {
            local(LocalImages::archive(file), name)
        }
    }
}

async fn remove(registries: &Registries, place: &Place) -> Result<(), Failure> {
    let Place::Registry { host, name, reference: Some(reference) } = place else {
        return Err(Failure::usage(format!("{place} is no image of a registry with a tag or digest")));
    };
    registries.source(host, name)?.delete(reference).await.map_err(client_failure)?;
    output::note(&format!("{place} removed"));
    Ok(())
}

pub(crate) fn read(text: &str) -> Result<Place, Failure> {
    text.parse().map_err(|error: model::NameError| Failure::usage(error.to_string()))
}

pub(crate) fn transfer_failure(error: TransferError) -> Failure {
    match error {
        TransferError::Client(error) => client_failure(error),
        TransferError::NoPlatform { .. } => {
            Failure::failed(error.to_string()).hint("choose one with --platform, or --all")
        }
        other => Failure::failed(other.to_string()),
    }
}

pub(crate) fn local_failure(error: LocalError) -> Failure {
    Failure::failed(error.to_string())
}
