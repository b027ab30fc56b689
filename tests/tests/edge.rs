//! The edge: routes, TLS, protocols, limits, and objects that cannot be served.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use meshgate_tests::load::{Answer, Life, Load, Opened, Plan, Protocol, Way, failures};
use meshgate_tests::{Cluster, curl, text, tls, until};

fn app(name: &str, replicas: u32) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: {name}
        image: meshgate/meshgate
        args: [echo]
        env: [{{name: SERVICE_NAME, value: {name}}}]
        ports: [{{name: web, containerPort: 3000}}]
        readinessProbe: {{httpGet: {{path: /health, port: web}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: web}}]
---
"#
    )
}

const ROUTES: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: routes}
spec:
  defaultBackend: {service: {name: fallback, port: {number: 80}}}
  rules:
  - host: a.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}
      - {path: /two, pathType: Prefix, backend: {service: {name: two, port: {name: http}}}}
      - {path: /two/exact, pathType: Exact, backend: {service: {name: one, port: {number: 80}}}}
  - host: "*.wild.test"
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: two, port: {number: 80}}}}
  - host: broken.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: missing, port: {number: 80}}}}
"#;

fn served_by(cluster: &Cluster, host: &str, path: &str) -> String {
    let (status, body) = cluster.get(host, path);
    match serde_json::from_str::<serde_json::Value>(&body) {
        Ok(reply) if status == 200 => reply["service"].as_str().unwrap_or("?").to_owned(),
        _ => status.to_string(),
    }
}

#[test]
fn routes_tls_and_protocols() {
    let cluster = Cluster::start(&[]);
    let c = &cluster;
    c.apply(&(app("one", 2) + &app("two", 1) + &app("fallback", 1) + ROUTES));
    for name in ["one", "two", "fallback"] {
        c.kubectl(&[
            "rollout",
            "status",
            &format!("deployment/{name}"),
            "--timeout=60s",
        ]);
    }
    until("routes", || {
        (served_by(c, "a.test", "/") == "one").then_some(())
    });
    for (host, path, wanted) in [
        ("a.test", "/", "one"),
        ("a.test", "/two", "two"),
        ("a.test", "/two/", "two"),
        ("a.test", "/twofold", "one"),
        ("a.test", "/two/exact", "one"),
        ("a.test", "/two/exact/", "two"),
        ("x.wild.test", "/", "two"),
        ("x.y.wild.test", "/", "fallback"),
        ("wild.test", "/", "fallback"),
        ("other.test", "/anything", "fallback"),
        ("broken.test", "/", "503"),
    ] {
        assert_eq!(served_by(c, host, path), wanted, "{host}{path}");
    }
    missing_service(c);
    forwarded_fields(c);
    web_socket(c);
    let cert = tls_by_name(c);
    protocols(c, &cert);
    replaced_secret(c);
}

fn missing_service(c: &Cluster) {
    let (_, head) = curl(&[
        "-i",
        "-H",
        "Host: broken.test",
        &format!("http://{}/", c.http()),
    ]);
    assert!(
        head.to_ascii_lowercase().contains("meshgate-reason:") && head.contains("missing"),
        "{head}"
    );
    until("an event on the Ingress", || {
        let events = c.kubectl(&[
            "get",
            "events",
            "--field-selector",
            "involvedObject.kind=Ingress,type=Warning",
        ]);
        events.contains("missing").then_some(())
    });
    until("the Ingress' address", || {
        c.kubectl(&["get", "ingress", "routes"])
            .contains("127.0.0.1")
            .then_some(())
    });
}

fn forwarded_fields(c: &Cluster) {
    let url = format!("http://{}/", c.http());
    let (_, body) = curl(&[
        "-H",
        "Host: a.test",
        "-H",
        "X-Forwarded-For: 6.6.6.6",
        "-H",
        "X-Forwarded-Client-Cert: URI=spiffe://x",
        &url,
    ]);
    let reply: serde_json::Value = serde_json::from_str(&body).expect("echo answers JSON");
    let field = |name: &str| {
        let fields = reply["headers"].as_object().expect("headers");
        let found = fields
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found
            .map(|(_, value)| value.to_string())
            .unwrap_or_default()
    };
    assert!(
        field("x-forwarded-for").contains("127.0.0.1")
            && !field("x-forwarded-for").contains("6.6.6.6"),
        "{body}"
    );
    assert!(field("x-forwarded-proto").contains("http"), "{body}");
    assert!(field("x-forwarded-host").contains("a.test"), "{body}");
    assert_eq!(field("x-forwarded-client-cert"), "", "{body}");
}

