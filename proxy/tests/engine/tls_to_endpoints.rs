//! TLS to endpoints outside the mesh: who is believed, what is spoken inside, and that nothing is ever said in the clear.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshgate_proxy::{
    EndpointTls, EngineOptions, ListenerKind, ListenerLimits, OriginalDestination, Policy,
    Protocol, ProxyProtocol, Service, ServiceSpec, Services, Snapshot,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::kit::{
    Origin, Proxy, everything_to, field, get, ok, raw, read_message, soon, status_of, until,
};
use crate::mesh::{Mesh, Pair, strict};
use crate::tls_origin::{Ca, Inside, Shaken, TlsOrigin, policy, service, spec, verified};

const HOST: &str = "api.shop.test";
const BOTH: [&str; 2] = ["h2", "http/1.1"];

/// "200", or the status with what `Meshgate-Reason` says.
fn outcome(answer: &str) -> String {
    match field(answer, "meshgate-reason") {
        None => status_of(answer).to_string(),
        Some(reason) => format!("{} {reason}", status_of(answer)),
    }
}

#[track_caller]
fn matches(answer: &str, expected: &str, context: &str) {
    let found = outcome(answer);
    let mut parts = expected.split("..");
    let begins = found.starts_with(parts.next().unwrap_or_default());
    assert!(
        begins && parts.all(|part| found.contains(part)),
        "{context}: {found}, not {expected}"
    );
}

#[tokio::test]
async fn who_is_believed() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let leaf = ours.leaf(&[HOST, "*.wild.test", "spiffe://shop.test/api"]);
    let origin = TlsOrigin::start(&leaf, &BOTH).await;
    let address = origin.address;
    let check = async |tls: EndpointTls, expected: &str| {
        let context = format!("{tls:?}");
        let proxy = Proxy::edge(service(&[address], Protocol::Auto, policy(tls)));
        matches(&proxy.get("/").await, expected, &context);
    };
    check(verified(&[&ours], HOST, &[]), "200").await;
    check(verified(&[&theirs, &ours], HOST, &[]), "200").await;
    check(verified(&[&ours], "a.wild.test", &[]), "200").await;
    let other = "502 upstream-identity; ..not valid for name \"other.test\"";
    check(verified(&[&ours], "other.test", &[]), other).await;
    let unknown = "502 upstream-identity; ..invalid peer certificate";
    check(verified(&[&theirs], HOST, &[]), unknown).await;
    // With other names the host is only what is asked for.
    check(verified(&[&ours], "other.test", &[HOST]), "200").await;
    let uri = "spiffe://shop.test/api";
    check(verified(&[&ours], "other.test", &["x.test", uri]), "200").await;
    let none = "502 upstream-identity; ..none of the names x.test, spiffe://shop.test/b";
    check(
        verified(&[&ours], HOST, &["x.test", "spiffe://shop.test/b"]),
        none,
    )
    .await;
    let asked = origin.shaken();
    let names: Vec<_> = asked.iter().filter_map(|s| s.name.as_deref()).collect();
    assert_eq!(names[..3], [HOST, HOST, "a.wild.test"]);
    assert!(names.contains(&"other.test"), "{names:?}");
    let expired = TlsOrigin::start(&ours.leaf_until(&[HOST], 2020), &BOTH).await;
    let tls = verified(&[&ours], HOST, &[]);
    let proxy = Proxy::edge(service(&[expired.address], Protocol::Auto, policy(tls)));
    let answer = proxy.get("/").await;
    matches(
        &answer,
        "502 upstream-identity; ..certificate expired",
        "expired",
    );
    assert_eq!(expired.requests(), [""; 0]);
}

#[tokio::test]
async fn what_is_spoken_is_agreed() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    let check =
        async |protocol: Protocol, offered: &[&str], agreed: Option<&str>, expected: &str| {
            let origin = TlsOrigin::start(&leaf, offered).await;
            let tls = policy(verified(&[&ca], HOST, &[]));
            let proxy = Proxy::edge(service(&[origin.address], protocol, tls));
            let context = format!("{protocol:?} to {offered:?}");
            let answer = proxy.get("/path").await;
            matches(&answer, expected, &context);
            if expected != "200" {
                return assert_eq!(origin.requests(), [""; 0], "{context}");
            }
            assert!(answer.contains("hello"), "{answer}");
            assert_eq!(origin.shaken()[0].alpn.as_deref(), agreed, "{context}");
            let request = &origin.requests()[0];
            let expected = match agreed {
                Some("h2") => "https /path",
                _ => "GET /path HTTP/1.1\r\n",
            };
            assert!(request.starts_with(expected), "{context}: {request}");
        };
    let connect = "502 upstream-connect; ";
    check(Protocol::Auto, &BOTH, Some("http/1.1"), "200").await;
    check(Protocol::Http1, &BOTH, Some("http/1.1"), "200").await;
    check(Protocol::Http2, &BOTH, Some("h2"), "200").await;
    check(Protocol::Auto, &[], None, "200").await;
    check(Protocol::Http1, &[], None, "200").await;
    check(Protocol::Http1, &["h2"], None, connect).await;
    check(Protocol::Http2, &["http/1.1"], None, connect).await;
    check(Protocol::Http2, &[], None, "502 upstream-connect; ..HTTP/2").await;
}

