//! Requests as a hostile workload would write them.

use jiff::SignedDuration;
use proptest::prelude::*;
use rcgen::{CustomExtension, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};

use super::*;
use crate::csr;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn authority() -> Authority {
    Authority::generate(&domain(), now()).unwrap()
}

fn cart() -> SpiffeId {
    SpiffeId::new(&domain(), "shop", "cart").unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A request with the right name and no subject, changed by `change`, signed with a key of `algorithm`.
fn request(
    algorithm: &'static rcgen::SignatureAlgorithm,
    change: impl Fn(&mut CertificateParams),
) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(cart().as_str())];
    change(&mut params);
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn check(what: &str, csr: &[u8], expected: &str) {
    let answer = match authority().sign(csr, &cart(), LEAF_TTL, now()) {
        Ok(_) => "signed".to_owned(),
        Err(refusal) => format!("{refusal:?}"),
    };
    assert!(answer.starts_with(expected), "{what}: {answer}");
}

#[test]
fn requests_for_anything_but_the_proven_identity_are_refused() {
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    let check = |what: &str, expected: &str, change: &dyn Fn(&mut CertificateParams)| {
        check(what, &request(p256, change), expected);
    };
    check("plain", "signed", &|_| {});
    check("identity as common name", "signed", &|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, cart().as_str());
    });
    check("usages", "signed", &|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
    });
    check("another common name", "Subject", &|params| {
        params.distinguished_name.push(DnType::CommonName, "admin");
    });
    check("an organization", "Subject", &|params| {
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:masters");
    });
    check("another identity", "OtherIdentity", &|params| {
        params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/admin")];
    });
    check("another trust domain", "OtherIdentity", &|params| {
        params.subject_alt_names = vec![uri("spiffe://other/ns/shop/sa/cart")];
    });
    check("no name", "Name(NoName)", &|params| {
        params.subject_alt_names.clear()
    });
    check("two names", "Name(SeveralNames)", &|params| {
        params
            .subject_alt_names
            .push(uri("spiffe://cluster.local/ns/shop/sa/admin"));
    });
    check("a DNS name beside", "Name(SeveralNames)", &|params| {
        params
            .subject_alt_names
            .push(SanType::DnsName("kubernetes".try_into().unwrap()));
    });
    check("a DNS name instead", "Name(NotUri)", &|params| {
        params.subject_alt_names = vec![SanType::DnsName("kubernetes".try_into().unwrap())];
    });
    check("a NUL in the name", "Name(Invalid", &|params| {
        params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/cart\0x")];
    });
    check("an authority", "WantsToBeAuthority", &|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    check("another extension", "Attribute", &|params| {
        let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        params.custom_extensions = vec![extension];
    });
}

#[test]
fn keys_are_of_known_kinds_and_sizes() {
    let plain = |algorithm| request(algorithm, |_| {});
    check("P-256", &plain(&rcgen::PKCS_ECDSA_P256_SHA256), "signed");
    check("P-384", &plain(&PKCS_ECDSA_P384_SHA384), "signed");
    check("Ed25519", &plain(&PKCS_ED25519), "signed");
    check("RSA 2048", &plain(&rcgen::PKCS_RSA_SHA256), "signed");
    check("P-521", &plain(&PKCS_ECDSA_P521_SHA512), "KeyType");
}

#[test]
fn broken_requests_are_refused() {
    let good = csr::generate(&cart()).unwrap().csr_der;
    check("ours", &good, "signed");
    check("nothing", &[], "Unreadable");
    check("cut", &good[..good.len() - 1], "Unreadable");
    let mut longer = good.clone();
    longer.push(0);
    check("something behind it", &longer, "Unreadable");
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    check("a wrong signature", &forged, "NotSignedByItsKey");
    check("far too large", &vec![0x30; 9000], "TooLarge");
}

#[test]
fn a_leaf_is_what_peers_expect() {
    let authority = authority();
    let csr = csr::generate(&cart()).unwrap().csr_der;
    let sign = |ttl_s| {
        let ttl = Duration::from_secs(ttl_s);
        authority.sign(&csr, &cart(), ttl, now()).unwrap()
    };
    let issued = sign(3600);
    let [leaf] = &issued.chain_der[..] else {
        panic!("{} certificates", issued.chain_der.len());
    };
    assert_eq!(SpiffeId::of_certificate(leaf), Ok(cart()));
    assert_eq!(
        issued.validity.not_before,
        now() - SignedDuration::from_mins(5)
    );
    assert_eq!(
        issued.validity.not_after,
        now() + SignedDuration::from_hours(1)
    );
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).unwrap();
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    assert!(!parsed.is_ca());
    let again = sign(3600);
    let (_, second) = x509_parser::parse_x509_certificate(&again.chain_der[0]).unwrap();
    assert_ne!(parsed.serial, second.serial);
    // No leaf outlives the root.
    assert_eq!(
        sign(u64::MAX / 4).validity.not_after,
        authority.validity().not_after
    );
}

#[test]
fn an_expired_root_signs_nothing() {
    let csr = csr::generate(&cart()).unwrap().csr_der;
    let later = now() + SignedDuration::from_hours(24 * 3660);
    let refused = authority().sign(&csr, &cart(), LEAF_TTL, later);
    assert!(
        matches!(refused, Err(Refusal::AuthorityExpired)),
        "{refused:?}"
    );
}

#[test]
fn a_root_is_taken_up_only_with_its_own_key() {
    let (one, other) = (authority(), authority());
    assert!(Authority::from_pem(one.cert_pem(), one.key_pem()).is_ok());
    let mixed = Authority::from_pem(one.cert_pem(), other.key_pem());
    assert!(matches!(mixed, Err(AuthorityError::OtherKey)), "{mixed:?}");
    let request = csr::generate(&cart()).unwrap();
    let leaf = one
        .sign(&request.csr_der, &cart(), LEAF_TTL, now())
        .unwrap();
    let leaf_pem = crate::pem::encode("CERTIFICATE", &leaf.chain_der[0]);
    let key_pem = crate::pem::encode("PRIVATE KEY", request.key.secret_der());
    let no_ca = Authority::from_pem(&leaf_pem, &key_pem);
    assert!(
        matches!(no_ca, Err(AuthorityError::CannotSign)),
        "{no_ca:?}"
    );
    assert!(Authority::from_pem("", one.key_pem()).is_err());
    assert!(Authority::from_pem(one.cert_pem(), "").is_err());
}

proptest! {
    /// Whatever bytes come, the answer is a refusal and never a panic.
    #[test]
    fn bytes_never_panic(position in 0usize..400, byte: u8, length in 0usize..400) {
        let mut csr = csr::generate(&cart()).unwrap().csr_der;
        if let Some(at) = csr.get_mut(position) {
            *at = byte;
        }
        csr.truncate(length);
        let _ = examine(&csr, &cart());
    }
}
