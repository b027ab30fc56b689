//! Transparent interception: the pod's TCP traffic passes through this process, in both directions.
//!
//! Out: what the application dials goes to [`PORT_OUTBOUND`], except to itself (`lo`), to skipped ports, and what this
//! process dials (its user, or its mark where that user does not exist). In: what arrives from outside goes to
//! [`PORT_INBOUND`], except to our own ports and to skipped ones. Packets that never leave the pod are not touched, so
//! the node's probes from inside the pod's namespace reach the application and need no hole in STRICT. UDP passes by.
//!
//! Interception is IPv4's: a way past it would be a way past STRICT and access rules, so nobody outside the pod reaches
//! it by TCP over IPv6, except on skipped ports. What the application dials over IPv6 passes by; a meshed pod refuses it,
//! and the application goes on by IPv4.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use meshgate_api::names::{
    PORT_INBOUND, PORT_METRICS, PORT_MTLS, PORT_OUTBOUND, PORT_READY, SIDECAR_MARK, SIDECAR_UID,
};
use meshgate_netfilter::{
    ChainType, Hook, Match, NetfilterError, PRIORITY_DSTNAT, PRIORITY_FILTER, Protocol, Rule,
    Table, Target,
};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::ports::PortSet;

const TABLE: &str = "meshgate";
/// Absent where the kernel has no IPv6.
const IPV6_ADDRESSES: &str = "/proc/net/if_inet6";
/// Where the check dials: TEST-NET-1 (RFC 5737), nobody's address. If it answers, we are it.
const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);
/// The answer comes from this process: longer means that no packet was redirected.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Which ports bypass the sidecar.
#[derive(Debug, Clone, Default)]
pub(crate) struct Skipped {
    /// Of this pod.
    pub(crate) inbound: PortSet,
    /// Of others.
    pub(crate) outbound: PortSet,
}

/// Puts the redirect in force in this network namespace, in place of an older one.
pub(crate) fn install(skipped: &Skipped) -> Result<(), RedirectError> {
    let own = own_addresses().map_err(RedirectError::Addresses)?;
    if own.is_empty() {
        return Err(RedirectError::NoAddress);
    }
    table(&own, skipped)
        .replace()
        .map_err(RedirectError::Netfilter)?;
    match Path::new(IPV6_ADDRESSES).exists() {
        true => closed_to_ipv6(skipped)
            .replace()
            .map_err(RedirectError::Ipv6),
        false => Ok(()),
    }
}

/// The rules for IPv6 as a value. Answers to what the application dialled itself come in.
fn closed_to_ipv6(skipped: &Skipped) -> Table {
    let tcp = |target| Rule::new(target).when(Match::Protocol(Protocol::Tcp));
    let mut table = Table::ipv6(TABLE);
    table.base_chain("input", Hook::Input, ChainType::Filter, PRIORITY_FILTER);
    let here = Match::InInterface("lo".to_owned());
    table.rule("input", tcp(Target::Return).when(here));
    let own = [PORT_METRICS, PORT_READY].map(|port| (port, port));
    for (first, last) in own.into_iter().chain(skipped.inbound.ranges()) {
        let port = Match::DestinationPort(first, last);
        table.rule("input", tcp(Target::Return).when(port));
    }
    table.rule("input", tcp(Target::RejectTcp).when(Match::TcpOpens));
    table
}

