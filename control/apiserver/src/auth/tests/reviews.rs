//! Reviews and token requests, as clients see them.

use meshgate_schema::Failure;
use serde_json::json;

use super::*;
use crate::auth::{ISSUER, Review};

fn review(auth: &Auth, kind: Review, user: &User, spec: Value) -> Result<Value, Failure> {
    let body = json!({"metadata": {}, "spec": spec});
    let answer = auth.create_review(kind, user, "shop", body, now())?;
    Ok(answer["status"].clone())
}

fn refusal(result: Result<Value, Failure>) -> String {
    let failure = result.unwrap_err();
    format!("{} {}", failure.code, failure.message)
}

#[test]
fn access_reviews_answer_with_the_reason() {
    let auth = auth();
    let admin = user("root", &["system:masters"]);
    let get = |resource: &str| json!({"verb": "get", "resource": resource, "namespace": "shop"});
    let of_bob = json!({"user": "bob", "resourceAttributes": get("pods")});
    let status = review(&auth, Review::SubjectAccess, &admin, of_bob).unwrap();
    assert_eq!(status, json!({"allowed": false}));
    let of_groups = json!({"groups": ["system:authenticated"], "nonResourceAttributes": {"verb": "get", "path": "/api"}});
    let status = review(&auth, Review::SubjectAccess, &admin, of_groups).unwrap();
    let reason = r#"RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" to Group "system:authenticated""#;
    assert_eq!(status, json!({"allowed": true, "reason": reason}));
    let own = json!({"resourceAttributes": get("secrets")});
    let status = review(&auth, Review::SelfSubjectAccess, &admin, own.clone()).unwrap();
    assert_eq!(status["allowed"], true);
    let status = review(&auth, Review::SelfSubjectAccess, &node("a"), own).unwrap();
    assert_eq!(status["allowed"], false);
    let local = json!({"user": "bob", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "other"}});
    assert!(refusal(review(&auth, Review::LocalSubjectAccess, &admin, local)).starts_with("400"));
    let both = json!({"user": "bob", "resourceAttributes": {}, "nonResourceAttributes": {}});
    assert!(refusal(review(&auth, Review::SubjectAccess, &admin, both)).starts_with("422"));
    let nobody = json!({"resourceAttributes": get("pods")});
    assert!(refusal(review(&auth, Review::SubjectAccess, &admin, nobody)).starts_with("422"));
}

#[test]
fn rules_reviews_list_what_the_user_may() {
    let auth = auth();
    let rules = |user: &User| {
        review(
            &auth,
            Review::SelfSubjectRules,
            user,
            json!({"namespace": "shop"}),
        )
        .unwrap()
    };
    let of_admin = rules(&user("root", &["system:masters"]));
    let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    assert!(
        of_admin["resourceRules"].as_array().unwrap().contains(&all),
        "{of_admin}"
    );
    let of_bob = rules(&user("bob", &[]));
    assert!(
        !of_bob["resourceRules"].as_array().unwrap().contains(&all),
        "{of_bob}"
    );
    assert_eq!(of_bob["incomplete"], false);
    assert_eq!(rules(&node("a"))["incomplete"], true);
}

#[test]
fn token_reviews_tell_whose_token_it_is() {
    let auth = auth();
    let admin = user("root", &["system:masters"]);
    let wanted = json!({"spec": {
        "audiences": ["meshgate.dev/identity"],
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "a", "uid": "pod-a"},
    }});
    let made = auth
        .create_token(&node("a"), "shop", "a", wanted, now())
        .unwrap();
    let token = &made["status"]["token"];
    let ask = |audiences: Value| {
        review(
            &auth,
            Review::Token,
            &admin,
            json!({"token": token, "audiences": audiences}),
        )
        .unwrap()
    };
    let status = ask(json!(["other", "meshgate.dev/identity"]));
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["meshgate.dev/identity"]));
    assert_eq!(status["user"]["username"], "system:serviceaccount:shop:a");
    assert_eq!(
        status["user"]["extra"]["authentication.kubernetes.io/pod-uid"],
        json!(["pod-a"])
    );
    assert_eq!(
        status["user"]["extra"]["authentication.kubernetes.io/node-name"],
        json!(["a"])
    );
    let for_api_server = json!({"user": {}, "error": "the token is for another audience"});
    assert_eq!(ask(json!([])), for_api_server);
    let bad = review(&auth, Review::Token, &admin, json!({"token": "x"})).unwrap();
    assert_eq!(bad["error"], "invalid bearer token: not a signed token");
    assert!(refusal(review(&auth, Review::Token, &admin, json!({}))).starts_with("400"));
}

