//! Several nodes: spread, reach, loss.

use meshgate_tests::{Cluster, run, text, until};

#[test]
fn pods_spread_reach_each_other_and_are_replaced() {
    let cluster = Cluster::start(&["--nodes", "3"]);
    let c = &cluster;
    c.apply(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations:
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      containers:
      - name: web
        image: meshgate/meshgate
        args: [echo]
        readinessProbe: {httpGet: {path: /health, port: 3000}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 3000}]
"#,
    );
    c.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let nodes = c.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[*].spec.nodeName}",
    ]);
    let mut nodes: Vec<&str> = nodes.split_whitespace().collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["node-0", "node-1", "node-2"], "one each");

    let addresses = c.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[*].status.podIP}",
    ]);
    for (i, address) in addresses.split_whitespace().chain(["web"]).enumerate() {
        let port = if address == "web" { 80 } else { 3000 };
        let url = format!("http://{address}:{port}/");
        c.kubectl(&[
            "run",
            &format!("call-{i}"),
            "--image=meshgate/meshgate",
            "--restart=Never",
            "--",
            "echo",
            "call",
            &url,
        ]);
        c.kubectl(&[
            "wait",
            &format!("pod/call-{i}"),
            "--for=jsonpath={.status.phase}=Succeeded",
            "--timeout=60s",
        ]);
    }

    // A node whose agent no longer speaks is lost; what ran there runs elsewhere.
    let status = c.status_now();
    let components = status["components"].as_array().expect("components");
    let agent = components
        .iter()
        .find(|p| p["node"] == "node-2" && p["name"] == "agent")
        .expect("the agent of node-2");
    let stopped =
        run(std::process::Command::new("kill").args(["-STOP", &agent["pid"].to_string()]));
    assert!(stopped.status.success(), "{}", text(&stopped));
    until("node-2 to be NotReady", || {
        c.kubectl(&["get", "node", "node-2"])
            .contains("NotReady")
            .then_some(())
    });
    until("its pod to be replaced", || {
        let nodes = c.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={range .items[*]}{.spec.nodeName}{.status.conditions[?(@.type==\"Ready\")].status}{\" \"}{end}"]);
        let ready = nodes
            .split(' ')
            .filter(|n| n.ends_with("True") && !n.starts_with("node-2"));
        (ready.count() == 3).then_some(())
    });
    let woken = run(std::process::Command::new("kill").args(["-CONT", &agent["pid"].to_string()]));
    assert!(woken.status.success(), "{}", text(&woken));
    until("node-2 to be Ready again", || {
        (!c.kubectl(&["get", "node", "node-2"]).contains("NotReady")).then_some(())
    });
}

/// A pod on `node`, in a network of its own or the node's, that asks for the answer of `url`.
fn caller(name: &str, node: &str, host_network: bool, url: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  hostNetwork: {host_network}
  restartPolicy: OnFailure
  containers:
  - {{name: call, image: meshgate/meshgate, args: [echo, call, "{url}"]}}
---
"#
    )
}

#[test]
fn a_node_port_is_served_by_every_node() {
    let cluster = Cluster::start(&["--nodes", "2"]);
    let c = &cluster;
    c.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: node-1
  containers:
  - name: web
    image: meshgate/meshgate
    args: [echo]
    readinessProbe: {httpGet: {path: /health, port: 3000}}
"#,
    );
    c.kubectl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"]);
    c.kubectl(&[
        "expose",
        "pod/web",
        "--type=NodePort",
        "--port=80",
        "--target-port=3000",
    ]);
    let port = c.kubectl(&[
        "get",
        "service/web",
        "-o",
        "jsonpath={.spec.ports[0].nodePort}",
    ]);
    let addresses = c.kubectl(&[
        "get",
        "nodes",
        "-o",
        "jsonpath={.items[*].status.addresses[?(@.type==\"InternalIP\")].address}",
    ]);
    let addresses: Vec<&str> = addresses.split_whitespace().collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");

    let mut manifest = String::new();
    let mut names = Vec::new();
    for (to, address) in addresses.iter().enumerate() {
        let url = format!("http://{address}:{port}/");
        for (from, host_network) in [(0, false), (1, false), (0, true), (1, true)] {
            let kind = if host_network { "node" } else { "pod" };
            let name = format!("call-{kind}-{from}-{to}");
            manifest += &caller(&name, &format!("node-{from}"), host_network, &url);
            names.push(name);
        }
    }
    c.apply(&manifest);
    for name in &names {
        let done = "--for=jsonpath={.status.phase}=Succeeded";
        c.kubectl(&["wait", &format!("pod/{name}"), done, "--timeout=60s"]);
    }
}
