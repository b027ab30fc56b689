//! A proxy as far as the stream goes: applies responses, checks their hash, acknowledges.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use meshgate_api::push::{
    self, DeltaRequest, DeltaResponse, Node, Refusal, node::Role, push_client::PushClient,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{DEADLINE, Server};
use crate::{compile::ResourceKind, xds::stream::type_url};

type Credential = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An open stream.
pub(crate) struct Client {
    requests: mpsc::Sender<DeltaRequest>,
    responses: Streaming<DeltaResponse>,
    node: Node,
    /// Type, name, version.
    pub(crate) held: BTreeMap<(ResourceKind, String), String>,
}

/// A channel to the server, with or without a certificate.
pub(crate) async fn channel(
    server: &Server,
    credential: Option<Credential>,
) -> Result<Channel, tonic::transport::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(server.serving_root.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match credential {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .expect("a certificate with its key"),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let address = server.address;
    let connect = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = rustls::pki_types::ServerName::from(address.ip());
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let endpoint =
        tonic::transport::Endpoint::from_static("http://push.test").connect_timeout(DEADLINE);
    endpoint.connect_with_connector(connect).await
}

impl Client {
    pub(crate) async fn edge(server: &Server) -> Self {
        let credential = super::credential(&server.authority, "meshgate-system", "edge");
        Self::open(server, credential, Role::Edge, "meshgate-system", "edge-1").await
    }

    pub(crate) async fn sidecar(
        server: &Server,
        namespace: &str,
        pod: &str,
        account: &str,
    ) -> Self {
        let credential = super::credential(&server.authority, namespace, account);
        Self::open(server, credential, Role::Sidecar, namespace, pod).await
    }

    pub(crate) async fn open(
        server: &Server,
        credential: Credential,
        role: Role,
        namespace: &str,
        pod: &str,
    ) -> Self {
        let channel = channel(server, Some(credential)).await.expect("connected");
        let (requests, receiver) = mpsc::channel(16);
        let opened = PushClient::new(channel)
            .max_decoding_message_size(push::MESSAGE_BYTES_MAX)
            .delta(ReceiverStream::new(receiver))
            .await;
        Self {
            requests,
            responses: opened.expect("opened").into_inner(),
            node: Node {
                role: role.into(),
                namespace: namespace.into(),
                pod: pod.into(),
                ..Node::default()
            },
            held: BTreeMap::new(),
        }
    }

    pub(crate) async fn subscribe(&mut self, kind: ResourceKind, names: &[&str]) {
        let held = self.held.iter().filter(|((of, _), _)| *of == kind);
        let held: HashMap<_, _> = held
            .map(|((_, name), version)| (name.clone(), version.clone()))
            .collect();
        self.send(kind, |request| {
            request.subscribe = names.iter().map(|name| (*name).to_owned()).collect();
            request.held_versions = held;
        })
        .await;
    }

    pub(crate) async fn send(&mut self, kind: ResourceKind, fill: impl FnOnce(&mut DeltaRequest)) {
        let mut request = DeltaRequest {
            node: Some(self.node.clone()),
            type_url: type_url(kind),
            ..DeltaRequest::default()
        };
        fill(&mut request);
        self.requests
            .send(request)
            .await
            .expect("the stream is open");
    }

    pub(crate) async fn receive(&mut self) -> Result<DeltaResponse, Status> {
        let message = tokio::time::timeout(DEADLINE, self.responses.message()).await;
        message
            .expect("an answer in time")
            .map(|message| message.expect("the stream goes on"))
    }

    /// Takes a response over without acknowledging it.
    pub(crate) async fn apply(&mut self) -> DeltaResponse {
        let response = self.receive().await.expect("a response");
        let kind = kind_of(&response);
        for resource in &response.resources {
            self.held
                .insert((kind, resource.name.clone()), resource.version.clone());
        }
        for name in &response.removed {
            self.held.remove(&(kind, name.clone()));
        }
        let held = self.held.iter().filter(|((of, _), _)| *of == kind);
        let hash =
            push::held_hash(held.map(|((_, name), version)| (name.as_str(), version.as_str())));
        assert_eq!(
            hash, response.held_hash,
            "both sides hold the same after {response:?}"
        );
        response
    }

    pub(crate) async fn answer(&mut self, response: &DeltaResponse, refusals: &[(&str, &str)]) {
        let nonce = response.nonce.clone();
        let generation = response.generation;
        let refusals = refusals.iter().map(|(resource, reason)| Refusal {
            resource: (*resource).to_owned(),
            reason: (*reason).to_owned(),
        });
        let refusals = refusals.collect();
        self.send(kind_of(response), |request| {
            request.response_nonce = nonce;
            request.refusals = refusals;
            request.enforced_generation = generation;
        })
        .await;
    }

    /// Takes over and acknowledges the next response, and shows it: "Type +added -removed".
    pub(crate) async fn next(&mut self) -> String {
        let response = self.apply().await;
        self.answer(&response, &[]).await;
        show(&response)
    }

    /// The next responses, in order.
    #[track_caller]
    pub(crate) fn check<'a>(
        &'a mut self,
        expected: &'a [&'a str],
    ) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            for expected in expected {
                assert_eq!(self.next().await, *expected, "at {caller}");
            }
        }
    }
}

pub(crate) fn show(response: &DeltaResponse) -> String {
    let added = response
        .resources
        .iter()
        .map(|resource| format!(" +{}", resource.name));
    let removed = response.removed.iter().map(|name| format!(" -{name}"));
    let more = if response.more { " ..." } else { "" };
    format!(
        "{:?}{}{more}",
        kind_of(response),
        added.chain(removed).collect::<String>()
    )
}

fn kind_of(response: &DeltaResponse) -> ResourceKind {
    let kinds = [
        ResourceKind::Certificate,
        ResourceKind::Service,
        ResourceKind::Workload,
        ResourceKind::EdgeHost,
    ];
    let kind = kinds
        .into_iter()
        .find(|kind| type_url(*kind) == response.type_url);
    kind.expect("a type of ours")
}
