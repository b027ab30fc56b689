//! Random changes, subscriptions, answers and reconnects: in the end the proxy holds what it should, and no more.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use meshgate_api::push::{self, DeltaRequest, Node, node::Role};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Change, domain, update};
use crate::{
    compile::{Key, ResourceKind},
    table::Table,
    xds::{
        stream::{StreamState, type_url},
        subscription::UNANSWERED_MAX,
        viewer::Viewer,
    },
};

const HOSTS: [&str; 3] = ["a.test", "b.test", "c.test"];
const SERVICES: [&str; 3] = ["shop/x:80", "shop/y:80", "shop/z:80"];
const KINDS: [ResourceKind; 2] = [ResourceKind::Service, ResourceKind::EdgeHost];

#[derive(Default)]
struct Proxy {
    held: BTreeMap<(ResourceKind, String), String>,
    unanswered: Vec<(ResourceKind, String)>,
}

fn viewer() -> Viewer {
    let identity = meshgate_certs::identity::SpiffeId::new(&domain(), "meshgate-system", "edge")
        .expect("an identity");
    let node = Node {
        role: Role::Edge.into(),
        namespace: "meshgate-system".into(),
        ..Node::default()
    };
    Viewer::new(Some(&node), &identity).expect("the edge")
}

impl Proxy {
    fn connect(&mut self, table: &Table) -> StreamState {
        let mut state = StreamState::new(viewer());
        self.unanswered.clear();
        for kind in KINDS {
            let held = self.held.iter().filter(|((of, _), _)| *of == kind);
            let held: HashMap<_, _> = held
                .map(|((_, name), version)| (name.clone(), version.clone()))
                .collect();
            let request = DeltaRequest {
                type_url: type_url(kind),
                subscribe: vec!["*".into()],
                held_versions: held,
                ..DeltaRequest::default()
            };
            state.request(request, &table.read()).expect("permitted");
        }
        state
    }

    /// Takes one response; false when there is none.
    fn read(&mut self, state: &mut StreamState, table: &Table, at: &str) -> bool {
        let Some(response) = state.respond(&table.read()) else {
            return false;
        };
        let kind = KINDS
            .into_iter()
            .find(|kind| type_url(*kind) == response.type_url)
            .expect("subscribed");
        for resource in response.resources {
            self.held.insert((kind, resource.name), resource.version);
        }
        for name in response.removed {
            self.held.remove(&(kind, name));
        }
        let held = self.held.iter().filter(|((of, _), _)| *of == kind);
        let hash =
            push::held_hash(held.map(|((_, name), version)| (name.as_str(), version.as_str())));
        assert_eq!(hash, response.held_hash, "{at}");
        self.unanswered.push((kind, response.nonce));
        true
    }

