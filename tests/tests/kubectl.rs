//! Unmodified kubectl, command by command, against one cluster.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use meshgate_tests::{Cluster, meshgate, run, text, until};

const ECHO: &str = "meshgate/meshgate";

/// Waits for the first line of a command that goes on, then ends it.
fn first_line_with(mut command: Command, wanted: &str) -> String {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let found = lines
        .map_while(Result::ok)
        .find(|line| line.contains(wanted));
    child.kill().expect("kubectl goes on until it is ended");
    child.wait().expect("it ends");
    found.unwrap_or_else(|| panic!("kubectl ended without a line with {wanted:?}"))
}

fn check(cluster: &Cluster, command: &str, wanted: &[&str]) {
    let arguments: Vec<&str> = command.split(' ').collect();
    let output = cluster.kubectl(&arguments);
    for wanted in wanted {
        assert!(
            output.contains(wanted),
            "kubectl {command}: no {wanted:?} in\n{output}"
        );
    }
}

#[test]
fn every_command_of_the_first_day() {
    let cluster = Cluster::start(&[]);
    let c = &cluster;
    deployments(c);
    pods(c);
    small_objects(c);
    nodes_and_discovery(c);
    bad_input(c);
    check(c, "delete namespace first", &["deleted"]);
    assert!(
        c.kubectl_fails(&["get", "namespace", "first"])
            .contains("not found")
    );
}

fn deployments(c: &Cluster) {
    check(c, "create namespace first", &["namespace/first created"]);
    check(
        c,
        &format!("-n first create deployment web --image={ECHO} --replicas=2 -- /meshgate echo"),
        &["deployment.apps/web created"],
    );
    check(
        c,
        "-n first rollout status deployment/web --timeout=60s",
        &["successfully rolled out"],
    );
    check(
        c,
        "-n first get deployments",
        &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "2/2"],
    );
    check(
        c,
        "-n first get pods -o wide",
        &[
            "READY",
            "RESTARTS",
            "NODE",
            "node-0",
            "1/1",
            "Running",
            "10.244.0.",
        ],
    );
    check(
        c,
        "-n first get rs -o yaml",
        &["pod-template-hash", "kind: ReplicaSet"],
    );
    check(
        c,
        "-n first describe deployment web",
        &["RollingUpdate", "ScalingReplicaSet", "2 available"],
    );
    check(c, "-n first scale deployment web --replicas=3", &["scaled"]);
    check(
        c,
        "-n first wait deployment/web --for=jsonpath={.status.readyReplicas}=3 --timeout=60s",
        &["condition met"],
    );
    check(
        c,
        "-n first expose deployment web --port=80 --target-port=3000",
        &["service/web exposed"],
    );
    until("the Service's endpoints", || {
        let slices = c.kubectl(&[
            "-n",
            "first",
            "get",
            "endpointslices",
            "-o",
            "jsonpath={.items[*].endpoints[*].addresses[0]}",
        ]);
        (slices.split_whitespace().count() == 3).then_some(())
    });
    check(
        c,
        "-n first set env deployment/web COLOR=blue",
        &["env updated"],
    );
    check(
        c,
        "-n first rollout status deployment/web --timeout=60s",
        &["successfully rolled out"],
    );
    check(
        c,
        "-n first rollout history deployment/web",
        &["REVISION", "1", "2"],
    );
    check(c, "-n first rollout undo deployment/web", &["rolled back"]);
    check(
        c,
        "-n first rollout status deployment/web --timeout=60s",
        &["successfully rolled out"],
    );
    let env = c.kubectl(&[
        "-n",
        "first",
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].env}",
    ]);
    assert!(
        !env.contains("COLOR"),
        "the rollback took the variable away: {env}"
    );
    check(c, "-n first rollout restart deployment/web", &["restarted"]);
    check(
        c,
        "-n first rollout status deployment/web --timeout=60s",
        &["successfully rolled out"],
    );
    check(c, "-n first delete deployment web", &["deleted"]);
    until("its pods to be gone", || {
        let pods = c.kubectl(&["-n", "first", "get", "pods", "-l", "app=web", "-o", "name"]);
        pods.is_empty().then_some(())
    });
}

