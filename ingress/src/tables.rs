//! What the edge enforces: hosts, services and certificates as pushed, swapped as one snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meshgate_api::push as wire;
use meshgate_proxy::push::convert::{self, EdgeCertificate, EdgeRule, Invalid};
use meshgate_proxy::push::resource::{Body, Changes, Kind};
use meshgate_proxy::push::stream::Enforce;
use meshgate_proxy::tls::Certificates;
use meshgate_proxy::{Engine, Rule, Service, Services, Snapshot};
use meshgate_routing::route::{HostName, HostRules, RouteTable};

/// The last good version of every resource, and the engine that enforces them.
#[derive(Debug)]
pub(crate) struct Tables {
    engine: Engine,
    /// Compiled once each: a change of one host costs nothing for the others.
    hosts: HashMap<String, (HostName, Arc<HostRules<Rule>>)>,
    services: HashMap<String, Arc<Service>>,
    /// In order of their names: of two for one host the same one is served by every replica.
    certificates: BTreeMap<String, EdgeCertificate>,
}

impl Tables {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            hosts: HashMap::new(),
            services: HashMap::new(),
            certificates: BTreeMap::new(),
        }
    }

    /// Takes one resource in; an invalid one changes nothing.
    fn update(&mut self, name: &str, body: Body) -> Result<(), Invalid> {
        match body {
            Body::EdgeHost(wire) => {
                let host = convert::edge_host(wire)?;
                let rules = host.rules.into_iter().map(|rule| self.rule(rule));
                let rules = Arc::new(HostRules::new(rules));
                self.hosts.insert(name.to_owned(), (host.host, rules));
            }
            Body::Service(wire) => {
                let spec = convert::service(name, *wire)?;
                let previous = self.services.get(name).map(|service| &**service);
                let service = Arc::new(Service::new(spec, previous));
                self.services.insert(name.to_owned(), service);
            }
            Body::Certificate(wire) => {
                let certificate = convert::certificate(wire)?;
                self.certificates.insert(name.to_owned(), certificate);
            }
            // A sidecar's matter, and never asked for.
            Body::Workload(_) => {}
        }
        Ok(())
    }

    fn rule(&self, rule: EdgeRule) -> (meshgate_routing::route::PathMatch, Rule) {
        let limits = rule.limits.into_iter();
        let compiled = Rule {
            target: rule.target,
            origin: rule.origin,
            index: rule.index,
            limits: limits
                .map(|limit| self.engine.limits().open(limit))
                .collect(),
        };
        (rule.path, compiled)
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::EdgeHost => drop(self.hosts.remove(name)),
            Kind::Service => drop(self.services.remove(name)),
            Kind::Certificate => drop(self.certificates.remove(name)),
            Kind::Workload => {}
        }
    }

    fn snapshot(&self, generation: u64) -> Snapshot {
        let mut certificates = Certificates::default();
        for certificate in self.certificates.values() {
            for host in &certificate.hosts {
                certificates
                    .add(host, certificate.key.clone())
                    .expect("hosts are validated when the certificate is converted");
            }
        }
        Snapshot {
            generation,
            routes: RouteTable::new(self.hosts.values().cloned()),
            services: Services::new(self.services.values().cloned(), false),
            certificates,
            ..Snapshot::default()
        }
    }
}

impl Enforce for Tables {
    fn enforce(&mut self, changes: Changes) -> Vec<wire::Refusal> {
        let mut refusals = Vec::new();
        for (name, body) in changes.updated {
            if let Err(invalid) = self.update(&name, body) {
                refusals.push(wire::Refusal {
                    resource: name,
                    reason: invalid.to_string(),
                });
            }
        }
        for (kind, name) in changes.removed {
            self.remove(kind, &name);
        }
        self.engine.swap(self.snapshot(changes.generation));
        refusals
    }
}