#[test]
fn token_requests_are_checked() {
    let auth = auth();
    let check = |user: &User, account: &str, spec: Value, expected: &str| {
        let body = json!({"spec": spec});
        let answer = match auth.create_token(user, "shop", account, body, now()) {
            Ok(made) => format!(
                "until {}",
                made["status"]["expirationTimestamp"].as_str().unwrap()
            ),
            Err(failure) => format!("{} {}", failure.code, failure.message),
        };
        assert!(answer.starts_with(expected), "{account} {spec}: {answer}");
    };
    let admin = user("root", &["system:masters"]);
    let pod = |name: &str, uid: &str| json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid});
    check(&admin, "a", json!({}), "until 2027-01-15T09:00:00Z");
    check(
        &admin,
        "a",
        json!({"expirationSeconds": 600}),
        "until 2027-01-15T08:10:00Z",
    );
    check(&admin, "a", json!({"expirationSeconds": 599}), "422");
    check(&admin, "a", json!({"expirationSeconds": 1u64 << 33}), "422");
    check(&admin, "a", json!({"expirationSeconds": "long"}), "422");
    check(
        &admin,
        "missing",
        json!({}),
        "404 serviceaccounts \"missing\" not found",
    );
    check(
        &admin,
        "a",
        json!({"boundObjectRef": pod("a", "pod-a")}),
        "until",
    );
    check(
        &admin,
        "a",
        json!({"boundObjectRef": pod("a", "old")}),
        "409",
    );
    check(
        &admin,
        "a",
        json!({"boundObjectRef": pod("b", "pod-b")}),
        "400",
    );
    check(&admin, "a", json!({"boundObjectRef": pod("c", "")}), "404");
    check(
        &admin,
        "a",
        json!({"boundObjectRef": {"kind": "ConfigMap", "name": "x"}}),
        "400",
    );
    // A node asks for the pods that run on it, and for the audiences that they name.
    check(&node("a"), "a", json!({}), "403");
    check(
        &node("a"),
        "a",
        json!({"boundObjectRef": pod("a", "pod-a")}),
        "until",
    );
    check(
        &node("b"),
        "a",
        json!({"boundObjectRef": pod("a", "pod-a")}),
        "403",
    );
    let with_audience =
        |audience: &str| json!({"audiences": [audience], "boundObjectRef": pod("a", "pod-a")});
    check(
        &node("a"),
        "a",
        with_audience("meshgate.dev/identity"),
        "until",
    );
    check(&node("a"), "a", with_audience("vault"), "403");
}

#[test]
fn users_learn_who_they_are() {
    let auth = auth();
    let status = review(
        &auth,
        Review::SelfSubject,
        &user("bob", &["readers"]),
        json!({}),
    )
    .unwrap();
    assert_eq!(
        status["userInfo"],
        json!({"username": "bob", "groups": ["readers", "system:authenticated"]})
    );
}

#[test]
fn keys_are_published_for_others_to_verify_tokens() {
    let auth = auth();
    let keys = auth.jwks();
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    assert!(
        keys["keys"][0].get("d").is_none(),
        "the private key stays here"
    );
    assert_eq!(auth.openid_configuration()["issuer"], ISSUER);
}
