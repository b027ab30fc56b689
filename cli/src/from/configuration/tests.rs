//! Texts in; changes, warnings and errors out.

use super::*;

const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 3000}]
endpoints: [{addresses: [127.0.0.1]}]
"#;

fn ingress(name: &str, host: &str) -> String {
    format!(
        "
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: shop}}
spec:
  rules:
  - host: {host}
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
"
    )
}

fn texts(files: &[(&str, &str)]) -> Vec<Text> {
    let text = |(path, content): &(&str, &str)| Text {
        path: PathBuf::from(path),
        content: Ok((*content).to_owned()),
    };
    files.iter().map(text).collect()
}

fn shown(faults: &BTreeSet<Fault>) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

/// Files in, errors out; those of the edge itself as well.
#[track_caller]
fn check(files: &[(&str, &str)], expected: &[&str]) {
    let mut configuration = Configuration::new().unwrap();
    let faults = match configuration.take(texts(files)) {
        Err(faults) => shown(&faults),
        Ok(_) => {
            let refusals = meshgate_ingress::refusals(configuration.changes(1).updated);
            shown(&configuration.refused(&refusals))
        }
    };
    assert_eq!(faults, expected);
}

/// The same, warnings out.
#[track_caller]
fn check_warnings(files: &[(&str, &str)], expected: &[&str]) {
    let mut configuration = Configuration::new().unwrap();
    let accepted = configuration.take(texts(files)).unwrap();
    assert_eq!(shown(&accepted.warnings), expected);
}

/// Takes files, and shows what is handed on: `+name` and `-name`.
#[track_caller]
fn step(configuration: &mut Configuration, files: &[(&str, &str)]) -> String {
    if let Err(faults) = configuration.take(texts(files)) {
        return format!("{} errors", faults.len());
    }
    let changes = configuration.changes(1);
    configuration.enforced();
    let updated = changes.updated.iter().map(|(name, _)| format!("+{name}"));
    let removed = changes.removed.iter().map(|(_, name)| format!("-{name}"));
    updated.chain(removed).collect::<Vec<_>>().join(" ")
}

#[test]
fn errors_name_file_line_document_object_and_field() {
    check(&[("a.yaml", SHOP)], &[]);
    check(
        &[("a.yaml", "kind: Ingress\nmetadata: [\n")],
        &[
            "a.yaml:1: document 1: did not find expected node content at line 3 column 1, while parsing a flow node",
        ],
    );
    check(
        &[
            ("a.yaml", "just words\n"),
            ("b.yaml", "kind: Ingress\n"),
            ("c.yaml", "apiVersion: v1\n"),
        ],
        &[
            "a.yaml:1: document 1: neither an object nor a List",
            "b.yaml:1: document 1: Ingress: apiVersion: Required value",
            "c.yaml:1: document 1: kind: Required value",
        ],
    );
    let unknown = ingress("web", "shop.test").replace("pathType", "pathTyp");
    check(
        &[("a.yaml", SHOP), ("b.yaml", &unknown)],
        &[
            "b.yaml:3: document 1: Ingress shop/web: unknown field \"spec.rules[0].http.paths[0].pathTyp\"",
        ],
    );
    let bad = ingress("web", "Shop_.test").replace("Prefix", "Prefixx");
    check(
        &[("a.yaml", &(SHOP.to_owned() + &bad))],
        &[
            "a.yaml:15: document 3: Ingress shop/web: spec.rules[0].host: Invalid value: \"Shop_.test\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "a.yaml:15: document 3: Ingress shop/web: spec.rules[0].http.paths[0].pathType: Unsupported value: \"Prefixx\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
        ],
    );
    check(
        &[("a.yaml", SHOP), ("sub/b.yaml", SHOP)],
        &[
            "sub/b.yaml:2: document 1: Service shop/web: is written twice: also in a.yaml:2: document 1",
            "sub/b.yaml:7: document 2: EndpointSlice shop/web: is written twice: also in a.yaml:7: document 2",
        ],
    );
}

