//! What a new Pod gets by itself: tolerations of short outages, a priority.

use meshgate_schema::Failure;
use serde_json::{Value, json};

use crate::objects::meta;
use crate::server::Call;

/// How long a pod stays on a node that is not ready or not reachable.
const OUTAGE_TOLERATION_S: u64 = 300;
const OUTAGES: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];
/// The classes that Kubernetes always has. Others come with PriorityClass objects, which are not served yet.
const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

/// Tolerations of outages, unless the pod has its own.
pub(super) fn default_tolerations(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else {
        return;
    };
    for taint in OUTAGES {
        let tolerated = tolerations.iter().any(|toleration| {
            let text = |field: &str| toleration[field].as_str().unwrap_or_default();
            matches!(text("key"), key if key == taint || key.is_empty())
                && matches!(text("effect"), "NoExecute" | "")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": taint,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": OUTAGE_TOLERATION_S,
            }));
        }
    }
}

/// The pod's priority, from its class.
pub(super) fn priority(call: &Call, pod: &mut Value) -> Result<(), Failure> {
    let name = meta(pod, "name").to_owned();
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    let class = spec
        .get("priorityClassName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let forbidden = |problem: &str| Err(Failure::forbidden("", call.kind.plural(), &name, problem));
    let priority = match SYSTEM_CLASSES.iter().find(|(known, _)| *known == class) {
        Some((_, priority)) => *priority,
        None if class.is_empty() => 0,
        None => return forbidden(&format!("no PriorityClass with name {class} was found")),
    };
    if spec
        .get("priority")
        .and_then(Value::as_i64)
        .is_some_and(|given| given != priority)
    {
        return forbidden(&format!(
            "the integer value of priority must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        ));
    }
    spec.insert("priority".into(), priority.into());
    spec.entry("preemptionPolicy")
        .or_insert_with(|| "PreemptLowerPriority".into());
    Ok(())
}
