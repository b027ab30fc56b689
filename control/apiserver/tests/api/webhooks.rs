//! Mutating webhooks, against one that runs in the test.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::Api;

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const CMS: &str = "/api/v1/namespaces/default/configmaps";

/// What a test's webhook answers to a request: the `response` without its uid.
type Behaviour = fn(&Value) -> Value;

struct Webhook {
    url: String,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    /// Serves with the certificate that the API server serves with itself: it is valid for 127.0.0.1.
    async fn start(api: &Api, behaviour: Behaviour) -> Webhook {
        let pem = |name: &str| {
            std::fs::read(api.data_dir().join("pki").join(name)).expect("the key is there")
        };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&pem("api-server.crt")).collect();
        let key = PrivateKeyDer::from_pem_slice(&pem("api-server.key")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3 is there")
            .with_no_client_auth()
            .with_single_cert(chain.expect("PEM"), key)
            .expect("the key fits");
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!(
            "https://{}/mutate",
            listener.local_addr().expect("it is bound")
        );
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let log = Arc::clone(&seen);
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, log) = (tls.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    let service =
                        service_fn(move |request| answer(request, behaviour, Arc::clone(&log)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Webhook { url, seen }
    }

    async fn register(&self, api: &Api, name: &str, more: Value) {
        let ca = base64::engine::general_purpose::STANDARD.encode(api.ca_pem());
        let mut webhook = json!({
            "name": format!("{name}.a.test"),
            "clientConfig": {"url": self.url, "caBundle": ca},
            "rules": [{"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
        });
        for (field, value) in more.as_object().expect("fields of a webhook") {
            webhook[field] = value.clone();
        }
        api.create(
            CONFIGURATIONS,
            &json!({"metadata": {"name": name}, "webhooks": [webhook]}).to_string(),
        )
        .await;
    }

    fn requests(&self) -> Vec<Value> {
        self.seen.lock().expect("no webhook panics").clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    behaviour: Behaviour,
    log: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let request = &review["request"];
    log.lock().expect("no webhook panics").push(request.clone());
    let mut response = behaviour(request);
    if response.get("uid").is_none() {
        response["uid"] = request["uid"].clone();
    }
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    Ok(Response::new(Full::from(review.to_string())))
}

fn patch(steps: &Value) -> Value {
    let steps = base64::engine::general_purpose::STANDARD.encode(steps.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": steps, "warnings": ["patched"]})
}

fn adds_data(_: &Value) -> Value {
    patch(&json!([{"op": "add", "path": "/data", "value": {"added": "yes"}}]))
}

fn refuses(_: &Value) -> Value {
    json!({"allowed": false, "status": {"message": "not today", "code": 418}})
}

fn mistakes_the_uid(_: &Value) -> Value {
    json!({"allowed": true, "uid": "another"})
}

fn counts(request: &Value) -> Value {
    let count = request["object"]["metadata"]["annotations"]["count"]
        .as_str()
        .and_then(|text| text.parse::<u32>().ok());
    patch(
        &json!([{"op": "add", "path": "/metadata/annotations", "value": {"count": (count.unwrap_or(0) + 1).to_string()}}]),
    )
}

#[tokio::test]
async fn a_webhook_changes_what_is_stored() {
    let api = Api::start().await;
    let webhook = Webhook::start(&api, adds_data).await;
    webhook.register(&api, "adds", json!({})).await;
    let answer = api
        .ask(&format!("POST {CMS}"), r#"{"metadata":{"name":"a"}}"#)
        .await;
    assert_eq!(
        (answer.code, answer.warnings()),
        (201, vec![r#"299 - "patched""#.to_owned()])
    );
    api.check(&format!("GET {CMS}/a"), "", r#"200 data.added="yes""#)
        .await;
    let request = &webhook.requests()[0];
    assert_eq!(
        (&request["operation"], &request["kind"]["kind"]),
        (&"CREATE".into(), &"ConfigMap".into())
    );
    assert_eq!(
        (&request["oldObject"], &request["dryRun"]),
        (&Value::Null, &false.into())
    );
    assert_eq!(request["userInfo"]["username"], "meshgate-admin");
    api.check(&format!("DELETE {CMS}/a"), "", "200").await;
    let requests = webhook.requests();
    assert_eq!(
        (&requests[1]["operation"], &requests[1]["object"]),
        (&"DELETE".into(), &Value::Null)
    );
    api.create(
        "/api/v1/namespaces/default/secrets",
        r#"{"metadata":{"name":"s"}}"#,
    )
    .await;
    assert_eq!(
        webhook.requests().len(),
        2,
        "its rules are about ConfigMaps"
    );
}

#[tokio::test]
async fn a_webhook_says_no() {
    let api = Api::start().await;
    Webhook::start(&api, refuses)
        .await
        .register(&api, "refuses", json!({}))
        .await;
    let refusal = api
        .check(
            &format!("POST {CMS}"),
            r#"{"metadata":{"name":"a"}}"#,
            "418",
        )
        .await;
    assert_eq!(
        refusal["message"],
        r#"admission webhook "refuses.a.test" denied the request: not today"#
    );
    // A broken or hostile webhook can always be removed.
    api.check(&format!("DELETE {CONFIGURATIONS}/refuses"), "", "200")
        .await;
    api.create(CMS, r#"{"metadata":{"name":"a"}}"#).await;
}

#[tokio::test]
async fn a_failing_webhook_is_obeyed_or_ignored() {
    let api = Api::start().await;
    let webhook = Webhook::start(&api, mistakes_the_uid).await;
    webhook.register(&api, "odd", json!({})).await;
    api.check(
        &format!("POST {CMS}"),
        r#"{"metadata":{"name":"a"}}"#,
        r#"500 reason="InternalError""#,
    )
    .await;
    api.check(&format!("DELETE {CONFIGURATIONS}/odd"), "", "200")
        .await;
    webhook
        .register(&api, "odd", json!({"failurePolicy": "Ignore"}))
        .await;
    api.create(CMS, r#"{"metadata":{"name":"a"}}"#).await;
}

#[tokio::test]
async fn selectors_and_dry_runs() {
    let api = Api::start().await;
    let webhook = Webhook::start(&api, adds_data).await;
    let more = json!({"sideEffects": "NoneOnDryRun", "namespaceSelector": {"matchLabels": {"hooked": "yes"}}});
    webhook.register(&api, "some", more).await;
    api.check(
        &format!("POST {CMS}"),
        r#"{"metadata":{"name":"a"}}"#,
        "201 data=-",
    )
    .await;
    api.create(
        "/api/v1/namespaces",
        r#"{"metadata":{"name":"hooked","labels":{"hooked":"yes"}}}"#,
    )
    .await;
    let path = "/api/v1/namespaces/hooked/configmaps?dryRun=All";
    api.check(
        &format!("POST {path}"),
        r#"{"metadata":{"name":"a"}}"#,
        r#"201 data.added="yes""#,
    )
    .await;
    assert_eq!(webhook.requests()[0]["dryRun"], true);
}

#[tokio::test]
async fn an_earlier_webhook_sees_later_changes_if_it_wants_to() {
    let api = Api::start().await;
    let (first, second) = (
        Webhook::start(&api, counts).await,
        Webhook::start(&api, adds_data).await,
    );
    first
        .register(&api, "a-first", json!({"reinvocationPolicy": "IfNeeded"}))
        .await;
    second.register(&api, "b-second", json!({})).await;
    api.check(
        &format!("POST {CMS}"),
        r#"{"metadata":{"name":"a"}}"#,
        r#"201 metadata.annotations.count="2""#,
    )
    .await;
    assert_eq!((first.requests().len(), second.requests().len()), (2, 1));
}

#[tokio::test]
async fn a_service_is_found_by_its_endpoints() {
    let api = Api::start().await;
    let webhook = Webhook::start(&api, adds_data).await;
    let service =
        json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    api.create("/api/v1/namespaces/default/services", &service.to_string())
        .await;
    let client = |name: &str| json!({"clientConfig": {"service": {"namespace": "default", "name": name, "path": "/mutate"}}});
    let problem = async |name: &'static str, expected: &str| {
        webhook.register(&api, name, client(name)).await;
        let refused = api
            .check(
                &format!("POST {CMS}"),
                r#"{"metadata":{"name":"a"}}"#,
                "500",
            )
            .await;
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(message.contains(expected), "{name}: {message}");
        api.check(&format!("DELETE {CONFIGURATIONS}/{name}"), "", "200")
            .await;
    };
    problem("missing", "service \"missing\" not found").await;
    problem("hook", "no endpoints available").await;
    // The API server's own Service has an endpoint with a certificate for its name, but is no webhook.
    problem("kubernetes", "the server answered 40").await;
}

#[tokio::test]
async fn what_is_not_honoured_is_refused() {
    let api = Api::start().await;
    let configuration = json!({"metadata": {"name": "c"}, "webhooks": [{
        "name": "c.a.test",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "matchConditions": [{"name": "n", "expression": "true"}],
    }]});
    let expected = r#"422 details.causes.0.field="webhooks[0].matchConditions""#;
    api.check(
        &format!("POST {CONFIGURATIONS}"),
        &configuration.to_string(),
        expected,
    )
    .await;
}
