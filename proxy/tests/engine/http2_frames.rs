//! Clients that break HTTP/2's rules on one stream or for all of them: what is malformed reaches no application, and
//! ends what it must end and nothing else.

use std::time::Duration;

use meshgate_proxy::{EngineOptions, ListenerLimits, Policy};

use crate::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, GET, HEADERS, Heard,
    POST, PREFACE, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, Peer, REFUSED_STREAM, RST_STREAM,
    STREAM_CLOSED, WEIGHTED, WHOLE, block, frame, get, post, reset, settings, window,
};
use crate::kit::{Origin, Proxy, field, ok, service, soon};
use crate::ways::Way;

/// What becomes of stream 1, or of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    /// Answered.
    Status(u16),
    /// Reset with this code.
    Reset(u32),
    /// GOAWAY with this code, and the close.
    Connection(u32),
}
use Ends::{Connection, Status};

/// On every way that takes HTTP/2: what the frames come to; the application sees nothing but the honest request.
async fn check(rows: &[(&str, Vec<u8>, Ends)]) {
    for way in Way::of_http2_clients().await {
        for (name, frames, expected) in rows {
            let context = format!("{}: {name}", way.name);
            let before = way.seen().len();
            let mut client = Peer::connect(way.address).await;
            client.say(frames).await;
            let found = ends(&mut client).await;
            assert_eq!(found, *expected, "{context}");
            if let Ends::Reset(_) = found {
                client.say(&get(5)).await;
                assert_eq!(client.answer(5).await.0, 200, "{context}");
                assert_eq!(way.seen().len(), before + 1, "{context}");
            } else if found != Status(200) {
                assert_eq!(way.seen().len(), before, "{context}");
            }
        }
    }
}

async fn ends(client: &mut Peer) -> Ends {
    loop {
        match client.next().await {
            Heard::Reset(1, 0) => {}
            Heard::Reset(1, code) => return Ends::Reset(code),
            Heard::Head(1, status, ..) => return Status(status),
            Heard::GoAway(_, code) => {
                assert_eq!(client.rest().await, []);
                return Connection(code);
            }
            Heard::Closed => panic!("closed without a word"),
            _ => {}
        }
    }
}

fn head(text: &str) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(text))
}

fn with(line: &str) -> Vec<u8> {
    head(&format!("{GET}|{line}"))
}

fn posted(fields: &str, rest: &[Vec<u8>]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, 1, &block(&format!("{POST}{fields}")));
    [head, rest.concat()].concat()
}

fn data(text: &str, ends: bool) -> Vec<u8> {
    frame(DATA, u8::from(ends), 1, text.as_bytes())
}

