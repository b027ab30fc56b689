//! What differs from a cluster. The compiler itself has tests of its own.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{EdgeKind, Manifest, Offline, Resource, ResourceId};

const SHOP: &str = r#"
kind: Service
apiVersion: v1
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 3000}]
endpoints: [{addresses: [127.0.0.1]}]
---
kind: Ingress
apiVersion: networking.k8s.io/v1
metadata: {name: web, namespace: shop}
spec:
  tls: [{hosts: [shop.test], secretName: tls}]
  rules:
  - host: shop.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
"#;

/// The manifests of a text.
#[track_caller]
fn manifests(yaml: &str) -> Vec<Manifest> {
    serde_norway::Deserializer::from_str(yaml)
        .map(|document| Manifest::read(Value::deserialize(document).unwrap()).unwrap())
        .collect()
}

/// An edge's view: what it was given in all.
#[derive(Default)]
struct Edge {
    offline: Offline,
    given: BTreeMap<ResourceId, Resource>,
}

impl Edge {
    #[track_caller]
    fn of(yaml: &str) -> Self {
        let mut edge = Self::default();
        edge.apply(yaml);
        edge
    }

    #[track_caller]
    fn apply(&mut self, yaml: &str) -> Vec<ResourceId> {
        for manifest in manifests(yaml) {
            self.offline.apply(&manifest);
        }
        self.compile()
    }

    #[track_caller]
    fn delete(&mut self, yaml: &str) {
        for manifest in manifests(yaml) {
            self.offline.delete(manifest.id());
        }
        self.compile();
    }

    fn compile(&mut self) -> Vec<ResourceId> {
        let update = self.offline.compile();
        let changed = update.keys().cloned().collect();
        for (id, resource) in update {
            match resource {
                Some(resource) => drop(self.given.insert(id, resource)),
                None => drop(self.given.remove(&id)),
            }
        }
        changed
    }

    /// Names of what is served, then what is to be said.
    #[track_caller]
    fn check(&self, served: &str, findings: &[&str]) {
        let names: Vec<_> = self.given.keys().map(|id| &*id.name).collect();
        assert_eq!(names.join(" "), served);
        let said: Vec<_> = self.offline.findings().into_iter().collect();
        let said = said
            .iter()
            .map(|f| format!("{:?} {}: {}: {}", f.severity, f.id, f.reason, f.message));
        assert_eq!(said.collect::<Vec<_>>(), findings);
    }
}

const NO_SECRET: &str = "Warning Ingress shop/web: SecretNotFound: secret shop/tls does not exist";

#[test]
fn an_ingress_without_a_class_is_served() {
    Edge::of(SHOP).check("shop/web:80 shop.test", &[NO_SECRET]);
    let class = |name: &str| {
        SHOP.replace(
            "spec:\n  tls",
            &format!("spec:\n  ingressClassName: {name}\n  tls"),
        )
    };
    Edge::of(&class("meshgate")).check("shop/web:80 shop.test", &[NO_SECRET]);
    let foreign =
        "Warning Ingress shop/web: NotServed: its class nginx is none of meshgate.dev/ingress";
    let mut edge = Edge::of(&class("nginx"));
    edge.check("shop/web:80", &[foreign]);
    let nginx = "{kind: IngressClass, apiVersion: networking.k8s.io/v1, metadata: {name: nginx}, spec: {controller: meshgate.dev/ingress}}";
    edge.apply(nginx);
    edge.check("shop/web:80 shop.test", &[NO_SECRET]);
    edge.delete(nginx);
    edge.check("shop/web:80", &[foreign]);
}

#[test]
fn the_class_of_our_name_means_what_a_file_says_and_without_one_ours() {
    let theirs = "{kind: IngressClass, apiVersion: networking.k8s.io/v1, metadata: {name: meshgate}, spec: {controller: else.test/x}}";
    let mut edge =
        Edge::of(&SHOP.replace("spec:\n  tls", "spec:\n  ingressClassName: meshgate\n  tls"));
    edge.apply(theirs);
    let foreign =
        "Warning Ingress shop/web: NotServed: its class meshgate is none of meshgate.dev/ingress";
    edge.check("shop/web:80", &[foreign]);
    edge.delete(theirs);
    edge.check("shop/web:80 shop.test", &[NO_SECRET]);
}

