//! Every pod has a service account, and its containers find their token where Kubernetes clients look.

use meshgate_api::names::SERVICE_ACCOUNT_DIR;
use meshgate_schema::Failure;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::objects::meta;
use crate::server::Call;

/// Life of the injected token: an hour, with a margin for clocks and renewal, as in Kubernetes.
const TOKEN_LIFE_S: u64 = 3607;
const VOLUME_PREFIX: &str = "kube-api-access-";
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Pods that a node reports without the API server having made them.
const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// Names the pod's account, checks that it exists, and mounts its token.
pub(super) fn admit(call: &Call, pod: &mut Value) -> Result<(), Failure> {
    if pod["metadata"]["annotations"].get(MIRROR_POD).is_some() {
        return Ok(());
    }
    let name = meta(pod, "name").to_owned();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    let given = spec
        .get("serviceAccountName")
        .or_else(|| spec.get("serviceAccount"))
        .and_then(Value::as_str);
    let account_name = given
        .filter(|name| !name.is_empty())
        .unwrap_or("default")
        .to_owned();
    let Some(account) =
        call.server
            .find("", "serviceaccounts", &call.path.namespace, &account_name)
    else {
        let problem = format!(
            "error looking up service account {}/{account_name}: serviceaccount \"{account_name}\" not found",
            call.path.namespace
        );
        return Err(Failure::forbidden("", "pods", &name, &problem));
    };
    spec.insert("serviceAccountName".into(), account_name.clone().into());
    spec.insert("serviceAccount".into(), account_name.into());
    if spec
        .get("imagePullSecrets")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
        && let Some(secrets) = account
            .get("imagePullSecrets")
            .filter(|secrets| secrets.as_array().is_some_and(|list| !list.is_empty()))
    {
        spec.insert("imagePullSecrets".into(), secrets.clone());
    }
    let wanted = spec
        .get("automountServiceAccountToken")
        .or_else(|| account.get("automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true);
    if wanted {
        mount_token(pod);
    }
    Ok(())
}

fn mount_token(pod: &mut Value) {
    let spec = &pod["spec"];
    let existing = spec["volumes"].as_array().into_iter().flatten();
    let existing = existing.filter_map(|volume| volume["name"].as_str());
    let existing = existing
        .filter(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned)
        .next();
    let volume = existing.clone().unwrap_or_else(volume_name);
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"]
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            mounted |= mount(container, &volume);
        }
    }
    if mounted && existing.is_none() {
        let Some(spec) = pod["spec"].as_object_mut() else {
            return;
        };
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&volume));
        }
    }
}

/// Mounts the token unless the container has something of its own there.
fn mount(container: &mut Value, volume: &str) -> bool {
    let Some(container) = container.as_object_mut() else {
        return false;
    };
    let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
    let Some(mounts) = mounts.as_array_mut() else {
        return false;
    };
    if mounts
        .iter()
        .any(|mount| mount["mountPath"] == SERVICE_ACCOUNT_DIR)
    {
        return false;
    }
    mounts.push(json!({"name": volume, "readOnly": true, "mountPath": SERVICE_ACCOUNT_DIR}));
    true
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_LIFE_S, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
            "defaultMode": 420,
        },
    })
}

fn volume_name() -> String {
    let mut rng = rand::rng();
    let letters = (0..5).map(|_| char::from(NAME_LETTERS[rng.random_range(0..NAME_LETTERS.len())]));
    VOLUME_PREFIX.chars().chain(letters).collect()
}