#[tokio::test]
async fn heads_that_are_none() {
    let bad = [
        ":method=GET|:scheme=http|:path=/",
        ":method=GET|:scheme=http|:authority=a.test",
        ":method=GET|:path=/|:authority=a.test",
        ":scheme=http|:path=/|:authority=a.test",
        ":method=GET|:scheme=http|:path=|:authority=a.test",
        ":method=GET|:scheme=http|:path=x|:authority=a.test",
        ":method=GET|:scheme=http|:path=*|:authority=a.test",
        ":method=GET|:scheme=http|:path=/ x|:authority=a.test",
        ":method=GET|:scheme=http|:path=/#x|:authority=a.test",
        ":method=G T|:scheme=http|:path=/|:authority=a.test",
        ":method=GET|:method=GET|:scheme=http|:path=/|:authority=a.test",
        ":method=GET|:scheme=http|:path=/|:path=/|:authority=a.test",
        ":method=GET|:scheme=http|:path=/|:authority=a.test|:authority=a.test",
        ":method=GET|:scheme=http|:path=/|:authority=u@a.test",
        ":method=GET|:scheme=http|:path=/|:authority=a.test|:status=200",
        ":method=GET|:scheme=http|:path=/|:authority=a.test|:protocol=websocket",
        ":method=GET|:scheme=http|:path=/|:authority=a.test|:unknown=1",
        ":method=GET|:scheme=http|:path=/|x=1|:authority=a.test",
    ];
    let mut rows: Vec<(&str, Vec<u8>, Ends)> = bad[1..]
        .iter()
        .map(|text| (*text, head(text), Ends::Reset(PROTOCOL_ERROR)))
        .collect();
    rows.push((bad[0], head(bad[0]), Status(400)));
    for line in [
        "X=1",
        "x y=1",
        "=1",
        "x=a\rb",
        "x=a\nb",
        "x=a\0b",
        "x= a",
        "x=a ",
        "connection=close",
        "connection=x-a",
        "keep-alive=1",
        "proxy-connection=x",
        "transfer-encoding=chunked",
        "upgrade=h2c",
        "te=gzip",
        "te=trailers, deflate",
        "host=b.test",
        "host=a.test|host=a.test",
        "content-length=5",
        "content-length=+0",
        "content-length=0|content-length=0",
        "content-length=0, 0",
    ] {
        rows.push((line, with(line), Ends::Reset(PROTOCOL_ERROR)));
    }
    for line in [
        "te=trailers",
        "host=A.TEST",
        "content-length=0",
        "x=",
        "x=a\tb",
    ] {
        rows.push((line, with(line), Status(200)));
    }
    let connect = ":method=CONNECT|:authority=a.test:80";
    rows.push(("CONNECT", head(connect), Status(405)));
    check(&rows).await;
}

#[tokio::test]
async fn bodies_that_are_none() {
    let trailers = |text: &str, flags: u8| frame(HEADERS, flags, 1, &block(text));
    let length = "|content-length=5";
    let reset = Ends::Reset(PROTOCOL_ERROR);
    check(&[
        ("longer", posted(length, &[data("hello!", false)]), reset),
        (
            "longer by a frame",
            posted(length, &[data("hello", false), data("!", true)]),
            reset,
        ),
        ("shorter", posted(length, &[data("hell", true)]), reset),
        (
            "shorter, trailers",
            posted(length, &[data("h", false), trailers("x=1", WHOLE)]),
            reset,
        ),
        (
            "as long",
            posted(length, &[data("hello", true)]),
            Status(200),
        ),
        (
            "pseudo",
            posted("", &[data("h", false), trailers(":path=/", WHOLE)]),
            reset,
        ),
        (
            "upper",
            posted("", &[data("h", false), trailers("X=/", WHOLE)]),
            reset,
        ),
        (
            "connection",
            posted("", &[trailers("connection=x", WHOLE)]),
            reset,
        ),
        (
            "no end",
            posted("", &[data("h", false), trailers("x=1", END_HEADERS)]),
            reset,
        ),
        (
            "trailers",
            posted("", &[data("h", false), trailers("x=1", WHOLE)]),
            Status(200),
        ),
    ])
    .await;
}

