//! The edge as a whole, with a control plane whose resources are set by hand and a socket handed over by the "host".
#![expect(clippy::unwrap_used, reason = "a test ends at every surprise")]

use std::io::{self, BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use meshgate_api::push as wire;
use meshgate_ingress::{EdgeError, ListenAt, Options, Source};
use meshgate_proxy::push::fake::{FakeControl, TEST_DEADLINE};
use meshgate_proxy::push::resource::Kind;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// An edge on a loopback address of its own, so that tests run side by side on the same ports.
struct Edge {
    address: Ipv4Addr,
    http: SocketAddr,
    control: FakeControl,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), EdgeError>>,
    _directory: TempDir,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Edge {
    async fn start(number: u8, control: impl FnOnce(&FakeControl)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().to_owned();
        let fake = FakeControl::start(files, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
        control(&fake);
        let host_socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = host_socket.local_addr().unwrap();
        let server = directory.path().join("host-sockets");
        give_once(UnixListener::bind(&server).unwrap(), host_socket);

        let address = Ipv4Addr::new(127, 42, 0, number);
        let control = fake.options("meshgate-system", "edge", "edge-0");
        let name = "http".to_owned();
        let from_host = ListenAt::HostSocket { server, name };
        let https = ListenAt::Address(SocketAddr::from((address, 8443)));
        let source = Source::Control(Box::new(control));
        let mut options = Options::new(source, vec![from_host], vec![https]);
        options.ready = ListenAt::Address(SocketAddr::from((address, 15021)));
        options.metrics = ListenAt::Address(SocketAddr::from((address, 15020)));
        options.access_log = None;
        options.workers = 1;
        options.drain = Duration::from_secs(5);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(meshgate_ingress::run(options, shutdown.clone()));
        Self {
            address,
            http,
            control: fake,
            shutdown,
            running,
            _directory: directory,
        }
    }

    async fn get(&self, host: &'static str, path: &'static str) -> Answer {
        get(self.http, host, path).await
    }

    async fn ready(&self) -> bool {
        let to = SocketAddr::from((self.address, 15021));
        get(to, "probe", "/readyz").await.status == 200
    }

    async fn end(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(TEST_DEADLINE, self.running).await;
        ended
            .expect("in time")
            .expect("no panic")
            .expect("no error");
    }
}

/// Plays the host's socket server for one request.
fn give_once(server: UnixListener, socket: TcpListener) {
    std::thread::spawn(move || {
        let (stream, _) = server.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(line, "http\n");
        let descriptors = [socket.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let bytes = [IoSlice::new(b"ok\n")];
        sendmsg::<()>(
            stream.as_raw_fd(),
            &bytes,
            &control,
            MsgFlags::empty(),
            None,
        )
        .unwrap();
    });
}

async fn get(to: SocketAddr, host: &'static str, path: &'static str) -> Answer {
    let exchange = move || -> io::Result<Answer> {
        let stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(TEST_DEADLINE))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        (&stream).write_all(request.as_bytes())?;
        let mut text = String::new();
        (&stream).read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Ok(Answer {
            status: status.ok_or_else(|| io::Error::other(format!("no status: {text:?}")))?,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        })
    };
    let done = tokio::task::spawn_blocking(exchange).await;
    done.expect("no panic").expect("an answer")
}

/// An application that answers with its name and the request's head, kept alive until the process ends.
fn application(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> io::Result<()> {
                let mut reader = BufReader::new(stream.try_clone()?);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head)? == 0 {
                            return Ok(());
                        }
                    }
                    let body = format!("{name}\n{head}");
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                    (&stream).write_all(answer.as_bytes())?;
                }
            });
        }
    });
    address
}

fn service(name: &str, endpoint: SocketAddr) -> wire::Service {
    wire::Service {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        port: 80,
        endpoints: vec![wire::Endpoint {
            address: endpoint.ip().to_string(),
            port: u32::from(endpoint.port()),
            uid: format!("uid-{name}"),
            pod: name.to_owned(),
            ..wire::Endpoint::default()
        }],
        ..wire::Service::default()
    }
}

fn host(name: &str, rules: &[(&str, &str)]) -> wire::EdgeHost {
    let rule = |&(path, service): &(&str, &str)| wire::Rule {
        path: Some(wire::PathMatch {
            kind: wire::path_match::Kind::Prefix.into(),
            value: path.to_owned(),
        }),
        service: service.to_owned(),
        origin: "ingress/shop/web".to_owned(),
        ..wire::Rule::default()
    };
    wire::EdgeHost {
        host: name.to_owned(),
        rules: rules.iter().map(rule).collect(),
        ..wire::EdgeHost::default()
    }
}

