//! `towpath migrate`.

mod state;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use model::{ImageName, Tag};
use oci::client::Remote;
use oci::transfer::{Shared, Sink, Source, Transfer, Wanted, What};
use oci::{Reference, RegistryHost};
use serde_json::json;

use crate::cli::Format;
use crate::cli::image::{MigrateArgs, MigrateCommand};
use crate::command::image::{Bar, Registries, client_failure, counts, transfer_failure};
use crate::error::Failure;
use crate::output;
use state::State;

/// The most repositories, and tags of one.
const MOST: usize = 1_000_000;
/// How long in all one request waits for a registry with a limit on requests: theirs are counted by the hour.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// Repositories that are copied at the same time.
const REPOSITORIES: usize = 3;
/// Tags of a repository that are copied at the same time.
const TAGS: usize = 4;
/// Failures that are listed.
const FAILURES: usize = 100;

pub(crate) async fn migrate(command: MigrateCommand, format: Format) -> Result<ExitCode, Failure> {
    match command {
        MigrateCommand::Images(args) => images(args, format).await,
    }
}

/// A registry and the beginning of names there.
struct Namespace {
    host: RegistryHost,
    /// Without a slash at its end; empty for the whole registry.
    prefix: String,
}

impl Namespace {
    fn read(text: &str) -> Result<Self, Failure> {
        let text = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
        let (host, prefix) = text.split_once('/').unwrap_or((text, ""));
        let usage = |error: model::NameError| Failure::usage(error.to_string()).hint("expected HOST[/NAMESPACE]");
        let host = host.parse().map_err(usage)?;
        if !prefix.is_empty() {
            prefix.parse::<ImageName>().map_err(usage)?;
        }
        Ok(Self { host, prefix: prefix.to_owned() })
    }

    /// What is left of a name that is in this namespace.
    fn rest<'a>(&self, name: &'a str) -> Option<&'a str> {
        if self.prefix.is_empty() {
            return Some(name);
        }
        name.strip_prefix(&self.prefix)?.strip_prefix('/')
    }

    fn name(&self, rest: &str) -> Result<ImageName, Failure> {
        let name = if self.prefix.is_empty() { rest.to_owned() } else { format!("{}/{rest}", self.prefix) };
        name.parse().map_err(|error: model::NameError| Failure::usage(error.to_string()))
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.host, self.prefix)
    }
}

/// A migration on its way.
struct Migration {
    from: Namespace,
    to: Namespace,
    registries: Registries,
    state: State,
    shared: Arc<Shared>,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    repositories: u64,
    copied: u64,
    unchanged: u64,
    failures: Vec<(String, Failure)>,
}

async fn images(args: MigrateArgs, format: Format) -> Result<ExitCode, Failure> {
    let (from, to) = (Namespace::read(&args.from)?, Namespace::read(&args.to)?);
    let state = State::open(&args.state, &from.to_string(), &to.to_string())?;
    let registries = Registries::two(&args.sides, Some(PATIENCE))?;
    let shared = Arc::new(Shared::new(usize::from(args.sides.parallel)));
    let migration = Migration { from, to, registries, state, shared: shared.clone(), done: Mutex::default() };
    let names = migration.repositories(args.repositories.as_deref()).await?;
    if names.is_empty() {
        let failure = Failure::failed(format!("{} has no repositories that we can see", migration.from));
        return Err(failure.hint("name them with --repositories"));
    }
    let bar = Bar::start(shared);
    let migration = &migration;
    futures_util::stream::iter(&names).for_each_concurrent(REPOSITORIES, |rest| migration.repository(rest)).await;
    bar.finish();
    migration.report(format)
}

impl Migration {
    /// What is to be copied, as what follows the namespace.
    async fn repositories(&self, given: Option<&str>) -> Result<BTreeSet<String>, Failure> {
        let names: Vec<String> = match given {
            Some(given) => {
                let text = match std::fs::read_to_string(given) {
                    Ok(text) => text,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => given.to_owned(),
                    Err(error) => return Err(Failure::usage(format!("{given}: {error}"))),
                };
                let names = text.split([',', '\n']).map(str::trim);
                names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect()
            }
            None => {
                let listed = self.registries.source_registry(&self.from.host)?.all_repositories(MOST).await;
                let listed = listed.map_err(|error| {
                    let failure = client_failure(error);
                    let message = format!("{} does not list its repositories: {failure}", self.from.host);
                    Failure::new(failure.kind, message).hint("name them with --repositories")
                })?;
                listed.iter().filter(|name| self.from.rest(name.as_str()).is_some()).map(ToString::to_string).collect()
            }
        };
        // A list may name them with or without the namespace.
        let rests = names.iter().map(|name| self.from.rest(name).unwrap_or(name).to_owned());
        rests.map(|rest| self.from.name(&rest).map(|_| rest)).collect()
    }

