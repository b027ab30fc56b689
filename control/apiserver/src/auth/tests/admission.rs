//! Escalation and NodeRestriction.

use serde_json::json;

use super::*;
use crate::auth::Write;

fn admit(auth: &Auth, user: &User, line: &str, old: Option<Value>, new: Option<Value>) -> String {
    let Attributes::Resource {
        verb,
        group,
        resource,
        subresource,
        namespace,
        name,
    } = asked(line)
    else {
        panic!("{line}");
    };
    message(auth.admit(
        user,
        &Write {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            old: old.as_ref(),
            new: new.as_ref(),
        },
    ))
}

/// `bob` may write roles and bindings, and read pods, everywhere.
fn with_bob() -> (Auth, User) {
    let auth = auth();
    feed(
        &auth,
        &json!({
            "kind": "ClusterRole",
            "metadata": {"name": "bob"},
            "rules": [
                {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "resourceNames": ["mine"]},
                {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
            ],
        }),
    );
    feed(
        &auth,
        &json!({
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "bob"},
            "roleRef": {"kind": "ClusterRole", "name": "bob"},
            "subjects": [{"kind": "User", "name": "bob"}],
        }),
    );
    (auth, user("bob", &[]))
}

fn rules(verb: &str, resource: &str) -> Value {
    json!([{"verbs": [verb], "apiGroups": [""], "resources": [resource]}])
}

#[test]
fn roles_hold_no_more_than_their_writer() {
    let (auth, bob) = with_bob();
    let check = |line: &str, old: Option<Value>, new: Value, expected: &str| {
        let answer = admit(&auth, &bob, line, old, Some(new.clone()));
        assert!(answer.starts_with(expected), "{line} {new}: {answer}");
    };
    let role = |rules: Value| json!({"rules": rules});
    let create = "create rbac.authorization.k8s.io/roles shop/x";
    check(create, None, role(rules("get", "pods")), "allowed");
    check(
        create,
        None,
        role(rules("get", "secrets")),
        "403 roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"bob\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}",
    );
    let update = "update rbac.authorization.k8s.io/clusterroles x";
    check(
        update,
        Some(role(rules("get", "secrets"))),
        role(rules("get", "secrets")),
        "allowed",
    );
    check(
        update,
        Some(role(rules("get", "pods"))),
        role(rules("*", "pods")),
        "403",
    );
    // `escalate` is among bob's verbs on the role called "mine".
    check(
        "update rbac.authorization.k8s.io/clusterroles mine",
        None,
        role(rules("*", "secrets")),
        "allowed",
    );
    let aggregating = json!({"aggregationRule": {"clusterRoleSelectors": []}, "rules": []});
    check(update, None, aggregating.clone(), "403");
    let admin = user("root", &["system:masters"]);
    assert_eq!(
        admit(&auth, &admin, update, None, Some(aggregating)),
        "allowed"
    );
}

#[test]
fn bindings_give_no_more_than_their_writer_holds() {
    let (auth, bob) = with_bob();
    feed(
        &auth,
        &json!({"kind": "Role", "metadata": {"namespace": "shop", "name": "pods"}, "rules": rules("get", "pods")}),
    );
    let check = |line: &str, kind: &str, name: &str, expected: &str| {
        let binding = json!({"roleRef": {"kind": kind, "name": name}, "subjects": []});
        let answer = admit(&auth, &bob, line, None, Some(binding));
        assert!(
            answer.starts_with(expected),
            "{line} {kind} {name}: {answer}"
        );
    };
    let namespaced = "create rbac.authorization.k8s.io/rolebindings shop/x";
    let cluster = "create rbac.authorization.k8s.io/clusterrolebindings x";
    check(namespaced, "Role", "pods", "allowed");
    check(namespaced, "ClusterRole", "bob", "allowed");
    check(namespaced, "ClusterRole", "cluster-admin", "403");
    check(namespaced, "ClusterRole", "edit", "403");
    check(cluster, "ClusterRole", "cluster-admin", "403");
    check(
        cluster,
        "ClusterRole",
        "missing",
        "403 clusterrolebindings.rbac.authorization.k8s.io \"x\" is forbidden: clusterrole",
    );
    // `bind` is among bob's verbs on the role called "mine", though it does not even exist.
    check(cluster, "ClusterRole", "mine", "allowed");
    check(cluster, "Robot", "cluster-admin", "403");
}

#[test]
fn nodes_change_only_what_is_theirs() {
    let auth = auth();
    let check = |line: &str, old: Value, new: Value, expected: &str| {
        let some = |value: &Value| (!value.is_null()).then(|| value.clone());
        let answer = admit(&auth, &node("a"), line, some(&old), some(&new));
        assert!(answer.starts_with(expected), "{line} {old} {new}: {answer}");
    };
    let labelled = |label: &str| json!({"metadata": {"labels": {label: "x"}}});
    let plain = || json!({"metadata": {}});
    check(
        "create core/nodes a",
        Value::Null,
        labelled("kubernetes.io/hostname"),
        "allowed",
    );
    check(
        "create core/nodes b",
        Value::Null,
        plain(),
        "403 nodes \"b\" is forbidden: a node may only change its own Node",
    );
    check(
        "create core/nodes a",
        Value::Null,
        labelled("node-restriction.kubernetes.io/x"),
        "403",
    );
    check("update core/nodes a", plain(), labelled("team"), "allowed");
    check(
        "update core/nodes a",
        plain(),
        labelled("topology.kubernetes.io/zone"),
        "allowed",
    );
    check(
        "update core/nodes a",
        plain(),
        labelled("node-role.kubernetes.io/control-plane"),
        "403",
    );
    check(
        "update core/nodes a",
        labelled("node-restriction.kubernetes.io/x"),
        plain(),
        "403",
    );
    check(
        "update core/nodes a",
        plain(),
        json!({"metadata": {}, "spec": {"taints": []}}),
        "403",
    );
    check("update core/nodes/status a", plain(), plain(), "allowed");
    check("delete core/nodes a", plain(), Value::Null, "403");
    check(
        "update core/pods/status shop/a",
        pod("a"),
        pod("a"),
        "allowed",
    );
    check("update core/pods/status shop/b", pod("b"), pod("b"), "403");
    check("update core/pods shop/a", pod("a"), pod("a"), "403");
    check(
        "update core/pods/status shop/a",
        pod("a"),
        labelled("team"),
        "403",
    );
    check("delete core/pods shop/a", pod("a"), Value::Null, "allowed");
    check("delete core/pods shop/b", pod("b"), Value::Null, "403");
    check("create core/pods shop/new", Value::Null, pod("a"), "403");
    check(
        "create core/pods/eviction shop/a",
        Value::Null,
        json!({}),
        "allowed",
    );
    check(
        "create core/pods/eviction shop/b",
        Value::Null,
        json!({}),
        "403",
    );
    check(
        "create coordination.k8s.io/leases kube-node-lease/a",
        Value::Null,
        plain(),
        "allowed",
    );
    check(
        "create coordination.k8s.io/leases kube-node-lease/b",
        Value::Null,
        plain(),
        "403",
    );
    check("create core/events shop/e", Value::Null, plain(), "allowed");
}
