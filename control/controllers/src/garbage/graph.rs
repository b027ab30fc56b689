//! Who owns whom, and what follows from it. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kube::core::ObjectMeta;
use kube::discovery::ApiResource;
use meshgate_api::client::Key;

/// Holds an object until its dependents with `blockOwnerDeletion` are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until its dependents no longer name it.
pub(crate) const ORPHAN: &str = "orphan";

/// An object's place in the graph.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) uid: String,
    pub(crate) key: Key,
    pub(crate) resource: ApiResource,
    pub(crate) resource_version: Option<String>,
    pub(crate) owners: Vec<Owner>,
    pub(crate) deleting: bool,
    /// Finalizer [`FOREGROUND`].
    pub(crate) foreground: bool,
    /// Finalizer [`ORPHAN`].
    pub(crate) orphan: bool,
}

/// An owner reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) uid: String,
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) blocks: bool,
}

impl Object {
    pub(crate) fn read(meta: &ObjectMeta, resource: &ApiResource) -> Self {
        let has = |finalizer: &str| {
            meta.finalizers
                .iter()
                .flatten()
                .any(|known| known == finalizer)
        };
        let owners = meta.owner_references.iter().flatten().map(|owner| Owner {
            uid: owner.uid.clone(),
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            blocks: owner.block_owner_deletion == Some(true),
        });
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            key: Key::new(
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            ),
            resource: resource.clone(),
            resource_version: meta.resource_version.clone(),
            owners: owners.collect(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        }
    }

    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }
}

/// All objects by UID, and their dependents.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    objects: HashMap<String, Arc<Object>>,
    dependents: HashMap<String, HashSet<String>>,
}

/// What to do about one object.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing, or not now.
    Keep,
    /// The graph does not know these owners: ask the server whether they exist, then ask here again.
    LookUp(Vec<Owner>),
    /// All owners are gone, or wait for it.
    Delete(Propagation),
    /// Some owners are gone or wait for it, others stay: drop the references to the former.
    Disown(BTreeSet<String>),
    /// Its dependents go first.
    DeleteDependents(Vec<Arc<Object>>),
    /// Its dependents are gone, or need not be waited for.
    Finish(&'static str),
    /// Its dependents shall stay: their references to it go, then its finalizer.
    Orphan(Vec<Arc<Object>>),
}

/// How a deletion goes on to the dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl Graph {
    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn get(&self, uid: &str) -> Option<&Arc<Object>> {
        self.objects.get(uid)
    }

    pub(crate) fn put(&mut self, object: Arc<Object>) {
        self.unlink(&object.uid);
        for owner in &object.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(object.uid.clone());
        }
        self.objects.insert(object.uid.clone(), object);
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        self.unlink(uid);
        self.objects.remove(uid);
    }

    fn unlink(&mut self, uid: &str) {
        let Some(known) = self.objects.get(uid) else {
            return;
        };
        for owner in &known.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    pub(crate) fn dependents(&self, uid: &str) -> Vec<Arc<Object>> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        let mut dependents: Vec<Arc<Object>> = uids
            .filter_map(|uid| self.objects.get(uid).cloned())
            .collect();
        dependents.sort_by(|a, b| (&a.key, &a.uid).cmp(&(&b.key, &b.uid)));
        dependents
    }

    /// What to do about an object. `absent` are UIDs that the server said do not exist, `present` those that it said
    /// do although the graph does not show them.
    pub(crate) fn judge(
        &self,
        uid: &str,
        absent: &HashSet<String>,
        present: &HashSet<String>,
    ) -> Verdict {
        let Some(object) = self.objects.get(uid) else {
            return Verdict::Keep;
        };
        if object.deleting {
            return self.judge_deleting(object);
        }
        if object.owners.is_empty() {
            return Verdict::Keep;
        }
        let (mut solid, mut dangling, mut waiting, mut unknown) =
            (0, BTreeSet::new(), BTreeSet::new(), Vec::new());
        for owner in &object.owners {
            match self.objects.get(&owner.uid) {
                Some(known) if !may_own(known, object) => {
                    dangling.insert(owner.uid.clone());
                }
                Some(known) if known.waits_for_dependents() => {
                    waiting.insert(owner.uid.clone());
                }
                Some(_) => solid += 1,
                None if present.contains(&owner.uid) => solid += 1,
                None if absent.contains(&owner.uid) => {
                    dangling.insert(owner.uid.clone());
                }
                None => unknown.push(owner.clone()),
            }
        }
        if !unknown.is_empty() {
            return Verdict::LookUp(unknown);
        }
        if solid > 0 {
            dangling.append(&mut waiting);
            return if dangling.is_empty() {
                Verdict::Keep
            } else {
                Verdict::Disown(dangling)
            };
        }
        let has_dependents = self.dependents.contains_key(uid);
        Verdict::Delete(if !waiting.is_empty() && has_dependents {
            Propagation::Foreground
        } else if object.orphan {
            Propagation::Orphan
        } else if object.foreground {
            Propagation::Foreground
        } else {
            Propagation::Background
        })
    }

    fn judge_deleting(&self, object: &Object) -> Verdict {
        let dependents = self.dependents(&object.uid);
        if object.orphan {
            return if dependents.is_empty() {
                Verdict::Finish(ORPHAN)
            } else {
                Verdict::Orphan(dependents)
            };
        }
        if !object.foreground {
            return Verdict::Keep;
        }
        let blocks = |dependent: &Arc<Object>| {
            dependent
                .owners
                .iter()
                .any(|owner| owner.uid == object.uid && owner.blocks)
        };
        if dependents.iter().any(blocks) {
            Verdict::DeleteDependents(dependents)
        } else {
            Verdict::Finish(FOREGROUND)
        }
    }
}

