//! Whom the verifier lets through, by certificates made for it.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};

use super::*;

/// An authority that signs what nobody should.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "origins");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Ca {
        issuer: Issuer::new(params, key),
        pem,
    }
}

impl Ca {
    fn leaf(
        &self,
        names: &[&str],
        change: impl Fn(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        // Never looked at.
        params
            .distinguished_name
            .push(DnType::CommonName, "common.test");
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains("://") {
                true => SanType::URI((*name).try_into().unwrap()),
                false => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().clone()
    }
}

/// A server with a certificate, asked for names.
#[track_caller]
fn verify(ca: &Ca, leaf: &CertificateDer<'_>, wanted: &[&str], expected: &str) {
    let names = wanted.iter().map(|name| name.parse().unwrap()).collect();
    let verifier = OriginVerifier::new(authorities(ca.pem.as_bytes()).unwrap(), names);
    let name = ServerName::try_from("asked.test").unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(
        Timestamp::now().as_second().unsigned_abs(),
    ));
    let verified = verifier.verify_server_cert(leaf, &[], &name, &[], now);
    let said = match verified {
        Ok(_) => "ok".to_owned(),
        Err(error) => why(&error),
    };
    assert!(said.contains(expected), "{wanted:?}: {said}");
}

#[test]
fn one_name_of_the_certificate_is_enough() {
    let ca = ca();
    let leaf = ca.leaf(
        &["api.shop.test", "*.wild.test", "spiffe://shop.test/api"],
        |_| {},
    );
    let check = |wanted: &[&str], expected| verify(&ca, &leaf, wanted, expected);
    check(&["api.shop.test"], "ok");
    check(&["API.shop.test"], "ok");
    check(&["a.wild.test"], "ok");
    check(&["a.b.wild.test"], "not valid for name");
    check(&["wild.test"], "not valid for name");
    check(&["asked.test"], "not valid for name");
    check(&["common.test"], "not valid for name");
    check(&["spiffe://shop.test/api"], "ok");
    check(
        &["spiffe://shop.test/api/"],
        "none of the names spiffe://shop.test/api/",
    );
    check(&["other.test", "spiffe://shop.test/api"], "ok");
    check(&["other.test", "api.shop.test"], "ok");
    check(
        &["other.test", "spiffe://shop.test/other"],
        "none of the names other.test, spiffe://shop.test/other",
    );
    check(&[], "none of the names");
}

#[test]
fn a_name_alone_is_no_proof() {
    let (ours, theirs) = (ca(), ca());
    let name = "api.shop.test";
    verify(
        &ours,
        &theirs.leaf(&[name], |_| {}),
        &[name],
        "invalid peer certificate",
    );
    let expired = ours.leaf(&[name], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    verify(&ours, &expired, &[name], "expired");
    let early = ours.leaf(&[name], |params| {
        params.not_before = rcgen::date_time_ymd(2999, 1, 1);
    });
    verify(&ours, &early, &[name], "not valid yet");
    let client = ours.leaf(&[name], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    verify(&ours, &client, &[name], "usage");
}

#[test]
fn names_and_what_are_none() {
    let check = |text: &str, expected: Option<SubjectName>| {
        assert_eq!(text.parse().ok(), expected, "{text}");
    };
    check(
        "a.test",
        Some(SubjectName::Dns("a.test".to_owned().try_into().unwrap())),
    );
    check(
        "spiffe://a/b",
        Some(SubjectName::Uri("spiffe://a/b".into())),
    );
    for none in [
        "",
        "*.a.test",
        "10.0.0.1",
        "::1",
        "a test",
        "a.test:443",
        "://a",
        "1x://a",
        "spiffe://",
    ] {
        check(none, None);
    }
}

#[test]
fn authorities_are_all_usable_or_none_is_used() {
    let check = |text: &str, expected: Result<usize, &str>| {
        let found = authorities(text.as_bytes()).map(|roots| roots.len());
        let found = found.map_err(|error| error.to_string());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    };
    let (one, two) = (ca().pem, ca().pem);
    check(&format!("one:\n{one}\ntwo:\n{two}"), Ok(2));
    check("", Err("there is no certificate in it"));
    check(
        &KeyPair::generate().unwrap().serialize_pem(),
        Err("there is no certificate in it"),
    );
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    check(
        &format!("{one}{broken}"),
        Err("certificate 2 cannot be used"),
    );
    check(
        "-----BEGIN CERTIFICATE-----\nAAAA\n",
        Err("is not readable PEM"),
    );
    let key = KeyPair::generate().unwrap().serialize_pem();
    let kept = authorities_pem(format!("{key}{one}").as_bytes()).unwrap();
    assert!(!kept.contains("PRIVATE"), "{kept}");
    check(&kept, Ok(1));
}
