//! AccessPolicies of an Ingress.

use prost::Message as _;

use super::World;
use crate::compile::{Body, Key, ResourceKind};
use crate::objects::Kind;

const WEB: &str = r#"
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
kind: Ingress
metadata: {name: web}
spec: {rules: [{host: a.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
kind: Ingress
metadata: {name: open}
spec: {rules: [{host: a.test, http: {paths: [{path: /open, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
"#;
const INGRESS: &str = "{group: networking.k8s.io, kind: Ingress, name: web}";
const WEB_RULE: &str = "prefix / -> shop/web:80 (ingress/shop/web 0)";
const OPEN_HOST: &str = "host a.test\n  prefix /open -> shop/web:80 (ingress/shop/open 0)\n  prefix / -> shop/web:80 (ingress/shop/web 0)";

/// A policy of that age, as a document of its own.
fn policy(name: &str, second: u32, spec: &str) -> String {
    format!(
        "\n---\nkind: AccessPolicy\nmetadata: {{name: {name}, creationTimestamp: '2026-01-01T00:00:0{second}Z'}}\nspec: {spec}\n"
    )
}

/// What a policy of the Ingress comes to, rule by rule, and what is said of it.
#[track_caller]
fn check(spec: &str, rules: &str, report: &str) {
    let spec = format!("{{targetRefs: [{INGRESS}], {spec}}}");
    let world = World::of(&format!("{WEB}{}", policy("p", 0, &spec)));
    let (first, web) = OPEN_HOST.rsplit_once('\n').expect("two rules");
    let expected = [first, &format!("{web}{rules}")].join("\n");
    world.check("host", &expected);
    world.check_report("shop/p", report);
}

#[test]
fn rules_go_to_the_routes_of_their_ingress() {
    check(
        "mtls: Permissive",
        "",
        "Ingress web: accepted, in EdgeHost a.test; not supported: spec.mtls at an edge (not enforced)",
    );
    let accepted = "Ingress web: accepted, in EdgeHost a.test";
    check("rules: []", ", authorized", accepted);
    check(
        "rules: [
           {from: [{ipBlocks: [10.0.0.0/8, 192.0.2.1], notIpBlocks: [10.1.0.0/16]}], to: [{methods: [GET], paths: [{value: /x}], hosts: [A.test.]}]},
           {action: Deny, from: [{namespaces: [n], serviceAccounts: [a/b]}]}]",
        ", authorized
    allow from [10.0.0.0/8,192.0.2.1,!10.1.0.0/16] to [GET,/x,a.test] (shop/p)
    deny from [spiffe://cluster.local/ns/a/sa/b,n] to [] (shop/p)",
        accepted,
    );
    check(
        "audit: true, rules: [{to: [{methods: [GET]}]}]",
        ", authorized\n    allow from [] to [GET] (shop/p, audit)",
        accepted,
    );
    // Nothing is denied, even where nothing is allowed.
    check(
        "audit: true, rules: []",
        ", authorized\n    deny from [] to [] (shop/p, audit)",
        accepted,
    );
}

#[test]
fn what_an_edge_cannot_judge_lets_nobody_in_nor_past_a_deny() {
    let partly = "Ingress web: accepted, in EdgeHost a.test; not supported: ";
    check(
        "rules: [{when: [{claim: groups, contains: admin}]}, {action: Deny, when: [{claim: a}]}]",
        ", authorized\n    deny from [] to [] (shop/p)",
        &format!(
            "{partly}spec.rules[0].when (what names it allows nothing), spec.rules[1].when (what names it denies regardless of it)"
        ),
    );
    check(
        "rules: [{to: [{ports: [80]}]}, {to: [{ports: [80]}, {methods: [GET]}]}, {action: Deny, to: [{ports: [80], methods: [PUT]}]}]",
        ", authorized\n    allow from [] to [GET] (shop/p)\n    deny from [] to [PUT] (shop/p)",
        &format!(
            "{partly}spec.rules[0].to[0].ports at an edge (what names it allows nothing), spec.rules[1].to[0].ports at an edge (what names it allows nothing), spec.rules[2].to[0].ports at an edge (what names it denies regardless of it)"
        ),
    );
    check(
        "authentication: {basic: {}}",
        ", authorized",
        &format!("{partly}spec.authentication (nobody is let in)"),
    );
    check(
        "authentication: {basic: {}}, ports: [{port: 1, mtls: Strict}], rules: [{}, {action: Deny, from: [{ipBlocks: [10.0.0.0/8]}]}]",
        ", authorized\n    deny from [10.0.0.0/8] to [] (shop/p)",
        &format!(
            "{partly}spec.ports at an edge (not enforced), spec.authentication (nobody is let in)"
        ),
    );
}

#[test]
fn the_oldest_opinion_wins_and_a_change_reaches_the_routes() {
    let with = |name: &str, second, rest: &str| {
        let spec = format!("{{targetRefs: [{INGRESS}], {rest}}}");
        policy(name, second, &spec)
    };
    let guarded = |by: &str| {
        let rule = format!("{WEB_RULE}, authorized\n    allow from [10.0.0.0/8] to [] (shop/{by})");
        OPEN_HOST.replace(WEB_RULE, &rule)
    };
    let rules = "rules: [{from: [{ipBlocks: [10.0.0.0/8]}]}]";
    let accepted = "Ingress web: accepted, in EdgeHost a.test";
    let mut world = World::of(WEB);
    world.check("host", OPEN_HOST);
    world.apply(&with("new", 3, rules));
    world.check("host", &guarded("new"));
    world.check_report("shop/new", accepted);
    // An older one without rules has no opinion.
    world.apply(&with("mtls", 1, "mtls: Strict"));
    world.check("host", &guarded("new"));
    world.apply(&with("old", 2, rules));
    world.check("host", &guarded("old"));
    world.check_report("shop/old", accepted);
    world.check_report(
        "shop/new",
        "Ingress web: Conflicted: the older policy shop/old has the same target",
    );
    world.delete(Kind::AccessPolicy, "shop/old");
    world.check("host", &guarded("new"));
    world.check_report("shop/new", accepted);
    world.apply(&with("new", 3, rules).replace("name: web", "name: open"));
    world.check(
        "host",
        &OPEN_HOST.replace(
            "open 0)",
            "open 0), authorized\n    allow from [10.0.0.0/8] to [] (shop/new)",
        ),
    );
    world.delete(Kind::AccessPolicy, "shop/new");
    world.check("host", OPEN_HOST);
}

#[test]
fn targets_that_are_none_and_targets_of_both_kinds() {
    let spec = format!(
        "{{targetRefs: [{INGRESS}, {{group: networking.k8s.io, kind: Ingress, name: gone}}, {{kind: Service, name: web}}, {{group: gateway.networking.k8s.io, kind: Gateway, name: g}}], mtls: Strict, rules: []}}"
    );
    let mut world = World::of(&format!("{WEB}{}", policy("p", 0, &spec)));
    let of_others = "
        Ingress gone: TargetNotFound: there is no Ingress gone of class meshgate in this namespace; not supported: spec.mtls at an edge (not enforced)
        Service web: accepted, in 
        Gateway g: Invalid: targets of kind Gateway are not supported yet";
    world.check_report(
        "shop/p",
        &format!("
        Ingress web: accepted, in EdgeHost a.test; not supported: spec.mtls at an edge (not enforced){of_others}"),
    );
    world.delete(Kind::Ingress, "shop/web");
    world.check_report(
        "shop/p",
        &format!("
        Ingress web: TargetNotFound: there is no Ingress web of class meshgate in this namespace; not supported: spec.mtls at an edge (not enforced){of_others}"),
    );
    world.apply(WEB);
    world.check(
        "host",
        &OPEN_HOST.replace(WEB_RULE, &format!("{WEB_RULE}, authorized")),
    );
}

/// What is wrong with a policy of the Ingress, and that the host is closed by it.
#[track_caller]
fn check_closed(spec: &str, problem: &str) {
    let closed = "nobody is let in until it is mended";
    check(
        spec,
        ", authorized",
        &format!("Ingress web: Invalid: {problem}; {closed}"),
    );
}

#[test]
fn what_never_was_valid_closes() {
    let never = "contains an empty element, a dot element, a query or characters that no normalised path has";
    check_closed(
        "rules: [{to: [{paths: [{value: /a//b}]}]}]",
        &format!("spec.rules[0]: path \"/a//b\" {never}"),
    );
    check_closed(
        "rules: [{from: [{ipBlocks: [10.0.0.0/33]}]}]",
        "spec.rules[0]: \"10.0.0.0/33\" is no network",
    );
    check_closed(
        "rules: many, mtls: Permissive",
        "spec: invalid type: string \"many\", expected a sequence",
    );
    check_closed(
        "authentication: {basic: {}}, mtls: Maybe",
        "spec: unknown variant `Maybe`, expected `Strict` or `Permissive`",
    );
    check_closed(
        "rules: [{action: Deny, to: [{hosts: ['admin.test:8443']}]}]",
        "spec.rules[0]: \"admin.test:8443\" is no host name: expected `a.test`, `*.a.test` or `*`",
    );
    check_closed(
        "rules: [{action: Deny, to: [{hosts: ['']}]}]",
        "spec.rules[0]: a host is empty",
    );
    check_closed(
        "rules: [{to: [{ports: [0]}]}]",
        "spec.rules[0]: 0 is no port",
    );
    // Of who may come it says nothing.
    check(
        "mtls: Maybe",
        "",
        "Ingress web: Invalid: spec: unknown variant `Maybe`, expected `Strict` or `Permissive`; plaintext is refused until it is mended",
    );
    check(
        "audit: true, rules: [{from: [{ipBlocks: [x]}]}]",
        ", authorized\n    deny from [] to [] (shop/p, audit)",
        "Ingress web: Invalid: spec.rules[0]: \"x\" is no network",
    );
}

#[test]
fn a_broken_change_closes_with_the_next_control_plane() {
    let with = |uid: &str, block: &str| {
        let spec =
            format!("{{targetRefs: [{INGRESS}], rules: [{{from: [{{ipBlocks: [{block}]}}]}}]}}");
        policy("p", 0, &spec).replace("name: p,", &format!("name: p, uid: {uid},"))
    };
    let host = |rules: &str| OPEN_HOST.replace(WEB_RULE, &format!("{WEB_RULE}, authorized{rules}"));
    let (good, broken) = (with("a", "10.0.0.0/8"), with("a", "10.0.0.0/33"));
    let mut world = World::of(&format!("{WEB}{good}"));
    world.apply(&broken);
    let former = host("\n    allow from [10.0.0.0/8] to [] (shop/p)");
    world.check("host", &former);
    let problem = "Ingress web: Invalid: spec.rules[0]: \"10.0.0.0/33\" is no network";
    let stays = "the last valid version stays in force until the control plane starts anew, then nobody is let in";
    world.check_report("shop/p", &format!("{problem}; {stays}"));
    // It still does after a second broken version.
    world.apply(&with("a", "10.0.0.0/34"));
    world.check("host", &former);
    let closed = format!("{problem}; nobody is let in until it is mended");
    let anew = World::of(&format!("{WEB}{broken}"));
    anew.check("host", &host(""));
    anew.check_report("shop/p", &closed);
    // Another object of that name has no former version.
    world.apply(&with("b", "10.0.0.0/33"));
    world.check("host", &host(""));
    world.check_report("shop/p", &closed);
    world.apply(&with("b", "10.0.0.0/8"));
    world.check("host", &former);
}

#[test]
fn a_part_of_an_ingress_is_none() {
    let spec = |section: &str| {
        let target = INGRESS.replace("web", &format!("web, sectionName: {section}"));
        format!(
            "{{targetRefs: [{target}], rules: [{{action: Deny, to: [{{paths: [{{value: /admin}}]}}]}}]}}"
        )
    };
    let world = World::of(&format!(
        "{WEB}{}{}",
        policy("p", 0, &spec("a")),
        policy("q", 1, &spec("b"))
    ));
    world.check(
        "host",
        &OPEN_HOST.replace(WEB_RULE, &format!("{WEB_RULE}, authorized")),
    );
    for name in ["shop/p", "shop/q"] {
        world.check_report(
            name,
            "Ingress web: Invalid: spec.targetRefs[0].sectionName: means nothing for an Ingress; nobody is let in until it is mended",
        );
    }
}

/// Ten thousand networks for four hundred routes are a list, not four hundred.
#[test]
fn a_host_carries_rules_once() {
    let backend = "backend: {service: {name: web, port: {number: 80}}}";
    let paths: String = (0..400)
        .map(|path| format!("{{path: /{path}, pathType: Prefix, {backend}}},"))
        .collect();
    let routes = |name: &str| {
        format!(
            "\n---\nkind: Ingress\nmetadata: {{name: {name}}}\nspec: {{rules: [{{host: b.test, http: {{paths: [{paths}]}}}}]}}\n"
        )
    };
    let network = |index: u32| format!("\"10.{}.{}.0/24\",", index / 256, index % 256);
    let of = |count: u32, targets: &str| {
        let blocks: String = (0..count).map(network).collect();
        policy(
            "p",
            0,
            &format!("{{targetRefs: [{targets}], rules: [{{from: [{{ipBlocks: [{blocks}]}}]}}]}}"),
        )
    };
    let many = INGRESS.replace("web", "many");
    let more = routes("more").replace("path: /", "path: /more");
    let mut world = World::of(&format!(
        "{WEB}{}{more}{}",
        routes("many"),
        of(
            10_000,
            &format!("{many}, {}", INGRESS.replace("web", "more"))
        )
    ));
    let size = |world: &World| {
        let body = &world.resources[&Key::new(ResourceKind::EdgeHost, "b.test")];
        let Body::EdgeHost(host) = body else {
            panic!("no host");
        };
        let lists: Vec<_> = host
            .rules
            .iter()
            .map(|rule| (rule.authorization, rule.access))
            .collect();
        assert_eq!(lists, [(true, 0); 800]);
        assert_eq!(host.access.len(), 1);
        host.encoded_len()
    };
    assert!(size(&world) < 512 << 10);
    // Too many for any message in the end.
    world.delete(Kind::AccessPolicy, "shop/p");
    world.apply(&of(
        40_000,
        &format!("{many}, {}", INGRESS.replace("web", "more")),
    ));
    assert!(size(&world) < 128 << 10);
    world.check_report(
        "shop/p",
        "
        Ingress many: Invalid: spec.rules: about 714606 bytes are more than 524288: join networks, paths or hosts; nobody is let in until it is mended
        Ingress more: Invalid: spec.rules: about 714606 bytes are more than 524288: join networks, paths or hosts; nobody is let in until it is mended",
    );
}
