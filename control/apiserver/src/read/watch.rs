//! Watches: a stream of frames, one per event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::Response;
use jiff::Timestamp;
use meshgate_schema::{Failure, IncludeObject, Media, TableOptions};
use meshgate_store::{Entry, Event, Revision, Watch, WatchError};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::selection::{Change, Selection};
use super::view::{include, metadata_only};
use crate::http::answer;
use crate::http::body;
use crate::http::media::{Format, Shape};
use crate::http::options::{ListOptions, Version};
use crate::metrics::Watching;
use crate::objects::{JsonWriter, read_at, write_value};
use crate::server::{Call, Reply};

/// How long a watch lives that names no time of its own: spread, so that not all clients return at once.
const LIFE_S: std::ops::Range<u64> = 1800..3600;
/// Between bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of the initial state handed to the connection at a time.
const CHUNK_BYTES: usize = 64 * 1024;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// WATCH.
pub(crate) fn watch(call: Arc<Call>) -> Result<Reply, Failure> {
    let options = ListOptions::parse(&call.query, true)?;
    let selection = Selection::parse(&call.kind, call.namespace(), &call.query)?;
    let table = include(&call)?;
    let life = options
        .timeout_s
        .unwrap_or_else(|| rand::rng().random_range(LIFE_S));
    let frames = Frames {
        call: Arc::clone(&call),
        include: table,
        headers: true,
    };
    let mut stream = Stream {
        deadline: Instant::now() + Duration::from_secs(life),
        bookmarks: options.bookmarks.then(bookmark_interval),
        watching: call.server.metrics.watching(&call.kind),
        pending: VecDeque::new(),
        watch: None,
        selection,
        frames,
    };
    stream.begin(&options)?;
    let shutdown = call.server.shutdown.clone();
    let frames = stream::unfold(stream, |mut stream| async {
        let chunk = stream.next().await?;
        Some((Ok(chunk), stream))
    });
    let frames = futures::StreamExt::take_until(frames, shutdown.cancelled_owned());
    let mut response = Response::new(body::stream(frames));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    Ok(Reply::Response(response))
}

fn bookmark_interval() -> Interval {
    let mut interval =
        tokio::time::interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// One watch under way.
struct Stream {
    frames: Frames,
    selection: Selection,
    /// `None`: nothing follows what is pending.
    watch: Option<Watch>,
    /// Chunks that are ready to go.
    pending: VecDeque<Bytes>,
    bookmarks: Option<Interval>,
    deadline: Instant,
    watching: Watching,
}

impl Stream {
    /// Decides where the watch starts, and what it replays.
    fn begin(&mut self, options: &ListOptions) -> Result<(), Failure> {
        let store = &self.frames.call.server.store;
        let replay = match (options.initial_events, options.version) {
            (Some(initial), _) => initial,
            (None, Version::Latest | Version::Any) => true,
            (None, Version::At(_)) => false,
        };
        let current = store.revision();
        let from = match options.version {
            Version::At(at) => {
                super::list::not_ahead(at, current)?;
                if replay { current } else { at }
            }
            Version::Latest | Version::Any => current,
        };
        let from = if replay {
            let snapshot = store.range(&self.selection.prefix);
            self.replay(&snapshot.entries)?;
            if options.initial_events == Some(true) {
                let bookmark = self.frames.bookmark(snapshot.revision, true);
                self.pending.push_back(bookmark);
            }
            snapshot.revision
        } else {
            from
        };
        match self
            .frames
            .call
            .server
            .store
            .watch(&self.selection.prefix, from)
        {
            Ok(watch) => self.watch = Some(watch),
            Err(WatchError::Compacted { from, floor }) => self.expire(from, floor),
            Err(error @ WatchError::Closed) => return Err(Failure::unavailable(error.to_string())),
        }
        Ok(())
    }

    fn replay(&mut self, entries: &[Arc<Entry>]) -> Result<(), Failure> {
        let mut chunk = Vec::new();
        for entry in entries {
            if self.selection.matches(&self.frames.call.kind, entry) {
                self.frames
                    .event("ADDED", entry, entry.modified, &mut chunk)?;
                if chunk.len() >= CHUNK_BYTES {
                    self.pending.push_back(std::mem::take(&mut chunk).into());
                }
            }
        }
        if !chunk.is_empty() {
            self.pending.push_back(chunk.into());
        }
        Ok(())
    }

    /// The history does not reach back far enough: the client has to list again.
    fn expire(&mut self, from: Revision, floor: Revision) {
        let failure = Failure::expired(format!("too old resource version: {from} ({floor})"));
        self.pending.push_back(error_frame(&failure));
        self.watch = None;
    }

    /// The next chunk; `None` ends the watch.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                return Some(chunk);
            }
            let watch = self.watch.as_mut()?;
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = tick(&mut self.bookmarks) => {
                    // Whatever is there already is older than the bookmark.
                    let ready = watch.ready();
                    let at = watch.position();
                    self.take_in(ready);
                    if self.watch.is_some() {
                        let bookmark = self.frames.bookmark(at, false);
                        self.pending.push_back(bookmark);
                    }
                }
                events = watch.next() => self.take_in(events),
            }
        }
    }

    fn take_in(&mut self, events: Result<Vec<Arc<Event>>, WatchError>) {
        match events {
            Ok(events) => {
                let mut chunk = Vec::new();
                for event in &events {
                    if let Err(failure) = self.write(event, &mut chunk) {
                        self.pending.push_back(error_frame(&failure));
                        self.watch = None;
                        break;
                    }
                }
                if !chunk.is_empty() {
                    self.pending.push_front(chunk.into());
                }
            }
            Err(WatchError::Compacted { from, floor }) => self.expire(from, floor),
            Err(WatchError::Closed) => self.watch = None,
        }
    }

    fn write(&mut self, event: &Event, chunk: &mut Vec<u8>) -> Result<(), Failure> {
        let change = self.selection.change(&self.frames.call.kind, event);
        let (name, entry) = match (change, &event.current, &event.previous) {
            (Change::Added, Some(entry), _) => ("ADDED", entry),
            (Change::Modified, Some(entry), _) => ("MODIFIED", entry),
            // What left the selection is shown as it was, under the revision at which it left.
            (Change::Deleted, _, Some(entry)) => ("DELETED", entry),
            _ => return Ok(()),
        };
        self.watching.event();
        self.frames.event(name, entry, event.revision, chunk)
    }
}

