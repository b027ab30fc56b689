//! HTTP/2 over TLS.

use std::future::Future;
use std::io;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;

use super::{Plan, Reply, TIMEOUT};
use crate::tls;

/// A connection with the runtime that drives it. Between requests nobody drives it; they come many a second.
pub(super) struct Client {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
}

impl Client {
    /// The connection, and the serial number of the certificate that the server showed.
    pub(super) fn open(plan: &Plan) -> io::Result<(Client, String)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (sender, serial) = runtime.block_on(in_time(connect(plan)))?;
        Ok((Client { runtime, sender }, serial))
    }

    /// The answer; none when the server had said goodbye, or refused the stream unseen.
    pub(super) fn exchange(&mut self, plan: &Plan) -> io::Result<Option<Reply>> {
        match self.runtime.block_on(in_time(ask(&mut self.sender, plan))) {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if is_unprocessed(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn connect(plan: &Plan) -> io::Result<(SendRequest<Bytes>, String)> {
    let tcp = TcpStream::connect(&plan.address).await?;
    tcp.set_nodelay(true)?;
    let connector = TlsConnector::from(tls::client("h2"));
    let stream = connector
        .connect(tls::server_name(&plan.host)?, tcp)
        .await?;
    let serial = tls::shown_serial(stream.get_ref().1)?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(io_error)?;
    // Its errors reach the requests; it ends with the runtime.
    tokio::spawn(connection);
    Ok((sender, serial))
}

async fn ask(sender: &mut SendRequest<Bytes>, plan: &Plan) -> io::Result<Reply> {
    let uri = format!("https://{}{}", plan.host, plan.path);
    let request = Request::get(uri).body(()).map_err(io::Error::other)?;
    let mut ready = sender.clone().ready().await.map_err(io_error)?;
    let (answer, _) = ready.send_request(request, true).map_err(io_error)?;
    let (head, mut body) = answer.await.map_err(io_error)?.into_parts();
    while let Some(data) = body.data().await {
        let length = data.map_err(io_error)?.len();
        let mut window = body.flow_control().clone();
        window.release_capacity(length).map_err(io_error)?;
    }
    let reason = head.headers.get("meshgate-reason");
    let reason = reason.and_then(|reason| reason.to_str().ok());
    Ok(Reply {
        status: head.status.as_u16(),
        reason: reason.unwrap_or_default().to_owned(),
        again: true,
    })
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn io_error(error: h2::Error) -> io::Error {
    io::Error::other(error)
}

/// RFC 9113 §6.8, §8.7: the server promises that it did nothing.
fn is_unprocessed(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let http2 = inner.and_then(|inner| inner.downcast_ref::<h2::Error>());
    http2.is_some_and(|error| {
        let reason = error.reason();
        (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
            || reason == Some(h2::Reason::REFUSED_STREAM)
    })
}
