//! Keeps the kernel and the names true to the API: one task, woken by changes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::dns::{self, Zone};
use super::link::{Link, Via};
use super::slices::Slices;
use super::{NetworkError, NodeNetworkConfig, NodeRoutes, services};
use meshgate_api::names;

/// What changed in one event: all that a pass must look at again.
enum Changed {
    Services,
    Nodes,
}

pub(super) async fn run(
    link: &Link,
    config: NodeNetworkConfig,
    client: Client,
    shutdown: CancellationToken,
) -> Result<(), NetworkError> {
    let (services, service_events) = watched::<Service>(client.clone());
    let (slices, slice_events) = watched::<EndpointSlice>(client.clone());
    let (nodes, node_events) = watched::<Node>(client);
    let mut events = futures::stream::select_all([
        service_events.map(|()| Changed::Services).boxed(),
        slice_events.map(|()| Changed::Services).boxed(),
        node_events.map(|()| Changed::Nodes).boxed(),
    ]);
    let zone = dns::serve(names::DNS_SERVICE_ADDRESS, shutdown.clone()).await?;
    let mut routes = NodeRoutes::new();
    loop {
        let changed = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            changed = events.next() => changed,
        };
        let Some(changed) = changed else {
            return Ok(());
        };
        let mut todo = (
            matches!(changed, Changed::Services),
            matches!(changed, Changed::Nodes),
        );
        // Changes that came while the last pass ran need one pass, not one each.
        while let Some(Some(more)) = futures::FutureExt::now_or_never(events.next()) {
            match more {
                Changed::Services => todo.0 = true,
                Changed::Nodes => todo.1 = true,
            }
        }
        if todo.0 {
            apply_services(&services.state(), &slices.state(), &zone, config).await;
        }
        if todo.1 {
            apply_routes(link, &mut routes, wanted_routes(&nodes.state(), config)).await;
        }
    }
}

async fn apply_services(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    zone: &dns::SharedZone,
    config: NodeNetworkConfig,
) {
    let slices: Slices = slices.iter().map(Arc::as_ref).collect();
    let services = || services.iter().map(Arc::as_ref);
    zone.store(Arc::new(Zone::new(services(), &slices)));
    let frontends = services::frontends(services(), &slices, config);
    if frontends.len() > services::PORTS_MAX {
        tracing::error!(
            ports = frontends.len(),
            max = services::PORTS_MAX,
            "more service ports than a node translates: those after the first are unreachable"
        );
    }
    let table = services::table(&frontends, config);
    // Blocking: about a millisecond of netlink.
    match tokio::task::spawn_blocking(move || table.replace()).await {
        Ok(Ok(())) => tracing::debug!(frontends = frontends.len(), "service addresses enforced"),
        Ok(Err(error)) => tracing::error!(
            error = %error,
            cause = error_source(&error),
            "service addresses were not enforced; the rules before stay"
        ),
        Err(panic) => {
            tracing::error!(%panic, "service addresses were not enforced; the rules before stay")
        }
    }
}

fn error_source(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// Pod networks of the other nodes, by the node's address.
fn wanted_routes(nodes: &[Arc<Node>], config: NodeNetworkConfig) -> NodeRoutes {
    let mut routes = NodeRoutes::new();
    for node in nodes {
        let addresses = node
            .status
            .iter()
            .flat_map(|s| s.addresses.iter().flatten());
        let address = addresses
            .filter(|a| a.type_ == "InternalIP")
            .find_map(|a| a.address.parse::<IpAddr>().ok());
        let network = node
            .spec
            .as_ref()
            .and_then(|s| s.pod_cidr.as_deref())
            .and_then(parse_network);
        if let (Some(address), Some(network)) = (address, network)
            && address != IpAddr::V4(config.address)
            && network.0 != config.pod_network()
        {
            routes.insert(network, address);
        }
    }
    routes
}

fn parse_network(cidr: &str) -> Option<(Ipv4Addr, u8)> {
    let net: ipnet::Ipv4Net = cidr.parse().ok()?;
    Some((net.network(), net.prefix_len()))
}

pub(super) async fn apply_routes(link: &Link, held: &mut NodeRoutes, wanted: NodeRoutes) {
    let gone: Vec<_> = held
        .keys()
        .filter(|n| !wanted.contains_key(n))
        .copied()
        .collect();
    for network in gone {
        match link.remove_route(network.0, network.1).await {
            Ok(()) => drop(held.remove(&network)),
            Err(error) => {
                tracing::error!(%error, cause = error_source(&error), "a route to a node that is gone stays")
            }
        }
    }
    let wanted: BTreeMap<_, _> = wanted.into_iter().collect();
    for (network, address) in wanted {
        let IpAddr::V4(gateway) = address else {
            continue;
        };
        if held.get(&network) == Some(&address) {
            continue;
        }
        match link
            .add_route(network.0, network.1, Via::Gateway(gateway), None)
            .await
        {
            Ok(()) => drop(held.insert(network, address)),
            Err(error) => {
                tracing::error!(%error, cause = error_source(&error), "pods of another node are unreachable")
            }
        }
    }
}

/// A store of all objects of a kind, and a stream that says when it changed.
fn watched<K>(client: Client) -> (reflector::Store<K>, BoxStream<'static, ()>)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(Api::<K>::all(client), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .filter_map(|event| async move {
            match event {
                // During the first listing nothing is enforced: half a list is not a state.
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
                Ok(_) => Some(()),
                Err(error) => {
                    tracing::warn!(%error, "watch interrupted; it is taken up again");
                    None
                }
            }
        })
        .boxed();
    (store, events)
}
