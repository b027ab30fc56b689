//! What the sidecar enforces: its own pod's workload, and the services its application talks to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use meshgate_api::push as wire;
use meshgate_proxy::push::convert::{self, Enforceable, Invalid};
use meshgate_proxy::push::resource::{Body, Changes, Kind};
use meshgate_proxy::push::stream::Enforce;
use meshgate_proxy::{Engine, Readiness, Service, Services, Snapshot, Workload};
use tracing::warn;

use crate::WORKLOAD;
use crate::lookup::Lookup;

/// The last good version of every resource, and the engine that enforces them.
#[derive(Debug)]
pub(crate) struct Tables {
    engine: Engine,
    lookup: Lookup,
    readiness: Readiness,
    known: tokio::sync::watch::Sender<bool>,
    workload: Option<Workload>,
    services: HashMap<String, Arc<Service>>,
}

impl Tables {
    /// `known` becomes true once the own pod's workload is enforced.
    pub(crate) fn new(
        engine: Engine,
        lookup: Lookup,
        readiness: Readiness,
        known: tokio::sync::watch::Sender<bool>,
    ) -> Self {
        Self {
            engine,
            lookup,
            readiness,
            known,
            workload: None,
            services: HashMap::new(),
        }
    }

    /// Takes one resource in; an invalid one changes nothing. Returns the destinations that this is an answer for, and what
    /// of the resource is closed because it cannot be enforced.
    fn update(&mut self, name: &str, body: Body) -> Result<Enforceable<Vec<SocketAddr>>, Invalid> {
        match body {
            Body::Workload(wire) => self.workload = Some(convert::workload(wire)?),
            Body::Service(wire) => {
                let Enforceable { resource, closed } = convert::service(name, *wire)?;
                let answered = resource.addresses.clone();
                let previous = self.services.get(name).map(|service| &**service);
                let service = Arc::new(Service::new(resource, previous));
                self.services.insert(name.to_owned(), service);
                return Ok(Enforceable {
                    resource: answered,
                    closed,
                });
            }
            // The edge's matter, and never asked for.
            Body::EdgeHost(_) | Body::Certificate(_) => {}
        }
        Ok(Enforceable {
            resource: Vec::new(),
            closed: None,
        })
    }

    /// Takes one resource out, or notes that a destination is unknown.
    fn remove(&mut self, kind: Kind, name: &str) -> Vec<SocketAddr> {
        match kind {
            Kind::Service => match (self.services.remove(name), name.parse()) {
                (Some(service), _) => service.addresses().to_vec(),
                (None, Ok(destination)) => vec![destination],
                (None, Err(_)) => Vec::new(),
            },
            // A pod that is going away: what it demanded last stays in force until it is gone.
            Kind::Workload => {
                warn!(
                    workload = name,
                    "the control plane does not know this pod (any more)"
                );
                Vec::new()
            }
            Kind::EdgeHost | Kind::Certificate => Vec::new(),
        }
    }
}

impl Enforce for Tables {
    fn enforce(&mut self, changes: Changes) -> Vec<wire::Refusal> {
        let mut refusals = Vec::new();
        let mut answered = Vec::new();
        for (name, body) in changes.updated {
            let invalid = match self.update(&name, body) {
                Ok(Enforceable { resource, closed }) => {
                    answered.extend(resource);
                    closed
                }
                Err(invalid) => Some(invalid),
            };
            refusals.extend(invalid.map(|invalid| wire::Refusal {
                resource: name,
                reason: invalid.to_string(),
            }));
        }
        for (kind, name) in changes.removed {
            answered.extend(self.remove(kind, &name));
        }
        self.engine.swap(Snapshot {
            generation: changes.generation,
            services: Services::new(self.services.values().cloned(), true),
            workload: self.workload.clone().unwrap_or_default(),
            ..Snapshot::default()
        });
        if self.workload.is_some() {
            self.readiness.met(WORKLOAD);
            self.known.send_replace(true);
        }
        // Last: who waits for an answer finds it enforced.
        self.lookup.answered(answered);
        refusals
    }
}
