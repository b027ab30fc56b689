//! Nodes and pods in real namespaces, services between them, read back by connecting.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;

/// Namespaces by name; removed when dropped.
struct Lab {
    dir: tempfile::TempDir,
    names: &'static [&'static str],
}

impl Lab {
    fn new(names: &'static [&'static str]) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            namespace::create(&dir.path().join(name)).expect("root, to make network namespaces");
        }
        Lab { dir, names }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `work` in a namespace of the lab.
    fn enter<T: Send + 'static>(
        &self,
        name: &str,
        work: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> T {
        let inside = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work())
        };
        namespace::enter(&self.path(name), inside).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.names {
            if let Err(error) = nix::mount::umount(&self.path(name)) {
                eprintln!("{name} stays mounted: {error}");
            }
        }
    }
}

/// Answers every client on TCP and UDP with `text` and the address it sees; the port.
fn says(namespace: &Path, text: &'static str) -> u16 {
    let (listener, socket) = namespace::enter(namespace, || {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let socket = UdpSocket::bind(listener.local_addr().unwrap()).unwrap();
        (listener, socket)
    })
    .unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            write!(stream, "{text} from {}", peer.ip()).unwrap();
        }
    });
    std::thread::spawn(move || {
        while let Ok((_, peer)) = socket.recv_from(&mut [0; 16]) {
            let answer = format!("{text} from {}", peer.ip());
            socket.send_to(answer.as_bytes(), peer).unwrap();
        }
    });
    port
}

fn hears(namespace: &Path, address: Ipv4Addr, port: u16) -> String {
    hears_within(Duration::from_secs(5), namespace, address, port)
}

