//! Services and their endpoints.

use meshgate_api::push::service::Protocol;

use super::World;
use crate::objects::{Kind, Name};

const SERVICE: &str = r#"
kind: Service
metadata: {name: web, annotations: {meshgate.dev/opaque-ports: "6000"}}
spec:
  clusterIP: 10.96.0.7
  clusterIPs: [10.96.0.7, "fd00::7"]
  selector: {app: web}
  ports:
  - {name: http, port: 80, appProtocol: http}
  - {name: db, port: 6000}
"#;
const SLICE: &str = r#"
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: db, port: 6000}]
endpoints:
- {addresses: [10.244.0.10], conditions: {ready: true}, nodeName: n, targetRef: {kind: Pod, name: web-a, uid: a}}
- {addresses: [10.244.0.9], targetRef: {kind: Pod, name: web-b, uid: b}}
- {addresses: [10.244.0.11], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.244.0.12], conditions: {ready: false, serving: false, terminating: true}}
- {addresses: [10.244.0.13], conditions: {ready: false}}
"#;
const POD: &str = r#"
kind: Pod
metadata: {name: web-a, uid: a, labels: {app: web}, annotations: {meshgate.dev/sidecar: "1", meshgate.dev/skip-inbound-ports: "6000-6010"}}
spec: {serviceAccountName: web, nodeName: n, containers: []}
status: {phase: Running, podIP: 10.244.0.10, podIPs: [{ip: 10.244.0.10}]}
"#;

#[test]
fn endpoints_with_readiness_and_identity() {
    let mut world = World::of(&format!("{SERVICE}\n---\n{SLICE}\n---\n{POD}"));
    world.check(
        "service",
        "
        service shop/web:6000 at 10.96.0.7 fd00::7 TCP
          10.244.0.9:6000 web-b plain
          10.244.0.10:6000 web-a plain
          10.244.0.11:6000  plain terminating
        service shop/web:80 at 10.96.0.7 fd00::7 HTTP1
          10.244.0.9:8080 web-b plain
          10.244.0.10:8080 web-a as spiffe://cluster.local/ns/shop/sa/web
          10.244.0.11:8080  plain terminating",
    );
    // The name is another pod's now: its identity is not that of the endpoint.
    world.apply(&POD.replace("uid: a", "uid: other"));
    world.check(
        "service shop/web:80",
        "
        service shop/web:80 at 10.96.0.7 fd00::7 HTTP1
          10.244.0.9:8080 web-b plain
          10.244.0.10:8080 web-a plain
          10.244.0.11:8080  plain terminating",
    );
    world.delete(Kind::EndpointSlice, "shop/web-1");
    world.check(
        "service",
        "
        service shop/web:6000 at 10.96.0.7 fd00::7 TCP
        service shop/web:80 at 10.96.0.7 fd00::7 HTTP1",
    );
}

#[test]
fn a_pod_says_of_its_own_ports_that_they_are_opaque() {
    let skips = "meshgate.dev/skip-inbound-ports: \"6000-6010\"";
    let service = SERVICE.replace(", appProtocol: http", "");
    let mut world = World::of(&format!("{service}\n---\n{SLICE}\n---\n{POD}"));
    let http = |protocol: &str| {
        format!(
            "
            service shop/web:80 at 10.96.0.7 fd00::7 {protocol}
              10.244.0.9:8080 web-b plain
              10.244.0.10:8080 web-a as spiffe://cluster.local/ns/shop/sa/web
              10.244.0.11:8080  plain terminating"
        )
    };
    world.check("service shop/web:80", &http("AUTO"));
    world.apply(&POD.replace(skips, "meshgate.dev/opaque-ports: \"8080\""));
    world.check("service shop/web:80", &http("TCP"));
    let direct =
        |port| world.pods[&Name::new("shop", "web-a")].service(&Name::new("shop", "web-a"), port);
    assert_eq!(direct(8080).protocol(), Protocol::Tcp);
    assert_eq!(direct(80).protocol(), Protocol::Auto);
    // The Service's own word comes first.
    world.apply(SERVICE);
    world.check("service shop/web:80", &http("HTTP1"));
}

#[test]
fn slices_that_overlap_give_each_endpoint_once() {
    let draining = SLICE.replace("web-1", "web-0").replace(
        "{ready: true}",
        "{ready: false, serving: true, terminating: true}",
    );
    let world = World::of(&format!("{SERVICE}\n---\n{SLICE}\n---\n{draining}"));
    world.check(
        "service shop/web:80",
        "
        service shop/web:80 at 10.96.0.7 fd00::7 HTTP1
          10.244.0.9:8080 web-b plain
          10.244.0.10:8080 web-a plain
          10.244.0.11:8080  plain terminating",
    );
}

#[test]
fn a_pod_that_has_ended_or_shares_the_nodes_network_has_no_identity() {
    for pod in [
        POD.replace("Running", "Succeeded"),
        POD.replace("containers: []", "hostNetwork: true, containers: []"),
        POD.replace("meshgate.dev/sidecar: \"1\", ", ""),
    ] {
        let mut world = World::of(&format!("{SERVICE}\n---\n{SLICE}\n---\n{POD}"));
        assert_eq!(world.pods.len(), 1);
        world.apply(&pod);
        assert!(world.pods.is_empty(), "{pod}");
        world.check("workload", "");
    }
}

#[test]
fn endpoints_in_the_mesh_are_told_of_clients_by_their_proxies() {
    let policy = r#"
kind: BackendPolicy
metadata: {name: told}
spec:
  targetRefs: [{group: "", kind: Service, name: web, sectionName: http}]
  proxyProtocol: V2
"#;
    let mut world = World::of(&format!("{SERVICE}\n---\n{SLICE}\n---\n{policy}"));
    world.check(
        "service shop/web:80",
        "
        service shop/web:80 at 10.96.0.7 fd00::7 HTTP1
          10.244.0.9:8080 web-b plain
          10.244.0.10:8080 web-a plain
          10.244.0.11:8080  plain terminating
          by shop/told: LEAST_REQUEST request 0s perTry 0s retries 2 on ConnectFailure,RefusedStream breaker 5 PROXY V2",
    );
    let accepted = "Service web: accepted, in Service shop/web:80";
    world.check_report("shop/told", accepted);
    // A pod of them gets a sidecar, and loses it.
    world.apply(POD);
    let not_for_it = "; not supported: spec.proxyProtocol for endpoints in the mesh (not enforced)";
    world.check_report("shop/told", &format!("{accepted}{not_for_it}"));
    world.delete(Kind::Pod, "shop/web-a");
    world.check_report("shop/told", accepted);
    world.apply(POD);
    world.check_report("shop/told", &format!("{accepted}{not_for_it}"));
    world.delete(Kind::EndpointSlice, "shop/web-1");
    world.check_report("shop/told", accepted);
}