#[test]
fn errors_of_kinds_policies_secrets_and_lists() {
    check(
        &[(
            "a.yaml",
            "{apiVersion: extensions/v1beta1, kind: Ingress, metadata: {name: a}}\n---\n{apiVersion: meshgate.dev/v1alpha1, kind: RateLimitPolcy, metadata: {name: a}}\n---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}}\n",
        )],
        &[
            "a.yaml:1: document 1: Ingress default/a: apiVersion: Unsupported value: \"extensions/v1beta1\": supported values: \"networking.k8s.io/v1\"",
            "a.yaml:3: document 2: RateLimitPolcy default/a: kind: there is no RateLimitPolcy in meshgate.dev/v1alpha1",
        ],
    );
    let policy = |limits: &str| {
        format!(
            "apiVersion: meshgate.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: p}}\nspec:\n  targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: web}}]\n  limits: [{limits}]\n"
        )
    };
    check(
        &[
            ("a.yaml", &policy("{name: x, requests: 1, per: 1ms}")),
            (
                "b.yaml",
                &policy("{name: x, requests: many}").replace("name: p}", "name: q}"),
            ),
        ],
        &[
            "a.yaml:1: document 1: RateLimitPolicy default/p: spec.limits[0].per: must be from 10ms to 24h",
            "b.yaml:1: document 1: RateLimitPolicy default/q: spec.limits[0].requests: Invalid value: \"string\": spec.limits[0].requests in body must be of type integer: \"string\"",
        ],
    );
    check(
        &[(
            "a.json",
            r#"{"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}},
                {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}, "type": "kubernetes.io/tls", "stringData": {"tls.crt": "none", "tls.key": "none"}},
                {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}, "spec": {"ports": [{"port": 70000, "targetPort": 1}]}}
            ]}"#,
        )],
        &[
            "a.json:1: document 1, item 2: Secret default/b: data: tls.crt: there is no certificate in it",
            "a.json:1: document 1, item 3: Service default/c: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    let backend = "{apiVersion: meshgate.dev/v1alpha1, kind: BackendPolicy, metadata: {name: p, namespace: shop}, spec: {targetRefs: [{kind: Service, name: web}], retries: {replayBodyMax: 33554432}}}\n";
    check(
        &[("a.yaml", SHOP), ("b.yaml", backend)],
        &[
            "b.yaml:1: document 1: BackendPolicy shop/p: spec.retries.replayBodyMax: Invalid value: 33554432: spec.retries.replayBodyMax in body should be less than or equal to 16777216",
        ],
    );
}

#[test]
fn conditions_are_warnings() {
    let lost = ingress("lost", "lost.test").replace("name: web", "name: missing");
    let tls = ingress("tls", "tls.test").replace(
        "spec:\n",
        "spec:\n  tls: [{hosts: [tls.test], secretName: none}]\n",
    );
    let policy = "apiVersion: meshgate.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: else}], healthCheck: {http: {path: /}}}\n";
    let access = "apiVersion: meshgate.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: a, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: web}], mtls: Strict}\n";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\n";
    check_warnings(
        &[
            ("a.yaml", &(SHOP.to_owned() + &lost + &tls)),
            ("b.yaml", policy),
            ("c.yaml", access),
            ("d.yaml", slice),
        ],
        &[
            "a.yaml:15: document 3: Ingress shop/lost: ServiceNotFound: service shop/missing does not exist",
            "a.yaml:26: document 4: Ingress shop/tls: SecretNotFound: secret shop/none does not exist",
            "b.yaml:1: document 1: BackendPolicy shop/p: TargetNotFound: there is no Service else in this namespace",
            "b.yaml:1: document 1: BackendPolicy shop/p: UnsupportedFields: not supported yet: spec.healthCheck (not enforced)",
            "c.yaml:1: document 1: AccessPolicy shop/a: NotEnforced: enforced by sidecars, and this edge has none behind it: spec.targetRefs[0] (Service web)",
            "d.yaml:1: document 1: EndpointSlice default/s: metadata.labels: without kubernetes.io/service-name it belongs to no service and has no effect",
        ],
    );
}

#[test]
fn tls_to_endpoints_names_what_is_missing_and_what_is_wrong() {
    let policy = |tls: &str| {
        format!(
            "{{apiVersion: meshgate.dev/v1alpha1, kind: BackendPolicy, metadata: {{name: p, namespace: shop}}, spec: {{targetRefs: [{{kind: Service, name: web}}], tls: {tls}}}}}\n"
        )
    };
    let verified = policy("{caRefs: [{kind: ConfigMap, name: ca}], hostname: a.test}");
    let empty = "{apiVersion: v1, kind: ConfigMap, metadata: {name: ca, namespace: shop}, data: {ca.crt: none}}\n";
    let warning = |problem: &str| {
        format!(
            "b.yaml:1: document 1: BackendPolicy shop/p: NoValidCACertificate: spec.tls.caRefs[0]: ConfigMap shop/ca{problem}; nothing is sent to endpoints outside the mesh"
        )
    };
    check_warnings(
        &[("a.yaml", SHOP), ("b.yaml", &verified)],
        &[&warning(" does not exist")],
    );
    check_warnings(
        &[("a.yaml", SHOP), ("b.yaml", &verified), ("c.yaml", empty)],
        &[&warning(": ca.crt: there is no certificate in it")],
    );
    check_warnings(
        &[
            ("a.yaml", SHOP),
            (
                "b.yaml",
                &verified.replace("{caRefs", "{mode: Mutual, caRefs"),
            ),
        ],
        &[
            "b.yaml:1: document 1: BackendPolicy shop/p: UnsupportedFields: not supported yet: spec.tls.mode Mutual (nothing is sent to endpoints outside the mesh)",
        ],
    );
    let wrong = |tls: &str, problems: &[&str]| {
        let problems: Vec<String> = problems
            .iter()
            .map(|problem| format!("b.yaml:1: document 1: BackendPolicy shop/p: {problem}"))
            .collect();
        let problems: Vec<&str> = problems.iter().map(String::as_str).collect();
        check(&[("a.yaml", SHOP), ("b.yaml", &policy(tls))], &problems);
    };
    wrong(
        "{}",
        &[
            "spec.tls.caRefs: Required value",
            "spec.tls.hostname: Required value",
        ],
    );
    wrong(
        "{caRefs: [], hostname: a.test}",
        &[
            "spec.tls.caRefs: Invalid value: 0: spec.tls.caRefs in body should have at least 1 items",
        ],
    );
    let unlike = |field: &str, value: &str, pattern: &str| {
        let at = format!("spec.tls.{field}");
        format!("{at}: Invalid value: \"{value}\": {at} in body should match '^{pattern}$'")
    };
    let dns = r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z]([-a-z0-9]{0,61}[a-z0-9])?";
    let name = format!("({dns}|[A-Za-z][-+.A-Za-z0-9]*://[!-~]+)");
    let object = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
    wrong(
        "{caRefs: [{kind: ConfigMap, name: 'a,b'}], hostname: a.test}",
        &[&unlike("caRefs[0].name", "a,b", object)],
    );
    wrong(
        "{caRefs: [{kind: ConfigMap, name: ca}], hostname: 10.0.0.1, subjectAltNames: ['*.a.test', 'spiffe://']}",
        &[
            &unlike("hostname", "10.0.0.1", dns),
            &unlike("subjectAltNames[0]", "*.a.test", &name),
            &unlike("subjectAltNames[1]", "spiffe://", &name),
        ],
    );
}

