//! hyper as a reverse proxy and nothing else: a server and a client with a pool, on one thread.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use meshgate_peers::{Arguments, Routes, find, use_aws_lc};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The origin's, or none because of a failure.
type Answer = Either<Incoming, Empty<Bytes>>;

/// What every request needs.
struct Proxy {
    routes: Routes,
    client: Client<HttpConnector, Incoming>,
}

fn main() -> anyhow::Result<()> {
    use_aws_lc()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime")?;
    runtime.block_on(run(Arguments::of_process()?))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let tls = TlsAcceptor::from(Arc::new(tls(&arguments)?));
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let proxy = Arc::new(Proxy {
        routes: arguments.routes,
        client: Client::builder(TokioExecutor::new()).build(connector),
    });
    let http = TcpListener::bind(arguments.http).await.context("--http")?;
    let https = TcpListener::bind(arguments.https).await;
    let https = https.context("--https")?;
    let plain = accept(&http, |stream| serve(proxy.clone(), stream));
    let encrypted = accept(&https, |stream| {
        let (tls, proxy) = (tls.clone(), proxy.clone());
        async move {
            if let Ok(stream) = tls.accept(stream).await {
                serve(proxy, stream).await;
            }
        }
    });
    tokio::try_join!(plain, encrypted).map(drop)
}

fn tls(arguments: &Arguments) -> anyhow::Result<ServerConfig> {
    let certificates = CertificateDer::pem_file_iter(&arguments.certificate);
    let certificates = certificates.and_then(Iterator::collect);
    let key = PrivateKeyDer::from_pem_file(&arguments.key).context("--key")?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates.context("--certificate")?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves each connection in a task, until accepting fails.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: &TcpListener,
    serve: impl Fn(TcpStream) -> F,
) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        connections.spawn(serve(stream));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(proxy: Arc<Proxy>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let answer = service_fn(|request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.forward(request).await) }
    });
    // Whoever hangs up in the middle ends only this connection.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

impl Proxy {
    async fn forward(&self, request: Request<Incoming>) -> Response<Answer> {
        match self.send(request).await {
            Ok(answer) => answer.map(Either::Left),
            Err(status) => {
                let mut answer = Response::new(Either::Right(Empty::new()));
                *answer.status_mut() = status;
                answer
            }
        }
    }

    async fn send(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, StatusCode> {
        if let Some(authority) = request.uri().authority() {
            let host = HeaderValue::from_str(authority.as_str());
            let host = host.map_err(|_| StatusCode::BAD_REQUEST)?;
            request.headers_mut().insert(HOST, host);
        }
        let host = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok());
        let host = host.ok_or(StatusCode::BAD_REQUEST)?;
        let origin = find(&self.routes, host).ok_or(StatusCode::NOT_FOUND)?;
        let path = request.uri().path_and_query().cloned();
        let mut uri = Uri::default().into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Authority::try_from(origin.to_string()).ok();
        uri.path_and_query = path.or(Some(PathAndQuery::from_static("/")));
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| StatusCode::BAD_REQUEST)?;
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().remove(CONNECTION);
        let answer = self.client.request(request).await;
        let mut answer = answer.map_err(|_| StatusCode::BAD_GATEWAY)?;
        answer.headers_mut().remove(CONNECTION);
        // hyper answers in the version that was asked with.
        *answer.version_mut() = Version::default();
        Ok(answer)
    }
}
