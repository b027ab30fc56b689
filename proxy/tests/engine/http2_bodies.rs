//! Bodies and tunnels over HTTP/2: large ones both ways at once, slow readers, early answers, other protocols, farewells.

use std::net::SocketAddr;
use std::time::Duration;

use meshgate_proxy::{EngineOptions, ListenerLimits, Policy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::frames::{
    DATA, END_HEADERS, HEADERS, Heard, PING, PREFACE, Peer, WHOLE, block, frame, get, post,
    settings, window,
};
use crate::kit::{Act, Origin, Proxy, endpoint, ok, service, service_of, soon, until};
use crate::mesh::{Mesh, Pair, strict};

/// An application that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// Sends bytes that are no HTTP and reads them back, both at once.
async fn there_and_back(address: SocketAddr, bytes: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let sent: Vec<u8> = (0..bytes).map(|index| (index * 31) as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut got = Vec::new();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let reading = read.read_to_end(&mut got);
    let (_, read) = tokio::join!(writing, reading);
    read.unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[tokio::test]
async fn tunnels_are_filled_both_ways_at_once() {
    let pair = Pair::start(&Mesh::new(), echo().await, "web", strict());
    let address = pair.client.address();
    let all = (0..8).map(|_| there_and_back(address, 4 << 20));
    soon(futures::future::join_all(all)).await;
    // To half-closes and back again.
    soon(there_and_back(address, 10)).await;
}

/// Those who do not read slow nobody but themselves, however many they are.
#[tokio::test]
async fn slow_readers_slow_themselves_only() {
    let pair = Pair::start(&Mesh::new(), echo().await, "web", strict());
    let address = pair.client.address();
    let mut stuck = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let full = async {
            let piece = [1; 64 * 1024];
            loop {
                stream.write_all(&piece).await.unwrap();
            }
        };
        // As much as it takes.
        let _ = tokio::time::timeout(Duration::from_millis(100), full).await;
        stuck.push(stream);
    }
    soon(there_and_back(address, 4 << 20)).await;
}

#[tokio::test]
async fn one_slow_stream_of_a_client_does_not_slow_the_others() {
    let origin = Origin::start(ok(&"x".repeat(1 << 20))).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let mut client = Peer::connect(proxy.address()).await;
    client.say(&[window(0, 1 << 30), get(1)].concat()).await;
    let mut first = 0;
    while first < 65_535 {
        match client.next().await {
            Heard::Data(1, data, false) => first += data.len(),
            Heard::Head(1, 200, ..) => {}
            other => panic!("{other:?}"),
        }
    }
    for stream in [3, 5, 7] {
        client
            .say(&[get(stream), window(stream, 1 << 20)].concat())
            .await;
        assert_eq!(client.answer(stream).await.1.len(), 1 << 20);
    }
    client.say(&window(1, 1 << 20)).await;
    let mut ended = false;
    while !ended {
        if let Heard::Data(1, data, ends) = client.next().await {
            first += data.len();
            ended = ends;
        }
    }
    assert_eq!(first, 1 << 20);
}

/// Two ends that both have much to send, and do not read before they have sent it, must not wait for each other.
#[tokio::test]
async fn a_client_that_does_not_read_is_read_still() {
    let origin = Origin::start(ok(&"x".repeat(16 << 20))).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let wide = [settings(&[(4, 0x7fff_ffff)]), window(0, 0x7f00_0000)].concat();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Peer::connect(proxy.address()).await;
        let both = [wide.clone(), get(1), get(3)].concat();
        client.say(&both).await;
        clients.push(client);
    }
    until(|| origin.seen().len() == 16).await;
    // Until nothing fits into the connections any more.
    until(|| origin.stuck() == 16).await;
    origin.always(ok("after all"));
    for client in &mut clients {
        client
            .say(&[post(5), frame(DATA, 1, 5, b"hello")].concat())
            .await;
    }
    until(|| origin.seen().len() == 24).await;
}

/// A flood of bodies whose requests are over: what came is given back to the connection, again and again.
#[tokio::test]
async fn windows_come_back_whatever_becomes_of_requests() {
    let origin = Origin::start(ok("")).await;
    let limits = ListenerLimits {
        requests_max: u32::MAX,
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let mut client = Peer::connect(proxy.address()).await;
    let mut left: i64 = 65_535;
    let mut updates = 0_i64;
    for round in 0..400 {
        let stream = 1 + 2 * round;
        let piece = vec![b'x'; 16_000];
        while left < 2 * 16_000 {
            match client.hear().await {
                Heard::Window(0, bytes) => {
                    left += i64::from(bytes);
                    updates += i64::from(bytes);
                }
                Heard::Closed => panic!("closed in round {round}"),
                _ => {}
            }
        }
        left -= 16_000 * 2;
        let end = match round % 5 {
            // The whole, given up in the middle, longer than it says.
            0 | 3 | 4 => frame(DATA, 1, stream, &piece),
            1 => [
                frame(DATA, 0, stream, &piece),
                crate::frames::reset(stream, 8),
            ]
            .concat(),
            _ => [frame(DATA, 0, stream, &piece), window(stream, 0)].concat(),
        };
        let body = [post(stream), frame(DATA, 0, stream, &piece), end].concat();
        client.say(&body).await;
    }
    assert!(updates > 400 * 32_000 - (2 << 20), "{updates}");
    let last = 801;
    client.say(&get(last)).await;
    assert_eq!(client.answer(last).await.0, 200);
}

#[tokio::test]
async fn a_client_is_told_to_send_its_body_once_somebody_wants_it() {
    let origin = Origin::start(ok("thanks")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let mut client = Peer::connect(proxy.address()).await;
    let head = block(&format!(
        "{}|expect=100-continue|content-length=5",
        crate::frames::POST
    ));
    client.say(&frame(HEADERS, END_HEADERS, 1, &head)).await;
    assert!(matches!(client.next().await, Heard::Head(1, 100, _, false)));
    client.say(&frame(DATA, 1, 1, b"hello")).await;
    assert_eq!(client.answer(1).await, (200, "thanks".into()));
    assert!(origin.seen()[0].ends_with("\r\n\r\nhello"));
}

/// The endpoint knows its answer before the body has come; the rest is not waited for.
#[tokio::test]
async fn an_early_answer_ends_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let web = service_of(vec![endpoint(address, "pod")], Policy::default(), None);
    let proxy = Proxy::edge(web);
    let mut client = Peer::connect(proxy.address()).await;
    client
        .say(&[post(1), frame(DATA, 0, 1, b"half")].concat())
        .await;
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    let mut buffer = Vec::new();
    while !buffer.ends_with(b"half\r\n") {
        soon(server.read_buf(&mut buffer)).await.unwrap();
    }
    server
        .write_all(b"HTTP/1.1 403 X\r\nContent-Length: 2\r\n\r\nno")
        .await
        .unwrap();
    assert_eq!(client.answer(1).await, (403, "no".into()));
    assert_eq!(client.next().await, Heard::Reset(1, 0));
    // The endpoint's connection is no good any more.
    assert_eq!(soon(server.read_buf(&mut buffer)).await.unwrap_or(0), 0);
    client
        .say(&[frame(DATA, 0, 1, b"late"), frame(PING, 0, 0, &[1; 8])].concat())
        .await;
    assert_eq!(client.next().await, Heard::Pong([1; 8]));
}

#[tokio::test]
async fn a_connection_says_farewell_twice() {
    let origin = Origin::start(crate::kit::Act::Hang).await;
    let options = EngineOptions {
        drain: Duration::from_secs(10),
        ..EngineOptions::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, options, ListenerLimits::default());
    let mut client = Peer::connect(proxy.address()).await;
    client.say(&get(1)).await;
    until(|| origin.seen().len() == 1).await;
    proxy.shutdown.cancel();
    assert_eq!(client.next().await, Heard::GoAway(0x7fff_ffff, 0));
    let Heard::Ping(opaque) = client.next().await else {
        panic!("no ping");
    };
    // On its way already.
    origin.always(ok("served"));
    client
        .say(&[get(3), frame(PING, 1, 0, &opaque)].concat())
        .await;
    let mut told = Vec::new();
    while !told.contains(&Heard::GoAway(3, 0)) || told.len() < 3 {
        told.push(client.next().await);
    }
    assert!(
        told.contains(&Heard::Data(3, b"served".to_vec(), true)),
        "{told:?}"
    );
    client
        .say(&[get(5), crate::frames::reset(1, 8)].concat())
        .await;
    assert_eq!(client.rest().await, []);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_connection_serves_so_many_requests() {
    let origin = Origin::start(ok("")).await;
    let limits = ListenerLimits {
        requests_max: 3,
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let mut client = Peer::connect(proxy.address()).await;
    for stream in [1, 3] {
        client.say(&get(stream)).await;
        assert_eq!(client.answer(stream).await.0, 200);
    }
    client.say(&get(5)).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(client.next().await);
    }
    assert!(told.contains(&Heard::GoAway(0x7fff_ffff, 0)), "{told:?}");
    assert!(
        told.iter()
            .any(|heard| matches!(heard, Heard::Head(5, 200, ..)))
    );
    client.say(&frame(PING, 1, 0, b"leaving!")).await;
    assert_eq!(client.rest().await, [Heard::GoAway(5, 0)]);
}

/// Messages go both ways while neither end has said its last word.
#[tokio::test]
async fn a_conversation() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = crate::ways::http2_service(listener.local_addr().unwrap());
    let proxy = Proxy::edge(web);
    let mut client = Peer::connect(proxy.address()).await;
    client.say(&post(1)).await;
    let (stream, _) = soon(listener.accept()).await.unwrap();
    let mut server = Peer::serve(stream).await;
    server.say(&settings(&[])).await;
    let id = loop {
        if let Heard::Asked(id, false) = server.next().await {
            break id;
        }
    };
    server
        .say(&frame(HEADERS, END_HEADERS, id, &block(":status=200")))
        .await;
    assert!(matches!(client.next().await, Heard::Head(1, 200, _, false)));
    for round in 0..100_u8 {
        client.say(&frame(DATA, 0, 1, &[round])).await;
        assert_eq!(server.next().await, Heard::Data(id, vec![round], false));
        server.say(&frame(DATA, 0, id, &[round, round])).await;
        assert_eq!(
            client.next().await,
            Heard::Data(1, vec![round, round], false)
        );
    }
    client.say(&frame(DATA, 1, 1, &[])).await;
    assert_eq!(server.next().await, Heard::Data(id, vec![], true));
    server
        .say(&frame(HEADERS, WHOLE, id, &block("grpc-status=0")))
        .await;
    assert_eq!(
        client.next().await,
        Heard::Trailers(1, "grpc-status=0".into())
    );
}

/// Answers that are heads alone have no window: their client is not listened to while too much of them waits, and is
/// afterwards, to the last word that it had said.
#[tokio::test]
async fn a_client_that_reads_late_gets_every_head() {
    let large = "x".repeat(15_000);
    let answer = format!("HTTP/1.1 200 OK\r\nX-Large: {large}\r\nContent-Length: 0\r\n\r\n");
    let origin = Origin::start(Act::Say(answer)).await;
    let limits = ListenerLimits {
        requests_max: u32::MAX,
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(proxy.address()).await.unwrap();
    let mut client = Peer::new(stream, false);
    client.say(&[PREFACE, &settings(&[])].concat()).await;
    let ask =
        |first: u32| -> Vec<u8> { (0..48).flat_map(|index| get(first + 2 * index)).collect() };
    client.say(&ask(1)).await;
    until(|| origin.seen().len() == 48).await;
    // A megabyte of heads waits for a client with room for a few.
    client.say(&ask(97)).await;
    for answered in 0..96 {
        let heard = client.next().await;
        assert!(
            matches!(heard, Heard::Head(_, 200, _, true)),
            "after {answered}: {heard:?}"
        );
    }
    assert_eq!(origin.seen().len(), 96);
}
