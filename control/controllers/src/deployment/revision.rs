//! Revisions: which ReplicaSet is which version of the template, and what `kubectl rollout history` and `undo` read.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::ObjectMeta;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::objects::{Deployment, ReplicaSet};

/// Number of the revision, on Deployments and ReplicaSets.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Numbers that a ReplicaSet had before, when its template came back.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Replicas that the Deployment wanted when it scaled the ReplicaSet last.
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The same plus the surge: the base of proportional scaling.
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Label that tells the pods of one template from those of another.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// Most bytes of the revision history annotation.
const HISTORY_BYTES_MAX: usize = 2000;
/// Letters and digits that can spell no word, as in generated names.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const HASH_LETTERS: usize = 10;

/// Whether two pod templates are the same but for the hash label.
pub(crate) fn same_template(a: &Value, b: &Value) -> bool {
    without_hash(a) == without_hash(b)
}

/// The template without its hash label, and without empty parts that say the same as their absence.
fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.shift_remove(TEMPLATE_HASH);
        }
        metadata.retain(|_, value| {
            !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty())
        });
    }
    template
}

/// The ReplicaSet of the Deployment's present template: the oldest one if there are several.
pub(crate) fn newest_template<'a>(
    deployment: &Deployment,
    replica_sets: &'a [Arc<ReplicaSet>],
) -> Option<&'a Arc<ReplicaSet>> {
    let same = replica_sets
        .iter()
        .filter(|rs| same_template(&rs.spec.template, &deployment.spec.template));
    same.min_by_key(|rs| age_order(&rs.metadata))
}

/// Oldest first, then by name.
pub(crate) fn age_order(meta: &ObjectMeta) -> impl Ord + use<> {
    (
        meta.creation_timestamp.as_ref().map(|time| time.0),
        meta.name.clone(),
    )
}

/// Youngest first, then by name.
pub(crate) fn youth_order(meta: &ObjectMeta) -> impl Ord + use<> {
    (
        Reverse(meta.creation_timestamp.as_ref().map(|time| time.0)),
        meta.name.clone(),
    )
}

/// Name part of a template's ReplicaSet: the same for the same template and collision count, different otherwise.
pub(crate) fn template_hash(template: &Value, collisions: Option<i32>) -> String {
    let mut digest = Sha256::new();
    hash_value(&without_hash(template), &mut digest);
    digest.update(collisions.unwrap_or(0).to_be_bytes());
    let letters = digest.finalize();
    letters
        .iter()
        .take(HASH_LETTERS)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// Feeds JSON in a form that does not depend on the order of keys.
fn hash_value(value: &Value, digest: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            digest.update(b"{");
            for (key, value) in sorted {
                digest.update(key.as_bytes());
                digest.update(b":");
                hash_value(value, digest);
                digest.update(b",");
            }
            digest.update(b"}");
        }
        Value::Array(items) => {
            digest.update(b"[");
            for item in items {
                hash_value(item, digest);
                digest.update(b",");
            }
            digest.update(b"]");
        }
        scalar => digest.update(scalar.to_string().as_bytes()),
    }
}

/// The revision number on an object; 0 where there is none.
pub(crate) fn revision(meta: &ObjectMeta) -> i64 {
    number(meta, REVISION).unwrap_or(0)
}

/// A whole number in an annotation.
pub(crate) fn number(meta: &ObjectMeta, annotation: &str) -> Option<i64> {
    meta.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// The Deployment's annotations that its ReplicaSets carry too.
fn inherited(deployment: &Deployment) -> impl Iterator<Item = (&String, &String)> {
    let own = [
        LAST_APPLIED,
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        ROLLBACK_TO,
    ];
    deployment
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(move |(key, _)| !own.contains(&key.as_str()))
}

/// Annotations that the ReplicaSet of the present template must have, given the highest revision among the others;
/// only those that differ from what it has.
pub(crate) fn annotations(
    deployment: &Deployment,
    existing: Option<&ReplicaSet>,
    highest_other: i64,
) -> BTreeMap<String, String> {
    let mut wanted: BTreeMap<String, String> = inherited(deployment)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let next = highest_other + 1;
    match existing {
        None => {
            wanted.insert(REVISION.to_owned(), next.to_string());
        }
        Some(existing) => {
            let known = revision(&existing.metadata);
            if known < next {
                wanted.insert(REVISION.to_owned(), next.to_string());
                if known > 0 {
                    wanted.insert(REVISION_HISTORY.to_owned(), history(existing, known));
                }
            }
            let has = existing.metadata.annotations.as_ref();
            wanted.retain(|key, value| has.and_then(|has| has.get(key)) != Some(value));
        }
    }
    wanted
}

fn history(replica_set: &ReplicaSet, number: i64) -> String {
    let annotations = replica_set.metadata.annotations.as_ref();
    let known = annotations
        .and_then(|all| all.get(REVISION_HISTORY))
        .map(String::as_str)
        .unwrap_or_default();
    let mut numbers: Vec<String> = known
        .split(',')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    numbers.push(number.to_string());
    while numbers.len() > 1
        && numbers.iter().map(|number| number.len() + 1).sum::<usize>() > HISTORY_BYTES_MAX
    {
        numbers.remove(0);
    }
    numbers.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_the_same_whatever_the_order_and_the_hash() {
        let a = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"x": 1, "y": [1, 2]}});
        let b = json!({"spec": {"y": [1, 2], "x": 1}, "metadata": {"labels": {TEMPLATE_HASH: "abc", "app": "web"}}});
        let c = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"x": 1, "y": [2, 1]}});
        assert!(same_template(&a, &b));
        assert!(!same_template(&a, &c));
        assert_eq!(template_hash(&a, None), template_hash(&b, None));
        assert_ne!(template_hash(&a, None), template_hash(&c, None));
        assert_ne!(template_hash(&a, None), template_hash(&a, Some(1)));
        assert_eq!(template_hash(&a, None).len(), HASH_LETTERS);
    }

    #[test]
    fn a_template_that_comes_back_gets_a_new_number_and_remembers_the_old() {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "annotations": {
                "kubernetes.io/change-cause": "undo", REVISION: "5", LAST_APPLIED: "{}"}},
            "spec": {"selector": {}, "template": {}},
        }))
        .expect("valid");
        let old: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "web-a", "annotations": {REVISION: "2", REVISION_HISTORY: "1"}},
            "spec": {"selector": {}, "template": {}},
        }))
        .expect("valid");
        let changed = annotations(&deployment, Some(&old), 5);
        let expected = [
            ("kubernetes.io/change-cause", "undo"),
            (REVISION, "6"),
            (REVISION_HISTORY, "1,2"),
        ];
        assert_eq!(
            changed,
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
        assert_eq!(annotations(&deployment, None, 5)[REVISION], "6");
    }
}
