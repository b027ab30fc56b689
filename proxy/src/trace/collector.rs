//! Connections to the collector.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::net::{TcpStream, lookup_host};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::upstream::connect_tcp;

/// OTLP's port for gRPC.
const PORT: u16 = 4317;
/// A collector that vanished without a word is noticed after this much silence, and as much again.
const PING_INTERVAL: Duration = Duration::from_secs(10);

pub(super) type Client = TraceServiceClient<Channel>;

/// Where a collector takes OTLP over gRPC: `http://HOST:PORT` or `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(Uri);

impl FromStr for Collector {
    type Err = InvalidCollector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri = text.parse().ok();
        uri.filter(|uri: &Uri| {
            let scheme = uri.scheme_str();
            matches!(scheme, Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty())
        })
        .map(Self)
        .ok_or_else(|| InvalidCollector(text.to_owned()))
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is no address of a collector.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address of a collector; it must be http://HOST:PORT or https://HOST:PORT")]
pub struct InvalidCollector(String);

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoClient {
    #[error("cannot read the collector's CA {}", path.display())]
    ReadCa { path: PathBuf, source: io::Error },
    #[error("cannot use the collector's CA or address")]
    Tls(#[source] tonic::transport::Error),
}

impl Collector {
    /// A client that connects when it has something to send, and again whenever that is needed. With https the collector
    /// proves itself to the CA of that file, or to one that the machine trusts.
    pub(super) fn client(
        &self,
        ca: Option<&PathBuf>,
        mark: Option<u32>,
    ) -> Result<Client, NoClient> {
        let mut endpoint = Endpoint::from(self.0.clone())
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL);
        if self.0.scheme_str() == Some("https") {
            let tls = ClientTlsConfig::new();
            let tls = match ca {
                None => tls.with_native_roots(),
                Some(path) => {
                    let pem = std::fs::read(path).map_err(|source| NoClient::ReadCa {
                        path: path.clone(),
                        source,
                    })?;
                    tls.ca_certificate(Certificate::from_pem(pem))
                }
            };
            endpoint = endpoint.tls_config(tls).map_err(NoClient::Tls)?;
        }
        let connector =
            tower::service_fn(
                move |to: Uri| async move { connect(&to, mark).await.map(TokioIo::new) },
            );
        let channel = endpoint.connect_with_connector_lazy(connector);
        Ok(TraceServiceClient::new(channel))
    }
}

async fn connect(to: &Uri, mark: Option<u32>) -> io::Result<TcpStream> {
    let host = to.host().unwrap_or_default().trim_matches(['[', ']']);
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in lookup_host((host, to.port_u16().unwrap_or(PORT))).await? {
        match connect_tcp(address, mark).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for right in [
            "http://c:4317",
            "https://[::1]:4317",
            "http://127.0.0.1:1/x",
        ] {
            assert!(right.parse::<Collector>().is_ok(), "{right}");
        }
        for wrong in ["", "c:4317", "ftp://c:1", "http://", "/path", "http:// c"] {
            assert!(wrong.parse::<Collector>().is_err(), "{wrong}");
        }
    }
}
