//! The injector's webhook, and the part's own `/metrics` and `/healthz`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::Listener,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    inject::{self, InjectOptions, Outcome},
    metrics::{AdmissionLabel, Metrics},
    server::Connection,
    table::Table,
    xds::replicas::Replicas,
};

/// Pods are at most as large as what the API server takes.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Webhook {
    pub(crate) options: Arc<InjectOptions>,
    pub(crate) metrics: Metrics,
    pub(crate) table: Arc<Table>,
    pub(crate) replicas: Arc<Replicas>,
}

/// Connections that have been through their handshake, for axum.
pub(crate) struct Connections {
    pub(crate) receiver: mpsc::Receiver<Connection>,
    pub(crate) local: SocketAddr,
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.receiver.recv().await {
            Some(connection) => {
                let address = connection.peer.address;
                (connection, address)
            }
            // The listener ended; the server ends with its own signal.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}

pub(crate) fn router(webhook: Webhook) -> Router {
    Router::new()
        .route("/inject", post(admit))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(webhook)
}

async fn metrics(State(webhook): State<Webhook>) -> Response {
    let text = webhook.metrics.text(&webhook.table, &webhook.replicas);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn admit(State(webhook): State<Webhook>, Json(review): Json<Value>) -> Response {
    match answer(&review, &webhook.options) {
        Ok((response, result)) => {
            webhook
                .metrics
                .admissions
                .get_or_create(&AdmissionLabel { result })
                .inc();
            let answer = json!({
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "response": response,
            });
            Json(answer).into_response()
        }
        Err(problem) => (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
    }
}

/// `response` of an AdmissionReview (admission.k8s.io/v1), and its label in metrics.
fn answer(review: &Value, options: &InjectOptions) -> Result<(Value, &'static str), &'static str> {
    let request = &review["request"];
    let uid = request["uid"]
        .as_str()
        .ok_or("request.uid is missing: this is no AdmissionReview")?;
    let pod = request
        .get("object")
        .filter(|pod| pod.is_object())
        .ok_or("request.object is missing")?;
    let name = pod
        .pointer("/metadata/name")
        .or_else(|| pod.pointer("/metadata/generateName"));
    let name = name.and_then(Value::as_str).unwrap_or_default();
    let namespace = request["namespace"].as_str().unwrap_or_default();
    // The API server only asks for pods whose namespace or own label opted in.
    let (response, result) = match inject::inject_pod(pod, true, options) {
        Ok(Outcome::Inject(patch)) => {
            let patch = serde_json::to_vec(&patch).map_err(|_| "the patch cannot be written")?;
            let patch = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, patch);
            let response =
                json!({ "uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": patch });
            (response, "injected")
        }
        Ok(Outcome::Leave(reason)) => {
            let warnings: Vec<String> = reason
                .is_surprising()
                .then(|| format!("no sidecar was injected: {reason}"))
                .into_iter()
                .collect();
            (
                json!({ "uid": uid, "allowed": true, "warnings": warnings }),
                "left",
            )
        }
        Err(refusal) => {
            let message = format!("the sidecar cannot be injected: {refusal}");
            let status = json!({ "code": 400, "reason": "BadRequest", "message": message });
            (
                json!({ "uid": uid, "allowed": false, "status": status }),
                "refused",
            )
        }
    };
    tracing::debug!(namespace, pod = name, result, "admission");
    Ok((response, result))
}
