//! A control plane for tests: real sockets, real TLS, the real protocol, and resources set by hand.
//!
//! Only for tests (feature `fake-control`): it signs certificates for anyone who shows a token.

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use meshgate_api::push as wire;
use meshgate_certs::authority::Authority;
use meshgate_certs::cluster::{ClusterPki, ClusterPkiOptions};
use meshgate_certs::credential::Credential;
use meshgate_certs::identity::{SpiffeId, TrustDomain};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::link::{ControlOptions, PodName};
use super::resource::Kind;

/// Longest wait for anything in a test.
pub const TEST_DEADLINE: Duration = Duration::from_secs(20);

/// The control plane of one test.
#[derive(Debug)]
pub struct FakeControl {
    directory: PathBuf,
    address: SocketAddr,
    state: Arc<State>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct State {
    pki: ClusterPki,
    authority: Authority,
    trust_domain: TrustDomain,
    certificate_ttl: Mutex<Duration>,
    /// The signing requests so far.
    certified: watch::Sender<Vec<Vec<u8>>>,
    resources: Mutex<Resources>,
    changed: watch::Sender<u64>,
    /// Every request that answers a response.
    answers: watch::Sender<Vec<wire::DeltaRequest>>,
    /// Openings of streams, as they came.
    openings: watch::Sender<Vec<wire::DeltaRequest>>,
    /// The peers of streams.
    peers: Mutex<Vec<Option<SpiffeId>>>,
    /// Whether quotas are leased.
    quotas: AtomicBool,
    /// Added to every `held_hash`, to make both ends differ.
    wrong_hash: Mutex<u64>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Resources {
    generation: u64,
    held: BTreeMap<(Kind, String), (String, prost_types::Any, Vec<String>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with this lock held")
}

impl FakeControl {
    /// Starts on `address` (port 0 picks one) with its files in `directory`.
    pub async fn start(directory: PathBuf, address: IpAddr) -> Self {
        let options = ClusterPkiOptions {
            api_addresses: vec![address],
            api_names: Vec::new(),
            api_url_host: "https://unused".to_owned(),
            api_url_inside: "https://unused".to_owned(),
            cluster_name: "test".to_owned(),
            nodes: Vec::new(),
        };
        let trust_domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
        let state = State {
            pki: ClusterPki::ensure(&directory, &options).expect("a cluster CA"),
            authority: Authority::generate(&trust_domain, Timestamp::now()).expect("a mesh CA"),
            trust_domain,
            certificate_ttl: Mutex::new(Duration::from_secs(24 * 3600)),
            certified: watch::Sender::new(Vec::new()),
            resources: Mutex::default(),
            changed: watch::Sender::new(0),
            answers: watch::Sender::new(Vec::new()),
            openings: watch::Sender::new(Vec::new()),
            peers: Mutex::default(),
            quotas: AtomicBool::new(true),
            wrong_hash: Mutex::new(0),
        };
        let mut control = Self {
            directory,
            address: SocketAddr::new(address, 0),
            state: Arc::new(state),
            running: None,
        };
        control.resume().await;
        control
    }

    /// Begins (again) to listen, on the same port as before.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("a socket");
        self.address = listener.local_addr().expect("its address");
        let stop = CancellationToken::new();
        let task = tokio::spawn(server::serve(listener, self.state.clone(), stop.clone()));
        self.running = Some(Running { stop, task });
    }

    /// Dies: every connection breaks, the port is closed.
    pub async fn die(&mut self) {
        let running = self.running.take().expect("it was running");
        running.stop.cancel();
        running.task.await.expect("the server ends");
    }

    /// How `namespace/service account` reaches it, as pod `name`.
    pub fn options(&self, namespace: &str, account: &str, name: &str) -> ControlOptions {
        let claims = format!(r#"{{"sub":"system:serviceaccount:{namespace}:{account}"}}"#);
        let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        let token_path = self.directory.join(format!("token-{namespace}-{account}"));
        std::fs::write(&token_path, token).expect("a token");
        ControlOptions {
            control: self.address.to_string().parse().expect("an address"),
            trust_domain: self.state.trust_domain.clone(),
            token_path,
            ca_path: self.state.pki.ca.clone(),
            pod: PodName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                node: "node-0".to_owned(),
            },
        }
    }

    /// Life of the certificates signed from now on.
    pub fn set_certificate_ttl(&self, ttl: Duration) {
        *lock(&self.state.certificate_ttl) = ttl;
    }

    /// Waits until `count` certificates have been signed, each for a key of its own.
    pub async fn certified(&self, count: usize) {
        let mut certified = self.state.certified.subscribe();
        let reached = certified.wait_for(|all| all.len() >= count);
        let all = tokio::time::timeout(TEST_DEADLINE, reached)
            .await
            .expect("certificates in time")
            .expect("the sender lives");
        let keys: BTreeSet<&Vec<u8>> = all.iter().collect();
        assert_eq!(keys.len(), all.len(), "a key was used twice");
    }

    /// A credential of any workload, to meet proxies with.
    pub fn credential(&self, id: &str) -> Credential {
        let id: SpiffeId = id.parse().expect("an identity");
        let request = meshgate_certs::csr::generate(&id).expect("a request");
        let ttl = Duration::from_secs(3600);
        let leaf = self
            .state
            .authority
            .sign(&request.csr_der, &id, ttl, Timestamp::now());
        Credential::new(leaf.expect("a leaf").chain_der, request.key).expect("a credential")
    }

    /// The mesh's root.
    pub fn root_pem(&self) -> String {
        self.state.authority.cert_pem().to_owned()
    }

    /// Sets a host of the edge.
    pub fn set_host(&self, host: wire::EdgeHost) -> u64 {
        self.set(Kind::EdgeHost, host.host.clone(), &host, Vec::new())
    }

    /// Sets a service; its name is made of its fields.
    pub fn set_service(&self, service: wire::Service) -> u64 {
        let name = format!("{}/{}:{}", service.namespace, service.name, service.port);
        let aliases = service.addresses.iter();
        let aliases = aliases.map(|a| format!("{a}:{}", service.port)).collect();
        self.set(Kind::Service, name, &service, aliases)
    }

    /// Sets a certificate.
    pub fn set_certificate(&self, name: &str, certificate: wire::Certificate) -> u64 {
        self.set(Kind::Certificate, name.to_owned(), &certificate, Vec::new())
    }

    /// Sets what a pod (`namespace/name`) must know of itself.
    pub fn set_workload(&self, name: &str, workload: wire::Workload) -> u64 {
        self.set(Kind::Workload, name.to_owned(), &workload, Vec::new())
    }

    fn set<M: wire::ResourceBody>(
        &self,
        kind: Kind,
        name: String,
        message: &M,
        aliases: Vec<String>,
    ) -> u64 {
        let body = prost_types::Any {
            type_url: kind.type_url(),
            value: message.encode_to_vec(),
        };
        self.change(|resources| {
            let version = resources.generation.to_string();
            resources
                .held
                .insert((kind, name), (version, body, aliases));
        })
    }

    /// Removes a resource.
    pub fn remove(&self, kind: Kind, name: &str) -> u64 {
        self.change(|resources| {
            resources.held.remove(&(kind, name.to_owned()));
        })
    }

    fn change(&self, change: impl FnOnce(&mut Resources)) -> u64 {
        let mut resources = lock(&self.state.resources);
        resources.generation += 1;
        change(&mut resources);
        let generation = resources.generation;
        drop(resources);
        self.state.changed.send_replace(generation);
        generation
    }

    /// Makes both ends differ (or agree again), as after a lost update.
    pub fn set_wrong_hash(&self, by: u64) {
        *lock(&self.state.wrong_hash) = by;
    }

    /// Refuses quota streams from now on; open ones end when this [dies](Self::die).
    pub fn refuse_quotas(&self) {
        self.state.quotas.store(false, Ordering::Relaxed);
    }

    /// Waits until some answer satisfies `condition`, and returns it.
    pub async fn answer(
        &self,
        condition: impl Fn(&wire::DeltaRequest) -> bool,
    ) -> wire::DeltaRequest {
        wait(&self.state.answers, condition, "an answer").await
    }

    /// Waits until `generation` is enforced.
    pub async fn enforced(&self, generation: u64) -> wire::DeltaRequest {
        self.answer(|answer| answer.enforced_generation >= generation)
            .await
    }

    /// Waits for an opening of a stream that satisfies `condition`.
    pub async fn opening(
        &self,
        condition: impl Fn(&wire::DeltaRequest) -> bool,
    ) -> wire::DeltaRequest {
        wait(&self.state.openings, condition, "an opening").await
    }

    /// How many streams have been opened with a first request.
    pub fn streams(&self) -> usize {
        lock(&self.state.peers).len()
    }

    /// Who opened the last stream, by its certificate.
    pub fn last_peer(&self) -> Option<SpiffeId> {
        lock(&self.state.peers).last().cloned().flatten()
    }
}

async fn wait(
    of: &watch::Sender<Vec<wire::DeltaRequest>>,
    condition: impl Fn(&wire::DeltaRequest) -> bool,
    what: &str,
) -> wire::DeltaRequest {
    let mut requests = of.subscribe();
    let found = requests.wait_for(|all| all.iter().any(&condition));
    let all = tokio::time::timeout(TEST_DEADLINE, found)
        .await
        .unwrap_or_else(|_| panic!("{what} in time; there were {:#?}", of.borrow()))
        .expect("the sender lives");
    let found = all.iter().rfind(|request| condition(request));
    found.expect("waited for it").clone()
}
