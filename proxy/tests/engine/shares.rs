//! One client address takes much of a service, but never the last quarter from others.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use meshgate_proxy::{EngineOptions, Limits, ListenerKind, ListenerLimits, Policy};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::by_hand::{CHUNKED, post};
use crate::frames::{self, CANCEL, Heard, PREFACE, Peer, reset, settings};
use crate::kit::{
    Origin, Proxy, everything_to, field, get, ok, read_message, say, service, soon, status_of,
    until,
};

/// Requests that the service takes at once, and what of them one address gets.
const LIMIT: u32 = 16;
const OF_ONE: usize = 12;
/// Requests with bodies that never come.
const GREED: usize = 30;

const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

const SPENT: &str = "overload; requests: this client address has its share";

/// Two listeners that lead to one service, neither with a limit of connections. Waiting takes longer than a test may.
fn start(origin: &Origin, options: EngineOptions, patience: Duration) -> Proxy {
    let policy = Policy {
        limits: Limits {
            requests: LIMIT,
            pending_timeout: patience,
            ..Policy::default().limits
        },
        ..Policy::default()
    };
    let limits = ListenerLimits {
        connections_per_client: 0,
        ..ListenerLimits::default()
    };
    let proxy = Proxy::start(options, [(ListenerKind::EdgeHttp, limits); 2]);
    let web = service(&[origin], policy);
    proxy.engine.swap(everything_to(web, Vec::new()));
    proxy
}

const LONG: Duration = Duration::from_secs(300);

async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn ask(from: Ipv4Addr, to: SocketAddr) -> String {
    say(&mut connect(from, to).await, &get("/")).await
}

/// What a client holds until it lets go, and the reasons of those of its requests that were refused.
struct Held<T> {
    holds: T,
    refused: Vec<String>,
}

async fn hold_http2(from: Ipv4Addr, to: SocketAddr, refusals: usize) -> Held<Peer> {
    let mut peer = Peer::new(connect(from, to).await, false);
    let posts = (0..GREED as u32).flat_map(|index| frames::post(1 + 2 * index));
    let beginning = [PREFACE, &settings(&[])].concat();
    peer.say(&beginning.into_iter().chain(posts).collect::<Vec<_>>())
        .await;
    let mut refused = Vec::new();
    while refused.len() < refusals {
        match peer.next().await {
            Heard::Head(_, 503, fields, _) => {
                let mut fields = fields.split('|');
                let reason = fields.find_map(|line| line.strip_prefix("meshgate-reason="));
                refused.push(reason.unwrap().to_owned());
            }
            heard @ (Heard::Head(..) | Heard::Closed | Heard::GoAway(..)) => panic!("{heard:?}"),
            _ => {}
        }
    }
    Held {
        holds: peer,
        refused,
    }
}

async fn hold_http1(from: Ipv4Addr, to: SocketAddr, refusals: usize) -> Held<JoinSet<String>> {
    let mut holds = JoinSet::new();
    for _ in 0..GREED {
        let mut stream = connect(from, to).await;
        let request = post(CHUNKED, "");
        stream.write_all(request.as_bytes()).await.unwrap();
        holds.spawn(async move { read_message(&mut stream, &mut Vec::new()).await.unwrap() });
    }
    let mut refused = Vec::new();
    while refused.len() < refusals {
        let answer = soon(holds.join_next()).await.unwrap().unwrap();
        assert_eq!(status_of(&answer), 503, "{answer}");
        refused.push(field(&answer, "meshgate-reason").unwrap().to_owned());
    }
    Held { holds, refused }
}

/// While one address holds all that it gets, and after it has let go.
async fn check<T>(proxy: &Proxy, held: Held<T>) {
    assert_eq!(held.refused, [SPENT; GREED - OF_ONE]);
    for &to in &proxy.addresses {
        // By whichever way it comes.
        let refused = ask(GREEDY, to).await;
        assert_eq!(field(&refused, "meshgate-reason"), Some(SPENT), "{refused}");
        for _ in 0..LIMIT {
            let last_quarter = (0..4).map(|_| ask(OTHER, to));
            for answer in join_all(last_quarter).await {
                assert_eq!(status_of(&answer), 200, "{answer}");
            }
        }
    }
    drop(held);
    let none = "meshgate_connections_open{listener=\"http\"} 0";
    until(|| proxy.engine.metrics().render().contains(none)).await;
    assert_eq!(status_of(&ask(GREEDY, proxy.address()).await), 200);
}

#[tokio::test]
async fn the_last_quarter_of_a_service_is_for_others() {
    let origin = Origin::start(ok("")).await;
    let proxy = start(&origin, EngineOptions::default(), LONG);
    let spent = GREED - OF_ONE;
    // Whatever was let go is there for the next.
    for _ in 0..2 {
        check(&proxy, hold_http2(GREEDY, proxy.address(), spent).await).await;
        check(&proxy, hold_http1(GREEDY, proxy.address(), spent).await).await;
    }
}

#[tokio::test]
async fn a_place_that_becomes_free_is_for_who_waits() {
    let origin = Origin::start(ok("")).await;
    let proxy = start(&origin, EngineOptions::default(), LONG);
    let to = proxy.address();
    let mut greedy = hold_http2(GREEDY, to, GREED - OF_ONE).await;
    let mut others = Vec::new();
    for seen in 1..=LIMIT as usize - OF_ONE {
        let mut other = connect(OTHER, to).await;
        other.write_all(post(CHUNKED, "").as_bytes()).await.unwrap();
        others.push(other);
        until(|| origin.connections() == OF_ONE + seen).await;
    }
    // Full: whoever holds little waits, and whoever holds much does not.
    let waits = tokio::spawn(ask(OTHER, to));
    let refused = ask(GREEDY, to).await;
    assert_eq!(field(&refused, "meshgate-reason"), Some(SPENT), "{refused}");
    greedy.holds.say(&reset(1, CANCEL)).await;
    assert_eq!(status_of(&soon(waits).await.unwrap()), 200);
}

/// It stands for many clients.
#[tokio::test]
async fn a_trusted_peer_takes_all_and_waits() {
    let origin = Origin::start(ok("")).await;
    let options = EngineOptions {
        trusted_peers: vec!["127.0.0.0/8".parse().unwrap()],
        ..EngineOptions::default()
    };
    let proxy = start(&origin, options, Duration::from_millis(50));
    let beyond = GREED - LIMIT as usize;
    let held = hold_http2(GREEDY, proxy.address(), beyond).await;
    let in_vain = "overload; requests: none became free in time";
    assert_eq!(held.refused, vec![in_vain; beyond]);
}
