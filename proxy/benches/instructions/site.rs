//! The engine with a site of a thousand hosts, as the comparison with other proxies has it, or as a sidecar.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use meshgate_proxy::tls::Certificates;
use meshgate_proxy::{
    EndpointSpec, Engine, EngineOptions, Listener, ListenerKind, ListenerLimits,
    OriginalDestination, Policy, Protocol, RecordFormat, Rule, Service, ServiceSpec, Services,
    Snapshot, Target,
};
use meshgate_routing::route::{HostName, HostRules, PathKind, PathMatch, RouteTable};
use tokio_util::sync::CancellationToken;

use crate::{Side, tls};

const HOSTS: usize = 1000;
/// The Service's address, as an application knows it.
const CLUSTER_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 7)), 80);

/// Serves on a port that is the first line of output, until the input ends. Records follow.
pub(crate) fn serve(
    side: Side,
    origin: SocketAddr,
    certificate: Option<&Path>,
) -> anyhow::Result<()> {
    let engine = Engine::new(EngineOptions {
        record: Some(RecordFormat::Json),
        ..EngineOptions::default()
    })?;
    engine.swap(Snapshot {
        certificates: certificate.map_or_else(|| Ok(Certificates::default()), tls::certificates)?,
        ..site(origin)?
    });
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the engine's port")?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", socket.local_addr()?)?;
    out.flush()?;
    let (kind, limits) = match side {
        Side::Edge => (ListenerKind::EdgeHttp, ListenerLimits::default()),
        Side::EdgeTls => (ListenerKind::EdgeHttps, ListenerLimits::default()),
        Side::Outbound => {
            let destination = OriginalDestination::Fixed(CLUSTER_ADDRESS);
            (ListenerKind::Outbound(destination), ListenerLimits::mesh())
        }
    };
    engine.open(Listener {
        name: "measured".into(),
        sockets: vec![socket],
        kind,
        limits,
        proxies: Vec::new(),
    })?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    std::thread::spawn(move || {
        // Its end is all that is said; failing is an end as well.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.cancel();
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(engine.run(shutdown))?;
    Ok(())
}

fn site(origin: SocketAddr) -> anyhow::Result<Snapshot> {
    let service = Service::new(
        ServiceSpec {
            name: "default/origin:80".into(),
            protocol: Protocol::Auto,
            addresses: vec![CLUSTER_ADDRESS],
            endpoints: vec![EndpointSpec {
                address: origin,
                uid: "origin".into(),
                pod: "origin".into(),
                identity: None,
                terminating: false,
            }],
            policy: Policy::default(),
        },
        None,
    );
    let hosts: anyhow::Result<Vec<_>> = (0..HOSTS)
        .map(|number| {
            let host = format!("h{number}.bench.test");
            let rule = Rule {
                target: Target::Service(service.name().clone()),
                origin: format!("ingress/default/{host}").into(),
                index: 0,
                limits: Vec::new(),
                access: None,
            };
            let path = PathMatch::new(PathKind::Prefix, "/").context("a path")?;
            Ok((
                HostName::parse(&host)?,
                Arc::new(HostRules::new([(path, rule)])),
            ))
        })
        .collect();
    Ok(Snapshot {
        generation: 1,
        routes: RouteTable::new(hosts?),
        services: Services::new([Arc::new(service)], true),
        ..Snapshot::default()
    })
}
