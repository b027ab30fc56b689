//! Two pods of one node in real namespaces, a service between them, read back by connecting.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;

/// A node's namespace with two pods; removed when dropped.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["node", "a", "b"] {
            if let Err(error) = nix::mount::umount(&self.path(name)) {
                eprintln!("{name} stays mounted: {error}");
            }
        }
    }
}

fn says(namespace: &Path, text: &'static str) -> u16 {
    let listener = namespace::enter(namespace, || TcpListener::bind("0.0.0.0:0").unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            write!(stream, "{text} from {}", peer.ip()).unwrap();
        }
    });
    port
}

fn hears(namespace: &Path, address: Ipv4Addr, port: u16) -> String {
    namespace::enter(namespace, move || {
        let to = (IpAddr::V4(address), port).into();
        let mut stream = match TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
            Ok(stream) => stream,
            Err(error) => return error.kind().to_string(),
        };
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
    .unwrap()
}

#[test]
fn pods_reach_pods_and_services() {
    let lab = Lab {
        dir: tempfile::tempdir().unwrap(),
    };
    for name in ["node", "a", "b"] {
        namespace::create(&lab.path(name)).expect("root, to make network namespaces");
    }
    let (pod_a, pod_b) = (lab.path("a"), lab.path("b"));
    let config = NodeNetworkConfig {
        index: 0,
        address: Ipv4Addr::new(10, 88, 0, 10),
    };
    let (a, b) = namespace::enter(&lab.path("node"), move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let network = NodeNetwork::up(config).await.unwrap();
            let a = network.attach(&pod_a, "uid-a").await.unwrap();
            let b = network.attach(&pod_b, "uid-b").await.unwrap();
            assert_eq!(
                network.attach(&pod_a, "uid-a").await.unwrap(),
                a,
                "attaching twice is once"
            );
            // An agent that comes back finds everything as it was.
            let again = NodeNetwork::up(config).await.unwrap();
            again.adopt(&[("uid-a".to_owned(), a.address)]);
            assert_eq!(again.attach(&pod_a, "uid-a").await.unwrap(), a);
            (a, b)
        })
    })
    .unwrap();
    let port = says(&lab.path("b"), "b");
    assert_eq!(
        hears(&lab.path("a"), b.address, port),
        format!("b from {}", a.address)
    );

    let services: Vec<Service> = serde_json::from_value(serde_json::json!([
        {"metadata": {"name": "b", "namespace": "x"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}, {"name": "dead", "port": 81}]}},
    ]))
    .unwrap();
    let slices: Vec<EndpointSlice> = serde_json::from_value(serde_json::json!([
        {"addressType": "IPv4", "metadata": {"namespace": "x", "labels": {"kubernetes.io/service-name": "b"}},
         "ports": [{"name": "", "port": port}], "endpoints": [{"addresses": [b.address.to_string()]}]},
    ]))
    .unwrap();
    let table = services::table(
        &services::frontends(&services, &slices.iter().collect()),
        config.gateway(),
    );
    namespace::enter(&lab.path("node"), move || table.replace().unwrap()).unwrap();
    let service = Ipv4Addr::new(10, 96, 0, 77);
    assert_eq!(
        hears(&lab.path("a"), service, 80),
        format!("b from {}", a.address)
    );
    assert_eq!(
        hears(&lab.path("b"), service, 80),
        format!("b from {}", config.gateway()),
        "a pod that reaches itself through its service"
    );
    assert_eq!(hears(&lab.path("a"), service, 81), "connection refused");

    let node = lab.path("node");
    namespace::enter(&node, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let network = NodeNetwork::up(config).await.unwrap();
            network.adopt(&[("uid-b".to_owned(), b.address)]);
            network.detach("uid-b").await.unwrap();
            network.detach("uid-b").await.unwrap();
        });
    })
    .unwrap();
    assert_eq!(hears(&lab.path("a"), b.address, port), "host unreachable");
}
