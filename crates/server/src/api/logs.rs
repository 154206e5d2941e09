//! Logs as text, and the event log as lines of JSON: what is there, and on demand what comes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use access::{Action, Resource};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use model::RunId;
use pipeline::LogFile;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::api::runs;
use crate::app::App;
use crate::core::Who;
use crate::extract::{Path, Query};
use crate::problem::Problem;

/// How long a log that grows may lie still before it is looked at again, besides every event of the pipeline.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

type Sender = mpsc::Sender<io::Result<Bytes>>;

#[derive(Deserialize)]
pub(super) struct LogQuery {
    part: Option<String>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn logs(
    State(app): State<App>,
    who: Who,
    Path(run): Path<i64>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let run = RunId(run);
    runs::authorize(&app, &who, Action::Read, run).await?;
    // A part that does not exist is an error now, not an empty answer.
    app.pipeline.log_files(run, query.part.as_deref()).await?;
    let (sender, receiver) = mpsc::channel(4);
    let tail = Tail { app, run, part: query.part, sender, sent: Vec::new(), shown: None };
    tokio::spawn(tail.run(query.follow));
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// How far a file was sent.
struct Sent {
    path: PathBuf,
    bytes: u64,
}

struct Tail {
    app: App,
    run: RunId,
    part: Option<String>,
    sender: Sender,
    sent: Vec<Sent>,
    /// The file whose bytes were sent last.
    shown: Option<usize>,
}

impl Tail {
    async fn run(mut self, follow: bool) {
        loop {
            match self.pass().await {
                Ok(ended) if ended || !follow => return,
                Ok(_) => {}
                // An answer that breaks off is not taken for a whole one.
                Err(error) => return drop(self.sender.send(Err(error)).await),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.sender.closed() => return,
                () = self.app.stopped() => return,
            }
        }
    }

    /// Sends what is new; says whether that was all of it.
    async fn pass(&mut self) -> io::Result<bool> {
        let pipeline = &self.app.pipeline;
        // Whether it ended is asked before its files are read: what they hold then is all of it.
        let status = pipeline.status(self.run).await.map_err(io::Error::other)?;
        let files = pipeline.log_files(self.run, self.part.as_deref()).await.map_err(io::Error::other)?;
        let several = files.len() > 1;
        for file in files {
            self.send(&file, several).await?;
        }
        Ok(status.is_none_or(|status| status.ended()))
    }

    async fn send(&mut self, log: &LogFile, several: bool) -> io::Result<()> {
        let Ok(mut file) = tokio::fs::File::open(&log.path).await else { return Ok(()) };
        let index = self.sent.iter().position(|it| it.path == log.path).unwrap_or_else(|| {
            self.sent.push(Sent { path: log.path.clone(), bytes: 0 });
            self.sent.len() - 1
        });
        file.seek(io::SeekFrom::Start(self.sent[index].bytes)).await?;
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(CHUNK);
            if file.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            if several && self.shown != Some(index) {
                self.put(format!("==> {} <==\n", log.part).into()).await?;
            }
            self.shown = Some(index);
            self.sent[index].bytes += buffer.len() as u64;
            self.put(buffer.freeze()).await?;
        }
    }

    async fn put(&self, bytes: Bytes) -> io::Result<()> {
        self.sender.send(Ok(bytes)).await.map_err(io::Error::other)
    }
}

#[derive(Deserialize)]
pub(super) struct EventQuery {
    #[serde(default)]
    after: i64,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn events(
    State(app): State<App>,
    who: Who,
    Query(query): Query<EventQuery>,
) -> Result<Response, Problem> {
    app.allow(&who.0, Action::Admin, Resource::Server).await?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        if let Err(error) = send_events(&app, &query, &sender).await {
            // An answer that breaks off is not taken for a whole one.
            let _ = sender.send(Err(error)).await;
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

async fn send_events(app: &App, query: &EventQuery, sender: &Sender) -> io::Result<()> {
    let mut seen = query.after;
    // Before the log is read: what is written between the two is not missed.
    let mut live = app.pipeline.subscribe();
    loop {
        let events = app.pipeline.journal().after(seen, 500).await.map_err(io::Error::other)?;
        let more = !events.is_empty();
        for event in events {
            seen = event.seq;
            let mut line = serde_json::to_vec(&event)?;
            line.push(b'\n');
            sender.send(Ok(line.into())).await.map_err(io::Error::other)?;
        }
        if more {
            continue;
        }
        if !query.follow {
            return Ok(());
        }
        // Whatever arrives is read from the log, in its order.
        tokio::select! {
            event = live.recv() => if event == Err(RecvError::Closed) { return Ok(()) },
            () = sender.closed() => return Ok(()),
            () = app.stopped() => return Ok(()),
        }
    }
}
