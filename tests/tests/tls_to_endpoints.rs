//! TLS to an application outside the mesh: the API server, by the authorities that every namespace has.

use meshgate_tests::{Cluster, until};

const ROUTE: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: api}
spec:
  rules:
  - host: api.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: kubernetes, port: {number: 443}}}}
"#;

/// What the API server says itself to somebody without a token.
const UNKNOWN: &str = "\"message\": \"Unauthorized\"";

fn policy(authorities: &str, hostname: &str) -> String {
    format!(
        "
apiVersion: meshgate.dev/v1alpha1
kind: BackendPolicy
metadata: {{name: api}}
spec:
  targetRefs: [{{kind: Service, name: kubernetes}}]
  tls: {{caRefs: [{{kind: ConfigMap, name: {authorities}}}], hostname: {hostname}}}
"
    )
}

/// Waits until a request comes to this.
fn asked(c: &Cluster, status: u16, part: &str) {
    until(&format!("{status} {part}"), || {
        let (found, body) = c.get("api.test", "/version");
        (found == status && body.contains(part)).then_some(())
    });
}

/// Waits until the policy's condition `Accepted` says this.
fn accepted(c: &Cluster, wanted: &str) {
    let path = "jsonpath={.status.ancestors[0].conditions[?(@.type==\"Accepted\")]['status','reason','message']}";
    until(wanted, || {
        let said = c.kubectl(&["get", "backendpolicy", "api", "-o", path]);
        said.starts_with(wanted).then_some(())
    });
}

#[test]
fn the_api_server_is_believed_by_its_own_authorities() {
    let cluster = Cluster::start(&[]);
    let c = &cluster;
    c.apply(ROUTE);
    c.apply(&policy("mine", "kubernetes.default.svc"));
    asked(c, 503, "ConfigMap default/mine does not exist");
    accepted(
        c,
        "False NoValidCACertificate spec.tls.caRefs[0]: ConfigMap default/mine does not exist",
    );
    let authorities = c.kubectl(&[
        "get",
        "configmap",
        "kube-root-ca.crt",
        "-o",
        "jsonpath={.data.ca\\.crt}",
    ]);
    let indented: String = authorities
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    c.apply(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: mine}}\ndata:\n  ca.crt: |\n{indented}"
    ));
    asked(c, 401, UNKNOWN);
    accepted(c, "True Accepted ");
    c.apply(&policy("mine", "elsewhere.test"));
    asked(c, 502, "upstream-identity; ");
    c.apply(&policy("mine", "kubernetes.default.svc"));
    asked(c, 401, UNKNOWN);
    c.kubectl(&["delete", "configmap", "mine"]);
    asked(c, 503, "ConfigMap default/mine does not exist");
    let refused = c.kubectl_fails(&[
        "patch",
        "backendpolicy",
        "api",
        "--type=merge",
        "-p",
        "{\"spec\": {\"tls\": {\"caRefs\": []}}}",
    ]);
    assert!(refused.contains("spec.tls.caRefs"), "{refused}");
}
