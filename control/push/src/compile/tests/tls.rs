//! TLS to endpoints: authorities from ConfigMaps and Secrets, and what is said when there are none.

use meshgate_api::push;
use rcgen::generate_simple_self_signed;

use super::{World, objects, show_tls};
use crate::compile::{Body, Key, ResourceKind};
use crate::objects::{Change, Kind, Name};

const SERVICE: &str = r#"
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}, {name: more, port: 81}]}
"#;

fn policy(tls: &str) -> String {
    format!(
        "
---
kind: BackendPolicy
metadata: {{name: verified}}
spec: {{targetRefs: [{{kind: Service, name: web}}], tls: {tls}}}
"
    )
}

/// Authorities, so many.
fn pem(count: usize) -> String {
    let one = |_| {
        let made = generate_simple_self_signed(vec!["ca.test".into()]);
        made.expect("a certificate").cert.pem()
    };
    (0..count).map(one).collect()
}

/// A ConfigMap or a Secret with one key.
fn holder(kind: &str, name: &str, key: &str, text: &str) -> String {
    let text = text.replace('\n', "\\n");
    format!("kind: {kind}\nmetadata: {{name: {name}}}\ndata: {{{key}: \"{text}\"}}\n")
}

impl World {
    /// How both ports are called.
    #[track_caller]
    fn check_tls(&self, expected: &str) {
        for name in ["shop/web:80", "shop/web:81"] {
            let key = Key::new(ResourceKind::Service, name);
            let Some(Body::Service(service)) = self.resources.get(&key) else {
                panic!("no {name}");
            };
            let policy = service.policy.as_ref().expect("always set");
            let shown = policy.tls.as_ref().map(show_tls).unwrap_or_default();
            assert_eq!(shown, expected, "{name}");
        }
    }
}

const ACCEPTED: &str = "Service web: accepted, in Service shop/web:80 Service shop/web:81";
const CONFIG_MAP: &str = "{caRefs: [{kind: ConfigMap, name: ca}], hostname: api.shop.test}";

/// What is pushed, and what the policy's status says of it.
#[track_caller]
fn check_problem(world: &World, problem: &str) {
    let pushed = format!("!! BackendPolicy shop/verified: spec.tls.caRefs[0]: {problem}");
    world.check_tls(&pushed);
    world.check_report(
        "shop/verified",
        &format!(
            "Service web: NoValidCACertificate: spec.tls.caRefs[0]: {problem}; nothing is sent to endpoints outside the mesh"
        ),
    );
}

#[test]
fn authorities_follow_their_object() {
    for kind in ["ConfigMap", "Secret"] {
        let tls = CONFIG_MAP.replace("ConfigMap", kind);
        let mut world = World::of(&format!("{SERVICE}{}", policy(&tls)));
        let (wanted, deleted) = match kind {
            "Secret" => (&world.secrets, Kind::Secret),
            _ => (&world.config_maps, Kind::ConfigMap),
        };
        let wanted: Vec<_> = wanted.keys().cloned().collect();
        assert_eq!(wanted, [Name::new("shop", "ca")]);
        assert!(!world.compiler.referents_known());
        let unread = format!("{kind} shop/ca has not been read yet");
        world.check_tls(&format!(
            "!! BackendPolicy shop/verified: spec.tls.caRefs[0]: {unread}"
        ));
        world.check_report(
            "shop/verified",
            &format!("{ACCEPTED}; awaits: spec.tls.caRefs[0]: {unread}"),
        );
        let name = Name::new("shop", "ca");
        world.changes(vec![Change::Unreadable(deleted, name, "down".into())]);
        assert!(world.compiler.referents_known());
        check_problem(&world, &format!("{kind} shop/ca cannot be read: down"));
        world.delete(deleted, "shop/ca");
        let missing = format!("{kind} shop/ca does not exist");
        check_problem(&world, &missing);
        world.apply(&holder(kind, "ca", "ca.crt", &pem(1)));
        world.check_tls("to api.shop.test by 1");
        world.check_report("shop/verified", ACCEPTED);
        world.apply(&holder(kind, "ca", "ca.crt", &pem(2)));
        world.check_tls("to api.shop.test by 2");
        // Of what was there before nothing stays in force.
        for (key, text, problem) in [
            ("ca.crt", "none", "ca.crt: there is no certificate in it"),
            ("ca.pem", "none", "has no key ca.crt"),
        ] {
            world.apply(&holder(kind, "ca", key, text));
            let colon = if key == "ca.crt" { ":" } else { "" };
            check_problem(&world, &format!("{kind} shop/ca{colon} {problem}"));
        }
        world.delete(deleted, "shop/ca");
        check_problem(&world, &missing);
        world.delete(Kind::BackendPolicy, "shop/verified");
        world.check_tls("");
        assert!(world.secrets.is_empty() && world.config_maps.is_empty());
    }
}