fn hears_within(patience: Duration, namespace: &Path, address: Ipv4Addr, port: u16) -> String {
    namespace::enter(namespace, move || {
        let to = (IpAddr::V4(address), port).into();
        let mut stream = match TcpStream::connect_timeout(&to, patience) {
            Ok(stream) => stream,
            Err(error) => return error.kind().to_string(),
        };
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
    .unwrap()
}

/// The same over UDP.
fn hears_datagram(namespace: &Path, address: Ipv4Addr, port: u16) -> String {
    let ask = move || -> std::io::Result<String> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect(SocketAddr::from((address, port)))?;
        socket.send(b"?")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let heard = namespace::enter(namespace, ask).unwrap();
    heard.unwrap_or_else(|error| error.kind().to_string())
}

#[test]
fn pods_reach_pods_and_services() {
    let lab = Lab::new(&["node", "a", "b"]);
    let (pod_a, pod_b) = (lab.path("a"), lab.path("b"));
    let config = NodeNetworkConfig {
        index: 0,
        address: Ipv4Addr::new(10, 88, 0, 10),
    };
    let (a, b) = lab.enter("node", async move || {
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
    });
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
    let frontends = services::frontends(&services, &slices.iter().collect(), config);
    let table = services::table(&frontends, config);
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

    lab.enter("node", async move || {
        let network = NodeNetwork::up(config).await.unwrap();
        network.adopt(&[("uid-b".to_owned(), b.address)]);
        network.detach("uid-b").await.unwrap();
        network.detach("uid-b").await.unwrap();
    });
    assert_eq!(hears(&lab.path("a"), b.address, port), "host unreachable");
}

const NODES: [NodeNetworkConfig; 2] = [
    NodeNetworkConfig {
        index: 0,
        address: Ipv4Addr::new(10, 88, 0, 10),
    },
    NodeNetworkConfig {
        index: 1,
        address: Ipv4Addr::new(10, 88, 0, 11),
    },
];

/// Two nodes joined as in a cluster, each with one pod: `a` on the first, `b` on the second. The pods' addresses.
fn two_nodes(lab: &Lab) -> [Ipv4Addr; 2] {
    let namespaces = ["node-0", "node-1"].map(|name| lab.path(name));
    lab.enter("control", async move || {
        cluster::up().await.unwrap();
        for (node, path) in NODES.iter().zip(namespaces) {
            cluster::add_node(node.index, &path).await.unwrap();
        }
    });
    [("node-0", "a", 0), ("node-1", "b", 1)].map(|(name, pod, index)| {
        let netns = lab.path(pod);
        let other = NODES[1 - index];
        lab.enter(name, async move || {
            let network = NodeNetwork::up(NODES[index]).await.unwrap();
            let route = (other.pod_network(), PodAddress::PREFIX);
            let routes = NodeRoutes::from([(route, IpAddr::V4(other.address))]);
            sync::apply_routes(&network.link, &mut NodeRoutes::new(), routes).await;
            network.attach(&netns, pod).await.unwrap().address
        })
    })
}

#[test]
fn node_ports_of_every_node_lead_to_the_endpoints() {
    let lab = Lab::new(&["control", "node-0", "node-1", "a", "b"]);
    let [a, b] = two_nodes(&lab);
    let target = says(&lab.path("a"), "a");
    let services: Vec<Service> = serde_json::from_value(serde_json::json!([
        {"metadata": {"name": "a", "namespace": "x"}, "spec": {"ports": [
            {"port": 80, "nodePort": 30080}, {"port": 80, "protocol": "UDP", "nodePort": 30080}]}},
        {"metadata": {"name": "local", "namespace": "x"}, "spec": {"externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "nodePort": 30081}]}},
        {"metadata": {"name": "idle", "namespace": "x"}, "spec": {"ports": [
            {"port": 80, "nodePort": 30082}, {"port": 80, "protocol": "UDP", "nodePort": 30082}]}},
    ]))
    .unwrap();
    let slices = ["a", "local"].map(|service| -> EndpointSlice {
        serde_json::from_value(serde_json::json!({"addressType": "IPv4",
            "metadata": {"namespace": "x", "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": "", "port": target}], "endpoints": [{"addresses": [a.to_string()]}]}))
        .unwrap()
    });
    for (name, node) in [("node-0", NODES[0]), ("node-1", NODES[1])] {
        let frontends = services::frontends(&services, &slices.iter().collect(), node);
        let table = services::table(&frontends, node);
        lab.enter(name, async move || table.replace().unwrap());
    }
    let [first, second] = NODES.map(|node| node.address);
    let gateways = NODES.map(|node| node.gateway());

    let check = |client: &str, address: Ipv4Addr, wanted: String| {
        let client = lab.path(client);
        let [tcp, udp] = [hears, hears_datagram].map(|ask| ask(&client, address, 30080));
        assert_eq!(tcp, wanted, "TCP: {} to {address}", client.display());
        assert_eq!(udp, wanted, "UDP: {} to {address}", client.display());
    };
    let seen = |source: Ipv4Addr| format!("a from {source}");
    check("b", first, seen(b));
    check("b", gateways[0], seen(b));
    check("b", second, seen(gateways[1]));
    check("b", gateways[1], seen(gateways[1]));
    check("a", first, seen(gateways[0]));
    check("a", second, seen(gateways[1]));
    check("node-0", first, seen(first));
    check("node-1", first, seen(second));
    check("node-1", second, seen(gateways[1]));
    check("control", first, seen(names::CONTROL_ADDRESS));
    check("control", second, seen(gateways[1]));
    let refused = || "connection refused".to_owned();
    check("b", a, refused());
    check("b", names::CONTROL_ADDRESS, refused());
    check("node-0", Ipv4Addr::LOCALHOST, refused());

    let local = |client: &str, address| hears(&lab.path(client), address, 30081);
    assert_eq!(local("b", first), seen(b));
    assert_eq!(local("control", first), seen(names::CONTROL_ADDRESS));
    assert_eq!(local("b", second), seen(b), "a client of the node itself");
    assert_eq!(local("node-1", second), seen(second));
    let patience = Duration::from_millis(300);
    let elsewhere = hears_within(patience, &lab.path("control"), second, 30081);
    assert_eq!(elsewhere, "timed out", "no endpoint on this node");

    // What listens on the node does not answer for a service.
    let _listening = lab.enter("node-0", async || {
        let any = (Ipv4Addr::UNSPECIFIED, 30082);
        (
            TcpListener::bind(any).unwrap(),
            UdpSocket::bind(any).unwrap(),
        )
    });
    for client in ["a", "b", "node-0"] {
        let client = lab.path(client);
        assert_eq!(hears(&client, first, 30082), refused());
        assert_eq!(hears_datagram(&client, first, 30082), refused());
    }
}