/// A text frame there and back.
fn web_socket(c: &Cluster) {
    let mut stream = TcpStream::connect(c.http()).expect("the edge");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("a request");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream
            .read_exact(&mut byte)
            .expect("the head of the answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{head}"
    );
    stream
        .write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'])
        .expect("a masked frame");
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).expect("the frame comes back");
    assert_eq!(&frame, &[0x81, 2, b'h', b'i']);
}

fn with_tls(names: &[(&str, &str)]) -> String {
    let mut manifest = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: secure}\nspec:\n  tls:\n".to_owned();
    for (host, secret) in names {
        manifest += &format!("  - {{hosts: [{host}], secretName: {secret}}}\n");
    }
    manifest += "  rules:\n";
    for (host, _) in names {
        manifest += &format!(
            "  - host: {host}\n    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: one, port: {{number: 80}}}}}}}}]}}\n"
        );
    }
    manifest
}

fn tls_by_name(c: &Cluster) -> std::path::PathBuf {
    let first = tls::secret(c, "default", "first-tls", "first.test");
    let second = tls::secret(c, "default", "second-tls", "second.test");
    c.apply(&with_tls(&[
        ("first.test", "first-tls"),
        ("second.test", "second-tls"),
        ("nosecret.test", "absent"),
    ]));
    for (host, cert) in [("first.test", &first), ("second.test", &second)] {
        let wanted = Some(tls::serial(cert));
        until("the certificate", || {
            (tls::served_serial(c.https(), host) == wanted).then_some(())
        });
    }
    assert_eq!(
        tls::served_serial(c.https(), "nosecret.test"),
        None,
        "no certificate, no handshake"
    );
    assert_eq!(tls::served_serial(c.https(), "unknown.test"), None);
    until("an event about the Secret", || {
        let events = c.kubectl(&[
            "get",
            "events",
            "--field-selector",
            "involvedObject.name=secure,type=Warning",
        ]);
        events.contains("absent").then_some(())
    });
    first
}

fn protocols(c: &Cluster, cert: &std::path::Path) {
    let port = c.https().rsplit(':').next().expect("a port");
    let resolve = format!("first.test:{port}:127.0.0.1");
    let url = format!("https://first.test:{port}/");
    for (flag, wanted) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = meshgate_tests::run(
            std::process::Command::new("curl")
                .args([
                    "-s",
                    flag,
                    "--resolve",
                    &resolve,
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_version} %{http_code}",
                    "--cacert",
                ])
                .arg(cert)
                .arg(&url),
        );
        assert_eq!(text(&output), format!("{wanted} 200"));
    }
    let plain = format!("http://{}/", c.http());
    let (status, _) = curl(&["--http2-prior-knowledge", "-H", "Host: a.test", &plain]);
    assert_eq!(status, 200, "HTTP/2 without TLS");
}

/// One replacement of the Secret, in the load's time.
struct Swap {
    serial: String,
    applied: Duration,
    /// A handshake of somebody else's showed the new certificate.
    seen: Duration,
    /// Enough requests were asked after that.
    over: Duration,
}

const HTTPS: [Way; 4] = [
    Way(Protocol::Https1, Life::Kept),
    Way(Protocol::Https2, Life::Kept),
    Way(Protocol::Https1, Life::Fresh),
    Way(Protocol::Https2, Life::Fresh),
];

/// Requests to wait for before the first replacement and after each.
const REQUESTS: usize = 120;

/// Under HTTPS, on connections that are kept and on new ones all the time, a Secret is replaced; no request fails.
fn replaced_secret(c: &Cluster) {
    let load = Load::mixed(
        &Plan {
            address: c.https().to_owned(),
            host: "first.test".to_owned(),
            path: "/".to_owned(),
            rate: 200,
            connections: 8,
        },
        &HTTPS,
    );
    more_requests(&load);
    let swaps: Vec<Swap> = (0..3).map(|_| swap(c, &load)).collect();
    let (answers, took) = (load.asked(), load.elapsed());
    let rate = answers as f64 / took.as_secs_f64();
    assert!(rate >= 100.0, "{answers} answers in {took:?}");
    let answers = load.stop();
    assert_eq!(failures(&answers), Vec::<&Answer>::new());
    for way in HTTPS {
        let answers: Vec<&Answer> = answers.iter().filter(|a| a.way == way).collect();
        for swap in &swaps {
            took_up(swap, way, &answers);
        }
        let first = swaps[0].applied;
        let reopened = answers.iter().any(|a| opened(a).at > first);
        assert_eq!(reopened, way.1 == Life::Fresh, "{way:?}: connections go on");
    }
}

