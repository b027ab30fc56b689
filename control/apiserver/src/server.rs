//! What all requests share, and the context of one of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use meshgate_schema::{Failure, Kind, Registry};
use meshgate_store::{Entry, Expect, Revision, Store, Write, WriteError};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::auth::{Attributes, Denied, User};
use crate::http::body::Body;
use crate::http::media::Format;
use crate::http::path::ResourcePath;
use crate::http::query::Query;
use crate::limits::Gate;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::objects::{self, decode};
use crate::outbound::Outbound;

/// Bytes of a stored object, as in etcd by default: larger ones make every list and watch of their kind slow.
const OBJECT_BYTES_MAX: usize = 1536 * 1024;

/// One API server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Metrics,
    pub(crate) gate: Gate,
    pub(crate) outbound: Outbound,
    /// Where clients inside the cluster reach this server.
    pub(crate) advertise: SocketAddr,
    pub(crate) service_network: (Ipv4Addr, u8),
    pub(crate) shutdown: CancellationToken,
}

/// One request for objects: who, what, and how the answer is to look.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) server: Arc<Server>,
    /// The kinds as they were when the request came in.
    pub(crate) registry: Arc<Registry>,
    pub(crate) kind: Arc<Kind>,
    pub(crate) user: User,
    pub(crate) path: ResourcePath,
    pub(crate) query: Query,
    pub(crate) format: Format,
}

/// What a request for objects is answered with.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An object of the call's kind, as stored.
    Stored(Arc<Entry>),
    /// An object, in its served form.
    Object {
        code: u16,
        object: Value,
        warnings: Vec<String>,
    },
    /// A page of objects of the call's kind.
    List(List),
    /// Anything else, already written.
    Response(Response<Body>),
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) revision: Revision,
    pub(crate) entries: Vec<Arc<Entry>>,
    /// Where the next page starts; empty on the last one.
    pub(crate) next: String,
    /// How many objects follow, where that is known.
    pub(crate) remaining: Option<usize>,
}

impl Reply {
    pub(crate) fn ok(object: Value) -> Reply {
        Reply::Object {
            code: 200,
            object,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn created(object: Value) -> Reply {
        Reply::Object {
            code: 201,
            object,
            warnings: Vec::new(),
        }
    }
}

impl Server {
    /// A stored object in its storage version.
    pub(crate) fn find(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Value> {
        let key = objects::prefix_of(group, resource, namespace) + name;
        let entry = self.store.find(&key)?;
        decode(&entry).ok()
    }

    /// All stored objects of a resource, in one namespace or everywhere.
    pub(crate) fn all(&self, group: &str, resource: &str, namespace: &str) -> Vec<Value> {
        let entries = self
            .store
            .range(&objects::prefix_of(group, resource, namespace))
            .entries;
        entries
            .iter()
            .filter_map(|entry| decode(entry).ok())
            .collect()
    }

    /// Writes to the store; a conflict is for the caller to judge.
    pub(crate) async fn write(
        &self,
        key: &str,
        expect: Expect,
        value: Option<Bytes>,
    ) -> Result<Result<Revision, Option<Arc<Entry>>>, Failure> {
        if value
            .as_ref()
            .is_some_and(|value| value.len() > OBJECT_BYTES_MAX)
        {
            return Err(Failure::too_large(format!(
                "the object is too large to be stored: limit is {OBJECT_BYTES_MAX} bytes"
            )));
        }
        let started = std::time::Instant::now();
        let write = Write {
            key: key.into(),
            expect,
            value,
        };
        let outcome = self.store.write(write).await;
        self.metrics.store_write(started.elapsed());
        match outcome {
            Ok(revision) => Ok(Ok(revision)),
            Err(WriteError::Conflict { current }) => Ok(Err(current)),
            // 507 Insufficient Storage: reads go on, and the write may be tried again.
            Err(error @ WriteError::Unavailable(_)) => {
                Err(Failure::new(507, "", error.to_string()))
            }
            Err(error @ WriteError::Unknown(_)) => Err(Failure::internal(error)),
            Err(error @ WriteError::Closed) => Err(Failure::unavailable(error.to_string())),
        }
    }
}

impl Call {
    /// Group, resource and the name in the path: what most failures are about.
    pub(crate) fn conflict(&self, problem: &str) -> Failure {
        Failure::conflict(
            self.kind.group(),
            self.kind.plural(),
            &self.path.name,
            problem,
        )
    }

    pub(crate) fn not_found(&self) -> Failure {
        Failure::not_found(self.kind.group(), self.kind.plural(), &self.path.name)
    }

    /// The store's key of an object of this call's kind and namespace.
    pub(crate) fn key(&self, name: &str) -> String {
        objects::key(&self.kind, self.namespace(), name)
    }

    /// The namespace of the objects; empty for cluster scope (a Namespace's path names itself).
    pub(crate) fn namespace(&self) -> &str {
        if self.kind.namespaced() {
            &self.path.namespace
        } else {
            ""
        }
    }

    /// A refusal by authorization or admission as an answer about this call's object.
    pub(crate) fn denied(&self, denied: &Denied) -> Failure {
        refusal(denied, Some(&self.path))
    }
}

/// What authorization rules see of a request for objects.
pub(crate) fn attributes<'a>(path: &'a ResourcePath, verb: &'a str) -> Attributes<'a> {
    Attributes::Resource {
        verb,
        group: &path.group,
        resource: &path.resource,
        subresource: &path.subresource,
        namespace: &path.namespace,
        name: &path.name,
    }
}

/// A refusal as an answer; one about objects says which.
pub(crate) fn refusal(denied: &Denied, path: Option<&ResourcePath>) -> Failure {
    let mut failure = Failure::new(denied.code(), denied.reason(), denied.message());
    if denied.code() == 403 {
        let mut details = serde_json::Map::new();
        if let Some(path) = path {
            for (field, text) in [
                ("name", &path.name),
                ("group", &path.group),
                ("kind", &path.resource),
            ] {
                if !text.is_empty() {
                    details.insert(field.to_owned(), text.as_str().into());
                }
            }
        }
        failure.details = Some(Value::Object(details));
    }
    failure
}
