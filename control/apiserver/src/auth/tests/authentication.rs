//! Certificates, tokens and impersonation, good and hostile.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use meshgate_certs::cluster::{ClusterPki, ClusterPkiOptions};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use super::*;
use crate::auth::jwt::SigningKey;
use crate::auth::{ISSUER, Request};

/// Who a request with these headers is, or the status and the reason for the log.
fn who(auth: &Auth, path: &str, headers: &[(&str, &str)], now: Timestamp) -> String {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    let request = Request {
        path,
        headers: &map,
        peer: None,
    };
    match auth.authenticate(&request, now) {
        Ok(user) => format!("{} [{}]", user.name, user.groups.join(" ")),
        Err(denied) => format!("{} {denied}", denied.code()),
    }
}

fn with_token(auth: &Auth, token: &str, now: Timestamp) -> String {
    who(
        auth,
        "/api",
        &[("authorization", &format!("Bearer {token}"))],
        now,
    )
}

fn token(auth: &Auth, account: &str, spec: Value) -> String {
    let admin = user("root", &["system:masters"]);
    let body = json!({"spec": spec});
    let answer = auth.create_token(&admin, "shop", account, body, now());
    answer.unwrap()["status"]["token"]
        .as_str()
        .unwrap()
        .to_owned()
}

const ACCOUNT_A: &str = "system:serviceaccount:shop:a [system:serviceaccounts system:serviceaccounts:shop system:authenticated]";

#[test]
fn without_credentials_only_health_is_answered() {
    let auth = auth();
    let check =
        |path: &str, expected: &str| assert_eq!(who(&auth, path, &[], now()), expected, "{path}");
    check("/livez", "system:anonymous [system:unauthenticated]");
    check("/readyz/ping", "system:anonymous [system:unauthenticated]");
    check("/healthz", "system:anonymous [system:unauthenticated]");
    check("/healthzz", "401 no credentials");
    check("/version", "401 no credentials");
    check("/api", "401 no credentials");
    check("/", "401 no credentials");
}

#[test]
fn authorization_headers_that_are_no_bearer_token_are_refused() {
    let auth = auth();
    for value in [
        "Basic YTpi",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b",
        "Bearer a.b.c",
        "bearer ..",
        "token",
    ] {
        let answer = who(&auth, "/livez", &[("authorization", value)], now());
        assert!(answer.starts_with("401"), "{value}: {answer}");
    }
    let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
    assert!(who(&auth, "/api", &twice, now()).starts_with("401"));
}

#[test]
fn a_token_lives_from_its_start_to_its_end() {
    let auth = auth();
    let token = token(&auth, "a", json!({"expirationSeconds": 600}));
    assert_eq!(with_token(&auth, &token, now()), ACCOUNT_A);
    assert_eq!(with_token(&auth, &token, later(599)), ACCOUNT_A);
    assert_eq!(
        with_token(&auth, &token, later(600)),
        "401 the token has expired"
    );
    assert_eq!(
        with_token(&auth, &token, later(-1)),
        "401 the token is not valid yet"
    );
    let protocol = format!(
        "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{}",
        URL_SAFE_NO_PAD.encode(&token)
    );
    assert_eq!(
        who(
            &auth,
            "/api",
            &[("sec-websocket-protocol", &protocol)],
            now()
        ),
        ACCOUNT_A
    );
}

