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
        "Namespace shop: accepted, in Workload shop/catalog-1; not supported: spec.rules[0].when, spec.rules[1].when, spec.authentication",
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
