//! TLS at the edge: the certificate by name, replaced while running; ALPN; no certificate for strangers.

use std::sync::Arc;

use libc::tcp_info;
use meshgate_proxy::tls::{Certificates, certified_key};
use meshgate_proxy::{
    EngineOptions, Listener, ListenerKind, ListenerLimits, Policy, Snapshot, listen,
};
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::frames::{PREFACE, Peer, get as ask, settings, window};
use crate::kit::{
    Origin, Proxy, everything_to, field, get, ok, read_message, say, service, soon, status_of,
    until,
};

pub(crate) struct Issued {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
    pub(crate) der: CertificateDer<'static>,
}

pub(crate) fn issue(names: &[&str]) -> Issued {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let issued = rcgen::generate_simple_self_signed(names).unwrap();
    Issued {
        chain_pem: issued.cert.pem(),
        key_pem: issued.signing_key.serialize_pem(),
        der: issued.cert.der().clone(),
    }
}

fn certificates(issued: &[(&str, &Issued)]) -> Certificates {
    let mut certificates = Certificates::default();
    for (host, issued) in issued {
        let key = certified_key(&issued.chain_pem, &issued.key_pem).unwrap();
        certificates.add(host, key).unwrap();
    }
    certificates
}

async fn connect(
    proxy: &Proxy,
    trusted: &[&Issued],
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    handshake(stream, trusted, name, alpn).await
}

async fn handshake(
    stream: TcpStream,
    trusted: &[&Issued],
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    handshake_by(rustls::ALL_VERSIONS, stream, trusted, name, alpn).await
}