#[test]
fn tokens_die_with_what_they_are_bound_to() {
    let auth = auth();
    let account = |uid: &str| json!({"kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "a", "uid": uid}});
    let bound =
        |kind: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": "a"}});
    let plain = token(&auth, "a", json!({}));
    let of_pod = token(&auth, "a", bound("Pod"));
    let of_secret = token(&auth, "a", bound("Secret"));
    let of_node = token(&auth, "a", bound("Node"));
    let check = |token: &str, expected: &str| assert_eq!(with_token(&auth, token, now()), expected);
    for token in [&plain, &of_pod, &of_secret, &of_node] {
        check(token, ACCOUNT_A);
    }
    delete(&auth, &pod("a"));
    check(&of_pod, "401 the token's pod no longer exists");
    let mut again = pod("a");
    again["metadata"]["uid"] = json!("another");
    feed(&auth, &again);
    check(&of_pod, "401 the token's pod no longer exists");
    delete(
        &auth,
        &json!({"kind": "Secret", "metadata": {"namespace": "shop", "name": "a"}}),
    );
    check(&of_secret, "401 the token's secret no longer exists");
    delete(&auth, &json!({"kind": "Node", "metadata": {"name": "a"}}));
    check(&of_node, "401 the token's node no longer exists");
    check(&plain, ACCOUNT_A);
    feed(&auth, &account("another"));
    check(&plain, "401 the token's service account no longer exists");
    delete(&auth, &account("another"));
    check(&plain, "401 the token's service account no longer exists");
    feed(&auth, &account("ServiceAccount-a"));
    check(&plain, ACCOUNT_A);
}

/// Claims of a good token, changed by `change`.
fn claims(change: impl Fn(&mut Value)) -> Value {
    let mut claims = json!({
        "iss": ISSUER,
        "sub": "system:serviceaccount:shop:a",
        "aud": [ISSUER],
        "nbf": now().as_second(),
        "exp": later(600).as_second(),
        "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "a", "uid": "ServiceAccount-a"}},
    });
    change(&mut claims);
    claims
}

#[test]
fn an_account_that_finalizers_keep_is_gone_a_minute_after_its_deletion() {
    let auth = auth();
    let token = token(&auth, "a", json!({}));
    feed(
        &auth,
        &json!({"kind": "ServiceAccount", "metadata": {
            "namespace": "shop",
            "name": "a",
            "uid": "ServiceAccount-a",
            "deletionTimestamp": "2027-01-15T08:00:00Z",
            "finalizers": ["example.org/never"],
        }}),
    );
    assert_eq!(with_token(&auth, &token, later(60)), ACCOUNT_A);
    let gone = "401 the token's service account no longer exists";
    assert_eq!(with_token(&auth, &token, later(61)), gone);
}

#[test]
fn claims_that_are_not_ours_are_refused() {
    let auth = auth();
    let key = SigningKey::from_pem(&keys().ours).unwrap();
    let check = |expected: &str, change: &dyn Fn(&mut Value)| {
        let token = key.sign(&claims(change)).unwrap();
        let answer = with_token(&auth, &token, now());
        assert!(answer.starts_with(expected), "{answer}");
    };
    check("system:serviceaccount:shop:a", &|_| {});
    check("system:serviceaccount:shop:a", &|claims| {
        claims["aud"] = json!(ISSUER)
    });
    check("401 the token is for another audience", &|claims| {
        claims["aud"] = json!(["meshgate.dev/identity"])
    });
    check("401 the token is for another audience", &|claims| {
        claims["aud"] = json!([])
    });
    let not_ours = "401 invalid bearer token: not a service-account token";
    check(not_ours, &|claims| claims["aud"] = json!([7]));
    check(not_ours, &|claims| {
        claims["iss"] = json!("https://elsewhere")
    });
    check(not_ours, &|claims| {
        claims["sub"] = json!("system:serviceaccount:shop:b")
    });
    check(not_ours, &|claims| claims["sub"] = json!("system:masters"));
    check(not_ours, &|claims| claims["exp"] = json!("tomorrow"));
    check(not_ours, &|claims| claims["exp"] = Value::Null);
    check(not_ours, &|claims| claims["nbf"] = Value::Null);
    check(not_ours, &|claims| claims["kubernetes.io"] = json!({}));
    check(not_ours, &|claims| {
        claims["kubernetes.io"]["pod"] = json!("a")
    });
    check("401 the token's service account", &|claims| {
        claims["kubernetes.io"]["serviceaccount"]["uid"] = json!("older");
    });
}

#[test]
fn signatures_that_are_not_ours_are_refused() {
    let auth = auth();
    let ours = SigningKey::from_pem(&keys().ours).unwrap();
    let other = SigningKey::from_pem(&keys().other).unwrap();
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let good = ours.sign(&claims(|_| {})).unwrap();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let forged = encode(&claims(|claims| {
        claims["sub"] = json!("system:serviceaccount:shop:b")
    }));
    let headed = |header: Value| format!("{}.{payload}.{signature}", encode(&header));
    let check = |token: &str, expected: &str| {
        assert_eq!(
            with_token(&auth, token, now()),
            format!("401 invalid bearer token: {expected}"),
            "{token}"
        );
    };
    check(
        &other.sign(&claims(|_| {})).unwrap(),
        "signed with an unknown key",
    );
    check(
        &format!("{header}.{forged}.{signature}"),
        "the signature is wrong",
    );
    check(&format!("{header}.{payload}."), "the signature is wrong");
    check(&headed(json!({"alg": "ES256"})), "the signature is wrong");
    check(
        &headed(json!({"alg": "none"})),
        "signed with an algorithm that is not accepted",
    );
    check(
        &headed(json!({"alg": "HS256"})),
        "signed with an algorithm that is not accepted",
    );
    check(
        &headed(json!({"alg": "RS256"})),
        "signed with an algorithm that is not accepted",
    );
    check(
        &headed(json!({"alg": "ES256", "crit": ["exp"]})),
        "signed with an algorithm that is not accepted",
    );
    check(
        &headed(json!({"alg": "ES256", "kid": "another"})),
        "signed with an unknown key",
    );
    check(
        &headed(json!({"alg": "ES256", "kid": 7})),
        "signed with an unknown key",
    );
    check(&format!("{payload}.{signature}"), "not a signed token");
    check(&format!("{good}="), "not a signed token");
    check(
        &format!("{good}.{}", "x".repeat(20_000)),
        "not a signed token",
    );
    assert_eq!(with_token(&auth, &good, now()), ACCOUNT_A);
}

proptest::proptest! {
    /// Whatever is changed in a good token or sent in its place: refused, and never a panic.
    #[test]
    fn no_other_text_is_a_token(position in 0usize..1000, byte in 1u8..128, text in "[ -~]{0,80}") {
        let auth = auth_with_key(&keys().ours);
        let key = SigningKey::from_pem(&keys().ours).unwrap();
        let good = key.sign(&claims(|_| {})).unwrap();
        let mut bytes = good.clone().into_bytes();
        let at = position % bytes.len();
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        proptest::prop_assume!(changed != good);
        for token in [changed, text] {
            let found = auth.token_user(&token, &[ISSUER.to_owned()], now());
            proptest::prop_assert!(found.is_err(), "{token}");
        }
    }
}

#[test]
fn rsa_keys_sign_too() {
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der = aws_lc_rs::encoding::AsDer::as_der(&key).unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    let key = SigningKey::from_pem(&pem).unwrap();
    let token = key.sign(&json!({"a": 1})).unwrap();
    assert_eq!(key.verify(&token), Ok(json!({"a": 1})));
    let set = key.key_set();
    assert_eq!(
        (&set["keys"][0]["alg"], &set["keys"][0]["e"]),
        (&json!("RS256"), &json!("AQAB"))
    );
}

#[test]
fn client_certificates_name_user_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let options = ClusterPkiOptions {
        api_addresses: Vec::new(),
        api_names: Vec::new(),
        api_url_host: String::new(),
        api_url_inside: String::new(),
        cluster_name: "test".to_owned(),
        nodes: Vec::new(),
    };
    ClusterPki::ensure_at(dir.path(), &options, now()).unwrap();
    let pem = std::fs::read(dir.path().join("pki/clients/push.crt")).unwrap();
    let chain = [CertificateDer::from_pem_slice(&pem).unwrap()];
    let headers = HeaderMap::new();
    let request = Request {
        path: "/api",
        headers: &headers,
        peer: Some(&chain),
    };
    let auth = auth();
    let push = auth.authenticate(&request, now()).unwrap();
    assert_eq!(push.name, "meshgate:push");
    assert_eq!(push.groups, ["meshgate:control", "system:authenticated"]);
    let years_later = later(2 * 365 * 24 * 3600);
    assert_eq!(
        auth.authenticate(&request, years_later).unwrap_err().code(),
        401
    );
}

#[test]
fn impersonation_needs_the_right_to_it() {
    let auth = auth();
    feed(
        &auth,
        &json!({
            "kind": "ClusterRole",
            "metadata": {"name": "impersonator"},
            "rules": [
                {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob", "system:anonymous"]},
                {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["readers"]},
                {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]},
                {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"]},
            ],
        }),
    );
    feed(
        &auth,
        &json!({
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "impersonator"},
            "roleRef": {"kind": "ClusterRole", "name": "impersonator"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "a"}],
        }),
    );
    let token = format!("Bearer {}", token(&auth, "a", json!({})));
    let check = |headers: &[(&str, &str)], expected: &str| {
        let mut all = vec![("authorization", token.as_str())];
        all.extend_from_slice(headers);
        let answer = who(&auth, "/api", &all, now());
        assert!(answer.starts_with(expected), "{headers:?}: {answer}");
    };
    check(&[("impersonate-user", "bob")], "bob [system:authenticated]");
    check(
        &[
            ("impersonate-user", "bob"),
            ("impersonate-group", "readers"),
        ],
        "bob [readers system:authenticated]",
    );
    check(
        &[
            ("impersonate-user", "bob"),
            ("impersonate-extra-scopes", "x"),
        ],
        "bob [",
    );
    check(
        &[("impersonate-user", "system:anonymous")],
        "system:anonymous [system:unauthenticated]",
    );
    check(
        &[("impersonate-user", "system:serviceaccount:shop:b")],
        "system:serviceaccount:shop:b [system:serviceaccounts system:serviceaccounts:shop system:authenticated]",
    );
    check(
        &[("impersonate-user", "ann")],
        "403 users \"ann\" is forbidden: User \"system:serviceaccount:shop:a\" cannot impersonate",
    );
    check(
        &[
            ("impersonate-user", "bob"),
            ("impersonate-group", "system:masters"),
        ],
        "403 groups \"system:masters\" is forbidden",
    );
    check(
        &[("impersonate-user", "bob"), ("impersonate-uid", "1")],
        "403 uids",
    );
    check(
        &[
            ("impersonate-user", "bob"),
            ("impersonate-extra-other", "x"),
        ],
        "403 userextras",
    );
    check(
        &[("impersonate-group", "readers")],
        "403 impersonation: a user must be named",
    );
    check(
        &[("impersonate-user", "bob"), ("impersonate-colour", "red")],
        "403 impersonation: an unknown header",
    );
}