#[test]
fn a_secret_may_be_for_both_ends() {
    let ingress = "\n---\nkind: Ingress\nmetadata: {name: a}\nspec: {tls: [{secretName: ca, hosts: [a.test]}]}\n";
    let tls = CONFIG_MAP.replace("ConfigMap", "Secret");
    let mut world = World::of(&format!("{SERVICE}{}{ingress}", policy(&tls)));
    world.apply(&holder("Secret", "ca", "ca.crt", &pem(1)));
    world.check_tls("to api.shop.test by 1");
    world.delete(Kind::Ingress, "shop/a");
    assert_eq!(world.secrets.len(), 1, "the policy still names it");
    world.check_tls("to api.shop.test by 1");
    world.apply(ingress);
    world.delete(Kind::BackendPolicy, "shop/verified");
    assert_eq!(world.secrets.len(), 1, "the Ingress still names it");
}

/// A policy that names another object is no reason to call nobody until that is read.
#[test]
fn what_was_pushed_stays_while_an_object_is_read() {
    let other = policy(&CONFIG_MAP.replace("name: ca", "name: next"));
    let unread = "spec.tls.caRefs[0]: ConfigMap shop/next has not been read yet";
    let awaiting = format!("{ACCEPTED}; awaits: {unread}");
    let before = || {
        let mut world = World::of(&format!("{SERVICE}{}", policy(CONFIG_MAP)));
        world.apply(&holder("ConfigMap", "ca", "ca.crt", &pem(1)));
        world
    };

    let mut world = before();
    world.apply(&other);
    world.check_tls("to api.shop.test by 1");
    world.check_report("shop/verified", &awaiting);
    world.apply(&holder("ConfigMap", "next", "ca.crt", &pem(2)));
    world.check_tls("to api.shop.test by 2");
    world.check_report("shop/verified", ACCEPTED);

    let mut world = before();
    world.apply(&other);
    world.delete(Kind::ConfigMap, "shop/next");
    check_problem(&world, "ConfigMap shop/next does not exist");

    // What was closed, or in the clear, is no reason to let anything through.
    let closed = format!("!! BackendPolicy shop/verified: {unread}");
    let mut world = before();
    world.delete(Kind::ConfigMap, "shop/ca");
    world.apply(&other);
    world.check_tls(&closed);
    world.check_report("shop/verified", &awaiting);
    let mut world = before();
    world.delete(Kind::BackendPolicy, "shop/verified");
    world.apply(&other);
    world.check_tls(&closed);
}

/// Else a status would say that all enforce what none has been told of yet.
#[test]
fn other_authorities_are_reported_though_the_verdict_stays() {
    let mut world = World::of(&format!("{SERVICE}{}", policy(CONFIG_MAP)));
    let mut reported = |text: &str| {
        let changes = objects(&holder("ConfigMap", "ca", "ca.crt", text));
        world.compiler.absorb(changes);
        let update = world.compiler.compile();
        (update.resources.len(), update.reports.len())
    };
    let (one, two) = (pem(1), pem(1));
    assert_eq!(reported(&one), (2, 1));
    assert_eq!(reported(&two), (2, 1));
    assert_eq!(reported(&two), (0, 0), "nothing changed");
}

