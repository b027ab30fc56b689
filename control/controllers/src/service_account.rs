//! What every namespace has from the start: the ServiceAccount `default` and the cluster's CA certificate.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use meshgate_api::client::{Key, Next, Queue, is_already_exists, is_namespace_terminating};
use serde_json::json;

use crate::context::Context;

/// The ServiceAccount of pods that name none.
pub(crate) const NAME: &str = "default";
/// The ConfigMap with the CA certificate under `ca.crt`.
pub(crate) const ROOT_CA_MAP: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// Namespaces worked on at once.
const WORKERS: usize = 4;

/// The controller of both.
pub(crate) struct Controller {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl Controller {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue = Queue::default();
        let keys = queue.clone();
        context
            .namespaces
            .on_change(move |change| keys.add(Key::of(&**change.object())));
        let namespace_of =
            |namespace: &Option<String>| Key::cluster(namespace.clone().unwrap_or_default());
        let keys = queue.clone();
        context
            .service_accounts
            .on_change(move |change| keys.add(namespace_of(&change.object().metadata.namespace)));
        let keys = queue.clone();
        context
            .root_ca_maps
            .on_change(move |change| keys.add(namespace_of(&change.object().metadata.namespace)));
        Self {
            context: Arc::clone(context),
            queue,
        }
    }

    pub(crate) async fn run(&self) {
        let context = &self.context;
        tokio::join!(
            context.namespaces.synced(),
            context.service_accounts.synced(),
            context.root_ca_maps.synced()
        );
        self.queue
            .work("serviceaccount", WORKERS, async |key: &Key| {
                self.reconcile(key).await
            })
            .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(namespace) = self.context.namespaces.get(key) else {
            return Ok(Next::Event);
        };
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Event);
        }
        for written in [
            self.service_account(&key.name).await,
            self.root_ca(&key.name).await,
        ] {
            match written {
                Err(error) if is_namespace_terminating(&error) || is_already_exists(&error) => {}
                written => written?,
            }
        }
        Ok(Next::Event)
    }

    async fn service_account(&self, namespace: &str) -> Result<(), kube::Error> {
        if self
            .context
            .service_accounts
            .get(&Key::new(namespace, NAME))
            .is_some()
        {
            return Ok(());
        }
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(NAME.to_owned());
        let api = Api::<ServiceAccount>::namespaced(self.context.client.clone(), namespace);
        api.create(&PostParams::default(), &account).await.map(drop)
    }

    async fn root_ca(&self, namespace: &str) -> Result<(), kube::Error> {
        let api = Api::<ConfigMap>::namespaced(self.context.client.clone(), namespace);
        let wanted = &self.context.options.root_ca_pem;
        let Some(existing) = self
            .context
            .root_ca_maps
            .get(&Key::new(namespace, ROOT_CA_MAP))
        else {
            let mut map = ConfigMap::default();
            map.metadata.name = Some(ROOT_CA_MAP.to_owned());
            map.metadata.annotations = Some(
                [(
                    "kubernetes.io/description".to_owned(),
                    DESCRIPTION.to_owned(),
                )]
                .into(),
            );
            map.data = Some([(ROOT_CA_KEY.to_owned(), wanted.clone())].into());
            return api.create(&PostParams::default(), &map).await.map(drop);
        };
        if existing
            .data
            .as_ref()
            .and_then(|data| data.get(ROOT_CA_KEY))
            == Some(wanted)
        {
            return Ok(());
        }
        let patch = json!({"data": {ROOT_CA_KEY: wanted}});
        api.patch(ROOT_CA_MAP, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map(drop)
    }
}
