//! RBAC, aggregation and the node authorizer.

use serde_json::json;

use super::*;

fn check(auth: &Auth, user: &User, line: &str, allowed: bool) {
    let result = auth.authorize(user, &asked(line));
    assert_eq!(result.is_ok(), allowed, "{}: {line}: {result:?}", user.name);
}

fn bind(auth: &Auth, namespace: &str, role: &str, subject: Value) {
    let kind = if namespace.is_empty() {
        "ClusterRoleBinding"
    } else {
        "RoleBinding"
    };
    feed(
        auth,
        &json!({
            "kind": kind,
            "metadata": {"namespace": namespace, "name": format!("{role}-binding")},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [subject],
        }),
    );
}

#[test]
fn bootstrap_gives_each_component_what_it_needs_and_no_more() {
    let auth = auth();
    let admin = user("root", &["system:masters"]);
    check(&auth, &admin, "delete core/secrets kube-system/x", true);
    check(&auth, &admin, "get /metrics", true);
    let scheduler = user("system:kube-scheduler", &[]);
    check(&auth, &scheduler, "create core/pods/binding shop/a", true);
    check(&auth, &scheduler, "list core/nodes", true);
    check(&auth, &scheduler, "get core/secrets shop/a", false);
    let controllers = user("system:kube-controller-manager", &[]);
    check(&auth, &controllers, "create apps/replicasets shop/", true);
    check(
        &auth,
        &controllers,
        "delete meshgate.dev/anything shop/a",
        true,
    );
    check(
        &auth,
        &controllers,
        "create rbac.authorization.k8s.io/clusterroles",
        false,
    );
    check(
        &auth,
        &controllers,
        "escalate rbac.authorization.k8s.io/clusterroles x",
        false,
    );
    let push = user("meshgate:push", &["meshgate:control"]);
    for (request, is_allowed) in [
        ("watch networking.k8s.io/ingresses", true),
        ("patch networking.k8s.io/ingresses/status shop/a", true),
        ("patch networking.k8s.io/ingresses shop/a", false),
        ("create core/secrets meshgate-system/", true),
        ("get core/secrets meshgate-system/meshgate-ca", true),
        ("update core/secrets meshgate-system/meshgate-ca", false),
        ("get core/secrets meshgate-system/other", false),
        ("create core/secrets shop/", false),
        ("create core/pods shop/", false),
    ] {
        check(&auth, &push, request, is_allowed);
    }
    let nobody = user("nobody", &[]);
    check(&auth, &nobody, "get /apis/apps", true);
    check(&auth, &nobody, "get /version", true);
    check(&auth, &nobody, "get /metrics", false);
    check(
        &auth,
        &nobody,
        "create authorization.k8s.io/selfsubjectaccessreviews",
        true,
    );
    check(&auth, &nobody, "list core/pods shop/", false);
    check(&auth, &User::anonymous(), "get /livez", true);
    check(&auth, &User::anonymous(), "get /apis", false);
}

#[test]
fn bindings_count_at_once_and_only_in_their_namespace() {
    let auth = auth();
    let account = user("system:serviceaccount:shop:a", &["system:serviceaccounts"]);
    check(&auth, &account, "list core/pods shop/", false);
    bind(
        &auth,
        "shop",
        "view",
        json!({"kind": "ServiceAccount", "name": "a"}),
    );
    check(&auth, &account, "list core/pods shop/", true);
    check(&auth, &account, "list core/pods other/", false);
    check(&auth, &account, "list core/pods", false);
    check(&auth, &account, "list core/secrets shop/", false);
    check(&auth, &account, "get core/nodes n", false);
    bind(
        &auth,
        "",
        "view",
        json!({"kind": "Group", "name": "readers"}),
    );
    check(&auth, &user("bob", &["readers"]), "list core/pods", true);
    check(&auth, &user("bob", &[]), "list core/pods", false);
    delete(
        &auth,
        &json!({"kind": "RoleBinding", "metadata": {"namespace": "shop", "name": "view-binding"}}),
    );
    check(&auth, &account, "list core/pods shop/", false);
}

#[test]
fn subjects_are_what_they_say() {
    let auth = auth();
    bind(
        &auth,
        "",
        "cluster-admin",
        json!({"kind": "User", "name": "readers"}),
    );
    check(&auth, &user("bob", &["readers"]), "list core/pods", false);
    check(&auth, &user("readers", &[]), "list core/pods", true);
    // A rebound role forgets its former subject.
    bind(
        &auth,
        "",
        "cluster-admin",
        json!({"kind": "Robot", "name": "readers"}),
    );
    check(&auth, &user("readers", &[]), "list core/pods", false);
}

