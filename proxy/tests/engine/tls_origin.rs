//! Origins that speak TLS, by certificates that tests make for them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Response;
use meshgate_proxy::{
    EndpointTls, OriginTls, OriginTlsSpec, Policy, Protocol, Service, ServiceSpec,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::kit::{endpoint, read_message};

/// Whom a policy may trust.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "origins");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for names and URIs.
    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_until(names, 2999)
    }

    pub(crate) fn leaf_until(&self, names: &[&str], year: i32) -> Leaf {
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains("://") {
                true => SanType::URI((*name).try_into().unwrap()),
                false => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            der: leaf.der().clone(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }
}

pub(crate) struct Leaf {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// What is behind the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inside {
    /// HTTP/1 or HTTP/2, by what was agreed.
    Http,
    /// Sends back what comes, after agreeing to change the protocol if that is asked for.
    Echo,
    /// Sends back the first that comes, and closes the connection without an end as TLS wants it.
    Cut,
}

/// A handshake as the server saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shaken {
    pub(crate) name: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) resumed: bool,
}

/// A server that speaks TLS.
pub(crate) struct TlsOrigin {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    shaken: Vec<Shaken>,
    /// Requests as they came, HTTP/2 ones as "SCHEME PATH".
    requests: Vec<String>,
    /// What came before the handshake.
    preludes: Vec<String>,
    /// A connection ended without an end as TLS wants it.
    broken: bool,
}

impl Drop for TlsOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TlsOrigin {
    pub(crate) async fn start(leaf: &Leaf, alpn: &[&str]) -> Self {
        Self::start_with(leaf, alpn, Inside::Http, false).await
    }

    /// With `announced`, each connection begins with a line.
    pub(crate) async fn start_with(
        leaf: &Leaf,
        alpn: &[&str],
        inside: Inside,
        announced: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config(leaf, alpn)));
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (acceptor, state) = (acceptor.clone(), shared.clone());
                connections.spawn(async move {
                    if announced {
                        let line = line(&mut stream).await;
                        state.lock().unwrap().preludes.push(line);
                    }
                    // Whom a client does not believe it leaves.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, inside, &state).await;
                    }
                });
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    pub(crate) fn shaken(&self) -> Vec<Shaken> {
        self.state.lock().unwrap().shaken.clone()
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn broken(&self) -> bool {
        self.state.lock().unwrap().broken
    }

    pub(crate) fn preludes(&self) -> Vec<String> {
        self.state.lock().unwrap().preludes.clone()
    }
}

fn config(leaf: &Leaf, alpn: &[&str]) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der.clone()], leaf.key.clone_key())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

async fn serve(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    inside: Inside,
    state: &Mutex<State>,
) {
    let session = stream.get_ref().1;
    let alpn = session.alpn_protocol().map(String::from_utf8_lossy);
    let shaken = Shaken {
        name: session.server_name().map(str::to_owned),
        alpn: alpn.map(std::borrow::Cow::into_owned),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
    };
    let http2 = shaken.alpn.as_deref() == Some("h2");
    state.lock().unwrap().shaken.push(shaken);
    match (inside, http2) {
        (Inside::Http, true) => serve_http2(stream, state).await,
        (Inside::Http, false) => serve_http1(stream, state).await,
        (Inside::Echo, _) => echo(stream, state).await,
        (Inside::Cut, _) => cut(stream).await,
    }
}

async fn cut(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0; 4096];
    let count = stream.read(&mut buffer).await.unwrap();
    stream.write_all(&buffer[..count]).await.unwrap();
    stream.flush().await.unwrap();
}

/// Every request is answered; the connection is kept unless the path says otherwise.
async fn serve_http1(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) {
    let mut buffer = Vec::new();
    while let Some(request) = read_message(&mut stream, &mut buffer).await {
        let closes = request.contains("/close");
        state.lock().unwrap().requests.push(request);
        let connection = if closes { "Connection: close\r\n" } else { "" };
        let answer = format!("HTTP/1.1 200 OK\r\n{connection}Content-Length: 5\r\n\r\nhello");
        if stream.write_all(answer.as_bytes()).await.is_err() || closes {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

async fn serve_http2(stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let uri = request.uri();
        let seen = format!("{} {}", uri.scheme_str().unwrap_or("none"), uri.path());
        state.lock().unwrap().requests.push(seen);
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data("hello".into(), true).unwrap();
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &Mutex<State>) {
    let mut buffer = vec![0; 4096];
    loop {
        let count = match stream.read(&mut buffer).await {
            Ok(0) => {
                // Whoever ended first may have gone.
                let _ = stream.shutdown().await;
                return;
            }
            Ok(count) => count,
            Err(_) => {
                state.lock().unwrap().broken = true;
                return;
            }
        };
        let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let answer = match said.contains("Upgrade: websocket") || said.contains("upgrade: websocket")
        {
            true => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: xyz\r\n\r\n".to_owned(),
            false => said.clone(),
        };
        state.lock().unwrap().requests.push(said);
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
}

/// What a policy asks of endpoints: authorities, the host, other names.
pub(crate) fn verified(cas: &[&Ca], hostname: &str, names: &[&str]) -> EndpointTls {
    let spec = OriginTlsSpec {
        hostname: hostname.into(),
        subject_alt_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ca_pem: cas.iter().map(|ca| ca.pem.clone()).collect(),
    };
    EndpointTls::Verified(Arc::new(OriginTls::new(spec).unwrap()))
}

pub(crate) fn policy(tls: EndpointTls) -> Policy {
    Policy {
        tls: Some(tls),
        ..Policy::default()
    }
}

/// A service of endpoints at these addresses.
pub(crate) fn spec(addresses: &[SocketAddr], protocol: Protocol, policy: Policy) -> ServiceSpec {
    let endpoints = addresses
        .iter()
        .enumerate()
        .map(|(index, address)| endpoint(*address, &format!("pod-{index}")));
    ServiceSpec {
        name: "shop/web:80".into(),
        protocol,
        addresses: vec![],
        endpoints: endpoints.collect(),
        policy,
    }
}

pub(crate) fn service(addresses: &[SocketAddr], protocol: Protocol, policy: Policy) -> Service {
    Service::new(spec(addresses, protocol, policy), None)
}
