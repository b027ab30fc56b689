//! Whole decisions: an [`Auth`] with objects in it, requests as lines, answers as lines.

mod admission;
mod authentication;
mod authorization;
mod reviews;

use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp};
use meshgate_certs::authority::Authority;
use serde_json::{Value, json};

use super::{Attributes, Auth, AuthOptions, Denied, User, bootstrap};

/// Two ECDSA P-256 keys and a root are made once for all tests.
struct Keys {
    ours: String,
    other: String,
    ca: String,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let domain = "test".parse().unwrap();
        let authority = || Authority::generate(&domain, now()).unwrap();
        let (ours, other) = (authority(), authority());
        Keys {
            ours: ours.key_pem().to_owned(),
            other: other.key_pem().to_owned(),
            ca: ours.cert_pem().to_owned(),
        }
    })
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

/// A server with the bootstrap roles, two nodes, a pod on each, accounts and Secrets.
fn auth() -> Auth {
    let auth = auth_with_key(&keys().ours);
    for object in bootstrap() {
        feed(&auth, &object);
    }
    for name in ["a", "b"] {
        feed(
            &auth,
            &json!({"kind": "Node", "metadata": {"name": name, "uid": format!("node-{name}")}}),
        );
        for kind in ["ServiceAccount", "Secret"] {
            let uid = format!("{kind}-{name}");
            feed(
                &auth,
                &json!({"kind": kind, "metadata": {"namespace": "shop", "name": name, "uid": uid}}),
            );
        }
        feed(&auth, &pod(name));
    }
    auth
}

fn auth_with_key(key: &str) -> Auth {
    Auth::new(&AuthOptions {
        sa_key_pem: key.to_owned(),
        client_ca_pem: keys().ca.clone(),
    })
    .unwrap()
}

/// Pod `name` runs on node `name` as account `name` and uses Secret `name`.
fn pod(name: &str) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "uid": format!("pod-{name}")},
        "spec": {
            "nodeName": name,
            "serviceAccountName": name,
            "volumes": [
                {"secret": {"secretName": name}},
                {"projected": {"sources": [
                    {"serviceAccountToken": {"audience": "meshgate.dev/identity"}},
                    {"configMap": {"name": "kube-root-ca.crt"}},
                ]}},
            ],
            "containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "settings"}}}]}],
        },
    })
}

/// Feeds an object as a committed write.
fn feed(auth: &Auth, object: &Value) {
    change(auth, object, Some(object));
}

fn delete(auth: &Auth, object: &Value) {
    change(auth, object, None);
}

fn change(auth: &Auth, object: &Value, to: Option<&Value>) {
    let kind = object["kind"].as_str().unwrap();
    let group = match kind {
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" => {
            "rbac.authorization.k8s.io"
        }
        _ => "",
    };
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let resource = format!("{}s", kind.to_lowercase());
    auth.update(group, &resource, text("namespace"), text("name"), to);
}

fn user(name: &str, groups: &[&str]) -> User {
    User {
        name: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..User::default()
    }
    .authenticated()
}

fn node(name: &str) -> User {
    user(&format!("system:node:{name}"), &["system:nodes"])
}

/// `verb group/resource[/subresource] [namespace/][name]` (group `core` is the empty one), or `verb /path`.
fn asked(line: &str) -> Attributes<'_> {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (verb, target, object) = (word(), word(), word());
    if target.starts_with('/') {
        return Attributes::NonResource { verb, path: target };
    }
    let mut parts = target.split('/');
    let mut part = || parts.next().unwrap_or_default();
    let group = part();
    let (namespace, name) = object.split_once('/').unwrap_or(("", object));
    Attributes::Resource {
        verb,
        group: if group == "core" { "" } else { group },
        resource: part(),
        subresource: part(),
        namespace,
        name,
    }
}

fn message(result: Result<(), Denied>) -> String {
    match result {
        Ok(()) => "allowed".to_owned(),
        Err(denied) => format!("{} {}", denied.code(), denied.message()),
    }
}