    /// Each host finds the Services its rules name: nothing is taken away before what needs it.
    fn check_whole(
        &self,
        needs: &BTreeMap<String, BTreeMap<&str, BTreeSet<&str>>>,
        services: &BTreeSet<&str>,
        at: &str,
    ) {
        for ((kind, name), version) in &self.held {
            let needed = needs.get(version).and_then(|of| of.get(name.as_str()));
            for service in needed
                .into_iter()
                .flatten()
                .filter(|_| *kind == ResourceKind::EdgeHost)
            {
                let held = self
                    .held
                    .contains_key(&(ResourceKind::Service, (*service).to_owned()));
                assert!(
                    held || !services.contains(service),
                    "{name} needs {service}, {at}"
                );
            }
        }
    }
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let table = Table::new(1);
    let mut proxy = Proxy::default();
    let mut state = proxy.connect(&table);
    let mut hosts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut services: BTreeSet<&str> = BTreeSet::new();
    // Version of a host to what it needs, to look at what a proxy holds.
    let mut needs: BTreeMap<String, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for step in 0..2000 {
        let at = format!("seed {seed}, step {step}");
        match rng.random_range(0..10) {
            0..=4 => {
                let host = HOSTS[rng.random_range(0..3)];
                let service = SERVICES[rng.random_range(0..3)];
                let version = step.to_string();
                let change = match rng.random_range(0..4) {
                    0 | 1 => {
                        let of: BTreeSet<&str> = SERVICES
                            .into_iter()
                            .filter(|_| rng.random_range(0..2) == 0)
                            .collect();
                        hosts.insert(host, of);
                        None
                    }
                    2 => {
                        hosts.remove(host);
                        Some(Change::Gone(ResourceKind::EdgeHost, host))
                    }
                    _ if rng.random_range(0..3) == 0 => {
                        services.remove(service);
                        Some(Change::Gone(ResourceKind::Service, service))
                    }
                    _ => {
                        services.insert(service);
                        Some(Change::Service(service, "10.96.0.1", &version))
                    }
                };
                let of: Vec<&str> = hosts.get(host).into_iter().flatten().copied().collect();
                table.publish(&update(&[change.unwrap_or(Change::Host(host, &of))]));
                if let Some(entry) = table.read().find(&Key::new(ResourceKind::EdgeHost, host)) {
                    needs
                        .entry(entry.version.clone())
                        .or_default()
                        .insert(host, of.into_iter().collect());
                }
            }
            5..=7 => drop(proxy.read(&mut state, &table, &at)),
            8 => {
                for (kind, nonce) in proxy.unanswered.drain(..) {
                    let request = DeltaRequest {
                        type_url: type_url(kind),
                        response_nonce: nonce,
                        ..DeltaRequest::default()
                    };
                    state.request(request, &table.read()).expect("permitted");
                }
            }
            _ if rng.random_range(0..10) == 0 => state = proxy.connect(&table),
            _ => {}
        }
    }
    let at = format!("seed {seed}, end");
    while proxy.read(&mut state, &table, &at) {}
    proxy.check_whole(&needs, &services, &at);
    let needed: BTreeSet<&str> = hosts
        .values()
        .flatten()
        .copied()
        .filter(|service| services.contains(service))
        .collect();
    let wanted = hosts.keys().map(|host| (ResourceKind::EdgeHost, *host));
    let wanted = wanted.chain(
        needed
            .into_iter()
            .map(|service| (ResourceKind::Service, service)),
    );
    let wanted: BTreeMap<_, _> = wanted
        .map(|(kind, name)| {
            let entry = table.read().find(&Key::new(kind, name)).expect("published");
            ((kind, name.to_owned()), entry.version.clone())
        })
        .collect();
    assert_eq!(proxy.held, wanted, "{at}");
}

#[test]
fn a_proxy_that_answers_nothing_gets_nothing_more() {
    let table = Table::new(1);
    let mut proxy = Proxy::default();
    let mut state = proxy.connect(&table);
    for version in 0..2 * UNANSWERED_MAX {
        let service = format!("shop/x:{}", version + 1);
        table.publish(&update(&[Change::Host("a.test", &[&service])]));
        while proxy.read(&mut state, &table, &service) {}
    }
    let of_hosts = proxy.unanswered.iter();
    let of_hosts: Vec<_> = of_hosts
        .filter(|(kind, _)| *kind == ResourceKind::EdgeHost)
        .collect();
    assert_eq!(of_hosts.len(), UNANSWERED_MAX);
    let (kind, nonce) = of_hosts[0];
    let request = DeltaRequest {
        type_url: type_url(*kind),
        response_nonce: nonce.clone(),
        ..DeltaRequest::default()
    };
    state.request(request, &table.read()).expect("permitted");
    assert!(proxy.read(&mut state, &table, "answered"));
    let key = (ResourceKind::EdgeHost, "a.test".to_owned());
    let newest = table
        .read()
        .find(&Key::new(ResourceKind::EdgeHost, "a.test"));
    assert_eq!(proxy.held[&key], newest.expect("published").version);
}

#[test]
fn a_proxy_converges_whatever_happens() {
    for seed in 0..20 {
        run(seed);
    }
}
