//! Two pods with sidecars, in network namespaces of their own, with a control plane whose resources are set by hand.
//!
//! Each sidecar is a process, this test binary called again: it changes its user as it would in a pod. The applications
//! are threads inside the pods' namespaces. Nothing else is a stand-in: kernel, redirect, TLS and protocol are real.

#[path = "kit/http.rs"]
mod http;
#[path = "../src/testnet.rs"]
mod testnet;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use meshgate_api::push as wire;
use meshgate_proxy::push::fake::{FakeControl, TEST_DEADLINE};
use meshgate_proxy::push::link::{ControlOptions, PodName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use http::Answer;
use testnet::{GATEWAY, Host, TestNet};

/// Set for the process that is to be a sidecar: "NAMESPACE ACCOUNT POD CONTROL TOKEN CA".
const ACT_AS_SIDECAR: &str = "MESHGATE_TEST_SIDECAR";
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const APP_PORT: u16 = 8080;
const GREETER_PORT: u16 = 9000;

/// The sidecar process: does nothing when run as a test.
#[test]
fn sidecar_process() {
    let Ok(told) = std::env::var(ACT_AS_SIDECAR) else {
        return;
    };
    let told: Vec<&str> = told.split(' ').collect();
    let [namespace, pod, control, token, ca] = told[..] else {
        panic!("{told:?}");
    };
    let options = meshgate_sidecar::Options::new(ControlOptions {
        control: control.parse().unwrap(),
        trust_domain: "cluster.local".parse().unwrap(),
        token_path: PathBuf::from(token),
        ca_path: PathBuf::from(ca),
        pod: PodName {
            namespace: namespace.to_owned(),
            name: pod.to_owned(),
            ..PodName::default()
        },
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let served = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        tokio::spawn(async move {
            terminate.recv().await;
            stop.cancel();
        });
        meshgate_sidecar::run(options, shutdown).await
    });
    if let Err(error) = served {
        eprintln!(
            "sidecar {pod}: {}",
            meshgate_proxy::push::report::Chain(&error)
        );
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// A pod with its sidecar.
struct Pod {
    host: Host,
    address: Ipv4Addr,
    sidecar: Child,
}

impl Pod {
    /// Ends the sidecar as a node does; returns whether it ended well.
    fn terminate(&mut self) -> bool {
        let pid = Pid::from_raw(self.sidecar.id().try_into().expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it runs");
        self.sidecar.wait().expect("it ends").success()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.sidecar.kill();
        let _ = self.sidecar.wait();
    }
}

/// The scene of every test: `front` calls `back`; both have sidecars.
struct Mesh {
    net: TestNet,
    control: FakeControl,
    front: Pod,
    back: Pod,
    _directory: TempDir,
    /// Runs the control plane, in the gateway's namespace.
    runtime: tokio::runtime::Runtime,
}

fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
}

impl Mesh {
    fn new(mtls: wire::workload::Mtls, certificate_ttl: Duration) -> Self {
        let net = TestNet::new();
        let directory = world_readable_directory();
        let files = directory.path().to_owned();
        let (runtime, control) = net.gateway.enter(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a runtime");
            let control = runtime.block_on(FakeControl::start(files, GATEWAY.into()));
            (runtime, control)
        });
        control.set_certificate_ttl(certificate_ttl);
        for account in ["front", "back"] {
            control.set_workload(
                &format!("shop/{account}"),
                wire::Workload {
                    identity: identity(account),
                    mtls: mtls.into(),
                    ..wire::Workload::default()
                },
            );
        }
        let front = pod(&net, &control, 2, "front");
        let back = pod(&net, &control, 3, "back");
        let address = back.address;
        back.host.enter(move || {
            http::serve_heads(address, APP_PORT);
            http::serve_greetings(address, GREETER_PORT);
        });
        for (name, port) in [("web", APP_PORT), ("greeter", GREETER_PORT)] {
            control.set_service(service(name, port, address));
        }
        Self {
            net,
            control,
            front,
            back,
            _directory: directory,
            runtime,
        }
    }

    /// The application in `front` calls the service.
    fn call(&self) -> std::io::Result<Answer> {
        let to = SocketAddr::from((SERVICE, APP_PORT));
        self.front
            .host
            .enter(move || http::get(to, "web.shop", "/items"))
    }
}

fn service(name: &str, port: u16, endpoint: Ipv4Addr) -> wire::Service {
    wire::Service {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        port: u32::from(port),
        addresses: vec![SERVICE.to_string()],
        endpoints: vec![wire::Endpoint {
            address: endpoint.to_string(),
            port: u32::from(port),
            uid: "uid-back".to_owned(),
            pod: "back".to_owned(),
            identity: identity("back"),
            ..wire::Endpoint::default()
        }],
        ..wire::Service::default()
    }
}

/// The sidecar reads token and CA as its own user, as it would in a pod.
fn world_readable_directory() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("its rights");
    directory
}

fn pod(net: &TestNet, control: &FakeControl, number: u8, account: &str) -> Pod {
    let (host, address) = net.pod(number);
    let options = control.options("shop", account, account);
    let told = format!(
        "shop {account} {} {} {}",
        options.control,
        options.token_path.display(),
        open_copy(&options.ca_path).display(),
    );
    let sidecar = host.enter(move || {
        Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "sidecar_process", "--nocapture"])
            .env(ACT_AS_SIDECAR, told)
            .spawn()
            .expect("a sidecar process")
    });
    let ready = SocketAddr::from((address, meshgate_api::names::PORT_READY));
    net.gateway.enter(move || {
        let deadline = Instant::now() + TEST_DEADLINE;
        while !matches!(
            http::get(ready, "probe", "/readyz"),
            Ok(Answer { status: 200, .. })
        ) {
            assert!(Instant::now() < deadline, "the sidecar becomes ready");
            std::thread::yield_now();
        }
    });
    Pod {
        host,
        address,
        sidecar,
    }
}

