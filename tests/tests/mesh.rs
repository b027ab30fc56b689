//! The mesh: what is on the wire, who is who, what happens when an endpoint fails.

use std::process::Command;

use meshgate_tests::load::{Answer, Load, Plan, failures};
use meshgate_tests::mesh::{Capture, NAMESPACES, call, metrics, programmed};
use meshgate_tests::{Cluster, run, text, until};

const SERVER: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: server, namespace: mesh}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      serviceAccountName: server
      containers:
      - name: server
        image: meshgate/meshgate
        args: [echo]
        ports: [{containerPort: 3000}]
        readinessProbe: {httpGet: {path: /health, port: 3000}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: mesh}
spec:
  selector: {app: server}
  ports: [{name: http, port: 80, targetPort: 3000}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: server, namespace: mesh}
spec:
  rules:
  - host: mesh.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: server, port: {number: 80}}}}]}
"#;

/// The server and its callers' namespaces.
fn mesh(c: &Cluster) {
    c.apply(NAMESPACES);
    c.apply(SERVER);
    let rollout = ["rollout", "status", "deployment/server", "--timeout=60s"];
    c.kubectl(&[&["-n", "mesh"], &rollout[..]].concat());
}

#[test]
fn identities_strictness_and_the_wire() {
    let cluster = Cluster::start(&[]);
    let c = &cluster;
    mesh(c);
    let pods = c.kubectl(&["-n", "mesh", "get", "pods"]);
    assert!(pods.contains("2/2"), "application and sidecar: {pods}");

    // The edge is a workload too.
    let body = until("the route", || {
        let (status, body) = c.get("mesh.test", "/");
        (status == 200).then_some(body)
    });
    assert!(
        body.contains("By=spiffe://cluster.local/ns/mesh/sa/server"),
        "{body}"
    );
    assert!(
        body.contains("URI=spiffe://cluster.local/ns/meshgate-system/sa/edge"),
        "{body}"
    );

    let capture = Capture::start(c);
    let log = call(c, "mesh", "one", "http://server/secret-path", 3);
    assert!(
        log.contains("200") && log.contains("URI=spiffe://cluster.local/ns/mesh/sa/caller"),
        "{log}"
    );
    let bytes = capture.stop();
    assert!(bytes.len() > 2_000, "the capture saw no handshake");
    let seen = String::from_utf8_lossy(&bytes);
    assert!(
        !seen.contains("secret-path") && !seen.contains("HTTP/1.1"),
        "plaintext between pods"
    );

    // Permissive takes a plain caller, strict refuses it.
    let log = call(c, "plain", "before", "http://server.mesh/", 1);
    assert!(log.contains("200") && !log.contains("URI=spiffe"), "{log}");
    c.apply(
        r#"
apiVersion: meshgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: strict, namespace: mesh}
spec:
  targetRefs: [{group: "", kind: Namespace, name: mesh}]
  mtls: Strict
"#,
    );
    programmed(c, "accesspolicy/strict");
    let log = call(c, "plain", "after", "http://server.mesh/", 1);
    assert!(!log.contains("200"), "{log}");
    let log = call(c, "mesh", "still", "http://server/", 1);
    assert!(log.contains("200"), "{log}");
    // Probes of a strict pod go on.
    assert!(
        c.kubectl(&["-n", "mesh", "get", "pods", "-l", "app=server"])
            .contains("2/2")
    );
}

const POLICY: &str = r#"
apiVersion: meshgate.dev/v1alpha1
kind: BackendPolicy
metadata: {name: server, namespace: mesh}
spec:
  targetRefs: [{group: "", kind: Service, name: server}]
  timeouts: {connect: 1s, request: 10s, perTry: 500ms}
  retries: {attempts: 2, on: [ConnectFailure, ResetBeforeResponse, GatewayError], budget: {percent: 100, minPerSecond: 100}}
  circuitBreaker:
    consecutiveFailures: 3
    ejection: {base: 1s, max: 5s, maxPercent: 50}
