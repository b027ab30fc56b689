//! Who gets a certificate, and who does not.

use std::{sync::Arc, time::Duration};

use http::{Request as HttpRequest, Response as HttpResponse};
use jiff::Timestamp;
use kube::{Client, client::Body};
use meshgate_api::push::{CertifyRequest, identity_server::Identity};
use meshgate_certs::{
    authority::Authority,
    csr,
    identity::{SpiffeId, TrustDomain},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tonic::Request;

use super::IdentityService;
use crate::metrics::Metrics;

/// An API server that knows some tokens.
fn reviewer() -> Client {
    let service = tower::service_fn(|request: HttpRequest<Body>| async move {
        assert_eq!(
            request.uri().path(),
            "/apis/authentication.k8s.io/v1/tokenreviews"
        );
        let body = request.into_body().collect_bytes().await.expect("a body");
        let mut review: Value = serde_json::from_slice(&body).expect("a TokenReview");
        assert_eq!(
            review["spec"]["audiences"],
            json!(["meshgate.dev/identity"])
        );
        let ours = json!(["meshgate.dev/identity"]);
        review["status"] = match review["spec"]["token"].as_str().expect("a token") {
            "catalog" => json!({
                "authenticated": true,
                "audiences": ours,
                "user": {
                    "username": "system:serviceaccount:shop:catalog",
                    "extra": { "authentication.kubernetes.io/pod-name": ["catalog-1"] },
                },
            }),
            "alice" => {
                json!({ "authenticated": true, "audiences": ours, "user": { "username": "alice" } })
            }
            "no-audience" => {
                json!({ "authenticated": true, "user": { "username": "system:serviceaccount:shop:catalog" } })
            }
            "audience" => json!({ "error": "token audiences are not valid" }),
            "outage" => {
                let error = json!({ "kind": "Status", "status": "Failure", "code": 500, "message": "down" });
                return Ok(answer(500, &error));
            }
            _ => json!({ "authenticated": false, "error": "token has expired" }),
        };
        Ok::<_, std::convert::Infallible>(answer(201, &review))
    });
    Client::new(service, "default")
}

fn answer(code: u16, body: &Value) -> HttpResponse<Body> {
    HttpResponse::builder()
        .status(code)
        .body(Body::from(body.to_string().into_bytes()))
        .expect("a response")
}

fn service() -> IdentityService {
    let domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
    let authority = Authority::generate(&domain, Timestamp::now()).expect("a root");
    let ttl = Duration::from_secs(60);
    IdentityService::new(reviewer(), Arc::new(authority), domain, ttl, Metrics::new())
}

fn catalog() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/catalog"
        .parse()
        .expect("an identity")
}

fn request(csr_der: Vec<u8>, authorization: Option<&str>) -> Request<CertifyRequest> {
    let mut request = Request::new(CertifyRequest { csr_der });
    if let Some(value) = authorization {
        request
            .metadata_mut()
            .insert("authorization", value.parse().expect("a header value"));
    }
    request
}

/// A request made by hand.
fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(catalog().as_str().try_into().expect("ASCII"))];
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    params
        .serialize_request(&key)
        .expect("a request")
        .der()
        .to_vec()
}

async fn check(csr_der: Vec<u8>, authorization: Option<&str>, expected: &str) {
    let shown = match service().certify(request(csr_der, authorization)).await {
        Ok(response) => {
            let leaf = CertificateDer::from(response.get_ref().chain_der[0].clone());
            format!(
                "signed {}",
                SpiffeId::of_certificate(&leaf).expect("an identity")
            )
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    };
    assert_eq!(shown, expected);
}

fn own() -> Vec<u8> {
    csr::generate(&catalog()).expect("a request").csr_der
}

#[tokio::test]
async fn the_token_decides_who_it_is() {
    check(
        own(),
        Some("Bearer catalog"),
        "signed spiffe://cluster.local/ns/shop/sa/catalog",
    )
    .await;
    for missing in [None, Some("Bearer "), Some("Basic catalog")] {
        check(
            own(),
            missing,
            "Unauthenticated: a bearer token is required",
        )
        .await;
    }
    let huge = format!("Bearer {}", "x".repeat(20_000));
    check(
        own(),
        Some(&huge),
        "Unauthenticated: a bearer token is required",
    )
    .await;
    let refused = "Unauthenticated: the token was refused:";
    check(
        own(),
        Some("Bearer expired"),
        &format!("{refused} token has expired"),
    )
    .await;
    check(
        own(),
        Some("Bearer audience"),
        &format!("{refused} token audiences are not valid"),
    )
    .await;
    let other = "Unauthenticated: the token is not for meshgate.dev/identity";
    check(own(), Some("Bearer no-audience"), other).await;
    check(
        own(),
        Some("Bearer alice"),
        "PermissionDenied: the token is not of a service account",
    )
    .await;
    check(
        own(),
        Some("Bearer outage"),
        "Unavailable: tokens cannot be reviewed now",
    )
    .await;
}

#[tokio::test]
async fn the_request_must_ask_for_exactly_that() {
    let token = Some("Bearer catalog");
    let other: SpiffeId = "spiffe://cluster.local/ns/shop/sa/other"
        .parse()
        .expect("an identity");
    let other = csr::generate(&other).expect("a request").csr_der;
    let refused = "PermissionDenied: the signing request";
    check(
        other,
        token,
        &format!("{refused} names another identity than the one proven"),
    )
    .await;
    let authority = made(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    check(
        authority,
        token,
        &format!("{refused} asks to be an authority"),
    )
    .await;
    let two = made(|params| {
        let name = "a.test".try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::DnsName(name));
    });
    check(two, token, &format!("{refused} must name one identity")).await;
    check(
        b"junk".to_vec(),
        token,
        &format!("{refused} is not PKCS#10"),
    )
    .await;
    check(
        vec![0; 10_000],
        token,
        &format!("{refused} is larger than 8192 bytes"),
    )
    .await;
}

#[tokio::test]
async fn asking_too_often_is_refused() {
    let service = service();
    let csr_der = own();
    let mut signed = 0;
    for _ in 0..40 {
        match service
            .certify(request(csr_der.clone(), Some("Bearer catalog")))
            .await
        {
            Ok(_) => signed += 1,
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::ResourceExhausted);
                assert!(signed >= 20);
                return;
            }
        }
    }
    panic!("{signed} certificates were signed at once");
}
