//! The push service over real sockets, and its state alone under random changes.

pub(crate) mod client;
mod edge;
mod sidecar;
mod simulation;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use meshgate_api::push::{self, quota_server::QuotaServer};
use meshgate_certs::{
    authority::Authority,
    csr,
    identity::{SpiffeId, TrustDomain},
    trust::{Trust, TrustBundle},
    verify::DownstreamVerifier,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{PushService, replicas::Replicas};
use crate::{
    compile::{Body, Key, PodTarget, ResourceKind, Update},
    metrics::Metrics,
    objects::Name,
    quota::QuotaService,
    server,
    table::Table,
};

/// Nothing here takes long; this only ends a test that would hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A push server with a mesh of its own.
pub(crate) struct Server {
    pub(crate) table: Arc<Table>,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) authority: Authority,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) serving_root: CertificateDer<'static>,
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) quota: QuotaService,
    shutdown: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) fn domain() -> TrustDomain {
    "cluster.local".parse().expect("a trust domain")
}

pub(crate) fn authority() -> Authority {
    Authority::generate(&domain(), Timestamp::now()).expect("a root")
}

/// A certificate and key of a workload, signed by `authority`.
pub(crate) fn credential(
    authority: &Authority,
    namespace: &str,
    account: &str,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let identity = SpiffeId::new(&domain(), namespace, account).expect("an identity");
    let request = csr::generate(&identity).expect("a request");
    let leaf = authority
        .sign(
            &request.csr_der,
            &identity,
            Duration::from_secs(3600),
            Timestamp::now(),
        )
        .expect("signed");
    (leaf.chain_der, request.key)
}

impl Server {
    pub(crate) async fn start() -> Self {
        let authority = authority();
        let bundle = TrustBundle::from_der([authority.cert_der().clone()]).expect("a bundle");
        let clients = DownstreamVerifier::new(Trust::new(bundle), domain());
        let serving =
            rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
        let config = server::server_config(
            &serving.cert.pem(),
            &serving.signing_key.serialize_pem(),
            Some(clients),
            &["h2"],
        )
        .expect("a configuration");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let (connections, accept) = server::accept(listener, config, shutdown.clone());
        tokio::spawn(accept);
        let (ready, is_ready) = watch::channel(true);
        let table = Arc::new(Table::new(1000));
        let replicas = Replicas::new();
        let (quota, owner) =
            QuotaService::new(Metrics::new(), TaskTracker::new(), shutdown.clone());
        tokio::spawn(owner);
        let service = PushService {
            table: table.clone(),
            replicas: replicas.clone(),
            metrics: Metrics::new(),
            ready: is_ready,
            tasks: TaskTracker::new(),
            shutdown: shutdown.clone(),
        };
        let incoming = ReceiverStream::new(connections).map(Ok::<_, std::convert::Infallible>);
        let serve = tonic::transport::Server::builder()
            .add_service(service.server())
            .add_service(QuotaServer::new(quota.clone()))
            .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
        tokio::spawn(async move { serve.await.expect("served") });
        Self {
            table,
            replicas,
            authority,
            address,
            serving_root: serving.cert.der().clone(),
            ready,
            quota,
            shutdown,
        }
    }

    /// Publishes changes; see [`update`].
    pub(crate) fn publish(&self, changes: &[Change<'_>]) -> u64 {
        self.table.publish(&update(changes)).0
    }

    /// Waits until what is known of the replicas fits.
    pub(crate) async fn until(&self, what: &str, fits: impl Fn(&Replicas) -> bool) {
        let wait = async {
            while !fits(&self.replicas) {
                self.replicas.progress().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }
}

/// A change of the table, in few words.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    /// Host, and the Services its rules name.
    Host(&'a str, &'a [&'a str]),
    /// "namespace/name:port", its address, and something that tells versions apart.
    Service(&'a str, &'a str, &'a str),
    Certificate(&'a str, &'a str),
    /// Pod, service account, address.
    Pod(&'a str, &'a str, &'a str),
    Gone(ResourceKind, &'a str),
}

pub(crate) fn update(changes: &[Change<'_>]) -> Update {
    let mut update = Update {
        resources: BTreeMap::new(),
        ..Update::default()
    };
    for change in changes {
        let (key, body) = match *change {
            Change::Host(host, services) => {
                let rules = services.iter().map(|service| push::Rule {
                    service: (*service).to_owned(),
                    ..push::Rule::default()
                });
                let body = push::EdgeHost {
                    host: host.to_owned(),
                    rules: rules.collect(),
                    ..push::EdgeHost::default()
                };
                (
                    Key::new(ResourceKind::EdgeHost, host),
                    Some(Body::EdgeHost(body)),
                )
            }
            Change::Service(name, address, version) => {
                let body = push::Service {
                    name: version.to_owned(),
                    port: name
                        .rsplit(':')
                        .next()
                        .and_then(|port| port.parse().ok())
                        .expect("a port"),
                    addresses: vec![address.to_owned()],
                    ..push::Service::default()
                };
                (
                    Key::new(ResourceKind::Service, name),
                    Some(Body::Service(Box::new(body))),
                )
            }
            Change::Certificate(name, chain) => {
                let body = push::Certificate {
                    chain_pem: chain.to_owned(),
                    ..push::Certificate::default()
                };
                (
                    Key::new(ResourceKind::Certificate, name),
                    Some(Body::Certificate(body)),
                )
            }
            Change::Pod(pod, account, address) => {
                let (namespace, name) = pod.split_once('/').expect("NAMESPACE/NAME");
                let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
                let target = PodTarget {
                    addresses: vec![address.to_owned()],
                    uid: format!("uid-of-{name}"),
                    node: String::new(),
                    identity: identity.clone(),
                    skip_inbound: Default::default(),
                    opaque: Default::default(),
                };
                update.pods.insert(Name::new(namespace, name), Some(target));
                let body = push::Workload {
                    identity,
                    ..push::Workload::default()
                };
                (
                    Key::new(ResourceKind::Workload, pod),
                    Some(Body::Workload(body)),
                )
            }
            Change::Gone(kind, name) => {
                if kind == ResourceKind::Workload {
                    let (namespace, name) = name.split_once('/').expect("NAMESPACE/NAME");
                    update.pods.insert(Name::new(namespace, name), None);
                }
                (Key::new(kind, name), None)
            }
        };
        update.resources.insert(key, body);
    }
    update
}
