//! Origins that break HTTP/2's rules, go away or take little at once: nothing is shown as whole that is not, and no request
//! is lost or sent twice without need.

use std::net::SocketAddr;

use meshgate_proxy::EngineOptions;
use meshgate_proxy::ListenerLimits;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::frames::{
    DATA, END_HEADERS, HEADERS, Heard, PING, PUSH_PROMISE, Peer, REFUSED_STREAM, WHOLE, block,
    frame, get, go_away, post, reset, settings, window,
};
use crate::kit::{Proxy, final_answer, message_length, raw, soon, status_of};
use crate::ways::http2_service;

/// An origin whose connections a test handles by itself, and the edge in front of it.
struct Endpoint {
    listener: TcpListener,
    proxy: Proxy,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = http2_service(listener.local_addr().unwrap());
        let options = EngineOptions {
            workers: 1,
            ..EngineOptions::default()
        };
        let proxy = Proxy::edge_with(web, options, ListenerLimits::default());
        Self { listener, proxy }
    }

    fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        Peer::serve(stream).await
    }

    /// A client of its own asks; its answer.
    fn ask(&self) -> JoinHandle<String> {
        let address = self.address();
        tokio::spawn(async move { raw(address, &crate::kit::get("/")).await })
    }
}

async fn asked(server: &mut Peer) -> u32 {
    loop {
        match server.next().await {
            Heard::Asked(stream, _) => return stream,
            Heard::Closed => panic!("closed"),
            _ => {}
        }
    }
}

fn answer(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &block(":status=200"))
}

/// What the client gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gets {
    Refused,
    Cut,
    Whole,
}
use Gets::{Cut, Refused, Whole};

fn head(text: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &block(text))
}

fn end(text: &str) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(text))
}

fn data(text: &str, ends: bool) -> Vec<u8> {
    frame(DATA, u8::from(ends), 1, text.as_bytes())
}

async fn check(name: &str, frames: &[Vec<u8>], closes: bool, expected: Gets) {
    for http2 in [false, true] {
        let context = format!("{name}, HTTP/2: {http2}");
        let endpoint = Endpoint::start().await;
        let address = endpoint.address();
        let client = tokio::spawn(async move {
            match http2 {
                true => gets_http2(address).await,
                false => gets_http1(address).await,
            }
        });
        let mut server = endpoint.accept().await;
        server.say(&settings(&[])).await;
        assert_eq!(asked(&mut server).await, 1, "{context}");
        server.say(&frames.concat()).await;
        if closes {
            drop(server);
        } else {
            tokio::spawn(async move { server.rest().await });
        }
        let got = soon(client).await.unwrap();
        assert_eq!(got, expected, "{context}");
    }
}

async fn gets_http1(address: SocketAddr) -> Gets {
    let answer = raw(address, &crate::kit::get("/")).await;
    let answer = final_answer(&answer);
    match (status_of(answer), message_length(answer.as_bytes())) {
        (502, _) => Refused,
        (_, Some(length)) if length == answer.len() => Whole,
        (_, Some(_)) => panic!("bytes after the end: {answer}"),
        (_, None) => Cut,
    }
}

