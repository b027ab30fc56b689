//! The ways that an exchange takes: through the edge, through two sidecars, through both.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Version};
use meshgate_tests::mesh::NAMESPACES;
use meshgate_tests::{Cluster, tls, until};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ends::{Application, Client, Wire, nothing};

/// Where the applications listen, in their pods.
const PORT: u16 = 4000;

/// Pods without programs of interest: their networks are what the test wants. `mesh` has sidecars. The Services differ in
/// what they say of the application, and in patience.
const CALLER: &str = r#"
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: mesh}
spec: {containers: [{name: idle, image: meshgate/meshgate, args: [echo]}]}
"#;

const APPLICATION: &str = r#"
---
apiVersion: v1
kind: Pod
metadata: {name: application, namespace: NAMESPACE, labels: {app: application}}
spec: {containers: [{name: idle, image: meshgate/meshgate, args: [echo]}]}
---
apiVersion: meshgate.dev/v1alpha1
kind: BackendPolicy
metadata: {name: impatient, namespace: NAMESPACE}
spec:
  targetRefs: [{group: "", kind: Service, name: impatient}]
  timeouts: {request: 200ms}
"#;

const SERVICE: &str = r#"
---
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  selector: {app: application}
  ports: [{name: web, port: 80, targetPort: 4000PROTOCOL}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  tls: [{hosts: [NAME.NAMESPACE.test], secretName: NAME}]
  rules:
  - host: NAME.NAMESPACE.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: NAME, port: {number: 80}}}}]}
"#;

/// Name, and what is said of the protocol.
const SERVICES: [(&str, &str); 4] = [
    ("any", ""),
    ("http1", ", appProtocol: http"),
    ("http2", ", appProtocol: kubernetes.io/h2c"),
    ("impatient", ""),
];

fn manifest() -> String {
    let mut all = NAMESPACES.to_owned() + CALLER;
    for namespace in ["mesh", "plain"] {
        all += &APPLICATION.replace("NAMESPACE", namespace);
        for (name, protocol) in SERVICES {
            let service = SERVICE.replace("NAMESPACE", namespace);
            all += &service.replace("NAME", name).replace("PROTOCOL", protocol);
        }
    }
    all
}

/// How requests come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// At the edge, in the clear.
    Http,
    /// At the edge, TLS.
    Https,
    /// At the sidecar of the calling pod.
    Sidecar,
}

/// One way to one application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) entry: Entry,
    /// What the client speaks.
    pub(crate) client: Version,
    pub(crate) namespace: &'static str,
    pub(crate) service: &'static str,
    /// What the application is asked in, unless the request is gRPC.
    pub(crate) application: Version,
}

const fn way(
    entry: Entry,
    client: Version,
    (namespace, service): (&'static str, &'static str),
    application: Version,
) -> Way {
    Way {
        entry,
        client,
        namespace,
        service,
        application,
    }
}

const ONE: Version = Version::HTTP_11;
const TWO: Version = Version::HTTP_2;

/// All ways. The first ones of edge and sidecars with either protocol also carry what is large.
pub(crate) const WAYS: [Way; 9] = [
    way(Entry::Http, ONE, ("plain", "any"), ONE),
    way(Entry::Https, TWO, ("plain", "any"), ONE),
    way(Entry::Sidecar, ONE, ("mesh", "any"), ONE),
    way(Entry::Sidecar, TWO, ("mesh", "any"), TWO),
    way(Entry::Http, ONE, ("plain", "http2"), TWO),
    way(Entry::Https, TWO, ("plain", "http2"), TWO),
    way(Entry::Https, TWO, ("mesh", "any"), ONE),
    way(Entry::Sidecar, ONE, ("mesh", "http2"), TWO),
    way(Entry::Sidecar, TWO, ("mesh", "http1"), ONE),
];
pub(crate) const LARGE: usize = 4;

impl Way {
    /// The processes that it leads through.
    pub(crate) fn proxies(&self) -> &'static [&'static str] {
        match (self.entry, self.namespace) {
            (Entry::Sidecar, _) => &["sidecar/mesh/caller", "sidecar/mesh/application"],
            (_, "mesh") => &["edge/", "sidecar/mesh/application"],
            _ => &["edge/"],
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let through = match (self.entry, self.namespace) {
            (Entry::Sidecar, _) => "two sidecars",
            (Entry::Http, _) => "the edge",
            (Entry::Https, "mesh") => "the edge (TLS) and a sidecar",
            (Entry::Https, _) => "the edge (TLS)",
        };
        let (client, application) = (self.client, self.application);
        write!(f, "{client:?} through {through} to {application:?}")
    }
}

/// A cluster with an application of the test's own in each namespace.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    mesh: Application,
    plain: Application,
    caller: Network,
    services: Value,
}

