//! Clients that ask in rounds: on every connection, or in every stream, at once; then they wait for all answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::origin::message_length;

/// What is asked, and how.
pub(crate) enum Load {
    Http1 {
        connections: u32,
        request: &'static str,
    },
    Tls {
        connections: u32,
        request: &'static str,
    },
    /// Each request on a connection of its own, behind a full handshake.
    Handshakes { request: &'static str },
    Http2 {
        connections: u32,
        streams: u32,
        path: &'static str,
    },
}

impl Load {
    pub(crate) const fn http1(connections: u32, request: &'static str) -> Self {
        Self::Http1 {
            connections,
            request,
        }
    }

    pub(crate) const fn tls(connections: u32, request: &'static str) -> Self {
        Self::Tls {
            connections,
            request,
        }
    }

    pub(crate) const fn http2(connections: u32, streams: u32, path: &'static str) -> Self {
        Self::Http2 {
            connections,
            streams,
            path,
        }
    }

    /// Asks so many times in all.
    pub(crate) fn run(
        &self,
        edge: SocketAddr,
        tls: &Arc<ClientConfig>,
        requests: u32,
    ) -> anyhow::Result<()> {
        match *self {
            Self::Http1 {
                connections,
                request,
            } => {
                let streams = (0..connections).map(|_| connect(edge)).collect();
                http1(streams, request, requests / connections)
            }
            Self::Tls {
                connections,
                request,
            } => {
                let streams = (0..connections).map(|_| connect_tls(edge, tls)).collect();
                http1(streams, request, requests / connections)
            }
            Self::Handshakes { request } => (0..requests)
                .try_for_each(|_| http1(connect_tls(edge, tls).map(|s| vec![s]), request, 1)),
            Self::Http2 {
                connections,
                streams,
                path,
            } => tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()?
                .block_on(http2(
                    edge,
                    connections,
                    (streams, path),
                    requests / connections / streams,
                )),
        }
    }
}

fn connect(edge: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(edge).context("the edge")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Shakes hands with the first request.
fn connect_tls(
    edge: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("h777.bench.test")?;
    let session = ClientConnection::new(tls.clone(), name)?;
    Ok(StreamOwned::new(session, connect(edge)?))
}

fn http1<S: Read + Write>(
    streams: anyhow::Result<Vec<S>>,
    request: &str,
    rounds: u32,
) -> anyhow::Result<()> {
    let mut streams = streams?;
    let mut answer = Vec::new();
    for _ in 0..rounds {
        for stream in &mut streams {
            stream.write_all(request.as_bytes())?;
        }
        for stream in &mut streams {
            read_answer(stream, &mut answer)?;
        }
    }
    Ok(())
}

fn read_answer(stream: &mut impl Read, answer: &mut Vec<u8>) -> anyhow::Result<()> {
    answer.clear();
    let mut piece = [0; 16 * 1024];
    while message_length(answer).is_none_or(|length| answer.len() < length) {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "the edge closed a connection");
        answer.extend_from_slice(&piece[..count]);
    }
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "not a 200: {}",
        answer.escape_ascii()
    );
    Ok(())
}

async fn http2(
    edge: SocketAddr,
    connections: u32,
    (streams, path): (u32, &str),
    rounds: u32,
) -> anyhow::Result<()> {
    let mut senders = Vec::new();
    // Connections end with this set.
    let mut drivers = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let stream = tokio::net::TcpStream::connect(edge)
            .await
            .context("the edge")?;
        stream.set_nodelay(true)?;
        let (sender, driver) = h2::client::handshake(stream).await?;
        drivers.spawn(driver);
        senders.push(sender);
    }
    let uri = format!("http://h777.bench.test{path}");
    for _ in 0..rounds {
        let mut answers = Vec::new();
        for sender in &senders {
            for _ in 0..streams {
                let mut sender = sender.clone().ready().await?;
                let request = http::Request::get(uri.as_str()).body(())?;
                answers.push(sender.send_request(request, true)?.0);
            }
        }
        for answer in answers {
            let answer = answer.await?;
            ensure!(answer.status() == 200, "not a 200: {}", answer.status());
            let mut body = answer.into_body();
            while let Some(data) = body.data().await {
                let data: Bytes = data?;
                body.flow_control().release_capacity(data.len())?;
            }
        }
    }
    Ok(())
}