async fn gets_http2(address: SocketAddr) -> Gets {
    let mut client = Peer::connect(address).await;
    client.say(&get(1)).await;
    loop {
        match client.next().await {
            Heard::Head(1, 502, ..) => return Refused,
            Heard::Head(1, _, _, true) | Heard::Data(1, _, true) | Heard::Trailers(..) => {
                return Whole;
            }
            Heard::Reset(1, _) => return Cut,
            Heard::Closed => panic!("closed"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    let ok = ":status=200";
    let hello = ":status=200|content-length=5";
    check("whole", &[head(hello), data("hello", true)], false, Whole).await;
    let early = frame(HEADERS, END_HEADERS, 1, &block(":status=103|link=x"));
    let all = [
        early.clone(),
        head(ok),
        data("hello", false),
        end("x-sum=1"),
    ];
    check("with all there is", &all, false, Whole).await;
    check("DATA first", &[data("x", true)], false, Refused).await;
    for text in [
        "x=1",
        ":status=20",
        ":status=99",
        ":status=101",
        ":status=+20",
        ":status=abc",
        ":status=200|:status=200",
        ":status=200|:path=/",
        "x=1|:status=200",
        ":status=200|X=1",
        ":status=200|connection=close",
        ":status=200|transfer-encoding=chunked",
        ":status=200|x=a\nb",
        ":status=200|content-length=1",
        ":status=200|content-length=0|content-length=0",
        ":status=103",
    ] {
        check(text, &[end(text)], false, Refused).await;
    }
    check("many interims", &vec![early; 17], false, Refused).await;
    let nothing = end(":status=204|content-length=5");
    check("a length of nothing", &[nothing], false, Whole).await;
    let push = frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]);
    check("a push", &[push], false, Refused).await;
    check(
        "a second head",
        &[head(ok), data("x", false), end(ok)],
        false,
        Cut,
    )
    .await;
    check("longer", &[head(hello), data("hello!", false)], false, Cut).await;
    check("shorter", &[head(hello), data("hell", true)], false, Cut).await;
    let trailers = [head(ok), data("x", false), end(":status=200")];
    check("pseudo-fields in trailers", &trailers, false, Cut).await;
    check(
        "reset",
        &[head(ok), data("x", false), reset(1, 2)],
        false,
        Cut,
    )
    .await;
    check(
        "reset without error",
        &[head(ok), data("x", false), reset(1, 0)],
        false,
        Cut,
    )
    .await;
    check("closed", &[head(ok), data("x", false)], true, Cut).await;
    check(
        "closed after a length",
        &[head(hello), data("hell", false)],
        true,
        Cut,
    )
    .await;
    let leaves = [head(ok), data("x", false), go_away(1, 2)];
    check("going away", &leaves, true, Cut).await;
    let unopened = frame(HEADERS, WHOLE, 3, &block(ok));
    check("a stream nobody opened", &[unopened], false, Refused).await;
    check(
        "an even stream",
        &[frame(HEADERS, WHOLE, 2, &block(ok))],
        false,
        Refused,
    )
    .await;
}

#[tokio::test]
async fn whoever_does_not_say_settings_says_nothing() {
    let endpoint = Endpoint::start().await;
    let client = endpoint.ask();
    let mut server = endpoint.accept().await;
    let stream = asked(&mut server).await;
    server.say(&answer(stream)).await;
    assert_eq!(status_of(&soon(client).await.unwrap()), 502);
    let rest = server.rest().await;
    assert_eq!(rest, [Heard::GoAway(0, 1)]);
}

#[tokio::test]
async fn what_was_not_looked_at_is_asked_again() {
    for words in [go_away(0, 0), reset(1, REFUSED_STREAM)] {
        let endpoint = Endpoint::start().await;
        let client = endpoint.ask();
        let mut first = endpoint.accept().await;
        first.say(&settings(&[])).await;
        assert_eq!(asked(&mut first).await, 1);
        first.say(&words).await;
        if words == go_away(0, 0) {
            // No further request there.
            let mut second = endpoint.accept().await;
            second.say(&settings(&[])).await;
            let stream = asked(&mut second).await;
            second.say(&answer(stream)).await;
            assert_eq!(status_of(&soon(client).await.unwrap()), 200);
        } else {
            let stream = asked(&mut first).await;
            first.say(&answer(stream)).await;
            assert_eq!(status_of(&soon(client).await.unwrap()), 200);
        }
    }
}

#[tokio::test]
async fn what_was_looked_at_is_finished_and_never_asked_again() {
    // Answered after the word.
    let endpoint = Endpoint::start().await;
    let client = endpoint.ask();
    let mut server = endpoint.accept().await;
    server.say(&settings(&[])).await;
    let stream = asked(&mut server).await;
    server
        .say(&[go_away(0x7fff_ffff, 0), go_away(stream, 0), answer(stream)].concat())
        .await;
    assert_eq!(status_of(&soon(client).await.unwrap()), 200);
    // Not answered at all.
    let client = endpoint.ask();
    let mut server = endpoint.accept().await;
    server.say(&settings(&[])).await;
    let stream = asked(&mut server).await;
    server.say(&go_away(stream, 0)).await;
    drop(server);
    assert_eq!(status_of(&soon(client).await.unwrap()), 502);
    let again = tokio::time::timeout(
        std::time::Duration::from_millis(300),
        endpoint.listener.accept(),
    );
    assert!(again.await.is_err(), "asked again");
}

#[tokio::test]
async fn an_idle_connection_that_goes_away_is_closed_and_not_used() {
    let endpoint = Endpoint::start().await;
    for _ in 0..3 {
        let client = endpoint.ask();
        let mut server = endpoint.accept().await;
        server.say(&settings(&[])).await;
        let stream = asked(&mut server).await;
        server.say(&answer(stream)).await;
        assert_eq!(status_of(&soon(client).await.unwrap()), 200);
        server
            .say(&[go_away(stream, 0), frame(PING, 0, 0, &[1; 8])].concat())
            .await;
        while server.next().await != Heard::Pong([1; 8]) {}
    }
    // The socket of one that broke the rules is closed at once, though nobody needs it.
    let client = endpoint.ask();
    let mut server = endpoint.accept().await;
    server.say(&settings(&[])).await;
    let stream = asked(&mut server).await;
    server.say(&answer(stream)).await;
    assert_eq!(status_of(&soon(client).await.unwrap()), 200);
    server.say(&frame(DATA, 0, 99, b"x")).await;
    assert_eq!(server.rest().await.last(), Some(&Heard::GoAway(0, 1)));
}

/// However few streams an endpoint takes, no request is lost: others wait, or get connections of their own.
#[tokio::test]
async fn an_endpoint_that_takes_one_request_at_once_gets_one() {
    let endpoint = Endpoint::start().await;
    let clients: Vec<_> = (0..20).map(|_| endpoint.ask()).collect();
    let listener = endpoint.listener;
    let origin = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve_one_at_once(stream));
        }
    });
    for client in clients {
        let answer = soon(client).await.unwrap();
        assert_eq!(status_of(&answer), 200, "{answer}");
    }
    origin.abort();
}

