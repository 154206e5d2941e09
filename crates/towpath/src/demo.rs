//! `towpath demo`: the whole path on a sample site. Only a client: it starts `towpath up`, pushes with git, and asks the
//! public API.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod base;
mod check;
mod cleanup;
mod elf;
mod git;
mod load;
mod registry;
mod report;
mod server;
mod site;
mod story;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{DemoArgs, Format};
use crate::error::Failure;
use crate::output;
use server::Server;
use site::Change;
use story::Story;

/// How long taking the site down may take.
const TAKING_DOWN: Duration = Duration::from_secs(60);

/// Tells what happened, with the seconds since the beginning.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn say(self, what: &str) {
        output::note(&format!("{:7.2} s  {what}", self.0.elapsed().as_secs_f64()));
    }
}

/// Where everything is kept.
struct Place {
    /// Removed at the end.
    dir: PathBuf,
    /// The server's data: below `dir`, unless somewhere else was asked for.
    data: PathBuf,
    /// Whether `data` stays.
    stays: bool,
}

impl Place {
    fn new(asked: Option<&Path>) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("towpath-demo-").tempdir();
        let dir = dir.map_err(|error| Failure::failed(format!("no temporary directory can be made: {error}")))?;
        let data = match asked {
            None => dir.path().join("data"),
            Some(data) => {
                if std::fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some()) {
                    let message = format!("the data directory {} is not empty", data.display());
                    return Err(Failure::usage(message).hint("the demo begins with an empty one"));
                }
                std::path::absolute(data)?
            }
        };
        // From here on it is removed in the order that `clean_up` knows.
        Ok(Self { dir: dir.keep(), data, stays: asked.is_some() })
    }
}

/// Ctrl-C and its kin.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn new() -> Result<Self, Failure> {
        let broken = |error: std::io::Error| Failure::failed(format!("signals cannot be awaited: {error}"));
        let listen = |kind| signal(kind).map_err(broken);
        Ok(Self([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }

    /// Does something, unless interrupted.
    async fn or<T>(&mut self, doing: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            result = doing => result,
            () = self.next() => Err(Failure::failed("interrupted; everything that was started is stopped again")),
        }
    }
}

/// Runs the demo. Whatever comes, nothing of it is left running or lying around.
///
/// # Errors
/// When anything does not end as it should.
pub(crate) async fn demo(args: DemoArgs, format: Format) -> Result<ExitCode, Failure> {
    let mut interrupts = Interrupts::new()?;
    let place = Place::new(args.data.as_deref())?;
    let clock = Clock(Instant::now());
    let mut server = None;
    let mut story = None;
    let config = place.dir.join("towpath.yaml");
    let result = match std::fs::write(&config, site::server_file()) {
        Err(error) => Err(Failure::from(error)),
        Ok(()) => match interrupts.or(Box::pin(Server::start(&place.data, &config, args.listen))).await {
            Err(failure) => Err(failure),
            Ok(started) => {
                clock.say(&format!("a server runs at {}", started.url));
                let started = server.insert(started);
                let told = tell(&args, clock, started, &place, &mut story, &mut interrupts, format);
                Box::pin(told).await
            }
        },
    };
    let result = match (&mut server, result) {
        (Some(server), Err(failure)) => Err(server.explain(failure)),
        (_, result) => result,
    };
    let cleaned = clean_up(&place, server, story.as_ref()).await;
    result.and(cleaned).map(|()| ExitCode::SUCCESS)
}

/// The four changes and the report; then, if asked for, serving until somebody ends it.
async fn tell(
    args: &DemoArgs,
    clock: Clock,
    server: &mut Server,
    place: &Place,
    story: &mut Option<Story>,
    interrupts: &mut Interrupts,
    format: Format,
) -> Result<(), Failure> {
    let story = story.insert(Story::new(clock, server, &place.dir)?);
    let whole = async {
        story.prepare(args.site).await?;
        for change in [Change::First, Change::Page, Change::Docs, Change::Broken] {
            story.play(change).await?;
        }
        Ok(())
    };
    interrupts.or(Box::pin(whole)).await?;
    if !output::machine(format, &report::machine(story))? {
        output::data(&report::people(story));
    }
    if args.keep {
        clock.say("the site is served until Ctrl-C");
        tokio::select! {
            () = interrupts.next() => clock.say("stopping"),
            failure = server.ended() => return Err(failure),
        }
    }
    Ok(())
}

/// Stops everything, the site first, and removes what is not asked to stay.
async fn clean_up(place: &Place, server: Option<Server>, story: Option<&Story>) -> Result<(), Failure> {
    if let Some(mut server) = server {
        // Data that stays keeps its target: the next server brings it to life again.
        if let Some(story) = story.filter(|_| !place.stays) {
            // What this leaves, because the server is broken or gone, is ended below.
            let _ = tokio::time::timeout(TAKING_DOWN, story.take_down()).await;
        }
        server.stop().await;
    }
    let (data, dir) = (place.data.clone(), place.dir.clone());
    let removing = tokio::task::spawn_blocking(move || {
        cleanup::end_supervisors(&data);
        cleanup::remove(&dir)
    });
    let removed = removing.await.map_err(|error| Failure::failed(error.to_string()))?;
    removed.map_err(|error| Failure::failed(format!("{} cannot be removed: {error}", place.dir.display())))
}
