//! Manifests as text.

use std::net::SocketAddr;
use std::path::Path;

use super::Site;
use crate::tls;

/// A Service whose one endpoint is an application of the same name.
pub fn service(name: &str, endpoint: SocketAddr) -> String {
    format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {}}}]
endpoints: [{{addresses: [\"{}\"]}}]
",
        endpoint.port(),
        endpoint.ip()
    )
}

/// An Ingress that sends all of a host to a Service.
pub fn route(name: &str, host: &str, service: &str) -> String {
    format!(
        "
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}}}
spec:
  rules:
  - host: {host}
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}
"
    )
}

/// A new certificate for a host in a Secret `tls-HOST`: its serial number and the manifest.
pub fn secret(site: &Site, host: &str) -> (String, String) {
    let (cert, key) = tls::self_signed(site.scratch(), host);
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls-{host}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(&cert),
        indented(&key)
    );
    (tls::serial(&cert), manifest)
}

/// Authorities in an object of a kind, a ConfigMap or a Secret.
pub fn authority(kind: &str, name: &str, certificate: &Path) -> String {
    let field = if kind == "Secret" {
        "stringData"
    } else {
        "data"
    };
    let text = indented(certificate);
    format!(
        "apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n{field}:\n  ca.crt: |\n{text}"
    )
}

fn indented(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("PEM");
    let lines = text.lines().map(|line| format!("    {line}\n"));
    lines.collect()
}

/// A route with the certificate of [`secret`].
pub fn tls_route(host: &str, service: &str) -> String {
    let tls = format!("spec:\n  tls: [{{hosts: [{host}], secretName: tls-{host}}}]\n");
    route(host, host, service).replace("spec:\n", &tls)
}
