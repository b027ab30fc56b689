//! A control plane for tests: real sockets, real TLS, the real protocol, and resources set by hand.
//!
//! Only for tests (feature `fake-control`): it signs certificates for anyone who shows a token.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::Stream;
use jiff::Timestamp;
use meshgate_api::push as wire;
use meshgate_certs::authority::Authority;
use meshgate_certs::cluster::{ClusterPki, ClusterPkiOptions};
use meshgate_certs::credential::Credential;
use meshgate_certs::identity::{SpiffeId, TrustDomain};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

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
        let task = tokio::spawn(serve(listener, self.state.clone(), stop.clone()));
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

async fn serve(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&state)));
    let (streams, incoming) = mpsc::channel(16);
    // The server's tasks outlive it: their sockets are what ends them.
    let open = Mutex::new(Vec::new());
    let accepting = async {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = stream.into_std().expect("a socket");
            lock(&open).push(stream.try_clone().expect("a descriptor"));
            let stream = TcpStream::from_std(stream).expect("a socket");
            let (acceptor, streams) = (acceptor.clone(), streams.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = streams
                        .send(Ok::<_, std::io::Error>(Connection(stream)))
                        .await;
                }
            });
        }
    };
    let service = Service(state);
    let serving = tonic::transport::Server::builder()
        .add_service(wire::push_server::PushServer::new(service.clone()))
        .add_service(wire::identity_server::IdentityServer::new(service.clone()))
        .add_service(wire::quota_server::QuotaServer::new(service))
        .serve_with_incoming(ReceiverStream::new(incoming));
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
        served = serving => served.expect("serving"),
    }
    for stream in lock(&open).iter() {
        // An error means that the other side was first.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

fn tls(state: &State) -> ServerConfig {
    let (chain, key) = state.pki.api_server.read().expect("a certificate");
    let serving = Credential::from_pem(&chain, &key).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    let root = state.authority.cert_der().clone();
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .expect("a verifier");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(
            meshgate_certs::credential::CurrentCredential::new(serving),
        ));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Clone)]
struct Service(Arc<State>);

#[tonic::async_trait]
impl wire::identity_server::Identity for Service {
    async fn certify(
        &self,
        request: Request<wire::CertifyRequest>,
    ) -> Result<Response<wire::CertifyResponse>, Status> {
        let state = &self.0;
        let bearer = request.metadata().get("authorization");
        let token = bearer
            .and_then(|bearer| bearer.to_str().ok()?.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("no token"))?;
        let id = super::identity::identity_of_token(token, &state.trust_domain)
            .map_err(|why| Status::unauthenticated(why.to_string()))?;
        let csr = request.into_inner().csr_der;
        let ttl = *lock(&state.certificate_ttl);
        let leaf = state
            .authority
            .sign(&csr, &id, ttl, Timestamp::now())
            .map_err(|why| Status::permission_denied(why.to_string()))?;
        state.certified.send_modify(|all| all.push(csr));
        Ok(Response::new(wire::CertifyResponse {
            chain_der: leaf.chain_der.iter().map(|der| der.to_vec()).collect(),
            roots_der: vec![state.authority.cert_der().to_vec()],
            not_before_unix_s: leaf.validity.not_before.as_second(),
            not_after_unix_s: leaf.validity.not_after.as_second(),
        }))
    }
}

#[tonic::async_trait]
impl wire::quota_server::Quota for Service {
    type LeaseStream = Pin<Box<dyn Stream<Item = Result<wire::LeaseResponse, Status>> + Send>>;

    /// Grants everything that is wanted.
    async fn lease(
        &self,
        request: Request<Streaming<wire::LeaseRequest>>,
    ) -> Result<Response<Self::LeaseStream>, Status> {
        if !self.0.quotas.load(Ordering::Relaxed) {
            return Err(Status::unavailable("no quotas"));
        }
        let granted = request.into_inner().map(|message| {
            let grants = message?.demands.into_iter().map(|demand| wire::Grant {
                limit: demand.limit,
                key: demand.key,
                tokens: demand.want,
                valid_ms: 1000,
                retry_after_ms: 0,
            });
            Ok(wire::LeaseResponse {
                grants: grants.collect(),
            })
        });
        Ok(Response::new(Box::pin(granted)))
    }
}