#[tokio::test]
async fn streams_that_are_in_another_state() {
    let half = frame(HEADERS, WHOLE, 1, &block(GET));
    let own_parent = frame(
        HEADERS,
        END_HEADERS | END_STREAM | WEIGHTED,
        1,
        &[&[0, 0, 0, 1, 7], &block(GET)[..]].concat(),
    );
    let protocol = Connection(PROTOCOL_ERROR);
    check(&[
        ("its own parent", own_parent, Ends::Reset(PROTOCOL_ERROR)),
        ("DATA before HEADERS", data("x", true), protocol),
        ("RST before HEADERS", reset(1, 0), protocol),
        ("window before HEADERS", window(1, 1), protocol),
        (
            "an even stream",
            frame(HEADERS, WHOLE, 2, &block(GET)),
            protocol,
        ),
        ("stream 0", frame(HEADERS, WHOLE, 0, &block(GET)), protocol),
        ("DATA on 0", frame(DATA, 0, 0, b"x"), protocol),
        (
            "a push",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 4]),
            protocol,
        ),
        (
            "a window of 0",
            [post(1), window(1, 0)].concat(),
            Ends::Reset(PROTOCOL_ERROR),
        ),
        ("a window of 0 for all", window(0, 0), protocol),
        (
            "a window too wide",
            [post(1), window(1, 0x7fff_ffff)].concat(),
            Ends::Reset(FLOW_CONTROL_ERROR),
        ),
        (
            "windows too wide",
            window(0, 0x7fff_ffff),
            Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "a number that goes back",
            [post(3), half.clone()].concat(),
            protocol,
        ),
        (
            "DATA between the frames of a head",
            [frame(HEADERS, 0, 1, &block(GET)), data("", true)].concat(),
            protocol,
        ),
        (
            "another head's CONTINUATION",
            [
                frame(HEADERS, 0, 1, &block(GET)),
                frame(CONTINUATION, END_HEADERS, 3, b""),
            ]
            .concat(),
            protocol,
        ),
        (
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, b""),
            protocol,
        ),
        (
            "a short RST",
            frame(RST_STREAM, 0, 1, b"123"),
            Connection(6),
        ),
        (
            "PRIORITY of 4 bytes",
            [post(1), frame(PRIORITY, 0, 1, b"1234")].concat(),
            Ends::Reset(6),
        ),
        ("no block", frame(HEADERS, WHOLE, 1, &[0x80]), Connection(9)),
        (
            "a frame too long",
            vec![0, 0x40, 1, DATA, 0, 0, 0, 0, 1],
            Connection(6),
        ),
        (
            "SETTINGS",
            settings(&[(4, 0x8000_0000)]),
            Connection(FLOW_CONTROL_ERROR),
        ),
        ("SETTINGS of push", settings(&[(2, 2)]), protocol),
    ])
    .await;
}

#[tokio::test]
async fn the_first_frame_is_settings() {
    for way in Way::of_http2_clients().await {
        for first in [get(1), frame(4, 1, 0, b""), frame(6, 0, 0, &[0; 8])] {
            let mut client = Peer::new(
                tokio::net::TcpStream::connect(way.address).await.unwrap(),
                false,
            );
            client.say(&[PREFACE, &first[..]].concat()).await;
            assert_eq!(ends(&mut client).await, Connection(PROTOCOL_ERROR));
            assert_eq!(way.seen(), [""; 0], "{}", way.name);
        }
    }
}

