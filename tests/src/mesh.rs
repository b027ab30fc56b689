//! What tests of the mesh need: callers in pods, the wire between them, and what proxies count.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::{Cluster, run, text, until};

/// Namespace `mesh`, where pods get sidecars, with the accounts `caller` and `server`; and namespace `plain`.
pub const NAMESPACES: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: mesh, labels: {meshgate.dev/inject: "true"}}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: caller, namespace: mesh}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: server, namespace: mesh}
"#;

/// Runs `meshgate echo call` in a new pod and returns its log.
pub fn call(c: &Cluster, namespace: &str, name: &str, url: &str, count: u32) -> String {
    let account = match namespace {
        "mesh" => "caller",
        _ => "default",
    };
    let arguments = vec![url.to_owned(), format!("--count={count}")];
    calls(c, (namespace, account), name, &[arguments]).remove(0)
}

/// Runs `meshgate echo call` in a new pod, a container for each list of arguments, and returns their logs.
pub fn calls<A: AsRef<str>>(
    c: &Cluster,
    who: (&str, &str),
    name: &str,
    arguments: &[Vec<A>],
) -> Vec<String> {
    let (namespace, account) = who;
    let containers = arguments.iter().enumerate().map(|(i, arguments)| {
        let arguments = arguments.iter().map(A::as_ref);
        let arguments: Vec<&str> = ["echo", "call"].into_iter().chain(arguments).collect();
        json!({"name": format!("call-{i}"), "image": "meshgate/meshgate", "args": arguments})
    });
    let containers: Vec<_> = containers.collect();
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"serviceAccountName": account, "restartPolicy": "Never", "containers": containers},
    });
    c.apply(&pod.to_string());
    let in_namespace = |arguments: &[&str]| c.kubectl(&[&["-n", namespace], arguments].concat());
    until("the calls to end", || {
        let phase = in_namespace(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]);
        ["Succeeded", "Failed"]
            .contains(&phase.as_str())
            .then_some(())
    });
    let log = |i| in_namespace(&["logs", name, "-c", &format!("call-{i}")]);
    let logs = (0..arguments.len()).map(log).collect();
    in_namespace(&["delete", "pod", name]);
    logs
}

/// Waits until all proxies that enforce a policy of namespace `mesh` have it.
pub fn programmed(c: &Cluster, policy: &str) {
    let condition =
        "--for=jsonpath={.status.ancestors[0].conditions[?(@.type==\"Programmed\")].status}=True";
    c.kubectl(&["-n", "mesh", "wait", policy, condition, "--timeout=60s"]);
}

/// `tcpdump` on the bridge of node-0: all TCP between pods.
#[derive(Debug)]
pub struct Capture<'a> {
    cluster: &'a Cluster,
    child: Child,
    file: PathBuf,
}

/// What crosses the bridge last: with it, all before it was seen.
const END: &str = "the capture ends here";
const END_PORT: &str = "47";

impl<'a> Capture<'a> {
    /// Begins.
    pub fn start(cluster: &'a Cluster) -> Self {
        let file = cluster.scratch().join("capture.pcap");
        let between_pods = "tcp and net 10.244.0.0/16 and not net 10.88.0.0/16";
        let filter = format!("({between_pods}) or udp port {END_PORT}");
        let child = in_node(cluster)
            .args(["tcpdump", "-i", "pods", "--immediate-mode", "-U", "-w"])
            .args([file.as_os_str(), filter.as_ref()])
            .stderr(Stdio::null())
            .spawn()
            .expect("tcpdump starts");
        until("the capture to begin", || {
            file.metadata().is_ok_and(|m| m.len() > 0).then_some(())
        });
        Self {
            cluster,
            child,
            file,
        }
    }

    /// Ends it; what was seen.
    pub fn stop(mut self) -> Vec<u8> {
        let address = "jsonpath={.items[0].status.podIP}";
        let address = self
            .cluster
            .kubectl(&["-n", "mesh", "get", "pods", "-o", address]);
        let say = format!("printf %s '{END}' > /dev/udp/{address}/{END_PORT}");
        let seen = until("the end of the capture", || {
            // The first may wait for the neighbour's address and be lost.
            let said = run(in_node(self.cluster).args(["bash", "-c", &say]));
            assert!(said.status.success(), "{}", text(&said));
            let seen = std::fs::read(&self.file).expect("the capture");
            let end = seen
                .windows(END.len())
                .position(|at| at == END.as_bytes())?;
            Some(seen[..end].to_vec())
        });
        let output = run(Command::new("kill").args(["-INT", &self.child.id().to_string()]));
        assert!(output.status.success(), "{}", text(&output));
        self.child.wait().expect("tcpdump ends");
        seen
    }
}

/// A command in the network of node-0.
fn in_node(cluster: &Cluster) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &cluster.pid("agent").to_string(), "-n"]);
    command
}

/// A proxy's metrics, read in its pod's network.
pub fn metrics(c: &Cluster, proxy: &str) -> String {
    let pid = c.pid(proxy).to_string();
    let url = "http://127.0.0.1:15020/metrics";
    let output = run(Command::new("nsenter").args(["-t", &pid, "-n", "curl", "-s", url]));
    text(&output)
}

/// The sum of a counter's series that have all these labels.
pub fn counted(metrics: &str, counter: &str, labels: &[&str]) -> usize {
    let series = metrics.lines().filter(|line| {
        line.starts_with(counter) && labels.iter().all(|label| line.contains(label))
    });
    let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
    values.sum()
}