impl Scene {
    /// Must be called within a runtime.
    pub(crate) fn start() -> Self {
        let cluster = Cluster::start(&[]);
        let c = &cluster;
        take_large_bodies(c);
        c.apply(&manifest());
        for namespace in ["mesh", "plain"] {
            for (name, _) in SERVICES {
                let host = format!("{name}.{namespace}.test");
                tls::secret(c, namespace, name, &host);
            }
            let pods = ["wait", "pods", "--all", "--for=condition=Ready"];
            c.kubectl(&[&["-n", namespace], &pods[..], &["--timeout=60s"]].concat());
            let policy = "--for=jsonpath={.status.ancestors[0].conditions[?(@.type==\"Programmed\")].status}=True";
            let impatient = ["wait", "backendpolicy/impatient", policy, "--timeout=60s"];
            c.kubectl(&[&["-n", namespace], &impatient[..]].concat());
        }
        let services = c.kubectl(&["get", "services", "-A", "-o", "json"]);
        let application = |namespace| {
            let network = Network::of(c, namespace, "application");
            let listen = || std::net::TcpListener::bind(("0.0.0.0", PORT));
            let listener = network.enter(listen).expect("a port of the pod");
            Application::start(listener).expect("an application")
        };
        Self {
            mesh: application("mesh"),
            plain: application("plain"),
            caller: Network::of(c, "mesh", "caller"),
            services: serde_json::from_str(&services).expect("JSON"),
            cluster,
        }
    }

    /// A new connection of the way's client, and the application at its end, after an ordinary request.
    pub(crate) async fn meet(&mut self, way: &Way) -> (Client, &mut Application) {
        let wire = self.dial(way).await;
        let mut client = Client::new(wire, way.client, &host(way)).await;
        let application = self.application(way);
        let hello = client.request(Method::GET, "/hello");
        let asking = client.ask(hello.body(nothing()).expect("a request")).await;
        let head = application.arrival().await.succeed().await;
        assert_eq!((head.uri.path(), head.version), ("/hello", way.application));
        let (head, mut body) = asking.answer().await;
        assert_eq!(head.status, 200);
        body.end().await;
        (client, application)
    }

    /// Waits until the way is there: route, certificate, identities.
    pub(crate) async fn is_programmed(&mut self, way: &Way) {
        let asking_again = async {
            while !self.serves(way).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let programmed = tokio::time::timeout(meshgate_tests::DEADLINE, asking_again).await;
        assert!(programmed.is_ok(), "{way} is not served in time");
    }

    async fn serves(&mut self, way: &Way) -> bool {
        let Ok(wire) = self.try_dial(way).await else {
            return false;
        };
        let mut client = Client::new(wire, way.client, &host(way)).await;
        let hello = client.request(Method::GET, "/hello");
        let mut asking = client.ask(hello.body(nothing()).expect("a request")).await;
        let head = tokio::select! {
            arrival = self.application(way).arrival() => arrival.succeed().await,
            () = asking.ended() => return false,
        };
        // Between pods a Service that is not known yet is reached all the same, by nobody in particular.
        way.namespace != "mesh" || head.headers.contains_key("x-forwarded-client-cert")
    }

    pub(crate) fn application(&mut self, way: &Way) -> &mut Application {
        match way.namespace {
            "mesh" => &mut self.mesh,
            _ => &mut self.plain,
        }
    }

    /// A new connection to where the way begins.
    pub(crate) async fn dial(&self, way: &Way) -> Box<dyn Wire> {
        self.try_dial(way).await.expect("a connection")
    }

    async fn try_dial(&self, way: &Way) -> io::Result<Box<dyn Wire>> {
        let stream = match way.entry {
            Entry::Http => TcpStream::connect(self.cluster.http()).await,
            Entry::Https => TcpStream::connect(self.cluster.https()).await,
            Entry::Sidecar => {
                let address = self.cluster_address(way);
                let dialled = self.caller.enter(|| std::net::TcpStream::connect(address));
                dialled.and_then(|stream| {
                    stream.set_nonblocking(true)?;
                    TcpStream::from_std(stream)
                })
            }
        };
        let stream = stream?;
        stream.set_nodelay(true)?;
        if way.entry != Entry::Https {
            return Ok(Box::new(stream));
        }
        let protocol = match way.client {
            Version::HTTP_2 => "h2",
            _ => "http/1.1",
        };
        let connector = TlsConnector::from(tls::client(protocol));
        let name = tls::server_name(&host(way))?;
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    fn cluster_address(&self, way: &Way) -> SocketAddr {
        let services = self.services["items"].as_array().expect("a list");
        let is_it = |service: &&Value| {
            let meta = &service["metadata"];
            meta["name"] == way.service && meta["namespace"] == way.namespace
        };
        let service = services.iter().find(is_it).expect("the Service");
        let ip = service["spec"]["clusterIP"].as_str().expect("its address");
        SocketAddr::new(ip.parse().expect("an address"), 80)
    }
}

/// As its operator has the edge do.
fn take_large_bodies(c: &Cluster) {
    let edge = |arguments: &[&str]| c.kubectl(&[&["-n", "meshgate-system"], arguments].concat());
    let patch = r#"[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--body-max=none"}]"#;
    edge(&["patch", "deployment", "edge", "--type=json", "-p", patch]);
    edge(&["rollout", "status", "deployment/edge", "--timeout=60s"]);
    until("the old edge to be gone", || {
        let pods = edge(&["get", "pods", "-o", "name"]);
        (pods.lines().count() == 1).then_some(())
    });
}

pub(crate) fn host(way: &Way) -> String {
    format!("{}.{}.test", way.service, way.namespace)
}

/// A pod's network.
struct Network(File);

impl Network {
    fn of(c: &Cluster, namespace: &str, pod: &str) -> Self {
        let pid = until("a process of the pod", || c.pod_pid(namespace, pod));
        Self(File::open(format!("/proc/{pid}/ns/net")).expect("its network"))
    }

    /// Runs `work` on a thread inside: a socket stays where it was made.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("entering a pod's network");
                work()
            });
            inside.join().expect("a socket")
        })
    }
}
