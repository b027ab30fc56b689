//! Ports of Services with their endpoints.

use std::net::IpAddr;

use meshgate_api::{names, policies::backend, push};

use super::{Compiler, PodTarget, backend::compile_policy};
use crate::objects::{Name, Pod, Readiness, Service, ServicePort, SliceEndpoint};

/// "namespace/name:port".
pub(crate) fn resource_name(service: &Name, port: u32) -> String {
    format!("{service}:{port}")
}

impl Compiler {
    /// One resource a port.
    pub(super) fn services(&self, name: &Name) -> Vec<push::Service> {
        let Some(service) = self
            .objects
            .services
            .get(name)
            .filter(|service| !service.external_name)
        else {
            return Vec::new();
        };
        service
            .ports
            .iter()
            .map(|port| self.service(name, service, port))
            .collect()
    }

    fn service(&self, name: &Name, service: &Service, port: &ServicePort) -> push::Service {
        let policy = self.backend_policy(name, &port.name);
        push::Service {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            port: port.port.into(),
            port_name: port.name.clone(),
            addresses: service.cluster_ips.clone(),
            protocol: protocol(service, port, policy.and_then(|(_, spec)| spec.protocol)).into(),
            endpoints: self.endpoints(name, port),
            policy: Some(compile_policy(policy)),
        }
    }

    fn endpoints(&self, name: &Name, port: &ServicePort) -> Vec<push::Endpoint> {
        let slices = self
            .index
            .slices
            .at(name)
            .filter_map(|slice| self.objects.slices.get(slice));
        let mut endpoints: Vec<push::Endpoint> = slices
            .flat_map(|slice| {
                let number = slice
                    .ports
                    .iter()
                    .find(|(name, _)| *name == port.name)
                    .map(|(_, number)| *number);
                number.into_iter().flat_map(|number| {
                    let usable = slice
                        .endpoints
                        .iter()
                        .filter(|endpoint| endpoint.readiness != Readiness::NotReady);
                    usable.map(move |endpoint| self.endpoint(name, endpoint, number))
                })
            })
            .collect();
        // Several slices may hold the same endpoint while they are rewritten: a ready one wins.
        let place = |endpoint: &push::Endpoint| {
            (
                endpoint.address.parse::<IpAddr>().ok(),
                endpoint.address.clone(),
                endpoint.port,
            )
        };
        endpoints
            .sort_by_key(|endpoint| (place(endpoint), endpoint.terminating, endpoint.uid.clone()));
        endpoints.dedup_by(|later, first| place(later) == place(first));
        endpoints
    }

    fn endpoint(&self, service: &Name, endpoint: &SliceEndpoint, port: u16) -> push::Endpoint {
        let pod = endpoint.pod.as_ref();
        let meshed = pod.and_then(|pod| {
            let meshed = self.objects.pods.get(&service.sibling(&pod.name))?;
            (meshed.uid == pod.uid || pod.uid.is_empty()).then_some(meshed)
        });
        let identity = meshed
            .filter(|pod| !pod.skip_inbound.contains(port))
            .map(|pod| self.identity(service, pod));
        push::Endpoint {
            address: endpoint.address.clone(),
            port: port.into(),
            uid: pod.map(|pod| pod.uid.clone()).unwrap_or_default(),
            pod: pod.map(|pod| pod.name.to_string()).unwrap_or_default(),
            node: endpoint.node.clone(),
            identity: identity.unwrap_or_default(),
            terminating: endpoint.readiness == Readiness::Terminating,
        }
    }

    /// SPIFFE id of a pod in the namespace of `name`.
    pub(super) fn identity(&self, name: &Name, pod: &Pod) -> String {
        names::spiffe_id(&self.trust_domain, &name.namespace, &pod.service_account)
    }

    /// What a proxy needs to call a pod by its own address.
    pub(super) fn pod_target(&self, name: &Name) -> Option<PodTarget> {
        let pod = self.objects.pods.get(name)?;
        Some(PodTarget {
            addresses: pod.addresses.clone(),
            uid: pod.uid.clone(),
            node: pod.node.clone(),
            identity: self.identity(name, pod),
            skip_inbound: pod.skip_inbound.clone(),
        })
    }
}

impl PodTarget {
    /// A Service of one endpoint: a meshed pod that is called by its own address (headless Services, direct calls).
    pub(crate) fn service(&self, name: &Name, port: u16) -> push::Service {
        let identity = match self.skip_inbound.contains(port) {
            true => String::new(),
            false => self.identity.clone(),
        };
        push::Service {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            port: port.into(),
            port_name: String::new(),
            addresses: self.addresses.clone(),
            protocol: push::service::Protocol::Auto.into(),
            endpoints: self
                .addresses
                .first()
                .map(|address| push::Endpoint {
                    address: address.clone(),
                    port: port.into(),
                    uid: self.uid.clone(),
                    pod: name.name.to_string(),
                    node: self.node.clone(),
                    identity,
                    terminating: false,
                })
                .into_iter()
                .collect(),
            policy: Some(compile_policy(None)),
        }
    }
}

/// appProtocol first, then the Service's opaque ports, then the policy.
fn protocol(
    service: &Service,
    port: &ServicePort,
    policy: Option<backend::Protocol>,
) -> push::service::Protocol {
    use push::service::Protocol;
    match port.app_protocol.as_deref() {
        Some("http" | "kubernetes.io/ws") => return Protocol::Http1,
        Some("kubernetes.io/h2c" | "http2" | "grpc") => return Protocol::Http2,
        Some("tcp") => return Protocol::Tcp,
        // Others, https among them, are found out by looking at the bytes.
        _ => {}
    }
    if service.opaque_ports.contains(port.port) {
        return Protocol::Tcp;
    }
    match policy {
        None | Some(backend::Protocol::Auto) => Protocol::Auto,
        Some(backend::Protocol::Http1) => Protocol::Http1,
        Some(backend::Protocol::Http2) => Protocol::Http2,
        Some(backend::Protocol::Tcp) => Protocol::Tcp,
    }
}
