//! Certificates from Secrets.

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::World;
use crate::objects::{Change, Kind, Name};

fn secret(name: &str, certificate: &str, key: &str) -> String {
    let block = |text: &str| text.replace('\n', "\\n");
    format!(
        "\n---\nkind: Secret\nmetadata: {{name: {name}}}\ndata: {{tls.crt: \"{}\", tls.key: \"{}\"}}\n",
        block(certificate),
        block(key)
    )
}

pub(super) fn pair() -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["a.test".into()]).expect("a pair");
    (cert.pem(), signing_key.serialize_pem())
}

fn ingress(name: &str, second: u32, tls: &str) -> String {
    format!(
        "
---
kind: Ingress
metadata: {{name: {name}, creationTimestamp: '2026-01-01T00:00:0{second}Z'}}
spec: {{tls: {tls}, rules: [{{host: {name}.test}}]}}"
    )
}

#[test]
fn a_certificate_follows_its_secret() {
    let (certificate, key) = pair();
    let (_, other_key) = pair();
    let mut world = World::of(&ingress(
        "a",
        1,
        "[{secretName: tls, hosts: [A.test, '*.a.test']}]",
    ));
    assert_eq!(
        world.secrets.keys().collect::<Vec<_>>(),
        [&Name::new("shop", "tls")]
    );
    assert!(!world.compiler.referents_known());
    world.check("certificate", "");
    world.check_report("shop/a", "");
    let name = Name::new("shop", "tls");
    world.changes(vec![Change::Unreadable(Kind::Secret, name, "down".into())]);
    assert!(world.compiler.referents_known());
    world.check_report(
        "shop/a",
        "SecretUnreadable: secret shop/tls cannot be read: down",
    );
    world.delete(Kind::Secret, "shop/tls");
    world.check_report("shop/a", "SecretNotFound: secret shop/tls does not exist");
    let served = "certificate shop/tls for *.a.test a.test";
    world.apply(&secret("tls", &certificate, &key));
    world.check("certificate", served);
    world.check_report("shop/a", "");
    for (certificate, key, problem) in [
        (
            certificate.as_str(),
            "",
            "tls.key: there is no private key in it",
        ),
        (
            certificate.as_str(),
            other_key.as_str(),
            "tls.key does not belong to tls.crt",
        ),
        ("", key.as_str(), "tls.crt: there is no certificate in it"),
    ] {
        world.apply(&secret("tls", certificate, key));
        world.check("certificate", served);
        let expected = format!(
            "SecretInvalid: secret shop/tls: {problem}; the last valid certificate stays in use"
        );
        world.check_report("shop/a", &expected);
    }
    world.delete(Kind::Secret, "shop/tls");
    world.check("certificate", "");
    world.delete(Kind::Ingress, "shop/a");
    assert!(world.secrets.is_empty());
}

#[test]
fn the_oldest_ingress_decides_which_secret_a_host_has() {
    let (certificate, key) = pair();
    let mut world = World::of(
        &[
            ingress("a", 2, "[{secretName: one, hosts: [x.test, y.test]}]"),
            ingress(
                "b",
                1,
                "[{secretName: two, hosts: [x.test]}, {hosts: [z.test]}]",
            ),
        ]
        .concat(),
    );
    world.apply(&format!(
        "{}{}",
        secret("one", &certificate, &key),
        secret("two", &certificate, &key)
    ));
    world.check(
        "certificate",
        "certificate shop/one for y.test\ncertificate shop/two for x.test",
    );
    world.check_report(
        "shop/a",
        "Conflicted: host x.test is served with secret shop/two of an older Ingress",
    );
    world.delete(Kind::Ingress, "shop/b");
    world.check("certificate", "certificate shop/one for x.test y.test");
    world.check_report("shop/a", "");
}

#[test]
fn without_hosts_it_is_for_those_of_the_rules() {
    let (certificate, key) = pair();
    let mut world = World::of(&ingress("a", 1, "[{secretName: tls}]"));
    world.apply(&secret("tls", &certificate, &key));
    world.check("certificate", "certificate shop/tls for a.test");
}
