//! EndpointSlices by the service they belong to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Label of a slice: its service, in the same namespace.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All slices of a cluster, grouped.
#[derive(Debug)]
pub(crate) struct Slices<'a> {
    by_service: BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
}

impl<'a> Slices<'a> {
    /// The slices of one service, in the order they were collected; none when it has none.
    pub(crate) fn of<'s>(&'s self, service: &'s Service) -> &'s [&'a EndpointSlice] {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        self.by_service
            .get(&(namespace, name))
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

impl<'a> FromIterator<&'a EndpointSlice> for Slices<'a> {
    fn from_iter<T: IntoIterator<Item = &'a EndpointSlice>>(slices: T) -> Slices<'a> {
        let mut by_service: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for slice in slices {
            let labels = slice.metadata.labels.as_ref();
            if let Some(service) = labels.and_then(|l| l.get(SERVICE_NAME)) {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                by_service
                    .entry((namespace, service.as_str()))
                    .or_default()
                    .push(slice);
            }
        }
        Slices { by_service }
    }
}