#[tokio::test]
async fn routes_follow_the_configuration_and_outlive_the_control_plane() {
    let mut edge = Edge::start(1, |control| {
        control.set_service(service("web", application("web")));
        control.set_service(service("cart", application("cart")));
        control.set_host(host(
            "shop.test",
            &[("/", "shop/web:80"), ("/cart", "shop/cart:80")],
        ));
        control.set_host(host("*", &[("/", "shop/web:80")]));
    })
    .await;
    // The first connection waits for the configuration instead of getting a wrong answer.
    let answer = edge.get("shop.test", "/").await;
    assert_eq!(
        (answer.status, answer.body.starts_with("web\n")),
        (200, true),
        "{}",
        answer.body
    );
    assert!(edge.ready().await);
    let forwarded = answer.body.to_ascii_lowercase();
    assert!(
        forwarded.contains("x-forwarded-proto: http\r\n"),
        "{forwarded}"
    );
    assert!(
        edge.get("shop.test", "/cart/1")
            .await
            .body
            .starts_with("cart\n")
    );
    assert!(edge.get("else.test", "/").await.body.starts_with("web\n"));

    let generation = edge.control.remove(Kind::EdgeHost, "*");
    edge.control.enforced(generation).await;
    let unknown = edge.get("else.test", "/").await;
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.head.contains("meshgate-reason: no-route"),
        "{}",
        unknown.head
    );

    edge.control
        .set_service(service("web", application("web2")));
    let refused = edge.control.set_host(wire::EdgeHost {
        host: "bad host".to_owned(),
        ..wire::EdgeHost::default()
    });
    let nack = edge
        .control
        .answer(|answer| !answer.refusals.is_empty())
        .await;
    assert_eq!(nack.refusals[0].resource, "bad host");
    assert_eq!(nack.enforced_generation, refused);
    assert!(edge.get("shop.test", "/").await.body.starts_with("web2\n"));

    edge.control.die().await;
    assert!(
        edge.get("shop.test", "/cart")
            .await
            .body
            .starts_with("cart\n")
    );
    assert!(edge.ready().await);
    let metrics = get(
        SocketAddr::from((edge.address, 15020)),
        "scrape",
        "/metrics",
    )
    .await;
    for series in [
        "identity_cert_expiration_timestamp_seconds",
        "meshgate_push_resources_refused_total 1",
        "meshgate_push_generation",
    ] {
        assert!(
            metrics.body.contains(series),
            "{series} in {}",
            metrics.body
        );
    }
    edge.end().await;
}

#[tokio::test]
async fn what_cannot_be_enforced_is_closed_and_reported() {
    let edge = Edge::start(5, |control| {
        control.set_service(service("web", application("web")));
        control.set_service(service("cart", application("cart")));
        control.set_host(host("shop.test", &[("/", "shop/cart:80")]));
        control.set_certificate("shop/tls", certificate("shop.test"));
    })
    .await;
    assert_eq!(edge.get("shop.test", "/").await.status, 200);
    // A new host, and one that was open: not even in the clear.
    let torn = |host: &str| wire::Certificate {
        client_auth: Some(wire::ClientAuth {
            roots_pem: vec!["torn".to_owned()],
            required: true,
        }),
        ..certificate(host)
    };
    let refused = async |name: &str, reason: &str| {
        let answer = edge
            .control
            .answer(|answer| answer.refusals.iter().any(|one| one.resource == name))
            .await;
        let said = &answer.refusals[0].reason;
        assert!(said.starts_with(reason), "{said}");
        edge.control.enforced(answer.enforced_generation).await;
    };
    let roots = "client_auth.roots_pem: there is no certificate";
    edge.control
        .set_certificate("shop/secret", torn("secret.test"));
    refused("shop/secret", roots).await;
    let generation = edge
        .control
        .set_host(host("secret.test", &[("/", "shop/web:80")]));
    edge.control.enforced(generation).await;
    assert_eq!(edge.get("secret.test", "/").await.status, 503);
    edge.control.set_certificate("shop/tls", torn("shop.test"));
    refused("shop/tls", roots).await;
    assert_eq!(edge.get("shop.test", "/").await.status, 503);
    // Endpoints that were reached in the clear.
    let generation = edge
        .control
        .set_host(host("open.test", &[("/", "shop/web:80")]));
    edge.control.enforced(generation).await;
    assert_eq!(edge.get("open.test", "/").await.status, 200);
    let mut unverified = service("web", application("web"));
    unverified.policy = Some(wire::BackendPolicy {
        tls: Some(wire::BackendTls::default()),
        ..wire::BackendPolicy::default()
    });
    edge.control.set_service(unverified);
    refused("shop/web:80", "policy.tls.hostname: ").await;
    let answer = edge.get("open.test", "/").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.head.contains("misconfigured; tls.hostname: "),
        "{}",
        answer.head
    );
    edge.end().await;
}

