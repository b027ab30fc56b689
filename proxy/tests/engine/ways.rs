//! The ways that a request may take to an application: through the edge, through sidecars, by HTTP/1 and HTTP/2.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use meshgate_proxy::{
    EngineOptions, ListenerKind, ListenerLimits, OriginalDestination, Policy, Protocol, Service,
    ServiceSpec, Services, Snapshot,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::kit::{Act, Origin, Proxy, endpoint, ok, service_of, soon};
use crate::mesh::{Mesh, Pair, strict};

/// One way, with the application at its end.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    application: Application,
    _proxies: Vec<Proxy>,
}

enum Application {
    Http1(Origin),
    Http2(Http2Origin),
}

impl Application {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(origin) => origin.address,
            Self::Http2(origin) => origin.address,
        }
    }
}

impl Way {
    /// All of them.
    pub(crate) async fn all() -> Vec<Self> {
        let mut ways = Self::to_http1(ok("secret")).await;
        ways.push(Self::edge_to_http2().await);
        ways
    }

    /// Those to an application that speaks HTTP/1.
    pub(crate) async fn to_http1(act: Act) -> Vec<Self> {
        vec![
            Self::edge(act.clone()).await,
            Self::outbound(Application::Http1(Origin::start(act.clone()).await)),
            Self::inbound(Application::Http1(Origin::start(act.clone()).await)),
            Self::mesh(Application::Http1(Origin::start(act).await)),
        ]
    }

    /// Those of clients that speak HTTP/2: a sidecar speaks with the application as the client does with it.
    pub(crate) async fn of_http2_clients() -> Vec<Self> {
        let application = || async { Application::Http2(Http2Origin::start().await) };
        vec![
            Self::edge(ok("secret")).await,
            Self::edge_to_http2().await,
            Self::outbound(application().await),
            Self::inbound(application().await),
            Self::mesh(application().await),
        ]
    }

    async fn edge(act: Act) -> Self {
        let origin = Origin::start(act).await;
        let proxy = Proxy::edge(one(origin.address, Protocol::Auto));
        Self::new("edge", Application::Http1(origin), vec![proxy])
    }

    async fn edge_to_http2() -> Self {
        let origin = Http2Origin::start().await;
        let proxy = Proxy::edge(one(origin.address, Protocol::Http2));
        Self::new("edge to HTTP/2", Application::Http2(origin), vec![proxy])
    }

    /// From an application to one that has no sidecar.
    fn outbound(application: Application) -> Self {
        let address = application.address();
        let kind = ListenerKind::Outbound(OriginalDestination::Fixed(address));
        let proxy = Proxy::start(EngineOptions::default(), [(kind, ListenerLimits::mesh())]);
        proxy.engine.swap(reached_at(address));
        Self::new("outbound", application, vec![proxy])
    }

    /// From a client without a sidecar.
    fn inbound(application: Application) -> Self {
        let address = application.address();
        let kind = ListenerKind::InboundPlain(OriginalDestination::Fixed(address));
        let options = EngineOptions {
            application_address: Some(address.ip()),
            ..EngineOptions::default()
        };
        let proxy = Proxy::start(options, [(kind, ListenerLimits::mesh())]);
        proxy.engine.swap(Snapshot::default());
        Self::new("inbound", application, vec![proxy])
    }

    /// Through two sidecars, which speak HTTP/2 with each other.
    fn mesh(application: Application) -> Self {
        let pair = Pair::start(&Mesh::new(), application.address(), "web", strict());
        Self::new("mesh", application, vec![pair.client, pair.server])
    }

    fn new(name: &'static str, application: Application, proxies: Vec<Proxy>) -> Self {
        Self {
            name,
            address: proxies[0].address(),
            application,
            _proxies: proxies,
        }
    }

    /// What the application saw of complete requests.
    pub(crate) fn seen(&self) -> Vec<String> {
        match &self.application {
            Application::Http1(origin) => origin.seen(),
            Application::Http2(origin) => origin.seen(),
        }
    }