async fn handshake_by(
    versions: &[&'static rustls::SupportedProtocolVersion],
    stream: TcpStream,
    trusted: &[&Issued],
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for issued in trusted {
        roots.add(issued.der.clone()).unwrap();
    }
    let mut config = trusting(roots, versions);
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn trusting(
    roots: RootCertStore,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn start(origin: &Origin, issued: &[(&str, &Issued)]) -> Proxy {
    let kinds = [(ListenerKind::EdgeHttps, ListenerLimits::default())];
    let proxy = Proxy::start(EngineOptions::default(), kinds);
    swap(&proxy, origin, issued);
    proxy
}

fn swap(proxy: &Proxy, origin: &Origin, issued: &[(&str, &Issued)]) {
    proxy.engine.swap(Snapshot {
        certificates: certificates(issued),
        ..everything_to(service(&[origin], Policy::default()), vec![])
    });
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_replaced_while_running() {
    let origin = Origin::start(ok("")).await;
    let (old, new, wild) = (issue(&["a.test"]), issue(&["a.test"]), issue(&["*.b.test"]));
    let proxy = start(&origin, &[("a.test", &old), ("*.b.test", &wild)]).await;
    assert!(connect(&proxy, &[&old], "a.test", &[]).await.is_ok());
    assert!(connect(&proxy, &[&wild], "x.b.test", &[]).await.is_ok());
    let mut kept = connect(&proxy, &[&old], "A.test", &[]).await.unwrap();
    swap(&proxy, &origin, &[("a.test", &new)]);
    assert!(connect(&proxy, &[&old], "a.test", &[]).await.is_err());
    assert!(connect(&proxy, &[&new], "a.test", &[]).await.is_ok());
    // A connection from before the change goes on.
    let answer = say(&mut kept, &get("/")).await;
    assert_eq!(status_of(&answer), 200, "{answer}");
    assert_eq!(field(&origin.seen()[0], "x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn an_unknown_name_gets_no_certificate() {
    let origin = Origin::start(ok("")).await;
    let issued = issue(&["a.test"]);
    let proxy = start(&origin, &[("a.test", &issued)]).await;
    let error = connect(&proxy, &[&issued], "c.test", &[])
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("UnrecognisedName"), "{text}");
}

#[tokio::test]
async fn a_name_with_another_certificate_is_misdirected() {
    let origin = Origin::start(ok("")).await;
    let (a, both) = (issue(&["a.test"]), issue(&["b.test", "c.test"]));
    let key = certified_key(&both.chain_pem, &both.key_pem).unwrap();
    let proxy = start(&origin, &[("a.test", &a)]).await;
    let mut certificates = certificates(&[("a.test", &a)]);
    certificates.add("b.test", key.clone()).unwrap();
    certificates.add("c.test", key).unwrap();
    proxy.engine.swap(Snapshot {
        certificates,
        ..everything_to(service(&[&origin], Policy::default()), vec![])
    });
    for (name, host, expected) in [
        ("a.test", "a.test", 200),
        ("a.test", "b.test", 421),
        ("b.test", "c.test", 200),
        ("b.test", "unknown.test", 421),
    ] {
        let mut stream = connect(&proxy, &[&a, &both], name, &[]).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = say(&mut stream, &request).await;
        assert_eq!(status_of(&answer), expected, "{name} {host}: {answer}");
    }
}

#[tokio::test]
async fn http2_by_alpn_multiplexes_and_reports_in_its_own_way() {
    let origin = Origin::start(ok("hello")).await;
    let issued = issue(&["a.test"]);
    let proxy = start(&origin, &[("a.test", &issued)]).await;
    let stream = connect(&proxy, &[&issued], "a.test", &["h2", "http/1.1"])
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut answers = Vec::new();
    for path in ["/one", "/two", "/three"] {
        let request = http::Request::builder()
            .uri(format!("https://a.test{path}"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        let mut client = client.clone().ready().await.unwrap();
        answers.push(client.send_request(request, true).unwrap().0);
    }
    for answer in answers {
        let answer = crate::kit::soon(answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(field(&seen[0], "cookie"), Some("a=1; b=2"));
    assert_eq!(field(&seen[0], "host"), Some("a.test"));
    driver.abort();
}

#[tokio::test]
async fn a_proxy_tells_the_client_before_the_handshake() {
    let origin = Origin::start(ok("")).await;
    let issued = issue(&["a.test"]);
    let proxy = start(&origin, &[("a.test", &issued)]).await;
    let sockets = listen::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let listener = Listener {
        name: "proxied".into(),
        sockets,
        kind: ListenerKind::EdgeHttps,
        limits: ListenerLimits::default(),
        proxies: vec!["127.0.0.1/32".parse().unwrap()],
    };
    proxy.engine.open(listener).unwrap();
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";
    for (to, header, expected) in [
        (address, &header[..], Some("203.0.113.7")),
        (address, b"", None),
        // Whom nobody trusts.
        (proxy.address(), header, None),
    ] {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(header).await.unwrap();
        let secure = handshake(stream, &[&issued], "a.test", &[]).await;
        assert_eq!(secure.is_ok(), expected.is_some(), "{expected:?}");
        if let Ok(mut secure) = secure {
            assert_eq!(status_of(&say(&mut secure, &get("/")).await), 200);
            let seen = origin.seen().pop().unwrap();
            assert_eq!(field(&seen, "x-forwarded-for"), expected);
        }
    }
    assert_eq!(origin.seen().len(), 1);
}

/// TLS takes bytes before they are sent: the last of them must not stay there.
#[tokio::test]
async fn a_client_that_reads_late_gets_all_by_http2() {
    let body = "x".repeat(16 << 20);
    let origin = Origin::start(ok(&body)).await;
    let issued = issue(&["a.test"]);
    let proxy = start(&origin, &[("a.test", &issued)]).await;
    for late in [false, true] {
        let stream = connect(&proxy, &[&issued], "a.test", &["h2"])
            .await
            .unwrap();
        let mut client = Peer::new(stream, false);
        let wide = [settings(&[(4, 0x7fff_ffff)]), window(0, 0x7f00_0000)].concat();
        client.say(&[PREFACE, &wide[..], &ask(1)].concat()).await;
        if late {
            until(|| origin.stuck() == 1).await;
        }
        let (status, got) = client.answer(1).await;
        assert_eq!((status, got.len()), (200, body.len()));
    }
}

sockopt_impl!(
    /// What the kernel knows of a connection.
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, tcp_info
);

/// Segments with data that came. What is sent at once comes in one, on loopback, up to half of the first window (32 KiB).
fn segments(stream: &TlsStream<TcpStream>) -> u32 {
    getsockopt(stream.get_ref().0, TcpInfo)
        .unwrap()
        .tcpi_data_segs_in
}

/// The client that has shaken hands and asked in one breath is not woken for a ticket first.
#[tokio::test]
async fn the_ticket_travels_with_the_first_answer() {
    let origin = Origin::start(ok("hello")).await;
    let issued = issue(&["a.test"]);
    let proxy = start(&origin, &[("a.test", &issued)]).await;
    // The kernel holds the end of the handshake for the request, but not for longer than 200 ms.
    for tries_left in (0..5).rev() {
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        SockRef::from(&stream).set_tcp_cork(true).unwrap();
        let mut stream = handshake(stream, &[&issued], "a.test", &[]).await.unwrap();
        let flight = segments(&stream);
        let kept = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        stream.write_all(kept).await.unwrap();
        let tcp = SockRef::from(stream.get_ref().0);
        tcp.set_tcp_cork(false).unwrap();
        soon(read_message(&mut stream, &mut Vec::new()))
            .await
            .unwrap();
        match segments(&stream) - flight {
            1 => return,
            more => assert!(tries_left > 0, "{more} segments"),
        }
    }
}

/// A packet of its own would wake the client once more.
#[tokio::test]
async fn the_end_travels_with_the_last_answer() {
    let issued = issue(&["a.test"]);
    for bytes in [0, 1024, 20 * 1024] {
        let origin = Origin::start(ok(&"x".repeat(bytes))).await;
        let proxy = start(&origin, &[("a.test", &issued)]).await;
        let mut stream = connect(&proxy, &[&issued], "a.test", &[]).await.unwrap();
        // What the handshake leaves comes before the first answer.
        let kept = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        stream.write_all(kept).await.unwrap();
        soon(read_message(&mut stream, &mut Vec::new()))
            .await
            .unwrap();
        let before = segments(&stream);
        stream.write_all(get("/").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Without an end that was said this fails.
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.len() > bytes, "{bytes} bytes");
        assert_eq!(segments(&stream) - before, 1, "{bytes} bytes");
    }
}

/// With TLS 1.2 the client waits for the end of the handshake, whoever speaks first behind it.
#[tokio::test]
async fn each_version_carries_each_protocol() {
    let origin = Origin::start(ok("")).await;
    let issued = issue(&["a.test"]);
    let proxy = start(&origin, &[("a.test", &issued)]).await;
    for version in rustls::ALL_VERSIONS {
        for protocol in ["http/1.1", "h2"] {
            let stream = TcpStream::connect(proxy.address()).await.unwrap();
            let mut stream = soon(handshake_by(
                &[version],
                stream,
                &[&issued],
                "a.test",
                &[protocol],
            ))
            .await
            .unwrap();
            let status = if protocol == "h2" {
                let mut client = Peer::new(stream, false);
                client
                    .say(&[PREFACE, &settings(&[]), &ask(1)].concat())
                    .await;
                client.answer(1).await.0
            } else {
                status_of(&say(&mut stream, &get("/")).await)
            };
            assert_eq!(status, 200, "{version:?}, {protocol}");
        }
    }
}

/// A client that comes back needs no second full handshake, whichever worker it meets.
#[tokio::test]
async fn sessions_are_resumed() {
    let origin = Origin::start(ok("")).await;
    let issued = issue(&["a.test"]);
    let proxy = start(&origin, &[("a.test", &issued)]).await;
    for version in rustls::ALL_VERSIONS {
        let mut roots = RootCertStore::empty();
        roots.add(issued.der.clone()).unwrap();
        let connector = TlsConnector::from(Arc::new(trusting(roots, &[version])));
        let mut kinds = Vec::new();
        for _ in 0..6 {
            let stream = TcpStream::connect(proxy.address()).await.unwrap();
            let name = ServerName::try_from("a.test").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
            assert_eq!(status_of(&say(&mut stream, request).await), 200);
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        }
        let first = kinds.remove(0);
        assert_eq!(first, HandshakeKind::Full, "{version:?}");
        let resumed = |kind: &HandshakeKind| *kind == HandshakeKind::Resumed;
        assert!(kinds.iter().all(resumed), "{version:?}: {kinds:?}");
    }
}