fn pods(c: &Cluster) {
    check(
        c,
        &format!("-n first run one --image={ECHO} --port=3000 -- echo"),
        &["pod/one created"],
    );
    check(
        c,
        "-n first wait pod/one --for=condition=Ready --timeout=60s",
        &["condition met"],
    );
    check(
        c,
        "-n first describe pod one",
        &[
            "Scheduled",
            "Created",
            "Started",
            "Image:",
            ECHO,
            "kube-api-access",
        ],
    );
    let watch = c.kubectl_command(&["-n", "first", "get", "pods", "-w"]);
    assert!(first_line_with(watch, "one").contains("Running"));
    let address = c.kubectl(&[
        "-n",
        "first",
        "get",
        "pod",
        "one",
        "-o",
        "jsonpath={.status.podIP}",
    ]);
    check(
        c,
        &format!(
            "-n first run caller --image={ECHO} --restart=Never -- echo call http://{address}:3000/from-caller"
        ),
        &["created"],
    );
    check(
        c,
        "-n first wait pod/caller --for=jsonpath={.status.phase}=Succeeded --timeout=60s",
        &["condition met"],
    );
    check(c, "-n first logs caller", &["200", "from-caller"]);
    let follow = c.kubectl_command(&["-n", "first", "logs", "-f", "one"]);
    first_line_with(follow, "from-caller");
    check(c, "-n first logs one --tail=1", &["from-caller"]);
    check(c, "-n first label pod one colour=green", &["labeled"]);
    check(c, "-n first get pods -l colour=green -o name", &["pod/one"]);
    check(c, "-n first annotate pod one note=hello", &["annotated"]);
    check(c, "-n first delete pod one caller", &["deleted"]);
}

fn small_objects(c: &Cluster) {
    check(
        c,
        "-n first create configmap settings --from-literal=a=1",
        &["configmap/settings created"],
    );
    check(
        c,
        "-n first create secret generic keys --from-literal=k=v",
        &["secret/keys created"],
    );
    check(
        c,
        "-n first get secret keys -o jsonpath={.data.k}",
        &["dg=="],
    );
    check(c, "-n first create serviceaccount robot", &["created"]);
    check(c, "-n first create token robot", &["ey"]);
    check(
        c,
        "-n first create role reader --verb=get,list --resource=configmaps",
        &["created"],
    );
    check(
        c,
        "-n first create rolebinding reader --role=reader --serviceaccount=first:robot",
        &["created"],
    );
    check(
        c,
        "-n first auth can-i list configmaps --as system:serviceaccount:first:robot",
        &["yes"],
    );
    let no = run(&mut c.kubectl_command(&[
        "-n",
        "first",
        "auth",
        "can-i",
        "delete",
        "configmaps",
        "--as",
        "system:serviceaccount:first:robot",
    ]));
    assert_eq!(text(&no).trim(), "no");
    check(c, "-n first get events", &["Scheduled"]);
    c.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied, namespace: first}\ndata: {a: '1', b: '2'}\n");
    let again = c.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied, namespace: first}\ndata: {a: '3'}\n");
    assert!(again.contains("configured"), "{again}");
    check(
        c,
        "-n first get configmap applied -o jsonpath={.data}",
        &["{\"a\":\"3\"}"],
    );
}

fn nodes_and_discovery(c: &Cluster) {
    check(
        c,
        "get nodes -o wide",
        &["node-0", "Ready", "10.88.0.10", "v1.36"],
    );
    check(c, "cordon node-0", &["cordoned"]);
    check(c, "get nodes", &["SchedulingDisabled"]);
    check(
        c,
        &format!("-n first run late --image={ECHO} -- echo"),
        &["created"],
    );
    until("the reason why the pod waits", || {
        let events = c.kubectl(&[
            "-n",
            "first",
            "get",
            "events",
            "--field-selector",
            "involvedObject.name=late",
        ]);
        events.contains("0/1 nodes are available").then_some(())
    });
    check(c, "uncordon node-0", &["uncordoned"]);
    check(
        c,
        "-n first wait pod/late --for=condition=Ready --timeout=60s",
        &["condition met"],
    );
    check(
        c,
        "describe node node-0",
        &["Capacity", "MemoryPressure", "late"],
    );
    check(
        c,
        "api-resources",
        &[
            "deployments",
            "deploy",
            "ratelimitpolicies",
            "meshgate.dev/v1alpha1",
        ],
    );
    check(c, "api-versions", &["apps/v1", "networking.k8s.io/v1"]);
    check(
        c,
        "explain pod.spec.containers.image",
        &["KIND:", "FIELD: image", "Container image name"],
    );
    check(c, "explain ratelimitpolicy.spec", &["limits"]);
    check(c, "cluster-info", &["control plane"]);
    check(c, "version", &["Server Version: v1.36"]);
}

