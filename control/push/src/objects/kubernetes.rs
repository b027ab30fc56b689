//! Kubernetes' own types, trimmed.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1 as core,
        discovery::v1 as discovery,
        networking::v1::{self as networking, ServiceBackendPort},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use meshgate_api::names;
use meshgate_certs::origin::authorities_pem;

use super::{
    Authorities, Backend, ClassName, ConfigMap, EndpointSlice, Ingress, IngressClass, IngressPath,
    IngressRule, IngressTls, Meta, Name, Pod, PodRef, PortRef, PortSet, Readiness, Secret, Service,
    ServicePort, SliceEndpoint,
};
use crate::EdgeAddress;

const LEGACY_CLASS: &str = "kubernetes.io/ingress.class";
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// The key of authorities in ConfigMaps and Secrets, as in Gateway API.
const AUTHORITIES: &str = "ca.crt";
const SLICE_SERVICE: &str = "kubernetes.io/service-name";

impl Name {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl From<&ObjectMeta> for Meta {
    fn from(meta: &ObjectMeta) -> Self {
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            created_unix_s: meta
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
        }
    }
}

impl Service {
    pub(crate) fn trim(service: core::Service) -> Self {
        let opaque = annotation(&service.metadata, names::OPAQUE_PORTS).unwrap_or_default();
        let spec = service.spec.unwrap_or_default();
        let ports = spec.ports.into_iter().flatten();
        let addresses = spec
            .cluster_ips
            .or_else(|| spec.cluster_ip.map(|address| vec![address]));
        Self {
            ports: ports.filter_map(service_port).collect(),
            cluster_ips: addresses
                .into_iter()
                .flatten()
                .filter(|address| address != "None" && !address.is_empty())
                .collect(),
            selector: spec.selector.unwrap_or_default(),
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            // An annotation that does not parse changes nothing: the protocol is detected then.
            opaque_ports: PortSet::parse(opaque).unwrap_or_default(),
        }
    }
}

fn service_port(port: core::ServicePort) -> Option<ServicePort> {
    let tcp = matches!(port.protocol.as_deref(), None | Some("TCP"));
    Some(ServicePort {
        name: port.name.unwrap_or_default(),
        port: u16::try_from(port.port).ok().filter(|_| tcp)?,
        app_protocol: port.app_protocol,
    })
}

impl EndpointSlice {
    /// None when it belongs to no Service or carries names instead of addresses.
    pub(crate) fn trim(slice: discovery::EndpointSlice) -> Option<Self> {
        let service = slice
            .metadata
            .labels
            .as_ref()?
            .get(SLICE_SERVICE)?
            .as_str()
            .into();
        if slice.address_type == "FQDN" {
            return None;
        }
        let port = |port: discovery::EndpointPort| {
            let tcp = matches!(port.protocol.as_deref(), None | Some("TCP"));
            let number = u16::try_from(port.port?).ok().filter(|_| tcp)?;
            Some((port.name.unwrap_or_default(), number))
        };
        let endpoints = slice.endpoints.into_iter().flatten();
        Some(Self {
            service,
            ports: slice.ports.into_iter().flatten().filter_map(port).collect(),
            endpoints: endpoints.filter_map(slice_endpoint).collect(),
        })
    }
}

fn slice_endpoint(endpoint: discovery::Endpoint) -> Option<SliceEndpoint> {
    let conditions = endpoint.conditions.unwrap_or_default();
    // Unknown means ready (EndpointConditions).
    let ready = conditions.ready.unwrap_or(true);
    let readiness = match (ready, conditions.terminating.unwrap_or(false)) {
        (true, false) => Readiness::Ready,
        (_, true) if conditions.serving.unwrap_or(ready) => Readiness::Terminating,
        _ => Readiness::NotReady,
    };
    let pod = endpoint
        .target_ref
        .filter(|target| target.kind.as_deref() == Some("Pod"));
    Some(SliceEndpoint {
        // Only the first address of an endpoint has a meaning (EndpointSlice v1).
        address: endpoint.addresses.into_iter().next()?,
        readiness,
        pod: pod.map(|target| PodRef {
            name: target.name.unwrap_or_default().into(),
            uid: target.uid.unwrap_or_default(),
        }),
        node: endpoint.node_name.unwrap_or_default(),
    })
}

impl Pod {
    /// None for a pod without a sidecar, and for one that has ended: its address may be another's by now.
    pub(crate) fn trim(pod: core::Pod) -> Option<Self> {
        annotation(&pod.metadata, names::SIDECAR_STATUS)?;
        let spec = pod.spec?;
        let status = pod.status.unwrap_or_default();
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ended || spec.host_network == Some(true) {
            return None;
        }
        // The injector refuses annotations that do not parse.
        let ports = |name| {
            let text = annotation(&pod.metadata, name).unwrap_or_default();
            PortSet::parse(text).unwrap_or_default()
        };
        let (skip_inbound, opaque) = (ports(names::SKIP_INBOUND_PORTS), ports(names::OPAQUE_PORTS));
        let mut addresses: Vec<String> = status
            .pod_ips
            .into_iter()
            .flatten()
            .map(|address| address.ip)
            .collect();
        if let Some(address) = status.pod_ip.filter(|_| addresses.is_empty()) {
            addresses.push(address);
        }
        Some(Self {
            skip_inbound,
            opaque,
            uid: pod.metadata.uid.unwrap_or_default(),
            service_account: spec
                .service_account_name
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "default".into()),
            labels: pod.metadata.labels.unwrap_or_default(),
            addresses,
            node: spec.node_name.unwrap_or_default(),
        })
    }
}