/// Asks so many times, one after the other, on one connection.
async fn ask(proxy: &Proxy, path: &str, times: usize) {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    for _ in 0..times {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = soon(read_message(&mut stream, &mut Vec::new()))
            .await
            .unwrap();
        assert_eq!(status_of(&answer), 200, "{answer}");
    }
}

/// One worker: connections are its own.
fn edge(web: Service) -> Proxy {
    let options = EngineOptions {
        workers: 1,
        ..EngineOptions::default()
    };
    Proxy::edge_with(web, options, ListenerLimits::default())
}

#[tokio::test]
async fn connections_are_used_again() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let origin = TlsOrigin::start(&leaf, &BOTH).await;
        let tls = policy(verified(&[&ca], HOST, &[]));
        let proxy = edge(service(&[origin.address], protocol, tls));
        ask(&proxy, "/", 5).await;
        ask(&proxy, "/", 5).await;
        assert_eq!(origin.requests().len(), 10);
        assert_eq!(origin.shaken().len(), 1, "{protocol:?}");
    }
}

/// The service as it is from now on.
fn renew(proxy: &Proxy, spec: ServiceSpec) {
    let before = proxy.engine.snapshot();
    let web = Service::new(
        spec,
        before.services.named("shop/web:80").map(AsRef::as_ref),
    );
    proxy.engine.swap(everything_to(web, vec![]));
}

/// Whether each handshake resumed a session.
fn resumed(origin: &TlsOrigin) -> Vec<bool> {
    origin
        .shaken()
        .iter()
        .map(|shaken| shaken.resumed)
        .collect()
}

#[tokio::test]
async fn sessions_are_resumed_within_one_version_of_a_policy() {
    let (ca, more) = (Ca::new(), Ca::new());
    let origin = TlsOrigin::start(&ca.leaf(&[HOST]), &BOTH).await;
    let of = |cas: &[&Ca]| {
        let tls = policy(verified(cas, HOST, &[]));
        spec(&[origin.address], Protocol::Http1, tls)
    };
    let proxy = edge(Service::new(of(&[&ca]), None));
    ask(&proxy, "/close", 3).await;
    assert_eq!(resumed(&origin), [false, true, true]);
    // Built anew from the same words: the sessions stay.
    renew(&proxy, of(&[&ca]));
    ask(&proxy, "/close", 1).await;
    assert_eq!(resumed(&origin)[3..], [true]);
    renew(&proxy, of(&[&ca, &more]));
    ask(&proxy, "/close", 2).await;
    assert_eq!(resumed(&origin)[4..], [false, true]);
    // Nothing is known of a service that comes back.
    let again = Service::new(of(&[&ca, &more]), None);
    proxy.engine.swap(everything_to(again, vec![]));
    ask(&proxy, "/close", 1).await;
    assert_eq!(resumed(&origin)[6..], [false]);
}

#[tokio::test]
async fn what_was_proven_to_another_authority_is_not_used_again() {
    let (old, new) = (Ca::new(), Ca::new());
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let origin = TlsOrigin::start(&old.leaf(&[HOST]), &BOTH).await;
        let of = |tls: EndpointTls| spec(&[origin.address], protocol, policy(tls));
        let proxy = edge(Service::new(of(verified(&[&old], HOST, &[])), None));
        ask(&proxy, "/", 2).await;
        renew(&proxy, of(verified(&[&old, &new], HOST, &[])));
        ask(&proxy, "/", 2).await;
        assert_eq!(resumed(&origin), [false, false], "{protocol:?}");
        renew(&proxy, of(verified(&[&new], HOST, &[])));
        matches(&proxy.get("/").await, "502 upstream-identity; ", "replaced");
        let refused = EndpointTls::Refused("no authority is known".into());
        renew(&proxy, of(refused));
        let expected = "503 misconfigured; no authority is known";
        matches(&proxy.get("/").await, expected, "refused");
        assert_eq!(origin.requests().len(), 4, "{protocol:?}");
    }
}