#[tokio::test]
async fn data_after_the_end_is_refused() {
    let origin = Origin::start(ok("")).await;
    origin.always(crate::kit::Act::Hang);
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let mut client = Peer::connect(proxy.address()).await;
    client.say(&[get(1), data("x", false)].concat()).await;
    assert_eq!(ends(&mut client).await, Ends::Reset(STREAM_CLOSED));
    client
        .say(&[post(3), reset(3, CANCEL), frame(DATA, 0, 3, b"x")].concat())
        .await;
    assert_eq!(client.next().await, Heard::Reset(3, STREAM_CLOSED));
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_their_heads_are_understood() {
    let origin = Origin::start(crate::kit::Act::Hang).await;
    let limits = ListenerLimits {
        streams: 2,
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let mut client = Peer::connect(proxy.address()).await;
    // The third head adds to the table what the fourth refers to.
    let mut adds = block(GET);
    adds.extend(b"\x40\x01x\x011");
    client
        .say(&[get(1), get(3), frame(HEADERS, WHOLE, 5, &adds)].concat())
        .await;
    assert_eq!(client.next().await, Heard::Reset(5, REFUSED_STREAM));
    origin.always(ok("now"));
    client.say(&reset(1, CANCEL)).await;
    let mut refers = block(GET);
    refers.push(0x80 | 62);
    client.say(&frame(HEADERS, WHOLE, 7, &refers)).await;
    assert_eq!(client.answer(7).await, (200, "now".into()));
    let seen = origin.seen();
    assert_eq!(field(seen.last().unwrap(), "x"), Some("1"));
}

#[tokio::test]
async fn cookies_come_in_crumbs_and_leave_whole() {
    for way in Way::to_http1(ok("")).await.into_iter().take(1) {
        let mut client = Peer::connect(way.address).await;
        client
            .say(&with("cookie=a=1|x=y|cookie=b=2|cookie=c=3"))
            .await;
        assert_eq!(client.answer(1).await.0, 200);
        let seen = way.seen();
        assert_eq!(
            field(&seen[0], "cookie"),
            Some("a=1; b=2; c=3"),
            "{}",
            way.name
        );
        assert_eq!(seen[0].matches("ookie").count(), 1, "{}", way.name);
    }
}

#[tokio::test]
async fn what_is_too_large_is_answered() {
    let many: String = (0..101).map(|n| format!("|x{n}=1")).collect();
    let field = format!("x={}", "v".repeat(16 * 1024));
    let path = format!(
        ":method=GET|:scheme=http|:authority=a.test|:path=/{}",
        "x".repeat(8 * 1024)
    );
    let long: String = (0..70)
        .map(|n| format!("|x{n}={}", "v".repeat(1000)))
        .collect();
    let cookies = "|cookie=c".to_owned() + &"c".repeat(9000);
    // Over several frames.
    let split = |text: &str| {
        let block = block(text);
        let mut out = Vec::new();
        let count = block.len().div_ceil(16384);
        for (index, piece) in block.chunks(16384).enumerate() {
            let kind = if index == 0 { HEADERS } else { CONTINUATION };
            let mut flags = if index == 0 { END_STREAM } else { 0 };
            if index + 1 == count {
                flags |= END_HEADERS;
            }
            out.extend(frame(kind, flags, 1, piece));
        }
        out
    };
    check(&[
        ("fields", split(&format!("{GET}{many}")), Status(431)),
        ("field", split(&format!("{GET}|{field}")), Status(431)),
        ("head", split(&format!("{GET}{long}")), Status(431)),
        (
            "cookies",
            split(&format!("{GET}{cookies}{cookies}")),
            Status(431),
        ),
        ("path", split(&path), Status(414)),
    ])
    .await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whatever_it_says() {
    let origin = Origin::start(ok("")).await;
    let limits = ListenerLimits {
        body_bytes_max: Some(1000),
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let large = "x".repeat(1001);
    for body in [
        posted("|content-length=1001", &[data(&large, true)]),
        posted("|content-length=1001|expect=100-continue", &[]),
        posted("", &[data(&large, false)]),
    ] {
        let mut client = Peer::connect(proxy.address()).await;
        client.say(&body).await;
        assert_eq!(ends(&mut client).await, Status(413));
        client.say(&get(3)).await;
        assert_eq!(client.answer(3).await.0, 200);
    }
    for seen in origin.seen() {
        assert!(seen.starts_with("GET "), "{seen}");
    }
}

fn hasty() -> ListenerLimits {
    ListenerLimits {
        header_timeout: Duration::from_millis(200),
        body_idle_timeout: Duration::from_millis(200),
        write_stall_timeout: Duration::from_millis(300),
        ..ListenerLimits::default()
    }
}

#[tokio::test]
async fn whoever_is_slow_is_not_waited_for() {
    let origin = Origin::start(ok("")).await;
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), hasty());
    // An open head, half a frame, half a preface, no SETTINGS.
    for (preface, rest) in [
        (
            [PREFACE, &settings(&[])].concat(),
            frame(HEADERS, 0, 1, b""),
        ),
        ([PREFACE, &settings(&[])].concat(), get(1)[..12].to_vec()),
        (PREFACE.to_vec(), vec![]),
    ] {
        let stream = tokio::net::TcpStream::connect(proxy.address())
            .await
            .unwrap();
        let mut client = Peer::new(stream, false);
        client.say(&[preface, rest].concat()).await;
        assert_eq!(ends(&mut client).await, Connection(crate::frames::CALM));
    }
    let mut client = Peer::connect(proxy.address()).await;
    client.say(&[post(1), data("x", false)].concat()).await;
    assert_eq!(ends(&mut client).await, Status(408));
    assert_eq!(origin.seen(), [""; 0]);
}

#[tokio::test]
async fn a_window_of_zero_stalls_one_stream_only() {
    let origin = Origin::start(ok(&"x".repeat(1000))).await;
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), hasty());
    let mut client = Peer::connect(proxy.address()).await;
    client
        .say(&[settings(&[(4, 0)]), get(1), get(3), window(3, 1000)].concat())
        .await;
    assert_eq!(client.answer(3).await.1.len(), 1000);
    loop {
        match client.next().await {
            Heard::Head(1, 200, _, false) => {}
            Heard::Reset(1, code) => break assert_eq!(code, CANCEL),
            other => panic!("{other:?}"),
        }
    }
    client.say(&[get(5), window(5, 999)].concat()).await;
    let mut got = 0;
    while got < 999 {
        if let Heard::Data(5, data, false) = client.next().await {
            got += data.len();
        }
    }
    // A window below zero is filled up before anything is sent.
    client.say(&[get(7), window(7, 500)].concat()).await;
    client
        .say(&[settings(&[(4, 1)]), window(5, 0x100)].concat())
        .await;
    let last = soon(async {
        loop {
            if let Heard::Data(5, data, true) = client.next().await {
                break data.len();
            }
        }
    });
    assert_eq!(last.await, 1);
}

