//! Spans of the real program, configured as OpenTelemetry's users expect: what a collector hears.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use meshgate_tests::{DEADLINE, curl, meshgate};

/// A service without endpoints: the edge's own answer is a request like any other.
const SITE: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  defaultBackend: {service: {name: web, port: {number: 80}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
";

/// A call: its path, and its message as bytes, in which texts stand as they are.
type Call = (String, Bytes);

/// Takes every call with an empty answer; where it listens, and what it heard.
fn collector() -> (String, Receiver<Call>) {
    let (heard, calls) = channel();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, heard.clone()));
            }
        });
    });
    (format!("http://{address}"), calls)
}

async fn serve(stream: tokio::net::TcpStream, heard: Sender<Call>) -> Option<()> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(take(request, respond, heard.clone()));
    }
    Some(())
}

async fn take(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    heard: Sender<Call>,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data.ok()?);
    }
    let answer = Response::builder().header("content-type", "application/grpc");
    let mut send = respond.send_response(answer.body(()).ok()?, false).ok()?;
    // An empty message, not compressed.
    send.send_data(Bytes::from_static(&[0; 5]), false).ok()?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().ok()?);
    send.send_trailers(trailers).ok()?;
    heard
        .send((head.uri.path().to_owned(), message.freeze()))
        .ok()
}

/// A running edge; ends with the value.
struct Edge(Child);

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an edge with these flags and variables; the address of its HTTP.
fn edge(flags: &[&str], variables: &[(&str, &str)]) -> (Edge, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("site.yaml"), SITE).expect("a file");
    let fixed = "ingress --access-log off --workers 1 --http 127.0.0.1:0 --https 127.0.0.1:0 \
                 --ready 127.0.0.1:0 --metrics 127.0.0.1:0 --trust-headers-from 127.0.0.0/8";
    let mut child = Command::new(meshgate())
        .args(fixed.split_whitespace())
        .args(flags)
        .arg("--control-socket")
        .arg(folder.path().join("control"))
        .arg("--from")
        .arg(folder.path())
        .envs(variables.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .expect("meshgate starts");
    let log = BufReader::new(child.stderr.take().expect("a pipe"));
    let edge = Edge(child);
    let mut lines = log.lines().map_while(Result::ok);
    let mut http = None;
    for line in lines.by_ref() {
        if line.contains("listener=\"http\"") {
            let at = line
                .split("at=")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            http = at.map(str::to_owned);
        }
        if line.contains("serving") {
            break;
        }
    }
    // Somebody has to read on, or the edge would wait at a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (edge, http.expect("the edge serves"))
}

/// What a collector hears of one request that is part of a trace.
fn check(flags: &[&str], variables: &[(&str, &str)], wanted: &[&str]) {
    let (address, calls) = collector();
    let with_address = |text: &&str| text.replace("COLLECTOR", &address);
    let flags: Vec<String> = flags.iter().map(with_address).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let variables: Vec<(&str, String)> = variables
        .iter()
        .map(|(name, value)| (*name, with_address(value)))
        .collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let (_edge, http) = edge(&flags, &variables);
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (status, _) = curl(&["-H", parent, &format!("http://{http}/items")]);
    assert_eq!(status, 503);
    let (path, message) = calls.recv_timeout(DEADLINE).expect("a call");
    assert_eq!(
        path,
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    );
    let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
    let texts = wanted.iter().map(|text| text.as_bytes());
    for part in texts.chain([&trace[..], b"/items"]) {
        let found = message.windows(part.len()).any(|window| window == part);
        let shown = String::from_utf8_lossy(&message);
        assert!(found, "{:?} in {shown:?}", String::from_utf8_lossy(part));
    }
}

#[test]
fn flags_and_variables_say_where_spans_go() {
    let soon = ("OTEL_BSP_SCHEDULE_DELAY", "1");
    check(
        &["--otlp-endpoint", "COLLECTOR"],
        &[soon],
        &["meshgate-edge", "no-endpoint"],
    );
    check(
        &[],
        &[
            soon,
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "COLLECTOR"),
            ("OTEL_SERVICE_NAME", "front-door"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=test",
            ),
            ("POD_NAMESPACE", "shop"),
        ],
        &[
            "front-door",
            "deployment.environment.name",
            "k8s.namespace.name",
        ],
    );
}