#[tonic::async_trait]
impl wire::push_server::Push for Service {
    type DeltaStream = ReceiverStream<Result<wire::DeltaResponse, Status>>;

    async fn delta(
        &self,
        request: Request<Streaming<wire::DeltaRequest>>,
    ) -> Result<Response<Self::DeltaStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.and_then(|Peer(peer)| peer);
        if peer.is_none() {
            return Err(Status::unauthenticated("no workload certificate"));
        }
        lock(&self.0.peers).push(peer);
        let (responses, outgoing) = mpsc::channel(64);
        let session = Session {
            state: self.0.clone(),
            responses,
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// One push stream.
struct Session {
    state: Arc<State>,
    responses: mpsc::Sender<Result<wire::DeltaResponse, Status>>,
    wanted: BTreeMap<Kind, BTreeSet<String>>,
    held: BTreeMap<Kind, BTreeMap<String, String>>,
}

impl Session {
    async fn run(mut self, mut requests: Streaming<wire::DeltaRequest>) {
        let mut changed = self.state.changed.subscribe();
        loop {
            let sent = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.take(request).await,
                    Ok(None) | Err(_) => return,
                },
                changed = changed.changed() => match changed {
                    Ok(()) => self.push_changes().await,
                    Err(_) => return,
                },
            };
            if sent.is_none() {
                return;
            }
        }
    }

    async fn take(&mut self, request: wire::DeltaRequest) -> Option<()> {
        let kind = Kind::of_type_url(&request.type_url)?;
        if !request.response_nonce.is_empty() {
            self.state.answers.send_modify(|all| all.push(request));
            return Some(());
        }
        let names = &request.subscribe;
        if !self.wanted.contains_key(&kind) {
            let held = request.held_versions.clone().into_iter().collect();
            self.held.insert(kind, held);
            self.state
                .openings
                .send_modify(|all| all.push(request.clone()));
        }
        let wanted = self.wanted.entry(kind).or_default();
        wanted.extend(names.iter().cloned());
        for name in &request.unsubscribe {
            wanted.remove(name);
        }
        self.push(kind, names).await
    }

    async fn push_changes(&mut self) -> Option<()> {
        for kind in self.wanted.clone().into_keys() {
            self.push(kind, &[]).await?;
        }
        Some(())
    }

    /// Sends what differs, and an answer for each of `asked`.
    async fn push(&mut self, kind: Kind, asked: &[String]) -> Option<()> {
        let response = self.response(kind, asked);
        self.responses.send(Ok(response)).await.ok()
    }

    fn response(&mut self, kind: Kind, asked: &[String]) -> wire::DeltaResponse {
        let wanted = self.wanted.entry(kind).or_default();
        let held = self.held.entry(kind).or_default();
        let all = lock(&self.state.resources);
        let mut response = wire::DeltaResponse {
            type_url: kind.type_url(),
            nonce: format!("{}-{}", all.generation, kind.type_url()),
            generation: all.generation,
            ..wire::DeltaResponse::default()
        };
        let mut should = BTreeMap::new();
        let mut known = BTreeSet::from(["*".to_owned()]);
        for ((of, name), (version, body, aliases)) in &all.held {
            let by_alias = aliases.iter().any(|alias| wanted.contains(alias));
            if *of != kind || !(wanted.contains("*") || wanted.contains(name) || by_alias) {
                continue;
            }
            known.insert(name.clone());
            known.extend(aliases.iter().cloned());
            if held.get(name) != Some(version) {
                response.resources.push(wire::Resource {
                    name: name.clone(),
                    version: version.clone(),
                    body: Some(body.clone()),
                });
            }
            should.insert(name.clone(), version.clone());
        }
        let gone = held.keys().filter(|name| !should.contains_key(*name));
        response.removed.extend(gone.cloned());
        let unknown = asked.iter().filter(|name| !known.contains(*name));
        response.removed.extend(unknown.cloned());
        let hash = wire::held_hash(should.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        response.held_hash = hash.wrapping_add(*lock(&self.state.wrong_hash));
        *held = should;
        response
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
struct Peer(Option<SpiffeId>);

struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let (_, tls) = self.0.get_ref();
        Peer(SpiffeId::of_peer(tls.peer_certificates()).ok())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
