//! Endpoints into EndpointSlices of at most 100, with as few writes as possible: an endpoint stays where it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::SERVICE_NAME;
use super::backends::{Backends, Family, Port, families, is_headless};
use super::changed_labels;
use crate::objects::Service;
use crate::ownership::controller_reference;

/// Most endpoints of a slice.
const ENDPOINTS_MAX: usize = 100;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Writes that bring the slices to what is wanted.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    /// Name and merge patch.
    pub(crate) update: Vec<(String, Value)>,
    pub(crate) delete: Vec<String>,
}

/// Whether a slice is made by this controller.
pub(crate) fn is_ours(meta: &ObjectMeta) -> bool {
    meta.labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGED_BY))
        .is_some_and(|manager| manager == MANAGER)
}

/// Plans the slices of `service`, which has `existing` ones.
pub(crate) fn plan(
    service: &Service,
    backends: &Backends,
    existing: &[Arc<EndpointSlice>],
) -> Plan {
    let mut plan = Plan::default();
    let mut groups: Backends = backends.clone();
    for family in families(service) {
        // A Service without any pod has an empty slice: readers tell "no endpoints" from "not looked at yet".
        if !groups.keys().any(|(of, _)| *of == family) {
            groups.insert((family, Vec::new()), Vec::new());
        }
    }
    let mut by_group: HashMap<(Family, Vec<Port>), Vec<&EndpointSlice>> = HashMap::new();
    for slice in existing {
        match group_of(slice).filter(|group| groups.contains_key(group)) {
            Some(group) => by_group.entry(group).or_default().push(slice),
            None => plan
                .delete
                .push(slice.metadata.name.clone().unwrap_or_default()),
        }
    }
    for (group, endpoints) in &groups {
        let slices = by_group.remove(group).unwrap_or_default();
        plan_group(service, group, endpoints, &slices, &mut plan);
    }
    plan
}

fn group_of(slice: &EndpointSlice) -> Option<(Family, Vec<Port>)> {
    let family = match slice.address_type.as_str() {
        "IPv4" => Family::IPv4,
        "IPv6" => Family::IPv6,
        _ => return None,
    };
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(Port::read).collect();
    ports.sort();
    Some((family, ports))
}

fn plan_group(
    service: &Service,
    group: &(Family, Vec<Port>),
    endpoints: &[Endpoint],
    slices: &[&EndpointSlice],
    plan: &mut Plan,
) {
    let mut wanted: BTreeMap<Identity<'_>, &Endpoint> =
        endpoints.iter().map(|e| (identity(e), e)).collect();
    // Keep each endpoint where it is, in its newest state.
    let mut contents: Vec<(&EndpointSlice, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let kept = slice
            .endpoints
            .iter()
            .flatten()
            .filter_map(|known| wanted.remove(&identity(known)).cloned());
        contents.push((slice, kept.take(ENDPOINTS_MAX).collect()));
    }
    // Fill the fullest first, so that the fewest slices remain.
    let mut new = wanted.into_values().cloned();
    contents.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, kept) in &mut contents {
        let room = ENDPOINTS_MAX - kept.len();
        kept.extend(new.by_ref().take(room));
    }
    let rest: Vec<Endpoint> = new.collect();
    let needs_one = contents.iter().all(|(_, endpoints)| endpoints.is_empty()) && rest.is_empty();
    let meta = metadata(service);
    for (i, (slice, endpoints)) in contents.iter().enumerate() {
        if endpoints.is_empty() && !(needs_one && i == 0) {
            plan.delete
                .push(slice.metadata.name.clone().unwrap_or_default());
        } else if slice.endpoints.as_deref().unwrap_or_default() != endpoints.as_slice()
            || slice.metadata.labels != meta.labels
        {
            let labels = changed_labels(&slice.metadata, &meta);
            let patch = json!({"metadata": {"labels": labels}, "endpoints": endpoints});
            plan.update
                .push((slice.metadata.name.clone().unwrap_or_default(), patch));
        }
    }
    let mut create = |endpoints: Vec<Endpoint>| {
        plan.create.push(EndpointSlice {
            address_type: group.0.name().to_owned(),
            endpoints: Some(endpoints),
            metadata: meta.clone(),
            ports: Some(group.1.iter().map(Port::wire).collect()),
        });
    };
    if needs_one && contents.is_empty() {
        create(Vec::new());
    }
    for chunk in rest.chunks(ENDPOINTS_MAX) {
        create(chunk.to_vec());
    }
}

/// What makes an endpoint the same one in another state: its pod and address.
type Identity<'a> = (Option<&'a str>, &'a [String]);

fn identity(endpoint: &Endpoint) -> Identity<'_> {
    let pod = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref());
    (pod, &endpoint.addresses)
}

fn metadata(service: &Service) -> ObjectMeta {
    let name = service.metadata.name.clone().unwrap_or_default();
    let mut labels = inherited_labels(service);
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: serde_json::from_value(json!([controller_reference(service)])).ok(),
        ..ObjectMeta::default()
    }
}