fn swap(c: &Cluster, load: &Load) -> Swap {
    let applied = load.elapsed();
    let cert = tls::secret(c, "default", "first-tls", "first.test");
    let serial = tls::serial(&cert);
    until("the new certificate", || {
        let served = tls::served_serial(c.https(), "first.test");
        let served = served.expect("a handshake failed while the Secret was replaced");
        (served == serial).then_some(())
    });
    let seen = load.elapsed();
    more_requests(load);
    Swap {
        serial,
        applied,
        seen,
        over: load.elapsed(),
    }
}

fn more_requests(load: &Load) {
    let before = load.asked();
    until("requests of the load", || {
        (load.asked() >= before + REQUESTS).then_some(())
    });
}

/// Requests were answered while the Secret was replaced and after, and connections from then on show the new certificate.
fn took_up(swap: &Swap, way: Way, answers: &[&Answer]) {
    let within = |from, to| answers.iter().filter(move |a| (from..to).contains(&a.at));
    let during = within(swap.applied, swap.seen).count();
    let after = within(swap.seen, swap.over).count();
    let share = REQUESTS / HTTPS.len() / 2;
    assert!(during >= 5 && after > share, "{way:?}: {during}, {after}");
    let later = within(swap.seen, swap.over).map(|a| opened(a));
    let later: Vec<&Opened> = later.filter(|o| o.at >= swap.seen).collect();
    let fresh = way.1 == Life::Fresh;
    assert!(!fresh || later.len() > share, "{way:?}: {}", later.len());
    let new = |o: &&Opened| o.serial.as_ref() == Some(&swap.serial);
    assert!(
        later.iter().all(new),
        "{way:?}: not {}: {later:?}",
        swap.serial
    );
}

fn opened(answer: &Answer) -> &Opened {
    answer.opened.as_ref().expect("the request was answered")
}

const LIMIT: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: limited}
spec:
  rules:
  - host: limited.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}]}
---
apiVersion: meshgate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: limited}
spec:
  targetRefs: [{group: networking.k8s.io, kind: Ingress, name: limited}]
  limits:
  - {name: all, requests: 100, per: 1s, scope: Global}
"#;

#[test]
fn a_global_limit_is_exact_over_replicas() {
    let cluster = Cluster::start(&[]);
    let c = &cluster;
    c.kubectl(&[
        "-n",
        "meshgate-system",
        "scale",
        "deployment",
        "edge",
        "--replicas=2",
    ]);
    c.kubectl(&[
        "-n",
        "meshgate-system",
        "rollout",
        "status",
        "deployment/edge",
        "--timeout=60s",
    ]);
    c.apply(&(app("one", 1) + LIMIT));
    c.kubectl(&["rollout", "status", "deployment/one", "--timeout=60s"]);
    c.kubectl(&[
        "wait",
        "ratelimitpolicy/limited",
        "--for=jsonpath={.status.ancestors[0].conditions[?(@.type=='Programmed')].status}=True",
        "--timeout=60s",
    ]);
    until("the route", || {
        [200, 429]
            .contains(&c.get("limited.test", "/").0)
            .then_some(())
    });
    let load = Load::start(&Plan {
        address: c.http().to_owned(),
        host: "limited.test".to_owned(),
        path: "/".to_owned(),
        rate: 1000,
        connections: 16,
    });
    until("ten seconds of load", || {
        (load.elapsed() > Duration::from_secs(12)).then_some(())
    });
    let answers = load.stop();
    let other: Vec<_> = answers
        .iter()
        .filter(|a| a.status != 200 && a.status != 429)
        .collect();
    assert!(other.is_empty(), "{other:?}");
    let mut seconds: BTreeMap<u64, u32> = BTreeMap::new();
    for answer in answers.iter().filter(|a| a.status == 200) {
        *seconds.entry(answer.at.as_secs()).or_default() += 1;
    }
    // The first second may begin with a window that was empty, the last is cut.
    for (second, admitted) in seconds.range(1..11) {
        assert!(
            (95..=105).contains(admitted),
            "second {second}: {admitted} of 100 admitted: {seconds:?}"
        );
    }
    let total: u32 = seconds.range(1..11).map(|(_, n)| n).sum();
    assert!(
        (980..=1020).contains(&total),
        "{total} of 1000 in ten seconds: {seconds:?}"
    );
    let pods = c.kubectl(&[
        "-n",
        "meshgate-system",
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/name=edge",
        "-o",
        "name",
    ]);
    assert!(pods.lines().count() >= 2, "{pods}");
}
