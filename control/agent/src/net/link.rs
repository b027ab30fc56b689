//! Interfaces, addresses and routes of one network namespace, each step idempotent and named in its error.

use std::net::Ipv4Addr;
use std::os::fd::RawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::route::{RouteFlags, RouteScope, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::NetworkError;

pub(super) type LinkError = rtnetlink::Error;

const EEXIST: i32 = -17;
const ENODEV: i32 = -19;

/// A netlink connection into the namespace of the thread that opened it.
#[derive(Debug, Clone)]
pub(super) struct Link {
    handle: Handle,
}

/// How a route leaves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Via<'a> {
    Gateway(Ipv4Addr),
    Device(&'a str),
    /// A gateway outside every network of the device.
    OnLink(&'a str, Ipv4Addr),
    /// Nowhere: senders are told at once.
    Unreachable,
}

impl Link {
    /// Must be called in the namespace it is for. The connection's task ends with the last handle.
    pub(super) fn connect() -> Result<Link, LinkError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| LinkError::NamespaceError(e.to_string()))?;
        tokio::spawn(connection);
        Ok(Link { handle })
    }

    pub(super) async fn index(&self, name: &str) -> Result<u32, LinkError> {
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match found.try_next().await? {
            Some(link) => Ok(link.header.index),
            None => Err(LinkError::NamespaceError(format!("no interface {name}"))),
        }
    }

    pub(super) async fn up(&self, name: &str) -> Result<(), NetworkError> {
        let step = || format!("setting {name} up");
        let index = self.index(name).await.map_err(named(step))?;
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(named(step))
    }

    /// With a hardware address of its own: one borrowed from its ports would change as pods come and go, and whoever
    /// remembers the old one would be cut off.
    pub(super) async fn add_bridge(
        &self,
        name: &str,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let message = LinkBridge::new(name)
            .address(hardware_address(address))
            .build();
        present(self.handle.link().add(message).execute().await)
            .map_err(named(|| format!("adding bridge {name}")))
    }

    /// A pair of interfaces, the first for `address`; `peer` is made in the namespace behind `peer_namespace`.
    pub(super) async fn add_pair(
        &self,
        name: &str,
        address: Ipv4Addr,
        peer: &str,
        peer_namespace: RawFd,
    ) -> Result<(), NetworkError> {
        let step = || format!("adding interfaces {name} and {peer}");
        // The peer is born under a name that no interface of this namespace has, and takes its own where it goes.
        let born = format!("{}~", &name[..name.len().min(13)]);
        present(
            self.handle
                .link()
                .add(
                    LinkVeth::new(name, &born)
                        .address(hardware_address(address))
                        .build(),
                )
                .execute()
                .await,
        )
        .map_err(named(step))?;
        let Ok(index) = self.index(&born).await else {
            return Ok(()); // the pair was there before and its peer has moved
        };
        let message = LinkUnspec::new_with_index(index)
            .name(peer)
            .setns_by_fd(peer_namespace)
            .build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(named(step))
    }

    pub(super) async fn attach_to_bridge(
        &self,
        name: &str,
        bridge: &str,
    ) -> Result<(), NetworkError> {
        let step = || format!("attaching {name} to bridge {bridge}");
        let bridge = self.index(bridge).await.map_err(named(step))?;
        let index = self.index(name).await.map_err(named(step))?;
        let message = LinkUnspec::new_with_index(index)
            .controller(bridge)
            .up()
            .build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(named(step))
    }

    /// Removes an interface that may be gone already.
    pub(super) async fn remove(&self, name: &str) -> Result<(), NetworkError> {
        let Ok(index) = self.index(name).await else {
            return Ok(());
        };
        match self.handle.link().del(index).execute().await {
            Err(LinkError::NetlinkError(e)) if e.raw_code() == ENODEV => Ok(()),
            other => other.map_err(named(|| format!("removing interface {name}"))),
        }
    }

    pub(super) async fn add_address(
        &self,
        name: &str,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let step = || format!("giving {name} the address {address}/{prefix}");
        let index = self.index(name).await.map_err(named(step))?;
        present(
            self.handle
                .address()
                .add(index, address.into(), prefix)
                .execute()
                .await,
        )
        .map_err(named(step))
    }

    pub(super) async fn add_route(
        &self,
        network: Ipv4Addr,
        prefix: u8,
        via: Via<'_>,
        source: Option<Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        let step = || format!("adding the route to {network}/{prefix}");
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network, prefix);
        route = match via {
            Via::Gateway(gateway) => route.gateway(gateway),
            Via::Unreachable => route.kind(RouteType::Unreachable),
            Via::Device(name) => {
                route.output_interface(self.index(name).await.map_err(named(step))?)
            }
            Via::OnLink(name, gateway) => route
                .output_interface(self.index(name).await.map_err(named(step))?)
                .gateway(gateway),
        };
        if let Via::Device(_) = via {
            route = route.scope(RouteScope::Link);
        }
        if let Some(source) = source {
            route = route.pref_source(source);
        }
        let mut message = route.build();
        if let Via::OnLink(..) = via {
            message.header.flags |= RouteFlags::Onlink;
        }
        self.handle
            .route()
            .add(message)
            .replace()
            .execute()
            .await
            .map_err(named(step))
    }

    pub(super) async fn remove_route(
        &self,
        network: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network, prefix)
            .scope(RouteScope::NoWhere) // of any scope
            .build();
        match self.handle.route().del(route).execute().await {
            Err(LinkError::NetlinkError(e)) if e.raw_code() == -3 => Ok(()), // ESRCH: no such route
            other => other.map_err(named(|| {
                format!("removing the route to {network}/{prefix}")
            })),
        }
    }
}

fn named(step: impl Fn() -> String) -> impl Fn(LinkError) -> NetworkError {
    move |source| NetworkError::Link {
        step: step(),
        source,
    }
}

/// Locally administered, and the same for one address at all times: what neighbours remember stays true when an address
/// passes from one pod to the next.
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    vec![0x02, 0x58, a, b, c, d]
}

/// Adding what is there already is what was wanted.
fn present(result: Result<(), LinkError>) -> Result<(), LinkError> {
    match result {
        Err(LinkError::NetlinkError(e)) if e.raw_code() == EEXIST => Ok(()),
        other => other,
    }
}