/// The CA's file is its owner's only; pods get it from a ConfigMap.
fn open_copy(ca: &std::path::Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let copy = ca
        .parent()
        .and_then(|pki| pki.parent())
        .expect("a directory")
        .join("ca-of-pods.crt");
    std::fs::copy(ca, &copy).expect("a copy");
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o644)).expect("its rights");
    copy
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn calls_between_pods_are_mtls_and_tell_who_calls() {
    let mut mesh = Mesh::new(wire::workload::Mtls::Strict, DAY);
    let answer = mesh.call().expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = answer.body.to_ascii_lowercase();
    let told = format!(
        "x-forwarded-client-cert: by={};uri={}",
        identity("back"),
        identity("front")
    );
    assert!(seen.contains(&told.to_ascii_lowercase()), "{seen}");

    // Bytes that are no HTTP, from a server that speaks first, travel in a tunnel.
    let greeter = SocketAddr::from((SERVICE, GREETER_PORT));
    let heard = mesh.front.host.enter(move || http::greet(greeter));
    assert_eq!(heard.expect("a greeting"), "hello\necho\n");

    // A destination that nobody knows is passed on as it is.
    mesh.net.gateway.enter(|| http::serve_heads(GATEWAY, 7000));
    let outside = SocketAddr::from((GATEWAY, 7000));
    let answer = mesh
        .front
        .host
        .enter(move || http::get(outside, "outside", "/"));
    assert_eq!(answer.expect("an answer").status, 200);

    // The pod talks to itself without detours.
    let itself = SocketAddr::from((mesh.back.address, APP_PORT));
    let answer = mesh.back.host.enter(move || http::get(itself, "me", "/"));
    let answer = answer.expect("an answer");
    assert!(
        !answer
            .body
            .to_ascii_lowercase()
            .contains("x-forwarded-client-cert"),
        "{answer:?}"
    );

    assert!(mesh.front.terminate(), "front's sidecar ends well");
    assert!(mesh.back.terminate(), "back's sidecar ends well");
}

