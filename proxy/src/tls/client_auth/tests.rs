use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};

use super::{ClientAuth, ClientProof};

fn named(name: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

#[test]
fn a_proof_is_for_hosts_that_demand_no_more() {
    let (a, b) = (named("a"), named("b"));
    // `a b` required, `a?` not; `!` is refused, and nothing is nothing.
    let demand = |text: &str| {
        let roots: String = text
            .chars()
            .filter_map(|c| match c {
                'a' => Some(a.as_str()),
                'b' => Some(b.as_str()),
                _ => None,
            })
            .collect();
        match text {
            "" => None,
            "!" => Some(ClientAuth::Refused("torn".into())),
            text => Some(ClientAuth::new(&roots, !text.ends_with('?')).unwrap()),
        }
    };
    let check = |met: &str, host: &str, tls: bool, expected: bool| {
        let proof = ClientProof::of(demand(met).map(Arc::new), None).unwrap();
        let is_for = proof.is_for(demand(host).as_ref(), tls);
        assert_eq!(is_for, expected, "{met:?} for {host:?}, tls {tls}");
    };
    check("", "", false, true);
    check("", "a", false, false);
    check("", "a?", false, true);
    check("", "!", false, false);
    check("", "", true, true);
    check("", "a", true, false);
    check("", "a?", true, false);
    check("", "!", true, false);
    check("!", "", true, true);
    check("!", "a?", true, false);
    check("a", "", true, false);
    check("a", "!", true, false);
    check("a", "b", true, false);
    check("a", "a", true, true);
    check("a", "a?", true, true);
    check("a?", "a", true, false);
    check("a?", "ab?", true, true);
    check("ab", "baa", true, true);
    check("a", "ab", true, true);
    check("ab", "a", true, false);
}

#[test]
fn what_a_handshake_cannot_carry_is_no_demand() {
    let check = |count: usize, name_bytes: usize, expected: &str| {
        let name = "n".repeat(name_bytes);
        let roots: String = (0..count).map(|_| named(&name)).collect();
        let found = match ClientAuth::new(&roots, true) {
            Ok(demand) => format!("{demand:?}"),
            Err(problem) => problem.to_string(),
        };
        assert!(
            found.starts_with(expected),
            "{count} * {name_bytes}: {found}"
        );
    };
    check(128, 10, "Named(Authorities { roots: 128, required: true })");
    check(129, 10, "there are 129 roots, more than 128");
    check(60, 900, "Named(Authorities { roots: 60");
    check(60, 1100, "the names of the roots have 6");
    check(0, 0, "there is no certificate in it");
}
