//! Answers before the answer: from the endpoint to the client, edge and mesh, and what a client waits for.

use std::net::SocketAddr;

use meshgate_proxy::Policy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::kit::{Proxy, endpoint, service_of, soon};
use crate::mesh::{Mesh, Pair, strict};

/// An endpoint that plays one exchange: "< text" is said, "> text" is waited for.
async fn play(script: &'static [&'static str]) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = String::new();
        for line in script {
            match line.split_at(2) {
                ("< ", text) => stream.write_all(text.as_bytes()).await.unwrap(),
                (_, text) => read_until(&mut stream, &mut seen, text).await,
            }
        }
        // What else comes until the proxy closes.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        seen + &String::from_utf8_lossy(&rest)
    });
    (address, task)
}

async fn read_until(stream: &mut TcpStream, seen: &mut String, end: &str) {
    while !seen.contains(end) {
        let mut bytes = [0; 1024];
        let count = soon(stream.read(&mut bytes)).await.unwrap();
        assert!(count > 0, "closed before {end:?}: {seen:?}");
        seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
}

/// Two ways to an endpoint: the edge, and two sidecars with HTTP/2 between them.
async fn ways(address: SocketAddr, mesh: bool) -> (SocketAddr, Vec<Proxy>) {
    if mesh {
        let pair = Pair::start(&Mesh::new(), address, "web", strict());
        return (pair.client.address(), vec![pair.client, pair.server]);
    }
    let web = service_of(vec![endpoint(address, "pod")], Policy::default(), None);
    let proxy = Proxy::edge(web);
    (proxy.address(), vec![proxy])
}

const ASK: &str =
    "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

/// What the client sees, in turn, of what the endpoint says.
async fn check(
    mesh: bool,
    script: &'static [&'static str],
    client: &[(&str, &str)],
    seen: impl Fn(&str) -> bool,
) -> String {
    let (address, origin) = play(script).await;
    let (entry, proxies) = ways(address, mesh).await;
    let mut stream = TcpStream::connect(entry).await.unwrap();
    let mut heard = String::new();
    for (say, hear) in client {
        stream.write_all(say.as_bytes()).await.unwrap();
        read_until(&mut stream, &mut heard, hear).await;
    }
    drop((stream, proxies));
    let origin = soon(origin).await.unwrap();
    assert!(seen(&origin), "mesh {mesh}: the endpoint saw {origin:?}");
    heard
}

#[tokio::test]
async fn the_endpoint_says_when_to_go_on() {
    for mesh in [false, true] {
        check(
            mesh,
            &[
                "> \r\n\r\n",
                "< HTTP/1.1 100 Continue\r\n\r\n",
                "> hello",
                "< HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ],
            &[
                (ASK, "HTTP/1.1 100 Continue\r\n\r\n"),
                ("hello", "\r\n\r\nok"),
            ],
            |seen| seen.ends_with("\r\n\r\nhello"),
        )
        .await;
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_not_sent() {
    for mesh in [false, true] {
        check(
            mesh,
            &[
                "> \r\n\r\n",
                "< HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno",
            ],
            &[(ASK, "\r\n\r\nno")],
            |seen| seen.ends_with("\r\n\r\n"),
        )
        .await;
    }
}

#[tokio::test]
async fn hints_pass_before_the_answer() {
    for mesh in [false, true] {
        let heard = check(
            mesh,
            &[
                "> \r\n\r\n",
                "< HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\n\r\n",
                "< HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
                "< HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ],
            &[(
                "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
                "HTTP/1.1 200 OK\r\n",
            )],
            |_| true,
        )
        .await;
        let heard = heard.to_ascii_lowercase();
        let heads: Vec<&str> = heard.split("http/1.1 ").skip(1).collect();
        assert_eq!(heads[0], "103 early hints\r\nlink: </a.css>\r\n\r\n");
        assert_eq!(heads[1], "102 processing\r\n\r\n");
        assert_eq!(heads.len(), 3, "{heard}");
    }
}

/// HTTP/1.0 has none (RFC 9110 §15.2), and nobody gets a word that it did not wait for.
#[tokio::test]
async fn who_knows_no_interim_answers_gets_none() {
    let (address, _origin) = play(&[
        "> \r\n\r\n",
        "< HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        "< HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ])
    .await;
    let (entry, _proxies) = ways(address, false).await;
    let mut stream = TcpStream::connect(entry).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    let mut heard = String::new();
    soon(stream.read_to_string(&mut heard)).await.unwrap();
    assert!(heard.starts_with("HTTP/1.0 200 OK\r\n"), "{heard}");
    assert_eq!(heard.matches("HTTP/1.").count(), 1, "{heard}");
}
