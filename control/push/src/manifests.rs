//! The objects that Meshgate itself consists of: ordinary YAML (`control/push/manifests/`, and the definitions of our
//! policies), with what differs from cluster to cluster filled in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use meshgate_api::{names, policies::crds};
use serde::Deserialize;
use serde_json::{Value, json};

const NAMESPACE: &str = include_str!("../manifests/00-namespace.yaml");
const PERMISSIONS: &str = include_str!("../manifests/10-control-rbac.yaml");
const CLASS: &str = include_str!("../manifests/20-ingressclass.yaml");
const SERVICE: &str = include_str!("../manifests/30-control.yaml");
const WEBHOOK: &str = include_str!("../manifests/40-webhook.yaml");
const EDGE: &str = include_str!("../manifests/50-edge.yaml");

/// What differs from cluster to cluster.
#[derive(Debug, Clone)]
pub struct ManifestOptions {
    /// Address of push and webhook. Behind the Service `meshgate-control`, unless only the machine itself reaches it:
    /// then there is no Service, and the API server is told the address.
    pub control_address: IpAddr,
    /// Port of push at that address.
    pub push_port: u16,
    /// Port of the webhook at that address.
    pub webhook_port: u16,
    /// The cluster's CA, for the API server to verify the webhook.
    pub cluster_ca_pem: String,
    /// The edge; `None` where no node would run it.
    pub edge: Option<EdgeOptions>,
}

/// How the edge runs.
#[derive(Debug, Clone)]
pub struct EdgeOptions {
    /// Where it reaches push, identity and quota: "HOST:PORT".
    pub control: String,
    /// Its image.
    pub image: String,
    /// Its replicas.
    pub replicas: u32,
    /// Where it listens.
    pub listeners: EdgeListeners,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Its arguments about spans.
    pub trace: Vec<String>,
}

/// Where the edge gets its listening sockets from.
#[derive(Debug, Clone)]
pub enum EdgeListeners {
    /// Handed over by the host (`meshgate up`).
    HostSockets,
    /// Bound by each replica in its own network; ports above 1023, since the edge is no root there.
    Own {
        /// Plain HTTP.
        http: SocketAddr,
        /// TLS.
        https: SocketAddr,
    },
}

impl Default for ManifestOptions {
    fn default() -> Self {
        Self {
            control_address: names::CONTROL_ADDRESS.into(),
            push_port: names::PORT_PUSH,
            webhook_port: names::PORT_WEBHOOK,
            cluster_ca_pem: String::new(),
            edge: Some(EdgeOptions::default()),
        }
    }
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self {
            control: format!("{}:{}", names::CONTROL_ADDRESS, names::PORT_PUSH),
            image: names::SELF_IMAGE.into(),
            replicas: 1,
            listeners: EdgeListeners::HostSockets,
            trust_domain: names::TRUST_DOMAIN.into(),
            trace: Vec::new(),
        }
    }
}

impl ManifestOptions {
    /// Where the API server, on the same machine, reaches the webhook; `None` when others reach it too.
    fn webhook_on_this_machine(&self) -> Option<SocketAddr> {
        let address = self.control_address;
        let loopback = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        (address.is_loopback() || address.is_unspecified())
            .then(|| SocketAddr::new(loopback, self.webhook_port))
    }
}

/// All of them in the order in which they must be applied, as multi-document YAML: permissions and definitions first,
/// so that what waits for them goes on while the rest is applied; the edge last, so that it finds everything.
pub fn manifests(options: &ManifestOptions) -> String {
    let service = options.webhook_on_this_machine().is_none();
    let files = [NAMESPACE, PERMISSIONS]
        .into_iter()
        .chain(crds::ALL)
        .chain([CLASS])
        .chain(service.then_some(SERVICE))
        .chain([WEBHOOK])
        .chain(options.edge.is_some().then_some(EDGE));
    let mut documents = Vec::new();
    for file in files {
        for document in serde_norway::Deserializer::from_str(file) {
            let mut value = Value::deserialize(document).expect("a file of ours, read by a test");
            fill_in(&mut value, options);
            documents
                .push(serde_norway::to_string(&value).expect("what was YAML can be YAML again"));
        }
    }
    documents.join("---\n")
}

