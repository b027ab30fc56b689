//! ClusterRoles and bindings as they are in objects.

use std::fmt;

use meshgate_schema::LabelSelector;
use serde_json::{Map, Value};

use super::{Rule, Rules};
use crate::auth::user::User;
use crate::auth::{RBAC_GROUP, SERVICE_ACCOUNT_PREFIX};

#[derive(Debug)]
pub(super) struct ClusterRole {
    pub(super) rules: Rules,
    pub(super) labels: Map<String, Value>,
    pub(super) aggregation: Option<Aggregation>,
}

impl ClusterRole {
    pub(super) fn of(role: &Value) -> Self {
        let labels = role["metadata"]["labels"].as_object();
        Self {
            rules: Rule::all_of(&role["rules"]),
            labels: labels.cloned().unwrap_or_default(),
            aggregation: has_aggregation(role).then(|| Aggregation::of(role)),
        }
    }
}

/// Whether the rules of this ClusterRole come from others.
pub(in crate::auth) fn has_aggregation(role: &Value) -> bool {
    role.get("aggregationRule").is_some_and(Value::is_object)
}

/// The label selectors of an aggregationRule; a role that any of them selects is in.
#[derive(Debug)]
pub(super) struct Aggregation(Vec<LabelSelector>);

impl Aggregation {
    /// A selector that cannot be read selects nothing: an aggregate must not grow by mistake.
    fn of(role: &Value) -> Self {
        let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
        let selectors = selectors.into_iter().flatten();
        Self(
            selectors
                .filter_map(|selector| LabelSelector::from_json(selector).ok())
                .collect(),
        )
    }

    pub(super) fn selects(&self, labels: &Map<String, Value>) -> bool {
        let mut selectors = self.0.iter();
        selectors.any(|selector| selector.matches_labels(Some(labels)))
    }
}

/// The role that a binding gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::auth) struct RoleRef {
    /// A ClusterRole; else a Role of the binding's namespace.
    pub(in crate::auth) cluster: bool,
    pub(in crate::auth) name: Box<str>,
}

impl RoleRef {
    pub(in crate::auth) fn resource(&self) -> &'static str {
        if self.cluster {
            "clusterroles"
        } else {
            "roles"
        }
    }

    pub(in crate::auth) fn not_found(&self) -> String {
        let kind = if self.cluster { "clusterrole" } else { "role" };
        format!("{kind}.{RBAC_GROUP} {:?} not found", self.name)
    }
}

#[derive(Debug)]
pub(super) struct Binding {
    pub(super) role: RoleRef,
    pub(super) subjects: Vec<SubjectKey>,
}

impl Binding {
    pub(super) fn of(binding: &Value) -> Option<Self> {
        let own = &binding["metadata"]["namespace"];
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        Some(Self {
            role: binding_role(binding)?,
            subjects: subjects
                .filter_map(|subject| SubjectKey::of(subject, own.as_str().unwrap_or_default()))
                .collect(),
        })
    }
}

/// `roleRef` of a binding; `None` when it names no kind of role.
pub(in crate::auth) fn binding_role(binding: &Value) -> Option<RoleRef> {
    let reference = &binding["roleRef"];
    let cluster = match reference["kind"].as_str()? {
        "ClusterRole" => true,
        "Role" => false,
        _ => return None,
    };
    Some(RoleRef {
        cluster,
        name: reference["name"].as_str()?.into(),
    })
}

/// Whom a binding is for; service accounts are users with a long name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum SubjectKey {
    User(Box<str>),
    Group(Box<str>),
}

impl SubjectKey {
    fn of(subject: &Value, own_namespace: &str) -> Option<Self> {
        let name = subject["name"].as_str()?;
        match subject["kind"].as_str()? {
            "User" => Some(Self::User(name.into())),
            "Group" => Some(Self::Group(name.into())),
            "ServiceAccount" => {
                let namespace = subject["namespace"].as_str().unwrap_or(own_namespace);
                let user = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}");
                (!namespace.is_empty()).then(|| Self::User(user.into()))
            }
            _ => None,
        }
    }
}

/// Every key under which bindings for `user` are found.
pub(super) fn subject_keys(user: &User) -> Vec<SubjectKey> {
    let name = std::iter::once(SubjectKey::User(user.name.as_str().into()));
    let groups = user.groups.iter();
    name.chain(groups.map(|group| SubjectKey::Group(group.as_str().into())))
        .collect()
}

impl fmt::Display for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => match name.strip_prefix(SERVICE_ACCOUNT_PREFIX) {
                Some(account) => match account.split_once(':') {
                    Some((namespace, name)) => write!(f, "ServiceAccount \"{name}/{namespace}\""),
                    None => write!(f, "User {name:?}"),
                },
                None => write!(f, "User {name:?}"),
            },
            Self::Group(name) => write!(f, "Group {name:?}"),
        }
    }
}
