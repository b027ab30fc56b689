//! Starts a server on a port of its own and speaks to it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use meshgate_apiserver::{Options, Running, start};
use meshgate_certs::cluster::{ClusterPki, ClusterPkiOptions};
use meshgate_store::Store;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long; a test that waits in vain fails instead of hanging.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running server with a data directory of its own.
pub(crate) struct Api {
    dir: tempfile::TempDir,
    address: SocketAddr,
    admin: Arc<rustls::ClientConfig>,
    anonymous: Arc<rustls::ClientConfig>,
    shutdown: CancellationToken,
    running: Option<Running>,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let values = self.headers.get_all(http::header::WARNING).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }
}

/// Credentials of a request.
#[derive(Clone, Copy)]
pub(crate) enum As<'a> {
    Admin,
    Anonymous,
    Token(&'a str),
}

impl Api {
    pub(crate) async fn start() -> Api {
        Api::start_in(tempfile::tempdir().expect("a temporary directory")).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Api {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let url = format!("https://{address}");
        let options = ClusterPkiOptions {
            api_addresses: vec![address.ip()],
            api_names: Vec::new(),
            api_url_host: url.clone(),
            api_url_inside: url,
            cluster_name: "test".into(),
            nodes: Vec::new(),
        };
        let pki = ClusterPki::ensure(dir.path(), &options).expect("keys can be made");
        let (admin, anonymous) = clients(pki.ca_pem(), &pki.admin_kubeconfig);
        let shutdown = CancellationToken::new();
        let options = Options {
            store: Store::open(&dir.path().join("store.redb")).expect("the store is sound"),
            pki,
            listeners: vec![listener],
            advertise: address,
            service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        };
        let running = start(options, shutdown.clone())
            .await
            .expect("the server starts");
        let api = Api {
            dir,
            address,
            admin,
            anonymous,
            shutdown,
            running: Some(running),
        };
        // Pods are admitted with an account, which controllers would make.
        let account = r#"{"metadata":{"name":"default"}}"#;
        let answer = api
            .ask("POST /api/v1/namespaces/default/serviceaccounts", account)
            .await;
        assert!(matches!(answer.code, 201 | 409), "{}", answer.text);
        api
    }

    /// Stops the server and starts it again on the same data.
    pub(crate) async fn restart(mut self) -> Api {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            running.wait().await;
        }
        // The last handle of the store must be gone before the file can be opened again.
        let dir = std::mem::replace(
            &mut self.dir,
            tempfile::tempdir().expect("a temporary directory"),
        );
        drop(self);
        Api::start_in(dir).await
    }

    pub(crate) fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("pki/ca.crt")).expect("the CA is there")
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sends a request; `request` is `METHOD PATH`, and a body of a patch is sent as a merge patch.
    pub(crate) async fn ask(&self, request: &str, body: &str) -> Answer {
        self.ask_as(As::Admin, request, body, &[]).await
    }

    pub(crate) async fn ask_as(
        &self,
        who: As<'_>,
        request: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let response = self
            .open(who, request, body.to_owned().into_bytes(), headers)
            .await;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(DEADLINE, body.collect())
            .await
            .expect("an answer in time");
        let bytes = body.expect("a whole answer").to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// Creates an object that nothing is wrong with.
    pub(crate) async fn create(&self, path: &str, body: &str) -> Value {
        let answer = self.ask(&format!("POST {path}"), body).await;
        assert_eq!(answer.code, 201, "{path} {body}: {}", answer.text);
        answer.json()
    }

    /// Sends a request and returns the head of its answer with the body still to come.
    pub(crate) async fn open(
        &self,
        who: As<'_>,
        request: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let tls = match who {
            As::Admin => &self.admin,
            As::Anonymous | As::Token(_) => &self.anonymous,
        };
        let (method, path) = request.split_once(' ').expect("METHOD PATH");
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string());
        if let As::Token(token) = who {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        let default = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            builder = builder.header("content-type", default);
        }
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let request = builder
            .body(Full::new(Bytes::from(body)))
            .expect("a sound request");
        let mut sender = connect(self.address, Arc::clone(tls)).await;
        let response = tokio::time::timeout(DEADLINE, sender.send_request(request)).await;
        response.expect("an answer in time").expect("an answer")
    }

    /// Asserts the answer to a request: `expected` is the code and then `path=json` pairs, e.g.
    /// `404 reason="NotFound" details.kind="pods"`; `-` stands for a missing value.
    pub(crate) async fn check(&self, request: &str, body: &str, expected: &str) -> Value {
        let answer = self.ask(request, body).await;
        let mut words = expected.split_whitespace();
        let code: u16 = words
            .next()
            .and_then(|code| code.parse().ok())
            .expect("a code first");
        assert_eq!(answer.code, code, "{request} {body}: {}", answer.text);
        let object = answer.json();
        for word in words {
            let (path, value) = word.split_once('=').expect("path=json");
            let got = dig(&object, path).map_or_else(|| "-".to_owned(), ToString::to_string);
            assert_eq!(got, value, "{path} of {request} {body}: {}", answer.text);
        }
        object
    }

    /// Opens a watch; its head has come when this returns.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let response = self
            .open(As::Admin, &format!("GET {path}"), Vec::new(), &[])
            .await;
        assert_eq!(response.status(), 200, "{path}");
        Watch {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Events as they come.
pub(crate) struct Watch {
    body: Incoming,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event; `None` when the server has ended the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).expect("an event is JSON"));
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame())
                .await
                .expect("an event in time")?;
            if let Ok(data) = frame.expect("the watch is whole").into_data() {
                self.rest.extend_from_slice(&data);
            }
        }
    }

    /// The next event as `TYPE name`.
    pub(crate) async fn short(&mut self) -> String {
        match self.next().await {
            Some(event) => format!(
                "{} {}",
                event["type"].as_str().unwrap_or_default(),
                event["object"]["metadata"]["name"].as_str().unwrap_or("-")
            ),
            None => "end".to_owned(),
        }
    }
}

pub(crate) fn dig<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(object, |value, part| match part.parse::<usize>() {
            Ok(at) if value.is_array() => value.get(at),
            _ => value.get(part),
        })
}

async fn connect(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("the server listens");
    let name = ServerName::from(address.ip());
    let stream = tokio_rustls::TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .expect("TLS works");
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP works");
    // Ends with its request.
    tokio::spawn(connection);
    sender
}

/// The admin of the kubeconfig, and nobody.
fn clients(
    ca_pem: &str,
    kubeconfig: &Path,
) -> (Arc<rustls::ClientConfig>, Arc<rustls::ClientConfig>) {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots
            .add(certificate.expect("the CA is PEM"))
            .expect("the CA is a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = || {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3 is there");
        builder.with_root_certificates(roots.clone())
    };
    let text = std::fs::read_to_string(kubeconfig).expect("the kubeconfig is there");
    let config: Value = serde_norway::from_str(&text).expect("the kubeconfig is YAML");
    let user = &config["users"][0]["user"];
    let pem = |field: &str| {
        let text = user[field]
            .as_str()
            .expect("the kubeconfig carries its keys");
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .expect("base64")
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&pem("client-certificate-data")).collect();
    let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data")).expect("a key");
    let admin = builder()
        .with_client_auth_cert(chain.expect("PEM"), key)
        .expect("the key fits");
    (Arc::new(admin), Arc::new(builder().with_no_client_auth()))
}
