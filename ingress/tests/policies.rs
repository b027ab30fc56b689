//! Three look at a policy: its definition, the control plane and the proxies. What one takes, the next takes too: what proxies
//! refuse would freeze the whole Service or host, and what the control plane refuses closes it.

use meshgate_api::policies::crds;
use meshgate_ingress::refusals;
use meshgate_proxy::push::resource::Body;
use meshgate_push::offline::{Manifest, Offline, Resource};
use meshgate_schema::{FieldValidation, Registry};
use serde::Deserialize;
use serde_json::{Value, json};

const SHOP: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec: {rules: [{host: a.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
";

const INGRESS: &str = "{group: networking.k8s.io, kind: Ingress, name: web}";

fn documents(yaml: &str) -> Vec<Value> {
    serde_norway::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).expect("valid YAML"))
        .collect()
}

/// The definitions, as a cluster has them.
fn registry() -> Registry {
    let definitions = crds::ALL.into_iter().map(|text| {
        let mut definition = documents(text).remove(0);
        definition["status"] = json!({
            "acceptedNames": definition["spec"]["names"],
            "conditions": [{"type": "Established", "status": "True"}],
        });
        definition
    });
    Registry::builtin().with_custom(&definitions.collect::<Vec<_>>())
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The API server does not store it.
    Undefined,
    /// The control plane's status says that it is invalid.
    Invalid,
    Taken,
}
use Outcome::{Invalid, Taken, Undefined};

/// Both, and that proxies refuse nothing of what comes of it, whatever the definition thinks.
#[track_caller]
fn check(registry: &Registry, kind: &str, spec: &str, expected: Outcome) {
    let policy = format!(
        "{{apiVersion: meshgate.dev/v1alpha1, kind: {kind}, metadata: {{name: p, namespace: shop}}, spec: {{{spec}}}}}"
    );
    let policy = documents(&policy).remove(0);
    let kind = registry
        .by_kind("meshgate.dev", "v1alpha1", kind)
        .expect("defined");
    let decoded = kind
        .decode_value(policy.clone(), FieldValidation::Strict)
        .expect("no field that nobody knows");
    let mut object = decoded.object;
    kind.default(&mut object);
    let is_defined = kind.validate_create(&object).is_empty();

    let policy = Manifest::read(object).expect("an object");
    let outcome = match (is_defined, policy.problem()) {
        (false, _) => Undefined,
        (true, Some(_)) => Invalid,
        (true, None) => Taken,
    };
    assert_eq!(outcome, expected, "{spec}: {:?}", policy.problem());

    let mut edge = Offline::new();
    for document in documents(SHOP) {
        edge.apply(&Manifest::read(document).expect("an object"));
    }
    edge.apply(&policy);
    let resources = edge.compile().into_iter().filter_map(|(id, resource)| {
        let body = match resource? {
            Resource::Certificate(certificate) => Body::Certificate(certificate),
            Resource::Service(service) => Body::Service(service),
            Resource::EdgeHost(host) => Body::EdgeHost(host),
        };
        Some((id.name.to_string(), body))
    });
    let refused = refusals(resources.collect());
    assert!(refused.is_empty(), "{spec}: proxies refuse {refused:?}");
}

#[test]
fn backend_policies() {
    let registry = registry();
    let check = |rest: &str, expected| {
        let spec = format!("targetRefs: [{{kind: Service, name: web}}], {rest}");
        check(&registry, "BackendPolicy", &spec, expected);
    };
    for (on, expected) in [
        ("ConnectFailure", Taken),
        ("Retriable4xx", Taken),
        ("\"400\"", Taken),
        ("\"599\"", Taken),
        ("\"302\"", Undefined),
        ("\"600\"", Undefined),
        ("UNAVAILABLE", Taken),
        ("DEADLINE_EXCEEDED", Taken),
        ("TIMEOUT", Undefined),
        ("OK", Undefined),
    ] {
        check(&format!("retries: {{on: [{on}]}}"), expected);
    }
    for (max, expected) in [
        ("0", Taken),
        ("16Mi", Taken),
        ("17Mi", Undefined),
        ("32Mi", Undefined),
        ("16384Ki", Taken),
        ("16385Ki", Undefined),
        ("16777216", Taken),
        ("16777217", Undefined),
        ("\"16699999\"", Taken),
        ("\"16777217\"", Undefined),
        ("-1", Undefined),
    ] {
        check(&format!("retries: {{replayBodyMax: {max}}}"), expected);
    }
    for (spec, expected) in [
        ("retries: {attempts: 10}", Taken),
        ("retries: {attempts: 11}", Undefined),
        ("retries: {budget: {percent: 101}}", Undefined),
        ("circuitBreaker: {ejection: {maxPercent: 100}}", Taken),
        ("circuitBreaker: {ejection: {maxPercent: 101}}", Undefined),
        (
            "circuitBreaker: {successRate: {below: 100, window: 1ms}}",
            Taken,
        ),
        ("circuitBreaker: {successRate: {below: 101}}", Undefined),
        (
            "circuitBreaker: {successRate: {below: 80, window: 0s}}",
            Undefined,
        ),
        (
            "circuitBreaker: {successRate: {below: 80, window: 0h00ms}}",
            Undefined,
        ),
        ("limits: {connections: 1, requests: 1, pending: 0}", Taken),
        ("limits: {connections: 0}", Undefined),
        ("limits: {requests: 0}", Undefined),
        (
            "timeouts: {connect: 0s, request: 99999h99999h99999h99999h}",
            Taken,
        ),
        (
            "loadBalancing: {algorithm: ConsistentHash, hash: {header: X-User}}",
            Taken,
        ),
        (
            "loadBalancing: {algorithm: ConsistentHash, hash: {cookie: {name: a, ttl: 99999h}}}",
            Taken,
        ),
        (
            "loadBalancing: {algorithm: ConsistentHash, hash: {query: \" \"}}",
            Taken,
        ),
        (
            "tls: {mode: Mutual, caRefs: [{kind: ConfigMap, name: ca}], hostname: a.test}",
            Taken,
        ),
        (
            "tls: {caRefs: [{kind: ConfigMap, name: ca}], hostname: a.test}",
            Taken,
        ),
        (
            "tls: {caRefs: [{kind: ConfigMap, name: ca}], hostname: 10.0.0.1}",
            Undefined,
        ),
    ] {
        check(spec, expected);
    }
}

const BLOCKS: [(&str, Outcome); 13] = [
    ("10.0.0.0/8", Taken),
    ("10.0.0.5/8", Taken),
    ("10.0.0.5", Taken),
    ("0.0.0.0/0", Taken),
    ("2001:db8::/32", Taken),
    ("::1", Taken),
    ("::ffff:10.0.0.0/104", Taken),
    ("10.0.0.0/33", Undefined),
    ("10.0.0.0/08", Undefined),
    ("10.0.0.0/+8", Undefined),
    ("10.0.0/8", Undefined),
    ("a.test", Undefined),
    ("", Undefined),
];

const PATHS: [(&str, Outcome); 24] = [
    ("/", Taken),
    ("/a/b.c/", Taken),
    ("/.well-known/x", Taken),
    ("/...", Taken),
    ("/a;b=c/%20%C3%A4%E0%B8%81%F0%9F%98%80", Taken),
    ("/~u/!$&'()*+,:@=", Taken),
    ("/%2F%5C%3B", Taken),
    ("a", Undefined),
    ("/a//b", Undefined),
    ("/a/.", Undefined),
    ("/../a", Undefined),
    ("/..;x/a", Undefined),
    ("/%7Ex", Undefined),
    ("/%41", Undefined),
    ("/%2e", Undefined),
    ("/%3a", Undefined),
    ("/%00", Undefined),
    ("/%7F", Undefined),
    ("/%C0%AF", Undefined),
    ("/%E0%80%AF", Undefined),
    ("/a?b", Undefined),
    ("/a%2", Undefined),
    ("/\u{e4}", Undefined),
    ("/a b", Undefined),
];

const HOSTS: [(&str, Outcome); 12] = [
    ("a.test", Taken),
    ("A.Test.", Taken),
    ("*.a.test", Taken),
    ("*", Taken),
    ("a_b.test", Taken),
    ("admin.test:8443", Undefined),
    ("https://admin.test", Undefined),
    ("*.*.test", Undefined),
    ("closed.test/", Undefined),
    ("a..test", Undefined),
    ("a.test..", Undefined),
    ("", Undefined),
];

#[test]
fn access_policies() {
    let registry = registry();
    let check = |rule: &str, expected| {
        let spec = format!("targetRefs: [{INGRESS}], rules: [{{{rule}}}]");
        check(&registry, "AccessPolicy", &spec, expected);
    };
    for (block, expected) in BLOCKS {
        check(&format!("from: [{{ipBlocks: [\"{block}\"]}}]"), expected);
    }
    for (path, expected) in PATHS {
        check(
            &format!("to: [{{paths: [{{value: \"{path}\"}}]}}]"),
            expected,
        );
    }
    for (host, expected) in HOSTS {
        check(
            &format!("action: Deny, to: [{{hosts: [\"{host}\"]}}]"),
            expected,
        );
    }
    check("to: [{ports: [0]}]", Undefined);
    check("to: [{ports: [65535]}]", Taken);
}

#[test]
fn rate_limit_policies() {
    let registry = registry();
    let check = |limit: &str, expected| {
        let spec = format!("targetRefs: [{INGRESS}], limits: [{{name: a, {limit}}}]");
        check(&registry, "RateLimitPolicy", &spec, expected);
    };
    for (path, expected) in PATHS {
        let limit = format!("requests: 1, match: {{paths: [{{value: \"{path}\"}}]}}");
        check(&limit, expected);
    }
    check("requests: 0", Undefined);
    check("requests: 1, per: 24h, burst: 1000000000", Taken);
    // A pattern cannot tell which durations are too short or too long.
    check("requests: 1, per: 25h", Invalid);
    check("requests: 1, per: 9ms", Invalid);
    check(
        "requests: 1, key: [{clientAddress: {prefixV4: 32, prefixV6: 128}}]",
        Taken,
    );
    check(
        "requests: 1, key: [{clientAddress: {prefixV4: 33}}]",
        Undefined,
    );
}

#[test]
fn targets() {
    let registry = registry();
    let part = INGRESS.replace("web", "web, sectionName: http");
    let access = |targets: &str, expected| {
        check(
            &registry,
            "AccessPolicy",
            &format!("{targets}, rules: []"),
            expected,
        );
    };
    access(&format!("targetRefs: [{INGRESS}]"), Taken);
    access(&format!("targetRefs: [{part}]"), Undefined);
    access(
        "targetRefs: [{kind: Service, name: web, sectionName: http}]",
        Undefined,
    );
    access(
        "targetRefs: [{kind: Namespace, name: shop, sectionName: a}]",
        Undefined,
    );
    access("targetRefs: []", Undefined);
    access("selector: {}", Taken);
    access("targetRefs: [], selector: {matchLabels: {a: b}}", Taken);
    access("selector: {matchExpressions: []}", Undefined);
    access(
        &format!("targetRefs: [{INGRESS}], selector: {{}}"),
        Undefined,
    );
    let limits = "limits: [{name: a, requests: 1}]";
    let limited = |target: &str, expected| {
        let spec = format!("targetRefs: [{target}], {limits}");
        check(&registry, "RateLimitPolicy", &spec, expected);
    };
    limited(INGRESS, Taken);
    limited(&part, Undefined);
    let called = |section: &str| {
        let spec = format!("targetRefs: [{{kind: Service, name: web{section}}}]");
        check(&registry, "BackendPolicy", &spec, Taken);
    };
    called("");
    called(", sectionName: http");
}
