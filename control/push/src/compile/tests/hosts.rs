//! Ingress semantics: reference/ingress-gateway.md §1.

use super::World;
use crate::objects::Kind;

const WEB: &str = r#"
---
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}, {name: admin, port: 9000}, {name: dns, port: 53, protocol: UDP}]}
"#;

#[track_caller]
fn check(ingresses: &str, expected: &str) {
    World::of(&format!("{WEB}---\n{ingresses}")).check("host", expected);
}

#[test]
fn rules_are_sorted_by_length_then_exactness() {
    check(
        r#"
kind: Ingress
metadata: {name: a}
spec:
  rules:
  - host: A.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /foo, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /foo, pathType: Exact, backend: {service: {name: web, port: {name: admin}}}}
      - {path: /foo/bar/, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /foo/, pathType: Exact, backend: {service: {name: web, port: {number: 80}}}}
      - {pathType: ImplementationSpecific, path: /i, backend: {service: {name: web, port: {number: 80}}}}
"#,
        "
        host a.test
          prefix /foo/bar -> shop/web:80 (ingress/shop/a 3)
          exact /foo/ -> shop/web:80 (ingress/shop/a 4)
          exact /foo -> shop/web:9000 (ingress/shop/a 2)
          prefix /foo -> shop/web:80 (ingress/shop/a 1)
          prefix /i -> shop/web:80 (ingress/shop/a 5)
          prefix / -> shop/web:80 (ingress/shop/a 0)",
    );
}

