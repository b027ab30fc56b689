//! What the edge enforces: hosts, services and certificates as pushed, swapped as one snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meshgate_api::push as wire;
use meshgate_proxy::push::convert::{
    self, EdgeCertificate, EdgeHost, EdgeRule, Enforceable, Invalid,
};
use meshgate_proxy::push::resource::{Body, Changes, Kind};
use meshgate_proxy::push::stream::Enforce;
use meshgate_proxy::tls::Certificates;
use meshgate_proxy::{Engine, Rule, Service, ServiceSpec, Services, Snapshot};
use meshgate_routing::permit::AccessRules;
use meshgate_routing::route::{HostName, HostRules, RequestMatch, RouteTable};

use crate::access::AccessBook;

/// The last good version of every resource, and the engine that enforces them.
#[derive(Debug)]
pub(crate) struct Tables {
    engine: Engine,
    /// Compiled once each: a change of one host costs nothing for the others.
    hosts: HashMap<String, (HostName, Arc<HostRules<Rule>>)>,
    services: HashMap<String, Arc<Service>>,
    /// In order of their names: of two for one host the same one is served by every replica.
    certificates: BTreeMap<String, EdgeCertificate>,
    access: AccessBook,
}

impl Tables {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            hosts: HashMap::new(),
            services: HashMap::new(),
            certificates: BTreeMap::new(),
            access: AccessBook::default(),
        }
    }

    /// Makes `changes` true in one swap, or none of them: what is refused is named, and nothing has changed then.
    pub(crate) fn enforce_whole(&mut self, changes: Changes) -> Result<(), Vec<wire::Refusal>> {
        let (valid, refusals) = converted(changes.updated);
        if !refusals.is_empty() {
            return Err(refusals);
        }
        self.apply(valid, changes.removed, changes.generation);
        Ok(())
    }

    fn apply(
        &mut self,
        valid: Vec<(String, Converted)>,
        removed: Vec<(Kind, String)>,
        generation: u64,
    ) {
        for (name, resource) in valid {
            self.update(name, resource);
        }
        for (kind, name) in removed {
            self.remove(kind, &name);
        }
        self.access.forget_unused();
        self.engine.swap(self.snapshot(generation));
    }

    fn update(&mut self, name: String, resource: Converted) {
        match resource {
            Converted::EdgeHost(host) => {
                let lists = host.access.into_iter();
                let lists: Vec<_> = lists.map(|rules| self.access.shared(rules)).collect();
                let rules = host.rules.into_iter().map(|rule| self.rule(rule, &lists));
                let rules = Arc::new(HostRules::new(rules));
                self.hosts.insert(name, (host.host, rules));
            }
            Converted::Service(spec) => {
                let previous = self.services.get(&name).map(|service| &**service);
                let service = Arc::new(Service::new(*spec, previous));
                self.services.insert(name, service);
            }
            Converted::Certificate(certificate) => {
                self.certificates.insert(name, certificate);
            }
            Converted::Nothing => {}
        }
    }

    fn rule(&self, rule: EdgeRule, lists: &[Arc<AccessRules>]) -> (RequestMatch, Rule) {
        let limits = rule.limits.into_iter();
        let compiled = Rule {
            target: rule.target,
            origin: rule.origin,
            index: rule.index,
            limits: limits
                .map(|limit| self.engine.limits().open(limit))
                .collect(),
            access: rule.access.map(|list| lists[list].clone()),
        };
        (rule.matches, compiled)
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
                    .add_demanding(
                        host,
                        certificate.key.clone(),
                        certificate.client_auth.clone(),
                    )
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
        let (valid, refusals) = converted(changes.updated);
        self.apply(valid, changes.removed, changes.generation);
        refusals
    }
}

/// A resource in the types that the engine enforces.
enum Converted {
    EdgeHost(EdgeHost),
    Service(Box<ServiceSpec>),
    Certificate(EdgeCertificate),
    /// A sidecar's matter, and never asked for.
    Nothing,
}

/// What can be enforced, and what is refused by name: resources, or what of them is closed instead.
fn converted(resources: Vec<(String, Body)>) -> (Vec<(String, Converted)>, Vec<wire::Refusal>) {
    let (mut valid, mut refusals) = (Vec::new(), Vec::new());
    for (name, body) in resources {
        let (resource, invalid) = match convert(&name, body) {
            Ok((resource, closed)) => (Some(resource), closed),
            Err(invalid) => (None, Some(invalid)),
        };
        refusals.extend(invalid.map(|invalid| wire::Refusal {
            resource: name.clone(),
            reason: invalid.to_string(),
        }));
        valid.extend(resource.map(|resource| (name, resource)));
    }
    (valid, refusals)
}

/// What is enforced, and what of it is closed.
fn convert(name: &str, body: Body) -> Result<(Converted, Option<Invalid>), Invalid> {
    Ok(match body {
        Body::EdgeHost(wire) => (Converted::EdgeHost(convert::edge_host(wire)?), None),
        Body::Service(wire) => {
            let Enforceable { resource, closed } = convert::service(name, *wire)?;
            (Converted::Service(Box::new(resource)), closed)
        }
        Body::Certificate(wire) => {
            let Enforceable { resource, closed } = convert::certificate(wire)?;
            (Converted::Certificate(resource), closed)
        }
        Body::Workload(_) => (Converted::Nothing, None),
    })
}

/// Which of these resources an edge would refuse, and why.
pub fn refusals(resources: Vec<(String, Body)>) -> Vec<wire::Refusal> {
    converted(resources).1
}
