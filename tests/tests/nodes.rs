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
