//! CustomResourceDefinitions: their status, and the end of one.

use std::sync::Arc;

use jiff::Timestamp;
use meshgate_schema::{Kind, crd};
use meshgate_store::{Expect, Watch};
use serde_json::{Value, json};

use crate::live::Live;
use crate::objects::{decode, encode, meta, metadata_mut, prefix_of};
use crate::server::Server;
use crate::write::metadata::{finalizers, is_terminating};

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
/// Holds a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Whether a kind is that of definitions.
pub(crate) fn is_definition(kind: &Kind) -> bool {
    kind.group() == GROUP && kind.plural() == PLURAL
}

/// Decides a definition's names and conditions with the write itself, so that its kind is served at once.
pub(crate) fn complete(live: &Live, definition: &mut Value, now: Timestamp) {
    let name = meta(definition, "name").to_owned();
    let all = live.custom_definitions();
    let others: Vec<&Value> = all
        .iter()
        .filter(|other| meta(other, "name") != name)
        .collect();
    let status = crd::names_status(definition, &others, &live.registry(), now);
    if let Some(fields) = definition.as_object_mut() {
        fields.insert("status".into(), status);
    }
}

/// Holds a definition whose deletion begins until its objects are gone.
pub(crate) fn hold(definition: &mut Value) {
    if finalizers(definition)
        .iter()
        .any(|finalizer| finalizer == CLEANUP)
    {
        return;
    }
    let list = metadata_mut(definition)
        .entry("finalizers")
        .or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(CLEANUP.into());
    }
}

/// Removes the objects of definitions whose deletion was begun, then lets the definition go. Runs until shutdown.
pub(crate) async fn clean_up(server: Arc<Server>) {
    let prefix = prefix_of(GROUP, PLURAL, "");
    loop {
        let snapshot = server.store.range(&prefix);
        let Ok(mut watch) = server.store.watch(&prefix, snapshot.revision) else {
            return;
        };
        for entry in snapshot.entries {
            finish(&server, &entry.key).await;
        }
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = follow(&server, &mut watch) => {}
        }
    }
}

/// Returns when the watch has to be opened anew.
async fn follow(server: &Server, watch: &mut Watch) {
    while let Ok(events) = watch.next().await {
        for event in events {
            finish(server, event.key()).await;
        }
    }
}

/// Ends one definition if that is due. A failure is tried again at its next change or the next start.
async fn finish(server: &Server, key: &str) {
    let Some(entry) = server.store.find(key) else {
        return;
    };
    let Ok(mut definition) = decode(&entry) else {
        return;
    };
    let mut finalizers = finalizers(&definition);
    if !is_terminating(&definition) || !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
        return;
    }
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let plural = definition["spec"]["names"]["plural"]
        .as_str()
        .unwrap_or_default();
    for object in server.store.range(&prefix_of(group, plural, "")).entries {
        if let Err(failure) = remove(server, &object.key).await {
            tracing::warn!(key = %object.key, %failure, "an object of a deleted definition stays");
            return;
        }
    }
    finalizers.retain(|finalizer| finalizer != CLEANUP);
    let value = if finalizers.is_empty() {
        None
    } else {
        metadata_mut(&mut definition).insert("finalizers".into(), finalizers.into());
        Some(encode(&definition))
    };
    // Changed meanwhile: that change brings us back here.
    if let Err(failure) = server
        .write(key, Expect::Unchanged(entry.modified), value)
        .await
    {
        tracing::warn!(key, %failure, "a deleted definition stays");
    }
}

/// Removes an object with whatever finalizers it has: nobody can serve its kind any more.
async fn remove(server: &Server, key: &str) -> Result<(), meshgate_schema::Failure> {
    while let Some(entry) = server.store.find(key) {
        if server
            .write(key, Expect::Unchanged(entry.modified), None)
            .await?
            .is_ok()
        {
            break;
        }
    }
    Ok(())
}
