//! Connections that the kernel redirected to a sidecar: whoever opened them does not know.

use std::io;
use std::net::SocketAddr;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{Ip6tOriginalDst, OriginalDst};
use tokio::net::TcpStream;

use super::http::{serve_http1, serve_http2};
use super::{Connection, Direction};
use crate::detect::{Detected, Spoken, detect};
use crate::io::Io;
use crate::listen::OriginalDestination;
use crate::service::Protocol;
use crate::snapshot::Mtls;
use crate::tcp;

pub(super) async fn serve(
    mut connection: Connection,
    stream: TcpStream,
    source: OriginalDestination,
) {
    let metrics = connection.shared.metrics.clone();
    let name = connection.direction.name();
    let destination = match source {
        OriginalDestination::Fixed(address) => address,
        OriginalDestination::Kernel => match original_destination(&stream) {
            Ok(address) if address == connection.local => {
                // Not redirected but sent here: forwarding it would come back for ever.
                return metrics.refused(name, "loop");
            }
            Ok(address) => address,
            Err(error) => {
                tracing::debug!(client = %connection.client, %error, "no original destination");
                return metrics.refused(name, "no-destination");
            }
        },
    };
    connection.destination = Some(destination);
    let snapshot = connection.shared.snapshot.load_full();
    let protocol = match connection.direction {
        Direction::Inbound => {
            if snapshot.workload.mtls(destination.port()) == Mtls::Strict {
                return metrics.refused(name, "mtls-required");
            }
            Protocol::Auto
        }
        Direction::Outbound | Direction::Edge => snapshot
            .services
            .at(destination)
            .or_else(|| Some(snapshot.services.of_endpoint(destination)?.0))
            .map_or(Protocol::Tcp, |service| service.protocol()),
    };
    drop(snapshot);
    let mut io = Io::from(stream);
    if protocol == Protocol::Tcp {
        return tcp::serve(connection, io, destination).await;
    }
    match detect(&mut io, connection.limits.detect_timeout).await {
        Detected::Spoke(Spoken::Http2, ahead) => serve_http2(connection, io.with_ahead(ahead)).await,
        Detected::Spoke(Spoken::Http1, ahead) => serve_http1(connection, io.with_ahead(ahead)).await,
        Detected::Spoke(Spoken::Tls | Spoken::Tcp, ahead) => {
            tcp::serve(connection, io.with_ahead(ahead), destination).await;
        }
        Detected::Silent(ahead) => {
            tcp::serve_whoever_speaks_first(connection, io, ahead, destination).await;
        }
        Detected::Gone => {}
    }
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
