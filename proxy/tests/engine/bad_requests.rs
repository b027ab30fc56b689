//! Bytes that are no request, or that two servers could read as two: refused on every way, and the application sees
//! nothing of them.

use meshgate_proxy::{EngineOptions, ListenerLimits, Policy};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::kit::{Origin, Proxy, field, get, ok, raw, say, service, soon, status_of};
use crate::ways::Way;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

/// On every way: one answer with this status, then the end; and the application sees the next honest request only.
async fn check(requests: &[(String, u16)]) {
    for way in Way::all().await {
        for (request, expected) in requests {
            let answer = raw(way.address, &format!("{request}{SMUGGLED}")).await;
            let told = &request[..request.len().min(200)];
            let context = format!("{}: {told:?}: {answer}", way.name);
            assert_eq!(status_of(&answer), *expected, "{context}");
            assert!(field(&answer, "meshgate-reason").is_some(), "{context}");
            assert_eq!(field(&answer, "connection"), Some("close"), "{context}");
            assert_eq!(answers(&answer), 1, "{context}");
            assert_eq!(way.seen(), [""; 0], "{context}");
        }
        let honest = raw(way.address, &get("/honest")).await;
        assert_eq!(status_of(&honest), 200, "{}: {honest}", way.name);
        assert_eq!(way.seen().len(), 1, "{}", way.name);
    }
}

/// How many answers these bytes are.
fn answers(bytes: &str) -> usize {
    bytes.matches("HTTP/1.1 ").count() + bytes.matches("HTTP/1.0 ").count()
}

fn all(status: u16, requests: impl IntoIterator<Item = String>) -> Vec<(String, u16)> {
    requests
        .into_iter()
        .map(|request| (request, status))
        .collect()
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}")
}