impl Ingress {
    pub(crate) fn trim(ingress: networking::Ingress) -> Self {
        let meta = Meta::from(&ingress.metadata);
        let annotated = annotation(&ingress.metadata, LEGACY_CLASS).map(str::to_owned);
        let spec = ingress.spec.unwrap_or_default();
        let class = match (spec.ingress_class_name, annotated) {
            // The annotation wins, as it does in Kubernetes' own validation of old objects that have both.
            (_, Some(class)) => ClassName::Annotation(class),
            (Some(class), None) => ClassName::Field(class),
            (None, None) => ClassName::Absent,
        };
        let tls = spec.tls.into_iter().flatten().map(|tls| IngressTls {
            hosts: tls
                .hosts
                .into_iter()
                .flatten()
                .map(|host| host.to_ascii_lowercase().into())
                .collect(),
            secret: tls
                .secret_name
                .filter(|name| !name.is_empty())
                .map(Into::into),
        });
        let addresses = ingress
            .status
            .and_then(|status| status.load_balancer?.ingress);
        Self {
            meta,
            class,
            default_backend: spec.default_backend.map(backend),
            rules: spec.rules.into_iter().flatten().map(ingress_rule).collect(),
            tls: tls.collect(),
            addresses: addresses
                .into_iter()
                .flatten()
                .filter_map(edge_address)
                .collect(),
        }
    }
}

fn ingress_rule(rule: networking::IngressRule) -> IngressRule {
    let path = |path: networking::HTTPIngressPath| IngressPath {
        exact: path.path_type == "Exact",
        value: path
            .path
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/".into()),
        backend: backend(path.backend),
    };
    let host = rule.host.filter(|host| !host.is_empty());
    IngressRule {
        host: host.map_or_else(|| "*".into(), |host| host.to_ascii_lowercase().into()),
        paths: rule
            .http
            .into_iter()
            .flat_map(|http| http.paths)
            .map(path)
            .collect(),
    }
}

fn backend(backend: networking::IngressBackend) -> Backend {
    if let Some(resource) = backend.resource {
        return Backend::Resource(format!("{}/{}", resource.kind, resource.name));
    }
    let Some(service) = backend.service else {
        return Backend::Nothing;
    };
    let port = match service.port {
        Some(ServiceBackendPort {
            name: Some(name), ..
        }) if !name.is_empty() => PortRef::Name(name),
        Some(ServiceBackendPort {
            number: Some(number),
            ..
        }) => PortRef::Number(u16::try_from(number).unwrap_or(0)),
        _ => return Backend::Nothing,
    };
    Backend::Service {
        name: service.name.into(),
        port,
    }
}

fn edge_address(entry: networking::IngressLoadBalancerIngress) -> Option<EdgeAddress> {
    match (entry.ip, entry.hostname) {
        (Some(ip), _) => ip.parse().ok().map(EdgeAddress::Ip),
        (None, hostname) => hostname.map(EdgeAddress::Hostname),
    }
}

impl IngressClass {
    pub(crate) fn trim(class: &networking::IngressClass) -> Self {
        let controller = class
            .spec
            .as_ref()
            .and_then(|spec| spec.controller.as_deref());
        Self {
            ours: controller == Some(names::INGRESS_CONTROLLER),
            default: annotation(&class.metadata, DEFAULT_CLASS) == Some("true"),
        }
    }
}

impl Secret {
    pub(crate) fn trim(secret: core::Secret) -> Self {
        let mut data: BTreeMap<_, _> = secret.data.unwrap_or_default();
        let mut take = |key: &str| data.remove(key).map(|bytes| bytes.0);
        Self {
            certificate: take("tls.crt").unwrap_or_default(),
            key: take("tls.key").unwrap_or_default(),
            authorities: take(AUTHORITIES).map(|text| authorities(&text)),
        }
    }
}

impl ConfigMap {
    pub(crate) fn trim(map: core::ConfigMap) -> Self {
        let text = map.data.and_then(|mut data| data.remove(AUTHORITIES));
        let bytes = || Some(map.binary_data?.remove(AUTHORITIES)?.0);
        Self {
            authorities: text
                .map(String::into_bytes)
                .or_else(bytes)
                .map(|text| authorities(&text)),
        }
    }
}

fn authorities(text: &[u8]) -> Authorities {
    let found = authorities_pem(text).map(Into::into);
    found.map_err(|problem| problem.to_string())
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}
