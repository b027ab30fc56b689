//! Spans as a collector gets them, beside what the origin was told of the same trace.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use meshgate_proxy::trace::{Sampler, TraceOptions};
use meshgate_proxy::{
    EngineOptions, ListenerKind, ListenerLimits, OriginalDestination, Policy, Protocol,
};
use meshgate_routing::upstream::{Backoff, RetryOn, RetryPolicy};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::collector::{Collector, Manner, Span, to, traced};
use crate::kit::{
    Act, Origin, Proxy, everything_to, field, get, ok, service, service_of, status, status_of,
    until,
};
use crate::mesh::{Mesh, Pair, strict};
use crate::ways::{ask_http2, http2_service, reached_at, serve_http2};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A request that is part of a trace.
fn asked(flags: &str) -> String {
    format!(
        "GET /items?secret=1 HTTP/1.1\r\nHost: a.test:81\r\nUser-Agent: test\r\nTraceparent: 00-{TRACE}-{CALLER}-{flags}\r\n\
         Tracestate: a=b\r\nConnection: close\r\n\r\n"
    )
}

fn edge(origin: &Origin, options: EngineOptions) -> Proxy {
    let web = service(&[origin], Policy::default());
    Proxy::edge_with(web, options, ListenerLimits::default())
}

/// A sidecar of whoever is at the end of that direction.
fn sidecar(kind: ListenerKind, application: SocketAddr, trace: TraceOptions) -> Proxy {
    let options = EngineOptions {
        application_address: Some(application.ip()),
        ..traced(trace)
    };
    let proxy = Proxy::start(options, [(kind, ListenerLimits::mesh())]);
    proxy.engine.swap(reached_at(application));
    proxy
}

/// From the caller's span on, each is the parent of the next, and the last is what the origin was told.
#[track_caller]
fn check_chain(way: &str, spans: &[Span], kinds: &[&str], told: &str) {
    let mut parent = CALLER;
    let mut seen = Vec::new();
    while let Some(span) = spans.iter().find(|span| span.parent == parent) {
        assert_eq!(
            (&*span.trace, &*span.state),
            (TRACE, "a=b"),
            "{way}: {span:?}"
        );
        let (started, ended) = span.times;
        assert!(started > 0 && started <= ended, "{way}: {span:?}");
        assert!(!span.is_error, "{way}: {span:?}");
        seen.push(span.kind);
        parent = &span.id;
    }
    assert_eq!(seen, kinds, "{way}: {spans:#?}");
    assert_eq!(spans.len(), kinds.len(), "{way}: {spans:#?}");
    assert_eq!(told, format!("00-{TRACE}-{parent}-01"), "{way}");
}

#[tokio::test]
async fn each_proxy_adds_a_span_of_its_own_and_one_of_its_call() {
    for way in ["edge", "outbound", "inbound", "mesh"] {
        let collector = Collector::start(Manner::Take).await;
        let origin = Origin::start(ok("hello")).await;
        let trace = || to(collector.address);
        let address = OriginalDestination::Fixed(origin.address);
        let mut proxies = match way {
            "edge" => vec![edge(&origin, traced(trace()))],
            "outbound" => {
                let kind = ListenerKind::Outbound(address);
                vec![sidecar(kind, origin.address, trace())]
            }
            "inbound" => {
                let kind = ListenerKind::InboundPlain(address);
                vec![sidecar(kind, origin.address, trace())]
            }
            _ => {
                let options = [traced(trace()), traced(trace())];
                let mesh = Mesh::new();
                let pair = Pair::start_with(
                    &mesh,
                    (origin.address, Protocol::Auto),
                    "web",
                    strict(),
                    options,
                );
                vec![pair.client, pair.server]
            }
        };
        let answer = proxies[0].raw(&asked("01")).await;
        assert_eq!(status_of(&answer), 200, "{way}: {answer}");
        let request = &origin.seen()[0];
        assert_eq!(field(request, "tracestate"), Some("a=b"), "{way}");
        let told = field(request, "traceparent").unwrap();
        let kinds = ["server", "client"].repeat(proxies.len());
        for proxy in &mut proxies {
            proxy.end().await;
        }
        check_chain(way, &collector.spans(), &kinds, told);
    }
}

#[tokio::test]
async fn http2_has_the_same_spans_on_both_sides() {
    let collector = Collector::start(Manner::Take).await;
    let told = Arc::new(Mutex::new(String::new()));
    let noted = told.clone();
    let (origin, _serving) = serve_http2(move |request, mut respond| {
        let said = request.headers()["traceparent"]
            .to_str()
            .unwrap()
            .to_owned();
        *noted.lock().unwrap() = said;
        async move {
            let _ = respond.send_response(Response::new(()), true);
        }
    })
    .await;
    let options = traced(to(collector.address));
    let web = http2_service(origin);
    let mut proxy = Proxy::edge_with(web, options, ListenerLimits::default());
    let request = Request::get("http://a.test/items")
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .header("tracestate", "a=b");
    let request = request.body(()).unwrap();
    let answer = ask_http2(proxy.address(), request, &[], None).await;
    assert_eq!(answer.unwrap().status, 200);
    proxy.end().await;
    let spans = collector.spans();
    check_chain("edge", &spans, &["server", "client"], &told.lock().unwrap());
    for span in &spans {
        assert_eq!(span.said("network.protocol.version"), "2", "{span:?}");
    }
}

