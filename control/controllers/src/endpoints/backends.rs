//! A Service's pods as endpoints, grouped by the ports they serve: a named target port can be a different number in
//! each pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::objects::{Container, Node, Pod, Service};
use crate::pods::{is_finished, is_ready};

const ZONE: &str = "topology.kubernetes.io/zone";

/// Family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    IPv4,
    IPv6,
}

impl Family {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }

    fn contains(self, address: &str) -> bool {
        match address.parse() {
            Ok(IpAddr::V4(_)) => self == Self::IPv4,
            Ok(IpAddr::V6(_)) => self == Self::IPv6,
            Err(_) => false,
        }
    }
}

/// A port of a group: name, number, protocol, application protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) number: i32,
    pub(crate) protocol: String,
    pub(crate) app_protocol: Option<String>,
}

impl Port {
    pub(crate) fn wire(&self) -> EndpointPort {
        EndpointPort {
            name: Some(self.name.clone()),
            port: Some(self.number),
            protocol: Some(self.protocol.clone()),
            app_protocol: self.app_protocol.clone(),
        }
    }

    pub(crate) fn read(wire: &EndpointPort) -> Self {
        Self {
            name: wire.name.clone().unwrap_or_default(),
            number: wire.port.unwrap_or(0),
            protocol: wire.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: wire.app_protocol.clone(),
        }
    }
}

/// Endpoints by family and sorted ports.
pub(crate) type Backends = BTreeMap<(Family, Vec<Port>), Vec<Endpoint>>;

/// The endpoints of `service`, whose selector picks `pods`. `zone_of` knows the zone of a node by name.
pub(crate) fn backends(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Backends {
    let mut backends = Backends::new();
    for family in families(service) {
        for pod in pods.iter().filter(|pod| !is_finished(pod)) {
            let Some(address) = address(pod, family) else {
                continue;
            };
            let zone = pod.spec.node_name.as_deref().and_then(&zone_of);
            let group = backends.entry((family, ports(service, pod))).or_default();
            group.push(endpoint(service, pod, address, zone));
        }
    }
    backends
}

/// The zone that a node is in.
pub(crate) fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE).map(String::as_str)
}

pub(crate) fn families(service: &Service) -> Vec<Family> {
    let named = service
        .spec
        .ip_families
        .iter()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::IPv4),
            "IPv6" => Some(Family::IPv6),
            _ => None,
        });
    let families: Vec<Family> = named.collect();
    if families.is_empty() {
        vec![Family::IPv4]
    } else {
        families
    }
}

/// A Service without an address of its own: names lead to the pods themselves.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.cluster_ip.as_deref() == Some("None")
}

fn address(pod: &Pod, family: Family) -> Option<String> {
    let mut all = pod
        .status
        .pod_ips
        .iter()
        .map(|ip| &ip.ip)
        .chain(&pod.status.pod_ip);
    all.find(|address| family.contains(address)).cloned()
}

fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.ports.iter().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            number: target_port(port, pod)?,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    let mut ports: Vec<Port> = ports.collect();
    ports.sort();
    ports
}

/// The pod's port that the Service's port leads to; a name that the pod does not have leads nowhere.
fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let is_sidecar =
                |container: &&Container| container.restart_policy.as_deref() == Some("Always");
            let containers = pod
                .spec
                .containers
                .iter()
                .chain(pod.spec.init_containers.iter().filter(is_sidecar));
            let mut ports = containers.flat_map(|container| &container.ports);
            let named = ports.find(|port| {
                port.name.as_deref() == Some(name)
                    && port.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            named.map(|port| port.container_port)
        }
    }
}

fn endpoint(service: &Service, pod: &Pod, address: String, zone: Option<String>) -> Endpoint {
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let is_named = pod.spec.subdomain.is_some() && pod.spec.subdomain == service.metadata.name;
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: pod
            .spec
            .hostname
            .clone()
            .filter(|hostname| is_named && !hostname.is_empty()),
        node_name: pod.spec.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}
