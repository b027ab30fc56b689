//! AccessPolicy: who may ask what of which port; and ports where nobody looks at the bytes.

use meshgate_tests::mesh::{Capture, NAMESPACES, calls, counted, metrics, programmed};
use meshgate_tests::{Cluster, curl, until};

/// Two applications in one pod, at ports 3000 and 3100, and what may be asked of them.
const LEDGER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: ledger, namespace: mesh, labels: {app: ledger}}
spec:
  serviceAccountName: server
  containers:
  - {name: guarded, image: meshgate/meshgate, args: [echo]}
  - name: open
    image: meshgate/meshgate
    args: [echo]
    env: [{name: HTTP_PORT, value: "3100"}, {name: H2C_PORT, value: "3101"}, {name: HTTPS_PORT, value: "8543"}]
---
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: mesh}
spec:
  selector: {app: ledger}
  ports: [{name: guarded, port: 80, targetPort: 3000}, {name: open, port: 81, targetPort: 3100}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: ledger, namespace: mesh}
spec:
  rules:
  - host: ledger.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: ledger, port: {number: 80}}}}]}
---
apiVersion: meshgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: strict, namespace: mesh}
spec:
  targetRefs: [{group: "", kind: Namespace, name: mesh}]
  mtls: Strict
---
apiVersion: meshgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: ledger, namespace: mesh}
spec:
  selector: {matchLabels: {app: ledger}}
  ports: [{port: 3100, mtls: Permissive}]
  rules:
  - action: Allow
    from: [{serviceAccounts: [mesh/caller]}]
    to: [{methods: [GET, PUT], paths: [{type: Prefix, value: /items}]}]
  - action: Allow
    from: [{identities: ["spiffe://cluster.local/ns/meshgate-system/sa/edge"]}]
    to: [{methods: [GET], paths: [{type: Exact, value: /public}]}]
  - action: Allow
    to: [{ports: [3100], paths: [{type: Exact, value: /open}]}]
  - action: Deny
    to: [{paths: [{type: Prefix, value: /items/secret}]}]
"#;

/// What is asked of the ledger, and the answer: "200", or the reason of a refusal.
type Row = (&'static str, &'static str);

/// Callers by namespace and account.
const ACCESS: [((&str, &str), &[Row]); 3] = [
    (
        ("mesh", "caller"),
        &[
            ("GET /items", "200"),
            ("PUT /items/1?a=b", "200"),
            ("POST /items/1", "access-denied"),
            ("GET /itemsfold", "access-denied"),
            ("GET /public", "access-denied"),
            ("GET /items/secret/1", "access-denied"),
            ("GET /items/x/../%73ecret", "access-denied"),
        ],
    ),
    (
        ("mesh", "default"),
        &[
            ("GET /items", "access-denied"),
            ("GET :81/open", "200"),
            ("GET :81/open/more", "access-denied"),
        ],
    ),
    (
        ("plain", "default"),
        &[
            ("GET /items", "mtls-required"),
            ("GET /open", "mtls-required"),
            ("GET :81/open", "200"),
            ("GET :81/items", "access-denied"),
        ],
    ),
];

#[test]
fn who_may_ask_what_at_which_port() {
    let cluster = Cluster::start(&[]);
    let c = &cluster;
    c.apply(NAMESPACES);
    c.apply(LEDGER);
    ready(c, "pod/ledger");
    programmed(c, "accesspolicy/strict");
    programmed(c, "accesspolicy/ledger");
    at_the_edge(c);
    for (who, rows) in ACCESS {
        for ((request, expected), log) in rows.iter().zip(ask(c, who, rows)) {
            assert_eq!(verdict(&log), *expected, "{who:?} {request}: {log}");
        }
    }
    let metrics = metrics(c, "sidecar/mesh/ledger");
    for (reason, of_edge) in [("access-denied", 1), ("mtls-required", 0)] {
        let rows = ACCESS.iter().flat_map(|(_, rows)| *rows);
        let refused = rows.filter(|(_, expected)| *expected == reason).count();
        let label = format!("reason=\"{reason}\"");
        let labels = ["direction=\"inbound\"", "status=\"403\"", &label];
        let found = counted(&metrics, "meshgate_requests_total", &labels);
        assert_eq!(found, refused + of_edge, "{reason}: {metrics}");
    }
}

