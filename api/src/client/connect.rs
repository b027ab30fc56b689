//! A connection to an API server over HTTP/2: all watches and requests of a component share one, where HTTP/1 would
//! take a connection, its handshake and its buffers for each watch.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body::{Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client as HttpClient, Error as HttpError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{BoxError, Service, ServiceBuilder};

/// Watches on one connection. Servers allow 100 requests at once on one (kube-apiserver's default), and a watch is one
/// that does not end; the rest is for those that do.
const WATCHES_MAX: usize = 60;
/// Connections of one client: enough for more kinds than a server serves well.
const CONNECTIONS_MAX: usize = 16;
/// A connection that says nothing is asked this often whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Longest wait for a connection and its handshake.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Why no client could be made. The API server itself is not asked: requests do that.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file cannot be read or is no kubeconfig.
    #[error("reading the kubeconfig {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: KubeconfigError,
    },
    /// Its certificates or credentials cannot be used.
    #[error("using the credentials of {path}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client for the current context of a kubeconfig, over HTTP/2.
pub async fn connect(kubeconfig: &Path) -> Result<Client, ConnectError> {
    let path = || kubeconfig.to_owned();
    let read = |source| ConnectError::Read {
        path: path(),
        source,
    };
    let file = Kubeconfig::read_from(kubeconfig).map_err(read)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(read)?;
    connect_with(config).map_err(|source| ConnectError::Credentials {
        path: path(),
        source: Box::new(source),
    })
}

fn connect_with(config: Config) -> Result<Client, kube::Error> {
    let mut tls = config.rustls_client_config()?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = Connector { tls: Arc::new(tls) };
    let connection = || Lane {
        watches: Arc::default(),
        http: http_client(connector.clone()),
    };
    let lanes = Lanes {
        lanes: (0..CONNECTIONS_MAX).map(|_| connection()).collect(),
    };
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(lanes);
    Ok(Client::new(service, config.default_namespace))
}

fn http_client(connector: Connector) -> HttpClient<Connector, Body> {
    HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_only(true)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_while_idle(true)
        .build(connector)
}

/// The connections of a client; each is made when it is needed first.
#[derive(Clone)]
struct Lanes {
    lanes: Arc<[Lane]>,
}

struct Lane {
    /// Watches that are open now.
    watches: Arc<AtomicUsize>,
    http: HttpClient<Connector, Body>,
}

impl Service<Request<Body>> for Lanes {
    type Response = Response<Watched>;
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_watch = request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
        let lane = if is_watch {
            self.lane_for_watch()
        } else {
            &self.lanes[0]
        };
        let open = is_watch.then(|| Open::new(&lane.watches));
        let answer = lane.http.request(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Watched { body, _open: open })) })
    }
}

impl Lanes {
    /// The first connection that is not full; the emptiest if all are.
    fn lane_for_watch(&self) -> &Lane {
        let open = |lane: &&Lane| lane.watches.load(Ordering::Relaxed);
        let free = self.lanes.iter().find(|lane| open(lane) < WATCHES_MAX);
        free.or_else(|| self.lanes.iter().min_by_key(open))
            .expect("CONNECTIONS_MAX is not zero")
    }
}

/// Counts a watch while it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body, which keeps its watch counted.
struct Watched {
    body: Incoming,
    _open: Option<Open>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Opens TLS connections that speak HTTP/2.
#[derive(Clone)]
struct Connector {
    tls: Arc<rustls::ClientConfig>,
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the server's address {0} names no host")]
    NoHost(Uri),
    #[error("{0:?} is no server name")]
    Name(String, #[source] InvalidDnsNameError),
    #[error("no connection to {0} within {CONNECT_MAX:?}")]
    Timeout(String),
    #[error("connecting to {0}")]
    Tcp(String, #[source] io::Error),
    #[error("TLS handshake with {0}")]
    Tls(String, #[source] io::Error),
    #[error("{0} does not speak HTTP/2")]
    NoHttp2(String),
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        Box::pin(async move {
            let Some(host) = uri.host() else {
                return Err(DialError::NoHost(uri));
            };
            let host = host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            let address = format!("{host}:{}", uri.port_u16().unwrap_or(443));
            match tokio::time::timeout(CONNECT_MAX, dial(tls, host, uri.port_u16().unwrap_or(443)))
                .await
            {
                Ok(dialled) => dialled,
                Err(_) => Err(DialError::Timeout(address)),
            }
        })
    }
}

async fn dial(tls: TlsConnector, host: String, port: u16) -> Result<Stream, DialError> {
    let address = format!("{host}:{port}");
    let name =
        ServerName::try_from(host.clone()).map_err(|error| DialError::Name(host.clone(), error))?;
    let tcp = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| DialError::Tcp(address.clone(), error))?;
    // Only latency is lost if this fails.
    let _ = tcp.set_nodelay(true);
    let stream = tls
        .connect(name, tcp)
        .await
        .map_err(|error| DialError::Tls(address.clone(), error))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(DialError::NoHttp2(address));
    }
    Ok(Stream(TokioIo::new(stream)))
}

/// A TLS connection that the HTTP client can keep.
struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().negotiated_h2()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
