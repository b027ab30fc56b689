//! Answers that are none, or not whole: refused or visibly cut on every way, and their connections never used again.

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{
    Act, Origin, Proxy, field, final_answer, message_length, ok, raw, soon, status_of,
};
use crate::ways::{Way, ask_http2, http2_service, serve_http2};

/// What the client gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gets {
    /// 502.
    Refused,
    /// A beginning that cannot be taken for the whole.
    Cut,
    /// All of it.
    Whole,
}
use Gets::{Cut, Refused, Whole};

/// What becomes of the endpoint's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Closed,
    UsedAgain,
}
use Then::{Closed, UsedAgain};

struct Row {
    method: &'static str,
    says: String,
    gets: Gets,
    then: Then,
}

fn rows<T: Into<String>>(gets: Gets, then: Then, says: impl IntoIterator<Item = T>) -> Vec<Row> {
    let row = |says: T| Row {
        method: "GET",
        says: says.into(),
        gets,
        then,
    };
    says.into_iter().map(row).collect()
}

/// On every way, for clients of both versions: the row's answer, then an honest exchange.
async fn check(rows: &[Row]) {
    for way in Way::to_http1(ok("honest")).await {
        for row in rows {
            check_one(&way, row, false).await;
            if way.name == "edge" {
                check_one(&way, row, true).await;
            }
        }
    }
}

async fn check_one(way: &Way, row: &Row, http2: bool) {
    let told = &row.says[..row.says.len().min(200)];
    let version = if http2 { "HTTP/2" } else { "HTTP/1" };
    let context = format!("{} {version}: {} {told:?}", way.name, row.method);
    let origin = way.origin();
    let ends = row.gets == Cut || row.then == Closed;
    origin.next([match ends {
        true => Act::SayAndClose(row.says.clone()),
        false => Act::Say(row.says.clone()),
    }]);
    // On a connection that was used before if there is one.
    let (before, seen) = (origin.connections(), way.seen().len());
    let first = before == 0;
    let got = match http2 {
        true => gets_http2(way, row.method).await,
        false => gets_http1(way, row.method).await,
    };
    // Between two sidecars a reset may overtake the head.
    let overtaken = way.name == "mesh" && (row.gets, got) == (Cut, Refused);
    assert!(got == row.gets || overtaken, "{context}: {got:?}");
    let honest = raw(way.address, &request("GET")).await;
    assert!(honest.ends_with("honest"), "{context}: {honest}");
    let made = origin.connections() - before - usize::from(first);
    assert_eq!(made, usize::from(row.then == Closed), "{context}");
    assert_eq!(way.seen().len() - seen, 2, "{context}");
}

fn request(method: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
}

async fn gets_http1(way: &Way, method: &str) -> Gets {
    let answer = raw(way.address, &request(method)).await;
    let answer = final_answer(&answer);
    let head = answer.find("\r\n\r\n").map(|end| end + 4);
    let whole = match (method, status_of(answer)) {
        (_, 502) => return Refused,
        ("HEAD", _) | (_, 204 | 304) => head,
        _ => message_length(answer.as_bytes()),
    };
    match whole {
        Some(length) if length == answer.len() => Whole,
        Some(_) => panic!("bytes after the end: {answer}"),
        None => Cut,
    }
}

async fn gets_http2(way: &Way, method: &str) -> Gets {
    let request = Request::builder()
        .method(method)
        .uri("http://a.test/")
        .body(())
        .unwrap();
    // A reset may overtake the head.
    let Ok(answer) = ask_http2(way.address, request, &[], None).await else {
        return Cut;
    };
    match (answer.status, answer.body) {
        (502, _) => Refused,
        (_, Ok((body, _))) if method == "HEAD" => {
            assert_eq!(body, "");
            Whole
        }
        (204 | 304, Ok((body, _))) => {
            assert_eq!(body, "");
            Whole
        }
        (_, Ok(_)) => Whole,
        (_, Err(_)) => Cut,
    }
}

