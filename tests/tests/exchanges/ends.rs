//! Both ends of an exchange in the test's hand: a client, and the application that it asks.
//!
//! Both are hyper's, so that each step of an exchange is written once for HTTP/1 and HTTP/2. One task moves both: what
//! one end says is heard at the other before the next word, and a proxy that keeps something back hangs the test.

use std::convert::Infallible;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::poll_fn;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// No body.
pub(crate) fn nothing() -> Body {
    Empty::new().boxed()
}

/// A body that is said piece by piece. It ends when its sayer is dropped.
pub(crate) fn spoken() -> (Sayer, Body) {
    let (sender, mut receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let frames = poll_fn(move |cx| receiver.poll_recv(cx).map(|frame| frame.map(Ok)));
    (Sayer(sender), StreamBody::new(frames).boxed())
}

/// One end's words.
pub(crate) struct Sayer(mpsc::Sender<Frame<Bytes>>);

impl Sayer {
    pub(crate) async fn say(&self, data: impl Into<Bytes>) {
        let said = self.0.send(Frame::data(data.into())).await;
        assert!(said.is_ok(), "nobody listens any more");
    }

    /// The last word.
    pub(crate) async fn end(self, trailers: HeaderMap) {
        let said = self.0.send(Frame::trailers(trailers)).await;
        assert!(said.is_ok(), "nobody listens any more");
    }

    /// Waits until nobody listens any more.
    pub(crate) async fn unheard(&self) {
        self.0.closed().await;
    }
}

/// What the other end says.
pub(crate) struct Hearer {
    body: Incoming,
    ahead: BytesMut,
    pub(crate) trailers: HeaderMap,
}

impl From<Incoming> for Hearer {
    fn from(body: Incoming) -> Self {
        Self {
            body,
            ahead: BytesMut::new(),
            trailers: HeaderMap::new(),
        }
    }
}

impl Hearer {
    /// The next piece as it comes; `None` at the end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = self.body.frame().await.transpose()? {
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => self.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok(None)
    }

    /// The next so many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Bytes {
        while self.ahead.len() < count {
            let piece = self.piece().await.expect("a body that is not cut");
            let piece = piece.unwrap_or_else(|| panic!("ended after {:?}", self.ahead));
            self.ahead.extend_from_slice(&piece);
        }
        self.ahead.split_to(count).freeze()
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Bytes {
        while let Some(piece) = self.piece().await.expect("a body that is not cut") {
            self.ahead.extend_from_slice(&piece);
        }
        self.ahead.split().freeze()
    }

    /// Nothing more was said, and it was not cut.
    pub(crate) async fn end(&mut self) {
        assert_eq!(self.rest().await, "");
    }

    /// A message of gRPC.
    pub(crate) async fn message(&mut self) -> Bytes {
        let mut head = self.exactly(5).await;
        assert_eq!(head.get_u8(), 0, "not compressed");
        let length = head.get_u32() as usize;
        self.exactly(length).await
    }

    /// Whether the end is known without another look.
    pub(crate) fn is_ended(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// What a connection is made of.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A client with one connection; dropped, it is gone without a word.
pub(crate) struct Client {
    asks: Asks,
    host: String,
    driver: JoinHandle<()>,
}

enum Asks {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub(crate) async fn new(wire: Box<dyn Wire>, version: Version, host: &str) -> Self {
        let io = TokioIo::new(wire);
        let (asks, driver) = match version {
            Version::HTTP_2 => {
                let shaken = http2::handshake(TokioExecutor::new(), io).await;
                let (asks, connection) = shaken.expect("HTTP/2");
                // Its errors reach those who ask.
                let driver = tokio::spawn(async move { drop(connection.await) });
                (Asks::Http2(asks), driver)
            }
            _ => {
                let (asks, connection) = http1::handshake(io).await.expect("HTTP/1");
                let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
                (Asks::Http1(asks), driver)
            }
        };
        Self {
            asks,
            host: host.to_owned(),
            driver,
        }
    }

    pub(crate) fn version(&self) -> Version {
        match self.asks {
            Asks::Http1(_) => Version::HTTP_11,
            Asks::Http2(_) => Version::HTTP_2,
        }
    }

    /// A request to be filled in.
    pub(crate) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let host = &self.host;
        let request = Request::builder().method(method);
        match self.version() {
            Version::HTTP_2 => request.uri(format!("http://{host}{path}")),
            _ => request.uri(path).header("host", host),
        }
    }

    /// Asks. The answer is waited for meanwhile.
    pub(crate) async fn ask(&mut self, request: Request<Body>) -> Asking {
        // The end of the exchange before may be known to the body's reader first.
        Asking(match &mut self.asks {
            Asks::Http1(asks) => {
                asks.ready().await.expect("a connection");
                tokio::spawn(asks.send_request(request))
            }
            Asks::Http2(asks) => {
                asks.ready().await.expect("a connection");
                tokio::spawn(asks.send_request(request))
            }
        })
    }
}

/// An answer that is waited for; dropped, it is given up.
pub(crate) struct Asking(JoinHandle<hyper::Result<Response<Incoming>>>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Asking {
    pub(crate) async fn response(mut self) -> Response<Incoming> {
        let answered = (&mut self.0).await.expect("asking does not panic");
        answered.expect("an answer")
    }

    /// Waits until there is an answer, or there will be none.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.0).await;
    }

    /// Head and body of the answer.
    pub(crate) async fn answer(self) -> (http::response::Parts, Hearer) {
        let (head, body) = self.response().await.into_parts();
        (head, body.into())
    }
}

/// An application, HTTP/1 and HTTP/2 on one port, whose every answer is the test's.
pub(crate) struct Application {
    arrivals: mpsc::Receiver<Arrival>,
    _task: JoinSet<()>,
}

/// A request that came.
pub(crate) struct Arrival {
    pub(crate) request: Request<Incoming>,
    answer: oneshot::Sender<Response<Body>>,
}

impl Arrival {
    /// Head, body, and the way back.
    pub(crate) fn open(self) -> (http::request::Parts, Hearer, Answerer) {
        let (head, body) = self.request.into_parts();
        (head, body.into(), Answerer(self.answer))
    }

    /// Answers with nothing but success.
    pub(crate) async fn succeed(self) -> http::request::Parts {
        let (head, mut body, answerer) = self.open();
        body.end().await;
        answerer.answer(Response::new(nothing()));
        head
    }
}

/// The way of an answer.
pub(crate) struct Answerer(oneshot::Sender<Response<Body>>);

impl Answerer {
    pub(crate) fn answer(self, response: Response<Body>) {
        assert!(self.0.send(response).is_ok(), "nobody waits for it");
    }

    /// Waits until nobody waits for the answer.
    pub(crate) async fn unheard(mut self) {
        self.0.closed().await;
    }
}

impl Application {
    pub(crate) fn start(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (sender, arrivals) = mpsc::channel(16);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, sender));
        Ok(Self {
            arrivals,
            _task: task,
        })
    }

    /// The next request.
    pub(crate) async fn arrival(&mut self) -> Arrival {
        self.arrivals.recv().await.expect("it accepts for ever")
    }

    /// What nobody asked for.
    pub(crate) fn unexpected(&mut self) -> Option<Request<Incoming>> {
        self.arrivals.try_recv().ok().map(|arrival| arrival.request)
    }
}

async fn accept(listener: TcpListener, arrivals: mpsc::Sender<Arrival>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        // What is said in turns must not wait for acknowledgements.
        stream.set_nodelay(true).expect("a TCP option");
        while connections.try_join_next().is_some() {}
        let arrivals = arrivals.clone();
        connections.spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http2().enable_connect_protocol();
            let service = service_fn(move |request| arrive(request, arrivals.clone()));
            let io = TokioIo::new(stream);
            // Who breaks off is the test's affair.
            let _ = server.serve_connection_with_upgrades(io, service).await;
        });
    }
}

async fn arrive(
    request: Request<Incoming>,
    arrivals: mpsc::Sender<Arrival>,
) -> Result<Response<Body>, &'static str> {
    let (answer, answered) = oneshot::channel();
    let arrival = Arrival { request, answer };
    arrivals
        .send(arrival)
        .await
        .map_err(|_| "the test is over")?;
    answered.await.map_err(|_| "no answer is given")
}