fn bad_input(c: &Cluster) {
    let fails = |manifest: &str| {
        let output =
            meshgate_tests::with_input(&mut c.kubectl_command(&["apply", "-f", "-"]), manifest);
        assert!(!output.status.success(), "accepted: {manifest}");
        text(&output)
    };
    let said = fails(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: b, imagee: c}]}\n",
    );
    assert!(said.contains("imagee"), "{said}");
    let said = fails("apiVersion: v1\nkind: Podd\nmetadata: {name: x}\n");
    assert!(said.contains("Podd"), "{said}");
    let said = fails("apiVersion: v1\nkind: Pod\nmetadata: {name: X_}\nspec: {containers: []}\n");
    assert!(
        said.contains("metadata.name") && said.contains("spec.containers"),
        "{said}"
    );
    let said = fails("a: [b\n");
    assert!(said.contains("yaml") || said.contains("YAML"), "{said}");
    let said = c.kubectl_fails(&["get", "pods", "nothing-like-it"]);
    assert!(said.contains("\"nothing-like-it\" not found"), "{said}");
    let said = c.kubectl_fails(&["get", "pods", "--as", "nobody-at-all"]);
    assert!(said.contains("forbidden"), "{said}");
}

/// `meshgate control` by hand, with the data of a cluster that was only prepared.
struct Control(Child);

impl Control {
    fn start(cluster: &Cluster) -> Control {
        let logs = cluster.data_dir().join("logs");
        std::fs::create_dir_all(&logs).expect("a folder");
        let log = std::fs::File::create(logs.join("control.log")).expect("a log");
        let mut command = Command::new(meshgate());
        command
            .arg("control")
            .arg("--data-dir")
            .arg(cluster.data_dir());
        for listen in ["--listen", "--push-listen", "--webhook-listen"] {
            command.args([listen, "127.0.0.1:0"]);
        }
        Control(command.stderr(log).spawn().expect("it starts"))
    }

    fn end(mut self) {
        let output = run(Command::new("kill").arg(self.0.id().to_string()));
        assert!(output.status.success(), "{}", text(&output));
        let status = self.0.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Only a test that fails finds it running.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

const ALONE: &str = "apiVersion: v1
kind: Namespace
metadata: {name: alone, labels: {meshgate.dev/inject: 'true'}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: alone}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: meshgate.dev/v1alpha1
kind: BackendPolicy
metadata: {name: web, namespace: alone}
spec:
  targetRefs: [{kind: Service, name: web}]
  timeouts: {request: 5s}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: alone}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
";

#[test]
fn a_control_plane_without_nodes_brings_what_it_stands_on() {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let kinds = "get ratelimitpolicies,backendpolicies,accesspolicies -A";
    check(&cluster, kinds, &[]);
    cluster.apply(ALONE);
    stands(&cluster);

    let cluster = Cluster::prepare();
    let control = Control::start(&cluster);
    until("our kinds", || ask(&cluster, kinds));
    until("the injector", || ask(&cluster, INJECTOR));
    cluster.apply(ALONE);
    stands(&cluster);
    let command = "label ingressclass meshgate team=edge";
    check(&cluster, command, &["labeled"]);
    control.end();
    // The second start finds all of it, and what a user has added.
    let control = Control::start(&cluster);
    until("our kinds", || ask(&cluster, kinds));
    stands(&cluster);
    let definitions = "get crd -o jsonpath={.items[*].metadata.generation}";
    assert_eq!(ask(&cluster, definitions).as_deref(), Some("1 1 1"));
    check(&cluster, "get ingressclass -l team=edge", &["meshgate"]);
    control.end();
}

const INJECTOR: &str = "get mutatingwebhookconfiguration meshgate-inject";

/// What kubectl prints, unless it fails.
fn ask(cluster: &Cluster, command: &str) -> Option<String> {
    let output = run(&mut cluster.kubectl_command(&command.split(' ').collect::<Vec<_>>()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(said)
}

/// Push compiles and judges, the mesh has its root, pods get sidecars, and nothing was missed on the way.
fn stands(cluster: &Cluster) {
    let accepted = "-n alone get backendpolicy web -o \
                    jsonpath={.status.ancestors[*].conditions[?(@.type==\"Accepted\")].status}";
    until("the policy's verdict", || {
        ask(cluster, accepted).filter(|status| status == "True")
    });
    until("the mesh's root", || {
        ask(cluster, "-n meshgate-system get secret meshgate-ca")
    });
    let pod = format!("-n alone run try --image={ECHO} --dry-run=server -o yaml");
    // The namespace's service account may come later.
    let pod = until("an injected pod", || ask(cluster, &pod));
    assert!(pod.contains("name: meshgate-sidecar"), "{pod}");
    let class = "-n alone get ingress web -o jsonpath={.spec.ingressClassName}";
    check(cluster, class, &["meshgate"]);
    let nothing = ask(cluster, "-n meshgate-system get deployments -o name");
    assert_eq!(nothing.as_deref(), Some(""), "nobody would run the edge");
    let log = cluster.data_dir().join("logs/control.log");
    let log = std::fs::read_to_string(log).expect("control's log");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
