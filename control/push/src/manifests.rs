//! The objects that Meshgate itself consists of: ordinary YAML (`control/push/manifests/`, and the definitions of our
//! policies), with what differs from cluster to cluster filled in.

use std::net::{IpAddr, SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use meshgate_api::{names, policies::crds};
use serde::Deserialize;
use serde_json::{Value, json};

/// In the order in which they must be applied: permissions and definitions first, so that what waits for them goes on
/// while the rest is applied; the edge last, so that it finds everything.
const FILES: [&str; 6] = [
    include_str!("../manifests/00-namespace.yaml"),
    include_str!("../manifests/10-control-rbac.yaml"),
    include_str!("../manifests/20-ingressclass.yaml"),
    include_str!("../manifests/30-control.yaml"),
    include_str!("../manifests/40-webhook.yaml"),
    include_str!("../manifests/50-edge.yaml"),
];
/// The definitions come after the second file.
const CRDS_AT: usize = 2;

/// What differs from cluster to cluster.
#[derive(Debug, Clone)]
pub struct ManifestOptions {
    /// Where proxies reach push, identity and quota: "HOST:PORT".
    pub control: String,
    /// Address of the control plane behind the Service `meshgate-control`.
    pub control_address: IpAddr,
    /// The cluster's CA, for the API server to verify the webhook.
    pub cluster_ca_pem: String,
    /// Image of the edge.
    pub image: String,
    /// Replicas of the edge.
    pub edge_replicas: u32,
    /// Where the edge listens.
    pub edge_listeners: EdgeListeners,
    /// SPIFFE trust domain.
    pub trust_domain: String,
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
            control: format!("{}:{}", names::CONTROL_ADDRESS, names::PORT_PUSH),
            control_address: names::CONTROL_ADDRESS.into(),
            cluster_ca_pem: String::new(),
            image: names::SELF_IMAGE.into(),
            edge_replicas: 1,
            edge_listeners: EdgeListeners::HostSockets,
            trust_domain: names::TRUST_DOMAIN.into(),
        }
    }
}

/// All of them in the order in which they must be applied, as multi-document YAML.
pub fn manifests(options: &ManifestOptions) -> String {
    let (before, after) = FILES.split_at(CRDS_AT);
    let files = before.iter().chain(&crds::ALL).chain(after);
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
    match (kind, name) {
        ("EndpointSlice", names::CONTROL_SERVICE) => {
            document["addressType"] = json!(if options.control_address.is_ipv4() {
                "IPv4"
            } else {
                "IPv6"
            });
            document["endpoints"][0]["addresses"] = json!([options.control_address]);
        }
        ("MutatingWebhookConfiguration", _) => {
            let bundle = STANDARD.encode(&options.cluster_ca_pem);
            for webhook in document["webhooks"].as_array_mut().into_iter().flatten() {
                webhook["clientConfig"]["caBundle"] = json!(bundle);
            }
        }
        ("Deployment", names::EDGE) => fill_in_edge(document, options),
        ("Service", names::EDGE) => {
            if let EdgeListeners::Own { .. } = options.edge_listeners
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

fn fill_in_edge(deployment: &mut Value, options: &ManifestOptions) {
    deployment["spec"]["replicas"] = json!(options.edge_replicas);
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
    match &options.edge_listeners {
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
    container["args"] = json!(args);
    if let EdgeListeners::HostSockets = options.edge_listeners {
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
            control: "control.test:15012".into(),
            control_address: "10.1.2.3".parse().expect("an address"),
            cluster_ca_pem: "ca".into(),
            edge_replicas: 2,
            edge_listeners: EdgeListeners::Own {
                http: "0.0.0.0:8080".parse().expect("an address"),
                https: "0.0.0.0:8443".parse().expect("an address"),
            },
            ..ManifestOptions::default()
        };
        let documents = documents(&options);
        let find = |kind: &str, name: &str| {
            let found = documents
                .iter()
                .find(|document| document["kind"] == kind && document["metadata"]["name"] == name);
            found.expect("there")
        };
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
        ]
        .concat();
        assert_eq!(container["args"], json!(args));
        assert_eq!(container["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            find("EndpointSlice", "meshgate-control")["endpoints"][0]["addresses"][0],
            "10.1.2.3"
        );
        let webhooks = find("MutatingWebhookConfiguration", "meshgate-inject");
        assert_eq!(webhooks["webhooks"][1]["clientConfig"]["caBundle"], "Y2E=");
        assert_eq!(
            find("Service", "edge")["spec"]["ports"][1]["targetPort"],
            "http"
        );
    }
}
