//! Identity and push against a control plane with real sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshgate_api::push as wire;
use meshgate_certs::expiry::Validity;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::dial::ControlPlane;
use super::fake::{FakeControl, TEST_DEADLINE};
use super::identity::{IdentityClient, WorkloadIdentity, first};
use super::link::ControlOptions;
use super::mesh::mesh_tls;
use super::metrics::ControlMetrics;
use super::resource::{Changes, Kind};
use super::stream::{Enforce, Interest, Progress, PushClient};

/// Notes what it is given, and refuses what is called bad.
#[derive(Debug, Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Enforce for Notes {
    fn enforce(&mut self, changes: Changes) -> Vec<wire::Refusal> {
        let mut notes = self.0.lock().unwrap();
        let mut refusals = Vec::new();
        for (name, _) in changes.updated {
            if name.contains("bad") {
                refusals.push(wire::Refusal {
                    resource: name,
                    reason: "it is bad".to_owned(),
                });
            } else {
                notes.push(format!("+{name}"));
            }
        }
        notes.extend(
            changes
                .removed
                .into_iter()
                .map(|(_, name)| format!("-{name}")),
        );
        refusals
    }
}

impl Notes {
    fn taken(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join(" ")
    }
}

/// A proxy without an engine: identity and push.
struct Proxy {
    notes: Notes,
    interests: mpsc::Sender<Interest>,
    progress: watch::Receiver<Progress>,
    identity: watch::Receiver<Option<WorkloadIdentity>>,
    validities: watch::Receiver<Vec<Validity>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Proxy {
    fn start(options: &ControlOptions, initial: Vec<(Kind, Vec<String>)>) -> Self {
        let control = ControlPlane {
            address: options.control.clone(),
            ca_path: options.ca_path.clone(),
            mark: None,
        };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (publish, identity) = watch::channel(None);
        let client = IdentityClient {
            control: control.clone(),
            token_path: options.token_path.clone(),
            trust_domain: options.trust_domain.clone(),
        };
        let (noted, validities) = watch::channel(Vec::new());
        let note = move |validity| noted.send_modify(|all: &mut Vec<_>| all.push(validity));
        tasks.spawn(client.run(publish, note, stop.clone()));
        let notes = Notes::default();
        let (interests, receiver) = mpsc::channel(16);
        let (publish, progress) = watch::channel(Progress::default());
        let client = PushClient::new(
            control,
            wire::Node::default(),
            initial,
            notes.clone(),
            receiver,
            publish,
            ControlMetrics::default(),
        );
        tasks.spawn(client.run(identity.clone(), stop.clone()));
        Self {
            notes,
            interests,
            progress,
            identity,
            validities,
            stop,
            tasks,
        }
    }

    async fn until(&mut self, condition: impl Fn(&Progress) -> bool) -> Progress {
        let reached = timeout(TEST_DEADLINE, self.progress.wait_for(|p| condition(p))).await;
        *reached.expect("in time").expect("the client runs")
    }

    async fn end(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        timeout(TEST_DEADLINE, ended).await.expect("tasks end");
    }
}

async fn control() -> (TempDir, FakeControl) {
    let directory = tempfile::tempdir().unwrap();
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let control = FakeControl::start(directory.path().to_owned(), address).await;
    (directory, control)
}

fn service(name: &str, address: &str) -> wire::Service {
    wire::Service {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        port: 80,
        addresses: vec![address.to_owned()],
        ..wire::Service::default()
    }
}

fn everything(kind: Kind) -> (Kind, Vec<String>) {
    (kind, vec!["*".to_owned()])
}

#[tokio::test]
async fn configuration_is_enforced_then_acknowledged() {
    let (_directory, control) = control().await;
    control.set_service(service("web", "10.96.0.1"));
    let options = control.options("shop", "edge", "edge-0");
    let wanted = vec![everything(Kind::Service), everything(Kind::EdgeHost)];
    let mut proxy = Proxy::start(&options, wanted);
    let progress = proxy.until(|p| p.initial).await;
    assert!(progress.connected);
    assert_eq!(proxy.notes.taken(), "+shop/web:80");
    let peer = control.last_peer().expect("a certificate");
    assert_eq!(peer.as_str(), "spiffe://cluster.local/ns/shop/sa/edge");

    let generation = control.set_service(service("cart", "10.96.0.2"));
    let answer = control.enforced(generation).await;
    assert!(answer.refusals.is_empty());
    assert_eq!(proxy.notes.taken(), "+shop/cart:80");

    let generation = control.remove(Kind::Service, "shop/web:80");
    control.enforced(generation).await;
    assert_eq!(proxy.notes.taken(), "-shop/web:80");
    proxy.end().await;
}

#[tokio::test]
async fn what_cannot_be_enforced_is_refused_by_name() {
    let (_directory, control) = control().await;
    control.set_service(service("bad", "10.96.0.1"));
    control.set_service(service("good", "10.96.0.2"));
    let options = control.options("shop", "edge", "edge-0");
    let mut proxy = Proxy::start(&options, vec![everything(Kind::Service)]);
    let nack = control.answer(|answer| !answer.refusals.is_empty()).await;
    assert_eq!(nack.refusals[0].resource, "shop/bad:80");
    assert_eq!(nack.refusals[0].reason, "it is bad");
    assert_eq!(nack.enforced_generation, 2);
    assert_eq!(proxy.notes.taken(), "+shop/good:80");
    assert_eq!(proxy.until(|p| p.initial).await.refused, 1);
    proxy.end().await;
}

#[tokio::test]
async fn a_refusal_outlives_its_stream() {
    let (_directory, mut control) = control().await;
    control.set_service(service("bad", "10.96.0.1"));
    control.set_service(service("good", "10.96.0.2"));
    let options = control.options("shop", "edge", "edge-0");
    let mut proxy = Proxy::start(&options, vec![everything(Kind::Service)]);
    proxy.until(|p| p.refused == 1).await;
    control.die().await;
    proxy.until(|p| !p.connected).await;
    control.resume().await;
    // Who did not hear the first refusal hears it now.
    proxy.until(|p| p.refused == 2).await;
    let opening = control
        .opening(|opening| !opening.held_versions.is_empty())
        .await;
    assert_eq!(opening.held_versions["shop/bad:80"], "");
    assert_eq!(opening.held_versions["shop/good:80"], "2");
    assert_eq!(proxy.until(|p| p.connected).await.streams, 2);
    proxy.end().await;
}

#[tokio::test]
async fn a_dead_control_plane_takes_nothing_away() {
    let (_directory, mut control) = control().await;
    control.set_service(service("web", "10.96.0.1"));
    control.set_service(service("old", "10.96.0.2"));
    let options = control.options("shop", "edge", "edge-0");
    let mut proxy = Proxy::start(&options, vec![everything(Kind::Service)]);
    proxy.until(|p| p.initial).await;
    assert_eq!(proxy.notes.taken(), "+shop/old:80 +shop/web:80");

    control.die().await;
    let progress = proxy.until(|p| !p.connected).await;
    assert!(progress.initial);
    control.remove(Kind::Service, "shop/old:80");
    let generation = control.set_service(service("new", "10.96.0.3"));
    control.resume().await;
    control.enforced(generation).await;
    let opening = control
        .opening(|opening| !opening.held_versions.is_empty())
        .await;
    assert_eq!(opening.held_versions.len(), 2);
    assert_eq!(proxy.notes.taken(), "+shop/new:80 -shop/old:80");
    proxy.end().await;
}

#[tokio::test]
async fn a_lost_update_is_repaired_by_asking_for_everything() {
    let (_directory, control) = control().await;
    control.set_service(service("web", "10.96.0.1"));
    let options = control.options("shop", "edge", "edge-0");
    let mut proxy = Proxy::start(&options, vec![everything(Kind::Service)]);
    proxy.until(|p| p.initial).await;
    proxy.notes.taken();

    control.set_wrong_hash(1);
    control.set_service(service("cart", "10.96.0.2"));
    // The stream is given up, and the next one opened with nothing held.
    proxy.until(|p| !p.connected).await;
    control.set_wrong_hash(0);
    let progress = proxy.until(|p| p.connected && p.streams >= 2).await;
    assert_eq!(progress.generation, 2);
    let notes = proxy.notes.taken();
    assert!(notes.ends_with("+shop/cart:80 +shop/web:80"), "{notes}");
    proxy.end().await;
}

#[tokio::test]
async fn services_are_asked_for_on_demand_and_again_after_a_reconnect() {
    let (_directory, mut control) = control().await;
    control.set_service(service("web", "10.96.0.1"));
    control.set_service(service("other", "10.96.0.9"));
    control.set_workload("shop/cart-0", wire::Workload::default());
    let options = control.options("shop", "cart", "cart-0");
    let own = (Kind::Workload, vec!["shop/cart-0".to_owned()]);
    let mut proxy = Proxy::start(&options, vec![own, (Kind::Service, Vec::new())]);
    proxy.until(|p| p.initial).await;
    assert_eq!(proxy.notes.taken(), "+shop/cart-0");

    let want = |name: &str| Interest::Want(Kind::Service, name.to_owned());
    proxy.interests.send(want("10.96.0.1:80")).await.unwrap();
    let opening = control
        .opening(|opening| opening.type_url == Kind::Service.type_url())
        .await;
    assert_eq!(opening.subscribe, ["10.96.0.1:80"]);
    proxy.interests.send(want("10.96.0.7:80")).await.unwrap();
    let generation = control.set_service(service("late", "10.96.0.7"));
    control.enforced(generation).await;
    let notes = proxy.notes.taken();
    assert_eq!(notes.matches("+shop/web:80").count(), 1, "{notes}");
    assert!(notes.contains("+shop/late:80"), "{notes}");
    assert!(!notes.contains("other"), "{notes}");

    control.die().await;
    proxy.until(|p| !p.connected).await;
    control.resume().await;
    let opening = control
        .opening(|opening| opening.held_versions.len() == 2)
        .await;
    assert_eq!(opening.subscribe, ["10.96.0.1:80", "10.96.0.7:80"]);
    proxy.end().await;
}

#[tokio::test]
async fn what_is_wanted_while_dialling_waits_for_nothing() {
    let (_directory, mut control) = control().await;
    let options = control.options("shop", "cart", "cart-0");
    let mut proxy = Proxy::start(&options, vec![everything(Kind::Workload)]);
    proxy.until(|p| p.initial).await;
    control.die().await;
    // Takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind(options.control.to_string());
    let silent = silent.await.unwrap();
    let dialled = timeout(TEST_DEADLINE, silent.accept()).await;
    let _dialled = dialled.expect("it dials").unwrap();
    let wanted: Vec<String> = (0..100).map(|n| format!("10.96.0.{n}:80")).collect();
    let wanting = async {
        for address in &wanted {
            let interest = Interest::Want(Kind::Service, address.clone());
            proxy.interests.send(interest).await.expect("it runs");
        }
    };
    // Far less than a dial takes to fail.
    let told = timeout(Duration::from_secs(2), wanting).await;
    told.expect("taken up at once");
    drop(silent);
    control.resume().await;
    control
        .opening(|opening| opening.subscribe.len() == wanted.len())
        .await;
    proxy.end().await;
}

/// One handshake each way between the two; the server tells which identity it saw.
async fn meet(client: &WorkloadIdentity, server: &WorkloadIdentity, domain: &str) -> String {
    let domain = domain.parse().unwrap();
    let client = mesh_tls(client, &domain).unwrap();
    let server = mesh_tls(server, &domain).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = rustls_pki_types::ServerName::try_from("10.0.0.1").unwrap();
    let connecting = tokio_rustls::TlsConnector::from(client.client).connect(name, near);
    let accepting = tokio_rustls::TlsAcceptor::from(server.server.clone()).accept(far);
    let (connected, accepted) = tokio::join!(connecting, accepting);
    connected.expect("the client accepts the server");
    let accepted = accepted.expect("the server accepts the client");
    let peer = accepted
        .get_ref()
        .1
        .peer_certificates()
        .expect("a certificate");
    (server.identify)(peer).expect("an identity").to_string()
}

#[tokio::test]
async fn certificates_are_renewed_under_handshakes_with_new_keys() {
    let (_directory, control) = control().await;
    control.set_certificate_ttl(Duration::from_secs(3));
    let proxies = ["front", "back"]
        .map(|account| Proxy::start(&control.options("shop", account, account), Vec::new()));
    let [mut front, mut back] = proxies;
    let front_identity = first(&mut front.identity).await.expect("an identity");
    let back_identity = first(&mut back.identity).await.expect("an identity");
    let mut handshakes = 0_u32;
    let renewed = |proxy: &Proxy| proxy.validities.borrow().len() >= 3;
    let meeting = async {
        while !(renewed(&front) && renewed(&back)) {
            let peer = meet(&front_identity, &back_identity, "cluster.local").await;
            assert_eq!(peer, "spiffe://cluster.local/ns/shop/sa/front");
            handshakes += 1;
        }
    };
    timeout(TEST_DEADLINE, meeting).await.expect("two renewals");
    assert!(handshakes > 10, "{handshakes}");
    control.certified(6).await;
    let ends: Vec<_> = front
        .validities
        .borrow()
        .iter()
        .map(|v| v.not_after)
        .collect();
    assert!(ends.is_sorted(), "{ends:?}");
    front.end().await;
    back.end().await;
}

#[tokio::test]
async fn a_valid_certificate_serves_on_while_renewal_fails() {
    let (_directory, mut control) = control().await;
    control.set_certificate_ttl(Duration::from_secs(3));
    let options = control.options("shop", "web", "web-0");
    let mut proxy = Proxy::start(&options, Vec::new());
    let identity = first(&mut proxy.identity).await.expect("an identity");
    control.die().await;
    let validity = proxy.validities.borrow()[0];
    let last_moment = validity.not_after - jiff::SignedDuration::from_millis(400);
    let mut handshakes = 0_u32;
    // Renewal is due after 2.1 s and fails; handshakes go on with what is valid.
    while jiff::Timestamp::now() < last_moment {
        meet(&identity, &identity, "cluster.local").await;
        handshakes += 1;
    }
    assert!(handshakes > 10, "{handshakes}");
    assert_eq!(proxy.validities.borrow().len(), 1);
    control.resume().await;
    let renewed = proxy.validities.wait_for(|all| all.len() >= 2);
    timeout(TEST_DEADLINE, renewed)
        .await
        .expect("in time")
        .expect("renewed");
    meet(&identity, &identity, "cluster.local").await;
    proxy.end().await;
}
