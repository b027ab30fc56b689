//! Policies and what they are attached to.

use super::World;
use crate::objects::Kind;

const WEB: &str = r#"
kind: Service
metadata: {name: web}
spec: {clusterIP: None, ports: [{name: http, port: 80}, {name: admin, port: 81}]}
"#;
const INGRESS: &str = r#"
kind: Ingress
metadata: {name: web}
spec: {rules: [{host: a.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
"#;

#[test]
fn the_most_specific_backend_policy_wins_then_the_oldest() {
    let policy = |name: &str, second: u32, section: &str, attempts: u32| {
        format!(
            "
---
kind: BackendPolicy
metadata: {{name: {name}, creationTimestamp: '2026-01-01T00:00:0{second}Z'}}
spec:
  targetRefs: [{{kind: Service, name: web{section}}}]
  retries: {{attempts: {attempts}, on: [Retriable4xx, UNAVAILABLE, '503']}}
  timeouts: {{request: 10s, perTry: 500ms}}
  loadBalancing: {{algorithm: PeakEwma, slowStart: 30s}}"
        )
    };
    let all = [
        policy("old", 1, "", 1),
        policy("new", 2, "", 2),
        policy("port", 3, ", sectionName: admin", 3),
    ]
    .concat();
    let mut world = World::of(&format!("{WEB}{all}"));
    let show = |name: &str, attempts| {
        format!(
            "  by shop/{name}: PEAK_EWMA request 10s perTry 0.5s retries {attempts} on 409,UNAVAILABLE,503 breaker 5"
        )
    };
    world.check(
        "service",
        &format!(
            "service shop/web:80 AUTO\n{}\nservice shop/web:81 AUTO\n{}",
            show("old", 1),
            show("port", 3)
        ),
    );
    let partly = "; not supported: spec.loadBalancing.slowStart (not enforced)";
    world.check_report(
        "shop/old",
        &format!("Service web: accepted, in Service shop/web:80 Service shop/web:81{partly}"),
    );
    world.check_report(
        "shop/new",
        &format!("Service web: Conflicted: the older policy shop/old has the same target{partly}"),
    );
    world.check_report(
        "shop/port",
        &format!("Service web: accepted, in Service shop/web:81{partly}"),
    );
    world.delete(Kind::BackendPolicy, "shop/old");
    world.check(
        "service",
        &format!(
            "service shop/web:80 AUTO\n{}\nservice shop/web:81 AUTO\n{}",
            show("new", 2),
            show("port", 3)
        ),
    );
    world.check_report(
        "shop/new",
        &format!("Service web: accepted, in Service shop/web:80 Service shop/web:81{partly}"),
    );
}

#[test]
fn rate_limits_go_to_the_rules_of_their_ingress() {
    let policy = "
kind: RateLimitPolicy
metadata: {name: limits}
spec:
  targetRefs:
  - {group: networking.k8s.io, kind: Ingress, name: web}
  - {group: networking.k8s.io, kind: Ingress, name: gone}
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}
  limits:
  - {name: all, requests: 100, per: 1s}
  - {name: claimed, requests: 1, key: [{claim: sub}]}
  - {name: local, requests: 5, per: 1m, scope: Local, key: [{clientAddress: {prefixV4: 24}}, {header: X-Api-Key}, {identity: {}}, {path: {}}]}";
    let mut world = World::of(&format!("{WEB}---{INGRESS}---{policy}"));
    world.check(
        "host",
        "
        host a.test
          prefix / -> shop/web:80 (ingress/shop/web 0) <= shop/limits/all 100/1s x1 <= shop/limits/local 5/60s x1",
    );
    let partly = "; not supported: spec.limits[1].key with a claim (not enforced)";
    world.check_report(
        "shop/limits",
        &format!(
            "
        Ingress web: accepted, in EdgeHost a.test{partly}
        Ingress gone: TargetNotFound: there is no Ingress gone of class meshgate in this namespace{partly}
        HTTPRoute web: Invalid: targets of kind HTTPRoute are not supported yet{partly}"
        ),
    );
    let update = world.compiler.set_edge_replicas(3);
    assert_eq!(world.take(update), 1);
    world.check(
        "host",
        "
        host a.test
          prefix / -> shop/web:80 (ingress/shop/web 0) <= shop/limits/all 100/1s x3 <= shop/limits/local 5/60s x1",
    );
    world.delete(Kind::RateLimitPolicy, "shop/limits");
    world.check(
        "host",
        "
        host a.test
          prefix / -> shop/web:80 (ingress/shop/web 0)",
    );
}

#[test]
fn a_target_may_come_after_its_policy_and_go_before_it() {
    let policy = "
---
kind: BackendPolicy
metadata: {name: p}
spec: {targetRefs: [{kind: Service, name: web}, {kind: Service, name: web, sectionName: gone}]}";
    let mut world = World::of(policy);
    let missing = "
        Service web: TargetNotFound: there is no Service web in this namespace
        Service web: TargetNotFound: there is no Service web in this namespace";
    world.check_report("shop/p", missing);
    world.apply(WEB);
    world.check_report(
        "shop/p",
        "
        Service web: accepted, in Service shop/web:80 Service shop/web:81
        Service web: TargetNotFound: Service web has no TCP port named gone",
    );
    world.delete(Kind::Service, "shop/web");
    world.check_report("shop/p", missing);
}

#[test]
fn an_invalid_change_is_reported_and_what_was_valid_stays() {
    let policy = |limits: &str| {
        format!(
            "
kind: RateLimitPolicy
metadata: {{name: limits}}
spec:
  targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: web}}]
  limits: {limits}"
        )
    };
    let limited = "
        host a.test
          prefix / -> shop/web:80 (ingress/shop/web 0) <= shop/limits/all 100/1s x1";
    let mut world = World::of(&format!(
        "{WEB}---{INGRESS}---{}",
        policy("[{name: all, requests: 100}]")
    ));
    world.check("host", limited);
    for (limits, problem) in [
        (
            "[{name: all, requests: 0}]",
            "spec.limits[0].requests: must be at least 1",
        ),
        (
            "[{name: all, requests: many}]",
            "spec: invalid type: string \"many\", expected u64",
        ),
        (
            "[{name: all, requests: 1, per: 1ms}]",
            "spec.limits[0].per: must be from 10ms to 24h",
        ),
        (
            "[{name: a, requests: 1}, {name: a, requests: 1}]",
            "spec.limits[1].name: \"a\" is there twice",
        ),
    ] {
        world.apply(&policy(limits));
        world.check("host", limited);
        world.check_report(
            "shop/limits",
            &format!("Ingress web: Invalid: {problem}; the last valid version stays in force"),
        );
    }
    world.apply(&policy("[{name: all, requests: 200}]"));
    world.check("host", &limited.replace("100/", "200/"));
    world.check_report("shop/limits", "Ingress web: accepted, in EdgeHost a.test");
}

