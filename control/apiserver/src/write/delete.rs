//! Deletion: at once, after a grace period, or when the last finalizer is gone.

use jiff::{SignedDuration, Timestamp};
use meshgate_schema::{Failure, Kind};
use meshgate_store::{Entry, Expect};
use serde_json::{Value, json};

use super::{admit, metadata};
use crate::admission::{self, Operation};
use crate::custom;
use crate::http::options::{DeleteOptions, Propagation, seconds};
use crate::objects::{encode, meta, metadata_mut, read, set_resource_version};
use crate::server::{Call, Reply};

/// Attempts when other writers change the object meanwhile.
const ATTEMPTS_MAX: usize = 10;
/// Grace of a pod that names none.
const GRACE_S: i64 = 30;
/// Namespaces that the system cannot be without.
const KEPT_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// DELETE of one object.
pub(crate) async fn delete(call: &Call, options: &DeleteOptions) -> Result<Reply, Failure> {
    let key = call.key(&call.path.name);
    for _ in 0..ATTEMPTS_MAX {
        let entry = call
            .server
            .store
            .find(&key)
            .ok_or_else(|| call.not_found())?;
        if let Some(object) = delete_entry(call, &entry, options).await? {
            return Ok(Reply::ok(object));
        }
    }
    Err(call.conflict("the object has been modified; please try again"))
}

/// Deletes one entry as the options say; the answer's object, or `None` if the entry changed meanwhile.
pub(crate) async fn delete_entry(
    call: &Call,
    entry: &Entry,
    options: &DeleteOptions,
) -> Result<Option<Value>, Failure> {
    let old = read(&call.kind, entry)?;
    let name = meta(&old, "name").to_owned();
    check(call, &name, entry, &old, options)?;
    admit(call, "delete", &name, Some(&old), None)?;
    let mut warnings = Vec::new();
    let mut none = Value::Null;
    admission::mutate(
        call,
        Operation::Delete,
        &mut none,
        Some(&old),
        options.dry_run,
        &mut warnings,
    )
    .await?;
    let (expect, plan) = (
        Expect::Unchanged(entry.modified),
        plan(&call.kind, &old, options, Timestamp::now()),
    );
    let (value, mut answer) = match plan {
        Plan::Wait => return Ok(Some(old)),
        Plan::Mark(object) => (Some(encode(&call.kind.to_storage(object.clone()))), object),
        Plan::Remove(object) if is_returned(&call.kind) => (None, object),
        Plan::Remove(object) => (None, success(&call.kind, &object)),
    };
    if options.dry_run {
        return Ok(Some(answer));
    }
    match call.server.write(&entry.key, expect, value).await? {
        Ok(revision) => {
            if answer["kind"] != "Status" {
                set_resource_version(&mut answer, revision);
            }
            Ok(Some(answer))
        }
        Err(_) => Ok(None),
    }
}

fn check(
    call: &Call,
    name: &str,
    entry: &Entry,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), Failure> {
    let (group, plural) = (call.kind.group(), call.kind.plural());
    let conflict = |problem: String| Err(Failure::conflict(group, plural, name, &problem));
    if let Some(uid) = &options.uid
        && uid != meta(old, "uid")
    {
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta(old, "uid")
        ));
    }
    if let Some(version) = options.resource_version
        && version != entry.modified
    {
        return conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            entry.modified
        ));
    }
    if is_namespace(&call.kind) {
        if KEPT_NAMESPACES.contains(&name) {
            return Err(Failure::forbidden(
                group,
                plural,
                name,
                "this namespace may not be deleted",
            ));
        }
        if metadata::is_terminating(old) {
            return conflict(
                "The system is ensuring all content is removed from this namespace.  Upon completion, \
                 this namespace will automatically be purged by the system."
                    .into(),
            );
        }
    }
    Ok(())
}

fn is_namespace(kind: &Kind) -> bool {
    kind.group().is_empty() && kind.plural() == "namespaces"
}