#[tokio::test]
async fn an_edge_without_configuration_waits_and_is_not_ready() {
    let mut edge = Edge::start(2, |_| {}).await;
    edge.control.opening(|_| true).await;
    edge.control
        .answer(|answer| answer.type_url == Kind::EdgeHost.type_url())
        .await;
    let nothing = edge.get("shop.test", "/").await;
    assert_eq!(nothing.status, 404);
    edge.control.die().await;
    edge.end().await;
}

#[tokio::test]
async fn certificates_are_chosen_by_name_and_replaced() {
    let edge = Edge::start(3, |control| {
        control.set_service(service("web", application("web")));
        control.set_host(host("shop.test", &[("/", "shop/web:80")]));
        control.set_certificate("shop/tls", certificate("shop.test"));
    })
    .await;
    let to = SocketAddr::from((edge.address, 8443));
    edge.get("shop.test", "/").await;
    let first = served_certificate(to, "shop.test")
        .await
        .expect("a certificate");
    assert!(served_certificate(to, "other.test").await.is_none());
    let generation = edge
        .control
        .set_certificate("shop/tls", certificate("shop.test"));
    edge.control.enforced(generation).await;
    let second = served_certificate(to, "shop.test")
        .await
        .expect("a certificate");
    assert_ne!(first, second);
    edge.end().await;
}

/// A self-signed certificate.
fn certificate(host: &str) -> wire::Certificate {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    wire::Certificate {
        hosts: vec![host.to_owned()],
        chain_pem: made.cert.pem(),
        key_pem: made.signing_key.serialize_pem(),
        ..wire::Certificate::default()
    }
}

/// The leaf that `to` presents for a name.
async fn served_certificate(to: SocketAddr, name: &'static str) -> Option<Vec<u8>> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let seen = std::sync::Arc::new(std::sync::Mutex::new(None));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(Any(seen.clone())))
        .with_no_client_auth();
    let handshake = move || {
        let name = rustls_pki_types::ServerName::try_from(name).unwrap();
        let mut tls = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(to).unwrap();
        while tls.is_handshaking() {
            if tls.complete_io(&mut stream).is_err() {
                break;
            }
        }
    };
    tokio::task::spawn_blocking(handshake).await.unwrap();
    seen.lock().unwrap().clone()
}

/// Accepts every certificate and notes the leaf.
#[derive(Debug)]
struct Any(std::sync::Arc<std::sync::Mutex<Option<Vec<u8>>>>);

impl rustls::client::danger::ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        leaf: &rustls_pki_types::CertificateDer<'_>,
        _intermediates: &[rustls_pki_types::CertificateDer<'_>],
        _name: &rustls_pki_types::ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(leaf.to_vec());
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &rustls_pki_types::CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &rustls_pki_types::CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A host whose one rule is limited to `requests` in an hour.
fn limited_host(scope: wire::rate_limit::Scope, requests: u64, replicas: u32) -> wire::EdgeHost {
    let mut limited = host("shop.test", &[("/", "shop/web:80")]);
    limited.rules[0].rate_limits = vec![wire::RateLimit {
        id: format!("shop/limits/{scope:?}"),
        name: "per-hour".to_owned(),
        requests,
        per: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        scope: scope.into(),
        replicas,
        ..wire::RateLimit::default()
    }];
    limited
}

/// The statuses of five requests in a row.
async fn five(edge: &Edge) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(edge.get("shop.test", "/").await.status);
    }
    statuses
}

#[tokio::test]
async fn rate_limits_are_local_or_leased_and_fall_back_to_a_share() {
    let mut edge = Edge::start(4, |control| {
        control.set_service(service("web", application("web")));
        control.set_host(limited_host(wire::rate_limit::Scope::Local, 2, 1));
    })
    .await;
    assert_eq!(five(&edge).await, [200, 200, 429, 429, 429]);
    let refused = edge.get("shop.test", "/").await;
    for field in [
        "retry-after: ",
        "ratelimit: ",
        "meshgate-reason: rate-limited; per-hour",
    ] {
        assert!(refused.head.contains(field), "{field} in {}", refused.head);
    }

    // This owner grants whatever is wanted.
    let leased = limited_host(wire::rate_limit::Scope::Global, 4, 2);
    let generation = edge.control.set_host(leased);
    edge.control.enforced(generation).await;
    assert_eq!(five(&edge).await, [200; 5]);

    // Without the owner a replica takes its share.
    edge.control.refuse_quotas();
    edge.control.die().await;
    edge.control.resume().await;
    let mut shared = limited_host(wire::rate_limit::Scope::Global, 4, 2);
    shared.rules[0].rate_limits[0].id = "shop/limits/shared".to_owned();
    let generation = edge.control.set_host(shared);
    edge.control.enforced(generation).await;
    assert_eq!(five(&edge).await, [200, 200, 429, 429, 429]);
    edge.end().await;
}
