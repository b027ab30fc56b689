//! Certificates that the edge demands of clients, by server name, in handshakes of TLS 1.2 and 1.3.

use std::sync::Arc;

use meshgate_proxy::tls::{Certificates, ClientAuth, certified_key};
use meshgate_proxy::{EngineOptions, ListenerKind, ListenerLimits, Policy, Rule, Snapshot, Target};
use meshgate_routing::route::{HostName, HostRules, PathKind, PathMatch, RouteTable};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::frames::{Heard, PREFACE, Peer, get as ask, settings};
use crate::kit::{Origin, Proxy, everything_to, ok, raw, read_message, service, soon, status_of};
use crate::tls::{Issued, issue};

/// An authority that names clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn client(&self) -> Client {
        self.client_until(2999)
    }

    fn client_until(&self, year: i32) -> Client {
        let mut params = CertificateParams::new(vec!["till.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Client {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    fn demanded(&self, required: bool) -> Option<Arc<ClientAuth>> {
        demanded(&[self], required)
    }
}

fn demanded(authorities: &[&Authority], required: bool) -> Option<Arc<ClientAuth>> {
    let roots: String = authorities.iter().map(|one| one.pem.as_str()).collect();
    Some(Arc::new(ClientAuth::new(&roots, required).unwrap()))
}

struct Client {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// An edge with and without TLS, and one certificate of its own for all hosts, so that only demands tell them apart.
struct Edge {
    proxy: Proxy,
    origin: Origin,
    own: Issued,
}

impl Edge {
    async fn start(demands: &[(&str, Option<Arc<ClientAuth>>)]) -> Self {
        let kinds = [ListenerKind::EdgeHttps, ListenerKind::EdgeHttp];
        let kinds = kinds.map(|kind| (kind, ListenerLimits::default()));
        let edge = Self {
            proxy: Proxy::start(EngineOptions::default(), kinds),
            origin: Origin::start(ok("hello")).await,
            own: issue(&[
                "a.test",
                "open.test",
                "may.test",
                "secret.test",
                "*.w.test",
                "127.0.0.1",
            ]),
        };
        edge.demand(demands);
        edge
    }

    fn demand(&self, demands: &[(&str, Option<Arc<ClientAuth>>)]) {
        self.demand_of(demands, &[("*", "/")]);
    }

    /// The same where hosts have rules for some paths.
    fn demand_of(&self, demands: &[(&str, Option<Arc<ClientAuth>>)], rules: &[(&str, &str)]) {
        let mut certificates = Certificates::default();
        let key = certified_key(&self.own.chain_pem, &self.own.key_pem).unwrap();
        for (host, client_auth) in demands {
            let added = certificates.add_demanding(host, key.clone(), client_auth.clone());
            added.unwrap();
        }
        let web = service(&[&self.origin], Policy::default());
        let rule = |(host, path): &(&str, &str)| {
            let rule = Rule {
                target: Target::Service(web.name().clone()),
                origin: "ingress/shop/web".into(),
                index: 0,
                limits: vec![],
                access: None,
            };
            let path = PathMatch::new(PathKind::Prefix, path).unwrap();
            let rules = HostRules::new([(path, rule)]);
            (HostName::parse(host).unwrap(), Arc::new(rules))
        };
        let routes = RouteTable::new(rules.iter().map(rule));
        self.proxy.engine.swap(Snapshot {
            certificates,
            routes,
            ..everything_to(web, vec![])
        });
    }

    async fn in_the_clear(&self, host: &str, path: &str) -> u16 {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        status_of(&raw(self.proxy.addresses[1], &request).await)
    }

    fn connector(&self, version: Version, client: Option<&Client>, alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => config.with_no_client_auth(),
            Some(client) => config
                .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
                .unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    async fn connect(&self, connector: &TlsConnector, name: &str) -> std::io::Result<Stream> {
        let stream = TcpStream::connect(self.proxy.address()).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        soon(connector.connect(name, stream)).await
    }

    /// The status of a request for the same host on a new connection; how the handshake ended without one.
    async fn ask(&self, connector: &TlsConnector, name: &str) -> Result<u16, String> {
        let stream = self.connect(connector, name).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        get(&mut stream, name).await
    }
}

type Version = &'static SupportedProtocolVersion;
type Stream = TlsStream<TcpStream>;

/// With TLS 1.3 a client learns only by reading that it was refused.
async fn get(stream: &mut Stream, host: &str) -> Result<u16, String> {
    get_path(stream, host, "/").await
}

async fn get_path(stream: &mut Stream, host: &str, path: &str) -> Result<u16, String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    // Who was refused may not get rid of it.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut buffer = Vec::new();
    match soon(read_message(stream, &mut buffer)).await {
        Some(answer) => Ok(status_of(&answer)),
        None => match stream.read(&mut [0]).await {
            Ok(count) => Err(format!("closed with {count} bytes")),
            Err(error) => Err(error.to_string()),
        },
    }
}

#[tokio::test]
async fn a_host_that_demands_a_certificate_is_reached_with_a_right_one_only() {
    let (right, wrong) = (Authority::new(), Authority::new());
    let edge = Edge::start(&[
        ("secret.test", right.demanded(true)),
        ("*.w.test", right.demanded(true)),
        ("may.test", right.demanded(false)),
        ("open.test", None),
    ])
    .await;
    let (right, wrong) = (right.client(), wrong.client());
    for version in rustls::ALL_VERSIONS {
        for (name, none_is_served, wrong_is_served) in [
            ("secret.test", false, false),
            ("x.w.test", false, false),
            ("may.test", true, false),
            ("open.test", true, true),
        ] {
            for (client, served) in [
                (None, none_is_served),
                (Some(&wrong), wrong_is_served),
                (Some(&right), true),
            ] {
                let asked = edge.ask(&edge.connector(version, client, &[]), name).await;
                assert_eq!(asked.is_ok(), served, "{version:?} {name}: {asked:?}");
            }
        }
    }
    // Of twelve in each version; strangers got nothing through.
    assert_eq!(edge.origin.seen().len(), 2 * 7);
}

#[tokio::test]
async fn a_connection_serves_only_hosts_with_the_same_demands() {
    let authority = Authority::new();
    let edge = Edge::start(&[
        ("secret.test", authority.demanded(true)),
        ("x.w.test", authority.demanded(true)),
        ("may.test", authority.demanded(false)),
        ("a.test", None),
        ("open.test", None),
    ])
    .await;
    let client = authority.client();
    for version in rustls::ALL_VERSIONS {
        let connector = edge.connector(version, Some(&client), &[]);
        for (name, host, expected) in [
            ("open.test", "a.test", 200),
            ("open.test", "secret.test", 421),
            ("open.test", "SECRET.test", 421),
            ("open.test", "secret.test:443", 421),
            ("open.test", "secret.test.", 421),
            ("open.test", "may.test", 421),
            ("may.test", "secret.test", 421),
            ("secret.test", "open.test", 421),
            ("secret.test", "x.w.test", 200),
            ("secret.test", "Secret.test", 200),
            ("secret.test", "secret.test.", 200),
            ("open.test", "open.test.", 200),
            // More was proven than is demanded.
            ("secret.test", "may.test", 200),
        ] {
            let mut stream = edge.connect(&connector, name).await.unwrap();
            let status = get(&mut stream, host).await;
            assert_eq!(status, Ok(expected), "{version:?} {name} {host}");
        }
        // `ask` asks for a.test.
        for (name, expected) in [("open.test", 200), ("secret.test", 421)] {
            let connector = edge.connector(version, Some(&client), &["h2"]);
            let stream = edge.connect(&connector, name).await.unwrap();
            let mut client = Peer::new(stream, false);
            client
                .say(&[PREFACE, &settings(&[]), &ask(1)].concat())
                .await;
            assert_eq!(client.answer(1).await.0, expected, "{version:?} {name}");
        }
    }
    for (host, expected) in [
        ("open.test", 200),
        ("may.test", 200),
        ("secret.test", 403),
        ("secret.test.", 403),
        ("SECRET.test", 403),
    ] {
        assert_eq!(edge.in_the_clear(host, "/").await, expected, "{host}");
    }
}

#[tokio::test]
async fn rules_of_another_host_keep_its_demands() {
    let authority = Authority::new();
    let edge = Edge::start(&[]).await;
    let demands = [
        ("*.w.test", authority.demanded(true)),
        ("b.w.test", None),
        ("*", authority.demanded(false)),
    ];
    let rules = [
        ("*.w.test", "/admin"),
        ("b.w.test", "/public"),
        ("*", "/any"),
    ];
    edge.demand_of(&demands, &rules);
    let client = authority.client();
    for (client, name, path, expected) in [
        (None, "b.w.test", "/public", 200),
        (None, "b.w.test", "/admin", 403),
        (None, "b.w.test", "/any", 403),
        (None, "b.w.test", "/other", 404),
        (Some(&client), "b.w.test", "/admin", 403),
        (Some(&client), "a.w.test", "/admin", 200),
        (Some(&client), "a.w.test", "/any", 200),
    ] {
        let connector = edge.connector(&rustls::version::TLS13, client, &[]);
        let mut stream = edge.connect(&connector, name).await.unwrap();
        let status = get_path(&mut stream, name, path).await;
        assert_eq!(status, Ok(expected), "{name} {path}");
    }
    assert_eq!(edge.in_the_clear("b.w.test", "/public").await, 200);
    assert_eq!(edge.in_the_clear("b.w.test.", "/admin").await, 403);
    assert_eq!(edge.in_the_clear("b.w.test", "/any").await, 200);
}

#[tokio::test]
async fn who_names_no_host_proves_what_all_others_demand() {
    let authority = Authority::new();
    let edge = Edge::start(&[("*", authority.demanded(true)), ("open.test", None)]).await;
    let client = authority.client();
    let late = authority.client_until(2020);
    for version in rustls::ALL_VERSIONS {
        for (client, name, served) in [
            (None, "127.0.0.1", false),
            (Some(&late), "127.0.0.1", false),
            (Some(&late), "a.test", false),
            (Some(&client), "127.0.0.1", true),
            (Some(&client), "a.test", true),
        ] {
            let asked = edge.ask(&edge.connector(version, client, &[]), name).await;
            assert_eq!(asked.is_ok(), served, "{version:?} {name}: {asked:?}");
        }
        let connector = edge.connector(version, Some(&client), &[]);
        let mut nameless = edge.connect(&connector, "127.0.0.1").await.unwrap();
        assert_eq!(get(&mut nameless, "open.test").await, Ok(421));
        assert_eq!(get(&mut nameless, "a.test").await, Ok(200));
    }
}

#[tokio::test]
async fn a_demand_that_nobody_can_meet_lets_nobody_in() {
    let authority = Authority::new();
    let refused = Some(Arc::new(ClientAuth::Refused("torn".into())));
    let edge = Edge::start(&[("secret.test", refused), ("open.test", None)]).await;
    for version in rustls::ALL_VERSIONS {
        for client in [None, Some(&authority.client())] {
            let connector = edge.connector(version, client, &["http/1.1"]);
            assert_eq!(edge.ask(&connector, "secret.test").await, Ok(503));
            let mut open = edge.connect(&connector, "open.test").await.unwrap();
            assert_eq!(get(&mut open, "secret.test").await, Ok(503));
            assert_eq!(get(&mut open, "open.test").await, Ok(200));
        }
    }
    assert_eq!(edge.in_the_clear("secret.test", "/").await, 503);
    assert_eq!(edge.origin.seen().len(), 4);
}

#[tokio::test]
async fn a_change_of_demands_holds_for_sessions_and_connections_from_before() {
    let (old, new) = (Authority::new(), Authority::new());
    let host = |demanded| [("secret.test", demanded)];
    for version in rustls::ALL_VERSIONS {
        let edge = Edge::start(&host(None)).await;
        let kind = |stream: &Stream| stream.get_ref().1.handshake_kind();
        // Until its sessions would be resumed.
        let stranger = edge.connector(version, None, &[]);
        let mut kept = edge.connect(&stranger, "secret.test").await.unwrap();
        assert_eq!(get(&mut kept, "secret.test").await, Ok(200));
        let mut resumed = edge.connect(&stranger, "secret.test").await.unwrap();
        assert_eq!(kind(&resumed), Some(HandshakeKind::Resumed));
        assert_eq!(get(&mut resumed, "secret.test").await, Ok(200));
        // Strangers' sessions and connections are nothing worth now.
        edge.demand(&host(old.demanded(true)));
        assert_eq!(get(&mut kept, "secret.test").await, Ok(421));
        let refused = edge.ask(&stranger, "secret.test").await;
        assert!(refused.is_err(), "{version:?}: {refused:?}");
        // Who is known proves it anew each time.
        let client = old.client();
        let known = edge.connector(version, Some(&client), &[]);
        let mut kept = edge.connect(&known, "secret.test").await.unwrap();
        assert_eq!(get(&mut kept, "secret.test").await, Ok(200));
        let again = edge.connect(&known, "secret.test").await.unwrap();
        assert_eq!(kind(&again), Some(HandshakeKind::Full), "{version:?}");
        // The same demand, made anew, is no other.
        edge.demand(&host(old.demanded(true)));
        assert_eq!(get(&mut kept, "secret.test").await, Ok(200));
        // Who is known stays so while another authority is added.
        edge.demand(&host(demanded(&[&new, &old], true)));
        assert_eq!(get(&mut kept, "secret.test").await, Ok(200));
        edge.demand(&host(new.demanded(true)));
        assert_eq!(get(&mut kept, "secret.test").await, Ok(421));
        // The client opens another connection, for this one is over.
        assert_eq!(soon(kept.read(&mut [0])).await.unwrap(), 0);
        assert!(edge.ask(&known, "secret.test").await.is_err());
    }
}

#[tokio::test]
async fn http2_connections_end_when_their_proof_is_worth_nothing() {
    let (old, new) = (Authority::new(), Authority::new());
    let edge = Edge::start(&[("a.test", old.demanded(true)), ("open.test", None)]).await;
    let client = old.client();
    let connector = edge.connector(&rustls::version::TLS13, Some(&client), &["h2"]);
    let stream = edge.connect(&connector, "a.test").await.unwrap();
    let mut kept = Peer::new(stream, false);
    kept.say(&[PREFACE, &settings(&[]), &ask(1)].concat()).await;
    assert_eq!(kept.answer(1).await.0, 200);
    edge.demand(&[("a.test", new.demanded(true)), ("open.test", None)]);
    kept.say(&ask(3)).await;
    assert_eq!(kept.answer(3).await.0, 421);
    let rest = kept.rest().await;
    let is_farewell = |heard: &Heard| matches!(heard, Heard::GoAway(_, 0));
    assert!(rest.iter().any(is_farewell), "{rest:?}");
}
