//! EndpointSlices, and their legacy mirror Endpoints: where the pods of each Service with a selector are reached.

mod backends;
mod mirror;
mod slices;

use std::sync::Arc;

pub(crate) use k8s_openapi::api::core::v1::Endpoints;
pub(crate) use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use meshgate_api::client::{Change, EventKind, Key, Next, Queue, Recorder, Reference};
use meshgate_api::client::{is_namespace_terminating, is_not_found, message};
use serde_json::{Value, json};

use crate::context::Context;
use crate::freshness::Freshness;
use crate::objects::{Pod, Service};
use backends::{backends, zone};

/// Keys worked on at once.
const WORKERS: usize = 4;
/// Names a slice's Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The EndpointSlice controller.
pub(crate) struct Controller {
    context: Arc<Context>,
    queue: Queue<Key>,
    recorder: Recorder,
    /// What was written to slices and to Endpoints, whose caches move apart.
    written_slices: Freshness,
    written_mirror: Freshness,
}

impl Controller {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue = Queue::default();
        let keys = queue.clone();
        context
            .services
            .on_change(move |change| keys.add(Key::of(&**change.object())));
        let keys = queue.clone();
        context.endpoint_slices.on_change(move |change| {
            let meta = &change.object().metadata;
            let service = meta
                .labels
                .as_ref()
                .and_then(|labels| labels.get(SERVICE_NAME));
            if let Some(service) = service.filter(|_| slices::is_ours(meta)) {
                keys.add(Key::new(
                    meta.namespace.clone().unwrap_or_default(),
                    service.clone(),
                ));
            }
        });
        let keys = queue.clone();
        context
            .endpoints
            .on_change(move |change| keys.add(Key::of(&**change.object())));
        let keys = queue.clone();
        let services = context.services.clone();
        context.pods.on_change(move |change| {
            let namespace = change
                .object()
                .metadata
                .namespace
                .as_deref()
                .unwrap_or_default();
            for service in services.in_namespace(namespace) {
                if change.states().any(|pod| selects(&service, pod)) {
                    keys.add(Key::of(&*service));
                }
            }
        });
        let keys = queue.clone();
        let services = context.services.clone();
        context.nodes.on_change(move |change| {
            // Endpoints carry their node's zone.
            let moved = match change {
                Change::Updated { before, after } => zone(before) != zone(after),
                Change::Added(node) => zone(node).is_some(),
                Change::Deleted(_) => false,
            };
            for service in services.list().iter().filter(|_| moved) {
                keys.add(Key::of(&**service));
            }
        });
        Self {
            recorder: context.recorder.named("endpoint-slice-controller"),
            context: Arc::clone(context),
            queue,
            written_slices: Freshness::default(),
            written_mirror: Freshness::default(),
        }
    }

    pub(crate) async fn run(&self) {
        let context = &self.context;
        tokio::join!(
            context.services.synced(),
            context.pods.synced(),
            context.nodes.synced(),
            context.endpoint_slices.synced(),
            context.endpoints.synced(),
        );
        self.queue
            .work("endpoints", WORKERS, async |key: &Key| {
                self.reconcile(key).await
            })
            .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, kube::Error> {
        let waits = [
            self.written_slices.wait(key, &self.context.endpoint_slices),
            self.written_mirror.wait(key, &self.context.endpoints),
        ];
        if let Some(wait) = waits.into_iter().flatten().min() {
            return Ok(Next::After(wait));
        }
        let Some(service) = self.context.services.get(key) else {
            return self.forget(key).await;
        };
        // A Service without a selector has its endpoints from elsewhere.
        if service.spec.selector.is_empty() || service.spec.type_ == "ExternalName" {
            return Ok(Next::Event);
        }
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Event);
        }
        let mut pods = self.context.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selects(&service, pod));
        let backends = backends(&service, &pods, |node| {
            self.context
                .nodes
                .get(&Key::cluster(node))
                .as_deref()
                .and_then(zone)
                .map(str::to_owned)
        });
        let written = match self.write_slices(key, &service, &backends).await {
            Ok(()) => self.write_mirror(key, &service, &backends).await,
            failed => failed,
        };
        match written {
            Err(error) if is_namespace_terminating(&error) => Ok(Next::Event),
            Err(error) => {
                let about = Reference::of(&*service);
                let text = format!(
                    "Error updating endpoint slices for Service {key}: {}",
                    message(&error)
                );
                self.recorder.record(
                    about,
                    EventKind::Warning,
                    "FailedToUpdateEndpointSlices",
                    text,
                );
                Err(error)
            }
            Ok(()) => Ok(Next::Event),
        }
    }

    fn our_slices(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.context.endpoint_slices.in_namespace(&key.namespace);
        slices.retain(|slice| {
            let labels = slice.metadata.labels.as_ref();
            slices::is_ours(&slice.metadata)
                && labels.and_then(|labels| labels.get(SERVICE_NAME)) == Some(&key.name)
        });
        slices
    }

    async fn write_slices(
        &self,
        key: &Key,
        service: &Service,
        backends: &backends::Backends,
    ) -> Result<(), kube::Error> {
        let plan = slices::plan(service, backends, &self.our_slices(key));
        let api = Api::<EndpointSlice>::namespaced(self.context.client.clone(), &key.namespace);
        // What is added comes before what goes: a reader between the two sees an endpoint twice, never not at all.
        for slice in &plan.create {
            let created = api.create(&PostParams::default(), slice).await?;
            self.written_slices.wrote(key, &created.metadata);
        }
        for (name, patch) in &plan.update {
            let written = api
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await?;
            self.written_slices.wrote(key, &written.metadata);
        }
        for name in &plan.delete {
            delete(&api, name).await?;
        }
        Ok(())
    }

    async fn write_mirror(
        &self,
        key: &Key,
        service: &Service,
        backends: &backends::Backends,
    ) -> Result<(), kube::Error> {
        let wanted = mirror::endpoints(service, backends);
        let api = Api::<Endpoints>::namespaced(self.context.client.clone(), &key.namespace);
        let written = match self.context.endpoints.get(key) {
            None => api.create(&PostParams::default(), &wanted).await?,
            Some(existing) if mirror::same(&existing, &wanted) => return Ok(()),
            Some(existing) => {
                let labels = changed_labels(&existing.metadata, &wanted.metadata);
                let patch = json!({"metadata": {"labels": labels}, "subsets": wanted.subsets});
                api.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
                    .await?
            }
        };
        self.written_mirror.wrote(key, &written.metadata);
        Ok(())
    }

    /// The Service is gone, and with it what was made for it.
    async fn forget(&self, key: &Key) -> Result<Next, kube::Error> {
        let slices = Api::<EndpointSlice>::namespaced(self.context.client.clone(), &key.namespace);
        for slice in self.our_slices(key) {
            delete(&slices, slice.metadata.name.as_deref().unwrap_or_default()).await?;
        }
        if let Some(endpoints) = self
            .context
            .endpoints
            .get(key)
            .filter(|e| mirror::is_ours(&e.metadata))
        {
            let api = Api::<Endpoints>::namespaced(self.context.client.clone(), &key.namespace);
            delete(&api, endpoints.metadata.name.as_deref().unwrap_or_default()).await?;
        }
        Ok(Next::Event)
    }
}

async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), kube::Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &DeleteParams::default()).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = &service.spec.selector;
    let labels = pod.metadata.labels.as_ref();
    !selector.is_empty()
        && selector
            .iter()
            .all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

/// Merge patch of labels: what is wanted, and null for what is not wanted any more.
fn changed_labels(existing: &ObjectMeta, wanted: &ObjectMeta) -> Value {
    let mut labels = json!(wanted.labels.clone().unwrap_or_default());
    for key in existing.labels.iter().flatten().map(|(key, _)| key) {
        if labels.get(key).is_none() {
            labels[key] = Value::Null;
        }
    }
    labels
}
