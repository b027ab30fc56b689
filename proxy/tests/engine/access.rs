//! Who may ask an edge: by address, method, path and host, whatever the client speaks.

use std::sync::Arc;

use http::Request;
use meshgate_proxy::{EngineOptions, ListenerLimits, Policy, Services, Snapshot};
use meshgate_routing::permit::access::{AccessFrom, AccessTo};
use meshgate_routing::permit::{AccessRule, AccessRules};
use meshgate_routing::route::{HostName, PathKind, PathMatch};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::kit::{
    Origin, Proxy, everything_permitted, field, ok, read_message, say, service, soon, status_of,
};
use crate::ways::ask_http2;

/// Who asks from `blocks`; `!` before those that are excepted.
pub(crate) fn from(blocks: &[&str]) -> AccessRule {
    let nets = |not: bool| {
        let nets = blocks.iter().filter(|block| block.starts_with('!') == not);
        let nets = nets.map(|block| block.trim_start_matches('!').parse().unwrap());
        nets.collect()
    };
    let from = AccessFrom {
        ip_blocks: nets(false),
        not_ip_blocks: nets(true),
        ..AccessFrom::default()
    };
    AccessRule {
        from: vec![from],
        origin: "shop/policy".into(),
        ..AccessRule::default()
    }
}

/// What is asked: `METHOD host/path`, each `*` if it does not matter.
fn what(asked: &str) -> AccessRule {
    let (method, rest) = asked.split_once(' ').unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap());
    let given = |text: &str| (text != "*").then(|| text.to_owned());
    let to = AccessTo {
        methods: given(method).into_iter().collect(),
        hosts: given(host)
            .iter()
            .map(|host| HostName::parse(host).unwrap())
            .collect(),
        paths: vec![PathMatch::new(PathKind::Prefix, path).unwrap()],
        ..AccessTo::default()
    };
    AccessRule {
        to: vec![to],
        ..AccessRule::default()
    }
}

fn deny(rule: AccessRule) -> AccessRule {
    AccessRule { deny: true, ..rule }
}

fn audit(rule: AccessRule) -> AccessRule {
    AccessRule {
        audit: true,
        ..rule
    }
}

/// What everybody may ask of that origin by these rules.
pub(crate) fn guard(proxy: &Proxy, origin: &Origin, rules: Vec<AccessRule>) {
    proxy.engine.swap(guarded(origin, rules));
}

fn guarded(origin: &Origin, rules: Vec<AccessRule>) -> Snapshot {
    let rules = AccessRules {
        enforced: true,
        rules,
    };
    let web = service(&[origin], Policy::default());
    everything_permitted(web, Vec::new(), Some(Arc::new(rules)))
}

/// An edge that believes what its peer, which is this test, says of the client.
fn believing(origin: &Origin) -> Proxy {
    let options = EngineOptions {
        trusted_peers: vec!["127.0.0.0/8".parse().unwrap()],
        ..EngineOptions::default()
    };
    let web = service(&[origin], Policy::default());
    Proxy::edge_with(web, options, ListenerLimits::default())
}

