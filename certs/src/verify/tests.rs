//! Whole handshakes in memory between a client and a server with workload certificates.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::authority::Authority;
use crate::credential::{Credential, CurrentCredential};
use crate::csr;
use crate::trust::TrustBundle;

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::new(&domain(), "shop", account).unwrap()
}

fn trust(authority: &Authority) -> Trust {
    Trust::new(TrustBundle::from_der([authority.cert_der().clone()]).unwrap())
}

fn authority() -> Authority {
    // Older than the certificates that tests sign in the past.
    let long_ago = Timestamp::now() - SignedDuration::from_hours(24);
    Authority::generate(&domain(), long_ago).unwrap()
}

fn credential(authority: &Authority, id: &SpiffeId, issued: Timestamp) -> Credential {
    let request = csr::generate(id).unwrap();
    let ttl = Duration::from_secs(3600);
    let leaf = authority.sign(&request.csr_der, id, ttl, issued).unwrap();
    Credential::new(leaf.chain_der, request.key).unwrap()
}

/// A leaf of the right authority and name that our own authority would never sign.
fn odd(authority: &Authority, change: impl Fn(&mut CertificateParams)) -> Credential {
    let key = KeyPair::from_pem(authority.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_der(authority.cert_der(), key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id("cart").as_str().try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Credential::new(vec![leaf.der().clone()], key).unwrap()
}

fn client(own: Option<Credential>, trust: &Trust, expected: Expected) -> ClientConnection {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(UpstreamVerifier::new(trust.clone(), expected));
    let slot = own.map_or_else(CurrentCredential::empty, CurrentCredential::new);
    let config = config.with_client_cert_resolver(Arc::new(slot));
    let name = ServerName::try_from("ignored.example").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

fn server(own: Credential, trust: &Trust) -> ServerConnection {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(DownstreamVerifier::new(trust.clone(), domain()))
        .with_cert_resolver(Arc::new(CurrentCredential::new(own)));
    ServerConnection::new(Arc::new(config)).unwrap()
}

/// Runs the handshake to its end: the client's identity as the server sees it, or who refused and why.
fn handshake(mut client: ClientConnection, mut server: ServerConnection) -> String {
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        if !wire.is_empty() {
            server.read_tls(&mut wire.as_slice()).unwrap();
        }
        if let Err(error) = server.process_new_packets() {
            return format!("server: {error}");
        }
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        if !wire.is_empty() {
            client.read_tls(&mut wire.as_slice()).unwrap();
        }
        if let Err(error) = client.process_new_packets() {
            return format!("client: {error}");
        }
    }
    match SpiffeId::of_peer(server.peer_certificates()) {
        Ok(id) => id.to_string(),
        Err(error) => format!("no identity: {error}"),
    }
}

#[test]
fn workloads_know_each_other() {
    let authority = authority();
    let trust = trust(&authority);
    let now = Timestamp::now();
    let check = |expected: Expected, answer: &str| {
        let client = client(
            Some(credential(&authority, &id("web"), now)),
            &trust,
            expected,
        );
        let server = server(credential(&authority, &id("cart"), now), &trust);
        let found = handshake(client, server);
        assert!(found.contains(answer), "{found}");
    };
    check(
        Expected::Id(id("cart")),
        "spiffe://cluster.local/ns/shop/sa/web",
    );
    check(
        Expected::AnyOf(domain()),
        "spiffe://cluster.local/ns/shop/sa/web",
    );
    check(
        Expected::Id(id("admin")),
        "client: invalid peer certificate",
    );
    check(
        Expected::AnyOf("other".parse().unwrap()),
        "client: invalid peer certificate",
    );
}

#[test]
fn peers_with_wrong_certificates_do_not_get_through() {
    let authority = authority();
    let trust = trust(&authority);
    let now = Timestamp::now();
    let as_client = |what: &str, own: Option<Credential>| {
        let client = client(own, &trust, Expected::Id(id("cart")));
        let server = server(credential(&authority, &id("cart"), now), &trust);
        let found = handshake(client, server);
        assert!(found.starts_with("server: "), "{what} as client: {found}");
    };
    let as_server = |what: &str, own: Credential| {
        let client = client(
            Some(credential(&authority, &id("web"), now)),
            &trust,
            Expected::Id(id("cart")),
        );
        let found = handshake(client, server(own, &trust));
        assert!(found.starts_with("client: "), "{what} as server: {found}");
    };
    as_client("no certificate", None);
    type Make<'a> = &'a dyn Fn() -> Credential;
    let long_ago = now - SignedDuration::from_hours(2);
    let own_authority = super::tests::authority();
    let other_domain = "other".parse().unwrap();
    let other_id = SpiffeId::new(&other_domain, "shop", "cart").unwrap();
    let cases: [(&str, Make<'_>); 6] = [
        ("expired", &|| credential(&authority, &id("cart"), long_ago)),
        ("of an authority of its own", &|| {
            credential(&own_authority, &id("cart"), now)
        }),
        ("of another trust domain", &|| {
            credential(&authority, &other_id, now)
        }),
        ("with a DNS name", &|| {
            odd(&authority, |params| {
                params.subject_alt_names = vec![SanType::DnsName("cart".try_into().unwrap())];
            })
        }),
        ("with two names", &|| {
            odd(&authority, |params| {
                let admin = id("admin").as_str().try_into().unwrap();
                params.subject_alt_names.push(SanType::URI(admin));
            })
        }),
        ("with a NUL in its name", &|| {
            odd(&authority, |params| {
                let name = format!("{}\0.evil", id("cart"));
                params.subject_alt_names = vec![SanType::URI(name.as_str().try_into().unwrap())];
            })
        }),
    ];
    for (what, make) in cases {
        as_client(what, Some(make()));
        as_server(what, make());
    }
    let only = |usage: ExtendedKeyUsagePurpose| {
        odd(&authority, move |params| {
            params.extended_key_usages = vec![usage.clone()]
        })
    };
    as_client(
        "for servers only",
        Some(only(ExtendedKeyUsagePurpose::ServerAuth)),
    );
    as_server(
        "for clients only",
        only(ExtendedKeyUsagePurpose::ClientAuth),
    );
}

#[test]
fn a_replaced_trust_bundle_counts_from_the_next_handshake() {
    let (old, new) = (authority(), authority());
    let trust = trust(&old);
    let now = Timestamp::now();
    let attempt = |authority: &Authority| {
        let client = client(
            Some(credential(authority, &id("web"), now)),
            &trust,
            Expected::Id(id("cart")),
        );
        handshake(
            client,
            server(credential(authority, &id("cart"), now), &trust),
        )
    };
    assert!(attempt(&old).starts_with("spiffe"));
    assert!(!attempt(&new).starts_with("spiffe"));
    let both = [old.cert_der().clone(), new.cert_der().clone()];
    trust.replace(TrustBundle::from_der(both).unwrap());
    assert!(attempt(&old).starts_with("spiffe"));
    assert!(attempt(&new).starts_with("spiffe"));
    trust.replace(TrustBundle::from_pem(new.cert_pem()).unwrap());
    assert!(!attempt(&old).starts_with("spiffe"));
    assert!(attempt(&new).starts_with("spiffe"));
}

#[test]
fn bundles_are_roots_or_errors() {
    let authority = authority();
    let bundle = TrustBundle::from_pem(authority.cert_pem()).unwrap();
    assert_eq!(TrustBundle::from_pem(&bundle.pem()).unwrap(), bundle);
    assert!(TrustBundle::from_pem("").is_err());
    assert!(
        TrustBundle::from_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .is_err()
    );
    assert!(
        Credential::from_pem(authority.cert_pem(), super::tests::authority().key_pem()).is_err()
    );
}
