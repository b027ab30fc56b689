//! Watches: one a kind, and one for each Secret and ConfigMap that something refers to.

mod named;

use std::{collections::BTreeSet, fmt::Debug};

use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::{self, Event},
};
use meshgate_api::{client::is_not_found, names};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use named::NamedWatches;

use crate::{
    compile::SubjectKind,
    objects::{self, Change, Kind, Meta, Name, Object, Policy},
    retry::Retry,
};

/// Kinds whose lists must be complete before anything is pushed.
pub(crate) const LISTED: [Kind; 8] = [
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Pod,
    Kind::Ingress,
    Kind::IngressClass,
    Kind::RateLimitPolicy,
    Kind::BackendPolicy,
    Kind::AccessPolicy,
];

/// Starts all watches but those by name.
pub(crate) fn start(
    client: &Client,
    changes: &mpsc::Sender<Change>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let run = |watch: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            let _ = shutdown.run_until_cancelled(watch).await;
        });
    };
    let all = Api::<Service>::all(client.clone());
    run(Box::pin(watch(
        all,
        Kind::Service,
        changes.clone(),
        |service: Service| Some(Object::Service(objects::Service::trim(service))),
    )));
    let all = Api::<EndpointSlice>::all(client.clone());
    run(Box::pin(watch(
        all,
        Kind::EndpointSlice,
        changes.clone(),
        |slice: EndpointSlice| objects::EndpointSlice::trim(slice).map(Object::EndpointSlice),
    )));
    let all = Api::<Pod>::all(client.clone());
    run(Box::pin(watch(
        all,
        Kind::Pod,
        changes.clone(),
        |pod: Pod| objects::Pod::trim(pod).map(Object::Pod),
    )));
    let all = Api::<Ingress>::all(client.clone());
    run(Box::pin(watch(
        all,
        Kind::Ingress,
        changes.clone(),
        |ingress: Ingress| Some(Object::Ingress(objects::Ingress::trim(ingress))),
    )));
    let all = Api::<IngressClass>::all(client.clone());
    run(Box::pin(watch(
        all,
        Kind::IngressClass,
        changes.clone(),
        |class: IngressClass| Some(Object::IngressClass(objects::IngressClass::trim(&class))),
    )));
    let all = Api::<DynamicObject>::all_with(
        client.clone(),
        &policy_resource(SubjectKind::RateLimitPolicy),
    );
    run(Box::pin(watch(
        all,
        Kind::RateLimitPolicy,
        changes.clone(),
        |policy: DynamicObject| {
            Some(Object::RateLimitPolicy(Policy::new(
                Meta::from(&policy.metadata),
                &policy.data,
            )))
        },
    )));
    let all = Api::<DynamicObject>::all_with(
        client.clone(),
        &policy_resource(SubjectKind::BackendPolicy),
    );
    run(Box::pin(watch(
        all,
        Kind::BackendPolicy,
        changes.clone(),
        |policy: DynamicObject| {
            Some(Object::BackendPolicy(Box::new(Policy::new(
                Meta::from(&policy.metadata),
                &policy.data,
            ))))
        },
    )));
    let all =
        Api::<DynamicObject>::all_with(client.clone(), &policy_resource(SubjectKind::AccessPolicy));
    run(Box::pin(watch(
        all,
        Kind::AccessPolicy,
        changes.clone(),
        |policy: DynamicObject| {
            Some(Object::AccessPolicy(Policy::new(
                Meta::from(&policy.metadata),
                &policy.data,
            )))
        },
    )));
}

/// How the API names a kind of ours.
pub(crate) fn policy_resource(kind: SubjectKind) -> ApiResource {
    let (kind, plural) = match kind {
        SubjectKind::Ingress => return ApiResource::erase::<Ingress>(&()),
        SubjectKind::RateLimitPolicy => ("RateLimitPolicy", "ratelimitpolicies"),
        SubjectKind::BackendPolicy => ("BackendPolicy", "backendpolicies"),
        SubjectKind::AccessPolicy => ("AccessPolicy", "accesspolicies"),
    };
    let gvk = GroupVersionKind::gvk(names::POLICY_GROUP, names::POLICY_VERSION, kind);
    ApiResource::from_gvk_with_plural(&gvk, plural)
}

/// Lists and watches one kind forever. `trim` returns None for objects that do not matter.
async fn watch<K>(
    api: Api<K>,
    kind: Kind,
    changes: mpsc::Sender<Change>,
    trim: fn(K) -> Option<Object>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()));
    let mut listed = BTreeSet::new();
    let mut retry = Retry::default();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                let name = Name::of(object.meta());
                match trim(object) {
                    Some(object) => {
                        listed.insert(name.clone());
                        Change::Apply(name, Box::new(object))
                    }
                    // Not in the list that follows: gone.
                    None => continue,
                }
            }
            Ok(Event::InitDone) => {
                retry = Retry::default();
                Change::Listed(kind, std::mem::take(&mut listed))
            }
            Ok(Event::Apply(object)) => {
                let name = Name::of(object.meta());
                match trim(object) {
                    Some(object) => Change::Apply(name, Box::new(object)),
                    None => Change::Delete(kind, name),
                }
            }
            Ok(Event::Delete(object)) => Change::Delete(kind, Name::of(object.meta())),
            Err(error) => {
                pause(&error, &format!("{kind:?}"), &mut retry).await;
                continue;
            }
        };
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

async fn pause(error: &watcher::Error, what: &str, retry: &mut Retry) {
    if retry.is_worth_a_warning() {
        let hint = match is_refused(error) {
            true => "; are Meshgate's definitions and permissions installed?",
            false => "",
        };
        tracing::warn!(what, %error, "cannot watch, trying again{hint}");
    } else {
        tracing::debug!(what, %error, "cannot watch, trying again");
    }
    retry.pause().await;
}

fn is_refused(error: &watcher::Error) -> bool {
    cause(error).is_some_and(|error| {
        is_not_found(error) || matches!(error, kube::Error::Api(status) if status.code == 403)
    })
}

/// Why a list or a watch could not be had at all.
fn cause(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
            Some(error)
        }
        _ => None,
    }
}
