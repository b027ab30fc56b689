//! Connections that the kernel redirected to a sidecar: whoever opened them does not know.

use std::io;
use std::net::SocketAddr;

use meshgate_api::names::{PORT_INBOUND, PORT_MTLS, PORT_OUTBOUND};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{Ip6tOriginalDst, OriginalDst};
use tokio::net::TcpStream;

use super::{Connection, Direction, Serving, serve_http1, serve_http2};
use crate::detect::{self, Detected, Spoken, detect};
use crate::io::Io;
use crate::listen::OriginalDestination;
use crate::service::Protocol;
use crate::tcp;

pub(super) async fn accept(
    mut connection: Connection,
    stream: TcpStream,
    source: OriginalDestination,
) -> Option<Serving> {
    let metrics = connection.shared.metrics.clone();
    let name = connection.direction.name();
    let refused = |why| {
        metrics.refused(name, why);
        None
    };
    let destination = match source {
        OriginalDestination::Fixed(address) => address,
        OriginalDestination::Kernel => match original_destination(&stream) {
            Ok(address) if address == connection.local => {
                // Not redirected but sent here: forwarding it would come back for ever.
                return refused("loop");
            }
            Ok(address) => address,
            Err(error) => {
                tracing::debug!(client = %connection.client, %error, "no original destination");
                return refused("no-destination");
            }
        },
    };
    connection.destination = Some(destination);
    let protocol = match connection.direction {
        Direction::Inbound => match inbound(&connection, destination) {
            Ok(protocol) => protocol,
            Err(why) => return refused(why),
        },
        Direction::Outbound | Direction::Edge => outbound(&connection, destination).await,
    };
    let mut io = Io::from(stream);
    if protocol == Protocol::Tcp {
        return Some(Box::pin(tcp::serve(connection, io, destination)));
    }
    let mut ahead = detect::room();
    let detected = detect(&mut io, &mut ahead, connection.limits.detect_timeout).await;
    if detected == Detected::Silent {
        let serving = tcp::serve_whoever_speaks_first(connection, io, ahead, destination);
        return Some(Box::pin(serving));
    }
    let io = io.with_ahead(ahead.freeze());
    Some(match detected {
        Detected::Spoke(Spoken::Http2) => serve_http2(connection, io),
        Detected::Spoke(Spoken::Http1) => serve_http1(connection, io),
        Detected::Gone => return None,
        // Who says nothing may have come to listen.
        _ => Box::pin(tcp::serve(connection, io, destination)),
    })
}

/// Ports of the sidecar itself; what is redirected for them was never meant for the application.
const OWN_PORTS: [u16; 3] = [PORT_OUTBOUND, PORT_INBOUND, PORT_MTLS];

/// Whether plaintext is allowed is decided when it is known what is asked: HTTP gets an answer that says why.
fn inbound(connection: &Connection, destination: SocketAddr) -> Result<Protocol, &'static str> {
    let port = destination.port();
    if OWN_PORTS.contains(&port) {
        return Err("loop");
    }
    Ok(match is_opaque(connection, port) {
        true => Protocol::Tcp,
        false => Protocol::Auto,
    })
}

/// What the destination's service speaks; the owner is asked about one that nobody knows.
async fn outbound(connection: &Connection, destination: SocketAddr) -> Protocol {
    let known = || {
        let snapshot = connection.shared.snapshot.load();
        let services = &snapshot.services;
        let service = services.at(destination).or_else(|| {
            services
                .of_endpoint(destination)
                .map(|(service, _)| service)
        });
        service.map(|service| service.protocol())
    };
    let mut protocol = known();
    if let (None, Some(owner)) = (protocol, &connection.shared.options.unknown_destination) {
        owner.ask(destination).await;
        protocol = known();
    }
    match is_opaque(connection, destination.port()) {
        true => Protocol::Tcp,
        false => protocol.unwrap_or(Protocol::Tcp),
    }
}

fn is_opaque(connection: &Connection, port: u16) -> bool {
    let ranges = &connection.shared.options.opaque_ports;
    ranges.iter().any(|range| range.contains(&port))
}

/// Where the connection was going before the kernel redirected it.
fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    if local.is_ipv4() || local.ip().to_canonical().is_ipv4() {
        let raw = getsockopt(stream, OriginalDst)?;
        let address = std::net::Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
        return Ok((address, u16::from_be(raw.sin_port)).into());
    }
    let raw = getsockopt(stream, Ip6tOriginalDst)?;
    let address = std::net::Ipv6Addr::from(raw.sin6_addr.s6_addr);
    Ok((address, u16::from_be(raw.sin6_port)).into())
}
