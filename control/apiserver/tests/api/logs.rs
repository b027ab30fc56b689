//! Logs, from an agent that runs in the test.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::{Api, As};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Answers with the path that it was asked for, to nobody but the API server.
async fn agent(api: &Api) -> u16 {
    let pem = |name: &str| {
        std::fs::read(api.data_dir().join("pki").join(name)).expect("the key is there")
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem("api-server.crt")).collect();
    let key = PrivateKeyDer::from_pem_slice(&pem("api-server.key")).expect("a key");
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(&pem("ca.crt")).expect("the CA is PEM");
    roots.add(ca).expect("the CA is a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3 is there")
        .with_client_cert_verifier(clients.build().expect("roots are there"))
        .with_single_cert(chain.expect("PEM"), key)
        .expect("the key fits");
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    // Ends with the test's runtime.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else {
                    return;
                };
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    });
    port
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let uri = request.uri().to_string();
    request.into_body().collect().await?;
    let mut response = Response::new(Full::from(uri.clone()));
    if uri.contains("previous=true") {
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        *response.body_mut() = Full::from("previous terminated container not found");
    }
    Ok(response)
}

#[tokio::test]
async fn a_log_comes_from_the_pods_node() {
    let api = Api::start().await;
    let port = agent(&api).await;
    api.create("/api/v1/nodes", r#"{"metadata":{"name":"n"}}"#)
        .await;
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    api.check("PATCH /api/v1/nodes/n/status", &status.to_string(), "200")
        .await;
    let pod = r#"{"metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}"#;
    api.create(PODS, pod).await;
    let log = api
        .ask(&format!("GET {PODS}/p/log?follow=true&tailLines=5"), "")
        .await;
    assert_eq!(
        (log.code, log.text.as_str()),
        (200, "/containerLogs/default/p/c?follow=true&tailLines=5")
    );
    assert_eq!(log.headers["content-type"], "text/plain");
    let refused = api
        .ask(&format!("GET {PODS}/p/log?previous=true"), "")
        .await;
    let message = refused.json()["message"].clone();
    assert_eq!(
        (refused.code, message.as_str()),
        (400, Some("previous terminated container not found"))
    );
    let anybody = api
        .ask_as(As::Anonymous, &format!("GET {PODS}/p/log"), "", &[])
        .await;
    assert!(matches!(anybody.code, 401 | 403));
}