#[test]
fn strict_refuses_plaintext_and_permissive_does_not() {
    let mesh = Mesh::new(wire::workload::Mtls::Strict, DAY);
    let app = SocketAddr::from((mesh.back.address, APP_PORT));
    let refused = mesh.net.gateway.enter(move || http::get(app, "web", "/"));
    let refused = refused.expect("an answer");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(
        refused.head.contains("meshgate-reason: mtls-required"),
        "{refused:?}"
    );
    let greeter = SocketAddr::from((mesh.back.address, GREETER_PORT));
    let heard = mesh.net.gateway.enter(move || http::greet(greeter));
    assert!(
        !heard.unwrap_or_default().contains("hello"),
        "plaintext came through"
    );

    // Neither plaintext nor TLS without a certificate of the mesh gets anything out of the mTLS port.
    let mtls = SocketAddr::from((mesh.back.address, meshgate_api::names::PORT_MTLS));
    let answer = mesh.net.gateway.enter(move || http::get(mtls, "web", "/"));
    assert!(answer.is_err(), "{answer:?}");
    let got = mesh
        .net
        .gateway
        .enter(move || tls_without_certificate(mtls));
    assert_eq!(got, "", "a handshake without a certificate came through");

    let permissive = wire::Workload {
        identity: identity("back"),
        ..wire::Workload::default()
    };
    let generation = mesh.control.set_workload("shop/back", permissive);
    let service_type = meshgate_proxy::push::resource::Kind::Workload.type_url();
    mesh.runtime.block_on(mesh.control.answer(|answer| {
        answer.type_url == service_type && answer.enforced_generation >= generation
    }));
    let answer = mesh.net.gateway.enter(move || http::get(app, "web", "/"));
    assert_eq!(answer.expect("an answer").status, 200);
}

/// Handshakes as a client without a certificate; returns what the server sends on a request.
fn tls_without_certificate(to: SocketAddr) -> String {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(meshgate_certs::verify::UpstreamVerifier::new(
            meshgate_certs::trust::Trust::new(anyones_root()),
            meshgate_certs::verify::Expected::AnyOf("cluster.local".parse().expect("a domain")),
        ))
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("10.9.0.3").expect("a name");
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = TcpStream::connect(to).expect("a connection");
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    let mut got = String::new();
    // Every error is what this hopes for.
    let _ = tls.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    let _ = tls.read_to_string(&mut got);
    got
}

fn anyones_root() -> meshgate_certs::trust::TrustBundle {
    let domain = "cluster.local".parse().expect("a domain");
    let now = jiff::Timestamp::now();
    let authority = meshgate_certs::authority::Authority::generate(&domain, now).expect("a root");
    meshgate_certs::trust::TrustBundle::from_pem(authority.cert_pem()).expect("a bundle")
}

#[test]
fn renewal_and_a_dead_control_plane_fail_no_request() {
    let ttl = Duration::from_secs(3);
    let mut mesh = Mesh::new(wire::workload::Mtls::Strict, ttl);
    let to = SocketAddr::from((SERVICE, APP_PORT));
    let stop = AtomicBool::new(false);
    let (sent, failed) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let (front, stop, sent, failed) = (&mesh.front.host, &stop, &sent, &failed);
        scope.spawn(move || {
            front.enter(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = http::get(to, "web.shop", "/");
                    if !matches!(answer, Ok(Answer { status: 200, .. })) {
                        eprintln!("failed: {answer:?}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        // Each pod's certificate is renewed three times, with a new key each.
        mesh.runtime.block_on(mesh.control.certified(8));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.into_inner(), 0, "of {}", sent.into_inner());

    mesh.runtime.block_on(mesh.control.die());
    for _ in 0..20 {
        assert_eq!(mesh.call().expect("an answer").status, 200);
    }
    // Nobody can say what this destination is: it is passed on all the same.
    mesh.net.gateway.enter(|| http::serve_heads(GATEWAY, 7000));
    let unknown = SocketAddr::from((GATEWAY, 7000));
    let answer = mesh
        .front
        .host
        .enter(move || http::get(unknown, "unknown", "/"));
    assert_eq!(answer.expect("an answer").status, 200);
}
