//! The PROXY protocol: a load balancer without HTTP tells whose a connection is.

use std::net::SocketAddr;
use std::time::Duration;

use meshgate_codec::proxy_protocol::{Origin as Told, Transport, encode_v1, encode_v2};
use meshgate_proxy::{
    EngineOptions, Limits, Listener, ListenerKind, ListenerLimits, Policy, listen,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::access::{from, guard};
use crate::by_hand::{CHUNKED, post};
use crate::kit::{Origin, Proxy, field, get, ok, say, service, soon, status_of, until};

/// An engine whose second listener takes headers from `proxies`; its address.
async fn start(origin: &Origin, proxies: &str, limits: ListenerLimits) -> (Proxy, SocketAddr) {
    start_with(origin, Policy::default(), proxies, limits).await
}

async fn start_with(
    origin: &Origin,
    policy: Policy,
    proxies: &str,
    limits: ListenerLimits,
) -> (Proxy, SocketAddr) {
    let web = service(&[origin], policy);
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let sockets = listen::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let listener = Listener {
        name: "proxied".into(),
        sockets,
        kind: ListenerKind::EdgeHttp,
        limits,
        proxies: vec![proxies.parse().unwrap()],
    };
    proxy.engine.open(listener).unwrap();
    (proxy, address)
}

fn client(source: &str) -> Told {
    Told::Client {
        transport: Transport::Stream,
        source: source.parse().unwrap(),
        destination: "192.0.2.1:443".parse().unwrap(),
    }
}

fn v1(origin: &Told) -> Vec<u8> {
    let mut header = Vec::new();
    encode_v1(origin, &mut header);
    header
}

fn v2(origin: &Told) -> Vec<u8> {
    let mut header = Vec::new();
    encode_v2(origin, &mut header);
    header
}

/// With an element of so many bytes that means nothing to us.
fn v2_with_element(origin: &Told, bytes: u16) -> Vec<u8> {
    let mut header = v2(origin);
    let length = u16::from_be_bytes([header[14], header[15]]) + 3 + bytes;
    header[14..16].copy_from_slice(&length.to_be_bytes());
    header.push(0xEA);
    header.extend_from_slice(&bytes.to_be_bytes());
    header.resize(header.len() + usize::from(bytes), b'x');
    header
}

/// `header` and a request, in pieces of `piece` bytes; the answer.
async fn ask(to: SocketAddr, header: &[u8], piece: usize) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for part in header.chunks(piece) {
        // The other side may have seen enough.
        if stream.write_all(part).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    if stream.write_all(get("/").as_bytes()).await.is_ok() {
        answer = say(&mut stream, "").await;
    }
    answer
}

#[tokio::test]
async fn the_header_tells_the_client() {
    let origin = Origin::start(ok("x")).await;
    let (_proxy, address) = start(&origin, "127.0.0.0/8", ListenerLimits::default()).await;
    let (v4, v6) = (client("203.0.113.7:4711"), client("[2001:db8::7]:4711"));
    let mixed = client("[::ffff:203.0.113.9]:1");
    for (header, expected) in [
        (v1(&v4), "203.0.113.7"),
        (v2(&v4), "203.0.113.7"),
        (v1(&v6), "2001:db8::7"),
        (v2(&v6), "2001:db8::7"),
        (v2(&mixed), "203.0.113.9"),
        (v2_with_element(&v4, 3000), "203.0.113.7"),
        // The proxy's own connection, and one of which it knows nothing.
        (v2(&Told::Proxy), "127.0.0.1"),
        (v1(&Told::Untold), "127.0.0.1"),
    ] {
        for piece in [header.len(), 1, 7] {
            let answer = ask(address, &header, piece).await;
            assert_eq!(status_of(&answer), 200, "{expected}: {answer}");
            let seen = origin.seen().pop().unwrap();
            assert_eq!(field(&seen, "x-forwarded-for"), Some(expected), "{seen}");
            assert_eq!(field(&seen, "x-real-ip"), Some(expected), "{seen}");
        }
    }
}

#[tokio::test]
async fn what_is_no_header_of_a_trusted_proxy_is_closed() {
    let origin = Origin::start(ok("x")).await;
    let limits = ListenerLimits {
        handshake_timeout: Duration::from_millis(200),
        ..ListenerLimits::default()
    };
    let (_proxy, trusting) = start(&origin, "127.0.0.0/8", limits).await;
    let (_other, others) = start(&origin, "192.0.2.0/24", limits).await;
    let told = client("203.0.113.7:4711");
    let twice = [v2(&told), v1(&client("198.51.100.1:1"))].concat();
    for (what, to, header) in [
        ("none", trusting, vec![]),
        ("too large", trusting, v2_with_element(&told, 4096)),
        (
            "addresses",
            trusting,
            b"PROXY TCP4 1.2.3.4 x 1 2\r\n".to_vec(),
        ),
        ("the client's own behind it", trusting, twice),
        ("untrusted, version 1", others, v1(&told)),
        ("untrusted, version 2", others, v2(&told)),
    ] {
        let answer = ask(to, &header, header.len().max(1)).await;
        assert_eq!(answer, "", "{what}");
    }
    assert_eq!(origin.seen().len(), 0);
    // Nobody else needs one, and nobody waits for the rest of one for ever.
    assert_eq!(status_of(&ask(others, b"", 1).await), 200);
    let mut slow = TcpStream::connect(trusting).await.unwrap();
    assert_eq!(soon(say(&mut slow, "PROXY TCP4 ")).await, "");
}

#[tokio::test]
async fn limits_count_the_client_and_not_its_proxy() {
    let origin = Origin::start(ok("x")).await;
    let limits = ListenerLimits {
        connections_per_client: 1,
        ..ListenerLimits::default()
    };
    let (_proxy, address) = start(&origin, "127.0.0.0/8", limits).await;
    let held = v2(&client("203.0.113.1:1"));
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec();
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(&[held, request].concat()).await.unwrap();
    until(|| origin.seen().len() == 1).await;
    let second = v2(&client("203.0.113.1:2"));
    assert_eq!(ask(address, &second, second.len()).await, "");
    for other in ["203.0.113.2:1", "203.0.113.3:1"] {
        let header = v2(&client(other));
        let answer = ask(address, &header, header.len()).await;
        assert_eq!(status_of(&answer), 200, "{other}");
    }
    drop(first);
    soon(async { while status_of(&ask(address, &second, second.len()).await) != 200 {} }).await;
}

#[tokio::test]
async fn requests_are_counted_for_the_client_and_not_its_proxy() {
    let origin = Origin::start(ok("x")).await;
    let policy = Policy {
        limits: Limits {
            requests: 4,
            ..Policy::default().limits
        },
        ..Policy::default()
    };
    let limits = ListenerLimits::default();
    let (_proxy, address) = start_with(&origin, policy, "127.0.0.0/8", limits).await;
    let greedy = v2(&client("203.0.113.1:1"));
    let endless = [greedy.clone(), post(CHUNKED, "").into_bytes()].concat();
    let mut held = Vec::new();
    for open in 1..=3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&endless).await.unwrap();
        held.push(stream);
        until(|| origin.connections() == open).await;
    }
    let refused = ask(address, &greedy, greedy.len()).await;
    assert_eq!(status_of(&refused), 503, "{refused}");
    let other = v2(&client("203.0.113.2:1"));
    assert_eq!(status_of(&ask(address, &other, other.len()).await), 200);
}

#[tokio::test]
async fn the_client_is_permitted_and_not_its_proxy() {
    let origin = Origin::start(ok("x")).await;
    let limits = ListenerLimits::default();
    let (proxy, address) = start(&origin, "127.0.0.0/8", limits).await;
    guard(&proxy, &origin, vec![from(&["203.0.113.0/24"])]);
    for (told, expected) in [
        (client("203.0.113.7:1"), 200),
        (client("[::ffff:203.0.113.7]:1"), 200),
        (client("198.51.100.7:1"), 403),
        // The proxy's own connection.
        (Told::Proxy, 403),
    ] {
        let header = v2(&told);
        let answer = ask(address, &header, header.len()).await;
        assert_eq!(status_of(&answer), expected, "{told:?}: {answer}");
    }
    assert_eq!(origin.seen().len(), 2);
}
