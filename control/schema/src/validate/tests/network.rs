use serde_json::{Value, json};

use super::check;

#[test]
fn network() {
    check(
        "services",
        "/spec/ports/1",
        json!({"port": 81, "name": "b"}),
        &["spec.ports[0].name: Required value"],
    );
    check(
        "services",
        "/spec/ports/0/port",
        json!(0),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        "services",
        "/spec/ports/0/nodePort",
        json!(30_000),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        "services",
        "/spec/type",
        json!("Magic"),
        &[
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(
        "services",
        "/spec/externalIPs",
        json!(["010.1.1.1"]),
        &[
            "spec.externalIPs[0]: Invalid value: \"010.1.1.1\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    check(
        "services",
        "/spec/ports",
        json!([]),
        &["spec.ports: Required value"],
    );
    check(
        "ingresses",
        "/spec/rules/0/http/paths/0/pathType",
        Value::Null,
        &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
    );
    check(
        "ingresses",
        "/spec/rules/0/http/paths/0/path",
        json!("a//b"),
        &[
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
        ],
    );
    check(
        "ingresses",
        "/spec/rules/0/host",
        json!("1.2.3.4"),
        &["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"],
    );
    check(
        "ingresses",
        "/spec/rules",
        json!([]),
        &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    );
    check(
        "ingresses",
        "/spec/rules/0/http/paths/0/backend/service/port",
        json!({}),
        &["spec.rules[0].http.paths[0].backend: Required value: port name or number is required"],
    );
    check(
        "ingressclasses",
        "/spec/controller",
        json!("nothing"),
        &[
            "spec.controller: Invalid value: \"nothing\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ],
    );
    check(
        "endpointslices",
        "/endpoints/0/addresses/0",
        json!("127.0.0.1"),
        &[
            "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ],
    );
    check(
        "endpointslices",
        "/addressType",
        json!("IPv5"),
        &[
            "addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
        ],
    );
}