fn ready(c: &Cluster, pod: &str) {
    c.kubectl(&[
        "-n",
        "mesh",
        "wait",
        pod,
        "--for=condition=Ready",
        "--timeout=60s",
    ]);
}

/// What `meshgate echo call` printed for each request.
fn ask(c: &Cluster, who: (&str, &str), rows: &[Row]) -> Vec<String> {
    let arguments = rows.iter().map(|(request, _)| {
        let (method, target) = request.split_once(' ').expect("METHOD [:PORT]/PATH");
        let url = format!("http://ledger.mesh{target}");
        vec![
            url,
            format!("--method={method}"),
            "--header=Accept: application/json".to_owned(),
        ]
    });
    calls(c, who, "caller", &arguments.collect::<Vec<_>>())
}

/// "200", or the reason of a refusal.
fn verdict(log: &str) -> String {
    let (status, body) = log.split_once('\n').unwrap_or((log, ""));
    match status {
        "200 OK" => "200".to_owned(),
        "403 Forbidden" => {
            let body: serde_json::Value = serde_json::from_str(body).expect("a reason in JSON");
            body["reason"].as_str().expect("a reason").to_owned()
        }
        _ => status.to_owned(),
    }
}

/// The edge has an identity of its own, which one path is open to.
fn at_the_edge(c: &Cluster) {
    until("the route", || {
        (c.get("ledger.test", "/public").0 == 200).then_some(())
    });
    let url = format!("http://{}/items", c.http());
    let (status, head) = curl(&["-i", "-H", "Host: ledger.test", &url]);
    assert_eq!(status, 403, "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("meshgate-reason: access-denied"), "{head}");
}

/// An application, and policies of its Ingress.
const GATE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: gate, namespace: mesh, labels: {app: gate}}
spec: {containers: [{name: gate, image: meshgate/meshgate, args: [echo]}]}
---
apiVersion: v1
kind: Service
metadata: {name: gate, namespace: mesh}
spec: {selector: {app: gate}, ports: [{port: 80, targetPort: 3000}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: gate, namespace: mesh}
spec:
  rules:
  - host: gate.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: gate, port: {number: 80}}}}]}
---
apiVersion: meshgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: gate, namespace: mesh}
spec:
  targetRefs: [{group: networking.k8s.io, kind: Ingress, name: gate}]
  rules: [{from: [{ipBlocks: [127.0.0.0/8]}], to: [{paths: [{value: /open}]}]}]
"#;
const MORE: &str = r#"
apiVersion: meshgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: lost, namespace: mesh}
spec:
  targetRefs:
  - {group: networking.k8s.io, kind: Ingress, name: gate}
  - {group: networking.k8s.io, kind: Ingress, name: none}
  rules: [{}]
"#;

#[test]
fn who_may_come_in_through_an_ingress() {
    let cluster = Cluster::start(&[]);
    let c = &cluster;
    c.apply(NAMESPACES);
    c.apply(GATE);
    ready(c, "pod/gate");
    programmed(c, "accesspolicy/gate");
    let by_all = condition(c, "gate", 0, "Programmed");
    assert_eq!(by_all, "True Programmed enforced by 1 of 1 replicas");
    until("the route", || {
        (c.get("gate.test", "/open").0 == 200).then_some(())
    });
    assert_eq!(c.get("gate.test", "/").0, 403);
    c.apply(MORE);
    for (target, expected) in [
        (
            0,
            "False Conflicted the older policy mesh/gate has the same target",
        ),
        (
            1,
            "False TargetNotFound there is no Ingress none of class meshgate in this namespace",
        ),
    ] {
        until(expected, || {
            (condition(c, "lost", target, "Accepted") == expected).then_some(())
        });
    }
    assert_eq!(c.get("gate.test", "/").0, 403);
    c.kubectl(&["-n", "mesh", "delete", "accesspolicy", "gate"]);
    programmed(c, "accesspolicy/lost");
    assert_eq!(c.get("gate.test", "/").0, 200);
}

/// Status, reason and message of a condition of a policy's nth target.
fn condition(c: &Cluster, policy: &str, target: usize, name: &str) -> String {
    let at = format!(".status.ancestors[{target}].conditions[?(@.type==\"{name}\")]");
    let parts = ["status", "reason", "message"].map(|part| format!("{{{at}.{part}}}"));
    let path = format!("jsonpath={}", parts.join(" "));
    c.kubectl(&["-n", "mesh", "get", "accesspolicy", policy, "-o", &path])
}