#[tokio::test]
async fn spans_speak_the_words_of_the_semantic_conventions() {
    let collector = Collector::start(Manner::Take).await;
    let origin = Origin::start(ok("hello")).await;
    let mut proxy = edge(&origin, traced(to(collector.address)));
    proxy.raw(&asked("01")).await;
    proxy.end().await;
    let spans = collector.spans();
    let [server, client] = &spans[..] else {
        panic!("{spans:#?}")
    };
    let request = &origin.seen()[0];
    let request_id = field(request, "x-request-id").unwrap();
    for span in [server, client] {
        assert_eq!((&*span.name, &*span.service), ("GET", "proxy"));
        for (name, expected) in [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("server.address", "a.test"),
            ("server.port", "81"),
            ("network.protocol.version", "1.1"),
            ("error.type", ""),
            ("http.request.resend_count", ""),
        ] {
            assert_eq!(span.said(name), expected, "{name} of {span:#?}");
        }
        let all = format!("{span:?}");
        assert!(
            !all.contains("secret"),
            "queries are nobody's business: {all}"
        );
    }
    for (name, expected) in [
        ("url.scheme", "http"),
        ("url.path", "/items"),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "test"),
        ("http.response.body.size", "5"),
        ("meshgate.direction", "edge"),
        ("meshgate.route", "ingress/shop/web"),
        ("meshgate.service", "shop/web:80"),
    ] {
        assert_eq!(server.said(name), expected, "{name} of {server:#?}");
    }
    assert!(
        server
            .said("http.request.header.x-request-id")
            .contains(request_id)
    );
    let port = origin.address.port().to_string();
    for (name, expected) in [
        ("url.full", "http://a.test:81/items"),
        ("network.peer.address", "127.0.0.1"),
        ("network.peer.port", &port),
        ("meshgate.pod", "pod-0"),
    ] {
        assert_eq!(client.said(name), expected, "{name} of {client:#?}");
    }
    // Of another process, and not.
    assert_eq!((server.flags, client.flags), (0x301, 0x101));
}

#[tokio::test]
async fn who_decides_what_is_sampled() {
    const ALL: &str = "1";
    const NONE: &str = "0";
    let kept = |flags: &str| format!("00-{TRACE}-{CALLER}-{flags}");
    // What comes, who decides, whether there are spans, and what the origin is told: that very text, or the flags of a span
    // of that trace, or of a new trace.
    let check = async |said: Option<String>, parent_based, root: &str, sampled, told: &str| {
        let collector = Collector::start(Manner::Take).await;
        let origin = Origin::start(ok("")).await;
        let trace = TraceOptions {
            sampler: Sampler {
                parent_based,
                root: root.parse().unwrap(),
            },
            ..to(collector.address)
        };
        let mut proxy = edge(&origin, traced(trace));
        let context = said.as_ref().map_or(String::new(), |said| {
            format!("Traceparent: {said}\r\nTracestate: a=b\r\n")
        });
        let request =
            format!("GET / HTTP/1.1\r\nHost: a.test\r\n{context}Connection: close\r\n\r\n");
        proxy.raw(&request).await;
        proxy.end().await;
        let what = format!("{said:?}, {parent_based}, {root}");
        assert_eq!(
            collector.spans().len(),
            if sampled { 2 } else { 0 },
            "{what}"
        );
        let request = origin.seen().remove(0);
        let heard = field(&request, "traceparent").unwrap();
        let state = field(&request, "tracestate");
        match told {
            "new 00" | "new 01" => {
                assert!(
                    !heard.contains(TRACE) && heard.ends_with(&told[4..]),
                    "{what}: {heard}"
                );
                assert_eq!(state, None, "{what}");
            }
            "own 00" | "own 01" => {
                assert!(
                    heard.contains(TRACE) && heard.ends_with(&told[4..]),
                    "{what}: {heard}"
                );
                assert!(!heard.contains(CALLER), "{what}: {heard}");
                assert_eq!(state, Some("a=b"), "{what}");
            }
            same => assert_eq!((heard, state), (same, Some("a=b")), "{what}"),
        }
    };
    let (on, off) = (Some(kept("01")), Some(kept("00")));
    check(None, true, ALL, true, "new 01").await;
    check(None, true, NONE, false, "new 00").await;
    check(on.clone(), true, NONE, true, "own 01").await;
    check(off.clone(), true, ALL, false, &kept("00")).await;
    check(on, false, NONE, false, "own 00").await;
    check(off, false, ALL, true, "own 01").await;
    for malformed in ["00-0-0-01", "nonsense", &format!("{}-x", kept("01"))] {
        check(Some(malformed.into()), true, ALL, true, "new 01").await;
        check(Some(malformed.into()), true, NONE, false, "new 00").await;
    }
}

