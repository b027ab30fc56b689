//! The server half: TLS, the three services, and one session for each push stream.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::Stream;
use jiff::Timestamp;
use meshgate_api::push as wire;
use meshgate_certs::credential::{Credential, CurrentCredential};
use meshgate_certs::identity::SpiffeId;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::super::identity::identity_of_token;
use super::super::resource::Kind;
use super::{State, lock};

/// Serves until `stop`; then every connection breaks.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
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
        .with_cert_resolver(Arc::new(CurrentCredential::new(serving)));
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
        let id = identity_of_token(token, &state.trust_domain)
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