/// The rules as a value.
fn table(own: &[Ipv4Addr], skipped: &Skipped) -> Table {
    let tcp = |target| Rule::new(target).when(Match::Protocol(Protocol::Tcp));
    let pass = |first, last| tcp(Target::Return).when(Match::DestinationPort(first, last));
    let mut table = Table::new(TABLE);

    table.base_chain("output", Hook::Output, ChainType::Nat, PRIORITY_DSTNAT);
    let passed_by = [
        Match::SocketUser(SIDECAR_UID),
        Match::Mark(SIDECAR_MARK),
        Match::OutInterface("lo".to_owned()),
        Match::Destination(Ipv4Addr::LOCALHOST, 8),
    ];
    for condition in passed_by {
        table.rule("output", Rule::new(Target::Return).when(condition));
    }
    for (first, last) in skipped.outbound.ranges() {
        table.rule("output", pass(first, last));
    }
    let outbound = Target::Dnat(Ipv4Addr::LOCALHOST, PORT_OUTBOUND);
    table.rule("output", tcp(outbound));

    table.base_chain(
        "prerouting",
        Hook::Prerouting,
        ChainType::Nat,
        PRIORITY_DSTNAT,
    );
    for port in [PORT_MTLS, PORT_METRICS, PORT_READY] {
        table.rule("prerouting", pass(port, port));
    }
    for (first, last) in skipped.inbound.ranges() {
        table.rule("prerouting", pass(first, last));
    }
    for &address in own {
        let inbound = Target::Dnat(address, PORT_INBOUND);
        table.rule(
            "prerouting",
            tcp(inbound).when(Match::Destination(address, 32)),
        );
    }
    table
}

/// The pod's own addresses.
pub(crate) fn own_addresses() -> Result<Vec<Ipv4Addr>, Errno> {
    let outside = |interface: &nix::ifaddrs::InterfaceAddress| {
        interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    };
    let mut found: Vec<Ipv4Addr> = getifaddrs()?
        .filter(outside)
        .filter_map(|interface| interface.address?.as_sockaddr_in().map(|a| a.ip()))
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Proves the outbound redirect: dials nobody's address and meets itself at `listener`.
///
/// Must run before privileges are dropped: afterwards own packets pass by. Returns what the application dialled in the
/// meantime (after a restart of the sidecar it is already running); those connections are to be served.
pub(crate) async fn check(
    listener: &TcpListener,
) -> Result<Vec<(TcpStream, SocketAddr)>, RedirectError> {
    let meet = async {
        let dialled = TcpStream::connect(SocketAddr::V4(NOBODY)).await?;
        let ours = dialled.local_addr()?;
        let mut others = Vec::new();
        loop {
            let (stream, peer) = listener.accept().await?;
            if peer != ours {
                others.push((stream, peer));
                continue;
            }
            return match original_destination(&stream) {
                Ok(OriginalDestination::Redirected(found)) if found == NOBODY => Ok(others),
                Ok(other) => Err(io::Error::other(format!("met ourselves as {other:?}"))),
                Err(errno) => Err(errno.into()),
            };
        }
    };
    match timeout(CHECK_TIMEOUT, meet).await {
        Ok(met) => met.map_err(RedirectError::Check),
        Err(_) => Err(RedirectError::Check(io::ErrorKind::TimedOut.into())),
    }
}

/// Where a connection was going before the redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OriginalDestination {
    /// The address that was dialled.
    Redirected(SocketAddrV4),
    /// The listener itself was dialled: whoever did that wants nothing good.
    Direct,
}

/// Asks the kernel (`SO_ORIGINAL_DST`).
pub(crate) fn original_destination(stream: &TcpStream) -> Result<OriginalDestination, Errno> {
    let local = match nix::sys::socket::getsockname::<nix::sys::socket::SockaddrIn>(
        std::os::fd::AsRawFd::as_raw_fd(stream),
    ) {
        Ok(local) => SocketAddrV4::from(local),
        Err(errno) => return Err(errno),
    };
    match getsockopt(stream, sockopt::OriginalDst) {
        Ok(raw) => {
            let dialled = SocketAddrV4::new(
                Ipv4Addr::from_bits(u32::from_be(raw.sin_addr.s_addr)),
                u16::from_be(raw.sin_port),
            );
            Ok(if dialled == local {
                OriginalDestination::Direct
            } else {
                OriginalDestination::Redirected(dialled)
            })
        }
        // The connection is in no translation table.
        Err(Errno::ENOENT | Errno::ENOPROTOOPT) => Ok(OriginalDestination::Direct),
        Err(errno) => Err(errno),
    }
}

