//! Rows of nodes, namespaces, configuration, accounts and access rules.

use jiff::Timestamp;
use serde_json::Value;

use crate::value::{bool_at, list_at, map_at, text_at};

use super::columns::Column;
use super::{age, name, or_none};

pub(super) const NODE: &[Column] = &[
    Column::name(),
    Column::text("Status", "The status of the node."),
    Column::text("Roles", "The roles of the node."),
    Column::age(),
    Column::text("Version", "The version of the node's agent."),
    Column::text("Internal-IP", "The node's address inside the cluster.").wide(),
    Column::text("External-IP", "The node's address outside of it.").wide(),
    Column::text("OS-Image", "The operating system.").wide(),
    Column::text("Kernel-Version", "The kernel.").wide(),
    Column::text("Container-Runtime", "What runs the containers.").wide(),
];

pub(super) fn node_cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = |key: &str| match text_at(node, &format!("status.nodeInfo.{key}")) {
        "" => Value::from("<unknown>"),
        text => text.into(),
    };
    vec![
        name(node),
        node_status(node).into(),
        or_none(node_roles(node)),
        age(node, now),
        text_at(node, "status.nodeInfo.kubeletVersion").into(),
        or_none(node_address(node, "InternalIP")),
        or_none(node_address(node, "ExternalIP")),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn node_status(node: &Value) -> String {
    let ready = list_at(node, "status.conditions")
        .iter()
        .find(|one| text_at(one, "type") == "Ready");
    let mut words = vec![match ready.map(|one| text_at(one, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if bool_at(node, "spec.unschedulable") {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn node_roles(node: &Value) -> String {
    let mut roles: Vec<&str> = map_at(node, "metadata.labels")
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None => (key == "kubernetes.io/role").then_some(value.as_str().unwrap_or("")),
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.join(",")
}

fn node_address(node: &Value, kind: &str) -> String {
    let addresses = list_at(node, "status.addresses");
    let found = addresses.iter().find(|one| text_at(one, "type") == kind);
    found.map_or(String::new(), |one| text_at(one, "address").to_owned())
}

pub(super) const NAMESPACE: &[Column] = &[
    Column::name(),
    Column::text("Status", "The status of the namespace"),
    Column::age(),
];

pub(super) fn namespace_cells(namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(namespace),
        text_at(namespace, "status.phase").into(),
        age(namespace, now),
    ]
}

pub(super) const CONFIG_MAP: &[Column] = &[
    Column::name(),
    Column::number("Data", "Number of entries."),
    Column::age(),
];

pub(super) fn config_map_cells(config_map: &Value, now: Timestamp) -> Vec<Value> {
    let entries = map_at(config_map, "data").count() + map_at(config_map, "binaryData").count();
    vec![name(config_map), entries.into(), age(config_map, now)]
}

pub(super) const SECRET: &[Column] = &[
    Column::name(),
    Column::text("Type", "What the secret is for."),
    Column::number("Data", "Number of entries."),
    Column::age(),
];

pub(super) fn secret_cells(secret: &Value, now: Timestamp) -> Vec<Value> {
    let entries = map_at(secret, "data").count();
    vec![
        name(secret),
        text_at(secret, "type").into(),
        entries.into(),
        age(secret, now),
    ]
}

pub(super) const SERVICE_ACCOUNT: &[Column] = &[
    Column::name(),
    Column::number(
        "Secrets",
        "Number of secrets that pods of the account may use.",
    ),
    Column::age(),
];

pub(super) fn service_account_cells(account: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(account),
        list_at(account, "secrets").len().into(),
        age(account, now),
    ]
}

pub(super) const LEASE: &[Column] = &[
    Column::name(),
    Column::text("Holder", "Who holds the lease."),
    Column::age(),
];

pub(super) fn lease_cells(lease: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(lease),
        text_at(lease, "spec.holderIdentity").into(),
        age(lease, now),
    ]
}

pub(super) const BINDING: &[Column] = &[
    Column::name(),
    Column::text("Role", "The role that is given."),
    Column::age(),
    Column::text("Users", "Users who have the role.").wide(),
    Column::text("Groups", "Groups who have the role.").wide(),
    Column::text("ServiceAccounts", "Service accounts which have the role.").wide(),
];

pub(super) fn binding_cells(binding: &Value, now: Timestamp) -> Vec<Value> {
    let of_kind = |kind: &str| {
        let subjects = list_at(binding, "subjects").iter();
        let named: Vec<String> = subjects
            .filter(|subject| text_at(subject, "kind") == kind)
            .map(|subject| match text_at(subject, "namespace") {
                "" => text_at(subject, "name").to_owned(),
                namespace => format!("{namespace}/{}", text_at(subject, "name")),
            })
            .collect();
        Value::from(named.join(", "))
    };
    let role = format!(
        "{}/{}",
        text_at(binding, "roleRef.kind"),
        text_at(binding, "roleRef.name")
    );
    vec![
        name(binding),
        role.into(),
        age(binding, now),
        of_kind("User"),
        of_kind("Group"),
        of_kind("ServiceAccount"),
    ]
}

pub(super) const WEBHOOKS: &[Column] = &[
    Column::name(),
    Column::number("Webhooks", "Number of webhooks in the configuration."),
    Column::age(),
];

pub(super) fn webhooks_cells(configuration: &Value, now: Timestamp) -> Vec<Value> {
    let webhooks = list_at(configuration, "webhooks").len();
    vec![
        name(configuration),
        webhooks.into(),
        age(configuration, now),
    ]
}
