//! The PROXY protocol towards endpoints: whom each of their connections is for, and that nobody else's words come by it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use meshgate_codec::proxy_protocol::{
    Origin as Told, Parsed, Transport, encode_v1, encode_v2, parse,
};
use meshgate_proxy::{
    EngineOptions, Limits, Listener, ListenerKind, ListenerLimits, OriginalDestination, Policy,
    Protocol, ProxyProtocol, Service, ServiceSpec, Services, Snapshot, listen,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::kit::{
    Origin as Plain, Proxy, endpoint, everything_to, field, get, ok, raw, read_message, say, soon,
    status_of, until,
};
use crate::mesh::{Mesh, Pair, strict};

/// An endpoint that wants to be told: a connection that does not begin with a header is a failure.
struct Origin {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Of each connection, in the order in which they came.
    headers: Vec<Told>,
    /// By which connection, and for what.
    requests: Vec<(usize, String)>,
    closed: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Speaks {
    Http1,
    Http2,
    /// Sends back what comes.
    Bytes,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    async fn start(speaks: Speaks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let told = take_header(&mut stream).await;
                let number = {
                    let mut state = shared.lock().unwrap();
                    state.headers.push(told);
                    state.headers.len() - 1
                };
                let state = shared.clone();
                connections.spawn(async move {
                    match speaks {
                        Speaks::Http1 => http1(stream, number, &state).await,
                        Speaks::Http2 => http2(stream, number, &state).await,
                        Speaks::Bytes => bytes(stream).await,
                    }
                    state.lock().unwrap().closed += 1;
                });
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    fn headers(&self) -> Vec<Told> {
        self.state.lock().unwrap().headers.clone()
    }

    /// Which connection each request came by.
    fn ways(&self) -> Vec<usize> {
        let state = self.state.lock().unwrap();
        state.requests.iter().map(|(number, _)| *number).collect()
    }

    fn closed(&self) -> usize {
        self.state.lock().unwrap().closed
    }
}

/// The header and not a byte more.
async fn take_header(stream: &mut TcpStream) -> Told {
    let mut header = Vec::new();
    loop {
        header.push(stream.read_u8().await.expect("a header"));
        if let Parsed::Header { consumed, origin } = parse(&header).expect("a header") {
            assert_eq!(consumed, header.len());
            return origin;
        }
    }
}

async fn http1(mut stream: TcpStream, number: usize, state: &Mutex<State>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_message(&mut stream, &mut buffer).await {
        state.lock().unwrap().requests.push((number, request));
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

async fn http2(stream: TcpStream, number: usize, state: &Mutex<State>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        state.lock().unwrap().requests.push((number, path));
        respond.send_response(Response::new(()), true).unwrap();
    }
}

async fn bytes(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

fn wanting(origin: &Origin, speaks: Speaks, policy: Policy) -> ServiceSpec {
    ServiceSpec {
        name: "shop/web:80".into(),
        protocol: match speaks {
            Speaks::Http1 => Protocol::Http1,
            Speaks::Http2 => Protocol::Http2,
            Speaks::Bytes => Protocol::Tcp,
        },
        addresses: vec![],
        endpoints: vec![endpoint(origin.address, "pod")],
        policy,
    }
}

fn told(version: ProxyProtocol) -> Policy {
    Policy {
        proxy_protocol: Some(version),
        ..Policy::default()
    }
}

fn edge(origin: &Origin, speaks: Speaks, policy: Policy) -> Proxy {
    Proxy::edge(Service::new(wanting(origin, speaks, policy), None))
}

fn from(source: SocketAddr, destination: SocketAddr) -> Told {
    Told::Client {
        transport: Transport::Stream,
        source,
        destination,
    }
}

const BOTH: [ProxyProtocol; 2] = [ProxyProtocol::V1, ProxyProtocol::V2];

/// A client that keeps its connection.
enum Client {
    Http1(TcpStream),
    Http2(SendRequest<Bytes>, SocketAddr, JoinHandle<()>),
}

impl Client {
    async fn connect(to: SocketAddr, speaks: Speaks) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        if speaks == Speaks::Http1 {
            return Self::Http1(stream);
        }
        let address = stream.local_addr().unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self::Http2(client, address, driver)
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(stream) => stream.local_addr().unwrap(),
            Self::Http2(_, address, _) => *address,
        }
    }

    async fn ask(&mut self) {
        match self {
            Self::Http1(stream) => {
                let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
                stream.write_all(request).await.unwrap();
                let answer = soon(read_message(stream, &mut Vec::new())).await.unwrap();
                assert_eq!(status_of(&answer), 200, "{answer}");
            }
            Self::Http2(client, ..) => {
                let request = Request::get("http://a.test/").body(()).unwrap();
                let mut ready = soon(client.clone().ready()).await.unwrap();
                let (answer, _) = ready.send_request(request, true).unwrap();
                assert_eq!(soon(answer).await.unwrap().status(), 200);
            }
        }
    }

    fn leave(self) {
        if let Self::Http2(_, _, driver) = self {
            driver.abort();
        }
    }
}

#[tokio::test]
async fn a_connection_is_one_clients_and_goes_with_it() {
    for version in BOTH {
        for client in [Speaks::Http1, Speaks::Http2] {
            for speaks in [Speaks::Http1, Speaks::Http2] {
                let what = format!("{version:?}, {client:?} to {speaks:?}");
                let origin = Origin::start(speaks).await;
                let proxy = edge(&origin, speaks, told(version));
                let mut first = Client::connect(proxy.address(), client).await;
                let mut second = Client::connect(proxy.address(), client).await;
                for _ in 0..2 {
                    first.ask().await;
                    second.ask().await;
                }
                let expected = [&first, &second].map(|c| from(c.address(), proxy.address()));
                assert_eq!(origin.headers(), expected, "{what}");
                assert_eq!(origin.ways(), [0, 1, 0, 1], "{what}");
                first.leave();
                until(|| origin.closed() == 1).await;
                second.ask().await;
                assert_eq!(origin.ways(), [0, 1, 0, 1, 1], "{what}");
                second.leave();
                until(|| origin.closed() == 2).await;
            }
        }
    }
}

/// An edge whose listener is at `at` and takes headers from everybody.
async fn behind_a_proxy(service: Service, at: &str) -> (Proxy, SocketAddr) {
    let proxy = Proxy::edge(service);
    let sockets = listen::bind(at.parse().unwrap(), 1).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let listener = Listener {
        name: "proxied".into(),
        sockets,
        kind: ListenerKind::EdgeHttp,
        limits: ListenerLimits::default(),
        proxies: vec!["127.0.0.0/8".parse().unwrap()],
    };
    proxy.engine.open(listener).unwrap();
    (proxy, address)
}

#[tokio::test]
async fn what_a_proxy_in_front_tells_is_told_on() {
    let client = |source: &str, to: &str| from(source.parse().unwrap(), to.parse().unwrap());
    let v4 = client("203.0.113.7:4711", "192.0.2.1:443");
    let v6 = client("[2001:db8::7]:4711", "[2001:db8::1]:443");
    let mapped = client("[::ffff:203.0.113.7]:4711", "[::ffff:192.0.2.1]:443");
    for version in BOTH {
        for (said, expected) in [(v4, v4), (v6, v6), (mapped, v4)] {
            for encode in [encode_v1, encode_v2] {
                let origin = Origin::start(Speaks::Http1).await;
                let web = wanting(&origin, Speaks::Http1, told(version));
                let (_proxy, address) =
                    behind_a_proxy(Service::new(web, None), "127.0.0.1:0").await;
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut header = Vec::new();
                encode(&said, &mut header);
                stream.write_all(&header).await.unwrap();
                let answer = say(&mut stream, &get("/")).await;
                assert_eq!(status_of(&answer), 200, "{answer}");
                assert_eq!(origin.headers(), [expected], "{version:?}: {said:?}");
            }
        }
        // Of itself it tells nothing: the connection's own addresses count.
        let origin = Origin::start(Speaks::Http1).await;
        let web = wanting(&origin, Speaks::Http1, told(version));
        let (_proxy, address) = behind_a_proxy(Service::new(web, None), "127.0.0.1:0").await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let own = from(stream.local_addr().unwrap(), address);
        let mut header = Vec::new();
        encode_v2(&Told::Proxy, &mut header);
        stream.write_all(&header).await.unwrap();
        say(&mut stream, &get("/")).await;
        assert_eq!(origin.headers(), [own]);
    }
}

#[tokio::test]
async fn clients_by_ipv6_are_told_as_such() {
    for version in BOTH {
        let origin = Origin::start(Speaks::Http1).await;
        let web = wanting(&origin, Speaks::Http1, told(version));
        let (_proxy, address) = behind_a_proxy(Service::new(web, None), "[::1]:0").await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let expected = from(stream.local_addr().unwrap(), address);
        say(&mut stream, &get("/")).await;
        assert_eq!(origin.headers(), [expected]);
    }
}

#[tokio::test]
async fn a_sidecar_tells_the_application_and_where_it_wanted_to_go() {
    for (version, speaks) in [
        (ProxyProtocol::V1, Speaks::Bytes),
        (ProxyProtocol::V2, Speaks::Bytes),
        (ProxyProtocol::V2, Speaks::Http1),
    ] {
        let origin = Origin::start(speaks).await;
        let cluster: SocketAddr = "10.96.0.99:80".parse().unwrap();
        let kind = ListenerKind::Outbound(OriginalDestination::Fixed(cluster));
        let proxy = Proxy::start(EngineOptions::default(), [(kind, ListenerLimits::mesh())]);
        let spec = ServiceSpec {
            addresses: vec![cluster],
            ..wanting(&origin, speaks, told(version))
        };
        proxy.engine.swap(Snapshot {
            services: Services::new([Arc::new(Service::new(spec, None))], true),
            ..Snapshot::default()
        });
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let expected = from(stream.local_addr().unwrap(), cluster);
        stream.write_all(get("/").as_bytes()).await.unwrap();
        let mut answer = [0; 3];
        soon(stream.read_exact(&mut answer)).await.unwrap();
        let first = if speaks == Speaks::Bytes {
            b"GET"
        } else {
            b"HTT"
        };
        assert_eq!(&answer, first);
        assert_eq!(origin.headers(), [expected], "{version:?} {speaks:?}");
    }
}

#[tokio::test]
async fn endpoints_in_the_mesh_get_none() {
    let origin = Plain::start(ok("hello")).await;
    let pair = Pair::start(&Mesh::new(), origin.address, "web", strict());
    let before = pair.client.engine.snapshot();
    let old = before.services.all().next().unwrap();
    let spec = ServiceSpec {
        name: old.name().clone(),
        protocol: old.protocol(),
        addresses: old.addresses().to_vec(),
        endpoints: old.endpoints().iter().map(|e| e.spec().clone()).collect(),
        policy: told(ProxyProtocol::V2),
    };
    pair.client.engine.swap(Snapshot {
        services: Services::new([Arc::new(Service::new(spec, None))], true),
        ..Snapshot::default()
    });
    let answer = pair.client.get("/").await;
    assert!(answer.ends_with("hello"), "{answer}");
    assert!(origin.seen()[0].starts_with("GET / "));
}

#[tokio::test]
async fn what_was_made_before_the_policy_is_not_used_after_it() {
    let plain = Plain::start(ok("")).await;
    let spec = |policy| ServiceSpec {
        name: "shop/web:80".into(),
        protocol: Protocol::Http1,
        addresses: vec![],
        endpoints: vec![endpoint(plain.address, "pod")],
        policy,
    };
    let before = Service::new(spec(Policy::default()), None);
    let after = Service::new(spec(told(ProxyProtocol::V1)), Some(&before));
    let again = Service::new(spec(Policy::default()), Some(&after));
    let proxy = Proxy::edge(before);
    raw(proxy.address(), &get("/")).await;
    proxy.engine.swap(everything_to(after, Vec::new()));
    raw(proxy.address(), &get("/")).await;
    proxy.engine.swap(everything_to(again, Vec::new()));
    raw(proxy.address(), &get("/")).await;
    // The origin knows nothing of headers: the line is the beginning of the second request to it.
    let seen = plain.seen();
    let begins: Vec<&str> = seen.iter().map(|request| &request[..5]).collect();
    assert_eq!(begins, ["GET /", "PROXY", "GET /"]);
    assert_eq!(field(&seen[0], "host"), Some("a.test"));
    assert_eq!(plain.connections(), 2);
}

#[tokio::test]
async fn connections_that_wait_for_one_client_make_room_for_another() {
    let origin = Origin::start(Speaks::Http1).await;
    let policy = Policy {
        limits: Limits {
            connections: 1,
            ..Policy::default().limits
        },
        ..told(ProxyProtocol::V2)
    };
    let proxy = edge(&origin, Speaks::Http1, policy);
    let mut first = Client::connect(proxy.address(), Speaks::Http1).await;
    let mut second = Client::connect(proxy.address(), Speaks::Http1).await;
    for _ in 0..2 {
        first.ask().await;
        second.ask().await;
    }
    assert_eq!(origin.ways(), [0, 1, 2, 3]);
}
