//! A sidecar's engine with its three listeners, in this process: what redirects to them and who gives them their
//! identity belongs to a pod, not to what they speak.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshgate_certs::authority::Authority;
use meshgate_certs::credential::{Credential, CurrentCredential};
use meshgate_certs::identity::{SpiffeId, TrustDomain};
use meshgate_certs::trust::{Trust, TrustBundle};
use meshgate_proxy::push::identity::WorkloadIdentity;
use meshgate_proxy::push::mesh::mesh_tls;
use meshgate_proxy::{
    EndpointSpec, Engine, EngineError, EngineOptions, Listener, ListenerKind, ListenerLimits,
    MeshTls, OriginalDestination, Policy, Protocol, Service, ServiceSpec, Services, Snapshot,
};
use meshgate_routing::WorkloadId;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::listen::listen;

/// Ends when dropped.
pub(crate) struct Sidecar {
    /// What the application sends.
    pub(crate) outbound: SocketAddr,
    /// What comes for the application in the clear.
    pub(crate) inbound: SocketAddr,
    /// What comes for it with mTLS, behind a tunnel that is a client of the mesh: who connects here need not be one.
    pub(crate) mtls: SocketAddr,
    /// What an application sends whose own sidecar speaks mTLS with this one.
    pub(crate) both: SocketAddr,
    _engines: [Running; 2],
    _tunnel: JoinSet<()>,
}

/// Of the Service; nobody listens there.
const CLUSTER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 99)), 80);

impl Sidecar {
    pub(crate) async fn start(application: SocketAddr) -> anyhow::Result<Self> {
        let mesh = Mesh::new()?;
        let engine = Engine::new(EngineOptions {
            application_address: Some(application.ip()),
            ..EngineOptions::default()
        })?;
        let server = mesh.tls("server")?;
        let identity = server.identity.clone();
        engine.set_mesh_tls(server);
        engine.swap(calls(service(application, None)));
        let kinds = [
            ListenerKind::Outbound(OriginalDestination::Fixed(CLUSTER)),
            ListenerKind::InboundPlain(OriginalDestination::Fixed(application)),
            ListenerKind::InboundMtls,
        ];
        let [outbound, inbound, mtls] = kinds.map(|kind| open(&engine, kind));
        let (outbound, inbound, mtls) = (outbound?, inbound?, mtls?);
        let caller = Engine::new(EngineOptions {
            mtls_port: mtls.port(),
            ..EngineOptions::default()
        })?;
        caller.set_mesh_tls(mesh.tls("client")?);
        caller.swap(calls(service(application, Some(identity))));
        let both = open(
            &caller,
            ListenerKind::Outbound(OriginalDestination::Fixed(CLUSTER)),
        )?;
        let (entrance, tunnel) = tunnel(mtls, mesh.tls("client")?).await?;
        Ok(Self {
            outbound,
            inbound,
            mtls: entrance,
            both,
            _engines: [engine, caller].map(Running::start),
            _tunnel: tunnel,
        })
    }
}

/// An engine that serves until it is dropped.
struct Running {
    _shutdown: DropGuard,
    _task: tokio::task::JoinHandle<Result<(), EngineError>>,
}

impl Running {
    fn start(engine: Engine) -> Self {
        let shutdown = CancellationToken::new();
        let until = shutdown.clone();
        Self {
            _shutdown: shutdown.drop_guard(),
            _task: tokio::spawn(async move { engine.run(until).await }),
        }
    }
}

fn calls(service: Service) -> Snapshot {
    Snapshot {
        services: Services::new([Arc::new(service)], true),
        ..Snapshot::default()
    }
}

/// On a free port.
fn open(engine: &Engine, kind: ListenerKind) -> anyhow::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    engine.open(Listener {
        name: kind.name().into(),
        sockets: vec![socket],
        kind,
        limits: ListenerLimits::mesh(),
        proxies: Vec::new(),
    })?;
    Ok(address)
}

/// With an identity it is reached through its sidecar.
fn service(application: SocketAddr, identity: Option<WorkloadId>) -> Service {
    let endpoint = EndpointSpec {
        address: application,
        uid: "pod".into(),
        pod: "web-0".into(),
        identity,
        terminating: false,
    };
    let spec = ServiceSpec {
        name: "shop/web:80".into(),
        protocol: Protocol::Auto,
        addresses: vec![CLUSTER],
        endpoints: vec![endpoint],
        policy: Policy::default(),
    };
    Service::new(spec, None)
}

struct Mesh {
    authority: Authority,
    domain: TrustDomain,
}

impl Mesh {
    fn new() -> anyhow::Result<Self> {
        let domain: TrustDomain = "cluster.local".parse()?;
        let authority = Authority::generate(&domain, jiff::Timestamp::now())?;
        Ok(Self { authority, domain })
    }

    fn tls(&self, account: &str) -> anyhow::Result<MeshTls> {
        let id = SpiffeId::new(&self.domain, "shop", account)?;
        let request = meshgate_certs::csr::generate(&id)?;
        let (life, now) = (Duration::from_secs(3600), jiff::Timestamp::now());
        let leaf = self.authority.sign(&request.csr_der, &id, life, now)?;
        let root = self.authority.cert_der().clone();
        let identity = WorkloadIdentity {
            id,
            credential: CurrentCredential::new(Credential::new(leaf.chain_der, request.key)?),
            trust: Trust::new(TrustBundle::from_der([root])?),
        };
        Ok(mesh_tls(&identity, &self.domain)?)
    }
}

/// Takes connections in the clear and passes their bytes on as a workload of the mesh.
async fn tunnel(to: SocketAddr, client: MeshTls) -> std::io::Result<(SocketAddr, JoinSet<()>)> {
    listen(move |stream| {
        let connector = TlsConnector::from(client.client.clone());
        // Ends with either side; who was cut off is judged by the suite.
        async move { pass(stream, to, connector).await.unwrap_or_default() }
    })
    .await
}

async fn pass(mut near: TcpStream, to: SocketAddr, connector: TlsConnector) -> std::io::Result<()> {
    let far = TcpStream::connect(to).await?;
    let mut far = connector
        .connect(ServerName::IpAddress(to.ip().into()), far)
        .await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}
