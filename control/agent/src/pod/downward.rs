//! What a pod may be told of itself: fields and resources.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use meshgate_api::client::Quantity;

/// What fields and resources need to know of the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) address: String,
    /// Thousandths of a CPU; the default of a limit that is not set.
    pub(crate) cpu_milli: i64,
    pub(crate) memory_bytes: i64,
}

/// The value of `fieldPath`.
pub(crate) fn field(
    pod: &Pod,
    node: &NodeFacts,
    pod_ip: Option<&str>,
    path: &str,
) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((map, key)) = path.split_once('[') {
        let key = key.trim_end_matches(']').trim_matches(['\'', '"']);
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(text(map.and_then(|map| map.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => node.name.clone(),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => node.address.clone(),
        "status.podIP" | "status.podIPs" => pod_ip.unwrap_or_default().to_owned(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"` lines, as downward API files have them.
fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    map.into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The value of a resource of a container; `own` is the container that asks.
pub(crate) fn resource(
    pod: &Pod,
    node: &NodeFacts,
    own: Option<&str>,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let name = selector
        .container_name
        .as_deref()
        .or(own)
        .unwrap_or_default();
    let container = containers(pod)
        .find(|container| container.name == name)
        .ok_or_else(|| format!("container {name} not found"))?;
    let (list, what) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource: {}", selector.resource))?;
    let amount = |list: &str| {
        let resources = container.resources.as_ref()?;
        let map = match list {
            "limits" => resources.limits.as_ref(),
            _ => resources.requests.as_ref(),
        };
        Quantity::parse(&map?.get(what)?.0).ok()
    };
    let set = match list {
        "limits" => amount("limits"),
        "requests" => amount("requests"),
        _ => {
            return Err(format!(
                "unsupported container resource: {}",
                selector.resource
            ));
        }
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(|divisor| Quantity::parse(&divisor.0).ok())
        .map(Quantity::milli)
        .filter(|milli| *milli > 0)
        .unwrap_or(1000);
    // In thousandths on both sides, so that a divisor like 1m works.
    let milli = match (set, list, what) {
        (Some(amount), _, _) => amount.milli(),
        (None, "limits", "cpu") => node.cpu_milli,
        (None, "limits", "memory") => node.memory_bytes.saturating_mul(1000),
        (None, _, "cpu" | "memory" | "ephemeral-storage") => 0,
        _ => {
            return Err(format!(
                "unsupported container resource: {}",
                selector.resource
            ));
        }
    };
    Ok((milli.saturating_add(divisor - 1) / divisor).to_string())
}

/// All containers of a pod, init containers first.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| {
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "labels": {"a": "1", "b": "x\"y"}},
            "spec": {"containers": [{"name": "c", "resources": {
                "limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]},
        }))
        .expect("a Pod")
    }

    #[test]
    fn fields() {
        let check = |path: &str, wanted: &str| {
            let node = NodeFacts {
                name: "node-0".to_owned(),
                ..NodeFacts::default()
            };
            let shown = field(&pod(), &node, Some("10.0.0.1"), path).unwrap_or_else(|e| e);
            assert_eq!(shown, wanted, "{path}");
        };
        check("metadata.name", "p");
        check("metadata.labels['a']", "1");
        check("metadata.labels['none']", "");
        check("metadata.labels", "a=\"1\"\nb=\"x\\\"y\"");
        check("spec.nodeName", "node-0");
        check("status.podIP", "10.0.0.1");
        check("spec.nonsense", "unsupported fieldPath: spec.nonsense");
    }

    #[test]
    fn resources() {
        let node = NodeFacts {
            cpu_milli: 2000,
            memory_bytes: 1 << 30,
            ..NodeFacts::default()
        };
        let check = |what: &str, divisor: Option<&str>, wanted: &str| {
            let selector: ResourceFieldSelector = serde_json::from_value(
                serde_json::json!({"resource": what, "divisor": divisor.unwrap_or("0")}),
            )
            .expect("a selector");
            let shown = resource(&pod(), &node, Some("c"), &selector).unwrap_or_else(|e| e);
            assert_eq!(shown, wanted, "{what} {divisor:?}");
        };
        check("limits.memory", None, "67108864");
        check("limits.memory", Some("1Mi"), "64");
        check("limits.cpu", None, "2");
        check("limits.cpu", Some("1m"), "2000");
        check("requests.cpu", None, "1");
        check("requests.cpu", Some("1m"), "250");
        check("requests.memory", None, "0");
        check(
            "limits.gpu",
            None,
            "unsupported container resource: limits.gpu",
        );
    }
}
