//! Writes a pod's status: a task of its own, so that containers do not wait for the API. The latest status wins.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use meshgate_api::client::is_not_found;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;

/// Wait before a failed write is tried again, doubling.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Ceiling of that wait.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Where a worker puts its pod's status.
pub(crate) struct StatusWriter {
    latest: watch::Sender<Value>,
    /// What was acknowledged, to wait for the last status.
    written: watch::Receiver<Value>,
}

impl StatusWriter {
    /// The writer, and the work that somebody must drive; it ends when the writer is gone or the pod is.
    pub(crate) fn new(
        api: Api<Pod>,
        name: String,
        uid: String,
    ) -> (StatusWriter, impl Future<Output = ()>) {
        let (latest, mut wanted) = watch::channel(Value::Null);
        let (done, written) = watch::channel(Value::Null);
        let work = async move {
            let mut wait = RETRY_MIN;
            loop {
                let status = wanted.borrow_and_update().clone();
                let before = done.borrow().clone();
                if status.is_null() || status == before {
                    if wanted.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                match write(&api, &name, &uid, &before, &status).await {
                    Ok(()) => {
                        wait = RETRY_MIN;
                        done.send_replace(status);
                    }
                    Err(error) if is_not_found(&error) => return,
                    Err(error) => {
                        if is_refused(&error) && is_gone(&api, &name, &uid).await {
                            return;
                        }
                        tracing::debug!(pod = name, %error, "status not written");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(RETRY_MAX);
                    }
                }
            }
        };
        (StatusWriter { latest, written }, work)
    }

    /// The pod's status from now on.
    pub(crate) fn set(&self, status: Value) {
        self.latest.send_if_modified(|latest| {
            let new = *latest != status;
            *latest = status;
            new
        });
    }

    /// Returns once the last status is written, or never will be.
    pub(crate) async fn flushed(&mut self) {
        let latest = self.latest.borrow().clone();
        let _ = self.written.wait_for(|written| *written == latest).await;
    }
}

/// A strategic merge, as the kubelet writes it: conditions of others stay. Addresses are merged by value there, so a
/// changed one must replace the list.
async fn write(
    api: &Api<Pod>,
    name: &str,
    uid: &str,
    before: &Value,
    status: &Value,
) -> Result<(), kube::Error> {
    let mut status = status.clone();
    for list in ["podIPs", "hostIPs"] {
        if before[list] == status[list] {
            if let Some(fields) = status.as_object_mut() {
                fields.shift_remove(list);
            }
        } else if let Some(addresses) = status[list].as_array_mut() {
            addresses.insert(0, json!({"$patch": "replace"}));
        }
    }
    // What is gone must be said to be gone.
    if let (Some(before), Some(fields)) = (before.as_object(), status.as_object_mut()) {
        for key in before
            .keys()
            .filter(|key| !matches!(key.as_str(), "podIPs" | "hostIPs"))
        {
            fields.entry(key.as_str()).or_insert(Value::Null);
        }
    }
    // The uid in the patch is a precondition: a pod of the same name made meanwhile is another's.
    let patch = json!({"metadata": {"uid": uid}, "status": status});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))
        .await?;
    Ok(())
}

/// A conflict or an invalid write: the pod may be another's by now.
fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 || status.code == 422)
}

async fn is_gone(api: &Api<Pod>, name: &str, uid: &str) -> bool {
    match api.get_opt(name).await {
        Ok(known) => known.is_none_or(|pod| pod.metadata.uid.as_deref() != Some(uid)),
        // Not to be known now; the next attempt asks again.
        Err(_) => false,
    }
}