/// The answer is whole before the request: what is left of that is not needed, and the client is told so. What it had sent
/// by then is passed over; what it sends after its own RST_STREAM is a fault, whoever gave the stream up first.
#[tokio::test]
async fn nothing_follows_a_reset_that_crosses_ours() {
    let early = block(":method=POST|:scheme=http|:path=/");
    for way in Way::of_http2_clients().await {
        for late in [data("x", true), frame(HEADERS, WHOLE, 1, &block("x=1"))] {
            let mut client = Peer::connect(way.address).await;
            client.say(&frame(HEADERS, END_HEADERS, 1, &early)).await;
            assert_eq!(client.answer(1).await.0, 400, "{}", way.name);
            assert_eq!(client.next().await, Heard::Reset(1, 0), "{}", way.name);
            client.say(&data("on its way", false)).await;
            client.say(&[reset(1, CANCEL), late, get(3)].concat()).await;
            assert_eq!(
                client.next().await,
                Heard::Reset(1, STREAM_CLOSED),
                "{}",
                way.name
            );
            assert_eq!(client.answer(3).await.0, 200, "{}", way.name);
        }
    }
}

#[tokio::test]
async fn request_trailers_say_nothing_that_was_decided_before() {
    for way in Way::to_http1(ok("")).await.into_iter().take(1) {
        let mut client = Peer::connect(way.address).await;
        let trailers = block(
            "content-length=5|host=b.test|authorization=x|cookie=x|x-forwarded-for=6.6.6.6|x-forwarded-client-cert=x|meshgate-dest=1|x-sum=7",
        );
        let trailers = frame(HEADERS, WHOLE, 1, &trailers);
        client.say(&posted("", &[data("a", false), trailers])).await;
        assert_eq!(client.answer(1).await.0, 200);
        let seen = way.seen().remove(0).to_ascii_lowercase();
        let (_, body) = seen.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "1\r\na\r\n0\r\nx-sum: 7\r\n\r\n", "{}", way.name);
    }
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_let_go() {
    let origin = Origin::start(ok("")).await;
    let limits = ListenerLimits {
        keep_alive: Duration::from_millis(100),
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let mut client = Peer::connect(proxy.address()).await;
    client.say(&get(1)).await;
    assert_eq!(client.answer(1).await.0, 200);
    assert_eq!(client.rest().await, [Heard::GoAway(1, 0)]);
}