async fn tick(bookmarks: &mut Option<Interval>) {
    match bookmarks {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn error_frame(failure: &Failure) -> Bytes {
    let mut frame = br#"{"type":"ERROR","object":"#.to_vec();
    write_value(&mut frame, &failure.to_status());
    frame.extend_from_slice(b"}\n");
    frame.into()
}

/// Writes events in the shape that was asked for.
struct Frames {
    call: Arc<Call>,
    include: IncludeObject,
    /// Whether the next Table carries its column definitions: only the first one does.
    headers: bool,
}

impl Frames {
    fn event(
        &mut self,
        name: &str,
        entry: &Entry,
        revision: Revision,
        chunk: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        chunk.extend_from_slice(br#"{"type":""#);
        chunk.extend_from_slice(name.as_bytes());
        chunk.extend_from_slice(br#"","object":"#);
        match self.call.format.shape {
            Shape::Whole => JsonWriter::new(&self.call.kind).object(entry, revision, chunk)?,
            Shape::Metadata => {
                let object = read_at(&self.call.kind, entry, revision)?;
                write_value(chunk, &metadata_only(&object));
            }
            Shape::Table => {
                let object = read_at(&self.call.kind, entry, revision)?;
                write_value(chunk, &self.table(&object, revision));
            }
        }
        chunk.extend_from_slice(b"}\n");
        Ok(())
    }

    fn table(&mut self, object: &Value, revision: Revision) -> Value {
        let options = TableOptions {
            include: self.include,
            headers: std::mem::take(&mut self.headers),
        };
        let metadata = json!({"resourceVersion": revision.to_string()});
        self.call
            .kind
            .table(&[object], metadata, Timestamp::now(), options)
    }

    /// An object that only says how far the watch has come.
    fn bookmark(&mut self, revision: Revision, initial_events_end: bool) -> Bytes {
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let mut object = json!({
            "kind": self.call.kind.kind(),
            "apiVersion": self.call.kind.api_version(),
            "metadata": metadata,
        });
        match self.call.format.shape {
            Shape::Whole => {}
            Shape::Metadata => object = metadata_only(&object),
            Shape::Table => object = self.table(&object, revision),
        }
        let frame = json!({"type": "BOOKMARK", "object": object});
        answer::json(&frame, false).into()
    }
}

/// The format of a watch: frames are JSON, also for clients that would like protobuf or YAML better.
pub(crate) fn format(format: Format) -> Format {
    Format {
        encoding: Media::Json,
        pretty: false,
        ..format
    }
}
