//! Events (core/v1): what people read in `kubectl describe`. Repeats raise a count instead of piling up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

use super::write::is_not_found;

/// Events that may wait to be written; more are dropped, because they explain and never decide.
const WAITING_MAX: usize = 1024;
/// Distinct events remembered to count repeats.
const REMEMBERED_MAX: usize = 4096;
/// Longest message that the API accepts, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Normal or Warning, as in `kubectl describe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Things go as they should.
    Normal,
    /// Someone may have to act.
    Warning,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Reference {
    /// Group and version, `v1` or `apps/v1`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; empty where only the name is known.
    pub uid: String,
    /// A part of the object, `spec.containers{app}`; empty for all of it.
    pub field_path: String,
}

impl Reference {
    /// The object itself.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::of_kind(object.meta(), &K::api_version(&()), &K::kind(&()))
    }

    /// An object known by metadata and kind.
    pub fn of_resource(meta: &ObjectMeta, resource: &ApiResource) -> Self {
        Self::of_kind(meta, &resource.api_version, &resource.kind)
    }

    fn of_kind(meta: &ObjectMeta, api_version: &str, kind: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            field_path: String::new(),
        }
    }

    /// A container of the object.
    #[must_use]
    pub fn container(mut self, name: &str) -> Self {
        self.field_path = format!("spec.containers{{{name}}}");
        self
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Occurrence {
    component: Arc<str>,
    about: Reference,
    kind: EventKind,
    reason: String,
    message: String,
}

/// Where control loops put their events. Cheap to clone; never blocks, never fails.
#[derive(Debug, Clone)]
pub struct Recorder {
    component: Arc<str>,
    queue: mpsc::Sender<(Occurrence, Timestamp)>,
}

/// Writes what a [`Recorder`] was given.
pub struct EventSink {
    queue: mpsc::Receiver<(Occurrence, Timestamp)>,
    writer: Writer,
}

impl Recorder {
    /// A recorder for `component` (`default-scheduler`, `kubelet`, …) on `host` (the node's name; empty for the
    /// control plane), and the sink that somebody must run.
    pub fn new(client: Client, component: &str, host: &str) -> (Self, EventSink) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let writer = Writer {
            client,
            host: host.to_owned(),
            known: HashMap::new(),
            oldest: VecDeque::new(),
        };
        (
            Self {
                component: component.into(),
                queue: sender,
            },
            EventSink {
                queue: receiver,
                writer,
            },
        )
    }

    /// The same for another component, written by the same sink.
    #[must_use]
    pub fn named(&self, component: &str) -> Self {
        Self {
            component: component.into(),
            queue: self.queue.clone(),
        }
    }

    /// Records that something happened to an object. `reason` is a CamelCase word, `message` a sentence.
    pub fn record(
        &self,
        about: Reference,
        kind: EventKind,
        reason: &str,
        message: impl Into<String>,
    ) {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX - 3));
            message.push_str("...");
        }
        let occurrence = Occurrence {
            component: Arc::clone(&self.component),
            about,
            kind,
            reason: reason.to_owned(),
            message,
        };
        if self.queue.try_send((occurrence, Timestamp::now())).is_err() {
            tracing::debug!(reason, "event dropped: too many are waiting");
        }
    }
}

impl EventSink {
    /// Writes events until every recorder is gone.
    pub async fn run(mut self) {
        while let Some((occurrence, at)) = self.queue.recv().await {
            if let Err(error) = self.writer.write(&occurrence, at).await {
                tracing::debug!(reason = occurrence.reason, %error, "event not written");
            }
        }
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventSink")
            .field("host", &self.writer.host)
            .finish_non_exhaustive()
    }
}

struct Writer {
    client: Client,
    host: String,
    known: HashMap<Occurrence, Known>,
    /// In order of first occurrence: what to forget first.
    oldest: VecDeque<Occurrence>,
}

#[derive(Debug)]
struct Known {
    name: String,
    count: u32,
}

impl Writer {
    async fn write(&mut self, occurrence: &Occurrence, at: Timestamp) -> Result<(), kube::Error> {
        let namespace = match occurrence.about.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        if let Some(known) = self.known.get_mut(occurrence) {
            let patch = json!({"count": known.count + 1, "lastTimestamp": seconds(at)});
            match api
                .patch(&known.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await
            {
                Ok(_) => {
                    known.count += 1;
                    return Ok(());
                }
                // It has outlived its time; start anew.
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let name = event_name(&occurrence.about.name, at);
        let event = self.event(occurrence, &name, namespace, at);
        let request = serde_json::from_value(event).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &request).await?;
        self.remember(occurrence, name);
        Ok(())
    }

    fn event(
        &self,
        occurrence: &Occurrence,
        name: &str,
        namespace: &str,
        at: Timestamp,
    ) -> serde_json::Value {
        let about = &occurrence.about;
        let mut involved = json!({
            "apiVersion": about.api_version, "kind": about.kind, "name": about.name,
            "namespace": about.namespace, "uid": about.uid, "fieldPath": about.field_path,
        });
        if let Some(fields) = involved.as_object_mut() {
            fields.retain(|_, value| value != "");
        }
        let mut source = json!({"component": &*occurrence.component});
        if !self.host.is_empty() {
            source["host"] = json!(self.host);
        }
        json!({
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "type": format!("{:?}", occurrence.kind),
            "reason": occurrence.reason,
            "message": occurrence.message,
            "source": source,
            "reportingComponent": &*occurrence.component,
            "reportingInstance": self.host,
            "count": 1,
            "firstTimestamp": seconds(at),
            "lastTimestamp": seconds(at),
        })
    }

    fn remember(&mut self, occurrence: &Occurrence, name: String) {
        if self
            .known
            .insert(occurrence.clone(), Known { name, count: 1 })
            .is_none()
        {
            self.oldest.push_back(occurrence.clone());
        }
        if self.oldest.len() > REMEMBERED_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// The object's name and the time, as client-go names them; the object's part is cut where the whole would be too
/// long for a name.
fn event_name(about: &str, at: Timestamp) -> String {
    let about = &about[..about.floor_char_boundary(230)];
    format!("{about}.{:x}", at.as_nanosecond())
}

/// `Time` of the API knows no fractions.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_object_and_time() {
        let at = Timestamp::from_second(1).expect("in range");
        assert_eq!(event_name("web-1", at), "web-1.3b9aca00");
        assert!(event_name(&"x".repeat(253), at).len() <= 253);
        assert_eq!(seconds(at), "1970-01-01T00:00:01Z");
    }
}