#[test]
fn aggregated_roles_follow_labels_through_each_other() {
    let auth = auth();
    bind(
        &auth,
        "shop",
        "admin",
        json!({"kind": "User", "name": "ann"}),
    );
    let ann = user("ann", &[]);
    check(
        &auth,
        &ann,
        "create rbac.authorization.k8s.io/roles shop/",
        true,
    );
    check(&auth, &ann, "update apps/deployments/scale shop/web", true);
    check(&auth, &ann, "get core/pods/log shop/web", true);
    check(
        &auth,
        &ann,
        "update meshgate.dev/backendpolicies shop/x",
        true,
    );
    check(&auth, &ann, "get example.org/widgets shop/w", false);
    let widgets = json!({
        "kind": "ClusterRole",
        "metadata": {"name": "widgets", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": ["example.org"], "resources": ["widgets"]}],
    });
    feed(&auth, &widgets);
    check(&auth, &ann, "get example.org/widgets shop/w", true);
    let rules = auth.aggregated_rules("view").unwrap().to_string();
    assert!(rules.contains("widgets"), "{rules}");
    assert_eq!(auth.aggregated_rules("cluster-admin"), None);
    delete(&auth, &widgets);
    check(&auth, &ann, "get example.org/widgets shop/w", false);
}

#[test]
fn aggregation_in_a_circle_ends() {
    let auth = auth_with_key(&keys().ours);
    for (name, other) in [("a", "b"), ("b", "a")] {
        feed(
            &auth,
            &json!({
                "kind": "ClusterRole",
                "metadata": {"name": name, "labels": {"is": name}},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"is": other}}]},
                "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            }),
        );
    }
    assert_eq!(auth.aggregated_rules("a"), Some(json!([])));
}

#[test]
fn refusals_say_what_a_kubernetes_server_says() {
    let auth = auth();
    let bob = user("bob", &[]);
    let refusal = |line: &str| message(auth.authorize(&bob, &asked(line)));
    assert_eq!(
        refusal("list core/pods shop/"),
        r#"403 pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "shop""#
    );
    assert_eq!(
        refusal("update apps/deployments/scale shop/web"),
        r#"403 deployments.apps "web" is forbidden: User "bob" cannot update resource "deployments/scale" in API group "apps" in the namespace "shop""#
    );
    assert_eq!(
        refusal("get core/nodes n"),
        r#"403 nodes "n" is forbidden: User "bob" cannot get resource "nodes" in API group "" at the cluster scope"#
    );
    assert_eq!(
        refusal("get /metrics"),
        r#"403 forbidden: User "bob" cannot get path "/metrics""#
    );
    bind(&auth, "", "missing", json!({"kind": "User", "name": "bob"}));
    assert_eq!(
        refusal("get /metrics"),
        r#"403 forbidden: User "bob" cannot get path "/metrics": RBAC: clusterrole.rbac.authorization.k8s.io "missing" not found"#
    );
}

#[test]
fn a_node_reads_what_its_pods_refer_to() {
    let auth = auth();
    let a = node("a");
    check(&auth, &a, "get core/secrets shop/a", true);
    check(&auth, &a, "watch core/secrets shop/a", true);
    check(&auth, &a, "get core/secrets shop/b", false);
    check(&auth, &a, "get core/secrets other/a", false);
    check(&auth, &a, "list core/secrets shop/", false);
    check(&auth, &a, "list core/secrets", false);
    check(&auth, &a, "update core/secrets shop/a", false);
    check(&auth, &a, "get core/configmaps shop/settings", true);
    check(&auth, &a, "get core/configmaps shop/kube-root-ca.crt", true);
    check(&auth, &a, "get core/configmaps shop/other", false);
    check(&auth, &a, "create core/serviceaccounts/token shop/a", true);
    check(&auth, &a, "create core/serviceaccounts/token shop/b", false);
    check(&auth, &a, "get core/serviceaccounts/token shop/a", false);
    check(
        &auth,
        &a,
        "update coordination.k8s.io/leases kube-node-lease/a",
        true,
    );
    check(
        &auth,
        &a,
        "create coordination.k8s.io/leases kube-node-lease/",
        true,
    );
    check(
        &auth,
        &a,
        "update coordination.k8s.io/leases kube-node-lease/b",
        false,
    );
    check(&auth, &a, "get coordination.k8s.io/leases shop/a", false);
    check(&auth, &a, "watch core/services", true);
    check(&auth, &a, "create apps/deployments shop/", false);
    check(&auth, &a, "delete core/nodes a", false);
    // The name alone does not make a node.
    check(
        &auth,
        &user("system:node:a", &[]),
        "get core/secrets shop/a",
        false,
    );
    // The pod is gone: so is the right.
    delete(&auth, &pod("a"));
    check(&auth, &a, "get core/secrets shop/a", false);
    check(&auth, &a, "create core/serviceaccounts/token shop/a", false);
}

#[test]
fn a_pod_that_moves_takes_its_rights_along() {
    let auth = auth();
    let mut moved = pod("a");
    moved["spec"]["nodeName"] = json!("b");
    feed(&auth, &moved);
    check(&auth, &node("a"), "get core/secrets shop/a", false);
    check(&auth, &node("b"), "get core/secrets shop/a", true);
}
