//! Discovery documents, in the legacy and the aggregated form.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use super::kind::api_version;
use super::{Kind, Registry};

/// Which half of the API an aggregated document describes: `/api` or `/apis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryScope {
    Core,
    Groups,
}

/// Version of `apidiscovery.k8s.io` that the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregatedVersion {
    V2,
    V2Beta1,
}

/// An aggregated document and the entity tag (without quotes) of its content.
#[derive(Debug, Clone)]
pub struct Aggregated {
    pub document: Value,
    pub etag: String,
}

impl Registry {
    /// `GET /api`; the address is where clients of any network reach the server (`10.88.0.1:6443`).
    pub fn api_versions(&self, server_address: &str) -> Value {
        json!({
            "kind": "APIVersions",
            "versions": self.versions(""),
            "serverAddressByClientCIDRs": [
                {"clientCIDR": "0.0.0.0/0", "serverAddress": server_address},
            ],
        })
    }

    /// `GET /apis`.
    pub fn group_list(&self) -> Value {
        let groups = self.groups().into_iter().filter(|group| !group.is_empty());
        let groups: Vec<Value> = groups.map(|group| self.group_entry(group)).collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    /// `GET /apis/GROUP`.
    pub fn group_document(&self, group: &str) -> Option<Value> {
        if group.is_empty() || !self.has_group(group) {
            return None;
        }
        let mut document = Map::new();
        document.insert("kind".into(), "APIGroup".into());
        document.insert("apiVersion".into(), "v1".into());
        if let Value::Object(entry) = self.group_entry(group) {
            document.extend(entry);
        }
        Some(Value::Object(document))
    }

    /// `GET /api/v1` or `/apis/GROUP/VERSION`.
    pub fn resource_list(&self, group: &str, version: &str) -> Option<Value> {
        if !self.has_version(group, version) {
            return None;
        }
        let mut resources: Vec<Value> = Vec::new();
        for kind in self.kinds_of(group, version) {
            resources.push(resource_entry(kind));
            resources.extend(kind.subresources().iter().map(|one| {
                let mut entry = json!({
                    "name": format!("{}/{}", kind.plural, one.name),
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": one.kind,
                    "verbs": one.verbs,
                });
                if (&*one.group, &*one.version) != (group, version) {
                    entry["group"] = one.group.as_str().into();
                    entry["version"] = one.version.as_str().into();
                }
                entry
            }));
        }
        resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        Some(json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": api_version(group, version),
            "resources": resources,
        }))
    }

    /// The whole of `/api` or `/apis` in one `APIGroupDiscoveryList`.
    pub fn aggregated(&self, scope: DiscoveryScope, version: AggregatedVersion) -> Aggregated {
        let groups = self.groups().into_iter();
        let items: Vec<Value> = groups
            .filter(|group| group.is_empty() == (scope == DiscoveryScope::Core))
            .map(|group| self.aggregated_group(group))
            .collect();
        let api_version = match version {
            AggregatedVersion::V2 => "apidiscovery.k8s.io/v2",
            AggregatedVersion::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        };
        let document = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": api_version,
            "metadata": {},
            "items": items,
        });
        let etag = content_hash(&document);
        Aggregated { document, etag }
    }

    fn aggregated_group(&self, group: &str) -> Value {
        let versions = self.versions(group).into_iter().map(|version| {
            let resources: Vec<Value> = self
                .kinds_of(group, version)
                .map(aggregated_resource)
                .collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        });
        let metadata = if group.is_empty() {
            json!({})
        } else {
            json!({"name": group})
        };
        json!({"metadata": metadata, "versions": versions.collect::<Vec<_>>()})
    }

    fn group_entry(&self, group: &str) -> Value {
        let versions: Vec<Value> = self
            .versions(group)
            .into_iter()
            .map(|version| json!({"groupVersion": api_version(group, version), "version": version}))
            .collect();
        let preferred = versions.first().cloned().unwrap_or_default();
        json!({"name": group, "versions": versions, "preferredVersion": preferred})
    }

    /// Groups in order of appearance.
    pub(crate) fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for kind in self.kinds() {
            if !groups.contains(&kind.group.as_str()) {
                groups.push(&kind.group);
            }
        }
        groups
    }

    /// Versions of a group, the preferred one first.
    pub(crate) fn versions(&self, group: &str) -> Vec<&str> {
        let mut versions: Vec<&str> = Vec::new();
        for kind in self.kinds().filter(|kind| kind.group == group) {
            if !versions.contains(&kind.version.as_str()) {
                versions.push(&kind.version);
            }
        }
        versions.sort_by_key(|version| std::cmp::Reverse(crate::custom::version_priority(version)));
        versions
    }

    pub(crate) fn kinds_of<'r>(
        &'r self,
        group: &'r str,
        version: &'r str,
    ) -> impl Iterator<Item = &'r Kind> {
        self.kinds()
            .map(|kind| &**kind)
            .filter(move |kind| kind.group == group && kind.version == version)
    }
}

