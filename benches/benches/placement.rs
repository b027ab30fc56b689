//! How long the scheduler takes to place one pod, by the number of nodes; each node already runs ten.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use meshgate_scheduler::{Cluster, NodeFacts, Pod, Strategy, place, wire};
use serde_json::{Value, json};

const PODS_OF_A_NODE: usize = 10;
const ZONES: usize = 3;

fn node(index: usize) -> NodeFacts {
    let node: wire::Node = serde_json::from_value(json!({
        "metadata": {
            "name": format!("node-{index}"),
            "labels": {
                "kubernetes.io/hostname": format!("node-{index}"),
                "topology.kubernetes.io/zone": format!("zone-{}", index % ZONES),
            },
        },
        "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}},
    }))
    .expect("a node");
    NodeFacts::try_from(&node).expect("a valid node")
}

fn pod(name: &str, spec: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    let pod: wire::Pod = serde_json::from_value(pod).expect("a pod");
    Pod::try_from(&pod).expect("a valid pod")
}

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::default();
    for index in 0..nodes {
        cluster.set_node(node(index));
        for number in 0..PODS_OF_A_NODE {
            let running = pod(&format!("web-{index}-{number}"), json!({}));
            cluster.set_pod(&format!("node-{index}"), Arc::new(running));
        }
    }
    cluster
}

fn placement(criterion: &mut Criterion) {
    let selector = json!({"matchLabels": {"app": "web"}});
    let pods = [
        ("plain", pod("plain", json!({}))),
        (
            "node_affinity",
            pod(
                "affine",
                json!({"affinity": {"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-1"]},
                    ]}]},
                }}}),
            ),
        ),
        (
            "spread",
            pod(
                "spread",
                json!({"topologySpreadConstraints": [{
                    "maxSkew": 5,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": selector,
                }]}),
            ),
        ),
    ];
    let mut group = criterion.benchmark_group("placement");
    for nodes in [10, 100, 1_000] {
        let cluster = cluster(nodes);
        for (name, pod) in &pods {
            group.bench_with_input(BenchmarkId::new(*name, nodes), &nodes, |bench, _| {
                assert!(place(pod, &cluster, Strategy::default()).is_ok());
                bench.iter(|| {
                    place(black_box(pod), black_box(&cluster), Strategy::default()).is_ok()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, placement);
criterion_main!(benches);