"#;

#[test]
fn a_failing_endpoint_is_left_out_and_taken_back() {
    let cluster = Cluster::start(&[]);
    let c = &cluster;
    mesh(c);
    c.apply(POLICY);
    programmed(c, "backendpolicy/server");
    until("the route", || {
        (c.get("mesh.test", "/").0 == 200).then_some(())
    });

    // A try that takes too long is given up, and the answer says so.
    let url = format!("http://{}/?delay=5s", c.http());
    let (status, head) = meshgate_tests::curl(&["-i", "-H", "Host: mesh.test", &url]);
    assert_eq!(status, 504, "{head}");
    assert!(
        head.to_ascii_lowercase()
            .contains("meshgate-reason: per-try-timeout"),
        "{head}"
    );

    // One of two endpoints stops answering: its requests are tried elsewhere, then it gets none.
    let victim = application_pids(c)
        .into_iter()
        .next()
        .expect("two applications run");
    let load = Load::start(&Plan {
        address: c.http().to_owned(),
        host: "mesh.test".to_owned(),
        path: "/".to_owned(),
        rate: 100,
        connections: 8,
    });
    signal("-STOP", victim);
    until("the endpoint's ejection", || {
        metrics(c, "edge").contains("ejected").then_some(())
    });
    signal("-CONT", victim);
    until("its return", || {
        let before = served(c, victim);
        until("requests at both", || {
            (c.get("mesh.test", "/").0 == 200).then_some(())
        });
        (served(c, victim) > before).then_some(())
    });
    let answers = load.stop();
    assert_eq!(
        failures(&answers),
        Vec::<&Answer>::new(),
        "every request was tried elsewhere"
    );
}

fn signal(signal: &str, pid: i32) {
    let output = run(Command::new("kill").args([signal, &pid.to_string()]));
    assert!(output.status.success(), "{}", text(&output));
}

/// Processes `meshgate echo` of the servers, by their ids on the host.
fn application_pids(c: &Cluster) -> Vec<i32> {
    let keeper = std::fs::read_to_string(c.data_dir().join("state.json")).expect("state.json");
    let keeper: serde_json::Value = serde_json::from_str(&keeper).expect("JSON");
    let keeper = keeper["keeper_pid"].as_i64().expect("a process id");
    let mut below = vec![keeper];
    let mut found = Vec::new();
    while let Some(pid) = below.pop() {
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        below.extend(
            children
                .split_whitespace()
                .filter_map(|p| p.parse::<i64>().ok()),
        );
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.starts_with("/meshgate echo") {
            found.push(i32::try_from(pid).expect("a process id"));
        }
    }
    found.sort_unstable();
    found
}

/// Bytes that the process has read and written: it grows while it serves.
fn served(_c: &Cluster, pid: i32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines()
        .filter_map(|l| l.strip_prefix("wchar: ")?.parse::<u64>().ok())
        .sum()
}

#[test]
fn certificates_change_under_load_and_nobody_notices() {
    let cluster = Cluster::start(&["--cert-ttl", "10s"]);
    let c = &cluster;
    mesh(c);
    until("the route", || {
        (c.get("mesh.test", "/").0 == 200).then_some(())
    });
    let expiry = || {
        let metrics = metrics(c, "edge");
        let line = metrics
            .lines()
            .find(|l| l.starts_with("identity_cert_expiration_timestamp_seconds"))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let first = until("the metric of the certificate's end", expiry);
    let load = Load::start(&Plan {
        address: c.http().to_owned(),
        host: "mesh.test".to_owned(),
        path: "/".to_owned(),
        rate: 100,
        connections: 4,
    });
    // Three lives of a certificate.
    until("three renewals", || {
        expiry()
            .is_some_and(|now| now >= first + 20.0)
            .then_some(())
    });
    let answers = load.stop();
    assert!(answers.len() > 500, "{} requests", answers.len());
    assert_eq!(failures(&answers), Vec::<&Answer>::new());
}
