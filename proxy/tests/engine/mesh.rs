//! Two sidecars and an application: identity proven both ways, plaintext refused where it must be, tunnels, races.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshgate_certs::authority::Authority;
use meshgate_certs::credential::{Credential, CurrentCredential};
use meshgate_certs::identity::{SpiffeId, TrustDomain};
use meshgate_certs::trust::{Trust, TrustBundle};
use meshgate_proxy::push::identity::WorkloadIdentity;
use meshgate_proxy::push::mesh::mesh_tls;
use meshgate_proxy::snapshot::Mtls;
use meshgate_proxy::{
    EndpointSpec, EngineOptions, Limits, ListenerKind, ListenerLimits, MeshTls,
    OriginalDestination, Policy, Protocol, Service, ServiceSpec, Services, Snapshot, Workload,
};
use meshgate_routing::WorkloadId;
use meshgate_routing::permit::AccessRules;
use meshgate_routing::permit::access::{AccessFrom, AccessRule, AccessTo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::frames::{self, CANCEL, Heard, PING, Peer, frame, reset};
use crate::kit::{Act, Origin, Proxy, field, get, ok, raw, read_message, soon, status_of};

pub(crate) struct Mesh {
    authority: Authority,
    domain: TrustDomain,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        let authority = Authority::generate(&domain, jiff::Timestamp::now()).unwrap();
        Self { authority, domain }
    }

    fn tls(&self, namespace: &str, account: &str) -> MeshTls {
        let id = SpiffeId::new(&self.domain, namespace, account).unwrap();
        let request = meshgate_certs::csr::generate(&id).unwrap();
        let now = jiff::Timestamp::now();
        let ttl = Duration::from_secs(3600);
        let leaf = self
            .authority
            .sign(&request.csr_der, &id, ttl, now)
            .unwrap();
        let credential = Credential::new(leaf.chain_der, request.key).unwrap();
        let root = self.authority.cert_der().clone();
        let identity = WorkloadIdentity {
            id,
            credential: CurrentCredential::new(credential),
            trust: Trust::new(TrustBundle::from_der([root]).unwrap()),
        };
        mesh_tls(&identity, &self.domain).unwrap()
    }
}

fn id(account: &str) -> WorkloadId {
    WorkloadId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).unwrap()
}

/// A client's sidecar, a server's sidecar, and the way between them.
pub(crate) struct Pair {
    pub(crate) client: Proxy,
    pub(crate) server: Proxy,
    application: SocketAddr,
}

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl Pair {
    pub(crate) fn start(
        mesh: &Mesh,
        application: SocketAddr,
        expected: &str,
        workload: Workload,
    ) -> Self {
        let options = [EngineOptions::default(), EngineOptions::default()];
        Self::start_with(
            mesh,
            (application, Protocol::Auto),
            expected,
            workload,
            options,
        )
    }

    /// With an application whose Service says what it speaks; the client's options, and the server's.
    pub(crate) fn start_with(
        mesh: &Mesh,
        (application, protocol): (SocketAddr, Protocol),
        expected: &str,
        workload: Workload,
        [client, server]: [EngineOptions; 2],
    ) -> Self {
        let limits = ListenerLimits::mesh();
        let server = Proxy::start(
            EngineOptions {
                application_address: Some(LOOPBACK),
                ..server
            },
            [
                (ListenerKind::InboundMtls, limits),
                (
                    ListenerKind::InboundPlain(OriginalDestination::Fixed(application)),
                    limits,
                ),
            ],
        );
        server.engine.set_mesh_tls(mesh.tls("shop", "web"));
        server.engine.swap(Snapshot {
            workload,
            ..Snapshot::default()
        });
        // The Service's cluster address; nobody listens there.
        let cluster: SocketAddr = "10.96.0.99:80".parse().unwrap();
        let client = Proxy::start(
            EngineOptions {
                mtls_port: server.addresses[0].port(),
                ..client
            },
            [(
                ListenerKind::Outbound(OriginalDestination::Fixed(cluster)),
                limits,
            )],
        );
        client.engine.set_mesh_tls(mesh.tls("shop", "front"));
        let web = Service::new(
            ServiceSpec {
                name: "shop/web:80".into(),
                protocol,
                addresses: vec![cluster],
                endpoints: vec![EndpointSpec {
                    address: application,
                    uid: "pod".into(),
                    pod: "web-0".into(),
                    identity: Some(id(expected)),
                    terminating: false,
                }],
                policy: Policy::default(),
            },
            None,
        );
        client.engine.swap(Snapshot {
            services: Services::new([Arc::new(web)], true),
            ..Snapshot::default()
        });
        Self {
            client,
            server,
            application,
        }
    }
}

