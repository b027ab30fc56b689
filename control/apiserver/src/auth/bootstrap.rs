//! The roles and bindings that every cluster starts with.

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::rbac::Rule;

/// Ordinary manifests, so that they read as any others. What configuration push may do is said where other clusters are
/// told it: it must be in force before push asks for the first time, and be the same.
const MANIFESTS: [&str; 2] = [
    include_str!("bootstrap.yaml"),
    include_str!("../../../push/manifests/10-control-rbac.yaml"),
];

/// Objects to create at start where they are missing. Where they exist, rules and subjects that they lack are added
/// (unless their annotation `rbac.authorization.kubernetes.io/autoupdate` says `"false"`), and nothing is taken away.
pub(crate) fn bootstrap() -> Vec<Value> {
    let documents = MANIFESTS
        .into_iter()
        .flat_map(serde_norway::Deserializer::from_str);
    let mut objects: Vec<Value> = documents
        .map(|document| {
            Value::deserialize(document).expect("the manifests are part of the binary and tested")
        })
        .collect();
    for object in &mut objects {
        let metadata = &mut object["metadata"];
        metadata["labels"]["kubernetes.io/bootstrapping"] = json!("rbac-defaults");
        metadata["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = json!("true");
    }
    objects
}

/// What every node may do apart from its own pods' objects: the rules of the ClusterRole `system:node`.
pub(super) fn node_rules() -> Vec<Rule> {
    let objects = bootstrap();
    let role = objects.iter().find(|object| {
        object["kind"] == "ClusterRole" && object["metadata"]["name"] == "system:node"
    });
    role.map_or_else(Vec::new, |role| Rule::all_of(&role["rules"]).to_vec())
}
