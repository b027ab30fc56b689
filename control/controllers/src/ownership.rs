//! Who controls whom: claiming by label selector, adopting orphans, releasing what no longer matches.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::Resource;
use kube::core::{ObjectMeta, ParseExpressionError, Selector, SelectorExt};
use serde_json::{Value, json};

/// A controller's selector matches everything or is not understood: acting on it would take over foreign objects.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadSelector {
    #[error("spec.selector is empty and would match everything")]
    Empty,
    #[error("reading spec.selector")]
    Unreadable(#[source] ParseExpressionError),
}

/// The selector of a controller.
pub(crate) fn selector(wire: &LabelSelector) -> Result<Selector, BadSelector> {
    let selector = Selector::try_from(wire.clone()).map_err(BadSelector::Unreadable)?;
    if selector.selects_all() {
        Err(BadSelector::Empty)
    } else {
        Ok(selector)
    }
}

/// The owner that controls an object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// Candidates sorted by what has to happen for them to be, or no longer be, the controller's.
#[derive(Debug)]
pub(crate) struct Claims<K> {
    /// Controlled and matching.
    pub(crate) owned: Vec<Arc<K>>,
    /// Matching and nobody's.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Controlled but no longer matching.
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts `candidates` for the controller. One that is being deleted adopts nothing.
pub(crate) fn claim<K: Resource>(
    controller: &ObjectMeta,
    selector: &Selector,
    candidates: impl IntoIterator<Item = Arc<K>>,
) -> Claims<K> {
    let mut claims = Claims {
        owned: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
    };
    let deleting = controller.deletion_timestamp.is_some();
    for candidate in candidates {
        let meta = candidate.meta();
        let matches = selector.matches(
            meta.labels
                .as_ref()
                .unwrap_or(&std::collections::BTreeMap::new()),
        );
        match controller_of(meta) {
            Some(owner) if Some(&owner.uid) == controller.uid.as_ref() => {
                if matches {
                    claims.owned.push(candidate);
                } else if !deleting {
                    claims.release.push(candidate);
                }
            }
            None if matches && !deleting && meta.deletion_timestamp.is_none() => {
                claims.adopt.push(candidate)
            }
            _ => {}
        }
    }
    claims
}

/// The reference that makes `owner` the controller.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> Value {
    let meta = owner.meta();
    json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "name": meta.name, "uid": meta.uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Strategic merge patch that adds a controller; the UID makes sure that the object is still the same.
pub(crate) fn adopt_patch(reference: &Value, uid: Option<&String>) -> Value {
    json!({"metadata": {"uid": uid, "ownerReferences": [reference]}})
}

/// Strategic merge patch that removes a controller.
pub(crate) fn release_patch(owner_uid: &str, uid: Option<&String>) -> Value {
    json!({"metadata": {"uid": uid, "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}})
}