#[test]
fn a_policy_that_never_was_valid_says_so() {
    let world = World::of(
        "
kind: RateLimitPolicy
metadata: {name: wrong}
spec: {targetRefs: [{group: networking.k8s.io, kind: Ingress, name: web}], limits: [{name: a, requests: 0}]}
---
kind: BackendPolicy
metadata: {name: aimless}
spec: {targetRefs: []}",
    );
    world.check_report(
        "shop/wrong",
        "Ingress web: Invalid: spec.limits[0].requests: must be at least 1",
    );
    world.check_report(
        "shop/aimless",
        "Namespace shop: Invalid: spec.targetRefs: names no target",
    );
}

#[test]
fn consistent_hashing_says_what_it_hashes() {
    let check = |balancing: &str, shown: &str, report: &str| {
        let policy = format!(
            "
---
kind: BackendPolicy
metadata: {{name: sticky}}
spec:
  targetRefs: [{{kind: Service, name: web}}]
  loadBalancing: {balancing}"
        );
        let world = World::of(&format!("{WEB}{policy}"));
        let by = format!(
            "  by shop/sticky: {shown} request 0s perTry 0s retries 2 on ConnectFailure,RefusedStream breaker 5"
        );
        let by = if shown.is_empty() {
            String::new()
        } else {
            format!("{by}\n")
        };
        world.check(
            "service",
            &format!("service shop/web:80 AUTO\n{by}service shop/web:81 AUTO\n{by}"),
        );
        world.check_report("shop/sticky", &format!("Service web: {report}"));
    };
    let accepted = "accepted, in Service shop/web:80 Service shop/web:81";
    for (hash, shown) in [
        ("{header: X-User}", "header x-user"),
        ("{cookie: {name: Sid, ttl: 1h}}", "cookie Sid 3600s"),
        ("{cookie: {name: Sid}}", "cookie Sid 0s"),
        ("{clientAddress: {}}", "address"),
        ("{query: id}", "query id"),
    ] {
        let balancing = format!("{{algorithm: ConsistentHash, hash: {hash}}}");
        check(&balancing, &format!("CONSISTENT_HASH {shown}"), accepted);
    }
    for (balancing, problem) in [
        (
            "{algorithm: ConsistentHash}",
            "spec.loadBalancing.hash: ConsistentHash needs what it hashes: header, cookie, clientAddress or query",
        ),
        (
            "{algorithm: ConsistentHash, hash: {header: 'X User'}}",
            "spec.loadBalancing.hash.header: \"X User\" is no token",
        ),
        (
            "{algorithm: ConsistentHash, hash: {cookie: {name: 'a;b'}}}",
            "spec.loadBalancing.hash.cookie.name: \"a;b\" is no token",
        ),
    ] {
        check(balancing, "", &format!("Invalid: {problem}"));
    }
    let alone = "not supported: spec.loadBalancing.hash without ConsistentHash (not enforced)";
    check(
        "{algorithm: RoundRobin, hash: {query: id}}",
        "ROUND_ROBIN",
        &format!("{accepted}; {alone}"),
    );
}