#[test]
fn hosts_of_several_ingresses_merge_and_the_oldest_wins() {
    let rule = |name: &str, second: u32, path: &str| {
        format!(
            "
---
kind: Ingress
metadata: {{name: {name}, creationTimestamp: '2026-01-01T00:00:0{second}Z'}}
spec: {{rules: [{{host: a.test, http: {{paths: [{{path: {path}, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}"
        )
    };
    let mut world = World::of(&format!(
        "{WEB}{}{}{}",
        rule("b", 2, "/x"),
        rule("c", 1, "/x"),
        rule("d", 3, "/y")
    ));
    let merged = "
        host a.test
          prefix /x -> shop/web:80 (ingress/shop/c 0)
          prefix /y -> shop/web:80 (ingress/shop/d 0)";
    world.check("host", merged);
    world.check_report(
        "shop/b",
        "Conflicted: path /x of host a.test belongs to the older Ingress shop/c",
    );
    world.check_report("shop/c", "");
    world.delete(Kind::Ingress, "shop/c");
    world.check("host", &merged.replace("shop/c", "shop/b"));
    world.check_report("shop/b", "");
}

#[test]
fn a_default_backend_comes_last_in_its_hosts_and_everywhere() {
    check(
        r#"
kind: Ingress
metadata: {name: a}
spec:
  defaultBackend: {service: {name: web, port: {number: 9000}}}
  rules:
  - host: a.test
    http: {paths: [{path: /x, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
  - host: b.test
  - host: c.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
"#,
        "
        host *
          prefix / -> shop/web:9000 (ingress/shop/a 2)
        host a.test
          prefix /x -> shop/web:80 (ingress/shop/a 0)
          prefix / -> shop/web:9000 (ingress/shop/a 2)
        host b.test
          prefix / -> shop/web:9000 (ingress/shop/a 2)
        host c.test
          prefix / -> shop/web:80 (ingress/shop/a 1)",
    );
}

#[test]
fn what_cannot_be_served_says_why() {
    let world = World::of(&format!(
        "{WEB}---
kind: Service
metadata: {{name: out}}
spec: {{type: ExternalName, externalName: out.test, ports: [{{port: 80}}]}}
---
kind: Ingress
metadata: {{name: a}}
spec:
  rules:
  - host: a.test
    http:
      paths:
      - {{path: /a, pathType: Exact, backend: {{service: {{name: gone, port: {{number: 80}}}}}}}}
      - {{path: /b, pathType: Exact, backend: {{service: {{name: web, port: {{number: 81}}}}}}}}
      - {{path: /c, pathType: Exact, backend: {{service: {{name: web, port: {{name: dns}}}}}}}}
      - {{path: /d, pathType: Exact, backend: {{service: {{name: out, port: {{number: 80}}}}}}}}
      - {{path: /e, pathType: Exact, backend: {{resource: {{kind: Bucket, name: x}}}}}}
      - {{path: /f, pathType: Exact, backend: {{}}}}
      - {{path: no-slash, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
  - host: 'bad_host'
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}
"
    ));
    world.check(
        "host",
        "
        host a.test
          exact /a !! service shop/gone does not exist (ingress/shop/a 0)
          exact /b !! service shop/web has no TCP port 81 (ingress/shop/a 1)
          exact /c !! service shop/web has no TCP port named dns (ingress/shop/a 2)
          exact /d !! service shop/out is of type ExternalName, which is not supported (ingress/shop/a 3)
          exact /e !! backend Bucket/x is not supported: name a service (ingress/shop/a 4)
          exact /f !! the backend names no service and port (ingress/shop/a 5)",
    );
    world.check_report(
        "shop/a",
        "
        InvalidPath: path \"no-slash\" does not start with '/'
        ServiceNotFound: service shop/gone does not exist
        PortNotFound: service shop/web has no TCP port 81
        PortNotFound: service shop/web has no TCP port named dns
        BackendNotSupported: service shop/out is of type ExternalName, which is not supported
        BackendNotSupported: backend Bucket/x is not supported: name a service
        InvalidBackend: the backend names no service and port
        InvalidHost: \"bad_host\" is no host name",
    );
}

/// A proxy would refuse the whole host for its sake.
#[test]
fn a_path_that_no_request_has_is_left_out_of_a_host_that_others_have_rules_for() {
    let ingress = |namespace: &str, path: &str, kind: &str| {
        format!(
            "
---
kind: Ingress
metadata: {{name: a, namespace: {namespace}}}
spec: {{rules: [{{host: a.test, http: {{paths: [{{path: '{path}', pathType: {kind}, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}"
        )
    };
    let never = "contains an empty element, a dot element, a query or characters that no normalised path has";
    let known_as =
        |normal: &str| format!("; requests for it are known as \"{normal}\": write that");
    for (path, kind, advice) in [
        ("/%7Ex", "Exact", known_as("/~x")),
        ("/caf%c3%a9", "Prefix", known_as("/caf%C3%A9")),
        ("/a//b/", "Prefix", known_as("/a/b")),
        ("/a?b", "ImplementationSpecific", String::new()),
        ("/café", "Exact", String::new()),
    ] {
        let both = ingress("shop", "/", "Prefix") + &ingress("other", path, kind);
        let world = World::of(&format!("{WEB}{both}"));
        let left = "
        host a.test
          prefix / -> shop/web:80 (ingress/shop/a 0)";
        world.check("host", left);
        let shown = path.trim_end_matches('/');
        world.check_report(
            "other/a",
            &format!(
                "
        InvalidPath: path \"{shown}\" {never}{advice}
        ServiceNotFound: service other/web does not exist"
            ),
        );
        world.check_report("shop/a", "");
    }
}

#[test]
fn only_ingresses_of_our_class_are_served() {
    let ingress = |name: &str, class: &str| {
        format!(
            "
---
kind: Ingress
metadata: {{name: {name}{}}}
spec:
  {}
  rules: [{{host: {name}.test, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]",
            match class.strip_prefix("annotation ") {
                Some(class) => format!(", annotations: {{kubernetes.io/ingress.class: {class}}}"),
                None => String::new(),
            },
            match class {
                "" => String::new(),
                class if class.starts_with("annotation") => String::new(),
                class => format!("ingressClassName: {class}"),
            }
        )
    };
    let all = [
        ingress("none", ""),
        ingress("ours", "meshgate"),
        ingress("theirs", "nginx"),
        ingress("unknown", "gone"),
        ingress("old-ours", "annotation meshgate"),
        ingress("old-theirs", "annotation nginx"),
    ];
    let other = "---\nkind: IngressClass\nmetadata: {name: nginx}\nspec: {controller: k8s.io/ingress-nginx}";
    let mut world = World::of(&format!("{WEB}{}\n{other}", all.concat()));
    let hosts = |world: &World| {
        let hosts = world
            .resources
            .keys()
            .filter(|key| key.kind == super::super::ResourceKind::EdgeHost);
        hosts
            .map(|key| key.name.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(hosts(&world), "none.test old-ours.test ours.test");
    world.check_report("shop/theirs", "none");
    // Ours is the default no more; the other class becomes ours.
    world.apply(
        "kind: IngressClass\nmetadata: {name: meshgate}\nspec: {controller: meshgate.dev/ingress}",
    );
    world.apply(
        "kind: IngressClass\nmetadata: {name: nginx}\nspec: {controller: meshgate.dev/ingress}",
    );
    assert_eq!(
        hosts(&world),
        "old-ours.test old-theirs.test ours.test theirs.test"
    );
    world.delete(Kind::IngressClass, "/meshgate");
    // The old annotation needs no object.
    assert_eq!(hosts(&world), "old-ours.test old-theirs.test theirs.test");
}

#[test]
fn a_service_that_appears_or_goes_changes_the_rules_that_name_it() {
    let ingress = "
kind: Ingress
metadata: {name: a}
spec: {rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}}]}";
    let mut world = World::of(ingress);
    let missing = "
        host *
          prefix / !! service shop/web does not exist (ingress/shop/a 0)";
    world.check("host", missing);
    world.apply(WEB);
    world.check(
        "host",
        "
        host *
          prefix / -> shop/web:80 (ingress/shop/a 0)",
    );
    world.check_report("shop/a", "");
    world.delete(Kind::Service, "shop/web");
    world.check("host", missing);
    world.check("service", "");
    world.check_report("shop/a", "ServiceNotFound: service shop/web does not exist");
}
