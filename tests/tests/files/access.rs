//! Who may ask: an AccessPolicy of an Ingress, from files.

use meshgate_tests::files::{Edge, Site, application, route, service};
use meshgate_tests::{curl, until};

/// An AccessPolicy of an Ingress of the same name.
fn policy(name: &str, rules: &str) -> String {
    format!(
        "
---
apiVersion: meshgate.dev/v1alpha1
kind: AccessPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: {name}}}]
  {rules}
"
    )
}

/// Which client asks, what, and how it is answered: curl's arguments, whose last is the path, and the status.
type Row = (&'static [&'static str], u16);

fn by_address(block: &str) -> String {
    policy(
        "web",
        &format!("rules: [{{from: [{{ipBlocks: [{block}]}}]}}]"),
    )
}

/// Waits until the clients are answered so.
fn answers(edge: &Edge, rows: &[Row]) {
    until(&format!("{rows:?}"), || {
        let all = rows
            .iter()
            .all(|(asked, status)| ask(edge, asked).0 == *status);
        all.then_some(())
    });
}

/// Status, and head and body, of what is asked.
fn ask(edge: &Edge, asked: &[&str]) -> (u16, String) {
    let (path, arguments) = asked.split_last().expect("a path");
    let url = format!("http://{}{path}", edge.http);
    let fixed = ["-i", "-H", "Host: web.test", &url];
    curl(&[arguments, &fixed[..]].concat())
}

const THIS: &[&str] = &["/"];
const OTHER: &[&str] = &["-H", "X-Forwarded-For: 10.0.0.1", "/"];

#[test]
fn an_edge_asks_who_may_and_follows_the_files() {
    let site = Site::default();
    let web = application("web");
    let open = service("web", web) + &route("web", "web.test", "web");
    site.write("web.yaml", &open);
    site.write("access.yaml", &by_address("127.0.0.0/8"));
    let edge = site.serve_with(&["--trust-headers-from", "127.0.0.1/32"]);
    answers(&edge, &[(THIS, 200), (OTHER, 403)]);
    let (_, refused) = ask(&edge, OTHER);
    let refused = refused.to_ascii_lowercase();
    assert!(
        refused.contains("meshgate-reason: access-denied\r\n"),
        "{refused}"
    );
    assert!(!refused.contains("default/web"), "{refused}");
    assert!(edge.counted("meshgate_requests_total", "reason=\"access-denied\"") >= 1.0);

    site.write("access.yaml", &by_address("10.0.0.1"));
    answers(&edge, &[(THIS, 403), (OTHER, 200)]);
    let by_request = "rules: [{to: [{methods: [GET], hosts: [web.test]}, {methods: [PUT], paths: [{value: /items}]}]}, {action: Deny, to: [{paths: [{value: /admin}]}]}]";
    site.write("access.yaml", &policy("web", by_request));
    let rows: &[Row] = &[
        (THIS, 200),
        (&["/admin/x"], 403),
        (&["/x/../%61dmin"], 403),
        (&["-X", "PUT", "/items/1"], 200),
        (&["-X", "PUT", "/"], 403),
        (&["--http2-prior-knowledge", "/"], 200),
        (&["--http2-prior-knowledge", "-X", "PUT", "/"], 403),
    ];
    answers(&edge, rows);

    site.write("access.yaml", &policy("web", "rules: []"));
    answers(&edge, &[(THIS, 403), (OTHER, 403)]);
    a_policy_that_is_wrong_changes_nothing(&site, &edge);
    site.write("access.yaml", &policy("web", "audit: true\n  rules: []"));
    answers(&edge, &[(THIS, 200), (OTHER, 200)]);
    edge.log.until("access would be denied (audit)", 2);
    site.write("access.yaml", &policy("web", "rules: []"));
    answers(&edge, &[(THIS, 403)]);
    site.remove("access.yaml");
    answers(&edge, &[(THIS, 200), (OTHER, 200)]);
    edge.end();
}

fn a_policy_that_is_wrong_changes_nothing(site: &Site, edge: &Edge) {
    site.write("access.yaml", &by_address("10.0.0.0/33"));
    let wanted = "AccessPolicy default/web: spec.rules[0].from[0].ipBlocks[0]: Invalid value: \"10.0.0.0/33\"";
    edge.log.until(wanted, 1);
    assert_eq!(ask(edge, THIS).0, 403);
}

#[test]
fn a_check_says_what_no_edge_enforces() {
    let site = Site::default();
    let web = service("web", "127.0.0.1:1".parse().expect("an address"));
    site.write("a.yaml", &(web + &route("web", "web.test", "web")));
    site.write("b.yaml", &policy("web", "rules: []"));
    let counts = "2 files: 1 AccessPolicy, 1 EndpointSlice, 1 Ingress, 1 Service";
    assert_eq!(site.checked(), (true, format!("{counts}\n")));
    let pods = policy("web", "rules: []").replace(
        "targetRefs: [{group: networking.k8s.io, kind: Ingress, name: web}]",
        "targetRefs: [{kind: Service, name: web}]",
    );
    site.write("b.yaml", &pods);
    let warning = "warning: b.yaml:3: document 1: AccessPolicy default/web: NotEnforced: enforced by sidecars, and this edge has none behind it: spec.targetRefs[0] (Service web)";
    assert_eq!(
        site.checked(),
        (true, format!("{counts}; 1 warning\n{warning}\n"))
    );
}
