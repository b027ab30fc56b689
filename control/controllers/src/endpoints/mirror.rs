//! The legacy Endpoints object of a Service: the same addresses in the shape of before EndpointSlices.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::Endpoint;
use kube::core::ObjectMeta;

use super::backends::{Backends, Family, families};
use super::slices::inherited_labels;
use crate::objects::Service;

/// Most addresses of an Endpoints object, as in Kubernetes; readers that need more read slices.
const ADDRESSES_MAX: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// The Endpoints of a Service.
pub(crate) fn endpoints(service: &Service, backends: &Backends) -> Endpoints {
    let family = families(service).first().copied().unwrap_or(Family::IPv4);
    let mut room = ADDRESSES_MAX;
    let mut subsets = Vec::new();
    for ((_, ports), group) in backends.iter().filter(|((of, _), _)| *of == family) {
        // Without the named port nothing is reached there; without any ports the address itself is the point.
        if ports.is_empty() && !service.spec.ports.is_empty() {
            continue;
        }
        let publish = service.spec.publish_not_ready_addresses;
        let listed = group
            .iter()
            .filter(|endpoint| publish || !is(endpoint, |c| c.terminating));
        let (ready, not_ready): (Vec<&Endpoint>, Vec<&Endpoint>) =
            listed.partition(|endpoint| is(endpoint, |c| c.ready));
        let mut addresses = |endpoints: Vec<&Endpoint>| -> Option<Vec<EndpointAddress>> {
            let mut addresses: Vec<EndpointAddress> = endpoints.into_iter().map(address).collect();
            addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
            addresses.truncate(room);
            room -= addresses.len();
            (!addresses.is_empty()).then_some(addresses)
        };
        let subset = EndpointSubset {
            addresses: addresses(ready),
            not_ready_addresses: addresses(not_ready),
            ports: (!ports.is_empty()).then(|| {
                let ports = ports.iter().map(|port| EndpointPort {
                    name: Some(port.name.clone()).filter(|name| !name.is_empty()),
                    port: port.number,
                    protocol: Some(port.protocol.clone()),
                    app_protocol: port.app_protocol.clone(),
                });
                ports.collect()
            }),
        };
        if subset.addresses.is_some() || subset.not_ready_addresses.is_some() {
            subsets.push(subset);
        }
    }
    let mut labels: BTreeMap<String, String> = inherited_labels(service);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// Whether the object is made by this controller.
pub(crate) fn is_ours(meta: &ObjectMeta) -> bool {
    meta.labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGED_BY))
        .is_some_and(|manager| manager == MANAGER)
}

/// Whether nothing has to be written.
pub(crate) fn same(existing: &Endpoints, wanted: &Endpoints) -> bool {
    let subsets = |endpoints: &Endpoints| endpoints.subsets.clone().unwrap_or_default();
    subsets(existing) == subsets(wanted) && existing.metadata.labels == wanted.metadata.labels
}

fn is(
    endpoint: &Endpoint,
    flag: impl Fn(&k8s_openapi::api::discovery::v1::EndpointConditions) -> Option<bool>,
) -> bool {
    endpoint.conditions.as_ref().and_then(flag) == Some(true)
}

fn address(endpoint: &Endpoint) -> EndpointAddress {
    EndpointAddress {
        hostname: endpoint.hostname.clone(),
        ip: endpoint.addresses.first().cloned().unwrap_or_default(),
        node_name: endpoint.node_name.clone(),
        target_ref: endpoint.target_ref.clone(),
    }
}
