//! What stands behind the proxies: an HTTP server that takes HTTP/1 and HTTP/2 and answers everything with 200.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::listen::listen;

/// Ends when dropped.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// Enough for the windows that suites play with.
const ANSWER_BYTES: usize = 1024;
/// Enough for a slow reader to be slow. No more: the kernel holds it for each of them, and a machine whose memory for TCP
/// is used up stalls everybody.
const LARGE_ANSWER_BYTES: usize = 512 * 1024;
/// The path of the large answer.
pub(crate) const LARGE: &str = "/large";

impl Origin {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let (address, tasks) = listen(serve).await?;
        Ok(Self {
            address,
            _tasks: tasks,
        })
    }
}

async fn serve(stream: TcpStream) {
    let server = auto::Builder::new(TokioExecutor::new());
    // Whoever breaks off is judged by the suite, not here.
    let _ = server
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    while let Some(Ok(_)) = request.body_mut().frame().await {}
    let length = match request.uri().path() {
        LARGE => LARGE_ANSWER_BYTES,
        _ => ANSWER_BYTES,
    };
    Ok(Response::new(vec![b'x'; length].into()))
}
