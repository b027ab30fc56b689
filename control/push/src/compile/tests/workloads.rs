//! What sidecars learn of their pods.

use super::World;
use crate::objects::Kind;

const POD: &str = r#"
kind: Pod
metadata: {name: catalog-1, labels: {app: catalog}, annotations: {meshgate.dev/sidecar: "1"}}
spec: {containers: []}
status: {podIP: 10.244.0.5}
---
kind: Pod
metadata: {name: other-1, labels: {app: other}, annotations: {meshgate.dev/sidecar: "1"}}
spec: {serviceAccountName: other, containers: []}
---
kind: Service
metadata: {name: catalog}
spec: {selector: {app: catalog}, ports: [{port: 80}]}
"#;
const CATALOG: &str = "workload shop/catalog-1 spiffe://cluster.local/ns/shop/sa/default";
const OTHER: &str = "workload shop/other-1 spiffe://cluster.local/ns/shop/sa/other";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "\n---\nkind: AccessPolicy\nmetadata: {{name: {name}, creationTimestamp: '2026-01-01T00:00:00Z'}}\nspec: {spec}\n"
    )
}

#[test]
fn without_policies_everything_is_allowed() {
    World::of(POD).check(
        "workload",
        &format!("{CATALOG} PERMISSIVE\n{OTHER} PERMISSIVE"),
    );
}

#[test]
fn each_opinion_is_taken_from_the_most_specific_policy_that_has_it() {
    let namespace = policy(
        "all",
        "{targetRefs: [{kind: Namespace, name: shop}], mtls: Strict, rules: []}",
    );
    let service = policy(
        "svc",
        "{targetRefs: [{kind: Service, name: catalog}], ports: [{port: 8080, mtls: Permissive}]}",
    );
    let pods = policy(
        "pods",
        "{selector: {matchLabels: {app: catalog}}, audit: true, rules: [
           {from: [{serviceAccounts: [frontend, web/shop], namespaces: [ops]}], to: [{methods: [GET], paths: [{type: Prefix, value: /items}], hosts: [A.test], ports: [8080]}]},
           {action: Deny, from: [{ipBlocks: [10.0.0.0/8], notIpBlocks: [10.1.0.0/16]}]}]}",
    );
    let mut world = World::of(&format!("{POD}{namespace}{service}{pods}"));
    world.check(
        "workload",
        &format!(
            "
        {CATALOG} STRICT, authorized
          port 8080 PERMISSIVE
          allow from [spiffe://cluster.local/ns/shop/sa/frontend,spiffe://cluster.local/ns/web/sa/shop,ops] to [GET,/items,a.test,8080] (shop/pods, audit)
          deny from [10.0.0.0/8,!10.1.0.0/16] to [] (shop/pods, audit)
        {OTHER} STRICT, authorized"
        ),
    );
    world.check_report(
        "shop/all",
        "Namespace shop: accepted, in Workload shop/catalog-1 Workload shop/other-1",
    );
    world.check_report(
        "shop/pods",
        "Namespace shop: accepted, in Workload shop/catalog-1",
    );
    // The Service selects other pods now.
    world.apply("kind: Service\nmetadata: {name: catalog}\nspec: {selector: {app: other}, ports: [{port: 80}]}");
    world.delete(Kind::AccessPolicy, "shop/pods");
    world.check(
        "workload",
        &format!(
            "{CATALOG} STRICT, authorized\n{OTHER} STRICT, authorized\n  port 8080 PERMISSIVE"
        ),
    );
}

#[test]
fn what_is_not_understood_lets_nobody_in() {
    let spec = "{selector: {matchLabels: {app: catalog}}, authentication: {jwt: {}}, rules: [
        {from: [{namespaces: [a]}], when: [{claim: groups, contains: admin}]},
        {action: Deny, from: [{namespaces: [b]}], when: [{claim: groups, contains: admin}]}]}";
    let world = World::of(&format!("{POD}{}", policy("p", spec)));
    world.check(
        "workload shop/catalog",
        &format!("{CATALOG} PERMISSIVE, authorized\n  deny from [b] to [] (shop/p)"),
    );
    world.check_report(
        "shop/p",
        "Namespace shop: accepted, in Workload shop/catalog-1; not supported: spec.rules[0].when (what names it allows nothing), spec.rules[1].when (what names it denies regardless of it), spec.authentication (not enforced)",
    );
}