fn resource_entry(kind: &Kind) -> Value {
    let mut entry = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = kind.short_names.clone().into();
    }
    if !kind.categories.is_empty() {
        entry["categories"] = kind.categories.clone().into();
    }
    if !kind.is_virtual() {
        let identity = json!([kind.group, kind.version, kind.kind]);
        entry["storageVersionHash"] = content_hash(&identity).into();
    }
    entry
}

fn aggregated_resource(kind: &Kind) -> Value {
    // Built-in kinds leave the group and version of their own answers empty, custom ones name them.
    let response = |group: &str, version: &str, name: &str| json!({"group": group, "version": version, "kind": name});
    let own = if kind.is_custom() {
        (kind.group.as_str(), kind.version.as_str())
    } else {
        ("", "")
    };
    let mut entry = json!({
        "resource": kind.plural,
        "responseKind": response(own.0, own.1, &kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = kind.short_names.clone().into();
    }
    if !kind.categories.is_empty() {
        entry["categories"] = kind.categories.clone().into();
    }
    let subresources: Vec<Value> = kind
        .subresources()
        .iter()
        .map(|one| {
            let is_own = (&one.group, &one.version) == (&kind.group, &kind.version);
            let (group, version) = if is_own {
                own
            } else {
                (one.group.as_str(), one.version.as_str())
            };
            json!({
                "subresource": one.name,
                "responseKind": response(group, version, &one.kind),
                "verbs": one.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

/// A hash of a document's content, the same for the same content in every process of one build.
pub(crate) fn content_hash(document: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    document.to_string().hash(&mut hasher);
    format!("{:016X}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_lists_name_subresources() {
        let registry = Registry::builtin();
        let list = registry.resource_list("apps", "v1").unwrap();
        let names: Vec<&str> = list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "deployments",
                "deployments/scale",
                "deployments/status",
                "replicasets",
                "replicasets/scale",
                "replicasets/status"
            ]
        );
        let scale = &list["resources"][1];
        assert_eq!(
            (&scale["group"], &scale["version"], &scale["kind"]),
            (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
        );
        assert_eq!(list["resources"][0]["shortNames"], json!(["deploy"]));
        assert!(registry.resource_list("apps", "v9").is_none());
        assert!(registry.group_document("nothing").is_none());
        assert_eq!(
            registry.group_document("apps").unwrap()["preferredVersion"]["groupVersion"],
            "apps/v1"
        );
    }

    #[test]
    fn aggregated_documents_have_stable_tags() {
        let registry = Registry::builtin();
        let first = registry.aggregated(DiscoveryScope::Groups, AggregatedVersion::V2);
        let again = registry.aggregated(DiscoveryScope::Groups, AggregatedVersion::V2);
        assert_eq!(first.etag, again.etag);
        let core = registry
            .aggregated(DiscoveryScope::Core, AggregatedVersion::V2)
            .document;
        assert_eq!(core["items"][0]["versions"][0]["version"], "v1");
        let pods = core["items"][0]["versions"][0]["resources"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["resource"] == "pods")
            .unwrap();
        assert_eq!(
            pods["subresources"][1]["responseKind"],
            json!({"group": "policy", "version": "v1", "kind": "Eviction"})
        );
    }
}
