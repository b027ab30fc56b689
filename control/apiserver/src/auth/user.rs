//! Who asks, what they ask, and the refusal.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ANONYMOUS, AUTHENTICATED, SERVICE_ACCOUNT_PREFIX, UNAUTHENTICATED};

/// An authenticated (or anonymous) user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    /// Empty where there is none.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub(super) fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    pub(super) fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// Adds the group of everybody who is known, once.
    pub(super) fn authenticated(mut self) -> Self {
        if !self.in_group(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// As `authentication.k8s.io/v1` UserInfo.
    pub(super) fn to_json(&self) -> Value {
        let mut info = Map::new();
        info.insert("username".to_owned(), json!(self.name));
        if !self.uid.is_empty() {
            info.insert("uid".to_owned(), json!(self.uid));
        }
        info.insert("groups".to_owned(), json!(self.groups));
        if !self.extra.is_empty() {
            info.insert("extra".to_owned(), json!(self.extra));
        }
        Value::Object(info)
    }
}

/// Namespace and name in `system:serviceaccount:<namespace>:<name>`.
pub(super) fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// Groups that every service account of `namespace` is in.
pub(super) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}

/// What is asked. Parts that do not apply are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attributes<'a> {
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    NonResource {
        verb: &'a str,
        path: &'a str,
    },
}

impl Attributes<'_> {
    /// The message of a 403, in the words of a Kubernetes API server.
    pub(super) fn forbidden(&self, user: &User, why: &str) -> String {
        let user = &user.name;
        let colon = if why.is_empty() { "" } else { ": " };
        match *self {
            Attributes::NonResource { verb, path } => {
                format!("forbidden: User {user:?} cannot {verb} path {path:?}{colon}{why}")
            }
            Attributes::Resource {
                verb,
                group,
                resource,
                subresource,
                namespace,
                name,
            } => {
                let subject = subject(group, resource, name);
                let slash = if subresource.is_empty() { "" } else { "/" };
                let scope = if namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace {namespace:?}")
                };
                format!(
                    "{subject} is forbidden: User {user:?} cannot {verb} resource \
                     \"{resource}{slash}{subresource}\" in API group {group:?} {scope}{colon}{why}"
                )
            }
        }
    }
}

/// `deployments.apps "web"`, as messages of the API begin.
pub(super) fn subject(group: &str, resource: &str, name: &str) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    if name.is_empty() {
        format!("{resource}{dot}{group}")
    } else {
        format!("{resource}{dot}{group} {name:?}")
    }
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// Not known who asks: 401. The reason is for the log; the answer says only "Unauthorized".
    #[error("{0}")]
    Unauthorized(String),
    /// Known, and not allowed: 403 with this message.
    #[error("{0}")]
    Forbidden(String),
}

impl Denied {
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Unauthorized(_) => 401,
            Self::Forbidden(_) => 403,
        }
    }

    /// `reason` of the answered Status.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "Unauthorized",
            Self::Forbidden(_) => "Forbidden",
        }
    }

    /// `message` of the answered Status.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Unauthorized(_) => "Unauthorized",
            Self::Forbidden(message) => message,
        }
    }
}