/// One batch takes away the policy and its object, and puts the same policy there under another name.
#[test]
fn authorities_that_went_while_nothing_referred_to_them_are_gone() {
    for (kind, deleted) in [("ConfigMap", Kind::ConfigMap), ("Secret", Kind::Secret)] {
        let tls = CONFIG_MAP.replace("ConfigMap", kind);
        let mut world = World::of(&format!(
            "{SERVICE}{}",
            policy(&tls).replace("verified", "before")
        ));
        world.apply(&holder(kind, "ca", "ca.crt", &pem(1)));
        let gone = |kind, name| Change::Delete(kind, Name::new("shop", name));
        let mut batch = vec![gone(Kind::BackendPolicy, "before"), gone(deleted, "ca")];
        batch.extend(objects(&policy(&tls)));
        world.changes(batch);
        check_problem(&world, &format!("{kind} shop/ca does not exist"));
    }
}

#[test]
fn names_are_handed_on_and_all_authorities_are_needed() {
    let tls = "{mode: Simple, caRefs: [{group: '', kind: ConfigMap, name: one}, {kind: ConfigMap, name: two}], hostname: api.shop.test, subjectAltNames: [b.test, 'spiffe://b/c']}";
    let mut world = World::of(&format!("{SERVICE}{}", policy(tls)));
    world.apply(&holder("ConfigMap", "one", "ca.crt", &pem(1)));
    world.delete(Kind::ConfigMap, "shop/two");
    let problem = "spec.tls.caRefs[1]: ConfigMap shop/two does not exist";
    world.check_tls(&format!("!! BackendPolicy shop/verified: {problem}"));
    world.apply(&holder("ConfigMap", "two", "ca.crt", &pem(2)));
    world.check_tls("to api.shop.test as b.test spiffe://b/c by 3");
    let large = pem(1).repeat(1000);
    world.apply(&holder("ConfigMap", "two", "ca.crt", &large));
    let Some(Body::Service(service)) = world
        .resources
        .get(&Key::new(ResourceKind::Service, "shop/web:80"))
    else {
        panic!("no service");
    };
    let tls: &push::BackendTls = service
        .policy
        .as_ref()
        .and_then(|p| p.tls.as_ref())
        .expect("TLS");
    assert!(
        tls.problem.contains("bytes are more than 524288"),
        "{}",
        tls.problem
    );
    assert!(tls.ca_pem.is_empty());
}

/// What is not supported lets nothing through either.
#[test]
fn a_certificate_of_our_own_is_not_supported() {
    for (tls, field) in [
        ("{mode: Mutual}", "spec.tls.mode Mutual"),
        (
            "{caRefs: [{kind: ConfigMap, name: ca}], hostname: a.test, clientCertificateRef: {name: x}}",
            "spec.tls.clientCertificateRef",
        ),
    ] {
        let mut world = World::of(&format!("{SERVICE}{}", policy(tls)));
        world.apply(&holder("ConfigMap", "ca", "ca.crt", &pem(1)));
        let problem = "spec.tls: a certificate of the proxy's is not supported yet";
        let nothing = "nothing is sent to endpoints outside the mesh";
        world.check_tls(&format!("!! BackendPolicy shop/verified: {problem}"));
        world.check_report(
            "shop/verified",
            &format!("Service web: UnsupportedFields: not supported yet: {field} ({nothing}); not supported: {field} ({nothing})"),
        );
    }
}

