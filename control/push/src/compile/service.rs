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
        let tls = self.tls_by_port.get(name);
        let tls = tls.and_then(|ports| Some(ports.get(&port.port)?.pushed()));
        push::Service {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            port: port.port.into(),
            port_name: port.name.clone(),
            addresses: service.cluster_ips.clone(),
            protocol: self
                .protocol(
                    name,
                    service,
                    port,
                    policy.and_then(|(_, spec)| spec.protocol),
                )
                .into(),
            endpoints: self.endpoints(name, port),
            policy: Some(compile_policy(policy, tls)),
        }
    }

    /// appProtocol first, then opaque ports, then the policy.
    fn protocol(
        &self,
        name: &Name,
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
        if service.opaque_ports.contains(port.port) || self.is_opaque_at_a_pod(name, port) {
            return Protocol::Tcp;
        }
        match policy {
            None | Some(backend::Protocol::Auto) => Protocol::Auto,
            Some(backend::Protocol::Http1) => Protocol::Http1,
            Some(backend::Protocol::Http2) => Protocol::Http2,
            Some(backend::Protocol::Tcp) => Protocol::Tcp,
        }
    }

    /// One pod is enough: before one is picked its caller has either looked at the bytes or not, and bytes suit all.
    fn is_opaque_at_a_pod(&self, service: &Name, port: &ServicePort) -> bool {
        self.placed(service, port).any(|(endpoint, number)| {
            let pod = self.meshed(service, endpoint);
            pod.is_some_and(|pod| pod.opaque.contains(number))
        })
    }

    fn endpoints(&self, name: &Name, port: &ServicePort) -> Vec<push::Endpoint> {
        let mut endpoints: Vec<push::Endpoint> = self
            .placed(name, port)
            .filter(|(endpoint, _)| endpoint.readiness != Readiness::NotReady)
            .map(|(endpoint, number)| self.endpoint(name, endpoint, number))
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

    /// Endpoints, ready or not, with the number that a Service's port has there.
    fn placed<'a>(
        &'a self,
        service: &'a Name,
        port: &'a ServicePort,
    ) -> impl Iterator<Item = (&'a SliceEndpoint, u16)> {
        let slices = self.index.slices.at(service);
        let slices = slices.filter_map(|slice| self.objects.slices.get(slice));
        slices.flat_map(|slice| {
            let mut ports = slice.ports.iter();
            let number = ports.find(|(name, _)| *name == port.name);
            number.into_iter().flat_map(|(_, number)| {
                let endpoints = slice.endpoints.iter();
                endpoints.map(|endpoint| (endpoint, *number))
            })
        })
    }

    /// The pod of an endpoint, if it has a sidecar.
    fn meshed(&self, service: &Name, endpoint: &SliceEndpoint) -> Option<&Pod> {
        let pod = endpoint.pod.as_ref()?;
        let meshed = self.objects.pods.get(&service.sibling(&pod.name))?;
        (meshed.uid == pod.uid || pod.uid.is_empty()).then_some(meshed)
    }

    /// Whether a Service has endpoints that their proxies take connections for, at that port if one is named.
    pub(super) fn has_mesh(&self, name: &Name, section: Option<&str>) -> bool {
        let service = self.objects.services.get(name);
        service.is_some_and(|service| {
            let mut ports = service.ports.iter();
            ports.any(|port| {
                if section.is_some_and(|section| section != port.name) {
                    return false;
                }
                let mut placed = self.placed(name, port);
                placed.any(|(endpoint, number)| {
                    let pod = self.meshed(name, endpoint);
                    pod.is_some_and(|pod| !pod.skip_inbound.contains(number))
                })
            })
        })
    }

    fn endpoint(&self, service: &Name, endpoint: &SliceEndpoint, port: u16) -> push::Endpoint {
        let pod = endpoint.pod.as_ref();
        let identity = self
            .meshed(service, endpoint)
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
            opaque: pod.opaque.clone(),
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
            protocol: match self.opaque.contains(port) {
                true => push::service::Protocol::Tcp,
                false => push::service::Protocol::Auto,
            }
            .into(),
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
            policy: Some(compile_policy(None, None)),
        }
    }
}
