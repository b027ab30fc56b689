//! One served resource in one group version.

use std::sync::Arc;

use serde_json::Value;

use crate::custom::CustomVersion;
use crate::value::{list_at, text_at};

use super::builtin::{Builtin, Row};

/// One served resource in one group version: its names, scope, verbs, subresources and rules.
#[derive(Debug)]
pub struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(super) list_kind: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) short_names: Vec<String>,
    pub(super) categories: Vec<String>,
    pub(super) namespaced: bool,
    pub(super) verbs: &'static [&'static str],
    pub(super) subresources: Vec<Subresource>,
    pub(crate) rules: Rules,
}

/// Where a kind's defaults, validation and columns come from.
#[derive(Debug)]
pub(crate) enum Rules {
    Builtin { id: Builtin, type_name: String },
    Custom(Arc<CustomVersion>),
}

/// A served subresource and the kind that it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    pub name: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: &'static [&'static str],
}

/// Where the scale subresource finds its numbers, as dotted paths from the object's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// A text in custom resources, a `LabelSelector` in built-in kinds.
    pub selector: Option<String>,
}

const READ_WRITE: &[&str] = &["get", "patch", "update"];
const CUSTOM_VERBS: &[&str] = &[
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

impl Kind {
    pub(super) fn builtin(row: &Row) -> Kind {
        let singular = if row.singular.is_empty() {
            row.kind.to_lowercase()
        } else {
            row.singular.into()
        };
        let plural = if row.plural.is_empty() {
            format!("{singular}s")
        } else {
            row.plural.into()
        };
        let subresources = row
            .subresources
            .iter()
            .map(|name| builtin_subresource(row, name))
            .collect();
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Kind {
            group: row.group.into(),
            version: row.version.into(),
            kind: row.kind.into(),
            list_kind: format!("{}List", row.kind),
            plural,
            singular,
            short_names: owned(row.short_names),
            categories: owned(row.categories),
            namespaced: row.namespaced,
            verbs: row.verbs,
            subresources,
            rules: Rules::Builtin {
                id: row.rules,
                type_name: format!("{}.{}", row.package, row.kind),
            },
        }
    }

    pub(crate) fn custom(
        crd: &Value,
        version: &str,
        has_status: bool,
        rules: Arc<CustomVersion>,
    ) -> Kind {
        let group = text_at(crd, "spec.group");
        let name = |key: &str| text_at(crd, &format!("status.acceptedNames.{key}")).to_owned();
        let names = |key: &str| {
            let list = list_at(crd, &format!("status.acceptedNames.{key}"));
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let mut subresources = Vec::new();
        if has_status {
            subresources.push(custom_subresource("status", group, version, &name("kind")));
        }
        if rules.scale().is_some() {
            subresources.push(custom_subresource("scale", "autoscaling", "v1", "Scale"));
        }
        Kind {
            group: group.into(),
            version: version.into(),
            kind: name("kind"),
            list_kind: name("listKind"),
            plural: name("plural"),
            singular: name("singular"),
            short_names: names("shortNames"),
            categories: names("categories"),
            namespaced: text_at(crd, "spec.scope") == "Namespaced",
            verbs: CUSTOM_VERBS,
            subresources,
            rules: Rules::Custom(rules),
        }
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn list_kind(&self) -> &str {
        &self.list_kind
    }

    pub fn plural(&self) -> &str {
        &self.plural
    }

    pub fn singular(&self) -> &str {
        &self.singular
    }

    pub fn short_names(&self) -> &[String] {
        &self.short_names
    }

    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    pub fn namespaced(&self) -> bool {
        self.namespaced
    }

    /// Verbs on the resource itself; a verb that is not here is answered 405.
    pub fn verbs(&self) -> &'static [&'static str] {
        self.verbs
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `deployments.apps`, or `pods` in the core group: the words of Status messages.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub fn is_custom(&self) -> bool {
        matches!(self.rules, Rules::Custom(_))
    }

    /// Create-only questions and instructions, of which nothing is stored.
    pub fn is_virtual(&self) -> bool {
        matches!(self.builtin_id(), Some(Builtin::Review | Builtin::Binding))
    }

    pub fn subresources(&self) -> &[Subresource] {
        &self.subresources
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources
            .iter()
            .find(|subresource| subresource.name == name)
    }

    /// Whether status is written only through its own subresource.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    pub fn scale(&self) -> Option<ScalePaths> {
        self.subresource("scale")?;
        match &self.rules {
            Rules::Custom(version) => version.scale().cloned(),
            Rules::Builtin { .. } => Some(ScalePaths {
                spec_replicas: "spec.replicas".into(),
                status_replicas: "status.replicas".into(),
                selector: Some("spec.selector".into()),
            }),
        }
    }

    /// Whether PUT of a missing object creates it.
    pub fn allows_create_on_update(&self) -> bool {
        matches!(
            self.builtin_id(),
            Some(
                Builtin::Lease
                    | Builtin::Endpoints
                    | Builtin::Event
                    | Builtin::EventsEvent
                    | Builtin::Role
                    | Builtin::ClusterRole
                    | Builtin::RoleBinding
                    | Builtin::ClusterRoleBinding
            )
        )
    }

    /// Whether PUT without a resourceVersion overwrites whatever is there.
    pub fn allows_unconditional_update(&self) -> bool {
        match self.builtin_id() {
            None | Some(Builtin::CustomResourceDefinition | Builtin::Lease) => false,
            Some(Builtin::MutatingWebhookConfiguration) => false,
            Some(_) => true,
        }
    }

    /// Group and plural under which objects are stored: events of both groups share one place.
    pub fn storage_resource(&self) -> (&str, &str) {
        match self.builtin_id() {
            Some(Builtin::EventsEvent) => ("", "events"),
            _ => (&self.group, &self.plural),
        }
    }

    pub(crate) fn builtin_id(&self) -> Option<Builtin> {
        match &self.rules {
            Rules::Builtin { id, .. } => Some(*id),
            Rules::Custom(_) => None,
        }
    }

    pub(crate) fn custom_version(&self) -> Option<&CustomVersion> {
        match &self.rules {
            Rules::Builtin { .. } => None,
            Rules::Custom(version) => Some(version),
        }
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// `group/version`, or the version alone in the core group.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn builtin_subresource(row: &Row, name: &str) -> Subresource {
    let (group, version, kind, verbs): (&str, &str, &str, &'static [&'static str]) = match name {
        "scale" => ("autoscaling", "v1", "Scale", READ_WRITE),
        "binding" => ("", "v1", "Binding", &["create"]),
        "eviction" => ("policy", "v1", "Eviction", &["create"]),
        "token" => ("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
        "log" => (row.group, row.version, row.kind, &["get"]),
        "finalize" => (row.group, row.version, row.kind, &["update"]),
        _ => (row.group, row.version, row.kind, READ_WRITE),
    };
    Subresource {
        name: name.into(),
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        verbs,
    }
}

fn custom_subresource(name: &str, group: &str, version: &str, kind: &str) -> Subresource {
    Subresource {
        name: name.into(),
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        verbs: READ_WRITE,
    }
}