/// A server that speaks no TLS; what it heard on each connection.
async fn plain() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let shared = heard.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = vec![0; 4096];
            let count = stream.read(&mut said).await.unwrap_or(0);
            shared.lock().unwrap().push(said[..count].to_vec());
            // Whoever is not understood may have gone.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    (address, heard)
}

#[tokio::test]
async fn nothing_is_said_in_the_clear() {
    let ca = Ca::new();
    let (plain, heard) = plain().await;
    let tls = verified(&[&ca], HOST, &[]);
    for protocol in [Protocol::Auto, Protocol::Http1, Protocol::Http2] {
        let web = service(&[plain], protocol, policy(tls.clone()));
        let proxy = Proxy::edge(web);
        let answer = proxy.get("/secret").await;
        matches(
            &answer,
            "502 upstream-connect; ..TLS handshake: received corrupt message",
            "plain",
        );
    }
    let heard = || heard.lock().unwrap().clone();
    let secret = |heard: &&Vec<u8>| heard.windows(6).any(|part| part == b"secret");
    assert_eq!(heard().iter().filter(secret).count(), 0);
    // What cannot be enforced is not even connected to.
    let connections = heard().len();
    assert!(connections > 0);
    let refused = EndpointTls::Refused("ConfigMap shop/ca does not exist".into());
    let proxy = Proxy::edge(service(&[plain], Protocol::Auto, policy(refused)));
    let expected = "503 misconfigured; ConfigMap shop/ca does not exist";
    matches(&proxy.get("/").await, expected, "refused");
    assert_eq!(heard().len(), connections);
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let ca = Ca::new();
    // Takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let policy = Policy {
        connect_timeout: Duration::from_millis(300),
        ..policy(verified(&[&ca], HOST, &[]))
    };
    let address = silent.local_addr().unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let proxy = Proxy::edge(service(&[address], protocol, policy.clone()));
        let expected = "502 upstream-connect; ..no TLS handshake within 300ms";
        matches(&proxy.get("/").await, expected, "silent");
    }
}

#[tokio::test]
async fn another_endpoint_is_asked_instead() {
    let (ca, other) = (Ca::new(), Ca::new());
    let good = TlsOrigin::start(&ca.leaf(&[HOST]), &BOTH).await;
    let unknown = TlsOrigin::start(&other.leaf(&[HOST]), &BOTH).await;
    let (plain, _) = plain().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let addresses = [unknown.address, plain, good.address];
        let tls = policy(verified(&[&ca], HOST, &[]));
        let proxy = Proxy::edge(service(&addresses, protocol, tls));
        // Two further attempts each are what the budget has for one second.
        for _ in 0..5 {
            // It need not be repeatable: nothing of it was sent.
            let answer = proxy
                .raw("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
                .await;
            matches(&answer, "200", "retried");
        }
    }
    assert_eq!(unknown.requests(), [""; 0]);
    assert_eq!(good.requests().len(), 10);
}

#[tokio::test]
async fn the_client_is_told_before_the_handshake() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    let origin = TlsOrigin::start_with(&leaf, &BOTH, Inside::Http, true).await;
    let policy = Policy {
        proxy_protocol: Some(ProxyProtocol::V1),
        ..policy(verified(&[&ca], HOST, &[]))
    };
    let proxy = Proxy::edge(service(&[origin.address], Protocol::Http1, policy));
    ask(&proxy, "/", 2).await;
    let preludes = origin.preludes();
    assert_eq!(preludes.len(), 1);
    assert!(
        preludes[0].starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "),
        "{preludes:?}"
    );
}

#[tokio::test]
async fn a_changed_protocol_goes_by_it() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    for protocol in [Protocol::Http1, Protocol::Auto] {
        let origin = TlsOrigin::start_with(&leaf, &["http/1.1"], Inside::Echo, false).await;
        let tls = policy(verified(&[&ca], HOST, &[]));
        let proxy = Proxy::edge(service(&[origin.address], protocol, tls));
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let ask = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\nSec-WebSocket-Version: 13\r\n\r\n";
        client.write_all(ask.as_bytes()).await.unwrap();
        let mut buffer = Vec::new();
        let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
        assert_eq!(status_of(&answer), 101, "{answer}");
        client.write_all(b"over there").await.unwrap();
        while buffer.len() < 10 {
            soon(client.read_buf(&mut buffer)).await.unwrap();
        }
        assert_eq!(buffer, b"over there");
    }
}