    /// The application, if it speaks HTTP/1.
    pub(crate) fn origin(&self) -> &Origin {
        match &self.application {
            Application::Http1(origin) => origin,
            Application::Http2(_) => panic!("{} leads to HTTP/2", self.name),
        }
    }
}

/// A service at that address, with the endpoint that listens there.
pub(crate) fn reached_at(address: SocketAddr) -> Snapshot {
    let service = ServiceSpec {
        name: "shop/web:80".into(),
        protocol: Protocol::Auto,
        addresses: vec![address],
        endpoints: vec![endpoint(address, "pod")],
        policy: Policy::default(),
    };
    Snapshot {
        services: Services::new([Arc::new(Service::new(service, None))], true),
        ..Snapshot::default()
    }
}

fn one(address: SocketAddr, protocol: Protocol) -> Service {
    let spec = ServiceSpec {
        name: "shop/web:80".into(),
        protocol,
        addresses: vec![],
        endpoints: vec![endpoint(address, "pod")],
        policy: Policy::default(),
    };
    match protocol {
        Protocol::Auto => service_of(spec.endpoints, spec.policy, None),
        _ => Service::new(spec, None),
    }
}

/// Everything to an application that speaks HTTP/2.
pub(crate) fn http2_service(address: SocketAddr) -> Service {
    one(address, Protocol::Http2)
}

/// An HTTP/2 server that answers complete requests with 200 and an empty body.
pub(crate) struct Http2Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Http2Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Http2Origin {
    pub(crate) async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (address, task) = {
            let seen = seen.clone();
            serve_http2(move |request, respond| note(request, respond, seen.clone())).await
        };
        Self {
            address,
            seen,
            task,
        }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn note(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    let line = format!("{} {}\r\n\r\n", request.method(), request.uri().path());
    if let Ok((body, _)) = read_all(request.into_body()).await {
        seen.lock().unwrap().push(line + &body);
        let _ = respond.send_response(Response::new(()), true);
    }
}

/// An HTTP/2 server that does with each stream as it is told.
pub(crate) async fn serve_http2<F: Future<Output = ()> + Send + 'static>(
    act: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let act = Arc::new(act);
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let act = act.clone();
            connections.spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                let mut streams = tokio::task::JoinSet::new();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    streams.spawn(act(request, respond));
                }
            });
        }
    });
    (address, task)
}

/// A body to its end, and its trailers.
pub(crate) async fn read_all(
    mut body: RecvStream,
) -> Result<(String, Option<HeaderMap>), h2::Error> {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        text.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    Ok((String::from_utf8_lossy(&text).into_owned(), trailers))
}

/// What an HTTP/2 client gets.
pub(crate) struct Http2Answer {
    pub(crate) status: u16,
    pub(crate) fields: HeaderMap,
    /// Whether it came to its end, and what it was.
    pub(crate) body: Result<(String, Option<HeaderMap>), h2::Error>,
}

/// One exchange over HTTP/2 with prior knowledge. Pieces of the body are sent one by one; `None` as trailers ends it.
pub(crate) async fn ask_http2(
    address: SocketAddr,
    request: Request<()>,
    body: &[&'static str],
    trailers: Option<HeaderMap>,
) -> Result<Http2Answer, h2::Error> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await?;
    let is_empty = body.is_empty() && trailers.is_none();
    let (answer, mut send) = client.send_request(request, is_empty)?;
    for (index, piece) in body.iter().enumerate() {
        let last = index + 1 == body.len() && trailers.is_none();
        // The answer may have come before.
        let _ = send.send_data(Bytes::from_static(piece.as_bytes()), last);
    }
    if let Some(trailers) = trailers {
        send.send_trailers(trailers)?;
    }
    let (head, body) = soon(answer).await?.into_parts();
    let body = soon(read_all(body)).await;
    driver.abort();
    Ok(Http2Answer {
        status: head.status.as_u16(),
        fields: head.headers,
        body,
    })
}