#[test]
fn conflicts_and_targets_that_are_none() {
    let first = policy(
        "a",
        "{targetRefs: [{kind: Namespace, name: shop}], mtls: Strict}",
    );
    let second = policy(
        "b",
        "{targetRefs: [{kind: Namespace, name: shop}], mtls: Permissive}",
    );
    let third = policy(
        "c",
        "{targetRefs: [{kind: Namespace, name: other}, {kind: Service, name: gone}, {group: networking.k8s.io, kind: Ingress, name: x}]}",
    );
    let world = World::of(&format!("{POD}{first}{second}{third}"));
    world.check("workload shop/catalog", &format!("{CATALOG} STRICT"));
    world.check_report(
        "shop/b",
        "Namespace shop: Conflicted: the older policy shop/a holds for pod shop/catalog-1",
    );
    world.check_report(
        "shop/c",
        "
        Namespace other: TargetNotFound: a policy can only target its own namespace
        Service gone: TargetNotFound: there is no Service gone in this namespace
        Ingress x: TargetNotFound: there is no Ingress x of class meshgate in this namespace",
    );
}

/// What a policy that never was valid comes to, and what is said of it.
#[track_caller]
fn check_broken(spec: &str, catalog: &str, other: &str, closes: &str) {
    let world = World::of(&format!("{POD}{}", policy("p", &format!("{{{spec}}}"))));
    world.check("workload", &format!("{CATALOG} {catalog}\n{OTHER} {other}"));
    let said = world
        .reports
        .values()
        .any(|report| format!("{report:?}").contains(&format!("; {closes} until it is mended")));
    assert!(said, "{spec}: {:?}", world.reports);
}

#[test]
fn what_never_was_valid_closes_all_that_it_may_mean() {
    let (open, closed) = ("PERMISSIVE", "PERMISSIVE, authorized");
    let nobody = "nobody is let in";
    let no_block = "rules: [{from: [{ipBlocks: [x]}]}]";
    let namespace = "targetRefs: [{kind: Namespace, name: shop}]";
    let catalog = "matchLabels: {app: catalog}";
    check_broken(&format!("{namespace}, {no_block}"), closed, closed, nobody);
    let service = "targetRefs: [{kind: Service, name: catalog}]";
    check_broken(&format!("{service}, {no_block}"), closed, open, nobody);
    let pods = format!("selector: {{{catalog}}}");
    check_broken(&format!("{pods}, {no_block}"), closed, open, nobody);
    // What only narrows is left out.
    let narrow = format!("selector: {{{catalog}, matchExpressions: [{{}}]}}, rules: [{{}}]");
    check_broken(&narrow, closed, open, nobody);
    check_broken(
        "selector: {matchExpressions: [{}]}, rules: []",
        closed,
        closed,
        nobody,
    );
    check_broken(
        "selector: {matchLabels: all}, rules: []",
        closed,
        closed,
        nobody,
    );
    check_broken("targetRefs: web, rules: []", closed, closed, nobody);
    let either = format!("{service}, selector: {{matchLabels: {{app: other}}}}, rules: []");
    check_broken(&either, closed, closed, nobody);
    let (strict, plaintext) = ("STRICT", "plaintext is refused");
    check_broken(
        &format!("{namespace}, mtls: strict"),
        strict,
        strict,
        plaintext,
    );
    check_broken(
        &format!("{namespace}, ports: all"),
        strict,
        strict,
        plaintext,
    );
    let both = format!("{service}, mtls: Strict, {no_block}");
    check_broken(&both, "STRICT, authorized", open, nobody);
    check_broken(
        &format!(
            "{service}, audit: 1, ports: [{{port: 80, mtls: Strict}}, {{port: 81, mtls: Permissive}}]"
        ),
        "PERMISSIVE\n  port 80 STRICT",
        open,
        plaintext,
    );
}

#[test]
fn a_broken_exception_is_none() {
    let strict = policy(
        "all",
        "{targetRefs: [{kind: Namespace, name: shop}], mtls: Strict}",
    );
    let exception = policy(
        "p",
        "{selector: {matchLabels: {app: catalog}, matchExpressions: [{}]}, mtls: Permissive}",
    );
    World::of(&format!("{POD}{strict}{exception}"))
        .check("workload", &format!("{CATALOG} STRICT\n{OTHER} STRICT"));
}
