//! Connections at the edge: in the clear or with TLS, HTTP/1 or HTTP/2.

use std::sync::Arc;

use meshgate_codec::proxy_protocol::has_header;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Connection, Serving, serve_http1, serve_http2};
use crate::corked::Corked;
use crate::detect::{self, Detected, Spoken, detect};
use crate::io::Io;
use crate::tls::{ClientAuth, ClientProof};

/// A connection in the clear: HTTP/2 by prior knowledge, else HTTP/1.
pub(super) async fn clear(connection: Connection, mut io: Io) -> Option<Serving> {
    let mut ahead = detect::room();
    let looking = detect(&mut io, &mut ahead, connection.limits.header_timeout);
    let detected = tokio::select! {
        detected = looking => detected,
        () = connection.lingered() => return None,
    };
    if has_header(&ahead) {
        // Whoever may tell for whom it speaks was heard before. Not even an answer: this is no HTTP.
        let metrics = &connection.shared.metrics;
        metrics.refused("http", "proxy-header-untrusted");
        return None;
    }
    if ahead.is_empty() {
        return None;
    }
    let io = io.with_ahead(ahead.freeze());
    Some(match detected {
        Detected::Spoke(Spoken::Http2) => serve_http2(connection, io),
        _ => serve_http1(connection, io),
    })
}

/// A connection with TLS: the certificate by server name, the protocol by ALPN.
pub(super) async fn tls(mut connection: Connection, stream: TcpStream) -> Option<Serving> {
    let handshake = handshake(&connection, stream);
    let patience = connection.limits.handshake_timeout;
    let refused = match tokio::time::timeout(patience, handshake).await {
        Ok(Ok((name, proof, stream))) => {
            connection.server_name = name.map(Into::into);
            connection.client_proof = proof;
            connection.tls = true;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            return Some(match is_http2 {
                true => serve_http2(connection, Io::from(stream)),
                false => serve_http1(connection, Io::from(stream)),
            });
        }
        Ok(Err(why)) => why,
        Err(_) => "handshake-timeout",
    };
    connection.shared.metrics.refused("https", refused);
    None
}

/// A fatal alert, unrecognized_name (RFC 6066 §3), as a record of its own: the library has only access_denied to say.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 112];

/// The name that the client asked for, what it proved for that name, and the connection once it is secure.
async fn handshake(
    connection: &Connection,
    stream: TcpStream,
) -> Result<(Option<String>, ClientProof, TlsStream<Corked>), &'static str> {
    let failed = |error: std::io::Error| {
        tracing::debug!(client = %connection.client, %error, "TLS handshake failed");
        "handshake"
    };
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), Corked::new(stream))
        .await
        .map_err(failed)?;
    let name = start
        .client_hello()
        .server_name()
        .map(str::to_ascii_lowercase);
    let wanted = name.as_deref().unwrap_or_default();
    let (known, client_auth) = {
        let snapshot = connection.shared.snapshot.load();
        let certificates = &snapshot.certificates;
        (
            certificates.find(wanted).is_some(),
            certificates.client_auth(wanted).cloned(),
        )
    };
    if !known {
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        return Err("unknown-name");
    }
    let config = {
        let tls = &connection.shared.edge_tls;
        let hello = start.client_hello();
        match client_auth.as_deref() {
            // What nobody can prove is not asked for: requests are told why.
            None | Some(ClientAuth::Refused(_)) => tls.config(hello.cipher_suites()).clone(),
            Some(ClientAuth::Named(authorities)) => tls
                .demanding(authorities, hello.cipher_suites())
                .map_err(|error| failed(std::io::Error::other(error)))?,
        }
    };
    let stream = start.into_stream(config).await.map_err(failed)?;
    let proof = proof(connection, client_auth, &stream)?;
    Ok((name, proof, stream))
}

fn proof(
    connection: &Connection,
    demanded: Option<Arc<ClientAuth>>,
    stream: &TlsStream<Corked>,
) -> Result<ClientProof, &'static str> {
    let client = connection.client;
    let proof = ClientProof::of(demanded, stream.get_ref().1.peer_certificates());
    let proof = proof.map_err(|error| {
        tracing::debug!(%client, %error, "the client's certificate names nobody");
        "identity"
    })?;
    if let Some(identity) = proof.identity() {
        tracing::debug!(%client, %identity, "the client has proved who it is");
    }
    Ok(proof)
}
