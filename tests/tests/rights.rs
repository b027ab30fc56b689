//! Who may do what, as kubectl and curl see it: tokens, roles, escalation, nodes.

use std::process::Command;

use meshgate_tests::{Cluster, curl, run, text, until};

/// kubectl as somebody else than the administrator.
struct As<'a> {
    cluster: &'a Cluster,
    how: Vec<String>,
}

impl As<'_> {
    fn check(&self, arguments: &str, wanted: &str) {
        let mut command = Command::new("kubectl");
        command
            .args(&self.how)
            .arg("--cache-dir")
            .arg(self.cluster.scratch().join("cache-of-others"))
            .args(arguments.split(' '));
        let said = text(&run(&mut command));
        assert!(
            said.contains(wanted),
            "kubectl {arguments}: no {wanted:?} in\n{said}"
        );
    }
}

/// Only the server's address and CA, and a token.
fn with_token<'a>(cluster: &'a Cluster, token: &str) -> As<'a> {
    let api = cluster.status_now()["api"]
        .as_str()
        .expect("an address")
        .to_owned();
    let ca = cluster.data_dir().join("pki/ca.crt");
    As {
        cluster,
        how: vec![
            "--kubeconfig=/dev/null".to_owned(),
            format!("--server=https://{api}"),
            format!("--certificate-authority={}", ca.display()),
            format!("--token={token}"),
        ],
    }
}

fn as_node<'a>(cluster: &'a Cluster, name: &str) -> As<'a> {
    let kubeconfig = cluster
        .data_dir()
        .join(format!("kubeconfigs/{name}.kubeconfig"));
    As {
        cluster,
        how: vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!(
                "--server=https://{}",
                cluster.status_now()["api"].as_str().expect("an address")
            ),
        ],
    }
}

#[test]
fn service_accounts_may_what_their_roles_say_and_no_more() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    cluster.kubectl(&["create", "serviceaccount", "robot"]);
    let token = cluster.kubectl(&["create", "token", "robot"]);
    let robot = with_token(&cluster, token.trim());
    robot.check("auth whoami", "system:serviceaccount:default:robot");
    robot.check(
        "get pods",
        "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \"\" \
         in the namespace \"default\"",
    );
    let bind = "create rolebinding robot --clusterrole=view --serviceaccount=default:robot";
    cluster.kubectl(&bind.split(' ').collect::<Vec<_>>());
    robot.check("get pods", "No resources found");
    robot.check("get pods -A", "forbidden");
    robot.check("get secrets", "forbidden");
    robot.check("auth can-i --list", "configmaps");
    robot.check(
        "get pods --as=system:admin",
        "cannot impersonate resource \"users\"",
    );
    // Who may write roles and bindings may not give more than they hold.
    let write = "create clusterrole writer --verb=create --resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io";
    cluster.kubectl(&write.split(' ').collect::<Vec<_>>());
    let bind = "create rolebinding writer --clusterrole=writer --serviceaccount=default:robot";
    cluster.kubectl(&bind.split(' ').collect::<Vec<_>>());
    robot.check("create role pods --verb=get --resource=pods", "created");
    robot.check(
        "create role more --verb=get --resource=secrets",
        "attempting to grant RBAC permissions not currently held",
    );
    robot.check(
        "create rolebinding all --clusterrole=cluster-admin --user=me",
        "attempting to grant RBAC permissions not currently held",
    );
    // The account is gone, and the token with it; one of the same name is another.
    cluster.kubectl(&["delete", "serviceaccount", "robot"]);
    cluster.kubectl(&["create", "serviceaccount", "robot"]);
    robot.check("get pods", "Unauthorized");
    with_token(&cluster, "not.a.token").check("get pods", "Unauthorized");
}

/// The role is the one of our manifests: what is installed in other clusters is what ours runs by.
#[test]
fn configuration_push_may_what_it_asks_for_and_no_more() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let can = |question: &str| {
        let mut arguments = vec!["auth", "can-i", "--as=meshgate:push"];
        arguments.extend(question.split(' '));
        let answer = text(&run(&mut cluster.kubectl_command(&arguments)));
        // Of kinds without namespaces kubectl says so, too.
        answer.lines().any(|line| line.starts_with("yes"))
    };
    for first in ["list services -A", "create secrets -n meshgate-system"] {
        until(first, || can(first).then_some(()));
    }
    let check = |question: &str, wanted: bool| assert_eq!(can(question), wanted, "{question}");
    for kind in [
        "pods",
        "secrets",
        "configmaps",
        "endpointslices.discovery.k8s.io",
        "ingresses.networking.k8s.io",
        "ingressclasses.networking.k8s.io",
        "backendpolicies.meshgate.dev",
    ] {
        check(&format!("list {kind} -A"), true);
        check(&format!("watch {kind} -A"), true);
        check(&format!("get {kind} -A"), false);
        check(&format!("delete {kind} -A"), false);
    }
    for kind in ["ingresses.networking.k8s.io", "accesspolicies.meshgate.dev"] {
        check(&format!("patch {kind} -A"), false);
        check(&format!("patch {kind} --subresource=status -A"), true);
    }
    for kind in [
        "namespaces",
        "nodes",
        "serviceaccounts",
        "customresourcedefinitions.apiextensions.k8s.io",
        "leases.coordination.k8s.io",
    ] {
        check(&format!("list {kind} -A"), false);
    }
    check("create events -A", true);
    check("create tokenreviews.authentication.k8s.io", true);
    check("create secrets -n meshgate-system", true);
    check("create secrets -n default", false);
    check("get secrets/meshgate-ca -n meshgate-system", true);
    check("update secrets/meshgate-ca -n meshgate-system", false);
    check("get secrets/other -n meshgate-system", false);
}

#[test]
fn without_credentials_only_health_is_answered() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let api = cluster.status_now()["api"]
        .as_str()
        .expect("an address")
        .to_owned();
    let check = |path: &str, wanted: u16| {
        let (status, body) = curl(&["--insecure", &format!("https://{api}{path}")]);
        assert_eq!(status, wanted, "{path}: {body}");
    };
    check("/livez", 200);
    check("/readyz", 200);
    check("/version", 401);
    check("/api", 401);
    check("/metrics", 401);
    check("/api/v1/namespaces/kube-system/secrets", 401);
}

#[test]
fn a_node_reaches_only_what_its_pods_use() {
    let cluster = Cluster::start(&[]);
    cluster.kubectl(&["create", "secret", "generic", "used", "--from-literal=a=b"]);
    cluster.kubectl(&["create", "secret", "generic", "other", "--from-literal=a=b"]);
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  containers:
  - name: main
    image: meshgate/meshgate
    args: [echo]
    env: [{name: A, valueFrom: {secretKeyRef: {name: used, key: a}}}]
",
    );
    let ready = ["wait", "--for=condition=Ready", "pod/user", "--timeout=60s"];
    cluster.kubectl(&ready);
    let node = as_node(&cluster, "node-0");
    node.check("get secret used", "used");
    node.check(
        "get secret other",
        "no pod on this node refers to this object",
    );
    node.check("get secrets", "one by one, by name");
    node.check("create token default", "it must be bound to a pod");
    node.check("label node node-0 team=a", "labeled");
    node.check(
        "taint node node-0 a=b:NoSchedule",
        "may not change its taints",
    );
    node.check("delete node node-0", "forbidden");
    node.check("create namespace mine", "forbidden");
    cluster.kubectl(&["delete", "pod", "user", "--wait=true"]);
    node.check(
        "get secret used",
        "no pod on this node refers to this object",
    );
}
