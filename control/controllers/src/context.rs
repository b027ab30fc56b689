//! What all controllers share: one watch per kind, one client, one recorder of Events.

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use meshgate_api::client::{Cache, EventSink, Recorder};

use crate::objects::{Deployment, Lease, Namespace, Node, Pod, ReplicaSet, Service};
use crate::{Options, endpoints, service_account};

/// What all controllers share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) options: Options,
    pub(crate) recorder: Recorder,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) pods: Cache<Pod>,
    pub(crate) services: Cache<Service>,
    pub(crate) endpoint_slices: Cache<endpoints::EndpointSlice>,
    pub(crate) endpoints: Cache<endpoints::Endpoints>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) leases: Cache<Lease>,
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) service_accounts: Cache<PartialObjectMeta<ServiceAccount>>,
    pub(crate) root_ca_maps: Cache<ConfigMap>,
}

impl Context {
    pub(crate) fn new(client: Client, options: Options) -> (Self, EventSink) {
        let (recorder, sink) = Recorder::new(client.clone(), "controllermanager", "");
        let context = Self {
            client,
            options,
            recorder,
            deployments: Cache::default(),
            replica_sets: Cache::default(),
            pods: Cache::default(),
            services: Cache::default(),
            endpoint_slices: Cache::default(),
            endpoints: Cache::default(),
            nodes: Cache::default(),
            leases: Cache::default(),
            namespaces: Cache::default(),
            service_accounts: Cache::default(),
            root_ca_maps: Cache::default(),
        };
        (context, sink)
    }

    /// Watches everything, forever.
    pub(crate) async fn watch(&self) {
        let client = || self.client.clone();
        let named = |name: &str| Config::default().fields(&format!("metadata.name={name}"));
        tokio::join!(
            self.deployments.run(Api::all(client()), Config::default()),
            self.replica_sets.run(Api::all(client()), Config::default()),
            self.pods.run(Api::all(client()), Config::default()),
            self.services.run(Api::all(client()), Config::default()),
            self.endpoint_slices
                .run(Api::all(client()), Config::default()),
            self.endpoints.run(Api::all(client()), Config::default()),
            self.nodes.run(Api::all(client()), Config::default()),
            self.leases.run(
                Api::namespaced(client(), crate::node::LEASES),
                Config::default()
            ),
            self.namespaces.run(Api::all(client()), Config::default()),
            self.service_accounts
                .run(Api::all(client()), named(service_account::NAME)),
            self.root_ca_maps
                .run(Api::all(client()), named(service_account::ROOT_CA_MAP)),
        );
    }
}
