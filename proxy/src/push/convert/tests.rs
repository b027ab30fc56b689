//! Every kind of resource: what converts, and which field is named when it does not.

use meshgate_api::push as wire;
use meshgate_api::push::hash_key::Key;

use super::{Enforceable, Invalid, certificate, edge_host, service, workload};

/// Converts; shows what the engine gets, or the refusal.
fn check<T: std::fmt::Debug, E: std::fmt::Display>(converted: Result<T, E>, expected: &str) {
    let shown = match converted {
        Ok(value) => format!("{value:?}"),
        Err(refusal) => format!("refused: {refusal}"),
    };
    assert!(shown.contains(expected), "expected {expected:?} in {shown}");
}

/// The same of what is closed: what is reported of it.
fn check_closed<T: std::fmt::Debug>(
    converted: Result<Enforceable<T>, Invalid>,
    closed: &str,
    reported: &str,
) {
    let Enforceable {
        resource,
        closed: invalid,
    } = converted.unwrap();
    let shown = format!("{resource:?}");
    assert!(shown.contains(closed), "expected {closed:?} in {shown}");
    let said = invalid.map(|invalid| invalid.to_string());
    let said = said.unwrap_or_default();
    assert_eq!(said.is_empty(), reported.is_empty(), "{said}");
    assert!(said.starts_with(reported), "expected {reported:?}: {said}");
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn path(value: &str) -> wire::PathMatch {
    wire::PathMatch {
        kind: wire::path_match::Kind::Prefix.into(),
        value: value.to_owned(),
    }
}

#[test]
fn hosts() {
    fn with(change: impl Fn(&mut wire::Rule)) -> wire::EdgeHost {
        let mut rule = wire::Rule {
            path: Some(path("/a")),
            service: "shop/web:80".to_owned(),
            origin: "ingress/shop/web".to_owned(),
            ..wire::Rule::default()
        };
        change(&mut rule);
        wire::EdgeHost {
            host: "*.a.test".to_owned(),
            rules: vec![
                wire::Rule {
                    path: Some(path("/")),
                    ..rule.clone()
                },
                rule,
            ],
            ..wire::EdgeHost::default()
        }
    }
    check(edge_host(with(|_| {})), "Service(\"shop/web:80\")");
    check(edge_host(with(|_| {})), "Wildcard(\".a.test\")");
    let broken = |rule: &mut wire::Rule| rule.problem = "no port 81".to_owned();
    check(edge_host(with(broken)), "Problem(\"no port 81\")");
    let nowhere = |rule: &mut wire::Rule| rule.service.clear();
    check(
        edge_host(with(nowhere)),
        "refused: rules[0].service: missing",
    );
    let host = wire::EdgeHost {
        host: "a b".to_owned(),
        ..wire::EdgeHost::default()
    };
    check(edge_host(host), "refused: host: ");
    let mut host = with(|_| {});
    host.rules[1].path = Some(path("relative"));
    check(edge_host(host), "refused: rules[1].path.value: ");
    let mut host = with(|_| {});
    host.rules[1].path = None;
    check(edge_host(host), "refused: rules[1].path: missing");
    let mut host = with(|_| {});
    host.rules[1].path = Some(wire::PathMatch {
        kind: 7,
        ..path("/")
    });
    check(
        edge_host(host),
        "refused: rules[1].path.kind: unknown value 7",
    );
}

#[test]
fn conditions() {
    fn check_rule(change: impl Fn(&mut wire::Rule), expected: &str) {
        let mut rule = wire::Rule {
            path: Some(path("/a")),
            service: "shop/web:80".to_owned(),
            ..wire::Rule::default()
        };
        change(&mut rule);
        let host = wire::EdgeHost {
            host: "a.test".to_owned(),
            rules: vec![rule],
            ..wire::EdgeHost::default()
        };
        check(edge_host(host), expected);
    }
    fn field(name: &str, value: &str, regex: bool) -> wire::FieldMatch {
        wire::FieldMatch {
            name: name.to_owned(),
            value: value.to_owned(),
            regex,
        }
    }
    let matching = |kind, value: &str| {
        let value = value.to_owned();
        Some(wire::PathMatch { kind, value })
    };
    check_rule(|_| {}, "method: None, headers: [], query: []");
    check_rule(|r| r.method = "GET".to_owned(), "method: Some(\"GET\")");
    check_rule(
        |r| r.method = "G T".to_owned(),
        "refused: rules[0].method: \"G T\" is no method",
    );
    check_rule(
        |r| r.headers = vec![field("X-Plan", "free", false)],
        "name: \"x-plan\", value: Exact(\"free\")",
    );
    check_rule(
        |r| r.query = vec![field("q", "a+", true)],
        "QueryMatch { name: \"q\", value: Regex(Pattern { text: \"a+\"",
    );
    check_rule(
        |r| r.headers = vec![field("x-a", "", false), field("x b", "", false)],
        "refused: rules[0].headers[1].name: \"x b\" is no name of a header field",
    );
    check_rule(
        |r| r.headers = vec![field("x-a", "(a", true)],
        "refused: rules[0].headers[0].value: no regular expression: unclosed group",
    );
    check_rule(
        |r| {
            r.headers = (0..17)
                .map(|n| field(&format!("x-{n}"), "", false))
                .collect()
        },
        "refused: rules[0].headers: 17 of them, more than 16",
    );
    check_rule(
        |r| r.query = vec![field("", "1", false)],
        "refused: rules[0].query[0].name: ",
    );
    check_rule(
        |r| r.query = (0..17).map(|n| field(&n.to_string(), "", false)).collect(),
        "refused: rules[0].query: 17 of them, more than 16",
    );
    check_rule(|r| r.path = matching(2, "/v[12]"), "Regex(Pattern");
    check_rule(
        |r| r.path = matching(2, "/v[12"),
        "refused: rules[0].path.value: no regular expression: ",
    );
}

#[test]
fn rate_limits() {
    fn with(change: impl Fn(&mut wire::RateLimit)) -> wire::EdgeHost {
        let mut limit = wire::RateLimit {
            id: "shop/limits/all".to_owned(),
            requests: 100,
            per: seconds(1),
            replicas: 2,
            ..wire::RateLimit::default()
        };
        change(&mut limit);
        wire::EdgeHost {
            host: "a.test".to_owned(),
            rules: vec![wire::Rule {
                path: Some(path("/")),
                service: "shop/web:80".to_owned(),
                rate_limits: vec![limit],
                ..wire::Rule::default()
            }],
            ..wire::EdgeHost::default()
        }
    }
    let key = |part| vec![wire::KeyPart { part }];
    use wire::key_part::Part;
    check(
        edge_host(with(|_| {})),
        "Global { replicas: 2, on_failure: LocalShare }",
    );
    let local = |limit: &mut wire::RateLimit| limit.scope = 1;
    check(edge_host(with(local)), "scope: Local");
    let header = |l: &mut wire::RateLimit| l.key = key(Some(Part::Header("X-Plan".to_owned())));
    check(edge_host(with(header)), "Header(\"x-plan\")");
    let whole = |l: &mut wire::RateLimit| {
        l.key = key(Some(Part::ClientAddress(wire::ClientAddress::default())));
    };
    check(edge_host(with(whole)), "prefix_v4: 32, prefix_v6: 128");
    let at = "refused: rules[0].rate_limits[0].";
    let check_refused = |change: &dyn Fn(&mut wire::RateLimit), field: &str| {
        check(edge_host(with(change)), &format!("{at}{field}"));
    };
    check_refused(&|l| l.id.clear(), "id: missing");
    check_refused(&|l| l.requests = 0, "requests: ");
    check_refused(&|l| l.per = None, "per: ");
    check_refused(&|l| l.per = seconds(-1), "per: negative");
    check_refused(&|l| l.per = seconds(1_000_000), "per: ");
    check_refused(&|l| l.scope = 9, "scope: unknown value 9");
    check_refused(&|l| l.on_failure = 9, "on_failure: unknown value 9");
    check_refused(&|l| l.key = key(None), "key[0].part: missing");
    check_refused(
        &|l| {
            l.key = key(Some(Part::ClientAddress(wire::ClientAddress {
                prefix_v4: 33,
                prefix_v6: 0,
            })));
        },
        "key[0].client_address.prefix_v4: 33 is above 32",
    );
    check_refused(&|l| l.paths = vec![path("x")], "paths[0].value: ");
}

#[test]
fn services() {
    fn with(change: impl Fn(&mut wire::Service)) -> wire::Service {
        let mut service = wire::Service {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            port: 80,
            addresses: vec!["10.96.0.1".to_owned()],
            endpoints: vec![wire::Endpoint {
                address: "10.244.0.2".to_owned(),
                port: 8080,
                identity: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
                ..wire::Endpoint::default()
            }],
            ..wire::Service::default()
        };
        change(&mut service);
        service
    }
    fn check_service(change: impl Fn(&mut wire::Service), expected: &str) {
        check(service("shop/web:80", with(change)), expected);
    }
    check_service(|_| {}, "addresses: [10.96.0.1:80]");
    check_service(|_| {}, "address: 10.244.0.2:8080");
    check_service(
        |_| {},
        "identity: Some(spiffe://cluster.local/ns/shop/sa/web)",
    );
    check_service(|s| s.endpoints[0].identity.clear(), "identity: None");
    check_service(|s| s.protocol = 2, "protocol: Http2");
    check_service(|s| s.protocol = 8, "refused: protocol: unknown value 8");
    check_service(|s| s.port = 0, "refused: port: 0 is no port");
    check_service(
        |s| s.addresses.push("None".to_owned()),
        "refused: addresses[1]: \"None\"",
    );
    check_service(
        |s| s.endpoints[0].port = 70_000,
        "refused: endpoints[0].port: 70000",
    );
    check_service(
        |s| s.endpoints[0].address.clear(),
        "refused: endpoints[0].address: \"\"",
    );
    check_service(
        |s| s.endpoints[0].identity = "spiffe://x/y".to_owned(),
        "refused: endpoints[0].identity: ",
    );
}

#[test]
fn backend_policies() {
    fn with(change: impl Fn(&mut wire::BackendPolicy)) -> wire::Service {
        let mut policy = wire::BackendPolicy {
            per_try_timeout: seconds(2),
            retries: Some(wire::Retries {
                attempts: 1,
                on: vec!["503".to_owned(), "ConnectFailure".to_owned()],
                ..wire::Retries::default()
            }),
            breaker: Some(wire::CircuitBreaker::default()),
            limits: Some(wire::Limits {
                connections: 1,
                requests: 1,
                ..wire::Limits::default()
            }),
            ..wire::BackendPolicy::default()
        };
        change(&mut policy);
        wire::Service {
            port: 80,
            policy: Some(policy),
            ..wire::Service::default()
        }
    }
    fn cookie(name: &str, ttl: Option<prost_types::Duration>) -> Key {
        let name = name.to_owned();
        Key::Cookie(wire::HashCookie { name, ttl })
    }
    fn check_policy(change: impl Fn(&mut wire::BackendPolicy), expected: &str) {
        check(service("a/b:80", with(change)), expected);
    }
    fn retries(policy: &mut wire::BackendPolicy) -> &mut wire::Retries {
        policy.retries.as_mut().unwrap()
    }
    check_policy(|_| {}, "request_timeout: None, per_try_timeout: Some(2s)");
    check_policy(|_| {}, "connect_timeout: 5s");
    check_policy(|_| {}, "statuses: [503]");
    check_policy(|_| {}, "consecutive_failures: 0");
    check_policy(|_| {}, "proxy_protocol: None");
    check_policy(|p| p.proxy_protocol = 2, "proxy_protocol: Some(V2)");
    check_policy(
        |p| p.proxy_protocol = 3,
        "refused: policy.proxy_protocol: unknown value 3",
    );
    check_policy(|_| {}, "tls: None");
    let tls = |change: fn(&mut wire::BackendTls), expected: &str, reported: &str| {
        let with_tls = |policy: &mut wire::BackendPolicy| {
            let authority = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
            let mut tls = wire::BackendTls {
                hostname: "api.test".to_owned(),
                ca_pem: vec![authority.cert.pem()],
                ..wire::BackendTls::default()
            };
            change(&mut tls);
            policy.tls = Some(tls);
        };
        check_closed(service("a/b:80", with(with_tls)), expected, reported);
    };
    tls(
        |_| {},
        "tls: Some(Verified(OriginTls { hostname: \"api.test\"",
        "",
    );
    tls(
        |t| {
            *t = wire::BackendTls {
                problem: "no CA".to_owned(),
                ..wire::BackendTls::default()
            }
        },
        "tls: Some(Refused(\"no CA\"))",
        "",
    );
    tls(
        |t| t.hostname = "10.0.0.1".to_owned(),
        "tls: Some(Refused(\"tls.hostname: ",
        "policy.tls.hostname: \"10.0.0.1\" is neither",
    );
    tls(
        |t| t.subject_alt_names.push("*".to_owned()),
        "tls: Some(Refused(\"tls.subject_alt_names: ",
        "policy.tls.subject_alt_names: \"*\" is neither",
    );
    tls(
        |t| t.ca_pem.push("none".to_owned()),
        "tls: Some(Refused(\"tls.ca_pem: ",
        "policy.tls.ca_pem: there is no certificate in it",
    );
    tls(
        |t| t.ca_pem.clear(),
        "tls: Some(Refused(\"tls.ca_pem: ",
        "policy.tls.ca_pem: there is no authority",
    );
    check_policy(
        |p| p.algorithm = 5,
        "refused: policy.algorithm: unknown value 5",
    );
    check_policy(|p| p.algorithm = 3, "algorithm: PeakEwma, hash_on: None");
    check_policy(|p| p.algorithm = 4, "refused: policy.hash: missing");
    for (key, expected) in [
        (
            Key::Header("X-User".to_owned()),
            "hash_on: Some(Header(\"x-user\"))",
        ),
        (Key::ClientAddress(true), "hash_on: Some(ClientAddress)"),
        (Key::Query("id".to_owned()), "hash_on: Some(Query(\"id\"))"),
        (
            Key::Header("x user".to_owned()),
            "refused: policy.hash.header: ",
        ),
        (
            cookie("sid", seconds(60)),
            "Cookie(HashCookie { name: \"sid\", ttl: Some(60s) })",
        ),
        (cookie("sid", None), "name: \"sid\", ttl: None"),
        (cookie("sid;a", None), "refused: policy.hash.cookie.name: "),
        (
            cookie("sid", seconds(-1)),
            "refused: policy.hash.cookie.ttl: ",
        ),
    ] {
        let key = Some(wire::HashKey { key: Some(key) });
        check_policy(
            |p| {
                p.algorithm = 4;
                p.hash = key.clone();
            },
            expected,
        );
    }
    check_policy(
        |p| p.idle_timeout = seconds(-5),
        "refused: policy.idle_timeout: ",
    );
    check_policy(
        |p| retries(p).attempts = 99,
        "refused: policy.retries.attempts: ",
    );
    check_policy(
        |p| retries(p).on.push("Maybe".to_owned()),
        "refused: policy.retries.on: ",
    );
    check_policy(
        |p| retries(p).replay_body_max_bytes = u64::MAX,
        "refused: policy.retries.replay_body_max_bytes: ",
    );
    check_policy(
        |p| p.breaker.as_mut().unwrap().ejection_max_percent = 101,
        "refused: policy.breaker.ejection_max_percent: ",
    );
    let rate = |below_percent, window| {
        move |p: &mut wire::BackendPolicy| {
            p.breaker.as_mut().unwrap().success_rate = Some(wire::SuccessRate {
                below_percent,
                window,
                min_requests: 20,
            });
        }
    };
    check_policy(
        rate(80, seconds(10)),
        "success_rate: Some(SuccessRatePolicy { below: 80, window: 10s, min_requests: 20 })",
    );
    check_policy(
        rate(101, seconds(10)),
        "refused: policy.breaker.success_rate.below_percent: above 100",
    );
    check_policy(
        rate(80, None),
        "refused: policy.breaker.success_rate.window: must be above 0",
    );
    check_policy(
        |p| p.limits.as_mut().unwrap().connections = 0,
        "refused: policy.limits.connections: ",
    );
}

#[test]
fn workloads() {
    fn with(change: impl Fn(&mut wire::Workload)) -> wire::Workload {
        let mut workload = wire::Workload {
            identity: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
            mtls: wire::workload::Mtls::Strict.into(),
            ports: vec![wire::PortMtls {
                port: 8080,
                mtls: 0,
            }],
            authorization: true,
            rules: vec![wire::AccessRule {
                from: vec![wire::AccessFrom {
                    ip_blocks: vec!["10.0.0.0/8".to_owned()],
                    ..wire::AccessFrom::default()
                }],
                to: vec![wire::AccessTo {
                    paths: vec![path("/items")],
                    ports: vec![8080],
                    ..wire::AccessTo::default()
                }],
                origin: "shop/allow".to_owned(),
                ..wire::AccessRule::default()
            }],
        };
        change(&mut workload);
        workload
    }
    fn check_workload(change: impl Fn(&mut wire::Workload), expected: &str) {
        check(workload(with(change)), expected);
    }
    check_workload(|_| {}, "mtls: Strict, port_mtls: [(8080, Permissive)]");
    check_workload(|_| {}, "enforced: true");
    check_workload(|_| {}, "ip_blocks: [10.0.0.0/8]");
    check_workload(|w| w.identity.clear(), "refused: identity: ");
    check_workload(|w| w.mtls = 3, "refused: mtls: unknown value 3");
    check_workload(|w| w.ports[0].port = 0, "refused: ports[0].port: ");
    check_workload(|w| w.ports[0].mtls = 3, "refused: ports[0].mtls: ");
    let from = |w: &mut wire::Workload| w.rules[0].from[0].ip_blocks.push("10.0.0.0/99".to_owned());
    check_workload(
        from,
        "refused: rules[0].from[0].ip_blocks[1]: \"10.0.0.0/99\"",
    );
    let to = |w: &mut wire::Workload| w.rules[0].to[0].ports.push(99_999);
    check_workload(to, "refused: rules[0].to[0].ports[1]: 99999 is no port");
    for (host, expected) in [
        ("*.A.test", "hosts: [Wildcard(\".a.test\")]"),
        ("", "refused: rules[0].to[0].hosts[0]: empty"),
        (
            "a.test:8443",
            "refused: rules[0].to[0].hosts[0]: \"a.test:8443\" is no host name",
        ),
    ] {
        check_workload(|w| w.rules[0].to[0].hosts = vec![host.into()], expected);
    }
}

#[test]
fn access_at_the_edge() {
    fn with(change: impl Fn(&mut wire::EdgeHost)) -> wire::EdgeHost {
        let rule = |access| wire::Rule {
            path: Some(path("/")),
            service: "shop/web:80".to_owned(),
            authorization: true,
            access,
            ..wire::Rule::default()
        };
        let list = wire::AccessRules {
            rules: vec![wire::AccessRule {
                from: vec![wire::AccessFrom::default()],
                to: vec![wire::AccessTo::default()],
                ..wire::AccessRule::default()
            }],
        };
        let mut host = wire::EdgeHost {
            host: "a.test".to_owned(),
            rules: vec![rule(0), rule(1)],
            access: vec![wire::AccessRules::default(), list],
        };
        change(&mut host);
        host
    }
    fn check_access(change: impl Fn(&mut wire::EdgeHost), expected: &str) {
        check(edge_host(with(change)), expected);
    }
    check_access(|_| {}, "access: Some(1)");
    check_access(
        |_| {},
        "access: [AccessRules { enforced: true, rules: [] }, AccessRules { enforced: true, rules: [AccessRule",
    );
    check_access(|host| host.rules[0].authorization = false, "access: None");
    for (block, expected) in [
        ("10.0.0.5/8", "ip_blocks: [10.0.0.5/8]"),
        ("10.0.0.5", "ip_blocks: [10.0.0.5/32]"),
        ("2001:db8::1", "ip_blocks: [2001:db8::1/128]"),
        ("::ffff:10.0.0.0/104", "ip_blocks: [10.0.0.0/8]"),
        ("::ffff:10.0.0.5", "ip_blocks: [10.0.0.5/32]"),
        ("::ffff:0:0/90", "ip_blocks: [::ffff:0.0.0.0/90]"),
        (
            "a.test",
            "refused: access[1].rules[0].from[0].ip_blocks[0]: \"a.test\"",
        ),
    ] {
        check_access(
            |host| host.access[1].rules[0].from[0].ip_blocks = vec![block.into()],
            expected,
        );
    }
    check_access(
        |host| host.access[1].rules[0].to[0].ports = vec![80],
        "refused: access[1].rules[0].to[0].ports: means nothing at an edge",
    );
    check_access(
        |host| host.rules[1].access = 2,
        "refused: rules[1].access: there is no list 2, but 2 in all",
    );
    check_access(
        |host| host.access.clear(),
        "refused: rules[0].access: there is no list 0, but 0 in all",
    );
    check_access(
        |host| host.rules[1].authorization = false,
        "refused: rules[1].authorization: not set, and a list is named",
    );
}

#[test]
fn certificates() {
    let refused = |hosts: &[&str], chain_pem: &str, expected: &str| {
        let wire = wire::Certificate {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            chain_pem: chain_pem.to_owned(),
            ..wire::Certificate::default()
        };
        check(certificate(wire), expected);
    };
    refused(&["a.test", "b..test"], "", "refused: hosts[1]: ");
    refused(
        &["a.test"],
        "",
        "refused: chain_pem: there is no certificate",
    );
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let check_roots = |roots_pem: &[&str], expected: &str, reported: &str| {
        let wire = wire::Certificate {
            hosts: vec!["a.test".to_owned()],
            chain_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
            client_auth: Some(wire::ClientAuth {
                roots_pem: roots_pem.iter().map(|pem| (*pem).to_owned()).collect(),
                required: true,
            }),
        };
        check_closed(certificate(wire), expected, reported);
    };
    let root = made.cert.pem();
    check_roots(
        &[&root, root.trim()],
        "Named(Authorities { roots: 1, required: true })",
        "",
    );
    check_roots(
        &[],
        "Refused(",
        "client_auth.roots_pem: there is no certificate",
    );
    let torn = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    check_roots(
        &[torn],
        "Refused(",
        "client_auth.roots_pem: is not readable PEM",
    );
    let nonsense = torn.replace('!', "AAAA");
    check_roots(
        &[&nonsense],
        "Refused(",
        "client_auth.roots_pem: certificate 1 cannot be used",
    );
}
