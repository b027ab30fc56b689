//! Services and endpoints as the API has them, and where a node finds them.

use serde_json::{Value, json};

use super::*;

const NODE: NodeNetworkConfig = NodeNetworkConfig {
    index: 0,
    address: Ipv4Addr::new(10, 88, 0, 10),
};

/// An endpoint: its address, and `!` before it when it is not ready, `~` when it still serves while terminating.
fn endpoint(text: &str) -> Value {
    let address = text.trim_start_matches(['!', '~']);
    let (ready, ending) = (address == text, text.starts_with('~'));
    json!({"addresses": [address], "conditions": {"ready": ready, "serving": ready || ending, "terminating": ending}})
}

/// `endpoints` serve port 8080 of the service's port without a name.
fn check(spec: Value, endpoints: &str, wanted: &[&str]) {
    let service: Service = serde_json::from_value(
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}),
    )
    .unwrap();
    let endpoints: Vec<Value> = endpoints.split_whitespace().map(endpoint).collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "", "port": 8080}],
        "endpoints": endpoints,
    }))
    .unwrap();
    let found = frontends([&service], &[&slice].into_iter().collect(), NODE);
    let shown: Vec<String> = found.iter().map(shown).collect();
    assert_eq!(shown, wanted, "{spec}");
}

fn shown(frontend: &Frontend) -> String {
    let at = match frontend.at {
        At::Address(address) => address.to_string(),
        At::Node(clients) => format!("node for {clients:?}"),
    };
    let backends = frontend.backends.iter().map(|(a, p)| format!(" {a}:{p}"));
    format!(
        "{:?} {at}:{} ->{}",
        frontend.protocol,
        frontend.port,
        backends.collect::<String>()
    )
}

#[test]
fn addresses_of_a_service() {
    let port = json!([{"port": 80}]);
    check(
        json!({"clusterIP": "10.96.0.7", "ports": port}),
        "10.244.0.5 !10.244.0.6 ~10.244.0.7 10.244.1.5",
        &["Tcp 10.96.0.7:80 -> 10.244.0.5:8080 10.244.1.5:8080"],
    );
    check(
        json!({"clusterIP": "10.96.0.7", "externalIPs": ["192.0.2.1"], "ports": port}),
        "!10.244.0.6 ~10.244.0.7",
        &[
            "Tcp 10.96.0.7:80 -> 10.244.0.7:8080",
            "Tcp 192.0.2.1:80 -> 10.244.0.7:8080",
        ],
    );
    check(
        json!({"clusterIP": "None", "ports": port}),
        "10.244.0.5",
        &[],
    );
    check(
        json!({"type": "ExternalName", "externalName": "example.com"}),
        "",
        &[],
    );
    check(
        json!({"clusterIP": "10.96.0.7", "ports": [
            {"name": "other", "port": 81}, {"port": 82, "protocol": "SCTP"}, {"port": 70_000}]}),
        "10.244.0.5",
        &["Tcp 10.96.0.7:81 ->"],
    );
}

#[test]
fn node_ports_lead_to_all_endpoints() {
    let ports = json!([
        {"port": 80, "nodePort": 30080},
        {"port": 53, "protocol": "UDP", "nodePort": 30080},
        {"port": 90, "nodePort": 0},
    ]);
    for kind in ["NodePort", "LoadBalancer"] {
        check(
            json!({"type": kind, "clusterIP": "10.96.0.7", "externalTrafficPolicy": "Cluster", "ports": ports}),
            "10.244.0.5 10.244.1.5",
            &[
                "Udp 10.96.0.7:53 -> 10.244.0.5:8080 10.244.1.5:8080",
                "Tcp 10.96.0.7:80 -> 10.244.0.5:8080 10.244.1.5:8080",
                "Tcp 10.96.0.7:90 -> 10.244.0.5:8080 10.244.1.5:8080",
                "Tcp node for All:30080 -> 10.244.0.5:8080 10.244.1.5:8080",
                "Udp node for All:30080 -> 10.244.0.5:8080 10.244.1.5:8080",
            ],
        );
    }
}

#[test]
fn the_local_policy_keeps_others_to_endpoints_of_the_node() {
    let check = |endpoints: &str, wanted: &[&str]| {
        let spec = json!({"type": "NodePort", "externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "nodePort": 30080}]});
        check(spec, endpoints, wanted);
    };
    check(
        "10.244.0.5 10.244.1.5",
        &[
            "Tcp node for Own:30080 -> 10.244.0.5:8080 10.244.1.5:8080",
            "Tcp node for Elsewhere:30080 -> 10.244.0.5:8080",
        ],
    );
    check(
        "10.88.0.10 10.88.0.11",
        &[
            "Tcp node for Own:30080 -> 10.88.0.10:8080 10.88.0.11:8080",
            "Tcp node for Elsewhere:30080 -> 10.88.0.10:8080",
        ],
    );
    check(
        "~10.244.0.5 10.244.1.5",
        &[
            "Tcp node for Own:30080 -> 10.244.1.5:8080",
            "Tcp node for Elsewhere:30080 -> 10.244.0.5:8080",
        ],
    );
    check(
        "10.244.1.5",
        &[
            "Tcp node for Own:30080 -> 10.244.1.5:8080",
            "Tcp node for Elsewhere:30080 ->",
        ],
    );
    check("!10.244.0.5", &["Tcp node for All:30080 ->"]);
}