/// An owner in a namespace owns only there; a cluster-scoped one owns everywhere.
fn may_own(owner: &Object, dependent: &Object) -> bool {
    owner.key.namespace.is_empty() || owner.key.namespace == dependent.key.namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name < owner, owner! & deleting foreground orphan`: owners with `!` are blocked; everything is in namespace d
    /// unless the name says otherwise.
    fn object(text: &str) -> Arc<Object> {
        let (text, flags) = text.split_once('&').unwrap_or((text, ""));
        let (name, owners) = text.split_once('<').unwrap_or((text, ""));
        let name = name.trim();
        let (namespace, short) = name.split_once('/').unwrap_or(("d", name));
        let owners = owners
            .split(',')
            .map(str::trim)
            .filter(|owner| !owner.is_empty())
            .map(|owner| Owner {
                uid: owner.trim_end_matches('!').to_owned(),
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                name: owner.trim_end_matches('!').to_owned(),
                blocks: owner.ends_with('!'),
            });
        Arc::new(Object {
            uid: name.to_owned(),
            key: Key::new(namespace, short),
            resource: ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&()),
            resource_version: None,
            owners: owners.collect(),
            deleting: flags.contains("deleting"),
            foreground: flags.contains("foreground"),
            orphan: flags.contains("orphan"),
        })
    }

    fn show(verdict: &Verdict) -> String {
        let names = |objects: &[Arc<Object>]| {
            objects
                .iter()
                .map(|o| o.uid.clone())
                .collect::<Vec<_>>()
                .join(",")
        };
        match verdict {
            Verdict::Keep => "keep".to_owned(),
            Verdict::LookUp(owners) => {
                format!(
                    "look up {}",
                    owners
                        .iter()
                        .map(|o| o.uid.clone())
                        .collect::<Vec<_>>()
                        .join(",")
                )
            }
            Verdict::Delete(propagation) => format!("delete {propagation:?}"),
            Verdict::Disown(uids) => format!(
                "disown {}",
                uids.iter().cloned().collect::<Vec<_>>().join(",")
            ),
            Verdict::DeleteDependents(dependents) => format!("first {}", names(dependents)),
            Verdict::Finish(finalizer) => format!("finish {finalizer}"),
            Verdict::Orphan(dependents) => format!("orphan {}", names(dependents)),
        }
    }

    /// The verdict on the first object; UIDs starting with `-` are absent, with `+` present.
    fn check(objects: &[&str], answers: &str, expected: &str) {
        let mut graph = Graph::default();
        for text in objects {
            graph.put(object(text));
        }
        let answers: Vec<&str> = answers.split_whitespace().collect();
        let with = |sign: char| {
            answers
                .iter()
                .filter_map(|a| a.strip_prefix(sign))
                .map(str::to_owned)
                .collect()
        };
        let verdict = graph.judge(&object(objects[0]).uid, &with('-'), &with('+'));
        assert_eq!(show(&verdict), expected, "{objects:?}");
    }

    #[test]
    fn objects_live_as_long_as_an_owner() {
        check(&["a"], "", "keep");
        check(&["a < b", "b"], "", "keep");
        check(&["a < b"], "", "look up b");
        check(&["a < b"], "+b", "keep");
        check(&["a < b"], "-b", "delete Background");
        check(&["a < b, c", "c"], "-b", "disown b");
        check(&["a < b, c", "c"], "", "look up b");
        check(&["a < b & deleting"], "-b", "keep");
        check(&["a < b & orphan"], "-b", "delete Orphan");
        check(&["a < x/b", "x/b"], "", "delete Background");
        check(&["a < /b", "/b"], "", "keep");
    }

    #[test]
    fn foreground_goes_from_the_leaves_up() {
        let owner = "b & deleting foreground";
        check(&["b & deleting foreground", "a < b!"], "", "first a");
        check(
            &["b & deleting foreground", "a < b"],
            "",
            "finish foregroundDeletion",
        );
        check(
            &["b & deleting foreground"],
            "",
            "finish foregroundDeletion",
        );
        check(&["a < b!", owner], "", "delete Background");
        check(&["a < b!", owner, "x < a!"], "", "delete Foreground");
        check(&["a < b!, c", owner, "c"], "", "disown b");
    }

    #[test]
    fn orphans_are_let_go_first() {
        check(&["b & deleting orphan", "a < b", "c < b"], "", "orphan a,c");
        check(&["b & deleting orphan"], "", "finish orphan");
    }

    #[test]
    fn links_follow_changes() {
        let mut graph = Graph::default();
        graph.put(object("a < b, c"));
        graph.put(object("a < c"));
        assert!(graph.dependents("b").is_empty());
        assert_eq!(graph.dependents("c").len(), 1);
        graph.remove("a");
        assert!(graph.dependents.is_empty() && graph.objects.is_empty());
    }
}