/// Asks `CLIENT METHOD host/path` by HTTP/1 and by HTTP/2; the status, which is the same.
async fn ask(proxy: &Proxy, asked: &str) -> u16 {
    let parts: Vec<&str> = asked.split(' ').collect();
    let [client, method, url] = parts[..] else {
        panic!("{asked}: CLIENT METHOD host/path");
    };
    let (host, path) = url.split_at(url.find('/').unwrap());
    let answer = proxy
        .raw(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {client}\r\nX-Real-IP: 10.0.0.1\r\nConnection: close\r\n\r\n"))
        .await;
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{url}"))
        .header("x-forwarded-for", client)
        .header("x-real-ip", "10.0.0.1")
        .body(())
        .unwrap();
    let other = ask_http2(proxy.address(), request, &[], None)
        .await
        .unwrap();
    assert_eq!(status_of(&answer), other.status, "{asked}: {answer}");
    if other.status == 403 {
        assert_eq!(field(&answer, "meshgate-reason"), Some("access-denied"));
        assert_eq!(other.fields["meshgate-reason"], "access-denied");
        assert!(!answer.contains("shop/policy"), "{answer}");
    }
    other.status
}

/// By these rules each of `asked` is answered so, and only what is permitted reaches the origin.
async fn check(rules: Vec<AccessRule>, asked: &[(&str, u16)]) {
    let origin = Origin::start(ok("")).await;
    let proxy = believing(&origin);
    guard(&proxy, &origin, rules);
    for (asked, expected) in asked {
        let before = origin.seen().len();
        assert_eq!(ask(&proxy, asked).await, *expected, "{asked}");
        let reached = if *expected == 200 { 2 } else { 0 };
        assert_eq!(origin.seen().len() - before, reached, "{asked}");
    }
}

#[tokio::test]
async fn by_address() {
    let rules = vec![
        from(&["10.0.0.0/8", "!10.1.0.0/16", "2001:db8::/32"]),
        // The trusted peer that speaks for the others.
        from(&["127.0.0.0/8"]),
        deny(from(&["10.2.0.0/16"])),
    ];
    let asked = [
        ("10.0.0.1:4321 GET a.test/", 200),
        ("192.0.2.1:4321 GET a.test/", 403),
        ("[2001:db8::7]:4321 GET a.test/", 200),
        // Nobody knows who that is: not the peer.
        ("somebody GET a.test/", 403),
        ("10.0.0.1,unknown GET a.test/", 403),
        ("10.0.0.1 GET a.test/", 200),
        ("10.1.0.1 GET a.test/", 403),
        ("10.2.0.1 GET a.test/", 403),
        ("192.0.2.1 GET a.test/", 403),
        ("2001:db8::7 GET a.test/", 200),
        ("2001:db9::7 GET a.test/", 403),
        // What an IPv4 client is to a socket of IPv6.
        ("::ffff:10.0.0.1 GET a.test/", 200),
        ("::ffff:10.2.0.1 GET a.test/", 403),
        // The last that nobody trusted said it.
        ("10.0.0.1,192.0.2.1 GET a.test/", 403),
        ("192.0.2.1,10.0.0.1 GET a.test/", 200),
    ];
    check(rules, &asked).await;
}

/// What is wrong behind a rule is for those whom it lets in.
#[tokio::test]
async fn a_refused_client_learns_nothing_of_what_is_broken() {
    let origin = Origin::start(ok("")).await;
    let proxy = believing(&origin);
    proxy.engine.swap(Snapshot {
        services: Services::default(),
        ..guarded(&origin, vec![from(&["10.0.0.0/8"])])
    });
    assert_eq!(ask(&proxy, "192.0.2.1 GET a.test/").await, 403);
    assert_eq!(ask(&proxy, "10.0.0.1 GET a.test/").await, 503);
}

#[tokio::test]
async fn by_method_path_and_host() {
    let rules = vec![
        what("GET */"),
        what("POST a.test/items"),
        what("PUT *.a.test/"),
        deny(what("* */items/secret")),
        deny(what("* closed.test/")),
    ];
    let asked = [
        ("10.0.0.1 GET a.test/x", 200),
        ("10.0.0.1 DELETE a.test/x", 403),
        ("10.0.0.1 POST a.test/items/1?q=2", 200),
        ("10.0.0.1 POST A.Test:81/items", 200),
        ("10.0.0.1 POST a.test/itemsfold", 403),
        ("10.0.0.1 POST b.test/items", 403),
        ("10.0.0.1 PUT x.a.test/", 200),
        ("10.0.0.1 PUT a.test/", 403),
        ("10.0.0.1 GET a.test/items/secret", 403),
        ("10.0.0.1 GET a.test/items/x/../%73ecret/1", 403),
        ("10.0.0.1 GET closed.test/", 403),
        ("10.0.0.1 GET closed.test./", 403),
    ];
    check(rules, &asked).await;
}

#[tokio::test]
async fn nobody_has_an_identity_and_without_rules_nobody_may_ask() {
    let identities = AccessFrom {
        identities: vec!["spiffe://cluster.local/ns/shop/sa/front".into()],
        ..AccessFrom::default()
    };
    let namespaces = AccessFrom {
        namespaces: vec!["shop".into()],
        ..AccessFrom::default()
    };
    let mesh = AccessRule {
        from: vec![identities, namespaces],
        ..AccessRule::default()
    };
    let asks = |expected| [("10.0.0.1 GET a.test/", expected)];
    check(vec![mesh.clone()], &asks(403)).await;
    check(vec![AccessRule::default(), deny(mesh)], &asks(200)).await;
    check(vec![], &asks(403)).await;
}

#[tokio::test]
async fn what_is_only_audited_passes() {
    let asked = [
        ("10.0.0.1 GET a.test/", 200),
        ("192.0.2.1 GET a.test/", 200),
    ];
    check(vec![audit(from(&["10.0.0.0/8"]))], &asked).await;
    let everything = deny(audit(AccessRule::default()));
    check(vec![everything], &asked).await;
}

/// What a client says of itself is no address; and its connection lives on.
#[tokio::test]
async fn a_client_is_refused_request_by_request() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    let rules = vec![from(&["127.0.0.1/32"]), deny(what("* */admin"))];
    guard(&proxy, &origin, rules);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let mut buffer = Vec::new();
    for (path, expected) in [("/", 200), ("/admin", 403), ("/x", 200), ("/admin/x", 403)] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.0.0.1\r\nContent-Length: 2\r\n\r\nab"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = soon(read_message(&mut client, &mut buffer)).await.unwrap();
        assert_eq!(status_of(&answer), expected, "{path}: {answer}");
    }
    guard(&proxy, &origin, vec![from(&["10.0.0.0/8"])]);
    let request =
        "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: close\r\n\r\n";
    let answer = say(&mut client, request).await;
    assert_eq!(status_of(&answer), 403, "{answer}");
    assert_eq!(origin.seen().len(), 2);
    let metrics = proxy.engine.metrics().render();
    let refused = metrics
        .lines()
        .filter(|line| line.starts_with("meshgate_requests_total{"))
        .find(|line| line.contains("reason=\"access-denied\""));
    assert!(refused.unwrap().ends_with(" 3"), "{metrics}");
}

#[tokio::test]
async fn a_refusal_of_grpc_is_one() {
    let origin = Origin::start(ok("")).await;
    let proxy = Proxy::edge(service(&[&origin], Policy::default()));
    guard(&proxy, &origin, vec![from(&["10.0.0.0/8"])]);
    let call = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let answer = proxy.raw(call).await;
    let code = field(&answer, "grpc-status");
    assert_eq!((status_of(&answer), code), (200, Some("7")), "{answer}");
    assert!(origin.seen().is_empty());
}