/// Two servers of lines, PING among them. Both take bytes from one identity only.
const LINES: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: NAME
  namespace: mesh
  labels: {app: NAME, kind: lines}
  annotations: {ANNOTATION}
spec:
  serviceAccountName: server
  containers:
  - name: lines
    image: meshgate/meshgate
    args: [echo]
    env: [{name: TCP_ECHO_SERVER, value: "1"}]
    readinessProbe: {tcpSocket: {port: 3000}}
---
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: mesh}
spec:
  selector: {app: NAME}
  ports: [{port: 7000, targetPort: 3000}]
---
"#;
const LINES_ACCESS: &str = r#"
apiVersion: meshgate.dev/v1alpha1
kind: AccessPolicy
metadata: {name: lines, namespace: mesh}
spec:
  selector: {matchLabels: {kind: lines}}
  mtls: Strict
  rules: [{from: [{serviceAccounts: [caller]}], to: [{ports: [3000]}]}]
"#;

/// A proxy that takes it for HTTP answers in the server's place.
const BYTES: &str = "GET / HTTP/1.1\r\nHost: opaque\r\n\r\nPING";
const GREETING: &str = "Gateway API Test TCP Server\n";

#[test]
fn bytes_at_an_opaque_port_are_passed_as_they_are() {
    let cluster = Cluster::start(&[]);
    let c = &cluster;
    let lines = |name, annotation| {
        LINES
            .replace("NAME", name)
            .replace("ANNOTATION", annotation)
    };
    c.apply(NAMESPACES);
    c.apply(&lines("opaque", "meshgate.dev/opaque-ports: 2999-3001"));
    c.apply(&(lines("detected", "") + LINES_ACCESS));
    ready(c, "pod/opaque");
    ready(c, "pod/detected");
    programmed(c, "accesspolicy/lines");

    through_the_mesh(c);
    for who in [("mesh", "default"), ("plain", "default")] {
        let log = send(c, who, &["tcp://opaque.mesh:7000"]).remove(0);
        assert!(
            !log.contains(GREETING) && !log.contains("HTTP/1.1"),
            "{who:?}: {log}"
        );
    }
    let metrics = metrics(c, "sidecar/mesh/opaque");
    let caller = "peer=\"spiffe://cluster.local/ns/mesh/sa/caller\"";
    for (labels, expected) in [
        (&[caller, "reason=\"\""][..], 2),
        (&["reason=\"access-denied\""], 1),
        (&["reason=\"mtls-required\""], 1),
    ] {
        let found = counted(&metrics, "meshgate_tcp_connections_total", labels);
        assert_eq!(found, expected, "{labels:?}: {metrics}");
    }
}

/// By the Service and by the pod's own address the server gets the bytes, and the wire shows none of them.
fn through_the_mesh(c: &Cluster) {
    let address = "jsonpath={.status.podIP}";
    let address = c.kubectl(&["-n", "mesh", "get", "pod", "opaque", "-o", address]);
    let direct = format!("tcp://{address}:3000");
    let capture = Capture::start(c);
    let urls = [
        "tcp://opaque.mesh:7000",
        &direct,
        "tcp://detected.mesh:7000",
    ];
    let logs = send(c, ("mesh", "caller"), &urls);
    let wire = capture.stop();
    assert_eq!(logs[0], format!("{GREETING}PONG\n"));
    assert_eq!(logs[1], logs[0], "{direct}");
    assert!(logs[2].starts_with("HTTP/1.1 "), "{logs:?}");
    assert!(wire.len() > 4_000, "the capture saw no handshakes");
    let wire = String::from_utf8_lossy(&wire);
    for plain in ["PING", "PONG", "Gateway API", "HTTP/1.1"] {
        assert!(!wire.contains(plain), "{plain} between pods");
    }
}

fn send(c: &Cluster, who: (&str, &str), urls: &[&str]) -> Vec<String> {
    let arguments = urls.iter().map(|url| vec!["--data", BYTES, url]);
    calls(c, who, "caller", &arguments.collect::<Vec<_>>())
}