/// The examples of the policies' contract, with the fields of later parts.
#[test]
fn fields_of_later_parts_are_read_and_named() {
    let world = World::of(
        r#"
kind: BackendPolicy
metadata: {name: full}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  protocol: Auto
  loadBalancing: {algorithm: ConsistentHash, hash: {header: X-User}, slowStart: 30s, locality: PreferSameZone}
  timeouts: {connect: 1s, request: 10s, perTry: 2s, idle: 1h}
  retries:
    attempts: 2
    'true': [ConnectFailure, RefusedStream, ResetBeforeResponse, "503"]
    backoff: {base: 25ms, max: 250ms}
    budget: {percent: 20, minPerSecond: 10}
    replayBodyMax: 64Ki
    hedgeAfter: 100ms
  circuitBreaker:
    consecutiveFailures: 5
    successRate: {below: 80, window: 10s, minRequests: 20}
    ejection: {base: 1s, max: 60s, maxPercent: 50}
  limits: {connections: 1024, requests: 1024, pending: 256, pendingTimeout: 3s}
  healthCheck: {http: {path: /healthz}, interval: 5s, timeout: 1s, unhealthyAfter: 3, healthyAfter: 2}
  tls: {mode: Mutual, hostname: a.test}
---
kind: Service
metadata: {name: web}
spec: {clusterIP: None, ports: [{port: 80}]}
"#,
    );
    world.check(
        "service",
        "
        service shop/web:80 AUTO
          by shop/full: CONSISTENT_HASH header x-user request 10s perTry 2s retries 2 on ConnectFailure,RefusedStream,ResetBeforeResponse,503 breaker 5 below 80% of 20 TLS !! BackendPolicy shop/full: spec.tls: a certificate of the proxy's is not supported yet",
    );
    world.check_report(
        "shop/full",
        "Service web: UnsupportedFields: not supported yet: spec.tls.mode Mutual (nothing is sent to endpoints outside the mesh); \
         not supported: spec.loadBalancing.slowStart (not enforced), spec.loadBalancing.locality (not enforced), \
         spec.retries.hedgeAfter (not enforced), spec.healthCheck (not enforced), \
         spec.tls.mode Mutual (nothing is sent to endpoints outside the mesh)",
    );
}