/// A mistake elsewhere in the policy does not send in the clear what was to be verified.
#[test]
fn a_broken_policy_with_tls_sends_nothing() {
    let broken = |rest: &str| policy(CONFIG_MAP).replace("tls:", &format!("{rest}, tls:"));
    let no_condition = |name| {
        format!(
            "spec.retries.on[0]: \"{name}\" is no retry condition: expected ConnectFailure, RefusedStream, ResetBeforeResponse, GatewayError, Retriable4xx, PerTryTimeout, a status from 400 to 599 or the name of a gRPC code"
        )
    };
    for (rest, problem) in [
        ("retries: {on: [TIMEOUT]}", no_condition("TIMEOUT")),
        ("retries: {on: ['302']}", no_condition("302")),
        (
            "retries: {replayBodyMax: 32Mi}",
            "spec.retries.replayBodyMax: 33554432 is above 16777216".into(),
        ),
        (
            "limits: {requests: 0}",
            "spec.limits.requests: 0 would let nothing through".into(),
        ),
        (
            "circuitBreaker: {successRate: {below: 80, window: 0s}}",
            "spec.circuitBreaker.successRate.window: must be above 0".into(),
        ),
    ] {
        let closed = |world: &World| {
            world.check_tls(&format!("!! BackendPolicy shop/verified: {problem}"));
            world.check_report(
                "shop/verified",
                &format!("Service web: Invalid: {problem}; nothing is sent to endpoints outside the mesh until it is mended"),
            );
        };
        let mut world = World::of(&format!("{SERVICE}{}", broken(rest)));
        closed(&world);
        world.apply(&holder("ConfigMap", "ca", "ca.crt", &pem(1)));
        world.apply(&policy(CONFIG_MAP));
        world.apply(&holder("ConfigMap", "ca", "ca.crt", &pem(1)));
        world.check_tls("to api.shop.test by 1");
        world.apply(&broken(rest));
        world.check_tls("to api.shop.test by 1");
        world.check_report(
            "shop/verified",
            &format!("Service web: Invalid: {problem}; the last valid version stays in force until the control plane starts anew, then nothing is sent to endpoints outside the mesh"),
        );
        world.delete(Kind::BackendPolicy, "shop/verified");
        world.apply(&broken("retries: {on: [NEVER]}"));
        world.check_tls(&format!(
            "!! BackendPolicy shop/verified: {}",
            no_condition("NEVER")
        ));
        world.apply(&broken(rest));
        closed(&world);
    }
    // Without TLS nothing needs to close.
    let plain = broken("retries: {on: [TIMEOUT]}").replace(CONFIG_MAP, "null");
    World::of(&format!("{SERVICE}{plain}")).check_tls("");
}

#[test]
fn what_is_wrong_names_its_field() {
    let check = |tls: &str, problem: &str| {
        let world = World::of(&format!("{SERVICE}{}", policy(tls)));
        let closed = "nothing is sent to endpoints outside the mesh until it is mended";
        world.check_report(
            "shop/verified",
            &format!("Service web: Invalid: {problem}; {closed}"),
        );
        world.check_tls(&format!("!! BackendPolicy shop/verified: {problem}"));
    };
    check(
        "{hostname: a.test}",
        "spec.tls.caRefs: name at least one ConfigMap or Secret with a CA certificate under ca.crt",
    );
    check(
        "{caRefs: [{kind: ConfigMap, name: ca}]}",
        "spec.tls.hostname: \"\" is no DNS name",
    );
    check(
        "{caRefs: [{kind: ConfigMap, name: ca}], hostname: 10.0.0.1}",
        "spec.tls.hostname: \"10.0.0.1\" is no DNS name",
    );
    check(
        "{caRefs: [{kind: ConfigMap, name: ca}], hostname: a.test, subjectAltNames: ['*.a.test']}",
        "spec.tls.subjectAltNames[0]: \"*.a.test\" is neither a DNS name nor a URI",
    );
    check(
        "{caRefs: [{group: apps, kind: ConfigMap, name: ca}], hostname: a.test}",
        "spec.tls.caRefs[0].group: must be empty for a ConfigMap or a Secret",
    );
}