impl Pair {
    /// So many connections to the application's Service at once, and no more.
    fn limit_connections(&self, connections: u32) {
        let snapshot = self.client.engine.snapshot();
        let web = snapshot.services.named("shop/web:80").unwrap();
        let limits = Limits {
            connections,
            pending_timeout: Duration::from_millis(200),
            ..web.policy().limits
        };
        let spec = ServiceSpec {
            name: web.name().clone(),
            protocol: web.protocol(),
            addresses: web.addresses().to_vec(),
            endpoints: web.endpoints().iter().map(|e| e.spec().clone()).collect(),
            policy: Policy {
                limits,
                ..web.policy().clone()
            },
        };
        let limited = Service::new(spec, Some(web));
        self.client.engine.swap(Snapshot {
            services: Services::new([Arc::new(limited)], true),
            ..Snapshot::default()
        });
    }
}

pub(crate) fn strict() -> Workload {
    Workload {
        mtls: Mtls::Strict,
        ..Workload::default()
    }
}

#[tokio::test]
async fn the_application_sees_who_calls() {
    let origin = Origin::start(ok("hello")).await;
    let mesh = Mesh::new();
    let pair = Pair::start(&mesh, origin.address, "web", strict());
    let request = "GET /items?x=1 HTTP/1.1\r\nHost: web.shop\r\nX-Forwarded-Client-Cert: URI=spiffe://forged\r\nConnection: close\r\n\r\n";
    let answer = pair.client.raw(request).await;
    assert_eq!(status_of(&answer), 200, "{answer}");
    assert!(answer.ends_with("hello"));
    let seen = &origin.seen()[0];
    assert!(seen.starts_with("GET /items?x=1 HTTP/1.1\r\n"), "{seen}");
    assert_eq!(field(seen, "host"), Some("web.shop"));
    assert_eq!(
        field(seen, "x-forwarded-client-cert"),
        Some(
            "By=spiffe://cluster.local/ns/shop/sa/web;URI=spiffe://cluster.local/ns/shop/sa/front"
        )
    );
    assert_eq!(field(seen, "meshgate-dest"), None);
}

