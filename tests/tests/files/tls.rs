//! TLS to applications, by authorities that come from files as well.

use meshgate_tests::files::{Edge, Site, authority, route, service, tls_application};
use meshgate_tests::{curl, tls, until};

const HOST: &str = "api.shop.test";

fn policy(kind: &str) -> String {
    format!(
        "
---
apiVersion: meshgate.dev/v1alpha1
kind: BackendPolicy
metadata: {{name: verified}}
spec:
  targetRefs: [{{kind: Service, name: api}}]
  tls: {{caRefs: [{{kind: {kind}, name: ca}}], hostname: {HOST}}}
"
    )
}

/// Waits until requests are refused so.
fn refused(edge: &Edge, status: u16, reason: &str) {
    until(reason, || {
        let (found, body) = curl(&["-H", "Host: web.test", &format!("http://{}/", edge.http)]);
        (found == status && body.starts_with(reason)).then_some(())
    });
}

#[test]
fn an_application_is_believed_by_what_files_say() {
    let site = Site::default();
    let (cert, key) = tls::own_word(site.scratch(), HOST);
    let api = tls_application("by TLS", &cert, &key);
    site.write("api.yaml", &(service("api", api) + &policy("ConfigMap")));
    site.write("web.yaml", &route("web", "web.test", "api"));
    let (right, said) = site.checked();
    let missing = "BackendPolicy default/verified: NoValidCACertificate: spec.tls.caRefs[0]: ConfigMap default/ca does not exist; nothing is sent to endpoints outside the mesh";
    assert!(right && said.contains(missing), "{said}");
    let edge = site.serve();
    let missing = "misconfigured; BackendPolicy default/verified: spec.tls.caRefs[0]: ConfigMap default/ca does not exist";
    refused(&edge, 503, missing);
    site.write("ca.yaml", &authority("ConfigMap", "ca", &cert));
    edge.answers("web.test", 200, "by TLS");

    // Another authority: connections to the application are there, and are not used.
    let elsewhere = site.scratch().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a folder");
    let (other, _) = tls::own_word(&elsewhere, HOST);
    site.write("ca.yaml", &authority("ConfigMap", "ca", &other));
    refused(&edge, 502, "upstream-identity; ");
    site.write("ca.yaml", &authority("ConfigMap", "ca", &cert));
    edge.answers("web.test", 200, "by TLS");

    // From a Secret, and from none.
    site.write("api.yaml", &(service("api", api) + &policy("Secret")));
    refused(
        &edge,
        503,
        "misconfigured; BackendPolicy default/verified: spec.tls.caRefs[0]: Secret default/ca does not exist",
    );
    site.write("ca.yaml", &authority("Secret", "ca", &cert));
    edge.answers("web.test", 200, "by TLS");
    site.remove("ca.yaml");
    refused(&edge, 503, "misconfigured; ");
    edge.end();
}
