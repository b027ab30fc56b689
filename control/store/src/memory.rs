//! The state that reads and watches are served from: the live entries and a bounded history per topic.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::watch;

use crate::Revision;
use crate::journal::Loaded;

/// Events kept per topic. A watcher that falls further behind must list again.
const HISTORY_EVENTS_MAX: usize = 1024;
/// Bytes of values kept alive per topic by its history; an idle control plane must stay small.
const HISTORY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A key's value and its place in history.
#[derive(Debug)]
pub struct Entry {
    /// `/registry/<group>/<resource>/…`
    pub key: Arc<str>,
    /// Opaque to the store.
    pub value: Bytes,
    /// Revision of the write that created the key.
    pub created: Revision,
    /// Revision of the last write.
    pub modified: Revision,
}

/// One committed write, as watchers see it.
pub struct Event {
    /// Of this write.
    pub revision: Revision,
    /// The new entry; `None` when the key was deleted.
    pub current: Option<Arc<Entry>>,
    /// The entry before; `None` when the key was created.
    pub previous: Option<Arc<Entry>>,
    /// Whatever a reader derived from the event, so that many watchers derive it once.
    derived: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Event {
    pub(crate) fn new(
        revision: Revision,
        current: Option<Arc<Entry>>,
        previous: Option<Arc<Entry>>,
    ) -> Event {
        Event {
            revision,
            current,
            previous,
            derived: OnceLock::new(),
        }
    }

    /// The key that was written.
    pub fn key(&self) -> &Arc<str> {
        match (&self.current, &self.previous) {
            (Some(entry), _) | (None, Some(entry)) => &entry.key,
            (None, None) => unreachable!("an event has an entry before or after it"),
        }
    }

    /// What `derive` made of this event, computed once for all watchers.
    pub fn derived<T: Any + Send + Sync>(&self, derive: impl FnOnce(&Event) -> T) -> Arc<T> {
        let any = self.derived.get_or_init(|| Arc::new(derive(self)));
        Arc::clone(any)
            .downcast()
            .expect("one reader derives one type from all events")
    }

    fn bytes(&self) -> usize {
        let of = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |entry| entry.value.len());
        of(&self.current) + of(&self.previous)
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("revision", &self.revision)
            .field("key", self.key())
            .field("deleted", &self.current.is_none())
            .finish()
    }
}

/// The live entries under a prefix at one revision.
#[derive(Debug)]
pub struct Snapshot {
    /// Revision of the whole store at that moment.
    pub revision: Revision,
    /// In key order.
    pub entries: Vec<Arc<Entry>>,
}

/// The history of one resource (`/registry/<group>/<resource>/`).
///
/// History is kept per resource so that a chatty one (leases) does not push a quiet one's past out.
#[derive(Debug)]
pub(crate) struct Topic {
    /// Events after this revision are all in `events`.
    pub(crate) floor: Revision,
    pub(crate) events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Revision of the topic's last event; watchers sleep on it.
    pub(crate) head: watch::Sender<Revision>,
}

impl Topic {
    fn new(floor: Revision) -> Topic {
        Topic {
            floor,
            events: VecDeque::new(),
            bytes: 0,
            head: watch::Sender::new(floor),
        }
    }

    fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        // The newest event always stays: it must reach the watchers that are up to date.
        while self.events.len() > HISTORY_EVENTS_MAX
            || (self.bytes > HISTORY_BYTES_MAX && self.events.len() > 1)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.events.pop_front() {
            self.bytes -= oldest.bytes();
            self.floor = oldest.revision;
        }
    }
}

/// Everything in memory. Only the writer changes it.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) revision: Revision,
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    topics: HashMap<Box<str>, Topic>,
    /// No topic remembers anything at or before this revision.
    floor: Revision,
}

impl Memory {
    pub(crate) fn new(loaded: Loaded) -> Memory {
        let entries = loaded.entries.into_iter();
        Memory {
            revision: loaded.revision,
            entries: entries
                .map(|entry| (Arc::clone(&entry.key), entry))
                .collect(),
            topics: HashMap::new(),
            // The past is not on disk, so a watch from before this start has to list again.
            floor: loaded.revision,
        }
    }

    pub(crate) fn find(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    pub(crate) fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry)
    }

    /// The entries under `prefix` as they were at `revision`; `None` if that is forgotten.
    pub(crate) fn range_at(&self, prefix: &str, revision: Revision) -> Option<Vec<Arc<Entry>>> {
        let topic = self.topics.get(topic_of(prefix));
        if revision < topic.map_or(self.floor, |topic| topic.floor) {
            return None;
        }
        let mut then: BTreeMap<&str, &Arc<Entry>> = self
            .range(prefix)
            .map(|entry| (&*entry.key, entry))
            .collect();
        let events = topic
            .into_iter()
            .flat_map(|topic| topic.events.iter().rev());
        for event in events.take_while(|event| event.revision > revision) {
            match &event.previous {
                Some(entry) if entry.key.starts_with(prefix) => then.insert(&entry.key, entry),
                Some(_) => None,
                None => then.remove(&**event.key()),
            };
        }
        Some(then.into_values().map(Arc::clone).collect())
    }

    pub(crate) fn topic(&mut self, prefix: &str) -> &mut Topic {
        let floor = self.floor;
        let name = topic_of(prefix);
        self.topics
            .entry(name.into())
            .or_insert_with(|| Topic::new(floor))
    }

    pub(crate) fn existing_topic(&self, prefix: &str) -> Option<&Topic> {
        self.topics.get(topic_of(prefix))
    }

    /// Applies a durable write; it is in the history, its watchers are not woken yet.
    pub(crate) fn apply(&mut self, event: &Arc<Event>) {
        match &event.current {
            Some(entry) => self
                .entries
                .insert(Arc::clone(&entry.key), Arc::clone(entry)),
            None => self.entries.remove(event.key()),
        };
        self.revision = event.revision;
        self.topic(event.key()).push(Arc::clone(event));
    }

    /// Wakes the watchers of a key's topic.
    pub(crate) fn announce(&self, key: &str, revision: Revision) {
        if let Some(topic) = self.existing_topic(key) {
            topic.head.send_replace(revision);
        }
    }

    /// Lets sleeping watchers see that nothing will come any more.
    pub(crate) fn close(&mut self) {
        self.topics.clear();
    }

    /// Forgets the history up to and including `revision`.
    pub(crate) fn compact(&mut self, revision: Revision) {
        let revision = revision.min(self.revision);
        self.floor = self.floor.max(revision);
        for topic in self.topics.values_mut() {
            while topic
                .events
                .front()
                .is_some_and(|event| event.revision <= revision)
            {
                topic.forget_oldest();
            }
            topic.floor = topic.floor.max(revision);
        }
    }
}

/// `/registry/<group>/<resource>/` of a key or prefix: everything up to the fourth slash.
pub(crate) fn topic_of(key: &str) -> &str {
    match key.match_indices('/').nth(3) {
        Some((at, _)) => &key[..=at],
        None => key,
    }
}