/// Why traffic does not pass through the sidecar.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// Its own addresses.
    #[error("cannot list this pod's addresses")]
    Addresses(#[source] Errno),
    /// None of them.
    #[error("this network namespace has no address besides loopback: nothing can be redirected")]
    NoAddress,
    /// The rules.
    #[error("cannot install the redirect (CAP_NET_ADMIN in the pod's network namespace is needed)")]
    Netfilter(#[source] NetfilterError),
    /// The rules that keep IPv6 out.
    #[error(
        "cannot close this pod to TCP over IPv6, which would pass by the sidecar (the kernel must have nf_tables for IPv6, or no IPv6)"
    )]
    Ipv6(#[source] NetfilterError),
    #[error(
        "the redirect is installed but does not work: dialling {NOBODY} must reach this process"
    )]
    Check(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::setsockopt;

    use super::*;
    use crate::testnet::{GATEWAY, TestNet, ipv6};

    #[test]
    fn skipped_ports_come_before_the_redirect() {
        let skipped = Skipped {
            inbound: "22,9000-9100".parse().unwrap(),
            outbound: "3306".parse().unwrap(),
        };
        let rules = format!("{:?}", table(&[Ipv4Addr::new(10, 244, 0, 7)], &skipped));
        let at = |needle: &str| {
            rules
                .find(needle)
                .unwrap_or_else(|| panic!("{needle} in {rules}"))
        };
        assert!(at("DestinationPort(3306, 3306)") < at("Dnat(127.0.0.1, 15001)"));
        assert!(at("SocketUser(1337)") < at("Dnat(127.0.0.1, 15001)"));
        assert!(at("DestinationPort(9000, 9100)") < at("Dnat(10.244.0.7, 15006)"));
        assert!(at("DestinationPort(15008, 15008)") < at("Dnat(10.244.0.7, 15006)"));
    }
    /// Who accepts a connection, and where it was going.
    async fn accepted(listener: &TcpListener) -> OriginalDestination {
        let (stream, _) = timeout(CHECK_TIMEOUT, listener.accept())
            .await
            .expect("a connection in time")
            .expect("a connection");
        original_destination(&stream).expect("an original destination")
    }

    #[test]
    fn outbound_traffic_meets_the_sidecar_but_its_own_does_not() {
        let net = TestNet::new();
        let (pod, own) = net.pod(2);
        let gateway = SocketAddrV4::new(GATEWAY, 7000);
        let skipped = SocketAddrV4::new(GATEWAY, 3306);
        let servers = net.gateway.run(|| async {
            let bind = async |address| {
                let listener = TcpListener::bind(SocketAddr::V4(address)).await.unwrap();
                listener.into_std().unwrap()
            };
            [bind(gateway).await, bind(skipped).await]
        });
        pod.run(|| async move {
            let outbound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT_OUTBOUND))
                .await
                .unwrap();
            let app = TcpListener::bind((own, 8080)).await.unwrap();
            let skip = Skipped {
                outbound: "3306".parse().unwrap(),
                inbound: PortSet::default(),
            };
            install(&skip).expect("the redirect");
            install(&skip).expect("the redirect again: it replaces itself");
            let others = check(&outbound).await.expect("the redirect works");
            assert!(others.is_empty());

            // The application dials out: the sidecar gets it.
            let _redirected = TcpStream::connect(SocketAddr::V4(gateway)).await.unwrap();
            assert_eq!(
                accepted(&outbound).await,
                OriginalDestination::Redirected(gateway)
            );
            // A skipped port, the sidecar's own packets and the pod's own address are left alone.
            let direct = TcpStream::connect(SocketAddr::V4(skipped)).await.unwrap();
            assert_eq!(direct.peer_addr().unwrap(), SocketAddr::V4(skipped));
            let marked = tokio::net::TcpSocket::new_v4().unwrap();
            setsockopt(&marked, sockopt::Mark, &SIDECAR_MARK).unwrap();
            let marked = marked.connect(SocketAddr::V4(gateway)).await.unwrap();
            let _to_itself = TcpStream::connect((own, 8080)).await.unwrap();
            assert_eq!(accepted(&app).await, OriginalDestination::Direct);
            // Dialling the sidecar's port itself is seen as that.
            let _direct = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT_OUTBOUND))
                .await
                .unwrap();
            assert_eq!(accepted(&outbound).await, OriginalDestination::Direct);
            drop(marked);
        });
        for server in servers {
            let (_, peer) = server.accept().expect("what bypassed the sidecar");
            assert_eq!(peer.ip(), own);
        }
    }

    #[test]
    fn inbound_traffic_meets_the_sidecar_except_on_its_own_and_skipped_ports() {
        let net = TestNet::new();
        let (pod, own) = net.pod(2);
        pod.run(|| async move {
            let bind = async |port| {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
                    .await
                    .unwrap()
            };
            let inbound = bind(PORT_INBOUND).await;
            let mtls = bind(PORT_MTLS).await;
            let skipped = bind(2222).await;
            install(&Skipped {
                inbound: "2222".parse().unwrap(),
                outbound: PortSet::default(),
            })
            .expect("the redirect");
            let dialled = tokio::task::spawn_blocking(move || {
                net.gateway.run(|| async move {
                    for port in [8080, PORT_MTLS, 2222] {
                        TcpStream::connect((own, port)).await.expect("a connection");
                    }
                });
            });
            let app = SocketAddrV4::new(own, 8080);
            assert_eq!(
                accepted(&inbound).await,
                OriginalDestination::Redirected(app)
            );
            assert_eq!(accepted(&mtls).await, OriginalDestination::Direct);
            assert_eq!(accepted(&skipped).await, OriginalDestination::Direct);
            dialled.await.expect("all connected");
        });
    }

    #[test]
    fn nobody_outside_reaches_the_pod_over_ipv6() {
        let net = TestNet::new();
        let (pod, _) = net.pod(2);
        let own = ipv6(2);
        let gateway = SocketAddr::from((ipv6(1), 7000));
        let outside = net.gateway.enter(|| std::net::TcpListener::bind(gateway));
        let outside = outside.expect("a socket outside");
        pod.run(|| async move {
            let bind = async |port| TcpListener::bind((own, port)).await.unwrap();
            let _listening = [bind(8080).await, bind(2222).await];
            let from_outside = |port| {
                let reached = net
                    .gateway
                    .enter(|| std::net::TcpStream::connect((own, port)));
                reached.map(drop).map_err(|error| error.kind())
            };
            assert_eq!(from_outside(8080), Ok(()), "before there are rules");
            let skipped = Skipped {
                inbound: "2222".parse().unwrap(),
                outbound: PortSet::default(),
            };
            install(&skipped).expect("the redirect");
            assert_eq!(from_outside(8080), Err(io::ErrorKind::ConnectionRefused));
            assert_eq!(from_outside(2222), Ok(()), "a skipped port");
            TcpStream::connect((own, 8080)).await.expect("itself");
            TcpStream::connect(gateway).await.expect("others");
        });
        outside.accept().expect("what the pod dialled");
    }

    #[test]
    fn a_missing_redirect_is_noticed() {
        let net = TestNet::new();
        // The gateway has no way to the address that is dialled, so the answer comes at once.
        net.gateway.run(|| async {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT_OUTBOUND))
                .await
                .unwrap();
            let missing = check(&listener).await.expect_err("no redirect");
            assert!(matches!(missing, RedirectError::Check(_)), "{missing:?}");
        });
    }
}
