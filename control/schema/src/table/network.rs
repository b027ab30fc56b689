//! Rows of Services, Ingresses and endpoints.

use jiff::Timestamp;
use serde_json::Value;

use crate::value::{at, int_at, list_at, map_at, text_at};

use super::columns::Column;
use super::{age, name, or_none};

/// More endpoints than this are counted, not named.
const ENDPOINTS_SHOWN_MAX: usize = 3;

pub(super) const SERVICE: &[Column] = &[
    Column::name(),
    Column::text("Type", "How the service is exposed."),
    Column::text("Cluster-IP", "The address inside the cluster."),
    Column::text("External-IP", "Addresses outside of the cluster."),
    Column::text("Port(s)", "The ports of the service, with node ports."),
    Column::age(),
    Column::text("Selector", "The labels of the pods behind the service.").wide(),
];

pub(super) fn service_cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = match text_at(service, "spec.clusterIP") {
        "" => "<none>",
        address => address,
    };
    let selector: Vec<String> = map_at(service, "spec.selector")
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    vec![
        name(service),
        text_at(service, "spec.type").into(),
        cluster_ip.into(),
        external_address(service).into(),
        or_none(service_ports(service)),
        age(service, now),
        or_none(selector.join(",")),
    ]
}

fn external_address(service: &Value) -> String {
    let external = || {
        let words: Vec<&str> = list_at(service, "spec.externalIPs")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        words.join(",")
    };
    let text = match text_at(service, "spec.type") {
        "ExternalName" => return text_at(service, "spec.externalName").to_owned(),
        "LoadBalancer" => {
            let balancers = load_balancers(service);
            match (balancers.is_empty(), external()) {
                (true, addresses) if addresses.is_empty() => return "<pending>".to_owned(),
                (true, addresses) => addresses,
                (false, addresses) if addresses.is_empty() => balancers,
                (false, addresses) => format!("{balancers},{addresses}"),
            }
        }
        _ => external(),
    };
    if text.is_empty() {
        "<none>".to_owned()
    } else {
        text
    }
}

fn load_balancers(object: &Value) -> String {
    let words: Vec<&str> = list_at(object, "status.loadBalancer.ingress")
        .iter()
        .map(|one| match text_at(one, "ip") {
            "" => text_at(one, "hostname"),
            address => address,
        })
        .collect();
    words.join(",")
}

fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = list_at(service, "spec.ports")
        .iter()
        .map(|port| {
            let number = int_at(port, "port").unwrap_or(0);
            let protocol = text_at(port, "protocol");
            match int_at(port, "nodePort").filter(|port| *port > 0) {
                Some(node_port) => format!("{number}:{node_port}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    ports.join(",")
}

pub(super) const INGRESS: &[Column] = &[
    Column::name(),
    Column::text("Class", "The class of controllers that serve it."),
    Column::text("Hosts", "The hosts that it routes."),
    Column::text("Address", "Where it can be reached."),
    Column::text("Ports", "The ports on which it is served."),
    Column::age(),
];

pub(super) fn ingress_cells(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let class = match at(ingress, "spec.ingressClassName").and_then(Value::as_str) {
        Some(class) => class.to_owned(),
        None => {
            let old = ingress.pointer("/metadata/annotations/kubernetes.io~1ingress.class");
            old.and_then(Value::as_str).unwrap_or("<none>").to_owned()
        }
    };
    let has_tls = !list_at(ingress, "spec.tls").is_empty();
    vec![
        name(ingress),
        class.into(),
        hosts(ingress).into(),
        load_balancers(ingress).into(),
        if has_tls { "80, 443" } else { "80" }.into(),
        age(ingress, now),
    ]
}

fn hosts(ingress: &Value) -> String {
    let named: Vec<&str> = list_at(ingress, "spec.rules")
        .iter()
        .map(|rule| text_at(rule, "host"))
        .filter(|host| !host.is_empty())
        .collect();
    match named.len() {
        0 => "*".to_owned(),
        1..=ENDPOINTS_SHOWN_MAX => named.join(","),
        all => {
            let rest = all - ENDPOINTS_SHOWN_MAX;
            format!(
                "{} + {rest} more...",
                named[..ENDPOINTS_SHOWN_MAX].join(",")
            )
        }
    }
}

pub(super) const INGRESS_CLASS: &[Column] = &[
    Column::name(),
    Column::text("Controller", "The controller that handles the class."),
    Column::text("Parameters", "A reference to parameters of the controller."),
    Column::age(),
];

pub(super) fn ingress_class_cells(class: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match at(class, "spec.parameters") {
        None => String::new(),
        Some(parameters) => {
            let kind = match text_at(parameters, "apiGroup") {
                "" => text_at(parameters, "kind").to_owned(),
                group => format!("{}.{group}", text_at(parameters, "kind")),
            };
            format!("{kind}/{}", text_at(parameters, "name"))
        }
    };
    let controller = text_at(class, "spec.controller").into();
    vec![
        name(class),
        controller,
        or_none(parameters),
        age(class, now),
    ]
}

pub(super) const ENDPOINTS: &[Column] = &[
    Column::name(),
    Column::text("Endpoints", "Addresses and ports behind the service."),
    Column::age(),
];

pub(super) fn endpoints_cells(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list_at(endpoints, "subsets") {
        let addresses = list_at(subset, "addresses")
            .iter()
            .map(|one| text_at(one, "ip"));
        let ports = list_at(subset, "ports");
        for address in addresses {
            if ports.is_empty() {
                all.push(address.to_owned());
            }
            for port in ports {
                all.push(format!("{address}:{}", int_at(port, "port").unwrap_or(0)));
            }
        }
    }
    vec![
        name(endpoints),
        or_none(shortened(&all)),
        age(endpoints, now),
    ]
}

fn shortened(words: &[String]) -> String {
    match words.get(..ENDPOINTS_SHOWN_MAX) {
        Some(first) if words.len() > ENDPOINTS_SHOWN_MAX => {
            format!(
                "{} + {} more...",
                first.join(","),
                words.len() - ENDPOINTS_SHOWN_MAX
            )
        }
        _ => words.join(","),
    }
}

pub(super) const ENDPOINT_SLICE: &[Column] = &[
    Column::name(),
    Column::text("AddressType", "The type of the addresses."),
    Column::text("Ports", "The ports of every endpoint."),
    Column::text("Endpoints", "The addresses of the endpoints."),
    Column::age(),
];

pub(super) fn endpoint_slice_cells(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list_at(slice, "ports")
        .iter()
        .map(|port| int_at(port, "port").map_or_else(|| "*".to_owned(), |port| port.to_string()))
        .collect();
    let addresses: Vec<String> = list_at(slice, "endpoints")
        .iter()
        .flat_map(|endpoint| list_at(endpoint, "addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let unset = |text: String| {
        Value::from(if text.is_empty() {
            "<unset>".to_owned()
        } else {
            text
        })
    };
    vec![
        name(slice),
        text_at(slice, "addressType").into(),
        unset(shortened(&ports)),
        unset(shortened(&addresses)),
        age(slice, now),
    ]
}
