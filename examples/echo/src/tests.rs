//! The server on ports of its own, asked by the client and by bare sockets.

use std::net::{Ipv4Addr, SocketAddr};

use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::server::Server;
use crate::{CallOptions, CallSummary, ServeOptions, call};

struct Running {
    addresses: Vec<SocketAddr>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn run(environment: &[(&str, &str)]) -> Running {
    let options = ServeOptions::read(|name| {
        let mut pairs = environment.iter();
        let found = pairs.find(|(own, _)| *own == name);
        let zero = name.ends_with("_PORT").then(|| "0".to_owned());
        Ok(found.map(|(_, value)| (*value).to_owned()).or(zero))
    });
    let server = Server::bind(&options.unwrap()).await.unwrap();
    let addresses = server.addresses();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.run(shutdown.clone()));
    Running {
        addresses,
        shutdown,
        task,
    }
}

impl Running {
    fn address(&self, index: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.addresses[index].port()).into()
    }

    fn url(&self, scheme: &str, index: usize, target: &str) -> String {
        format!(
            "{scheme}://127.0.0.1:{}{target}",
            self.addresses[index].port()
        )
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

async fn ask(options: CallOptions) -> (CallSummary, String) {
    let mut out = Vec::new();
    let summary = call(options, &mut out).await.unwrap();
    (summary, String::from_utf8(out).unwrap())
}

async fn get(url: String) -> (CallSummary, String) {
    let options = CallOptions {
        url,
        insecure: true,
        ..CallOptions::default()
    };
    ask(options).await
}

/// The JSON below the status line.
fn json(answer: &str) -> Value {
    let (status, body) = answer.split_once('\n').unwrap();
    assert_eq!(status, "200 OK", "{answer}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn the_reply_says_what_was_seen() {
    let server = run(&[
        ("NAMESPACE", "shop"),
        ("POD_NAME", "cart-1"),
        ("SERVICE_NAME", "cart"),
    ])
    .await;
    let options = CallOptions {
        url: server.url("http", 0, "/a/b?c=d"),
        headers: vec![
            ("X-Forwarded-Client-Cert".to_owned(), "By=x".to_owned()),
            ("Host".to_owned(), "a.test".to_owned()),
        ],
        data: Some("hello".to_owned()),
        ..CallOptions::default()
    };
    let (summary, answer) = ask(options).await;
    assert_eq!(
        summary,
        CallSummary {
            answered: 1,
            failed: 0
        }
    );
    let seen = json(&answer);
    let expected = serde_json::json!({
        "path": "/a/b?c=d",
        "host": "a.test",
        "method": "POST",
        "proto": "HTTP/1.1",
        "headers": {
            "Content-Length": ["5"],
            "User-Agent": ["meshgate-echo"],
            "X-Forwarded-Client-Cert": ["By=x"],
        },
        "httpPort": server.addresses[0].port().to_string(),
        "namespace": "shop",
        "ingress": "",
        "service": "cart",
        "pod": "cart-1",
    });
    assert_eq!(seen, expected);
    assert!(
        answer.contains("\n \"path\": \"/a/b?c=d\""),
        "indented by one: {answer}"
    );

    let (_, answer) = get(server.url("https", 2, "/")).await;
    let tls = &json(&answer)["tls"];
    assert_eq!(tls["version"], "TLSv1.3");
    assert_eq!(tls["negotiatedProtocol"], "http/1.1");
    assert!(
        tls["cipherSuite"].as_str().unwrap().starts_with("TLS_AES"),
        "{tls}"
    );
    server.stop().await;
}

#[tokio::test]
async fn failures_come_on_request() {
    let server = run(&[]).await;
    let check = async |target: &str, expected: &str, failed: u32| {
        let (summary, answer) = get(server.url("http", 0, target)).await;
        assert!(answer.starts_with(expected), "{target}: {answer}");
        assert_eq!(summary.failed, failed, "{target}");
    };
    check("/health", "200 OK\nOK\n", 0).await;
    check("/status/503", "503 Service Unavailable\n", 1).await;
    check("/status/204", "204 No Content\n", 0).await;
    check("/flaky?rate=1", "503 Service Unavailable\nflaky", 1).await;
    check("/flaky?rate=0", "200 OK\n{", 0).await;
    check("/close", "failed: the request was not answered", 1).await;
    check("/bytes/40000", "200 OK\nxxxx", 0).await;
    check("/bytes/0", "200 OK\n", 0).await;
    check("/?delay=1ms", "200 OK\n{", 0).await;
    check("/?delay=never", "400 Bad Request\n{\"message\":", 1).await;
    check(
        "/retry/?uuid=x&succeedAfter=1&responseCode=502",
        "502 Bad Gateway",
        1,
    )
    .await;
    check(
        "/retry/?uuid=x&succeedAfter=1&responseCode=502",
        "200 OK\n{",
        0,
    )
    .await;
    check("/ws", "400 Bad Request\na WebSocket handshake", 1).await;
    server.stop().await;
}

#[tokio::test]
async fn headers_of_the_answer_are_set_on_request_and_one_connection_serves_many() {
    let server = run(&[]).await;
    let mut stream = TcpStream::connect(server.address(0)).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Echo-Set-Header: x-one:1, x-two:2\r\n";
    stream
        .write_all(format!("{request}\r\n{request}Connection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!(answers.matches("x-two: 2").count(), 2, "{answers}");
    let (summary, answer) = ask(CallOptions {
        url: server.url("http", 0, "/health"),
        count: 3,
        ..CallOptions::default()
    })
    .await;
    assert_eq!(
        summary,
        CallSummary {
            answered: 3,
            failed: 0
        }
    );
    assert!(answer.ends_with("3 answered, 0 failed\n"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn grpc_is_answered_beside_http_and_alone() {
    let environment = [("POD_NAME", "cart-1")];
    let beside = run(&environment).await;
    let alone = run(&[environment[0], ("GRPC_ECHO_SERVER", "1")]).await;
    for (server, port) in [(&beside, 0), (&beside, 1), (&alone, 0)] {
        let (summary, answer) = get(server.url("grpc", port, "")).await;
        assert_eq!(summary.failed, 0, "{answer}");
        assert!(answer.starts_with("200 OK grpc-status 0\n"), "{answer}");
        assert!(answer.contains("\npod: cart-1\n"), "{answer}");
    }
    let (_, answer) = get(beside.url("http", 1, "/")).await;
    assert!(
        answer.starts_with("400 Bad Request\nExpected h2c request"),
        "{answer}"
    );
    beside.stop().await;
    alone.stop().await;
}

#[tokio::test]
async fn websockets_send_back_what_comes() {
    let server = run(&[]).await;
    let stream = TcpStream::connect(server.address(0)).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://a.test/ws", stream)
        .await
        .unwrap();
    for message in [Message::text("hello"), Message::binary(vec![0, 1, 2])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn lines_and_datagrams_are_answered() {
    let server = run(&[
        ("TCP_ECHO_SERVER", "1"),
        ("UDP_ECHO_SERVER", "1"),
        ("POD_NAME", "p"),
    ])
    .await;
    let options = CallOptions {
        url: server.url("tcp", 0, ""),
        data: Some("PING\nIS_TLS\nnothing\nTEST".to_owned()),
        ..CallOptions::default()
    };
    let (_, answer) = ask(options).await;
    assert!(
        answer.starts_with("Gateway API Test TCP Server\nPONG\nfalse\n{\"namespace\":\"\""),
        "{answer}"
    );
    assert!(answer.contains("\"pod\":\"p\""), "{answer}");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(b"hello", server.address(2)).await.unwrap();
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).await.unwrap();
    let reply: Value = serde_json::from_slice(&buffer[..length]).unwrap();
    assert_eq!(
        (&reply["request"], &reply["pod"]),
        (&"hello".into(), &"p".into())
    );
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_lets_requests_in_flight_finish() {
    let server = run(&[]).await;
    let mut stream = TcpStream::connect(server.address(0)).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx")
        .await
        .unwrap();
    // The head was read once this second, idle connection is answered.
    let (summary, _) = get(server.url("http", 0, "/health")).await;
    assert_eq!(summary.answered, 1);
    server.shutdown.cancel();
    stream.write_all(b"y").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_called_is_said() {
    for url in [
        "",
        "localhost",
        "ftp://x/",
        "tcp://x",
        "http://",
        "http://a b/",
    ] {
        let options = CallOptions {
            url: url.to_owned(),
            ..CallOptions::default()
        };
        assert!(call(options, &mut Vec::new()).await.is_err(), "{url}");
    }
    let (summary, answer) = get("http://127.0.0.1:1/".to_owned()).await;
    assert_eq!(
        summary,
        CallSummary {
            answered: 0,
            failed: 1
        }
    );
    assert!(
        answer.starts_with("failed: cannot connect to 127.0.0.1:1: "),
        "{answer}"
    );
}
