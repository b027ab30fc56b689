//! Server-side printing: the rows that `kubectl get` shows.

mod cluster;
mod columns;
mod custom;
mod events;
mod json_path;
mod network;
mod pod;
mod workload;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::registry::{Builtin, Kind, Rules};
use crate::time;
use crate::value::text_at;

use columns::Column;

pub(crate) use json_path::JsonPath;

/// What each row's `object` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    /// A `PartialObjectMetadata`.
    #[default]
    Metadata,
    Object,
}

/// How to print a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    pub include: IncludeObject,
    /// Whether to send the column definitions: later events of a watch go without.
    pub headers: bool,
}

impl Kind {
    /// A `meta.k8s.io/v1` Table of these objects.
    pub fn table(
        &self,
        objects: &[&Value],
        list_metadata: Value,
        now: Timestamp,
        options: TableOptions,
    ) -> Value {
        let rows: Vec<Value> = objects
            .iter()
            .map(|object| self.row(object, now, options.include))
            .collect();
        let mut table = Map::new();
        table.insert("kind".into(), "Table".into());
        table.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        table.insert("metadata".into(), list_metadata);
        let definitions = if options.headers {
            self.column_definitions()
        } else {
            Value::Null
        };
        table.insert("columnDefinitions".into(), definitions);
        table.insert("rows".into(), rows.into());
        Value::Object(table)
    }

    fn row(&self, object: &Value, now: Timestamp, include: IncludeObject) -> Value {
        let mut row = Map::new();
        row.insert("cells".into(), self.cells(object, now).into());
        match include {
            IncludeObject::None => {}
            IncludeObject::Object => {
                row.insert("object".into(), object.clone());
            }
            IncludeObject::Metadata => {
                let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
                let partial = json!({
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                });
                row.insert("object".into(), partial);
            }
        }
        Value::Object(row)
    }

    fn column_definitions(&self) -> Value {
        match self.rules() {
            Rules::Custom(version) => custom::definitions(version),
            Rules::Builtin { id, .. } => columns_of(*id)
                .iter()
                .map(Column::definition)
                .collect::<Vec<_>>()
                .into(),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let id = match self.rules() {
            Rules::Custom(version) => return custom::cells(version, object, now),
            Rules::Builtin { id, .. } => *id,
        };
        let cells = match id {
            Builtin::Pod => pod::cells(object, now),
            Builtin::Deployment => workload::deployment_cells(object, now),
            Builtin::ReplicaSet => workload::replica_set_cells(object, now),
            Builtin::Service => network::service_cells(object, now),
            Builtin::Ingress => network::ingress_cells(object, now),
            Builtin::IngressClass => network::ingress_class_cells(object, now),
            Builtin::Endpoints => network::endpoints_cells(object, now),
            Builtin::EndpointSlice => network::endpoint_slice_cells(object, now),
            Builtin::Event | Builtin::EventsEvent => events::cells(object, now),
            Builtin::Node => cluster::node_cells(object, now),
            Builtin::Namespace => cluster::namespace_cells(object, now),
            Builtin::ConfigMap => cluster::config_map_cells(object, now),
            Builtin::Secret => cluster::secret_cells(object, now),
            Builtin::ServiceAccount => cluster::service_account_cells(object, now),
            Builtin::Lease => cluster::lease_cells(object, now),
            Builtin::RoleBinding | Builtin::ClusterRoleBinding => {
                cluster::binding_cells(object, now)
            }
            Builtin::MutatingWebhookConfiguration => cluster::webhooks_cells(object, now),
            Builtin::Role | Builtin::ClusterRole | Builtin::CustomResourceDefinition => {
                vec![
                    name(object),
                    text_at(object, "metadata.creationTimestamp").into(),
                ]
            }
            Builtin::Binding | Builtin::Review => vec![name(object), age(object, now)],
        };
        debug_assert_eq!(
            cells.len(),
            columns_of(id).len(),
            "a cell per column of {id:?}"
        );
        cells
    }
}

fn columns_of(id: Builtin) -> &'static [Column] {
    match id {
        Builtin::Pod => pod::COLUMNS,
        Builtin::Deployment => workload::DEPLOYMENT,
        Builtin::ReplicaSet => workload::REPLICA_SET,
        Builtin::Service => network::SERVICE,
        Builtin::Ingress => network::INGRESS,
        Builtin::IngressClass => network::INGRESS_CLASS,
        Builtin::Endpoints => network::ENDPOINTS,
        Builtin::EndpointSlice => network::ENDPOINT_SLICE,
        Builtin::Event | Builtin::EventsEvent => events::COLUMNS,
        Builtin::Node => cluster::NODE,
        Builtin::Namespace => cluster::NAMESPACE,
        Builtin::ConfigMap => cluster::CONFIG_MAP,
        Builtin::Secret => cluster::SECRET,
        Builtin::ServiceAccount => cluster::SERVICE_ACCOUNT,
        Builtin::Lease => cluster::LEASE,
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => cluster::BINDING,
        Builtin::MutatingWebhookConfiguration => cluster::WEBHOOKS,
        Builtin::Role | Builtin::ClusterRole | Builtin::CustomResourceDefinition => {
            columns::NAME_AND_CREATION
        }
        Builtin::Binding | Builtin::Review => columns::NAME_AND_AGE,
    }
}

fn name(object: &Value) -> Value {
    text_at(object, "metadata.name").into()
}

/// How old the object is.
fn age(object: &Value, now: Timestamp) -> Value {
    time::age(
        object
            .pointer("/metadata/creationTimestamp")
            .and_then(Value::as_str),
        now,
    )
    .into()
}

/// A text, or what kubectl shows instead of none.
fn or_none(text: String) -> Value {
    if text.is_empty() {
        "<none>".into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests;
