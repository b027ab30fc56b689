//! What a connection that waits for its next request holds, to the byte: whoever has many of them pays for each.
//!
//! The engine runs in a process of its own (this program again), so that nothing else is counted.
#![expect(clippy::unwrap_used, reason = "a test ends at every surprise")]

#[cfg(test)]
#[expect(dead_code, reason = "the tests of the engine use the rest of it")]
#[path = "engine/kit.rs"]
mod kit;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use meshgate_proxy::tls::{Certificates, certified_key};
use meshgate_proxy::{
    Engine, EngineOptions, Listener, ListenerKind, ListenerLimits, Policy, Snapshot, listen,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use kit::{endpoint, everything_to, service_of};

/// Counts what is allocated and not given back, by size.
struct Counting;

const SIZES: usize = 64 * 1024;
static LIVE: [AtomicI64; SIZES] = [const { AtomicI64::new(0) }; SIZES];

#[expect(
    unsafe_code,
    reason = "an allocator is: every call goes to the system's as it is"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE[layout.size().min(SIZES - 1)].fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE[layout.size().min(SIZES - 1)].fetch_sub(1, Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Where the child finds its endpoint; only a child has it.
const ENDPOINT: &str = "MESHGATE_TEST_ENDPOINT";
const CONNECTIONS: usize = 100;

/// What a client speaks in TLS 1.3.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Protocol {
    Http1,
    Http2,
}

/// About 9,350 when this was written (tables of all connections grow in steps): 4,096 are the TLS library's buffer for
/// reading, about 2,500 its state. What its C code allocates is not counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_holds_little() {
    check("an_idle_connection_holds_little", Protocol::Http1, 9_800).await;
}

/// About 9,950: the tables of header blocks and what was seen of them lately are most of the difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_http2_connection_holds_little() {
    let name = "an_idle_http2_connection_holds_little";
    check(name, Protocol::Http2, 10_400).await;
}

/// `name`: of the test, which the child runs.
async fn check(name: &str, protocol: Protocol, bytes_max: i64) {
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        return tokio::task::block_in_place(|| serve(endpoint.parse().unwrap()));
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ENDPOINT, origin().await.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = |what: &str| {
        let told = lines.find_map(|line| Some(line.unwrap().strip_prefix(what)?.to_owned()));
        told.expect("the child tells")
    };
    let address: SocketAddr = told("engine at ").parse().unwrap();
    let mut connections = Vec::new();
    // The first ones bring what is made once.
    for _ in 0..10 {
        connections.push(Connection::asked(address, protocol).await);
    }
    orders.write_all(b"count\n").unwrap();
    told("counted");
    for _ in 0..CONNECTIONS {
        connections.push(Connection::asked(address, protocol).await);
    }
    orders.write_all(b"tell\n").unwrap();
    let bytes: i64 = told("bytes ").parse().unwrap();
    let by_size = told("sizes ");
    child.kill().unwrap();
    child.wait().unwrap();
    let holds_little = bytes > 0 && bytes <= bytes_max;
    assert!(holds_little, "{protocol:?}: {bytes} bytes: {by_size}");
}

/// In the child: an engine until its parent closes. Each line is an order.
fn serve(endpoint: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let engine = Engine::new(EngineOptions::default()).unwrap();
    engine.swap(snapshot(endpoint));
    let sockets = listen::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nengine at {}", sockets[0].local_addr().unwrap()).unwrap();
    let listener = Listener {
        name: "https".into(),
        sockets,
        kind: ListenerKind::EdgeHttps,
        limits: ListenerLimits::default(),
        proxies: Vec::new(),
    };
    engine.open(listener).unwrap();
    runtime.spawn(async move { engine.run(CancellationToken::new()).await });
    let mut before = vec![0; SIZES];
    for line in std::io::stdin().lock().lines() {
        let now: Vec<i64> = LIVE.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        if line.unwrap() == "count" {
            before = now;
            writeln!(out, "counted").unwrap();
            continue;
        }
        let grown: Vec<i64> = now
            .iter()
            .zip(&before)
            .map(|(now, was)| now - was)
            .collect();
        let bytes: i64 = (0..).zip(&grown).map(|(size, count)| size * count).sum();
        writeln!(out, "bytes {}", bytes / CONNECTIONS as i64).unwrap();
        let by_size = grown.iter().enumerate();
        let shown = by_size.filter(|(_, count)| **count * 4 >= CONNECTIONS as i64);
        let shown: Vec<String> = shown
            .map(|(size, count)| format!("{size}x{}", *count as f64 / CONNECTIONS as f64))
            .collect();
        writeln!(out, "sizes {}", shown.join(" ")).unwrap();
    }
}

fn snapshot(origin: SocketAddr) -> Snapshot {
    let issued = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let key = certified_key(&issued.cert.pem(), &issued.signing_key.serialize_pem()).unwrap();
    let mut certificates = Certificates::default();
    certificates.add("a.test", key).unwrap();
    let service = service_of(vec![endpoint(origin, "pod")], Policy::default(), None);
    Snapshot {
        certificates,
        ..everything_to(service, Vec::new())
    }
}

/// An application that answers 1 KiB.
async fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    );
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                // One read brings a whole request: they are small and come one at a time.
                let mut buffer = vec![0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

/// A connection that has asked once.
#[expect(dead_code, reason = "it is held open")]
enum Connection {
    Http1(Box<TlsStream<TcpStream>>),
    Http2(SendRequest<Bytes>),
}

impl Connection {
    async fn asked(address: SocketAddr, protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 => Self::Http1(Box::new(asked_http1(address).await)),
            Protocol::Http2 => Self::Http2(asked_http2(address).await),
        }
    }
}

async fn asked_http1(address: SocketAddr) -> TlsStream<TcpStream> {
    let mut stream = connect(address, b"http/1.1").await;
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&[b'x'; 1024]) {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
    stream
}

async fn asked_http2(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = connect(address, b"h2").await;
    let (mut sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut ping = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://a.test/").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut bytes = 0;
    while let Some(data) = body.data().await {
        let length = data.unwrap().len();
        body.flow_control().release_capacity(length).unwrap();
        bytes += length;
    }
    assert_eq!(bytes, 1024);
    // What the client had to say about the answer was heard before.
    ping.ping(h2::Ping::opaque()).await.unwrap();
    sender
}

/// TLS with this protocol.
async fn connect(address: SocketAddr, protocol: &[u8]) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    stream
}

/// The certificate is made in the child; who it is of is not the question here.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