#[test]
fn a_secret_is_found_whenever_it_comes() {
    let pair = rcgen::generate_simple_self_signed(["shop.test".to_owned()]).unwrap();
    let base64 = |text: String| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let secret = format!(
        "{{kind: Secret, apiVersion: v1, metadata: {{name: tls, namespace: shop}}, data: {{tls.crt: {}, tls.key: {}}}}}",
        base64(pair.cert.pem()),
        base64(pair.signing_key.serialize_pem())
    );
    let mut edge = Edge::of(&secret);
    edge.check("", &[]);
    edge.apply(SHOP);
    edge.check("shop/tls shop/web:80 shop.test", &[]);
    edge.delete(&secret);
    edge.check("shop/web:80 shop.test", &[NO_SECRET]);
    let changed = edge.apply(&secret);
    assert_eq!(changed.len(), 1, "only the certificate: {changed:?}");
    edge.check("shop/tls shop/web:80 shop.test", &[]);
}

#[test]
fn a_global_limit_is_counted_here() {
    let edge = Edge::of(&format!(
        "{SHOP}---\n{}",
        r#"
kind: RateLimitPolicy
apiVersion: meshgate.dev/v1alpha1
metadata: {name: limits, namespace: shop}
spec:
  targetRefs: [{group: networking.k8s.io, kind: Ingress, name: web}]
  limits: [{name: all, requests: 5, per: 1s, scope: Global}]
"#
    ));
    let id = ResourceId {
        kind: EdgeKind::EdgeHost,
        name: "shop.test".into(),
    };
    let Some(Resource::EdgeHost(host)) = edge.given.get(&id) else {
        panic!("no host");
    };
    let limit = &host.rules[0].rate_limits[0];
    assert_eq!(limit.scope(), meshgate_api::push::rate_limit::Scope::Local);
}

#[test]
fn what_nobody_answers_for_is_said() {
    let mut edge = Edge::of(SHOP);
    edge.delete("{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: web, namespace: shop}, addressType: IPv4, endpoints: []}");
    edge.check(
        "shop/web:80 shop.test",
        &[
            NO_SECRET,
            "Warning Service shop/web: NoEndpoints: service shop/web has no ready endpoint",
        ],
    );
    edge.apply("{kind: EndpointSlice, apiVersion: discovery.k8s.io/v1, metadata: {name: x, namespace: shop, labels: {kubernetes.io/service-name: wbe}}, addressType: IPv4, endpoints: []}");
    edge.check(
        "shop/web:80 shop.test",
        &[
            "Warning EndpointSlice shop/x: ServiceNotFound: service shop/wbe does not exist",
            NO_SECRET,
            "Warning Service shop/web: NoEndpoints: service shop/web has no ready endpoint",
        ],
    );
}

/// What a policy targets and asks for, and what is said of it.
#[track_caller]
fn check_access(spec: &str, findings: &[&str]) {
    let policy = format!(
        "{{kind: AccessPolicy, apiVersion: meshgate.dev/v1alpha1, metadata: {{name: a, namespace: shop}}, spec: {{{spec}}}}}"
    );
    let mut edge = Edge::of(SHOP);
    edge.apply(&policy);
    let findings: Vec<_> = findings.iter().copied().chain([NO_SECRET]).collect();
    edge.check("shop/web:80 shop.test", &findings);
}

#[test]
fn an_access_policy_says_what_of_it_an_edge_does_not_enforce() {
    let ingress = "{group: networking.k8s.io, kind: Ingress, name: web}";
    let rules = "rules: [{from: [{ipBlocks: [10.0.0.0/8]}]}]";
    check_access(&format!("targetRefs: [{ingress}], {rules}"), &[]);
    check_access(
        &format!("targetRefs: [{ingress}], {rules}, mtls: Strict"),
        &[
            "Warning AccessPolicy shop/a: UnsupportedFields: not supported yet: spec.mtls at an edge (not enforced)",
        ],
    );
    check_access(
        &format!("targetRefs: [{ingress}, {{kind: Service, name: web}}], {rules}"),
        &[
            "Warning AccessPolicy shop/a: NotEnforced: enforced by sidecars, and this edge has none behind it: spec.targetRefs[1] (Service web)",
        ],
    );
    check_access(
        &format!("selector: {{matchLabels: {{app: web}}}}, {rules}"),
        &[
            "Warning AccessPolicy shop/a: NotEnforced: enforced by sidecars, and this edge has none behind it: spec.selector",
        ],
    );
    let gone = ingress.replace("web", "gone");
    check_access(
        &format!("targetRefs: [{gone}], {rules}"),
        &[
            "Warning AccessPolicy shop/a: TargetNotFound: there is no Ingress gone of class meshgate in this namespace",
        ],
    );
}