    async fn repository(&self, rest: &str) {
        if let Err(failure) = self.try_repository(rest).await {
            self.failed(rest.to_owned(), failure);
        }
    }

    async fn try_repository(&self, rest: &str) -> Result<(), Failure> {
        let (from, to) = (self.from.name(rest)?, self.to.name(rest)?);
        let source = self.registries.source(&self.from.host, &from)?;
        let sink = self.registries.destination(&self.to.host, &to)?;
        let tags = source.all_tags(MOST).await.map_err(client_failure)?;
        let what = What { platform: None, referrers: true };
        let (from, to) = (Source::Remote(source.clone()), Sink::Remote(sink.clone()));
        let transfer = Transfer::new(from, to, what, self.shared.clone());
        let tags = tags.into_iter().filter(|tag| !lists_referrers(tag));
        futures_util::stream::iter(tags)
            .for_each_concurrent(TAGS, |tag| {
                let (transfer, source, sink) = (&transfer, &source, &sink);
                async move {
                    match self.tag(transfer, source, sink, rest, &tag).await {
                        Ok(true) => self.count(|done| done.copied += 1),
                        Ok(false) => self.count(|done| done.unchanged += 1),
                        Err(failure) => self.failed(format!("{rest}:{tag}"), failure),
                    }
                }
            })
            .await;
        self.count(|done| done.repositories += 1);
        Ok(())
    }

    /// Copies one tag; false if everything was there.
    async fn tag(
        &self,
        transfer: &Transfer,
        source: &Remote,
        sink: &Remote,
        rest: &str,
        tag: &Tag,
    ) -> Result<bool, Failure> {
        let reference = Reference::Tag(tag.clone());
        let head = source.head_manifest(&reference, Remote::ACCEPT).await.map_err(client_failure)?;
        let wanted = head.ok_or_else(|| Failure::failed("the tag was removed while it was copied"))?.digest;
        if self.state.is_done(rest, tag, &wanted) && self.stands(sink, &reference, &wanted).await? {
            return Ok(false);
        }
        let copied = transfer.copy(&Wanted::Reference(reference.clone()), Some(tag), None).await;
        let copied = copied.map_err(transfer_failure)?;
        if !self.stands(sink, &reference, &copied).await? {
            return Err(Failure::failed(format!("the destination has not {copied} under the tag")));
        }
        self.state.note(rest, tag, &copied)?;
        Ok(true)
    }

    /// Whether the destination has this digest under the tag.
    async fn stands(&self, sink: &Remote, reference: &Reference, digest: &model::Digest) -> Result<bool, Failure> {
        match sink.head_manifest(reference, Remote::ACCEPT).await {
            Ok(found) => Ok(found.is_some_and(|found| found.digest == *digest)),
            // Some registries refuse to talk about a repository that does not exist.
            Err(error) if error.is_denied() => Ok(false),
            Err(error) => Err(client_failure(error)),
        }
    }

    fn count(&self, change: impl FnOnce(&mut Done)) {
        change(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn failed(&self, what: String, failure: Failure) {
        self.count(|done| done.failures.push((what, failure)));
    }

    fn report(&self, format: Format) -> Result<ExitCode, Failure> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let failures: Vec<_> = done
            .failures
            .iter()
            .take(FAILURES)
            .map(|(what, failure)| json!({ "what": what, "why": failure.message }))
            .collect();
        let summary = json!({
            "from": self.from.to_string(),
            "to": self.to.to_string(),
            "repositories": done.repositories,
            "tags": { "copied": done.copied, "unchanged": done.unchanged, "failed": done.failures.len() },
            "copied": counts(&self.shared.progress),
            "failures": failures,
        });
        if !output::machine(format, &summary)? {
            let (copied, unchanged) = (done.copied, done.unchanged);
            let line = format!("{} repositories: {copied} tags copied, {unchanged} unchanged", done.repositories);
            output::data(&format!("{line}, {} failed\n", done.failures.len()));
        }
        let Some((_, first)) = done.failures.first() else { return Ok(ExitCode::SUCCESS) };
        for (what, failure) in done.failures.iter().take(FAILURES) {
            output::note(&format!("{what}: {}", failure.message));
        }
        let message = format!("{} of the copies failed", done.failures.len());
        Err(Failure::new(first.kind, message).hint("run the same command again; it goes on with what is missing"))
    }
}

/// Whether a tag only lists the referrers of a manifest (`sha256-<hex>`): those are copied with what they refer to.
fn lists_referrers(tag: &Tag) -> bool {
    let hex = |rest: &str| rest.len() >= 64 && rest.bytes().all(|b| b.is_ascii_hexdigit());
    tag.as_str().strip_prefix("sha256-").or_else(|| tag.as_str().strip_prefix("sha512-")).is_some_and(hex)
}