fn fill_in(document: &mut Value, options: &ManifestOptions) {
    let kind = document["kind"].as_str().unwrap_or_default();
    let name = document["metadata"]["name"].as_str().unwrap_or_default();
    match (kind, name, &options.edge) {
        ("EndpointSlice", names::CONTROL_SERVICE, _) => fill_in_slice(document, options),
        ("MutatingWebhookConfiguration", _, _) => {
            for webhook in document["webhooks"].as_array_mut().into_iter().flatten() {
                fill_in_client(&mut webhook["clientConfig"], options);
            }
        }
        ("Deployment", names::EDGE, Some(edge)) => fill_in_edge(document, edge),
        ("Service", names::EDGE, Some(edge)) => {
            if let EdgeListeners::Own { .. } = edge.listeners
                && let Some(ports) = document["spec"]["ports"].as_array_mut()
            {
                for (name, port) in [("http", 80), ("https", 443)] {
                    ports.push(json!({ "name": name, "port": port, "targetPort": name, "protocol": "TCP" }));
                }
                document["spec"]["type"] = json!("LoadBalancer");
            }
        }
        _ => {}
    }
}

fn fill_in_slice(slice: &mut Value, options: &ManifestOptions) {
    slice["addressType"] = json!(if options.control_address.is_ipv4() {
        "IPv4"
    } else {
        "IPv6"
    });
    slice["endpoints"][0]["addresses"] = json!([options.control_address]);
    for entry in slice["ports"].as_array_mut().into_iter().flatten() {
        let webhook = entry["name"] == "webhook";
        entry["port"] = json!(if webhook {
            options.webhook_port
        } else {
            options.push_port
        });
    }
}

/// Whom the API server asks.
fn fill_in_client(client: &mut Value, options: &ManifestOptions) {
    if let Some(address) = options.webhook_on_this_machine() {
        let path = client["service"]["path"].as_str().unwrap_or_default();
        *client = json!({ "url": format!("https://{address}{path}") });
    }
    client["caBundle"] = json!(STANDARD.encode(&options.cluster_ca_pem));
}