fn is_pod(kind: &Kind) -> bool {
    kind.group().is_empty() && kind.plural() == "pods"
}

/// Kinds whose removal is answered with the object, as in Kubernetes; others with a Status.
fn is_returned(kind: &Kind) -> bool {
    kind.group().is_empty() && matches!(kind.plural(), "pods" | "services" | "serviceaccounts")
}

fn success(kind: &Kind, object: &Value) -> Value {
    let mut details = serde_json::Map::new();
    for (field, text) in [
        ("name", meta(object, "name")),
        ("group", kind.group()),
        ("kind", kind.plural()),
        ("uid", meta(object, "uid")),
    ] {
        if !text.is_empty() {
            details.insert(field.to_owned(), text.into());
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// What a deletion does to an object.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing more: it is on its way already.
    Wait,
    /// It stays for now, marked as terminating.
    Mark(Value),
    /// It goes now; the object as it is answered.
    Remove(Value),
}

/// Decides; pure.
fn plan(kind: &Kind, old: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut object = old.clone();
    set_finalizers(&mut object, options.propagation);
    let terminating = metadata::is_terminating(old);
    if !terminating && custom::is_definition(kind) {
        custom::hold(&mut object);
    }
    let grace = if is_pod(kind) {
        pod_grace(old, options.grace_period_s)
    } else {
        0
    };
    if terminating {
        let left = old["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        // A grace period can only shrink.
        if grace >= left && !super::change::may_go(&object) {
            return if object == *old {
                Plan::Wait
            } else {
                Plan::Mark(object)
            };
        }
        shorten(&mut object, left, grace.min(left));
    } else {
        begin(kind, &mut object, grace, now);
    }
    if super::change::may_go(&object) {
        Plan::Remove(object)
    } else {
        Plan::Mark(object)
    }
}

fn begin(kind: &Kind, object: &mut Value, grace: i64, now: Timestamp) {
    let end = now
        .checked_add(SignedDuration::from_secs(grace))
        .unwrap_or(now);
    let metadata = metadata_mut(object);
    metadata.insert("deletionTimestamp".into(), seconds(end).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if is_namespace(kind) {
        metadata.shift_remove("deletionGracePeriodSeconds");
        if let Some(status) = object
            .as_object_mut()
            .map(|object| object.entry("status").or_insert_with(|| json!({})))
        {
            status["phase"] = "Terminating".into();
        }
        return;
    }
    if metadata.contains_key("generation") {
        metadata::next_generation(object);
    }
}

/// Moves the end of a grace period forward.
fn shorten(object: &mut Value, left: i64, grace: i64) {
    let end: Option<Timestamp> = meta(object, "deletionTimestamp").parse().ok();
    let metadata = metadata_mut(object);
    if let Some(end) = end.and_then(|end| {
        end.checked_sub(SignedDuration::from_secs(left - grace))
            .ok()
    }) {
        metadata.insert("deletionTimestamp".into(), seconds(end).into());
    }
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
}

/// Seconds that a pod gets to end. One that no node runs, or that has ended, needs none.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let unbound = pod["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .is_empty();
    let ended = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if unbound || ended {
        return 0;
    }
    match asked
        .or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(GRACE_S)
    {
        // A negative grace period means the shortest one.
        grace if grace < 0 => 1,
        grace => grace,
    }
}

/// The garbage collector's finalizers, as the propagation policy wants them.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    const ORPHAN: &str = "orphan";
    const FOREGROUND: &str = "foregroundDeletion";
    let wanted = match propagation {
        // Without a policy, what is on the object decides.
        None => return,
        Some(Propagation::Background) => None,
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Orphan) => Some(ORPHAN),
    };
    let mut finalizers = metadata::finalizers(object);
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    finalizers.extend(wanted.map(str::to_owned));
    let metadata = metadata_mut(object);
    if finalizers.is_empty() {
        metadata.shift_remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshgate_schema::Registry;

    const NOW: &str = "2024-01-01T00:00:00Z";

    fn check(plural: &str, object: Value, options: DeleteOptions, expected: &str) {
        let registry = Registry::builtin();
        let group = if plural == "deployments" { "apps" } else { "" };
        let kind = registry
            .resource(group, "v1", plural)
            .expect("a built-in kind");
        let now = NOW.parse().expect("a time");
        let show = |object: &Value| {
            let metadata = &object["metadata"];
            format!(
                "at {} grace {} finalizers {}",
                metadata["deletionTimestamp"],
                metadata["deletionGracePeriodSeconds"],
                metadata["finalizers"]
            )
        };
        let got = match plan(kind, &object, &options, now) {
            Plan::Wait => "wait".to_owned(),
            Plan::Mark(object) => format!("mark {}", show(&object)),
            Plan::Remove(object) => format!("remove {}", show(&object)),
        };
        assert_eq!(got, expected, "{plural} {object} {options:?}");
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions {
            grace_period_s: Some(seconds),
            ..DeleteOptions::default()
        }
    }

    fn policy(propagation: Propagation) -> DeleteOptions {
        DeleteOptions {
            propagation: Some(propagation),
            ..DeleteOptions::default()
        }
    }

    #[test]
    fn pods_get_their_grace() {
        let none = DeleteOptions::default();
        let bound = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 10}});
        check(
            "pods",
            bound.clone(),
            none.clone(),
            r#"mark at "2024-01-01T00:00:10Z" grace 10 finalizers null"#,
        );
        check(
            "pods",
            bound.clone(),
            grace(3),
            r#"mark at "2024-01-01T00:00:03Z" grace 3 finalizers null"#,
        );
        check(
            "pods",
            bound,
            grace(0),
            r#"remove at "2024-01-01T00:00:00Z" grace 0 finalizers null"#,
        );
        let unbound = json!({"metadata": {"name": "a"}, "spec": {}});
        check(
            "pods",
            unbound,
            none.clone(),
            r#"remove at "2024-01-01T00:00:00Z" grace 0 finalizers null"#,
        );
        let going = json!({
            "metadata": {"deletionTimestamp": "2024-01-01T00:00:10Z", "deletionGracePeriodSeconds": 10},
            "spec": {"nodeName": "n"},
        });
        check("pods", going.clone(), none, "wait");
        check("pods", going.clone(), grace(60), "wait");
        check(
            "pods",
            going.clone(),
            grace(4),
            r#"mark at "2024-01-01T00:00:04Z" grace 4 finalizers null"#,
        );
        check(
            "pods",
            going,
            grace(0),
            r#"remove at "2024-01-01T00:00:00Z" grace 0 finalizers null"#,
        );
    }

    #[test]
    fn finalizers_hold_an_object() {
        let plain = json!({"metadata": {"name": "a"}});
        let held = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}});
        let none = DeleteOptions::default();
        check(
            "deployments",
            plain.clone(),
            none.clone(),
            r#"remove at "2024-01-01T00:00:00Z" grace 0 finalizers null"#,
        );
        check(
            "deployments",
            held,
            none,
            r#"mark at "2024-01-01T00:00:00Z" grace 0 finalizers ["x/y"]"#,
        );
        check(
            "deployments",
            plain.clone(),
            policy(Propagation::Foreground),
            r#"mark at "2024-01-01T00:00:00Z" grace 0 finalizers ["foregroundDeletion"]"#,
        );
        check(
            "deployments",
            plain.clone(),
            policy(Propagation::Orphan),
            r#"mark at "2024-01-01T00:00:00Z" grace 0 finalizers ["orphan"]"#,
        );
        check(
            "deployments",
            plain,
            policy(Propagation::Background),
            r#"remove at "2024-01-01T00:00:00Z" grace 0 finalizers null"#,
        );
    }
}