#[tokio::test]
async fn an_endpoint_that_is_someone_else_gets_nothing() {
    let origin = Origin::start(ok("")).await;
    let mesh = Mesh::new();
    let pair = Pair::start(&mesh, origin.address, "somebody-else", Workload::default());
    let answer = pair.client.get("/").await;
    assert_eq!(status_of(&answer), 502, "{answer}");
    assert!(
        field(&answer, "meshgate-reason")
            .unwrap()
            .starts_with("upstream-identity; ")
    );
    assert!(origin.seen().is_empty());
    // Another authority's certificate for the very same name.
    let pair = Pair::start(&mesh, origin.address, "web", Workload::default());
    pair.server
        .engine
        .set_mesh_tls(Mesh::new().tls("shop", "web"));
    assert_eq!(status_of(&pair.client.get("/").await), 502);
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn plaintext_is_served_or_refused_as_the_workload_says() {
    let origin = Origin::start(ok("")).await;
    let mesh = Mesh::new();
    for (workload, expected) in [(Workload::default(), 200), (strict(), 403)] {
        let pair = Pair::start(&mesh, origin.address, "web", workload);
        let answer = raw(pair.server.addresses[1], &get("/")).await;
        assert_eq!(status_of(&answer), expected, "{answer}");
    }
    // On the mTLS port plaintext is nothing at all.
    let pair = Pair::start(&mesh, origin.address, "web", Workload::default());
    let answer = raw(pair.server.addresses[0], &get("/")).await;
    assert!(!answer.starts_with("HTTP/"), "{answer}");
}

#[tokio::test]
async fn access_rules_know_peer_method_and_path() {
    let origin = Origin::start(ok("")).await;
    let mesh = Mesh::new();
    let rule = AccessRule {
        from: vec![AccessFrom {
            identities: vec![id("front").as_str().to_owned()],
            ..AccessFrom::default()
        }],
        to: vec![AccessTo {
            methods: vec!["GET".into()],
            ..AccessTo::default()
        }],
        ..AccessRule::default()
    };
    let workload = Workload {
        access: AccessRules {
            enforced: true,
            rules: vec![rule],
        },
        ..Workload::default()
    };
    let pair = Pair::start(&mesh, origin.address, "web", workload);
    assert_eq!(status_of(&pair.client.get("/").await), 200);
    let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let refused = pair.client.raw(post).await;
    assert_eq!(status_of(&refused), 403);
    assert_eq!(field(&refused, "meshgate-reason"), Some("access-denied"));
    let plain = raw(pair.server.addresses[1], &get("/")).await;
    assert_eq!(status_of(&plain), 403);
}

/// A pod that ends loses its application before its proxy: what that could not deliver goes elsewhere, gRPC as well.
#[tokio::test]
async fn what_never_reached_an_application_is_sent_again() {
    let mesh = Mesh::new();
    for kind in ["text/plain", "application/grpc"] {
        // Nobody listens there any more.
        let left = Origin::start(ok("")).await.address;
        let pair = Pair::start(&mesh, left, "web", strict());
        let post = format!(
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Type: {kind}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        );
        let answer = pair.client.raw(&post).await;
        let reason = field(&answer, "meshgate-reason").unwrap();
        assert!(reason.starts_with("upstream-connect; "), "{answer}");
        let metrics = pair.client.engine.metrics().render();
        assert!(metrics.contains("result=\"retried\""), "{kind}: {metrics}");
    }
}

/// An application that passes on another proxy's answer has seen the request.
#[tokio::test]
async fn an_application_cannot_say_that_it_was_not_reached() {
    let mesh = Mesh::new();
    let passed_on = "HTTP/1.1 502 X\r\nMeshgate-Reason: upstream-connect; db is gone\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::start(Act::Say(passed_on.into())).await;
    let pair = Pair::start(&mesh, origin.address, "web", strict());
    let post = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = pair.client.raw(post).await;
    assert_eq!(status_of(&answer), 502, "{answer}");
    assert_eq!(field(&answer, "meshgate-reason"), None, "{answer}");
    assert_eq!(origin.seen().len(), 1);
}

/// An application that speaks no HTTP: it greets first if it should, then sends everything back.
async fn talker(greeting: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(greeting.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn read_exactly(stream: &mut TcpStream, expected: &str) {
    let mut buffer = vec![0; expected.len()];
    soon(stream.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer), expected);
}

#[tokio::test]
async fn tcp_goes_through_a_tunnel_whoever_speaks_first() {
    let mesh = Mesh::new();
    for (greeting, first) in [("", "\0\u{1}binary"), ("220 ready\r\n", "")] {
        let pair = Pair::start(&mesh, talker(greeting).await, "web", strict());
        // Of which the tunnel is one, and what carries it is none.
        pair.limit_connections(1);
        let mut stream = TcpStream::connect(pair.client.address()).await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        read_exactly(&mut stream, greeting).await;
        read_exactly(&mut stream, first).await;
        stream.write_all(b"more").await.unwrap();
        read_exactly(&mut stream, "more").await;
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        soon(stream.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
    }
}

/// As `nc` does whose input is empty.
#[tokio::test]
async fn who_says_nothing_may_listen() {
    let mesh = Mesh::new();
    let pair = Pair::start(&mesh, talker("220 ready\r\n").await, "web", strict());
    let mut stream = TcpStream::connect(pair.client.address()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    soon(stream.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "220 ready\r\n");
}

#[tokio::test]
async fn a_client_that_hesitates_is_still_served_as_http() {
    let origin = Origin::start(ok("late")).await;
    let mesh = Mesh::new();
    let pair = Pair::start(&mesh, origin.address, "web", strict());
    let mut stream = TcpStream::connect(pair.client.address()).await.unwrap();
    // The tentative connection shows that the proxy no longer expects the client to speak first.
    soon(async {
        while origin.connections() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stream.write_all(get("/").as_bytes()).await.unwrap();
    let mut buffer = Vec::new();
    let answer = soon(read_message(&mut stream, &mut buffer)).await.unwrap();
    assert!(answer.ends_with("late"), "{answer}");
    assert!(field(&origin.seen()[0], "x-forwarded-client-cert").is_some());
}

#[tokio::test]
async fn a_websocket_crosses_the_mesh_with_its_identity() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let application = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = Vec::new();
        let request = read_message(&mut stream, &mut buffer).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await
            .unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        request
    });
    let mesh = Mesh::new();
    let pair = Pair::start(&mesh, address, "web", strict());
    let mut client = TcpStream::connect(pair.client.address()).await.unwrap();
    client
        .write_all(
            b"GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await
        .unwrap();
    let mut buffer = Vec::new();
    let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
    assert_eq!(status_of(&answer), 101, "{answer}");
    client.write_all(b"ping").await.unwrap();
    read_exactly(&mut client, "ping").await;
    client.shutdown().await.unwrap();
    let request = soon(application).await.unwrap();
    assert!(request.starts_with("GET /chat "));
    assert!(
        field(&request, "x-forwarded-client-cert").is_some(),
        "{request}"
    );
}

#[tokio::test]
async fn an_unknown_destination_is_passed_through() {
    let origin = Origin::start(ok("direct")).await;
    let kinds = [(
        ListenerKind::Outbound(OriginalDestination::Fixed(origin.address)),
        ListenerLimits::mesh(),
    )];
    let proxy = Proxy::start(EngineOptions::default(), kinds);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(get("/").as_bytes()).await.unwrap();
    let answer = soon(read_message(&mut client, &mut Vec::new()))
        .await
        .unwrap();
    assert!(answer.ends_with("direct"), "{answer}");
    assert_eq!(
        field(&origin.seen()[0], "x-request-id"),
        None,
        "bytes, untouched"
    );
}

#[tokio::test]
async fn requests_share_connections_between_proxies() {
    let origin = Origin::start(ok("")).await;
    let mesh = Mesh::new();
    let pair = Pair::start(&mesh, origin.address, "web", strict());
    for _ in 0..10 {
        assert_eq!(status_of(&pair.client.get("/").await), 200);
    }
    let metrics = pair.server.engine.metrics().render();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("meshgate_connections_total{listener=\"inbound-mtls\"}"))
        .unwrap();
    assert!(line.ends_with(" 1"), "{line}");
    assert_eq!(pair.application, origin.address);
}

#[tokio::test]
async fn a_denied_path_is_denied_in_every_spelling() {
    use meshgate_routing::route::{PathKind, PathMatch};
    let origin = Origin::start(ok("")).await;
    let mesh = Mesh::new();
    let rules = vec![
        AccessRule::default(),
        AccessRule {
            deny: true,
            to: vec![AccessTo {
                paths: vec![PathMatch::new(PathKind::Prefix, "/admin").unwrap()],
                ..AccessTo::default()
            }],
            ..AccessRule::default()
        },
    ];
    let workload = Workload {
        access: AccessRules {
            enforced: true,
            rules,
        },
        ..Workload::default()
    };
    let pair = Pair::start(&mesh, origin.address, "web", workload);
    for (path, expected) in [
        ("/public", 200),
        ("/admin", 403),
        ("//admin", 403),
        ("/x/../admin/y", 403),
        ("/%61dmin", 403),
        ("/./admin", 403),
        ("/admin;x/..;/admin", 400),
        ("/admin%00", 400),
    ] {
        let answer = pair.client.get(path).await;
        assert_eq!(status_of(&answer), expected, "{path}: {answer}");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn without_rules_a_path_passes_as_it_is() {
    let origin = Origin::start(ok("")).await;
    let mesh = Mesh::new();
    let pair = Pair::start(&mesh, origin.address, "web", strict());
    pair.client.get("/bucket//key/%2e?a=//b").await;
    assert!(origin.seen()[0].starts_with("GET /bucket//key/%2e?a=//b HTTP/1.1\r\n"));
}

/// Clients that give up what they asked for, none of them so often that its own connection ends: those who share the way
/// between the proxies with them keep what they have.
#[tokio::test]
async fn what_some_give_up_costs_others_nothing() {
    let origin = Origin::start(Act::Hang).await;
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun";
    origin.next([Act::Say(begun.into())]);
    let mesh = Mesh::new();
    let one = || EngineOptions {
        workers: 1,
        ..EngineOptions::default()
    };
    let application = (origin.address, Protocol::Auto);
    let pair = Pair::start_with(&mesh, application, "web", strict(), [one(), one()]);
    let mut stays = Peer::connect(pair.client.address()).await;
    stays.say(&frames::get(1)).await;
    while !matches!(stays.next().await, Heard::Data(1, ..)) {}
    for _ in 0..3 {
        let mut leaves = Peer::connect(pair.client.address()).await;
        for round in 0..30 {
            let ids = || (0..15).map(|index| 1 + 30 * round + 2 * index);
            let asked: Vec<u8> = ids().flat_map(frames::get).collect();
            let given_up: Vec<u8> = ids().flat_map(|id| reset(id, CANCEL)).collect();
            for words in [asked, given_up] {
                leaves
                    .say(&[words, frame(PING, 0, 0, &[1; 8])].concat())
                    .await;
                // So far it was heard.
                while leaves.next().await != Heard::Pong([1; 8]) {}
            }
        }
    }
    stays.say(&frame(PING, 0, 0, &[1; 8])).await;
    assert_eq!(stays.next().await, Heard::Pong([1; 8]));
    let metrics = pair.server.engine.metrics().render();
    let only = "meshgate_connections_total{listener=\"inbound-mtls\"} 1\n";
    assert!(metrics.contains(only), "{metrics}");
}