fn fill_in_edge(deployment: &mut Value, options: &EdgeOptions) {
    deployment["spec"]["replicas"] = json!(options.replicas);
    let pod = &mut deployment["spec"]["template"]["spec"];
    let mut args = vec![
        "ingress",
        "--control",
        &options.control,
        "--trust-domain",
        &options.trust_domain,
    ];
    let addresses;
    let container = &mut pod["containers"][0];
    container["image"] = json!(options.image);
    let push = |list: &mut Value, value: Value| {
        list.as_array_mut().expect("a list in our file").push(value)
    };
    match &options.listeners {
        EdgeListeners::HostSockets => {
            args.extend(["--host-sockets", names::HOST_SOCKETS]);
            let mount = json!({ "name": "host-sockets", "mountPath": names::HOST_SOCKETS });
            push(&mut container["volumeMounts"], mount);
            // Without root on the host only uid 0 is mapped: root, but without a single capability.
            container["securityContext"]["runAsUser"] = json!(0);
        }
        EdgeListeners::Own { http, https } => {
            addresses = (http.to_string(), https.to_string());
            args.extend(["--http", &addresses.0, "--https", &addresses.1]);
            for (name, address) in [("http", http), ("https", https)] {
                let port =
                    json!({ "name": name, "containerPort": address.port(), "protocol": "TCP" });
                push(&mut container["ports"], port);
            }
            container["securityContext"]["runAsNonRoot"] = json!(true);
            container["securityContext"]["runAsUser"] = json!(65532);
        }
    }
    args.extend(options.trace.iter().map(String::as_str));
    container["args"] = json!(args);
    if let EdgeListeners::HostSockets = options.listeners {
        let socket = json!({ "path": names::HOST_SOCKETS, "type": "Socket" });
        push(
            &mut pod["volumes"],
            json!({ "name": "host-sockets", "hostPath": socket }),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(options: &ManifestOptions) -> Vec<Value> {
        serde_norway::Deserializer::from_str(&manifests(options))
            .map(|document| Value::deserialize(document).expect("valid YAML"))
            .collect()
    }

    fn find<'a>(documents: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
        documents
            .iter()
            .find(|document| document["kind"] == kind && document["metadata"]["name"] == name)
    }

    #[test]
    fn every_document_is_an_object_with_a_name() {
        let documents = documents(&ManifestOptions::default());
        assert!(documents.len() > 12);
        for document in &documents {
            for field in ["/apiVersion", "/kind", "/metadata/name"] {
                assert!(
                    document.pointer(field).is_some_and(Value::is_string),
                    "{field} of {document}"
                );
            }
        }
        let definitions = documents
            .iter()
            .filter(|document| document["kind"] == "CustomResourceDefinition");
        assert_eq!(definitions.count(), 3);
    }

    #[test]
    fn options_are_filled_in() {
        let options = ManifestOptions {
            control_address: "10.1.2.3".parse().expect("an address"),
            webhook_port: 9443,
            cluster_ca_pem: "ca".into(),
            edge: Some(EdgeOptions {
                control: "control.test:15012".into(),
                replicas: 2,
                trace: vec!["--otlp-endpoint=http://collector:4317/".into()],
                listeners: EdgeListeners::Own {
                    http: "0.0.0.0:8080".parse().expect("an address"),
                    https: "0.0.0.0:8443".parse().expect("an address"),
                },
                ..EdgeOptions::default()
            }),
            ..ManifestOptions::default()
        };
        let documents = documents(&options);
        let find = |kind, name| find(&documents, kind, name).expect("there");
        let edge = find("Deployment", "edge");
        assert_eq!(edge["spec"]["replicas"], 2);
        let container = &edge["spec"]["template"]["spec"]["containers"][0];
        let args = [
            "ingress",
            "--control",
            "control.test:15012",
            "--trust-domain",
            "cluster.local",
        ];
        let args = [
            &args[..],
            &["--http", "0.0.0.0:8080", "--https", "0.0.0.0:8443"],
            &["--otlp-endpoint=http://collector:4317/"],
        ]
        .concat();
        assert_eq!(container["args"], json!(args));
        assert_eq!(container["securityContext"]["runAsNonRoot"], true);
        let slice = find("EndpointSlice", "meshgate-control");
        assert_eq!(slice["endpoints"][0]["addresses"][0], "10.1.2.3");
        assert_eq!(slice["ports"][0]["port"], 15012);
        assert_eq!(slice["ports"][1]["port"], 9443);
        let webhooks = find("MutatingWebhookConfiguration", "meshgate-inject");
        let client = &webhooks["webhooks"][1]["clientConfig"];
        assert_eq!(client["caBundle"], "Y2E=");
        assert_eq!(client["service"]["name"], "meshgate-control");
        assert!(client["url"].is_null(), "{client}");
        assert_eq!(
            find("Service", "edge")["spec"]["ports"][1]["targetPort"],
            "http"
        );
    }

    #[test]
    fn a_control_plane_alone_is_asked_on_its_own_machine_and_has_no_edge() {
        let check = |address: &str, url: &str| {
            let documents = documents(&ManifestOptions {
                control_address: address.parse().expect("an address"),
                webhook_port: 9443,
                cluster_ca_pem: "ca".into(),
                edge: None,
                ..ManifestOptions::default()
            });
            let webhooks = find(
                &documents,
                "MutatingWebhookConfiguration",
                "meshgate-inject",
            )
            .expect("there");
            for webhook in webhooks["webhooks"].as_array().expect("a list") {
                let wanted = json!({ "url": url, "caBundle": "Y2E=" });
                assert_eq!(webhook["clientConfig"], wanted, "{address}");
            }
            for (kind, name) in [
                ("Service", "meshgate-control"),
                ("EndpointSlice", "meshgate-control"),
                ("Deployment", "edge"),
                ("Service", "edge"),
                ("ServiceAccount", "edge"),
            ] {
                assert_eq!(find(&documents, kind, name), None, "{address}");
            }
        };
        check("127.0.0.1", "https://127.0.0.1:9443/inject");
        check("0.0.0.0", "https://127.0.0.1:9443/inject");
        check("::", "https://[::1]:9443/inject");
    }
}