#[test]
fn a_change_hands_on_what_it_touches_and_nothing_else() {
    let mut configuration = Configuration::new().unwrap();
    let (one, two) = (ingress("one", "one.test"), ingress("two", "two.test"));
    let all = [("shop.yaml", SHOP), ("one.yaml", &one), ("two.yaml", &two)];
    assert_eq!(
        step(&mut configuration, &all),
        "+shop/web:80 +one.test +two.test"
    );
    assert_eq!(step(&mut configuration, &all), "");
    let renamed = ingress("two", "2.test");
    let changed = [
        ("shop.yaml", SHOP),
        ("one.yaml", &one),
        ("two.yaml", &renamed),
    ];
    assert_eq!(step(&mut configuration, &changed), "+2.test -two.test");
    let moved = [
        ("shop.yaml", SHOP),
        ("elsewhere.yaml", &one),
        ("two.yaml", &renamed),
    ];
    assert_eq!(step(&mut configuration, &moved), "");
    assert_eq!(step(&mut configuration, &moved[..2]), "-2.test");
}

#[test]
fn a_set_with_an_error_is_refused_whole_and_nothing_of_it_is_lost() {
    let mut configuration = Configuration::new().unwrap();
    let (one, two) = (ingress("one", "one.test"), ingress("two", "two.test"));
    let shop = [("shop.yaml", SHOP)];
    assert_eq!(step(&mut configuration, &shop), "+shop/web:80");
    let broken = [("shop.yaml", SHOP), ("one.yaml", &one), ("two.yaml", "{")];
    assert_eq!(step(&mut configuration, &broken), "1 errors");
    // An error that only the compiler finds: then it knows more than is in force.
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: tls, namespace: shop}, stringData: {tls.crt: none, tls.key: none}}";
    let tls = two.replace(
        "spec:\n",
        "spec:\n  tls: [{hosts: [two.test], secretName: tls}]\n",
    );
    let invalid = [
        ("shop.yaml", SHOP),
        ("one.yaml", &one),
        ("two.yaml", &tls),
        ("tls.yaml", secret),
    ];
    assert_eq!(step(&mut configuration, &invalid), "1 errors");
    let right = [("shop.yaml", SHOP), ("one.yaml", &one), ("two.yaml", &two)];
    assert_eq!(
        step(&mut configuration, &right),
        "+shop/web:80 +one.test +two.test -shop/tls".replace("+shop/web:80 ", "")
    );
}

/// Prints how long it takes to read and compile; a measure, not a judgement.
#[test]
fn a_thousand_ingresses() {
    let files: Vec<(String, String)> = (0..1000)
        .map(|i| {
            (
                format!("{i}.yaml"),
                ingress(&format!("i{i}"), &format!("h{i}.test")),
            )
        })
        .collect();
    let mut all: Vec<(&str, &str)> = files
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    all.push(("shop.yaml", SHOP));
    let mut configuration = Configuration::new().unwrap();
    let began = std::time::Instant::now();
    let first = step(&mut configuration, &all);
    let took = began.elapsed();
    assert_eq!(first.split(' ').count(), 1001);
    let changed = ingress("i7", "seven.test");
    all[7].1 = &changed;
    let began = std::time::Instant::now();
    assert_eq!(step(&mut configuration, &all), "+seven.test -h7.test");
    println!("all {took:?}, one {:?}", began.elapsed());
}
