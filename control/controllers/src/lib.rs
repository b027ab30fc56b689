//! The controllers: each one a pure plan from what is wanted and what is seen to changes, carried out by a thin loop.
//!
//! Invariants: all controllers share one watch per kind (`Context`); a controller decides only from caches that show
//! its own last writes (`Freshness`); whatever is written back whole, such as pod templates, stays JSON, so that no
//! unknown field is lost; nothing polls, what depends on time sets an alarm. Deliberately absent: leader election (one
//! control plane runs per cluster), StatefulSet, DaemonSet, Job.

mod conditions;
mod context;
mod deployment;
mod endpoints;
mod freshness;
mod garbage;
mod inventory;
mod namespace;
mod node;
mod objects;
mod ownership;
mod pods;
mod replica_set;
mod service_account;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use context::Context;

/// What the controllers are told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's CA certificates (PEM), published as ConfigMap `kube-root-ca.crt` in each namespace.
    pub root_ca_pem: String,
    /// A node whose Lease was not renewed for this long is unreachable.
    pub node_grace: Duration,
    /// Evict pods from an unreachable node no later than this, whatever time they were given; none: as they tolerate
    /// (300 s by default).
    pub eviction_after_max: Option<Duration>,
}

impl Options {
    /// Kubernetes' defaults.
    pub fn new(root_ca_pem: String) -> Self {
        Self {
            root_ca_pem,
            node_grace: Duration::from_secs(40),
            eviction_after_max: None,
        }
    }
}

/// Runs all controllers until `shutdown`; failures of the API server are waited out.
pub async fn run(
    client: kube::Client,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let (context, events) = Context::new(client, options);
    let context = Arc::new(context);
    let deployments = deployment::Controller::new(&context);
    let replica_sets = replica_set::Controller::new(&context);
    let endpoints = endpoints::Controller::new(&context);
    let service_accounts = service_account::Controller::new(&context);
    let nodes = node::Controller::new(&context);
    let evictions = node::Eviction::new(&context);
    let orphans = node::Orphans::new(&context);
    let inventory = inventory::Inventory::new(context.client.clone());
    let garbage = garbage::Controller::new(&context, &inventory);
    let namespaces = namespace::Controller::new(&context, &inventory);
    // Every listener is registered by now: the first list reaches all of them.
    let loops = async {
        tokio::join!(
            context.watch(),
            events.run(),
            deployments.run(),
            replica_sets.run(),
            endpoints.run(),
            service_accounts.run(),
            nodes.run(),
            evictions.run(),
            orphans.run(),
            inventory.run(),
            garbage.run(),
            namespaces.run(),
        )
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = loops => {}
    }
    Ok(())
}