fn head(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

fn chunked(body: &str) -> String {
    format!("{}{body}", head("Transfer-Encoding: chunked\r\n"))
}

#[tokio::test]
async fn lengths_and_codings() {
    let lengths = [
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "0x5",
        "",
        "18446744073709551616",
        "5\r\nContent-Length: 5",
        "5\r\nContent-Length: 6",
        "5\r\nTransfer-Encoding: chunked",
    ];
    let codings = [
        "",
        "xchunked",
        "identity",
        "gzip, chunked",
        "chunked, gzip",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nContent-Length: 5",
    ];
    let lengths = lengths.map(|value| head(&format!("Content-Length: {value}\r\n")) + "hello");
    let codings =
        codings.map(|value| head(&format!("Transfer-Encoding: {value}\r\n")) + "0\r\n\r\n");
    let mut bad = rows(Refused, Closed, lengths);
    bad.extend(rows(Refused, Closed, codings));
    let others = [
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    bad.extend(rows(Refused, Closed, others));
    check(&bad).await;
}

#[tokio::test]
async fn heads() {
    let mut bad = rows(
        Refused,
        Closed,
        [
            "nonsense\r\n\r\n",
            "220 ready\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
            "HTTP/1.1 99 X\r\n\r\n",
            "HTTP/1.1 20 X\r\n\r\n",
            "HTTP/1.1 2000 X\r\n\r\n",
            "HTTP/1.1 +20 X\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            " HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\nb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
            // Unasked, or what may not be asked.
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello",
        ],
    );
    let flood = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(17);
    let field = |number: usize, length: usize| format!("X-{number}: {}\r\n", "v".repeat(length));
    let long: String = (0..60).map(|number| field(number, 1200)).collect();
    let many: String = (0..101).map(|number| field(number, 1)).collect();
    bad.extend(rows(
        Refused,
        Closed,
        [
            flood + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            head(&long),
            head(&many),
            head(&field(0, 16 * 1024)),
        ],
    ));
    check(&bad).await;
}

#[tokio::test]
async fn heads_that_are_cut() {
    for says in ["", "\r\n", "HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Le"] {
        for way in Way::to_http1(Act::SayAndClose(says.into())).await {
            let got = gets_http1(&way, "GET").await;
            assert_eq!(got, Refused, "{}: {says:?}", way.name);
            assert_eq!(way.seen().len(), 1, "{}: {says:?}", way.name);
        }
    }
}

#[tokio::test]
async fn bodies_that_are_cut_or_malformed() {
    let mut cut = vec![head("Content-Length: 10\r\n") + "hello"];
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(300));
    let bodies = [
        "5\r\nhello\r\n",
        "5\r\nhe",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\nX: 1\r\n",
        "5\r\nhello\r\nzz\r\n",
        "5\r\nhello\r\n-1\r\n",
        "5\r\nhello\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: 1\r\n folded\r\n\r\n",
        "5\r\nhello\r\n00000000000000000\r\n\r\n",
        &long,
    ];
    cut.extend(bodies.into_iter().map(chunked));
    check(&rows(Cut, Closed, cut)).await;
}

#[tokio::test]
async fn what_is_whole_and_what_may_follow() {
    let mut good = rows(
        Whole,
        UsedAgain,
        [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 599 X\r\nContent-Length: 0\r\n\r\n",
        ],
    );
    good.extend(rows(
        Whole,
        Closed,
        [
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            // Its end is that of the connection.
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "HTTP/1.1 205 Reset Content\r\n\r\n",
        ],
    ));
    let mut head_only = rows(
        Whole,
        UsedAgain,
        [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ],
    );
    for row in &mut head_only {
        row.method = "HEAD";
    }
    good.extend(head_only);
    check(&good).await;
}

/// The connection stays open at the endpoint's side, and is not used again all the same.
#[tokio::test]
async fn bytes_after_the_end() {
    let extra = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (method, says) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ] {
        for way in Way::to_http1(ok("honest")).await {
            for more in [extra, "hello", "\r\n"] {
                let before = way.origin().connections();
                way.origin().next([Act::Say(format!("{says}{more}"))]);
                let context = format!("{}: {method} {says:?} {more:?}", way.name);
                assert_eq!(gets_http1(&way, method).await, Whole, "{context}");
                let honest = raw(way.address, &request("GET")).await;
                assert!(honest.ends_with("honest"), "{context}: {honest}");
                // One for this answer unless there was a good one, and another for the honest one.
                let made = way.origin().connections() - before;
                assert!((1..=2).contains(&made), "{context}: {made}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_sees_a_cut_as_a_reset() {
    let origin = Origin::start(Act::SayAndClose(chunked("5\r\nhello\r\n"))).await;
    let proxy = Proxy::edge(crate::kit::service(&[&origin], Default::default()));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let end = soon(client.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(end.is_err(), "an ordinary end after {answer:?}");
    // The same answer, whole, ends with the connection.
    origin.always(Act::Say(chunked("5\r\nhello\r\n0\r\n\r\n")));
    let answer = raw(proxy.address(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
}

/// How an HTTP/2 application misbehaves.
type Deed = fn(h2::server::SendResponse<Bytes>);

#[tokio::test]
async fn http2_applications() {
    let cases: [(&str, u16, Deed, Gets); 5] = [
        (
            "reset within the body",
            200,
            |mut respond| {
                let mut stream = begin(&mut respond, 200, &[]);
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
            },
            Cut,
        ),
        (
            "shorter than announced",
            200,
            |mut respond| {
                let mut stream = begin(&mut respond, 200, &[("content-length", "10")]);
                stream.send_data(Bytes::new(), true).unwrap();
            },
            Cut,
        ),
        (
            "longer than announced",
            200,
            |mut respond| {
                let mut stream = begin(&mut respond, 200, &[("content-length", "3")]);
                stream.send_data(Bytes::new(), true).unwrap();
            },
            Cut,
        ),
        (
            "204 with a body",
            204,
            |mut respond| {
                let mut stream = begin(&mut respond, 204, &[]);
                stream.send_data(Bytes::new(), true).unwrap();
            },
            Whole,
        ),
        (
            "304 with a body",
            304,
            |mut respond| {
                let mut stream = begin(&mut respond, 304, &[]);
                stream.send_data(Bytes::new(), true).unwrap();
            },
            Whole,
        ),
    ];
    for (what, status, deed, gets) in cases {
        let (address, _task) = serve_http2(move |_, respond| async move { deed(respond) }).await;
        let proxy = Proxy::edge(http2_service(address));
        let answer = proxy.raw(&request("GET")).await;
        let head = answer.find("\r\n\r\n").map(|end| end + 4);
        let whole = match status {
            204 | 304 => head == Some(answer.len()),
            // A reset may overtake the head.
            _ if status_of(&answer) == 502 => false,
            _ => message_length(answer.as_bytes()) == Some(answer.len()),
        };
        let got = if whole { Whole } else { Cut };
        assert_eq!(got, gets, "{what}: {answer}");
        let request = Request::get("http://a.test/").body(()).unwrap();
        let got = match ask_http2(proxy.address(), request, &[], None).await {
            Ok(answer) if answer.status == 502 => Cut,
            Ok(answer) => {
                assert_eq!(answer.status, status, "{what}");
                match answer.body {
                    Ok((body, _)) if status != 200 => {
                        assert_eq!(body, "", "{what}");
                        Whole
                    }
                    Ok(_) => Whole,
                    Err(_) => Cut,
                }
            }
            Err(_) => Cut,
        };
        assert_eq!(got, gets, "{what} to HTTP/2");
    }
}

fn begin(
    respond: &mut h2::server::SendResponse<Bytes>,
    status: u16,
    fields: &[(&str, &str)],
) -> h2::SendStream<Bytes> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    let response = response.body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    stream
        .send_data(Bytes::from_static(b"hello"), false)
        .unwrap();
    stream
}

#[tokio::test]
async fn response_trailers_say_nothing_that_was_decided_before() {
    let trailers = "Content-Length: 5\r\nTransfer-Encoding: x\r\nSet-Cookie: a=b\r\nConnection: close\r\nX-Sum: 7\r\n";
    let says = chunked(&format!("1\r\na\r\n0\r\n{trailers}\r\n"));
    for way in Way::to_http1(Act::Say(says)).await {
        let answer = raw(way.address, &request("GET")).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body = body.to_ascii_lowercase();
        assert_eq!(body, "1\r\na\r\n0\r\nx-sum: 7\r\n\r\n", "{}", way.name);
    }
}