/// A sidecar that sends what goes to `cluster` to these endpoints.
fn sidecar(web: ServiceSpec) -> Proxy {
    let cluster: SocketAddr = "10.96.0.99:80".parse().unwrap();
    let kind = ListenerKind::Outbound(OriginalDestination::Fixed(cluster));
    let proxy = Proxy::start(EngineOptions::default(), [(kind, ListenerLimits::mesh())]);
    let spec = ServiceSpec {
        addresses: vec![cluster],
        ..web
    };
    proxy.engine.swap(Snapshot {
        services: Services::new([Arc::new(Service::new(spec, None))], true),
        ..Snapshot::default()
    });
    proxy
}

#[tokio::test]
async fn a_sidecar_speaks_it_for_its_application() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    let tls = || policy(verified(&[&ca], HOST, &[]));
    let origin = TlsOrigin::start(&leaf, &BOTH).await;
    let proxy = sidecar(spec(&[origin.address], Protocol::Auto, tls()));
    matches(&proxy.get("/").await, "200", "HTTP");
    // Bytes, and nothing is offered for them.
    let echo = TlsOrigin::start_with(&leaf, &[], Inside::Echo, false).await;
    let proxy = sidecar(spec(&[echo.address], Protocol::Tcp, tls()));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"some bytes").await.unwrap();
    let mut answer = [0; 10];
    soon(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"some bytes");
    let expected = Shaken {
        name: Some(HOST.into()),
        alpn: None,
        resumed: false,
    };
    assert_eq!(echo.shaken(), [expected]);
    // Where it cannot be, there is nothing.
    let refused = policy(EndpointTls::Refused("not now".into()));
    let proxy = sidecar(spec(&[echo.address], Protocol::Tcp, refused));
    assert_eq!(raw(proxy.address(), "some bytes").await, "");
    assert_eq!(echo.shaken().len(), 1);
}

#[tokio::test]
async fn what_is_cut_is_not_taken_for_the_whole() {
    let ca = Ca::new();
    let leaf = ca.leaf(&[HOST]);
    let ends = async |inside: Inside| {
        let origin = TlsOrigin::start_with(&leaf, &[], inside, false).await;
        let tls = policy(verified(&[&ca], HOST, &[]));
        let proxy = sidecar(spec(&[origin.address], Protocol::Tcp, tls));
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"some bytes").await.unwrap();
        let mut answer = [0; 10];
        soon(client.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"some bytes");
        client.shutdown().await.unwrap();
        let end = soon(client.read(&mut answer)).await;
        end.map_err(|error| error.kind())
    };
    assert_eq!(ends(Inside::Echo).await, Ok(0));
    let reset = std::io::ErrorKind::ConnectionReset;
    assert_eq!(ends(Inside::Cut).await, Err(reset));
}

#[tokio::test]
async fn an_endpoint_learns_that_a_client_broke_off() {
    let ca = Ca::new();
    let origin = TlsOrigin::start_with(&ca.leaf(&[HOST]), &[], Inside::Echo, false).await;
    let tls = policy(verified(&[&ca], HOST, &[]));
    let proxy = sidecar(spec(&[origin.address], Protocol::Tcp, tls));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"some bytes").await.unwrap();
    soon(client.read_exact(&mut [0; 10])).await.unwrap();
    assert!(!origin.broken());
    client.set_zero_linger().unwrap();
    drop(client);
    until(|| origin.broken()).await;
}

#[tokio::test]
async fn endpoints_in_the_mesh_prove_themselves_by_their_identity() {
    let origin = Origin::start(ok("hello")).await;
    let pair = Pair::start(&Mesh::new(), origin.address, "web", strict());
    let before = pair.client.engine.snapshot();
    let old = before.services.all().next().unwrap();
    for tls in [
        verified(&[&Ca::new()], HOST, &[]),
        EndpointTls::Refused("not now".into()),
    ] {
        let spec = ServiceSpec {
            name: old.name().clone(),
            protocol: old.protocol(),
            addresses: old.addresses().to_vec(),
            endpoints: old.endpoints().iter().map(|e| e.spec().clone()).collect(),
            policy: policy(tls),
        };
        pair.client.engine.swap(Snapshot {
            services: Services::new([Arc::new(Service::new(spec, Some(old)))], true),
            ..Snapshot::default()
        });
        let answer = raw(pair.client.address(), &get("/")).await;
        assert!(answer.ends_with("hello"), "{answer}");
    }
}
