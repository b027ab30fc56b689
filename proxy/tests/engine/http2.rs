//! HTTP/2 on both sides: gRPC with its trailers, refused streams, GOAWAY.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use meshgate_proxy::{
    EndpointSpec, EngineOptions, ListenerLimits, Policy, Protocol, Service, ServiceSpec,
};
use tokio::net::{TcpListener, TcpStream};

use crate::kit::{Proxy, endpoint, soon};
use crate::ways::{ask_http2, http2_service, read_all, serve_http2};

/// What an HTTP/2 origin does with the n-th stream of all.
type Act = fn(usize) -> Deed;

enum Deed {
    /// Sends the body back, then trailers.
    Echo,
    Refuse,
    Reset,
    /// Says GOAWAY without having looked at the stream.
    GoAway,
}

struct Origin {
    address: SocketAddr,
    streams: Arc<AtomicUsize>,
}

async fn origin(act: Act) -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let streams = Arc::new(AtomicUsize::new(0));
    let count = streams.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let count = count.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    match act(count.fetch_add(1, Ordering::SeqCst)) {
                        Deed::Echo => {
                            tokio::spawn(echo(request, respond));
                        }
                        Deed::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
                        Deed::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
                        Deed::GoAway => {
                            respond.send_reset(Reason::REFUSED_STREAM);
                            connection.graceful_shutdown();
                        }
                    }
                }
            });
        }
    });
    Origin { address, streams }
}

async fn echo(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let te = request.headers().get("te").cloned();
    let mut answer = Response::builder().header("content-type", "application/grpc");
    if let Some(te) = te {
        answer = answer.header("seen-te", te);
    }
    let mut send = respond
        .send_response(answer.body(()).unwrap(), false)
        .unwrap();
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        send.send_data(data, false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    send.send_trailers(trailers).unwrap();
}

fn service(origins: &[&Origin]) -> Service {
    let endpoints: Vec<EndpointSpec> = origins
        .iter()
        .map(|origin| endpoint(origin.address, &origin.address.to_string()))
        .collect();
    let spec = ServiceSpec {
        name: "shop/web:80".into(),
        protocol: Protocol::Http2,
        addresses: vec![],
        endpoints,
        policy: Policy::default(),
    };
    Service::new(spec, None)
}

/// One gRPC-like exchange over HTTP/2 with prior knowledge: status, body, trailers.
async fn call(proxy: &Proxy, body: &'static str) -> (u16, HeaderMap, String, Option<HeaderMap>) {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::post("http://a.test/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (answer, mut send) = client.send_request(request, false).unwrap();
    send.send_data(Bytes::from_static(body.as_bytes()), true)
        .unwrap();
    let answer = soon(answer).await.unwrap();
    let (head, mut stream) = answer.into_parts();
    let mut text = Vec::new();
    while let Some(Ok(data)) = soon(stream.data()).await {
        stream.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    let trailers = soon(stream.trailers()).await.unwrap_or_default();
    driver.abort();
    let text = String::from_utf8(text).unwrap();
    (head.status.as_u16(), head.headers, text, trailers)
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let origin = origin(|_| Deed::Echo).await;
    let proxy = Proxy::edge(service(&[&origin]));
    let (status, headers, body, trailers) = call(&proxy, "message").await;
    assert_eq!((status, body.as_str()), (200, "message"));
    assert_eq!(headers["seen-te"], "trailers");
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn refused_streams_cost_no_request() {
    for act in [
        (|count| {
            if count % 2 == 0 {
                Deed::Refuse
            } else {
                Deed::Echo
            }
        }) as Act,
        |count| {
            if count % 2 == 0 {
                Deed::GoAway
            } else {
                Deed::Echo
            }
        },
    ] {
        let origin = origin(act).await;
        let proxy = Proxy::edge(service(&[&origin]));
        for _ in 0..5 {
            let (status, _, body, trailers) = call(&proxy, "again").await;
            assert_eq!((status, body.as_str()), (200, "again"));
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
        assert_eq!(origin.streams.load(Ordering::SeqCst), 10);
    }
}

#[tokio::test]
async fn a_reset_is_told_in_grpcs_way_and_not_repeated() {
    let origin = origin(|_| Deed::Reset).await;
    let proxy = Proxy::edge(service(&[&origin]));
    let (status, headers, _, _) = call(&proxy, "x").await;
    assert_eq!(
        (status, &headers["grpc-status"]),
        (200, &"14".parse().unwrap())
    );
    assert!(
        headers["meshgate-reason"]
            .to_str()
            .unwrap()
            .starts_with("upstream-reset; ")
    );
    assert_eq!(origin.streams.load(Ordering::SeqCst), 1);
}

/// A call has as many messages as it likes; other bodies have a limit.
#[tokio::test]
async fn a_stream_of_grpc_has_no_size() {
    let (address, _origin) = serve_http2(|request, mut respond| async move {
        let Ok((body, _)) = read_all(request.into_body()).await else {
            return;
        };
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        let _ = send.send_data(body.into(), true);
    })
    .await;
    let limits = ListenerLimits {
        body_bytes_max: Some(8),
        ..ListenerLimits::default()
    };
    let proxy = Proxy::edge_with(http2_service(address), EngineOptions::default(), limits);
    for (kind, status) in [("application/grpc+proto", 200), ("text/plain", 413)] {
        let request = Request::post("http://a.test/pkg.Service/Method")
            .header("content-type", kind)
            .body(())
            .unwrap();
        let pieces = ["piece"; 4];
        let answer = ask_http2(proxy.address(), request, &pieces, None).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{kind}");
        if status == 200 {
            assert_eq!(answer.body.unwrap().0, pieces.concat());
        }
    }
}
