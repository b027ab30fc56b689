//! Without HTTP: a TCP server that speaks lines, and a UDP server that answers datagrams.

use std::net::SocketAddr;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UdpSocket;

use crate::log;
use crate::options::PodContext;
use crate::tls::TlsFacts;

const WELCOME: &str = "Gateway API Test TCP Server\n";
/// Longest line that is read; a longer one ends the connection.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest datagram that is answered; longer ones are cut.
const DATAGRAM_BYTES_MAX: usize = 1024;

#[derive(Serialize)]
struct TcpReply<'a> {
    #[serde(flatten)]
    context: &'a PodContext,
    tcpport: String,
    tlsport: String,
    #[serde(rename = "isTLS")]
    is_tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'a TlsFacts>,
}

/// What `TEST` is answered with on this connection.
pub(crate) fn tcp_reply(context: &PodContext, ports: (u16, u16), tls: Option<&TlsFacts>) -> String {
    let reply = TcpReply {
        context,
        tcpport: ports.0.to_string(),
        tlsport: ports.1.to_string(),
        is_tls: tls.is_some(),
        tls,
    };
    serde_json::to_string(&reply).unwrap_or_default()
}

/// Greets, then answers the lines `TEST`, `IS_TLS` and `PING`; others are read and not answered.
pub(crate) async fn serve_tcp(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    reply: &str,
    is_tls: bool,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(WELCOME.as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    while read_line(&mut stream, &mut line).await? {
        let answer = match line.trim_ascii_end() {
            b"TEST" => reply,
            b"IS_TLS" if is_tls => "true",
            b"IS_TLS" => "false",
            b"PING" => "PONG",
            _ => continue,
        };
        stream.write_all(format!("{answer}\n").as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// The next line; false at the end, or when it is too long.
async fn read_line(
    stream: &mut (impl tokio::io::AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<bool> {
    line.clear();
    loop {
        let buffered = stream.fill_buf().await?;
        if buffered.is_empty() || line.len() > LINE_BYTES_MAX {
            return Ok(false);
        }
        let end = buffered.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(buffered.len(), |end| end + 1);
        line.extend_from_slice(&buffered[..taken]);
        stream.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[derive(Serialize)]
struct UdpReply<'a> {
    request: &'a str,
    #[serde(flatten)]
    context: &'a PodContext,
}

/// Answers each datagram with itself and where it was received, for ever.
pub(crate) async fn serve_udp(socket: UdpSocket, context: &PodContext) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        // An error belongs to an earlier datagram (its receiver refused it), not to the socket.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        answer_datagram(&socket, &buffer[..length], peer, context).await;
    }
}

async fn answer_datagram(
    socket: &UdpSocket,
    datagram: &[u8],
    peer: SocketAddr,
    context: &PodContext,
) {
    let request = String::from_utf8_lossy(datagram);
    log::line(format_args!("Received UDP {request} from {peer}"));
    let reply = UdpReply {
        request: &request,
        context,
    };
    let reply = serde_json::to_vec(&reply).unwrap_or_default();
    if let Err(error) = socket.send_to(&reply, peer).await {
        log::line(format_args!("Error writing UDP: {error}"));
    }
}