#[tokio::test]
async fn a_client_that_nobody_trusts_begins_a_trace() {
    let collector = Collector::start(Manner::Take).await;
    let origin = Origin::start(ok("")).await;
    let options = EngineOptions {
        trusted_peers: Vec::new(),
        ..traced(to(collector.address))
    };
    let mut proxy = edge(&origin, options);
    proxy.raw(&asked("00")).await;
    proxy.end().await;
    let spans = collector.spans();
    assert_eq!(
        (spans.len(), &*spans[0].parent, &*spans[0].state),
        (2, "", "")
    );
    assert_ne!(spans[0].trace, TRACE);
    assert_eq!(spans[0].flags, 0x101);
    assert_eq!(field(&origin.seen()[0], "tracestate"), None);
}

#[tokio::test]
async fn every_attempt_has_a_span() {
    let collector = Collector::start(Manner::Take).await;
    let origin = Origin::start(ok("")).await;
    origin.next([status(503, "no"), Act::Close]);
    let policy = Policy {
        retries: RetryPolicy {
            attempts: 2,
            on: RetryOn::parse(["503", "ResetBeforeResponse"]).unwrap(),
            backoff: Backoff::new(
                std::time::Duration::from_millis(1),
                std::time::Duration::from_millis(2),
            ),
            ..RetryPolicy::default()
        },
        ..Policy::default()
    };
    let web = service(&[&origin], policy);
    let options = traced(to(collector.address));
    let mut proxy = Proxy::edge_with(web, options, ListenerLimits::default());
    assert_eq!(status_of(&proxy.raw(&asked("01")).await), 200);
    proxy.end().await;
    let spans = collector.spans();
    let (servers, clients): (Vec<_>, Vec<_>) = spans.iter().partition(|s| s.kind == "server");
    assert_eq!(
        (servers.len(), servers[0].said("http.response.status_code")),
        (1, "200")
    );
    assert!(!servers[0].is_error);
    let told: Vec<String> = origin
        .seen()
        .iter()
        .map(|r| field(r, "traceparent").unwrap().into())
        .collect();
    let seen: Vec<_> = clients
        .iter()
        .map(|span| {
            assert_eq!(span.parent, servers[0].id);
            let names = [
                "http.request.resend_count",
                "http.response.status_code",
                "error.type",
            ];
            (names.map(|name| span.said(name)), span.is_error)
        })
        .collect();
    let expected = [
        (["", "503", "503"], true),
        (["1", "", "upstream-reset"], true),
        (["2", "200", ""], false),
    ];
    assert_eq!(seen, expected, "{clients:#?}");
    let ids = clients
        .iter()
        .map(|span| format!("00-{TRACE}-{}-01", span.id));
    assert_eq!(ids.collect::<Vec<_>>(), told);
}

#[tokio::test]
async fn failures_have_spans_too() {
    let collector = Collector::start(Manner::Take).await;
    let origin = Origin::start(Act::Hang).await;
    let trace = to(collector.address);
    let empty = service_of(vec![], Policy::default(), None);
    let mut proxy = Proxy::edge_with(empty, traced(trace), ListenerLimits::default());
    assert_eq!(status_of(&proxy.get("/").await), 503);
    // Whose client goes away before its answer.
    let web = service(&[&origin], Policy::default());
    proxy.engine.swap(everything_to(web, Vec::new()));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(get("/").as_bytes()).await.unwrap();
    until(|| !origin.seen().is_empty()).await;
    drop(client);
    until(|| proxy.engine.metrics().render().contains("client-gone")).await;
    origin.always(Act::SayAndClose(
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".into(),
    ));
    proxy.get("/").await;
    proxy.end().await;
    let spans = collector.spans();
    let seen: Vec<_> = spans
        .iter()
        .map(|span| {
            let names = ["http.response.status_code", "error.type", "meshgate.reason"];
            (span.kind, names.map(|name| span.said(name)), span.is_error)
        })
        .collect();
    let expected = [
        ("server", ["503", "no-endpoint", "no-endpoint"], true),
        ("server", ["", "client-gone", "client-gone"], true),
        ("client", ["", "client-gone", ""], true),
        ("server", ["200", "upstream-reset", "upstream-reset"], true),
        ("client", ["200", "upstream-reset", ""], true),
    ];
    assert_eq!(seen, expected, "{spans:#?}");
}