/// The Service's labels, and whether it is headless.
pub(super) fn inherited_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::super::backends::backends;
    use super::*;
    use crate::objects::Pod;

    fn service(ports: Value) -> Service {
        let spec = json!({"selector": {"app": "web"}, "clusterIP": "10.96.0.7", "ports": ports});
        serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "d", "uid": "s"}, "spec": spec}),
        )
        .expect("a service")
    }

    /// `name 10.0.0.1 ready deleting http=8080`
    fn pod(text: &str) -> Arc<Pod> {
        let mut words = text.split_whitespace();
        let name = words.next();
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"nodeName": "n1", "containers": [{}]},
            "status": {"phase": "Running"},
        });
        for word in words {
            match word.split_once('=') {
                Some((name, port)) => {
                    let port: i32 = port.parse().expect("a port");
                    pod["spec"]["containers"][0]["ports"] =
                        json!([{"name": name, "containerPort": port}]);
                }
                None if word == "ready" => {
                    pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
                }
                None if word == "deleting" => {
                    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")
                }
                None if word == "done" => pod["status"]["phase"] = json!("Succeeded"),
                None => pod["status"]["podIP"] = json!(word),
            }
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    /// Applies a plan to slices, as the API server would.
    fn apply(slices: &mut Vec<Arc<EndpointSlice>>, plan: Plan) {
        slices.retain(|slice| {
            !plan
                .delete
                .contains(slice.metadata.name.as_ref().expect("named"))
        });
        for (name, patch) in plan.update {
            let slice = slices
                .iter_mut()
                .find(|slice| slice.metadata.name.as_ref() == Some(&name))
                .expect("exists");
            let mut value = serde_json::to_value(&**slice).expect("serialises");
            value["endpoints"] = patch["endpoints"].clone();
            *slice = Arc::new(serde_json::from_value(value).expect("a slice"));
        }
        for mut slice in plan.create {
            slice.metadata.name = Some(format!("web-{}", slices.len()));
            slices.push(Arc::new(slice));
        }
    }

    fn show(slices: &[Arc<EndpointSlice>]) -> Vec<String> {
        let show_endpoint = |endpoint: &Endpoint| {
            let conditions = endpoint.conditions.clone().expect("set");
            let flag = |set: Option<bool>, letter: &str| {
                if set == Some(true) {
                    letter.to_owned()
                } else {
                    String::new()
                }
            };
            format!(
                "{}{}{}{}",
                endpoint.addresses[0],
                flag(conditions.ready, "R"),
                flag(conditions.serving, "S"),
                flag(conditions.terminating, "T")
            )
        };
        slices
            .iter()
            .map(|slice| {
                let ports: Vec<String> = slice
                    .ports
                    .iter()
                    .flatten()
                    .filter_map(|p| Some(p.port?.to_string()))
                    .collect();
                let endpoints: Vec<String> = slice
                    .endpoints
                    .iter()
                    .flatten()
                    .map(show_endpoint)
                    .collect();
                format!(":{} {}", ports.join(","), endpoints.join(" "))
            })
            .collect()
    }

    fn check(ports: Value, pods: &[&str], expected: &[&str]) {
        let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
        let service = service(ports);
        let backends = backends(&service, &pods, |_| None);
        let mut slices = Vec::new();
        apply(&mut slices, plan(&service, &backends, &[]));
        assert_eq!(show(&slices), expected);
        let again = plan(&service, &backends, &slices);
        assert!(
            again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(),
            "settles: {again:?}"
        );
    }

    #[test]
    fn pods_become_endpoints() {
        let plain = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
        check(plain.clone(), &[], &[": "]);
        check(
            plain.clone(),
            &["a 10.0.0.1 ready", "b 10.0.0.2", "c"],
            &[":8080 10.0.0.1RS 10.0.0.2"],
        );
        check(
            plain.clone(),
            &["a 10.0.0.1 ready deleting", "b 10.0.0.2 done"],
            &[":8080 10.0.0.1ST"],
        );
        check(
            json!([{"port": 80}]),
            &["a 10.0.0.1 ready"],
            &[":80 10.0.0.1RS"],
        );
        let named = json!([{"port": 80, "targetPort": "http"}]);
        check(
            named.clone(),
            &["a 10.0.0.1 http=80", "b 10.0.0.2 http=8080", "c 10.0.0.3"],
            &[": 10.0.0.3", ":80 10.0.0.1", ":8080 10.0.0.2"],
        );
        check(json!([]), &["a 10.0.0.1 ready"], &[": 10.0.0.1RS"]);
    }

    #[test]
    fn slices_hold_a_hundred_and_endpoints_stay() {
        let service = service(json!([{"port": 80}]));
        let all: Vec<Arc<Pod>> = (0..250)
            .map(|i| pod(&format!("p{i:03} 10.0.{}.{} ready", i / 200, i % 200)))
            .collect();
        let mut slices = Vec::new();
        apply(
            &mut slices,
            plan(&service, &backends(&service, &all, |_| None), &[]),
        );
        let sizes = |slices: &[Arc<EndpointSlice>]| {
            slices
                .iter()
                .map(|s| s.endpoints.iter().flatten().count())
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(&slices), [100, 100, 50]);
        // One pod goes and another comes: two slices change at most.
        let fewer: Vec<Arc<Pod>> = all[1..]
            .iter()
            .cloned()
            .chain([pod("new 10.0.9.9 ready")])
            .collect();
        let change = plan(&service, &backends(&service, &fewer, |_| None), &slices);
        assert_eq!((change.create.len(), change.delete.len()), (0, 0));
        assert!(change.update.len() <= 2);
        apply(&mut slices, change);
        let none = plan(&service, &backends(&service, &[], |_| None), &slices);
        assert_eq!((none.create.len(), none.delete.len()), (1, 3));
    }
}
