//! A container's environment: literal values, references, Services, `$(NAME)`.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, Service};
use meshgate_api::names;

use super::downward;
use super::downward::NodeFacts;
use crate::sources::{Known, SourceKey, SourceKind};

/// Why an environment cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    /// A source has not answered yet.
    #[error("waiting for {0}")]
    Loading(SourceKey),
    /// A source does not exist.
    #[error("{0} not found")]
    Missing(SourceKey),
    /// A source lacks a key.
    #[error("couldn't find key {key} in {source_key}")]
    MissingKey {
        /// Which object.
        source_key: SourceKey,
        /// Which key.
        key: String,
    },
    /// A field that does not exist.
    #[error("{0}")]
    Field(String),
}

/// Where references are looked up.
pub(crate) struct Lookup<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) node: &'a NodeFacts,
    pub(crate) pod_ip: Option<String>,
    pub(crate) known: &'a dyn Fn(&SourceKey) -> Known,
}

/// Objects that the container's environment refers to.
pub(crate) fn sources(container: &Container, namespace: &str) -> Vec<SourceKey> {
    let key = |kind, name: &str| SourceKey {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let mut keys = Vec::new();
    for from in container.env_from.iter().flatten() {
        if let Some(source) = &from.config_map_ref {
            keys.push(key(SourceKind::ConfigMap, &source.name));
        }
        if let Some(source) = &from.secret_ref {
            keys.push(key(SourceKind::Secret, &source.name));
        }
    }
    for from in container
        .env
        .iter()
        .flatten()
        .filter_map(|var| var.value_from.as_ref())
    {
        if let Some(source) = &from.config_map_key_ref {
            keys.push(key(SourceKind::ConfigMap, &source.name));
        }
        if let Some(source) = &from.secret_key_ref {
            keys.push(key(SourceKind::Secret, &source.name));
        }
    }
    keys
}

/// The container's variables in their order; `inherited` are the image's, `services` the Services'.
pub(crate) fn environment(
    container: &Container,
    lookup: &Lookup<'_>,
    inherited: &[String],
    services: BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Ordered::default();
    for variable in inherited {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        env.set(name, value.to_owned());
    }
    // Own variables may refer to Services' ones and win over them.
    for (name, value) in &services {
        env.set(name, value.clone());
    }
    let mut known: HashMap<String, String> = services.into_iter().collect();
    let namespace = lookup.pod.metadata.namespace.as_deref().unwrap_or_default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let reference = match (&from.config_map_ref, &from.secret_ref) {
            (Some(source), _) => Some((SourceKind::ConfigMap, &source.name, source.optional)),
            (None, Some(source)) => Some((SourceKind::Secret, &source.name, source.optional)),
            (None, None) => None,
        };
        let Some((kind, name, optional)) = reference else {
            continue;
        };
        let key = SourceKey {
            kind,
            namespace: namespace.to_owned(),
            name: name.clone(),
        };
        let Some(data) = fetch(lookup, key, optional.unwrap_or(false))? else {
            continue;
        };
        for (name, value) in data.iter() {
            let name = format!("{prefix}{name}");
            let value = String::from_utf8_lossy(value).into_owned();
            known.insert(name.clone(), value.clone());
            env.set(&name, value);
        }
    }
    for variable in container.env.iter().flatten() {
        let Some(value) = value(variable, container, lookup, namespace, &known)? else {
            continue;
        };
        known.insert(variable.name.clone(), value.clone());
        env.set(&variable.name, value);
    }
    Ok(env.list)
}

type Data = std::sync::Arc<BTreeMap<String, Vec<u8>>>;

fn fetch(lookup: &Lookup<'_>, key: SourceKey, optional: bool) -> Result<Option<Data>, EnvError> {
    match (lookup.known)(&key) {
        Known::Here(data) => Ok(Some(data)),
        Known::Loading => Err(EnvError::Loading(key)),
        Known::Missing if optional => Ok(None),
        Known::Missing => Err(EnvError::Missing(key)),
    }
}

/// One variable; `None` for an optional reference to nothing.
fn value(
    variable: &EnvVar,
    container: &Container,
    lookup: &Lookup<'_>,
    namespace: &str,
    known: &HashMap<String, String>,
) -> Result<Option<String>, EnvError> {
    let Some(from) = &variable.value_from else {
        let value = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(value, &|name| known.get(name).cloned())));
    };
    if let Some(field) = &from.field_ref {
        return downward::field(
            lookup.pod,
            lookup.node,
            lookup.pod_ip.as_deref(),
            &field.field_path,
        )
        .map(Some)
        .map_err(EnvError::Field);
    }
    if let Some(resource) = &from.resource_field_ref {
        return downward::resource(lookup.pod, lookup.node, Some(&container.name), resource)
            .map(Some)
            .map_err(EnvError::Field);
    }
    let (kind, name, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(source), _) => (
            SourceKind::ConfigMap,
            &source.name,
            &source.key,
            source.optional,
        ),
        (None, Some(source)) => (
            SourceKind::Secret,
            &source.name,
            &source.key,
            source.optional,
        ),
        (None, None) => return Ok(Some(String::new())),
    };
    let optional = optional.unwrap_or(false);
    let source_key = SourceKey {
        kind,
        namespace: namespace.to_owned(),
        name: name.clone(),
    };
    let Some(data) = fetch(lookup, source_key.clone(), optional)? else {
        return Ok(None);
    };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => Err(EnvError::MissingKey {
            source_key,
            key: key.clone(),
        }),
    }
}