fn with_field(line: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.test\r\n{line}\r\n\r\n")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

#[tokio::test]
async fn lengths_and_codings() {
    let mut requests = Vec::new();
    for lengths in [
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "0x5",
        "5 5",
        "5;",
        "5.0",
        "",
        "18446744073709551616",
        "99999999999999999999",
        "5\r\nContent-Length: 5",
        "5\r\nContent-Length: 6",
        "5\r\nTransfer-Encoding: chunked",
    ] {
        requests.push(post(&format!("Content-Length: {lengths}\r\n"), "hello"));
    }
    for codings in [
        "",
        "xchunked",
        "chunkedx",
        "identity",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        "chunked;q=1",
        "\"chunked\"",
        "\u{b}chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "chunked\r\nContent-Length: 5",
        "identity\r\nContent-Length: 5",
    ] {
        let fields = format!("Transfer-Encoding: {codings}\r\n");
        requests.push(post(&fields, "0\r\n\r\n"));
    }
    requests.push("POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n".into());
    check(&all(400, requests)).await;
}

#[tokio::test]
async fn fields() {
    let lines = [
        "X: 1\r\n folded",
        "X: 1\r\n\tfolded",
        "X : 1",
        "X\t: 1",
        ": 1",
        "X",
        "X(y): 1",
        "X: 1\nY: 2",
        "X: 1\rY: 2",
        "X: a\0b",
        "X: a\u{1}b",
        "X: a\u{7f}b",
        "X\0: 1",
        "\u{e9}: 1",
        "X: 1\nHost: b.test",
        "X: 1\n",
        "X: 1\r",
    ];
    let mut requests: Vec<String> = lines.into_iter().map(with_field).collect();
    requests.push("GET / HTTP/1.1\r\n X: 1\r\nHost: a.test\r\n\r\n".into());
    requests.push("GET / HTTP/1.1\nHost: a.test\n\n".into());
    requests.push("GET / HTTP/1.1\r\nHost: a.test\r\n\n".into());
    let many = (0..70).map(|n| format!("X{n}")).collect::<Vec<_>>();
    requests.push(with_field(&format!("Connection: {}", many.join(","))));
    check(&all(400, requests)).await;
}

#[tokio::test]
async fn first_lines_and_hosts() {
    let lines = [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET /",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "GET / HTTP/01.1",
        "GET /a b HTTP/1.1",
        "GET /\t HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /#fragment HTTP/1.1",
        "GET a.test/ HTTP/1.1",
        "GET * HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http://u@a.test/ HTTP/1.1",
        "GET http://b.test/ HTTP/1.1",
    ];
    let mut requests: Vec<String> = lines
        .into_iter()
        .map(|line| format!("{line}\r\nHost: a.test\r\n\r\n"))
        .collect();
    for hosts in [
        "",
        "Host: a.test\r\nHost: b.test\r\n",
        "Host: a.test\r\nHost: a.test\r\n",
        "Host: \r\n",
        "Host: a test\r\n",
        "Host: a.test, b.test\r\n",
        "Host: a.test/\r\n",
        "Host: u@a.test\r\n",
        "Host: a.test:x\r\n",
        "Host: a.test:99999\r\n",
        "Host: [::1\r\n",
        "Host: a.test#\r\n",
        "Host: a.test?\r\n",
    ] {
        requests.push(format!("GET / HTTP/1.1\r\n{hosts}\r\n"));
    }
    requests.push("GET http://a.test/ HTTP/1.1\r\n\r\n".into());
    requests.push("GET / HTTP/1.0\r\nHost: \r\n\r\n".into());
    let mut requests = all(400, requests);
    for version in ["1.2", "1.9", "2.0", "3.0", "0.9"] {
        let line = format!("GET / HTTP/{version}\r\nHost: a.test\r\n\r\n");
        requests.push((line, 505));
    }
    let connect = "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n";
    requests.push((connect.into(), 405));
    check(&requests).await;
}

#[tokio::test]
async fn sizes() {
    let head = with_field(
        &(0..60)
            .map(|n| line(n, 1200))
            .collect::<Vec<_>>()
            .join("\r\n"),
    );
    let count = with_field(
        &(0..101)
            .map(|n| line(n, 1))
            .collect::<Vec<_>>()
            .join("\r\n"),
    );
    let field = with_field(&line(0, 16 * 1024));
    let target = "x".repeat(8 * 1024);
    let target = format!("GET /{target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    check(&[(head, 431), (count, 431), (field, 431), (target, 414)]).await;
}

fn line(number: usize, length: usize) -> String {
    format!("X-{number}: {}", "v".repeat(length))
}

#[tokio::test]
async fn bodies() {
    let extension = |length: usize| format!("1;{}\r\na\r\n", "e".repeat(length));
    let mut bodies: Vec<String> = [
        "zz\r\n",
        "-1\r\na\r\n",
        "+1\r\na\r\n",
        "0x1\r\na\r\n",
        " 1\r\na\r\n",
        "1_0\r\n",
        "\r\n",
        "00000000000000001\r\na\r\n",
        "ffffffffffffffffff\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\ra\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "1;x\ny\r\na\r\n0\r\n\r\n",
        "1;x\ry\r\na\r\n0\r\n\r\n",
        "1;\0\r\na\r\n0\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX : 1\r\n\r\n",
        "0\r\n X: 1\r\n\r\n",
        "0\r\nX: a\0\r\n\r\n",
        "0\r\nX: 1\n\r\n",
        "0\r\n\n",
        "0\n\r\n",
        "1\r\na\r\n0\r\nX: 1\r\n folded\r\n\r\n",
    ]
    .into_iter()
    .map(chunked)
    .collect();
    bodies.push(chunked(&format!("{}0\r\n\r\n", extension(300))));
    bodies.push(chunked(&format!("{}0\r\n\r\n", extension(200).repeat(100))));
    let trailers: String = (0..20).map(|n| line(n, 1000) + "\r\n").collect();
    bodies.push(chunked(&format!("0\r\n{trailers}\r\n")));
    let trailers: String = (0..70).map(|n| line(n, 1) + "\r\n").collect();
    bodies.push(chunked(&format!("0\r\n{trailers}\r\n")));
    check(&all(400, bodies)).await;
}

#[tokio::test]
async fn what_only_the_edge_judges() {
    let origin = Origin::start(ok("")).await;
    let limits = ListenerLimits {
        body_bytes_max: Some(1000),
        ..ListenerLimits::default()
    };
    let web = service(&[&origin], Policy::default());
    let proxy = Proxy::edge_with(web, EngineOptions::default(), limits);
    let body = "x".repeat(1001);
    let large = chunked(&format!("3e9\r\n{body}\r\n0\r\n\r\n"));
    let targets = [
        "GET /%00",
        "GET /..;/x",
        "GET /%",
        "GET /%zz",
        "OPTIONS *",
        "GET /a%2500b%00",
    ];
    let mut requests: Vec<(String, u16)> = targets
        .into_iter()
        .map(|line| (format!("{line} HTTP/1.1\r\nHost: a.test\r\n\r\n"), 400))
        .collect();
    requests.push((large, 413));
    requests.push((post("Content-Length: 1001\r\n", &body), 413));
    // It is not asked to send what nobody wants.
    let patient = "Expect: 100-continue\r\nContent-Length: 1001\r\n";
    requests.push((post(patient, ""), 413));
    for (request, expected) in requests {
        let answer = proxy.raw(&format!("{request}{SMUGGLED}")).await;
        let told = &request[..request.len().min(200)];
        assert_eq!(status_of(&answer), expected, "{told:?}: {answer}");
        assert_eq!(answers(&answer), 1, "{told:?}: {answer}");
        assert_eq!(origin.seen(), [""; 0], "{told:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_reaches_nobody_as_a_whole() {
    for way in Way::all().await {
        for request in [
            post("Content-Length: 10\r\n", "hello"),
            chunked("5\r\nhello\r\n"),
            chunked("5\r\nhe"),
            chunked("0\r\n"),
        ] {
            let mut client = TcpStream::connect(way.address).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let answer = say(&mut client, "").await;
            assert!(!answer.contains(" 200 "), "{}: {answer}", way.name);
        }
        let honest = raw(way.address, &get("/honest")).await;
        assert_eq!(status_of(&honest), 200, "{}: {honest}", way.name);
        assert_eq!(way.seen().len(), 1, "{}: {:?}", way.name, way.seen());
    }
}

#[tokio::test]
async fn a_refusal_without_reading_the_body_ends_the_connection() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    proxy.engine.swap(meshgate_proxy::Snapshot::default());
    // The client waits for a word that never comes: what it sends next may be a request, or its body.
    let request = post("Expect: 100-continue\r\nContent-Length: 65\r\n", "");
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let answer = soon(say(&mut client, &format!("{request}{SMUGGLED}"))).await;
    assert_eq!(status_of(&answer), 404, "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"), "{answer}");
    assert_eq!(answers(&answer), 1, "{answer}");
}

#[tokio::test]
async fn request_trailers_say_nothing_that_was_decided_before() {
    for way in Way::to_http1(ok("")).await {
        let request = "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1;ext=1\r\na\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nHost: b.test\r\nAuthorization: x\r\nCookie: x\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Client-Cert: x\r\nMeshgate-Dest: 1\r\nX-Sum: 7\r\n\r\n";
        assert_eq!(status_of(&raw(way.address, request).await), 200);
        let seen = way.seen().remove(0);
        let (_, body) = seen.split_once("\r\n\r\n").unwrap();
        let body = body.to_ascii_lowercase();
        assert_eq!(body, "1\r\na\r\n0\r\nx-sum: 7\r\n\r\n", "{}", way.name);
    }
}