async fn serve_one_at_once(stream: TcpStream) {
    let mut server = Peer::serve(stream).await;
    // Its word takes a while.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    server.say(&settings(&[(3, 1)])).await;
    let mut open = 0;
    loop {
        let heard = if open == 0 {
            server.next().await
        } else {
            let waiting = std::time::Duration::from_millis(20);
            match tokio::time::timeout(waiting, server.next()).await {
                Ok(heard) => heard,
                Err(_) => {
                    server.say(&answer(open)).await;
                    open = 0;
                    continue;
                }
            }
        };
        match heard {
            Heard::Asked(stream, _) if open == 0 => open = stream,
            // A second one, which nobody may have sent.
            Heard::Asked(..) => return,
            Heard::Closed => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn windows_that_change_meanwhile_are_kept() {
    let endpoint = Endpoint::start().await;
    let mut client = Peer::connect(endpoint.address()).await;
    let body = vec![b'x'; 100];
    client
        .say(&[post(1), frame(DATA, 1, 1, &body)].concat())
        .await;
    let mut server = endpoint.accept().await;
    server.say(&settings(&[(4, 10)])).await;
    let stream = asked(&mut server).await;
    // What went before the word arrived.
    let mut got = 0;
    server.say(&frame(PING, 0, 0, &[1; 8])).await;
    let mut ended = false;
    loop {
        match server.next().await {
            Heard::Data(_, data, ends) => {
                got += data.len();
                ended |= ends;
            }
            Heard::Pong(_) => break,
            _ => {}
        }
    }
    if !ended {
        assert!(got <= 10, "{got}");
        // Below zero, then to zero, then a little above.
        server
            .say(&[settings(&[(4, 0)]), window(stream, got as u32)].concat())
            .await;
        server.say(&window(stream, 5)).await;
        while got < 15 {
            if let Heard::Data(_, data, false) = server.next().await {
                got += data.len();
            }
        }
        assert_eq!(got, 15);
        server.say(&window(stream, 1000)).await;
        while !ended {
            if let Heard::Data(_, data, ends) = server.next().await {
                got += data.len();
                ended = ends;
            }
        }
        assert_eq!(got, 100);
    }
    server.say(&answer(stream)).await;
    assert_eq!(client.answer(1).await.0, 200);
}

/// A client that leaves takes its request with it.
#[tokio::test]
async fn given_up_requests_are_reset_at_the_origin() {
    let endpoint = Endpoint::start().await;
    let mut client = Peer::connect(endpoint.address()).await;
    client.say(&post(1)).await;
    let mut server = endpoint.accept().await;
    server.say(&settings(&[])).await;
    let stream = asked(&mut server).await;
    server.say(&head(":status=200")).await;
    while !matches!(client.next().await, Heard::Head(1, 200, ..)) {}
    client.say(&reset(1, 8)).await;
    loop {
        match server.next().await {
            Heard::Reset(id, code) => break assert_eq!((id, code), (stream, 8)),
            Heard::Closed => panic!("closed"),
            _ => {}
        }
    }
    // The connection lives on.
    client.say(&get(3)).await;
    let stream = asked(&mut server).await;
    server.say(&answer(stream)).await;
    assert_eq!(client.answer(3).await.0, 200);
}

/// The bytes of another protocol are no request, and an answer would be none in it.
#[tokio::test]
async fn another_protocol_gets_no_answer() {
    let endpoint = Endpoint::start().await;
    let mut client = TcpStream::connect(endpoint.address()).await.unwrap();
    let words = b"INVALID CONNECTION PREFACE\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut client, words)
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = soon(client.read_to_end(&mut answer)).await;
    assert_eq!(String::from_utf8_lossy(&answer), "");
}

/// An origin may say a length of what has no body (RFC 9113 §8.1.1). Its client, which may take that at its word, is not
/// told.
#[tokio::test]
async fn a_length_of_nothing_is_not_passed_on() {
    let endpoint = Endpoint::start().await;
    let mut client = Peer::connect(endpoint.address()).await;
    client.say(&get(1)).await;
    let mut server = endpoint.accept().await;
    server.say(&settings(&[])).await;
    let stream = asked(&mut server).await;
    server.say(&end(":status=204|content-length=5")).await;
    assert_eq!(stream, 1);
    let heard = client.next().await;
    let Heard::Head(1, 204, fields, true) = &heard else {
        panic!("{heard:?}");
    };
    assert!(!fields.contains("content-length"), "{fields}");
}