/// Replaces `$(NAME)`; `$$` is a dollar, and a name that is not known stays as it is written.
pub(crate) fn expand(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('(')
            && let Some(end) = tail.find(')')
        {
            let name = &tail[..end];
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[at..at + 2 + end + 1]),
            }
            rest = &tail[end + 1..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// Variables that name Services: those of the pod's namespace, if wanted, and always the API server.
pub(crate) fn services(
    services: &[std::sync::Arc<Service>],
    links: bool,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let address = names::KUBERNETES_SERVICE_ADDRESS.to_string();
    add_service(
        &mut env,
        "kubernetes",
        &address,
        &[(Some("https"), "tcp", 443)],
    );
    if !links {
        return env;
    }
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let address = spec.cluster_ip.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if address.is_empty() || address == "None" || spec.type_.as_deref() == Some("ExternalName")
        {
            continue;
        }
        let ports: Vec<(Option<&str>, &str, i32)> = spec
            .ports
            .iter()
            .flatten()
            .map(|port| {
                let protocol = match port.protocol.as_deref() {
                    Some("UDP") => "udp",
                    Some("SCTP") => "sctp",
                    _ => "tcp",
                };
                (port.name.as_deref(), protocol, port.port)
            })
            .collect();
        add_service(&mut env, name, address, &ports);
    }
    env
}

fn add_service(
    env: &mut BTreeMap<String, String>,
    name: &str,
    address: &str,
    ports: &[(Option<&str>, &str, i32)],
) {
    let word = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = word(name);
    let Some((_, protocol, port)) = ports.first() else {
        return;
    };
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    let mut set = |suffix: String, value: String| {
        env.insert(format!("{prefix}_{suffix}"), value);
    };
    set("SERVICE_HOST".to_owned(), address.to_owned());
    set("SERVICE_PORT".to_owned(), port.to_string());
    for (name, _, port) in ports {
        if let Some(name) = name {
            set(format!("SERVICE_PORT_{}", word(name)), port.to_string());
        }
    }
    set("PORT".to_owned(), format!("{protocol}://{host}:{port}"));
    for (_, protocol, port) in ports {
        let each = format!("PORT_{port}_{}", protocol.to_uppercase());
        set(each.clone(), format!("{protocol}://{host}:{port}"));
        set(format!("{each}_PROTO"), (*protocol).to_owned());
        set(format!("{each}_PORT"), port.to_string());
        set(format!("{each}_ADDR"), address.to_owned());
    }
}

/// Variables in the order they first appeared, each with its last value.
#[derive(Default)]
struct Ordered {
    list: Vec<(String, String)>,
    at: HashMap<String, usize>,
}

impl Ordered {
    fn set(&mut self, name: &str, value: String) {
        match self.at.get(name) {
            Some(at) => self.list[*at].1 = value,
            None => {
                self.at.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_expanded() {
        let check = |text: &str, wanted: &str| {
            let value = |name: &str| (name == "A").then(|| "1".to_owned());
            assert_eq!(expand(text, &value), wanted, "{text}");
        };
        check("$(A)", "1");
        check("x$(A)y$(A)", "x1y1");
        check("$(B)", "$(B)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$A", "$A");
        check("$(A", "$(A");
        check("$", "$");
        check("ä$(A)ö", "ä1ö");
    }

    #[test]
    fn services_become_variables() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "my-db"},
            "spec": {"clusterIP": "10.96.1.2", "ports": [
                {"name": "sql", "port": 5432}, {"name": "web-ui", "port": 80, "protocol": "TCP"}]},
        }))
        .expect("a Service");
        let env = services(&[std::sync::Arc::new(service)], true);
        let get = |name: &str| env.get(name).map(String::as_str);
        assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
        assert_eq!(get("KUBERNETES_SERVICE_PORT_HTTPS"), Some("443"));
        assert_eq!(get("MY_DB_SERVICE_HOST"), Some("10.96.1.2"));
        assert_eq!(get("MY_DB_SERVICE_PORT"), Some("5432"));
        assert_eq!(get("MY_DB_SERVICE_PORT_WEB_UI"), Some("80"));
        assert_eq!(get("MY_DB_PORT"), Some("tcp://10.96.1.2:5432"));
        assert_eq!(get("MY_DB_PORT_80_TCP_ADDR"), Some("10.96.1.2"));
        assert_eq!(services(&[], false).len(), 8);
    }

    #[test]
    fn references_are_followed() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "env": [
                {"name": "PLAIN", "value": "a"},
                {"name": "NEXT", "value": "$(PLAIN)-$(FROM_MAP)"},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
                {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
            ], "envFrom": [{"prefix": "FROM_", "configMapRef": {"name": "m"}}]}]},
        }))
        .expect("a Pod");
        let container = pod.spec.as_ref().expect("a spec").containers[0].clone();
        let data = BTreeMap::from([
            ("k".to_owned(), b"v".to_vec()),
            ("MAP".to_owned(), b"w".to_vec()),
        ]);
        let here = Known::Here(std::sync::Arc::new(data));
        let known = |key: &SourceKey| match key.kind {
            SourceKind::ConfigMap => here.clone(),
            SourceKind::Secret => Known::Missing,
        };
        let lookup = Lookup {
            pod: &pod,
            node: &NodeFacts::default(),
            pod_ip: None,
            known: &known,
        };
        let env = environment(
            &container,
            &lookup,
            &["PATH=/bin".to_owned()],
            BTreeMap::new(),
        )
        .expect("an environment");
        let shown: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            shown,
            [
                "PATH=/bin",
                "FROM_MAP=w",
                "FROM_k=v",
                "PLAIN=a",
                "NEXT=a-w",
                "NAME=p",
                "KEY=v"
            ]
        );
        let missing = |_: &SourceKey| Known::Missing;
        let lookup = Lookup {
            known: &missing,
            ..lookup
        };
        let error = environment(&container, &lookup, &[], BTreeMap::new()).expect_err("no map");
        assert_eq!(error.to_string(), "configmap \"m\" not found");
    }
}
