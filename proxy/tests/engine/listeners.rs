//! Listeners that come and go while others serve.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshgate_proxy::{
    Engine, EngineOptions, Listener, ListenerKind, ListenerLimits, Policy, listen,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::kit::{
    Act, Origin, Proxy, endpoint, everything_to, field, get, ok, raw, read_message, service,
    service_of, soon, status_of, until,
};

const KEPT: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

fn listener(name: &str) -> (Listener, SocketAddr) {
    let sockets = listen::bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let listener = Listener {
        name: name.into(),
        sockets,
        kind: ListenerKind::EdgeHttp,
        limits: ListenerLimits::default(),
        proxies: Vec::new(),
    };
    (listener, address)
}

fn two_workers(origin: &Origin, drain: Duration) -> Proxy {
    let options = EngineOptions {
        workers: 2,
        drain,
        ..EngineOptions::default()
    };
    let web = service(&[origin], Policy::default());
    Proxy::edge_with(web, options, ListenerLimits::default())
}

/// Four clients ask so often for 2,000 requests a second.
const PACE: Duration = Duration::from_millis(4);

/// Asks on one connection after the other, and on one that is kept, until the end; how often that was.
async fn load(to: SocketAddr, end: CancellationToken) -> usize {
    let mut kept = TcpStream::connect(to).await.unwrap();
    let (mut buffer, mut asked) = (Vec::new(), 0);
    let mut pace = tokio::time::interval(PACE);
    while !end.is_cancelled() {
        pace.tick().await;
        kept.write_all(KEPT.as_bytes()).await.unwrap();
        let answer = soon(read_message(&mut kept, &mut buffer)).await;
        assert_eq!(status_of(&answer.expect("it is kept")), 200);
        assert_eq!(status_of(&raw(to, &get("/")).await), 200);
        asked += 2;
    }
    asked
}

/// Waits until nobody listens there any more.
async fn refused(at: SocketAddr) {
    soon(async {
        loop {
            match TcpStream::connect(at).await {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
                // Let in before the end, and served or reset with it.
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_come_and_go_under_load_and_no_request_fails() {
    let origin = Origin::start(ok("x")).await;
    let proxy = Arc::new(two_workers(&origin, Duration::from_secs(25)));
    let (end, mut clients) = (CancellationToken::new(), JoinSet::new());
    for _ in 0..4 {
        clients.spawn(load(proxy.address(), end.clone()));
    }
    for round in 0..20 {
        let name = format!("extra-{round}");
        let (extra, at) = listener(&name);
        proxy.engine.open(extra).unwrap();
        let mut kept = TcpStream::connect(at).await.unwrap();
        // Let in, and perhaps not accepted yet: who stands before the door is served.
        let waiting = TcpStream::connect(at).await.unwrap();
        let mut buffer = Vec::new();
        kept.write_all(KEPT.as_bytes()).await.unwrap();
        let answer = soon(read_message(&mut kept, &mut buffer)).await.unwrap();
        assert_eq!(status_of(&answer), 200, "{answer}");
        assert!(proxy.engine.close(&name));
        refused(at).await;
        for mut stream in [kept, waiting] {
            stream.write_all(KEPT.as_bytes()).await.unwrap();
            let mut last = String::new();
            soon(stream.read_to_string(&mut last)).await.unwrap();
            assert_eq!(status_of(&last), 200, "round {round}: {last}");
            assert_eq!(field(&last, "connection"), Some("close"), "{last}");
        }
    }
    end.cancel();
    let mut asked = 0;
    while let Some(client) = clients.join_next().await {
        asked += client.expect("no request fails");
    }
    assert!(asked > 40, "the load was steady: {asked}");
    assert!(!proxy.engine.close("extra-0"), "it is closed already");
}

#[tokio::test]
async fn one_takes_the_place_of_another_of_its_name() {
    let origin = Origin::start(ok("x")).await;
    let proxy = two_workers(&origin, Duration::from_secs(25));
    let (first, old) = listener("web");
    let (second, new) = listener("web");
    proxy.engine.open(first).unwrap();
    assert_eq!(status_of(&raw(old, &get("/")).await), 200);
    proxy.engine.open(second).unwrap();
    refused(old).await;
    assert_eq!(status_of(&raw(new, &get("/")).await), 200);
    // What would be handed over is what is open.
    let sockets = proxy.engine.sockets().unwrap();
    let mut at: Vec<SocketAddr> = sockets
        .iter()
        .map(|(_, socket)| socket.local_addr().unwrap())
        .collect();
    at.sort();
    let mut expected = vec![proxy.address(), proxy.address(), new, new];
    expected.sort();
    assert_eq!(at, expected);
}

#[tokio::test]
async fn what_does_not_end_with_its_listener_is_cut_and_others_live_on() {
    let origin = Origin::start(Act::Hang).await;
    let proxy = two_workers(&origin, Duration::from_millis(300));
    let (extra, at) = listener("extra");
    proxy.engine.open(extra).unwrap();
    let mut hanging = Vec::new();
    for to in [at, proxy.address()] {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(KEPT.as_bytes()).await.unwrap();
        hanging.push(stream);
    }
    until(|| origin.seen().len() == 2).await;
    proxy.engine.close("extra");
    let mut answer = Vec::new();
    let _reset = soon(hanging[0].read_to_end(&mut answer)).await;
    assert_eq!(String::from_utf8_lossy(&answer), "");
    // The same request at another listener still hangs, and new ones are served.
    let nothing = hanging[1].try_read(&mut [0; 16]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    origin.always(ok("x"));
    assert_eq!(status_of(&proxy.get("/").await), 200);
}

#[tokio::test]
async fn http2_is_told_to_go_and_what_it_asked_is_answered() {
    let origin = Origin::start(Act::Hang).await;
    let proxy = two_workers(&origin, Duration::from_secs(25));
    let (extra, at) = listener("extra");
    proxy.engine.open(extra).unwrap();
    // The endpoint answers when the listener is closed already.
    let late = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = endpoint(late.local_addr().unwrap(), "late");
    let web = service_of(vec![endpoint], Policy::default(), None);
    proxy.engine.swap(everything_to(web, vec![]));
    let stream = TcpStream::connect(at).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = || http::Request::get("http://a.test/").body(()).unwrap();
    let (answer, _) = client.send_request(request(), true).unwrap();
    let late = TcpListener::from_std({
        late.set_nonblocking(true).unwrap();
        late
    });
    let (mut reached, _) = soon(late.unwrap().accept()).await.unwrap();
    proxy.engine.close("extra");
    refused(at).await;
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    reached.write_all(said.as_bytes()).await.unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "x");
    drop(body);
    soon(driver).await.unwrap().expect("an orderly end");
    assert!(client.ready().await.is_err(), "it takes nothing new");
}

#[tokio::test]
async fn one_that_is_closed_before_the_engine_runs_is_closed() {
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let (extra, at) = listener("extra");
    engine.open(extra).unwrap();
    TcpStream::connect(at).await.expect("it waits");
    assert!(engine.close("extra"));
    refused(at).await;
}

#[tokio::test]
async fn an_engine_that_ends_opens_nothing() {
    let origin = Origin::start(ok("x")).await;
    let mut proxy = two_workers(&origin, Duration::from_secs(1));
    proxy.shutdown.cancel();
    soon(&mut proxy.running).await.unwrap().unwrap();
    let refused = proxy.engine.open(listener("late").0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the engine opens no listener any more: it is ending"
    );
    assert!(proxy.engine.sockets().unwrap().is_empty());
}
