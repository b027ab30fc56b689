//! A client of HTTP/1, in the clear or in TLS 1.3: for what `wrk` and `h2load` cannot do.

use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http2::Http2Connection;

/// For a handshake and for an answer; what is measured takes a thousandth of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Connections of one source address, below what an edge usually allows a client.
const CONNECTIONS_PER_SOURCE: u64 = 200;
/// Sources are 127.0.0.2 to 127.0.0.201: enough ports even while closed connections keep theirs.
const SOURCES: u64 = 200;
/// Handshakes under way at once.
const HANDSHAKES: usize = 16;

/// Who is asked, and how.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// An open connection.
pub(crate) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// TLS 1.3 with one protocol and full handshakes only. X25519 alone, since not every peer knows a post-quantum group.
pub(crate) fn tls(certificate_pem: &str, protocol: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate_pem.as_bytes())?)?;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.into()];
    Ok(Arc::new(config))
}

/// Connects, asks once on each connection and closes it, again and again; how often that was.
pub(crate) async fn handshakes(target: &Target, duration: Duration) -> anyhow::Result<u64> {
    let end = Instant::now() + duration;
    let started = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..HANDSHAKES {
        let (target, started) = (target.clone(), started.clone());
        clients.spawn(async move {
            let mut done = 0;
            while Instant::now() < end {
                let source = source(started.fetch_add(1, Ordering::Relaxed));
                let mut connection = target.connect(source).await?;
                connection.ask(&target.host, "/1k", "close").await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(client) = clients.join_next().await {
        done += client.context("a client")??;
    }
    Ok(done)
}

/// Opens connections that have asked once and then wait; their indices spread them over source addresses.
pub(crate) async fn idle(target: &Target, indices: Range<u64>) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for index in indices {
        let source = source(index / CONNECTIONS_PER_SOURCE);
        let mut connection = target.connect(source).await?;
        connection.ask(&target.host, "/1k", "keep-alive").await?;
        connections.push(connection);
    }
    Ok(connections)
}

/// The same with HTTP/2 in TLS.
pub(crate) async fn idle_http2(
    target: &Target,
    indices: Range<u64>,
) -> anyhow::Result<Vec<Http2Connection>> {
    let mut connections = Vec::new();
    for index in indices {
        let source = source(index / CONNECTIONS_PER_SOURCE);
        let Connection::Tls(stream) = target.connect(source).await? else {
            bail!("HTTP/2 is asked for by ALPN");
        };
        let mut connection = Http2Connection::open(*stream).await?;
        connection.ask(&target.host, "/1k").await?;
        connections.push(connection);
    }
    Ok(connections)
}

fn source(index: u64) -> Ipv4Addr {
    let last = 2 + index % SOURCES;
    Ipv4Addr::new(127, 0, 0, u8::try_from(last).unwrap_or(2))
}

impl Target {
    pub(crate) async fn connect(&self, source: Ipv4Addr) -> anyhow::Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((IpAddr::V4(source), 0).into())?;
        let stream = timeout(PATIENCE, socket.connect(self.address));
        let stream = stream.await.context("connecting takes too long")??;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Connection::Plain(stream));
        };
        let name = ServerName::try_from(self.host.clone()).context("the host")?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream);
        let stream = timeout(PATIENCE, stream).await;
        let stream = stream.context("the handshake takes too long")??;
        let kind = stream.get_ref().1.handshake_kind();
        ensure!(kind == Some(HandshakeKind::Full), "handshake: {kind:?}");
        Ok(Connection::Tls(Box::new(stream)))
    }
}

impl Connection {
    /// Asks and reads the whole answer.
    pub(crate) async fn ask(
        &mut self,
        host: &str,
        path: &str,
        connection: &str,
    ) -> anyhow::Result<()> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n");
        let exchange: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + '_>> = match self {
            Self::Plain(stream) => Box::pin(exchange(stream, request)),
            Self::Tls(stream) => Box::pin(exchange(stream, request)),
        };
        timeout(PATIENCE, exchange).await.context("no answer")?
    }

    /// Whether the other side has not closed it. Takes what came meanwhile, so it is the last question.
    pub(crate) async fn is_open(&self) -> bool {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        // A tick of the runtime lets it hear of what is closed.
        tokio::task::yield_now().await;
        match stream.try_read(&mut [0; 1024]) {
            Ok(read) => read > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: String,
) -> anyhow::Result<()> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            bail!("the connection ended within an answer");
        }
        if let Some(answer) = Answer::read(&bytes)? {
            ensure!(
                answer.status == 200,
                "an answer with status {}",
                answer.status
            );
            if bytes.len() >= answer.bytes {
                return Ok(());
            }
        }
    }
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Head and body.
    pub(crate) bytes: usize,
    /// The connection ends after it.
    pub(crate) is_last: bool,
}

impl Answer {
    /// Nothing before the head is complete. Answers have a Content-Length, because the origin's do.
    pub(crate) fn read(bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&bytes[..end])?;
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let (mut length, mut is_last) = (None, false);
        for line in head.split("\r\n").skip(1) {
            let (name, value) = line.split_once(':').context("a field without a colon")?;
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse::<usize>().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                is_last = value.trim().eq_ignore_ascii_case("close");
            }
        }
        let length = length.with_context(|| format!("no Content-Length in {head}"))?;
        Ok(Some(Self {
            status: status.context("no status")?,
            bytes: end + 4 + length,
            is_last,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    fn check(bytes: &str, expected: Option<(u16, usize, bool)>) {
        let expected = expected.map(|(status, bytes, is_last)| Answer {
            status,
            bytes,
            is_last,
        });
        assert_eq!(Answer::read(bytes.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn heads_say_how_long_an_answer_is() {
        check("HTTP/1.1 200 OK\r\nContent-Len", None);
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
            Some((200, 43, false)),
        );
        check(
            "HTTP/1.1 404 Not Found\r\ncontent-length:0\r\nConnection: close\r\n\r\n",
            Some((404, 63, true)),
        );
        assert!(Answer::read(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
