//! The application behind a sidecar: its ports, as services of one endpoint each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshgate_routing::upstream::{BreakerPolicy, RetryOn, RetryPolicy};

use crate::service::{EndpointSpec, Limits, Policy, Protocol, Service, ServiceSpec};

/// Ports that were asked for. An application has few; somebody who asks for all of them only costs connections.
const PORTS_MAX: usize = 256;

/// The ports of the own pod's application.
#[derive(Debug, Default)]
pub(crate) struct LocalApplications {
    services: Mutex<HashMap<SocketAddr, Arc<Service>>>,
}

impl LocalApplications {
    /// The service that is this address and nothing else.
    pub(crate) fn at(&self, address: SocketAddr) -> Arc<Service> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = services.get(&address) {
            return service.clone();
        }
        let service = Arc::new(single(address, format!("local:{}", address.port()).into()));
        if services.len() < PORTS_MAX {
            services.insert(address, service.clone());
        }
        service
    }
}

/// A destination that no service is known for, reached as it is.
pub(crate) fn passthrough(address: SocketAddr) -> Arc<Service> {
    Arc::new(single(address, "passthrough".into()))
}

fn single(address: SocketAddr, name: Arc<str>) -> Service {
    let spec = ServiceSpec {
        endpoints: vec![EndpointSpec {
            address,
            uid: name.clone(),
            pod: "".into(),
            identity: None,
            terminating: false,
        }],
        name,
        protocol: Protocol::Auto,
        addresses: vec![],
        policy: policy(),
    };
    Service::new(spec, None)
}

/// The callers' policies rule; the last few centimetres only must not lose requests to idle connections, nor limit
/// what the callers' limits allow.
fn policy() -> Policy {
    Policy {
        connect_timeout: Duration::from_secs(5),
        request_timeout: None,
        retries: RetryPolicy {
            attempts: 1,
            on: RetryOn {
                connect_failure: false,
                ..RetryOn::default()
            },
            ..RetryPolicy::default()
        },
        breaker: BreakerPolicy {
            consecutive_failures: 0,
            ..BreakerPolicy::default()
        },
        limits: Limits {
            connections: 16 * 1024,
            requests: 64 * 1024,
            pending: 1024,
            pending_timeout: Duration::from_secs(3),
        },
        ..Policy::default()
    }
}
